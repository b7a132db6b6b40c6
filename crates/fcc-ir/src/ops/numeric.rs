//! Arithmetic that operators share: narrow floats compute in f32 and round once, integers wrap.
use crate::half::{bf16, f16};
use crate::limits::{reserve, watched};
use crate::op::unsupported_dtype;
use crate::{DType, Elem, Result, Tensor};
use std::borrow::Cow;

/// A type that operators compute in.
pub(crate) trait Num: Elem {
    const ZERO: Self;
    const ONE: Self;
    /// Least value of the type (minus infinity for floats).
    const LOWEST: Self;
    /// Greatest value of the type (infinity for floats).
    const HIGHEST: Self;
    fn plus(self, other: Self) -> Self;
    fn minus(self, other: Self) -> Self;
    fn times(self, other: Self) -> Self;
    /// The nearest value of this type, towards zero and saturating for integers.
    fn from_f64(v: f64) -> Self;
    fn to_f64(self) -> f64;
    fn is_nan(self) -> bool;
    /// The elements of a tensor in this type. Floats take every float type; integers only their own.
    fn load(t: &Tensor) -> Result<Cow<'_, [Self]>>;
    /// A tensor of `dtype` (rounded once). Floats give every float type; integers only their own.
    fn store(dtype: DType, shape: impl Into<Vec<usize>>, data: Vec<Self>) -> Result<Tensor>;
}

macro_rules! ints { ($($t:ty)*) => { $(
    impl Num for $t {
        const ZERO: Self = 0;
        const ONE: Self = 1;
        const LOWEST: Self = <$t>::MIN;
        const HIGHEST: Self = <$t>::MAX;
        fn plus(self, other: Self) -> Self { self.wrapping_add(other) }
        fn minus(self, other: Self) -> Self { self.wrapping_sub(other) }
        fn times(self, other: Self) -> Self { self.wrapping_mul(other) }
        fn from_f64(v: f64) -> Self { v as $t }
        fn to_f64(self) -> f64 { self as f64 }
        fn is_nan(self) -> bool { false }
        fn load(t: &Tensor) -> Result<Cow<'_, [Self]>> { t.as_slice() }
        fn store(dtype: DType, shape: impl Into<Vec<usize>>, data: Vec<Self>) -> Result<Tensor> {
            if dtype != <$t as Elem>::DTYPE { return Err(unsupported_dtype(dtype)); }
            Tensor::new(shape, data)
        }
    }
)* } }
ints! { u8 i8 u16 i16 u32 i32 u64 i64 }

/// A float that operators compute in: f32 or f64.
pub(crate) trait Real:
    Num
    + std::ops::Add<Output = Self>
    + std::ops::Sub<Output = Self>
    + std::ops::Mul<Output = Self>
    + std::ops::Div<Output = Self>
    + std::ops::Neg<Output = Self>
    + std::ops::AddAssign
    + std::ops::MulAssign
    + std::ops::DivAssign
{
    /// A small constant or an attribute.
    fn of(v: f32) -> Self;
    fn exp(self) -> Self;
    fn exp_m1(self) -> Self;
    fn ln(self) -> Self;
    fn ln_1p(self) -> Self;
    fn sqrt(self) -> Self;
    fn powf(self, e: Self) -> Self;
    fn tanh(self) -> Self;
    fn abs(self) -> Self;
    fn erf(self) -> Self;
}

macro_rules! reals { ($($t:ty, $own:ident, [$($narrow:ident => $n:ty),*], $wide:ident => $w:ty;)*) => { $(
    impl Num for $t {
        const ZERO: Self = 0.0;
        const ONE: Self = 1.0;
        const LOWEST: Self = <$t>::NEG_INFINITY;
        const HIGHEST: Self = <$t>::INFINITY;
        fn plus(self, other: Self) -> Self { self + other }
        fn minus(self, other: Self) -> Self { self - other }
        fn times(self, other: Self) -> Self { self * other }
        fn from_f64(v: f64) -> Self { v as $t }
        fn to_f64(self) -> f64 { self as f64 }
        fn is_nan(self) -> bool { <$t>::is_nan(self) }
        fn load(t: &Tensor) -> Result<Cow<'_, [Self]>> {
            match t.dtype() {
                DType::$own => t.as_slice(),
                $(DType::$narrow => {
                    reserve(t.len().saturating_mul(size_of::<$t>()))?;
                    Ok(t.as_slice::<$n>()?.iter().map(|v| f32::from(*v) as $t).collect())
                })*
                DType::$wide => {
                    reserve(t.len().saturating_mul(size_of::<$t>()))?;
                    Ok(t.as_slice::<$w>()?.iter().map(|v| *v as $t).collect())
                }
                other => Err(unsupported_dtype(other)),
            }
        }
        fn store(dtype: DType, shape: impl Into<Vec<usize>>, data: Vec<Self>) -> Result<Tensor> {
            match dtype {
                DType::$own => Tensor::new(shape, data),
                $(DType::$narrow => Tensor::new(shape, data.iter().map(|v| round_to(*v)).collect::<Vec<$n>>()),)*
                DType::$wide => Tensor::new(shape, data.iter().map(|v| *v as $w).collect::<Vec<$w>>()),
                other => Err(unsupported_dtype(other)),
            }
        }
    }
    impl Real for $t {
        fn of(v: f32) -> Self { v as $t }
        fn exp(self) -> Self { <$t>::exp(self) }
        fn exp_m1(self) -> Self { <$t>::exp_m1(self) }
        fn ln(self) -> Self { <$t>::ln(self) }
        fn ln_1p(self) -> Self { <$t>::ln_1p(self) }
        fn sqrt(self) -> Self { <$t>::sqrt(self) }
        fn powf(self, e: Self) -> Self { <$t>::powf(self, e) }
        fn tanh(self) -> Self { <$t>::tanh(self) }
        fn abs(self) -> Self { <$t>::abs(self) }
        fn erf(self) -> Self { erf(self as f64) as $t }
    }
)* } }
reals! {
    f32, F32, [F16 => f16, BF16 => bf16], F64 => f64;
    f64, F64, [F16 => f16, BF16 => bf16], F32 => f32;
}

/// Rounds every element to `dtype` and back: the value after an intermediate tensor of that type.
pub(crate) fn round_through<T: Real>(dtype: DType, data: &mut [T]) {
    match dtype {
        DType::F16 => data.iter_mut().for_each(|v| *v = T::from_f64(f16::from_f64(v.to_f64()).to_f64())),
        DType::BF16 => data.iter_mut().for_each(|v| *v = T::from_f64(bf16::from_f64(v.to_f64()).to_f64())),
        DType::F32 => data.iter_mut().for_each(|v| *v = T::of(v.to_f64() as f32)),
        _ => {}
    }
}

/// Rounding to a narrow float, once and to nearest even, from f32 or f64.
trait Narrow<W> {
    fn narrow(v: W) -> Self;
}
macro_rules! narrow { ($($n:ty)*) => { $(
    impl Narrow<f32> for $n { fn narrow(v: f32) -> Self { <$n>::from_f32(v) } }
    impl Narrow<f64> for $n { fn narrow(v: f64) -> Self { <$n>::from_f64(v) } }
)* } }
narrow! { f16 bf16 }
fn round_to<W, N: Narrow<W>>(v: W) -> N {
    N::narrow(v)
}

/// `f` of each element, up to where a limit of the run is reached (see [`watched`]).
pub(crate) fn each<A, B>(x: &[A], mut f: impl FnMut(&A) -> B) -> Vec<B> {
    let mut y = Vec::with_capacity(x.len());
    watched(x.chunks(1024)).for_each(|part| y.extend(part.iter().map(&mut f)));
    y
}

/// The error function to within a few units in the last place of f64:
/// `erf(x) = 2/sqrt(pi) * exp(-x^2) * sum_n 2^n x^(2n+1) / (2n+1)!!`, whose terms all have one sign.
pub(crate) fn erf(x: f64) -> f64 {
    if x.is_nan() {
        return x;
    }
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > sum.abs() * 1e-17 {
        n += 1.0;
        term *= 2.0 * x * x / (2.0 * n + 1.0);
        sum += term;
    }
    (std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp() * sum).clamp(-1.0, 1.0)
}

/// Evaluates `$body` with `$T` bound to the type a float dtype computes in; errors on any other dtype.
macro_rules! with_real {
    ($dtype:expr, $T:ident => $body:expr) => {
        match $dtype {
            $crate::DType::F32 | $crate::DType::F16 | $crate::DType::BF16 => {
                type $T = f32;
                $body
            }
            $crate::DType::F64 => {
                type $T = f64;
                $body
            }
            other => return Err($crate::op::unsupported_dtype(other)),
        }
    };
}
pub(crate) use with_real;

/// Evaluates `$body` with `$T` bound to the type a float or integer dtype computes in; errors on any other dtype.
macro_rules! with_num {
    ($dtype:expr, $T:ident => $body:expr) => {{
        let dtype = $dtype;
        let narrow = matches!(dtype, $crate::DType::F16 | $crate::DType::BF16);
        let computed = if narrow { $crate::DType::F32 } else { dtype };
        $crate::dispatch_native!(computed, $T => $body, else return Err($crate::op::unsupported_dtype(dtype)))
    }};
}
pub(crate) use with_num;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erf_is_accurate() {
        // values of Abramowitz and Stegun, table 7.1
        for (x, want) in [
            (0.0, 0.0),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.0, 0.995_322_265_018_952_7),
            (-1.0, -0.842_700_792_949_714_9),
            (7.0, 1.0),
        ] {
            assert!((erf(x) - want).abs() <= 4e-16, "erf({x}) = {}", erf(x));
        }
        assert!(erf(f64::NAN).is_nan());
    }

    #[test]
    fn narrow_floats_round_once() {
        let t = f32::store(DType::F16, vec![1], vec![1.0 + 1.0 / 4096.0]).unwrap();
        assert_eq!(t.as_slice::<f16>().unwrap()[0], f16::ONE);
    }
}
