//! The activation functions of recurrent cells.
use crate::asm::{Asm, Cmp, Src};
use crate::error::Result;
use crate::kernels::activation::Activation;

/// A function that a recurrent layer may name. `Softplus` has no code.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum CellFunction {
    /// One that other kernels have too.
    Act(Activation),
    /// `alpha * x + beta`
    Affine {
        /// Factor.
        alpha: f32,
        /// Offset.
        beta: f32,
    },
    /// `x < alpha ? 0 : x`
    ThresholdedRelu {
        /// Threshold.
        alpha: f32,
    },
    /// `alpha * tanh(beta * x)`
    ScaledTanh {
        /// Factor of the result.
        alpha: f32,
        /// Factor of the argument.
        beta: f32,
    },
    /// `x < 0 ? alpha * (e^x - 1) : x`
    Elu {
        /// Limit below 0.
        alpha: f32,
    },
    /// `x / (1 + |x|)`
    Softsign,
}

impl CellFunction {
    /// Emits the function in place; the `t` are overwritten.
    pub(super) fn emit(self, w: &mut Asm, d: usize, t: [usize; 3]) -> Result<()> {
        match self {
            CellFunction::Act(a) => a.emit(w, &[d], t),
            CellFunction::Affine { alpha, beta } => {
                w.splat(t[0], alpha)?;
                w.fma213(d, t[0], beta)
            }
            CellFunction::ThresholdedRelu { alpha } => {
                w.zero(t[0])?;
                w.select(d, Cmp::Lt, d, alpha, t[0], d, t[1])
            }
            CellFunction::ScaledTanh { alpha, beta } => {
                w.mul(d, d, beta)?;
                w.tanh(d, t)?;
                w.mul(d, d, alpha)
            }
            CellFunction::Elu { alpha } => {
                w.mov(t[2], d)?;
                w.exp(t[2], [t[0], t[1]])?;
                w.sub(t[2], t[2], 1.0)?;
                w.mul(t[2], t[2], alpha)?;
                w.select(d, Cmp::Lt, d, 0.0, t[2], d, t[0])
            }
            CellFunction::Softsign => {
                w.and(t[0], d, Src::Bits(0x7fff_ffff))?;
                w.add(t[0], t[0], 1.0)?;
                w.div(d, d, t[0])
            }
        }
    }
}
