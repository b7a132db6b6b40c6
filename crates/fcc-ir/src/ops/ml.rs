//! Operators of `ai.onnx.ml` on features: `ArrayFeatureExtractor`, `Binarizer`, `LabelEncoder`.
//! <https://onnx.ai/onnx/operators/onnx_aionnxml_LabelEncoder.html>
use super::movement;
use crate::convert::{Narrowing, Wide, narrow, widen};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{Bytes, DType, Dim, Error, OpNode, Result, Tensor, TensorType, Value};
use std::collections::HashMap;

/// The domain.
pub const DOMAIN: &str = "ai.onnx.ml";

/// `ArrayFeatureExtractor`.
pub struct ArrayFeatureExtractor;
/// `Binarizer`.
pub struct Binarizer;
/// `LabelEncoder`.
pub struct LabelEncoder;

fn schema(name: &'static str, since: &'static [i64], inputs: usize) -> Schema {
    Schema { name, domain: DOMAIN, since, inputs: (inputs, inputs), outputs: (1, 1) }
}

impl Operator for ArrayFeatureExtractor {
    fn schema(&self) -> Schema {
        schema("ArrayFeatureExtractor", &[1], 2)
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        let Some(x) = cx.shape(0)? else { return Ok(vec![TensorType::unranked(dtype).into()]) };
        let count = cx.shape(1)?.map(|s| s.iter().fold(Dim::Known(1), |p, d| p.mul(d))).unwrap_or_default();
        let out = match &x[..] {
            [] => return Err(Error::mismatch("rank", 0, "at least 1")),
            // a vector counts as one row
            [_] => vec![Dim::Known(1), count],
            [lead @ .., _] => [lead, &[count]].concat(),
        };
        Ok(vec![TensorType::new(dtype, out).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let mut axes = movement::whole(x.shape());
        let Some(last) = axes.last_mut() else { return Err(Error::mismatch("rank", 0, "at least 1")) };
        let pick = |i: i64| {
            let place = usize::try_from(i).ok().and_then(|i| last.get(i).copied());
            place.ok_or_else(|| Error::mismatch("index", i, format!("0..{}", last.len())))
        };
        *last = cx.tensor(1)?.to_i64s()?.into_iter().map(pick).collect::<Result<_>>()?;
        let y = movement::select(x, &axes)?;
        let y = if x.rank() == 1 { y.reshaped([1, y.len()])? } else { y };
        Ok(vec![y.into()])
    }
}

impl Operator for Binarizer {
    fn schema(&self) -> Schema {
        schema("Binarizer", &[1], 1)
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![cx.ty(0)?.clone().into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let threshold = f64::from(cx.node.attrs.float_or("threshold", 0.0)?);
        let above: Vec<bool> = match widen(x)? {
            Wide::Float(v) => v.into_iter().map(|v| v > threshold).collect(),
            Wide::Int(v) => v.into_iter().map(|v| v as f64 > threshold).collect(),
            Wide::UInt(v) => v.into_iter().map(|v| v as f64 > threshold).collect(),
        };
        let ones = Wide::UInt(above.into_iter().map(u64::from).collect());
        Ok(vec![narrow(ones, x.dtype(), x.shape().to_vec(), Narrowing::default())?.into()])
    }
}

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
                crate::attr::AttrValue::String(s) => Some(s.clone()),
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

impl Operator for LabelEncoder {
    fn schema(&self) -> Schema {
        schema("LabelEncoder", &[1, 2, 4], 1)
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let shape = cx.shape(0)?.cloned();
        let input = cx.dtype(0)?;
        let dtype = match input {
            DType::Undefined if cx.version() < 2 => DType::Undefined,
            input => mapping(cx.node, input)?.1.dtype(),
        };
        Ok(vec![TensorType { dtype, shape }.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let (from, to) = mapping(cx.node, x.dtype())?;
        if from.dtype() != x.dtype() || from.len() != to.len() {
            let got = format!("{} -> {}", from.tensor_type(), to.tensor_type());
            return Err(Error::mismatch(
                "keys and values",
                got,
                format!("as many keys of {} as values", x.dtype()),
            ));
        }
        // the default stands behind the values; of equal keys the last one counts
        let (n, default) = (to.len(), default(cx.node, to.dtype())?);
        let values = movement::concat(&[&to.reshaped([n])?, &default], 0)?;
        let places: HashMap<Key, usize> = keys(&from)?.into_iter().zip(0..).collect();
        let at: Vec<usize> = keys(x)?.iter().map(|k| places.get(k).copied().unwrap_or(n)).collect();
        Ok(vec![movement::take(&values, x.shape(), &at)?.into()])
    }
}
