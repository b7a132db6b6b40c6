//! `Identity`: the input itself. <https://onnx.ai/onnx/operators/onnx__Identity.html>
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{Result, Value};

/// `Identity`.
pub struct Identity;

impl Operator for Identity {
    fn schema(&self) -> Schema {
        Schema {
            name: "Identity",
            domain: "",
            since: &[1, 13, 14, 16, 19, 21, 23, 24, 25],
            inputs: (1, 1),
            outputs: (1, 1),
        }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![cx.fact(0)?.clone()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        Ok(vec![cx.value(0)?.clone()])
    }
}
