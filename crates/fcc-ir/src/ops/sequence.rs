//! Lists of values: `SequenceAt`, `SequenceConstruct`, `SequenceEmpty`, `SequenceErase`, `SequenceInsert`,
//! `SequenceLength`. <https://onnx.ai/onnx/operators/onnx__SequenceAt.html>
use super::control::join;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{DType, Error, Result, Tensor, TensorType, Value, ValueType};

/// `SequenceAt`.
pub struct SequenceAt;
/// `SequenceConstruct`.
pub struct SequenceConstruct;
/// `SequenceEmpty`.
pub struct SequenceEmpty;
/// `SequenceErase`.
pub struct SequenceErase;
/// `SequenceInsert`.
pub struct SequenceInsert;
/// `SequenceLength`.
pub struct SequenceLength;

fn schema(name: &'static str, inputs: (usize, usize)) -> Schema {
    Schema { name, domain: "", since: &[11], inputs, outputs: (1, 1) }
}

/// The element type of a sequence input; unknown if its type is. Errors if it is no sequence.
pub(super) fn element(cx: &InferCtx<'_>, i: usize) -> Result<ValueType> {
    match cx.ty(i)? {
        ValueType::Sequence(t) => Ok((**t).clone()),
        ValueType::Unknown => Ok(ValueType::Unknown),
        other => Err(Error::mismatch(format!("input {i}"), other, "a sequence")),
    }
}

pub(super) fn sequence_of(t: ValueType) -> Fact {
    ValueType::Sequence(Box::new(t)).into()
}

/// A sequence of values, whose element type is what all have in common.
pub(super) fn sequence(items: Vec<Value>, empty: ValueType) -> Value {
    let ty = items.iter().map(Value::value_type).reduce(|a, b| join(&a, &b)).unwrap_or(empty);
    Value::Sequence(ty, items)
}

/// A position in `-n..n`, made non-negative; without one, `default`.
fn position(cx: &EvalCtx<'_>, slot: usize, n: usize, default: usize) -> Result<usize> {
    let Some(t) = cx.opt_tensor(slot)? else { return Ok(default) };
    match t.to_i64s()?[..] {
        [p] => super::gather::index(p, n),
        _ => Err(Error::mismatch("position", t.tensor_type(), "one number")),
    }
}

/// Splits an input into the type of its elements and its elements.
fn parts<'a>(cx: &EvalCtx<'a>, i: usize) -> Result<(&'a ValueType, &'a [Value])> {
    match cx.value(i)? {
        Value::Sequence(ty, items) => Ok((ty, items)),
        other => Err(Error::mismatch(format!("input {i}"), other.value_type(), "a sequence")),
    }
}

impl Operator for SequenceAt {
    fn schema(&self) -> Schema {
        schema("SequenceAt", (2, 2))
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![element(cx, 0)?.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (_, items) = parts(cx, 0)?;
        Ok(vec![items[position(cx, 1, items.len(), 0)?].clone()])
    }
}

impl Operator for SequenceConstruct {
    fn schema(&self) -> Schema {
        schema("SequenceConstruct", (1, usize::MAX))
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let types: Vec<ValueType> = (0..cx.inputs.len()).map(|i| cx.ty(i).cloned()).collect::<Result<_>>()?;
        Ok(vec![sequence_of(types.into_iter().reduce(|a, b| join(&a, &b)).unwrap_or_default())])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let items = (0..cx.inputs.len()).map(|i| cx.value(i).cloned()).collect::<Result<_>>()?;
        Ok(vec![sequence(items, ValueType::Unknown)])
    }
}

/// The element type of a new list: the attribute `dtype`, f32 by default.
fn empty_type(code: i64) -> Result<ValueType> {
    let dtype = i32::try_from(code).ok().and_then(DType::from_code);
    let dtype = dtype.ok_or_else(|| Error::mismatch("attribute `dtype`", code, "an element type"))?;
    Ok(TensorType::unranked(dtype).into())
}

impl Operator for SequenceEmpty {
    fn schema(&self) -> Schema {
        schema("SequenceEmpty", (0, 0))
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![sequence_of(empty_type(cx.node.attrs.int_or("dtype", 1)?)?)])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        Ok(vec![Value::Sequence(empty_type(cx.node.attrs.int_or("dtype", 1)?)?, vec![])])
    }
}

impl Operator for SequenceErase {
    fn schema(&self) -> Schema {
        schema("SequenceErase", (1, 2))
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![sequence_of(element(cx, 0)?)])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (ty, items) = parts(cx, 0)?;
        let last =
            items.len().checked_sub(1).ok_or_else(|| Error::mismatch("sequence", "empty", "elements"))?;
        let mut items = items.to_vec();
        items.remove(position(cx, 1, last + 1, last)?);
        Ok(vec![Value::Sequence(ty.clone(), items)])
    }
}

impl Operator for SequenceInsert {
    fn schema(&self) -> Schema {
        schema("SequenceInsert", (2, 3))
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        // the list may have been empty: its element type alone says nothing of the shape
        Ok(vec![sequence_of(join(&element(cx, 0)?, cx.ty(1)?))])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (ty, items) = parts(cx, 0)?;
        let mut items = items.to_vec();
        // -n..=n: behind the last is a place too
        let at = match cx.opt_tensor(2)?.map(|t| t.to_i64s()).transpose()? {
            None => items.len(),
            Some(p) => match p[..] {
                [p] if usize::try_from(p) == Ok(items.len()) => items.len(),
                [p] => super::gather::index(p, items.len())?,
                _ => return Err(Error::mismatch("position", format!("{p:?}"), "one number")),
            },
        };
        items.insert(at, cx.value(1)?.clone());
        Ok(vec![sequence(items, ty.clone())])
    }
}

impl Operator for SequenceLength {
    fn schema(&self) -> Schema {
        schema("SequenceLength", (1, 1))
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        element(cx, 0)?;
        Ok(vec![TensorType::new(DType::I64, Vec::<usize>::new()).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        Ok(vec![Tensor::scalar(parts(cx, 0)?.1.len() as i64).into()])
    }
}
