//! `SwiGLU`: `a * sigmoid(alpha * a) * b`. <https://onnx.ai/onnx/operators/onnx__SwiGLU.html>
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::numeric::{Num, Real, round_through, with_real};
use crate::ops::unary::sigmoid;
use crate::{Error, OpNode, Result, Value};

/// `SwiGLU`.
pub struct SwiGlu;

/// Factor of the gate inside the sigmoid.
pub fn alpha(node: &OpNode) -> Result<f32> {
    node.attrs.float_or("alpha", 1.0)
}

impl Operator for SwiGlu {
    fn schema(&self) -> Schema {
        Schema { name: "SwiGLU", domain: "", since: &[28], inputs: (2, 2), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        alpha(cx.node)?;
        Ok(vec![cx.ty(0)?.clone().into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (a, b) = (cx.tensor(0)?, cx.tensor(1)?);
        if (a.shape(), a.dtype()) != (b.shape(), b.dtype()) {
            return Err(Error::mismatch("type of B", b.tensor_type(), format!("{} as A", a.tensor_type())));
        }
        let alpha = alpha(cx.node)?;
        with_real!(a.dtype(), T => {
            let mut y: Vec<T> = T::load(a)?.iter().map(|v| *v * sigmoid(T::of(alpha) * *v)).collect();
            round_through(a.dtype(), &mut y);
            y.iter_mut().zip(T::load(b)?.iter()).for_each(|(y, b)| *y *= *b);
            Ok(vec![T::store(a.dtype(), a.shape(), y)?.into()])
        })
    }
}
