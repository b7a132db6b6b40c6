//! `CenterCropPad`. <https://onnx.ai/onnx/operators/onnx__CenterCropPad.html>
use super::{lists, movement};
use crate::convert::from_i64s;
use crate::op::{DimTensor, EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{DType, Dim, Error, OpNode, Result, Tensor, TensorType, Value};

/// `CenterCropPad`.
pub struct CenterCropPad;

/// The axes that `shape` is about, all by default.
fn axes(node: &OpNode, rank: usize) -> Result<Vec<usize>> {
    node.attrs.ints("axes")?.map_or_else(|| Ok((0..rank).collect()), |a| lists::axes(a, rank))
}

fn count(shape: usize, axes: usize) -> Result<()> {
    if shape == axes { Ok(()) } else { Err(Error::mismatch("shape", shape, format!("{axes} numbers"))) }
}

impl Operator for CenterCropPad {
    fn schema(&self) -> Schema {
        Schema { name: "CenterCropPad", domain: "", since: &[18], inputs: (2, 2), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        let Some(x) = cx.shape(0)? else { return Ok(vec![TensorType::unranked(dtype).into()]) };
        let axes = axes(cx.node, x.len())?;
        let wanted = cx.dims(1).map_or_else(|| vec![Dim::Unknown; axes.len()], DimTensor::into_elems);
        count(wanted.len(), axes.len())?;
        let mut out = x.clone();
        for (a, d) in axes.into_iter().zip(wanted) {
            out[a] = d;
        }
        Ok(vec![TensorType::new(dtype, out).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let axes = axes(cx.node, x.rank())?;
        let wanted = lists::extents("shape", &cx.tensor(1)?.to_i64s()?)?;
        count(wanted.len(), axes.len())?;
        let mut shape = x.shape().to_vec();
        for (a, n) in axes.into_iter().zip(wanted) {
            shape[a] = n;
        }
        movement::new_elems(&shape)?;
        let strides = movement::strides(x.shape());
        let offsets: Vec<Vec<Option<usize>>> = shape
            .iter()
            .zip(x.shape())
            .zip(strides)
            .map(|((&out, &n), s)| {
                // halves are rounded down, in cropping and in padding
                let (crop, pad) = (n.saturating_sub(out) / 2, out.saturating_sub(n) / 2);
                let source = |i: usize| (i + crop).checked_sub(pad).filter(|i| *i < n).map(|i| i * s);
                (0..out).map(source).collect()
            })
            .collect();
        let zero = match x.dtype() {
            DType::String => Tensor::from_strings([], [""])?,
            d => from_i64s(d, [], vec![0])?,
        };
        Ok(vec![movement::select_or(x, &offsets, &zero)?.into()])
    }
}
