//! Products of 8-bit integers with exact 32-bit sums: matrices and convolutions.
//!
//! What a product computes is `y = f(Σ (x - x_zero) * (w - w_zero) + bias)`: the sums are exact modulo 2^32 whatever the
//! signs and zero points, and `f` is an expression of f32s (scales, activations, rounding), or nothing.
//!
//! - `w - w_zero` is a constant: it is what gets packed ([`pack`]), four k together. Where it does not fit a signed byte
//!   (zero points far from the middle), it is split into a sum of bytes and the products run once for each.
//! - `x_zero * Σ (w - w_zero)` is known for each column when packing, or read at run time with the zero point.
//! - Padding is the zero point of x: convolutions find it in the halo ([`halo`]).
pub mod conv;
pub mod gemm;
pub mod halo;
mod micro;
mod nest;
pub mod pack;
pub mod range;

use super::elem::Elem;
use super::ew::Expr;
use crate::asm::{Dot, Isa};
use crate::error::{Error, Result};
use crate::module::Emitter;
use cranelift_module::Module;

/// The zero point of x.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Zero {
    /// A number.
    Const(i32),
    /// An operand of one element of the type of x.
    Operand,
}

/// Where the expression of an [`Epilogue`] finds one of its inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A constant for each column.
    Column,
    /// An operand of one element.
    Scalar(Elem),
    /// An operand shaped like y: at most one.
    Residual(Elem),
}

/// What happens to sums before they are stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Epilogue {
    /// An expression whose input 0 is the sum as f32; `None` stores the sums as int32.
    pub expr: Option<Expr>,
    /// Its other inputs.
    pub inputs: Vec<Input>,
    /// The type of y.
    pub out: Elem,
}

impl Epilogue {
    /// The sums themselves.
    pub fn sums() -> Epilogue {
        Epilogue { expr: None, inputs: vec![], out: Elem::I32 }
    }
    /// Its constants for columns.
    pub fn columns(&self) -> usize {
        self.inputs.iter().filter(|i| **i == Input::Column).count()
    }
    /// The type of the residual, if there is one.
    pub fn residual(&self) -> Option<Elem> {
        self.inputs.iter().find_map(|i| if let Input::Residual(e) = i { Some(*e) } else { None })
    }
}

/// How products are summed, for names of kernels.
fn way(dot: Dot) -> &'static str {
    match dot {
        Dot::Words => "words",
        Dot::Bytes => "vnni",
        Dot::Tiles => "amx",
    }
}

/// That a product summed so has a kernel here: products of bytes are written for x86-64 with vectors of 256 bits or more,
/// and use no instruction that the emitter may not.
fn check_way<M: Module>(e: &Emitter<M>, dot: Dot) -> Result<()> {
    let there = match dot {
        Dot::Words => true,
        Dot::Bytes => e.dot() == Dot::Bytes,
        Dot::Tiles => e.has_tiles(),
    };
    match e.isa() {
        Isa::Baseline => Err(Error::unsupported("product of bytes", "needs AVX2 or AVX-512")),
        isa if !there => {
            Err(Error::unsupported("product of bytes", format!("no {} at level {isa}", way(dot))))
        }
        _ => Ok(()),
    }
}
