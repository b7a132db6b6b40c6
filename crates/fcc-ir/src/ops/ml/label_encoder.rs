//! `LabelEncoder`. <https://onnx.ai/onnx/operators/onnx_aionnxml_LabelEncoder.html>
use crate::attr::AttrValue;
use crate::convert::{Narrowing, Wide, narrow, widen};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::movement;
use crate::{Bytes, DType, Error, OpNode, Result, Tensor, TensorType, Value};
use std::collections::HashMap;

/// `LabelEncoder`: each element is looked up in a list of keys.
pub struct LabelEncoder;

/// An element as a key: floats by value, every NaN the same and both zeros too.
#[derive(PartialEq, Eq, Hash)]
enum Key {
    Bits(u64),
    Text(Bytes),
}

fn keys(t: &Tensor) -> Result<Vec<Key>> {
    if t.dtype() == DType::String {
        return Ok(t.as_strings()?.iter().cloned().map(Key::Text).collect());
    }
    Ok(match widen(t)? {
        Wide::Float(v) => {
            let canonical = |v: f64| if v.is_nan() { f64::NAN } else { v + 0.0 };
            v.into_iter().map(|v| Key::Bits(canonical(v).to_bits())).collect()
        }
        Wide::Int(v) => v.into_iter().map(|v| Key::Bits(v as u64)).collect(),
        Wide::UInt(v) => v.into_iter().map(Key::Bits).collect(),
    })
}

/// The one list among `{what}_tensor`, `_strings`, `_int64s`, `_floats`.
fn list(node: &OpNode, what: &str) -> Result<Tensor> {
    let a = &node.attrs;
    let mut found = vec![];
    found.extend(a.tensor(&format!("{what}_tensor"))?.cloned());
    if let Some(v) = a.strings(&format!("{what}_strings"))? {
        found.push(Tensor::from_strings([v.len()], v.iter().cloned())?);
    }
    found.extend(a.ints(&format!("{what}_int64s"))?.map(Tensor::from_i64s));
    if let Some(v) = a.floats(&format!("{what}_floats"))? {
        found.push(Tensor::new([v.len()], v.to_vec())?);
    }
    let n = found.len();
    found.pop().filter(|_| n == 1).ok_or_else(|| Error::mismatch(format!("lists of {what}"), n, 1))
}

/// What stands for a key that is not listed.
fn default(node: &OpNode, dtype: DType) -> Result<Tensor> {
    let a = &node.attrs;
    if let Some(t) = a.tensor("default_tensor")? {
        let fits = t.len() == 1 && t.dtype() == dtype;
        return if fits {
            t.reshaped([1])
        } else {
            Err(Error::mismatch("default_tensor", t.tensor_type(), dtype))
        };
    }
    match dtype {
        DType::String => {
            let text = a.get("default_string").and_then(|v| match v {
                AttrValue::String(s) => Some(s.clone()),
                _ => None,
            });
            Tensor::from_strings([1], [text.unwrap_or_else(|| Bytes::from_static(b"_Unused"))])
        }
        d if d.is_float() => {
            let v = f64::from(a.float_or("default_float", -0.0)?);
            narrow(Wide::Float(vec![v]), d, vec![1], Narrowing::default())
        }
        d => narrow(Wide::Int(vec![a.int_or("default_int64", -1)?]), d, vec![1], Narrowing::default()),
    }
}

/// Keys and values of a node: version 1 numbers its classes, one way or the other.
fn mapping(node: &OpNode, input: DType) -> Result<(Tensor, Tensor)> {
    if node.version >= 2 {
        return Ok((list(node, "keys")?, list(node, "values")?));
    }
    let classes = node.attrs.strings("classes_strings")?;
    let classes = classes.ok_or_else(|| Error::mismatch("attribute `classes_strings`", "none", "strings"))?;
    let names = Tensor::from_strings([classes.len()], classes.iter().cloned())?;
    let numbers = Tensor::from_i64s((0..classes.len() as i64).collect::<Vec<_>>());
    Ok(if input == DType::String { (names, numbers) } else { (numbers, names) })
}

/// As [`mapping`], checked against the input's type, which may be unknown.
fn checked(node: &OpNode, input: DType) -> Result<(Tensor, Tensor)> {
    let (from, to) = mapping(node, input)?;
    if from.len() != to.len() || (input != DType::Undefined && from.dtype() != input) {
        let got = format!("{} -> {}", from.tensor_type(), to.tensor_type());
        return Err(Error::mismatch("keys and values", got, format!("as many keys of {input} as values")));
    }
    Ok((from, to))
}

impl Operator for LabelEncoder {
    fn schema(&self) -> Schema {
        Schema { since: &[1, 2, 4], ..super::schema("LabelEncoder", 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let shape = cx.shape(0)?.cloned();
        let input = cx.dtype(0)?;
        let dtype = match input {
            DType::Undefined if cx.version() < 2 => DType::Undefined,
            input => checked(cx.node, input)?.1.dtype(),
        };
        Ok(vec![TensorType { dtype, shape }.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let (from, to) = checked(cx.node, x.dtype())?;
        // the default stands behind the values; of equal keys the last one counts
        let (n, default) = (to.len(), default(cx.node, to.dtype())?);
        let values = movement::concat(&[&to.reshaped([n])?, &default], 0)?;
        let places: HashMap<Key, usize> = keys(&from)?.into_iter().zip(0..).collect();
        let at: Vec<usize> = keys(x)?.iter().map(|k| places.get(k).copied().unwrap_or(n)).collect();
        Ok(vec![movement::take(&values, x.shape(), &at)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StringList;
    use crate::attr::Attrs;
    use crate::ops::testing::eval_ml;

    fn encoded(version: i64, attrs: Attrs, x: Tensor) -> Result<Tensor> {
        Ok(eval_ml("LabelEncoder", version, attrs, &[x])?[0].as_tensor()?.clone())
    }
    fn texts(list: &[&'static str]) -> Tensor {
        Tensor::from_strings([list.len()], list.iter().copied()).unwrap()
    }
    fn list(list: &[&'static str]) -> StringList {
        list.iter().copied().collect()
    }

    #[test]
    fn version_1_numbers_its_classes_both_ways() {
        let attrs = Attrs::new().with("classes_strings", list(&["a", "b"])).with("default_string", "?");
        let numbers = Tensor::from_i64s(vec![1, 0, -1]);
        assert_eq!(encoded(1, attrs.clone(), texts(&["b", "a", "c"])).unwrap(), numbers);
        let back = encoded(1, attrs, Tensor::from_i64s(vec![1, 2])).unwrap();
        assert_eq!(back, texts(&["b", "?"]));
    }

    #[test]
    fn version_2_maps_between_its_three_types() {
        let attrs = || Attrs::new().with("keys_strings", list(&["a", "b"]));
        let x = || texts(&["b", "z"]);
        let y = encoded(2, attrs().with("values_floats", vec![1.5f32, 2.5]), x()).unwrap();
        assert_eq!(y, Tensor::new([2], vec![2.5f32, -0.0]).unwrap());
        let y = encoded(2, attrs().with("values_int64s", vec![7i64, 8]), x()).unwrap();
        assert_eq!(y, Tensor::from_i64s(vec![8, -1]));
        let y = encoded(2, attrs().with("values_strings", list(&["c", "d"])), x()).unwrap();
        assert_eq!(y, texts(&["d", "_Unused"]));
        let floats =
            Attrs::new().with("keys_floats", vec![f32::NAN, 0.0]).with("values_int64s", vec![7i64, 8]);
        let x = Tensor::new([3], vec![f32::NAN, -0.0, 1.0]).unwrap();
        assert_eq!(encoded(2, floats, x).unwrap(), Tensor::from_i64s(vec![7, 8, -1]));
    }

    #[test]
    fn version_4_takes_tensors() {
        let attrs = Attrs::new()
            .with("keys_tensor", Tensor::new([2], vec![1i16, 2]).unwrap())
            .with("values_tensor", Tensor::new([2], vec![0.5f64, 1.5]).unwrap())
            .with("default_tensor", Tensor::new([1], vec![9.0f64]).unwrap());
        let x = Tensor::new([1, 2], vec![2i16, 3]).unwrap();
        assert_eq!(encoded(4, attrs, x).unwrap(), Tensor::new([1, 2], vec![1.5f64, 9.0]).unwrap());
    }

    #[test]
    fn lists_that_do_not_fit_are_errors() {
        let keys = || Attrs::new().with("keys_strings", list(&["a", "b"]));
        let x = || texts(&["a"]);
        for attrs in [
            keys().with("values_int64s", vec![1i64]),
            keys(),
            keys().with("keys_int64s", vec![1i64, 2]).with("values_int64s", vec![1i64, 2]),
            Attrs::new().with("keys_int64s", vec![1i64, 2]).with("values_int64s", vec![1i64, 2]),
        ] {
            assert!(encoded(2, attrs, x()).is_err());
        }
    }
}
