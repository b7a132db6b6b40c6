//! `Optional`, `OptionalGetElement`, `OptionalHasElement`. <https://onnx.ai/onnx/operators/onnx__Optional.html>
use crate::attr::AttrValue;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{DType, Error, OpNode, Result, Tensor, TensorType, Value, ValueType};

/// `Optional`.
pub struct Optional;
/// `OptionalGetElement`.
pub struct OptionalGetElement;
/// `OptionalHasElement`.
pub struct OptionalHasElement;

/// The attribute `type`, which an optional without a value needs.
fn declared(node: &OpNode) -> Result<ValueType> {
    match node.attrs.get("type") {
        Some(AttrValue::Type(t)) => Ok(t.clone()),
        _ => Err(Error::mismatch("attribute `type`", "none", "a type, where no input gives it")),
    }
}

impl Operator for Optional {
    fn schema(&self) -> Schema {
        Schema { name: "Optional", domain: "", since: &[15, 28], inputs: (0, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let ty = if cx.has(0) { cx.ty(0)?.clone() } else { declared(cx.node)? };
        Ok(vec![ValueType::Optional(Box::new(ty)).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        Ok(vec![if cx.has(0) {
            let value = cx.value(0)?;
            Value::Optional(value.value_type(), Some(Box::new(value.clone())))
        } else {
            Value::Optional(declared(cx.node)?, None)
        }])
    }
}

impl Operator for OptionalGetElement {
    fn schema(&self) -> Schema {
        Schema {
            name: "OptionalGetElement",
            domain: "",
            since: &[15, 18, 28],
            inputs: (1, 1),
            outputs: (1, 1),
        }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![match cx.ty(0)? {
            ValueType::Optional(t) => (**t).clone().into(),
            // since version 18 a value that is no optional is its own element
            _ => cx.fact(0)?.clone(),
        }])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        match cx.value(0)? {
            Value::Optional(_, Some(value)) => Ok(vec![(**value).clone()]),
            Value::Optional(_, None) => Err(Error::mismatch("optional", "no value", "a value")),
            other => Ok(vec![other.clone()]),
        }
    }
}

impl Operator for OptionalHasElement {
    fn schema(&self) -> Schema {
        Schema {
            name: "OptionalHasElement",
            domain: "",
            since: &[15, 18, 28],
            inputs: (0, 1),
            outputs: (1, 1),
        }
    }
    fn infer(&self, _: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![TensorType::new(DType::Bool, Vec::<usize>::new()).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let has = cx.has(0) && !matches!(cx.value(0)?, Value::Optional(_, None));
        Ok(vec![Tensor::from_bools([], [has])?.into()])
    }
}
