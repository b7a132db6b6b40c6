//! Elementwise operators of one input without attributes: a table of functions.
use crate::half::{bf16, f16};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema, unsupported_dtype};
use crate::ops::numeric::{Real, each};
use crate::{DType, Result, Tensor, Value};

/// An elementwise operator of one input: the same function on every element, the same type out as in.
pub struct Unary {
    name: &'static str,
    since: &'static [i64],
    /// In f32 for the narrower floats, too.
    f32: fn(f32) -> f32,
    f64: fn(f64) -> f64,
    /// `None` where ONNX defines the operator on floats only.
    ints: Option<Ints>,
}

/// The function on integers, widened; wraps on the way back.
struct Ints {
    signed: fn(i64) -> i64,
    unsigned: fn(u64) -> u64,
}

macro_rules! ints {
    () => {
        None
    };
    ($signed:expr, $unsigned:expr) => {
        Some(Ints { signed: $signed, unsigned: $unsigned })
    };
}
macro_rules! table {
    ($($doc:literal $id:ident = $name:literal $since:expr, $f:expr $(, ints($signed:expr, $unsigned:expr))?;)*) => { $(
        #[doc = $doc]
        pub static $id: Unary =
            Unary { name: $name, since: &$since, f32: $f, f64: $f, ints: ints!($($signed, $unsigned)?) };
    )* };
}

table! {
    "`Abs`." ABS = "Abs" [1, 6, 13], |x| x.abs(), ints(i64::wrapping_abs, |x| x);
    "`Acos`." ACOS = "Acos" [7, 22], |x| x.acos();
    "`Acosh`." ACOSH = "Acosh" [9, 22], |x| x.acosh();
    "`Asin`." ASIN = "Asin" [7, 22], |x| x.asin();
    "`Asinh`." ASINH = "Asinh" [9, 22], |x| x.asinh();
    "`Atan`." ATAN = "Atan" [7, 22], |x| x.atan();
    "`Atanh`." ATANH = "Atanh" [9, 22], |x| x.atanh();
    "`Ceil`." CEIL = "Ceil" [1, 6, 13], |x| x.ceil();
    "`Cos`." COS = "Cos" [7, 22], |x| x.cos();
    "`Cosh`." COSH = "Cosh" [9, 22], |x| x.cosh();
    "`Erf`: the error function." ERF = "Erf" [9, 13], |x| Real::erf(x);
    "`Exp`." EXP = "Exp" [1, 6, 13], |x| x.exp();
    "`Floor`." FLOOR = "Floor" [1, 6, 13], |x| x.floor();
    "`HardSwish`: `x * max(0, min(1, x / 6 + 0.5))`." HARD_SWISH = "HardSwish" [14, 22],
        |x| x * (x / 6.0 + 0.5).clamp(0.0, 1.0);
    "`Log`: the natural logarithm." LOG = "Log" [1, 6, 13], |x| x.ln();
    "`Mish`: `x * tanh(ln(1 + exp(x)))`." MISH = "Mish" [18, 22], |x| x * softplus(x).tanh();
    "`Neg`." NEG = "Neg" [1, 6, 13], |x| -x, ints(i64::wrapping_neg, u64::wrapping_neg);
    "`Reciprocal`." RECIPROCAL = "Reciprocal" [1, 6, 13], |x| 1.0 / x;
    "`Relu`: `max(x, 0)`, NaN stays NaN." RELU = "Relu" [1, 6, 13, 14],
        |x| if x < 0.0 { 0.0 } else { x }, ints(|x| x.max(0), |x| x);
    "`Round`: to the nearest integer, halves to even." ROUND = "Round" [11, 22], |x| x.round_ties_even();
    "`Sigmoid`: `1 / (1 + exp(-x))`." SIGMOID = "Sigmoid" [1, 6, 13], |x| sigmoid(x);
    "`Sign`: -1, 0 or 1; NaN stays NaN." SIGN = "Sign" [9, 13],
        |x| if x > 0.0 { 1.0 } else if x < 0.0 { -1.0 } else if x == 0.0 { 0.0 } else { x },
        ints(i64::signum, |x| x.min(1));
    "`Sin`." SIN = "Sin" [7, 22], |x| x.sin();
    "`Sinh`." SINH = "Sinh" [9, 22], |x| x.sinh();
    "`Softplus`: `ln(1 + exp(x))`." SOFTPLUS = "Softplus" [1, 22], |x| softplus(x);
    "`Softsign`: `x / (1 + |x|)`." SOFTSIGN = "Softsign" [1, 22], |x| x / (1.0 + x.abs());
    "`Sqrt`." SQRT = "Sqrt" [1, 6, 13], |x| x.sqrt();
    "`Tan`." TAN = "Tan" [7, 22], |x| x.tan();
    "`Tanh`." TANH = "Tanh" [1, 6, 13], |x| x.tanh();
}

/// `1 / (1 + exp(-x))` without overflow on either side.
pub(crate) fn sigmoid<T: Real>(x: T) -> T {
    if x < T::ZERO {
        let e = x.exp();
        e / (T::ONE + e)
    } else {
        T::ONE / (T::ONE + (-x).exp())
    }
}

/// `ln(1 + exp(x))` without overflow.
pub(crate) fn softplus<T: Real>(x: T) -> T {
    let tail = (-x.abs()).exp().ln_1p();
    if x > T::ZERO { x + tail } else { tail }
}

impl Operator for Unary {
    fn schema(&self) -> Schema {
        Schema { name: self.name, domain: "", since: self.since, inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![cx.ty(0)?.clone().into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        macro_rules! map {
            ($t:ty, $f:expr) => {
                Tensor::new(x.shape(), each(&x.as_slice::<$t>()?, $f))?
            };
        }
        let f = self.f32;
        let y = match (x.dtype(), &self.ints) {
            (DType::F32, _) => map!(f32, |v| f(*v)),
            (DType::F64, _) => map!(f64, |v| (self.f64)(*v)),
            (DType::F16, _) => map!(f16, |v| f16::from_f32(f(v.to_f32()))),
            (DType::BF16, _) => map!(bf16, |v| bf16::from_f32(f(v.to_f32()))),
            (DType::I8, Some(g)) => map!(i8, |v| (g.signed)(i64::from(*v)) as i8),
            (DType::I16, Some(g)) => map!(i16, |v| (g.signed)(i64::from(*v)) as i16),
            (DType::I32, Some(g)) => map!(i32, |v| (g.signed)(i64::from(*v)) as i32),
            (DType::I64, Some(g)) => map!(i64, |v| (g.signed)(*v)),
            (DType::U8, Some(g)) => map!(u8, |v| (g.unsigned)(u64::from(*v)) as u8),
            (DType::U16, Some(g)) => map!(u16, |v| (g.unsigned)(u64::from(*v)) as u16),
            (DType::U32, Some(g)) => map!(u32, |v| (g.unsigned)(u64::from(*v)) as u32),
            (DType::U64, Some(g)) => map!(u64, |v| (g.unsigned)(*v)),
            (other, _) => return Err(unsupported_dtype(other)),
        };
        Ok(vec![y.into()])
    }
}
