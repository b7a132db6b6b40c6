//! `CastMap`. <https://onnx.ai/onnx/operators/onnx_aionnxml_CastMap.html>
use crate::convert::{Narrowing, cast};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::movement::{self, new_elems};
use crate::{DType, Dim, Error, OpNode, Result, Tensor, TensorType, Value, ValueType};

/// `CastMap`: the values of a map in the order of their keys, `[1, N]`.
pub struct CastMap;

/// The element type of the output.
fn target(node: &OpNode) -> Result<DType> {
    Ok(match node.attrs.str_or("cast_to", "TO_FLOAT")? {
        "TO_FLOAT" => DType::F32,
        "TO_STRING" => DType::String,
        "TO_INT64" => DType::I64,
        other => {
            return Err(Error::mismatch("attribute `cast_to`", other, "TO_FLOAT, TO_STRING or TO_INT64"));
        }
    })
}

/// The length of a SPARSE output, in which keys are places; `None` for DENSE.
fn sparse_len(node: &OpNode) -> Result<Option<usize>> {
    let len = node.attrs.int_or("max_map", 1)?;
    Ok(match node.attrs.str_or("map_form", "DENSE")? {
        "DENSE" => None,
        "SPARSE" => {
            let len = usize::try_from(len).ok().filter(|n| *n > 0);
            let bad = || {
                Error::mismatch(
                    "attribute `max_map`",
                    node.attrs.int_or("max_map", 1).unwrap_or(0),
                    "at least 1",
                )
            };
            Some(len.ok_or_else(bad)?)
        }
        other => return Err(Error::mismatch("attribute `map_form`", other, "DENSE or SPARSE")),
    })
}

/// One value of a map in another type. A float is written with six digits behind the point.
fn converted(value: &Tensor, to: DType) -> Result<Tensor> {
    let value = value.reshaped([1])?;
    match (value.dtype(), to) {
        (DType::F32, DType::String) => {
            Tensor::from_strings([1], [format!("{:.6}", value.as_slice::<f32>()?[0])])
        }
        _ => cast(&value, to, Narrowing::default()),
    }
}

impl Operator for CastMap {
    fn schema(&self) -> Schema {
        super::schema("CastMap", 1)
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        match cx.ty(0)? {
            ValueType::Unknown | ValueType::Map(DType::I64, _) => {}
            other => return Err(Error::mismatch("input 0", other, "a map from int64")),
        }
        let len = sparse_len(cx.node)?.map_or(Dim::Unknown, Dim::Known);
        Ok(vec![TensorType::new(target(cx.node)?, [Dim::Known(1), len]).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (keys, values) = cx.value(0)?.as_map()?;
        let keys = keys.as_slice::<i64>()?;
        let to = target(cx.node)?;
        let mut order: Vec<usize> = (0..keys.len()).collect();
        order.sort_by_key(|i| keys[*i]);
        let mut parts =
            order.iter().map(|i| converted(values[*i].as_tensor()?, to)).collect::<Result<Vec<_>>>()?;
        // what stands where there is no value, behind the values
        let nothing = parts.len();
        parts.push(match to {
            DType::String => Tensor::from_strings([1], ["0.f"])?,
            to => cast(&Tensor::from_i64s(vec![0]), to, Narrowing::default())?,
        });
        let at: Vec<usize> = match sparse_len(cx.node)? {
            None => (0..nothing).collect(),
            Some(len) => {
                if let Some(first) = order.first().map(|i| keys[*i]).filter(|k| *k < 0) {
                    return Err(Error::mismatch("key", first, "at least 0"));
                }
                // what lies behind the last place is left out
                let mut at = vec![nothing; new_elems(&[len])?];
                for (part, i) in order.iter().enumerate() {
                    if let Some(place) = usize::try_from(keys[*i]).ok().and_then(|k| at.get_mut(k)) {
                        *place = part;
                    }
                }
                at
            }
        };
        let parts = movement::concat(&parts.iter().collect::<Vec<_>>(), 0)?;
        Ok(vec![movement::take(&parts, [1, at.len()], &at)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::eval_values;

    fn map(entries: &[(i64, f32)]) -> Value {
        let keys = Tensor::from_i64s(entries.iter().map(|e| e.0).collect::<Vec<_>>());
        Value::Map(keys, entries.iter().map(|e| Tensor::scalar(e.1).into()).collect())
    }
    fn cast_map(attrs: Attrs, map: Value) -> Result<Tensor> {
        Ok(eval_values(super::super::DOMAIN, "CastMap", 1, attrs, &[map])?[0].as_tensor()?.clone())
    }

    #[test]
    fn dense_is_in_the_order_of_the_keys() {
        let m = map(&[(5, 2.5), (-1, 1.0)]);
        assert_eq!(
            cast_map(Attrs::new(), m.clone()).unwrap(),
            Tensor::new([1, 2], vec![1.0f32, 2.5]).unwrap()
        );
        let y = cast_map(Attrs::new().with("cast_to", "TO_INT64"), m.clone()).unwrap();
        assert_eq!(y, Tensor::new([1, 2], vec![1i64, 2]).unwrap());
        let y = cast_map(Attrs::new().with("cast_to", "TO_STRING"), m).unwrap();
        assert_eq!(y, Tensor::from_strings([1, 2], ["1.000000", "2.500000"]).unwrap());
        assert_eq!(cast_map(Attrs::new(), map(&[])).unwrap().shape(), [1, 0]);
    }

    #[test]
    fn sparse_puts_each_value_at_its_key() {
        let attrs = Attrs::new().with("map_form", "SPARSE").with("max_map", 4i64);
        let y = cast_map(attrs.clone(), map(&[(2, 2.5), (0, 1.0), (9, 3.0)])).unwrap();
        assert_eq!(y, Tensor::new([1, 4], vec![1.0f32, 0.0, 2.5, 0.0]).unwrap());
        assert!(cast_map(attrs, map(&[(-1, 1.0)])).is_err());
        for (attr, value) in [("cast_to", "TO_DOUBLE"), ("map_form", "FULL")] {
            assert!(cast_map(Attrs::new().with(attr, value), map(&[(0, 1.0)])).is_err());
        }
    }
}
