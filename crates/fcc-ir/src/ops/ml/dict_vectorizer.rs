//! `DictVectorizer`. <https://onnx.ai/onnx/operators/onnx_aionnxml_DictVectorizer.html>
use super::classes::Classes;
use crate::convert::{Narrowing, cast};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::movement;
use crate::{Bytes, DType, Dim, Error, OpNode, Result, Tensor, TensorType, Value, ValueType};
use std::collections::HashMap;

/// `DictVectorizer`: a map's values in the order of a vocabulary, `[1, N]`.
pub struct DictVectorizer;

fn vocabulary(node: &OpNode) -> Result<Classes> {
    Classes::of(node, "string_vocabulary", "int64_vocabulary")
}

/// What stands for a key that the map does not have: zero, or the empty string.
fn nothing(dtype: DType) -> Result<Tensor> {
    match dtype {
        DType::String => Tensor::from_strings([1], [Bytes::new()]),
        dtype => cast(&Tensor::from_i64s(vec![0]), dtype, Narrowing::default()),
    }
}

impl Operator for DictVectorizer {
    fn schema(&self) -> Schema {
        super::schema("DictVectorizer", 1)
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let words = vocabulary(cx.node)?;
        let dtype = match cx.ty(0)? {
            ValueType::Map(key, value) if *key == words.dtype() => {
                value.as_tensor().map_or(DType::Undefined, |t| t.dtype)
            }
            ValueType::Unknown => DType::Undefined,
            other => return Err(Error::mismatch("input 0", other, format!("a map from {}", words.dtype()))),
        };
        Ok(vec![TensorType::new(dtype, [Dim::Known(1), Dim::Known(words.len())]).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let words = vocabulary(cx.node)?;
        let (keys, values) = cx.value(0)?.as_map()?;
        let places: Vec<Option<usize>> = match &words {
            Classes::Strings(words) => {
                let known: HashMap<&Bytes, usize> = keys.as_strings()?.iter().zip(0..).collect();
                words.iter().map(|w| known.get(w).copied()).collect()
            }
            Classes::Ints(words) => {
                let keys = keys.as_slice::<i64>()?;
                let known: HashMap<i64, usize> = keys.iter().copied().zip(0..).collect();
                words.iter().map(|w| known.get(w).copied()).collect()
            }
        };
        let tensors: Vec<Tensor> =
            values.iter().map(|v| v.as_tensor()?.reshaped([1])).collect::<Result<_>>()?;
        let dtype = match tensors.first() {
            Some(t) => t.dtype(),
            // an empty map says nothing of its values: they count as floats
            None => DType::F32,
        };
        let nothing = nothing(dtype)?;
        let parts: Vec<&Tensor> = tensors.iter().chain([&nothing]).collect();
        let at: Vec<usize> = places.into_iter().map(|p| p.unwrap_or(tensors.len())).collect();
        let y = movement::take(&movement::concat(&parts, 0)?, [1, at.len()], &at)?;
        Ok(vec![y.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StringList;
    use crate::attr::Attrs;
    use crate::ops::testing::eval_values;

    #[test]
    fn values_stand_in_the_order_of_the_vocabulary() {
        let run = |attrs, map| eval_values(super::super::DOMAIN, "DictVectorizer", 1, attrs, &[map]);
        let words: StringList = ["a", "c", "b", "z"].into_iter().collect();
        let keys = Tensor::from_strings([3], ["c", "a", "x"]).unwrap();
        let values = [4i64, 5, 6].map(|v| Tensor::scalar(v).into()).to_vec();
        let map = Value::Map(keys, values);
        let y = run(Attrs::new().with("string_vocabulary", words), map.clone()).unwrap();
        assert_eq!(y[0].as_tensor().unwrap(), &Tensor::new([1, 4], vec![5i64, 4, 0, 0]).unwrap());
        // a vocabulary of the other type, and none
        assert!(run(Attrs::new().with("int64_vocabulary", vec![1i64]), map.clone()).is_err());
        assert!(run(Attrs::new(), map).is_err());
        let texts =
            Value::Map(Tensor::from_i64s(vec![3]), vec![Tensor::from_strings([], ["t"]).unwrap().into()]);
        let y = run(Attrs::new().with("int64_vocabulary", vec![2i64, 3]), texts).unwrap();
        assert_eq!(y[0].as_tensor().unwrap(), &Tensor::from_strings([1, 2], ["", "t"]).unwrap());
    }
}
