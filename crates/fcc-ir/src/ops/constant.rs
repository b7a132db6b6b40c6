//! `Constant`: a value written in the graph. <https://onnx.ai/onnx/operators/onnx__Constant.html>
use crate::attr::AttrValue;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{Error, OpNode, Result, Tensor, Value, ValueType};

/// `Constant`.
pub struct Constant;

/// The tensor that a `Constant` node holds; `Ok(None)` for a sparse one. Errors without exactly one value.
pub fn tensor(node: &OpNode) -> Result<Option<Tensor>> {
    let mut found = None;
    for attr in node.attrs.iter() {
        let value = match (attr.name.as_str(), &attr.value) {
            ("value", AttrValue::Tensor(t)) => Some(t.tensor.clone()),
            ("sparse_value", AttrValue::SparseTensor(_)) => None,
            ("value_float", AttrValue::Float(v)) => Some(Tensor::scalar(*v)),
            ("value_floats", AttrValue::Floats(v)) => Some(Tensor::new(vec![v.len()], v.to_vec())?),
            ("value_int", AttrValue::Int(v)) => Some(Tensor::scalar(*v)),
            ("value_ints", AttrValue::Ints(v)) => Some(Tensor::from_i64s(v.to_vec())),
            ("value_string", AttrValue::String(v)) => Some(Tensor::from_strings(vec![], [v.clone()])?),
            ("value_strings", AttrValue::Strings(v)) => {
                Some(Tensor::from_strings(vec![v.len()], v.iter().cloned())?)
            }
            (name, value) => {
                return Err(Error::mismatch(
                    format!("attribute `{name}`"),
                    format!("{:?}", value.kind()),
                    "one of Constant's values",
                ));
            }
        };
        if found.replace(value).is_some() {
            return Err(Error::mismatch("values of Constant", "several", "one"));
        }
    }
    found.ok_or_else(|| Error::mismatch("values of Constant", "none", "one"))
}

impl Operator for Constant {
    fn schema(&self) -> Schema {
        Schema {
            name: "Constant",
            domain: "",
            since: &[1, 9, 11, 12, 13, 19, 21, 23, 24, 25],
            inputs: (0, 0),
            outputs: (1, 1),
        }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![match tensor(cx.node)? {
            Some(t) => Fact::constant(t),
            None => ValueType::Unknown.into(),
        }])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        match tensor(cx.node)? {
            Some(t) => Ok(vec![t.into()]),
            None => match cx.node.attrs.get("sparse_value") {
                Some(AttrValue::SparseTensor(s)) => Ok(vec![s.tensor().to_dense()?.into()]),
                _ => Err(Error::mismatch("values of Constant", "none", "one")),
            },
        }
    }
}
