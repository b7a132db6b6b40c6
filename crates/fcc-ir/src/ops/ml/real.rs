//! The two number formats that scores and thresholds are computed in.
use crate::{DType, Elem, Result, Tensor};
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, Neg, Sub};

/// `f32` or `f64`.
pub trait Real:
    Elem
    + Copy
    + Default
    + PartialOrd
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + DivAssign
{
    /// The nearest number.
    fn from_f64(v: f64) -> Self;
    /// The number as f64, exact.
    fn to_f64(self) -> f64;
    /// The number as f32, rounded.
    fn to_f32(self) -> f32;
    /// e to the power of the number.
    fn exp(self) -> Self;
    /// The natural logarithm.
    fn ln(self) -> Self;
    /// The square root.
    fn sqrt(self) -> Self;
    /// Without its sign.
    fn abs(self) -> Self;
    /// Whether it is NaN.
    fn is_nan(self) -> bool;
    /// A bit pattern that holds a whole number, for [`Real::whole`] to read back.
    fn of_whole(n: u32) -> Self;
    /// The whole number that a bit pattern of [`Real::of_whole`] holds.
    fn whole(self) -> u32;
}

macro_rules! real {
    ($t:ident, $bits:ident) => {
        impl Real for $t {
            fn from_f64(v: f64) -> Self {
                v as $t
            }
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            fn to_f32(self) -> f32 {
                self as f32
            }
            fn exp(self) -> Self {
                $t::exp(self)
            }
            fn ln(self) -> Self {
                $t::ln(self)
            }
            fn sqrt(self) -> Self {
                $t::sqrt(self)
            }
            fn abs(self) -> Self {
                $t::abs(self)
            }
            fn is_nan(self) -> bool {
                $t::is_nan(self)
            }
            fn of_whole(n: u32) -> Self {
                $t::from_bits($bits::from(n))
            }
            fn whole(self) -> u32 {
                self.to_bits() as u32
            }
        }
    };
}
real!(f32, u32);
real!(f64, u64);

/// The elements of a numeric tensor in this format, integers and wider floats rounded to nearest.
pub fn reals<T: Real>(t: &Tensor) -> Result<Vec<T>> {
    if t.dtype() == T::DTYPE {
        return Ok(t.as_slice::<T>()?.into_owned());
    }
    // each integer is rounded once, as by a cast in C
    if T::DTYPE == DType::F32 {
        return Ok(crate::convert::to_f32s(t)?.into_iter().map(|v| T::from_f64(f64::from(v))).collect());
    }
    Ok(crate::convert::to_f64s(t)?.into_iter().map(T::from_f64).collect())
}
