//! Activations that kernels apply to their results before storing them.

use crate::asm::Asm;
use crate::error::Result;

/// A function of one value, in ONNX's words.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Activation {
    /// `max(x, 0)`; NaN stays NaN.
    Relu,
    /// `min(max(x, low), high)`; infinite bounds are free.
    Clip {
        /// Lower bound.
        low: f32,
        /// Upper bound.
        high: f32,
    },
    /// `x < 0 ? alpha * x : x`
    LeakyRelu {
        /// Slope below 0.
        alpha: f32,
    },
    /// `x * min(max(x / 6 + 0.5, 0), 1)`
    HardSwish,
    /// `min(max(alpha * x + beta, 0), 1)`
    HardSigmoid {
        /// Slope.
        alpha: f32,
        /// Offset.
        beta: f32,
    },
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// `x / (1 + exp(-x))`
    Silu,
    /// `tanh(x)`
    Tanh,
    /// `0.5 * x * (1 + erf(x / √2))`
    Gelu,
    /// `scale * max(x, 0) + shift`
    ScaledRelu {
        /// Factor.
        scale: f32,
        /// Offset.
        shift: f32,
    },
    /// `scale * HardSwish(x) + shift`
    ScaledHardSwish {
        /// Factor.
        scale: f32,
        /// Offset.
        shift: f32,
    },
}

impl Activation {
    /// Emits the function in place on each of `regs`; `temps` holds at least three other registers.
    pub fn emit(self, w: &mut Asm, regs: &[usize], temps: [usize; 3]) -> Result<()> {
        let [t0, t1, _] = temps;
        if self == Activation::Relu {
            w.zero(t0)?;
        }
        for &d in regs {
            match self {
                Activation::Relu => w.relu(d, t0)?,
                Activation::Clip { low, high } => w.clamp(d, low, high, t0)?,
                Activation::LeakyRelu { alpha } => w.leaky_relu(d, alpha, [t0, t1])?,
                Activation::HardSwish => w.hard_swish(d, [t0, t1])?,
                Activation::HardSigmoid { alpha, beta } => w.hard_sigmoid(d, alpha, beta, t0)?,
                Activation::Sigmoid => w.sigmoid(d, [t0, t1])?,
                Activation::Silu => w.silu(d, temps)?,
                Activation::Tanh => w.tanh(d, temps)?,
                Activation::Gelu => w.gelu(d, temps)?,
                Activation::ScaledRelu { scale, shift } => {
                    w.zero(t0)?;
                    w.relu(d, t0)?;
                    w.splat(t0, scale)?;
                    w.fma213(d, t0, shift)?;
                }
                Activation::ScaledHardSwish { scale, shift } => {
                    w.hard_swish(d, [t0, t1])?;
                    w.splat(t0, scale)?;
                    w.fma213(d, t0, shift)?;
                }
            }
        }
        Ok(())
    }
}
