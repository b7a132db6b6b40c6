//! `IsNaN`, `IsInf`, `Not` and `BitwiseNot`: elementwise, on truth values, bits or to truth values.
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::numeric::{Num, with_real};
use crate::{DType, Error, OpNode, Result, Tensor, TensorType, Value};

/// `IsNaN`.
pub struct IsNaN;
/// `IsInf`.
pub struct IsInf;
/// `Not`.
pub struct Not;
/// `BitwiseNot`.
pub struct BitwiseNot;

/// Which infinities `IsInf` finds: (negative, positive).
pub fn detects(node: &OpNode) -> Result<(bool, bool)> {
    Ok((node.attrs.flag("detect_negative", true)?, node.attrs.flag("detect_positive", true)?))
}

/// Whether a code of an 8-bit float is NaN, infinite and negative.
fn float8_class(dtype: DType, code: u8) -> Option<(bool, bool, bool)> {
    let (magnitude, negative) = (code & 0x7f, code >= 0x80);
    Some(match dtype {
        DType::F8E4M3FN => (magnitude == 0x7f, false, negative),
        DType::F8E5M2 => (magnitude > 0x7c, magnitude == 0x7c, negative),
        DType::F8E4M3FNUZ | DType::F8E5M2FNUZ => (code == 0x80, false, false),
        _ => return None,
    })
}

/// Classifies every element: (NaN, infinite, negative).
fn classify(x: &Tensor, f: impl Fn(bool, bool, bool) -> bool) -> Result<Tensor> {
    let dtype = x.dtype();
    if float8_class(dtype, 0).is_some() {
        let classes = x.bytes().iter().filter_map(|c| float8_class(dtype, *c));
        return Tensor::from_bools(x.shape(), classes.map(|(n, i, s)| f(n, i, s)));
    }
    with_real!(dtype, T => {
        let x64 = T::load(x)?;
        let values = x64.iter().map(|v| f(v.is_nan(), v.is_infinite(), v.is_sign_negative()));
        Tensor::from_bools(x.shape(), values)
    })
}

fn to_bool(cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
    Ok(vec![TensorType { dtype: DType::Bool, shape: cx.shape(0)?.cloned() }.into()])
}

impl Operator for IsNaN {
    fn schema(&self) -> Schema {
        Schema { name: "IsNaN", domain: "", since: &[9, 13, 20], inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        to_bool(cx)
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        Ok(vec![classify(cx.tensor(0)?, |nan, _, _| nan)?.into()])
    }
}

impl Operator for IsInf {
    fn schema(&self) -> Schema {
        Schema { name: "IsInf", domain: "", since: &[10, 20], inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        to_bool(cx)
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (negative, positive) = detects(cx.node)?;
        let found = |_, infinite, minus: bool| infinite && if minus { negative } else { positive };
        Ok(vec![classify(cx.tensor(0)?, found)?.into()])
    }
}

impl Operator for Not {
    fn schema(&self) -> Schema {
        Schema { name: "Not", domain: "", since: &[1], inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        to_bool(cx)
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        Ok(vec![Tensor::from_bools(x.shape(), x.as_bools()?.into_iter().map(|v| !v))?.into()])
    }
}

impl Operator for BitwiseNot {
    fn schema(&self) -> Schema {
        Schema { name: "BitwiseNot", domain: "", since: &[18], inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![cx.ty(0)?.clone().into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        if !matches!(x.dtype().bits(), 8 | 16 | 32 | 64) || !x.dtype().is_int() {
            return Err(Error::mismatch("element type", x.dtype(), "an integer"));
        }
        // the complement of an integer is the complement of its bytes
        let bytes: Vec<u8> = x.bytes().iter().map(|b| !b).collect();
        Ok(vec![Tensor::from_bytes(x.dtype(), x.shape(), bytes.into())?.into()])
    }
}
