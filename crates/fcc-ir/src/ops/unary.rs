//! Elementwise operators of one input without attributes: a table of functions.
use crate::half::{bf16, f16};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema, unsupported_dtype};
use crate::{DType, Result, Tensor, Value};

/// An elementwise operator of one input: the same function on every element.
pub struct Unary {
    name: &'static str,
    since: &'static [i64],
    /// On floats, computed in f64 for `double` and in f32 for the narrower types.
    f32: fn(f32) -> f32,
    f64: fn(f64) -> f64,
    /// On integers, widened; `None` where ONNX defines the operator on floats only.
    int: Option<fn(i64) -> i64>,
}

/// `Abs`.
pub static ABS: Unary =
    Unary { name: "Abs", since: &[1, 6, 13], f32: f32::abs, f64: f64::abs, int: Some(i64::wrapping_abs) };
/// `Relu`: `max(x, 0)`, NaN stays NaN.
pub static RELU: Unary = Unary {
    name: "Relu",
    since: &[1, 6, 13, 14],
    f32: |x| if x < 0.0 { 0.0 } else { x },
    f64: |x| if x < 0.0 { 0.0 } else { x },
    int: Some(|x| x.max(0)),
};

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
                Tensor::new(x.shape(), x.as_slice::<$t>()?.iter().map($f).collect::<Vec<$t>>())?
            };
        }
        let f = self.f32;
        let y = match (x.dtype(), self.int) {
            (DType::F32, _) => map!(f32, |v| f(*v)),
            (DType::F64, _) => map!(f64, |v| (self.f64)(*v)),
            (DType::F16, _) => map!(f16, |v| f16::from_f32(f(v.to_f32()))),
            (DType::BF16, _) => map!(bf16, |v| bf16::from_f32(f(v.to_f32()))),
            (DType::I8, Some(g)) => map!(i8, |v| g(i64::from(*v)) as i8),
            (DType::I16, Some(g)) => map!(i16, |v| g(i64::from(*v)) as i16),
            (DType::I32, Some(g)) => map!(i32, |v| g(i64::from(*v)) as i32),
            (DType::I64, Some(g)) => map!(i64, |v| g(*v)),
            (DType::U8 | DType::U16 | DType::U32 | DType::U64, Some(_)) => x.clone(),
            (other, _) => return Err(unsupported_dtype(other)),
        };
        Ok(vec![y.into()])
    }
}
