//! `Gather`, `GatherElements`, `GatherND`. <https://onnx.ai/onnx/operators/onnx__Gather.html>,
//! <https://onnx.ai/onnx/operators/onnx__GatherElements.html>, <https://onnx.ai/onnx/operators/onnx__GatherND.html>
use super::movement;
use crate::op::{DimTensor, EvalCtx, Fact, InferCtx, Operator, Schema, axis};
use crate::{Dim, Error, OpNode, Result, Tensor, TensorType, Value};

/// `Gather`.
pub struct Gather;
/// `GatherElements`.
pub struct GatherElements;
/// `GatherND`.
pub struct GatherND;

/// An index in `-extent..extent` made non-negative. Errors outside.
pub fn index(value: i64, extent: usize) -> Result<usize> {
    let n = i64::try_from(extent).map_err(|_| Error::invalid("extent too large"))?;
    let v = if value < 0 { value.saturating_add(n) } else { value };
    if (0..n).contains(&v) {
        Ok(v as usize)
    } else {
        Err(Error::mismatch("index", value, format!("-{n}..{n}")))
    }
}

/// The axis, 0 by default.
pub fn gather_axis(node: &OpNode, rank: usize) -> Result<usize> {
    axis(node.attrs.int_or("axis", 0)?, rank)
}

impl Operator for Gather {
    fn schema(&self) -> Schema {
        Schema { name: "Gather", domain: "", since: &[1, 11, 13], inputs: (2, 2), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        let (Some(x), Some(indices)) = (cx.shape(0)?, cx.shape(1)?) else {
            return Ok(vec![TensorType::unranked(dtype).into()]);
        };
        let at = gather_axis(cx.node, x.len())?;
        if let (Some(d), Some(i)) = (cx.dims(0), cx.value(1).filter(|t| t.rank() <= 1)) {
            let pick = |&i: &i64| Ok(d.elems()[index(i, d.elems().len())?].clone());
            let indices = i.to_i64s()?;
            let elems: Vec<Dim> = indices.iter().map(pick).collect::<Result<_>>()?;
            if let Some(dims) = DimTensor::of(i.rank() == 0, elems) {
                return Ok(vec![Fact::of_dims(dtype, dims)]);
            }
        }
        let shape = [&x[..at], indices, &x[at + 1..]].concat();
        Ok(vec![TensorType::new(dtype, shape).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (x, indices) = (cx.tensor(0)?, cx.tensor(1)?);
        let at = gather_axis(cx.node, x.rank())?;
        let mut axes = movement::whole(x.shape());
        let picked = indices.to_i64s()?.into_iter().map(|i| Ok(axes[at][index(i, x.shape()[at])?]));
        axes[at] = picked.collect::<Result<_>>()?;
        let shape = [&x.shape()[..at], indices.shape(), &x.shape()[at + 1..]].concat();
        Ok(vec![movement::select(x, &axes)?.reshaped(shape)?.into()])
    }
}

/// The linear index into `x` of each element of `indices`, which replaces the position along axis `at`.
pub(super) fn element_offsets(x: &[usize], indices: &Tensor, at: usize) -> Result<Vec<usize>> {
    let fits = indices.rank() == x.len()
        && indices.shape().iter().zip(x).enumerate().all(|(i, (a, b))| i == at || a <= b);
    if !fits {
        return Err(Error::mismatch(
            "shape of indices",
            format!("{:?}", indices.shape()),
            format!("inside {x:?}"),
        ));
    }
    let strides = movement::strides(x);
    let mut place = vec![0usize; x.len()];
    let mut out = Vec::with_capacity(indices.len());
    for i in indices.to_i64s()? {
        let along = index(i, x[at])? * strides[at];
        let rest = (0..x.len()).filter(|k| *k != at).map(|k| place[k] * strides[k]).sum::<usize>();
        out.push(along + rest);
        for k in (0..x.len()).rev() {
            place[k] += 1;
            if place[k] < indices.shape()[k] {
                break;
            }
            place[k] = 0;
        }
    }
    Ok(out)
}

impl Operator for GatherElements {
    fn schema(&self) -> Schema {
        Schema { name: "GatherElements", domain: "", since: &[11, 13], inputs: (2, 2), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![TensorType { dtype: cx.dtype(0)?, shape: cx.shape(1)?.cloned() }.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (x, indices) = (cx.tensor(0)?, cx.tensor(1)?);
        let at = gather_axis(cx.node, x.rank())?;
        let offsets = element_offsets(x.shape(), indices, at)?;
        Ok(vec![movement::take(x, indices.shape(), &offsets)?.into()])
    }
}

/// Linear index of the slice that each row of `indices [..., k]` names in the axes `batch..batch + k` of `x`; the
/// first `batch` axes of both run together.
pub(super) fn slice_offsets(x: &[usize], indices: &Tensor, batch: usize) -> Result<Vec<usize>> {
    let (k, lead) =
        indices.shape().split_last().ok_or_else(|| Error::mismatch("rank of indices", 0, "at least 1"))?;
    if batch.checked_add(*k).is_none_or(|end| end > x.len())
        || lead.len() < batch
        || lead[..batch] != x[..batch]
    {
        return Err(Error::mismatch(
            "shape of indices",
            format!("{:?}", indices.shape()),
            format!("{batch} batch axes of and at most as many coordinates as {x:?}"),
        ));
    }
    let strides = movement::strides(x);
    let values = indices.to_i64s()?;
    let per_batch: usize = lead[batch..].iter().product();
    let batch_size: usize = x[batch..].iter().product();
    (0..lead.iter().product())
        .map(|row: usize| {
            let start = row / per_batch.max(1) * batch_size;
            values[row * k..][..*k]
                .iter()
                .enumerate()
                .try_fold(start, |offset, (j, &i)| Ok(offset + index(i, x[batch + j])? * strides[batch + j]))
        })
        .collect()
}

/// `batch_dims`, 0 by default.
fn batch_dims(node: &OpNode) -> Result<usize> {
    let b = node.attrs.int_or("batch_dims", 0)?;
    usize::try_from(b).map_err(|_| Error::mismatch("attribute `batch_dims`", b, "at least 0"))
}

impl Operator for GatherND {
    fn schema(&self) -> Schema {
        Schema { name: "GatherND", domain: "", since: &[11, 12, 13], inputs: (2, 2), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        let unranked = || Ok(vec![TensorType::unranked(dtype).into()]);
        let (Some(x), Some(indices)) = (cx.shape(0)?, cx.shape(1)?) else { return unranked() };
        let Some((Dim::Known(k), lead)) = indices.split_last() else { return unranked() };
        let skip = batch_dims(cx.node)?.saturating_add(*k);
        let tail = x
            .get(skip..)
            .ok_or_else(|| Error::mismatch("coordinates of indices", skip, format!("at most {}", x.len())))?;
        Ok(vec![TensorType::new(dtype, [lead, tail].concat()).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (x, indices) = (cx.tensor(0)?, cx.tensor(1)?);
        let batch = batch_dims(cx.node)?;
        let starts = slice_offsets(x.shape(), indices, batch)?;
        let (k, lead) = indices.shape().split_last().unwrap_or((&0, &[]));
        let tail = &x.shape()[batch + k..];
        let size: usize = tail.iter().product();
        let offsets: Vec<usize> = starts.into_iter().flat_map(|s| s..s + size).collect();
        Ok(vec![movement::take(x, [lead, tail].concat(), &offsets)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::attr::Attrs;
    use crate::ops::testing::{eval1, infer};

    #[test]
    fn indices_outside_are_errors_and_negative_ones_count_from_the_end() {
        let x = Tensor::new(vec![3, 2], (0..6u8).collect()).unwrap();
        let g =
            |i: Vec<i64>| eval1("Gather", 13, Attrs::new(), &[Some(x.clone()), Some(Tensor::from_i64s(i))]);
        assert_eq!(g(vec![-1, 0]).unwrap().bytes().as_ref(), [4, 5, 0, 1]);
        assert!(g(vec![3]).is_err() && g(vec![-4]).is_err() && g(vec![i64::MIN]).is_err());
    }

    #[test]
    fn the_extent_out_of_a_shape_stays_symbolic() {
        let n = Dim::symbol("N");
        let shape = Fact::of_dims(DType::I64, DimTensor::vector([n.clone(), Dim::Known(3)]).unwrap());
        let zero = Fact::constant(Tensor::scalar(0i64));
        let y = infer("Gather", 13, Attrs::new(), &[Some(shape), Some(zero)], 1).unwrap();
        assert_eq!(y[0].dims, Some(DimTensor::scalar(n)));
    }

    #[test]
    fn batches_run_together() {
        let x = Tensor::new(vec![2, 2, 2], (0..8u8).collect()).unwrap();
        let i = Tensor::new(vec![2, 1], vec![1i64, 0]).unwrap();
        let y = eval1("GatherND", 13, Attrs::new().with("batch_dims", 1i64), &[Some(x), Some(i)]).unwrap();
        assert_eq!((y.shape(), y.bytes().as_ref()), (&[2, 2][..], &[2, 3, 4, 5][..]));
    }
}
