//! Between lists and tensors: `SplitToSequence`, `ConcatFromSequence`, `SequenceMap`.
//! <https://onnx.ai/onnx/operators/onnx__SplitToSequence.html>,
//! <https://onnx.ai/onnx/operators/onnx__ConcatFromSequence.html>,
//! <https://onnx.ai/onnx/operators/onnx__SequenceMap.html>
use super::control::stack;
use super::sequence::{element, sequence, sequence_of};
use super::{lists, movement};
use crate::limits;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema, axis, need_outputs};
use crate::{Dim, Error, Result, Tensor, TensorType, Value, ValueType};

/// `SplitToSequence`.
pub struct SplitToSequence;
/// `ConcatFromSequence`.
pub struct ConcatFromSequence;
/// `SequenceMap`.
pub struct SequenceMap;

/// The extents of the parts: a list as given; a scalar is the extent of each but perhaps the last; else 1.
fn part_sizes(split: Option<&Tensor>, extent: usize) -> Result<Vec<usize>> {
    let each = match split {
        None => 1,
        Some(t) => {
            let sizes = lists::extents("split", &t.to_i64s()?)?;
            match sizes[..] {
                [n] if t.rank() == 0 => n,
                _ => {
                    let sum = sizes.iter().try_fold(0usize, |s, n| s.checked_add(*n));
                    if sum != Some(extent) {
                        let wanted = format!("a sum of {extent}");
                        return Err(Error::mismatch("split", format!("{sizes:?}"), wanted));
                    }
                    return Ok(sizes);
                }
            }
        }
    };
    if each == 0 {
        return Err(Error::mismatch("split", 0, "at least 1"));
    }
    Ok((0..extent.div_ceil(each)).map(|i| (extent - i * each).min(each)).collect())
}

impl Operator for SplitToSequence {
    fn schema(&self) -> Schema {
        Schema { name: "SplitToSequence", domain: "", since: &[11, 24], inputs: (1, 2), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        let Some(x) = cx.shape(0)? else {
            return Ok(vec![sequence_of(TensorType::unranked(dtype).into())]);
        };
        let at = axis(cx.node.attrs.int_or("axis", 0)?, x.len())?;
        let mut part = x.clone();
        part[at] = Dim::Unknown;
        if !cx.has(1) {
            part[at] = Dim::Known(1);
            if !cx.node.attrs.flag("keepdims", true)? {
                part.remove(at);
            }
        }
        Ok(vec![sequence_of(TensorType::new(dtype, part).into())])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let at = axis(cx.node.attrs.int_or("axis", 0)?, x.rank())?;
        let split = cx.opt_tensor(1)?;
        // without `split` the axis may go
        let drop = split.is_none() && !cx.node.attrs.flag("keepdims", true)?;
        let whole = movement::whole(x.shape());
        let mut start = 0;
        let mut items: Vec<Value> = vec![];
        for n in part_sizes(split, x.shape()[at])? {
            let mut axes = whole.clone();
            axes[at] = whole[at][start..start + n].to_vec();
            start += n;
            let mut part = movement::select(x, &axes)?;
            if drop {
                let mut shape = part.shape().to_vec();
                shape.remove(at);
                part = part.reshaped(shape)?;
            }
            items.push(part.into());
        }
        Ok(vec![sequence(items, TensorType::unranked(x.dtype()).into())])
    }
}

impl Operator for ConcatFromSequence {
    fn schema(&self) -> Schema {
        Schema { name: "ConcatFromSequence", domain: "", since: &[11], inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let ValueType::Tensor(t) = element(cx, 0)? else { return Ok(vec![Fact::default()]) };
        let Some(mut shape) = t.shape else { return Ok(vec![TensorType::unranked(t.dtype).into()]) };
        let at = cx.node.attrs.need_int("axis")?;
        if cx.node.attrs.flag("new_axis", false)? {
            shape.insert(axis(at, shape.len() + 1)?, Dim::Unknown);
        } else {
            let at = axis(at, shape.len())?;
            shape[at] = Dim::Unknown;
        }
        Ok(vec![TensorType::new(t.dtype, shape).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let items = cx.value(0)?.as_sequence()?;
        let parts: Vec<&Tensor> = items.iter().map(Value::as_tensor).collect::<Result<_>>()?;
        let rank = parts.first().map_or(0, |p| p.rank());
        let at = cx.node.attrs.need_int("axis")?;
        if cx.node.attrs.flag("new_axis", false)? {
            let none = || Err(Error::mismatch("sequence", "empty", "elements"));
            return Ok(vec![stack(items, axis(at, rank + 1)?, none)?.into()]);
        }
        Ok(vec![movement::concat(&parts, axis(at, rank)?)?.into()])
    }
}

impl Operator for SequenceMap {
    fn schema(&self) -> Schema {
        Schema {
            name: "SequenceMap",
            domain: "",
            since: &[17],
            inputs: (1, usize::MAX),
            outputs: (1, usize::MAX),
        }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let body = cx.node.attrs.need_graph("body")?;
        need_outputs(cx.n_outputs, body.outputs.len())?;
        let given = |i: usize| match cx.ty(i)? {
            ValueType::Sequence(t) => Ok((**t).clone().into()),
            other => Ok(other.clone().into()),
        };
        let given: Vec<Fact> = (0..cx.inputs.len()).map(given).collect::<Result<_>>()?;
        Ok((cx.subgraph)(body, &given)?.into_iter().map(|f| sequence_of(f.ty)).collect())
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let body = cx.node.attrs.need_graph("body")?;
        need_outputs(cx.wanted.len(), body.outputs.len())?;
        let n = cx.value(0)?.as_sequence()?.len();
        let mut all: Vec<Vec<Value>> = vec![vec![]; body.outputs.len()];
        for i in 0..n {
            limits::check_now()?;
            let given = (0..cx.inputs.len()).map(|k| match cx.value(k)? {
                Value::Sequence(_, items) => items
                    .get(i)
                    .cloned()
                    .ok_or_else(|| Error::mismatch(format!("length of input {k}"), items.len(), n)),
                other => Ok(other.clone()),
            });
            let made = (cx.subgraph)(body, given.collect::<Result<_>>()?)?;
            all.iter_mut().zip(made).for_each(|(list, v)| list.push(v));
        }
        let ty = |k: usize| body.outputs[k].info.ty.clone();
        Ok(all.into_iter().enumerate().map(|(k, items)| sequence(items, ty(k))).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_by_list_by_size_or_one_by_one() {
        assert_eq!(part_sizes(None, 2).unwrap(), [1, 1]);
        assert_eq!(part_sizes(Some(&Tensor::scalar(2i64)), 5).unwrap(), [2, 2, 1]);
        assert_eq!(part_sizes(Some(&Tensor::from_i64s([4, 1])), 5).unwrap(), [4, 1]);
        assert!(part_sizes(Some(&Tensor::from_i64s([4, 2])), 5).is_err());
        assert!(part_sizes(Some(&Tensor::scalar(0i64)), 5).is_err());
    }
}
