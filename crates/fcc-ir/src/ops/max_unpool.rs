//! `MaxUnpool`: puts what `MaxPool` picked back in its place. <https://onnx.ai/onnx/operators/onnx__MaxUnpool.html>
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::conv::Window;
use crate::ops::numeric::{Num, with_real};
use crate::{Dim, Error, OpNode, Result, Tensor, TensorType, Value, elem_count};

/// `MaxUnpool`.
pub struct MaxUnpool;

/// The shape that the indices speak of: `stride * (in - 1) + kernel - pads` along each spatial axis.
pub fn inferred_shape(node: &OpNode, x: &[Dim]) -> Result<Vec<Dim>> {
    let window = Window::parse(node, None)?;
    let [n, c, spatial @ ..] = x else { return Err(Error::mismatch("rank of X", x.len(), "at least 3")) };
    if spatial.len() != window.rank() {
        return Err(Error::mismatch("rank of X", x.len(), window.rank() + 2));
    }
    let mut out = vec![n.clone(), c.clone()];
    for (i, d) in spatial.iter().enumerate() {
        let pads = window.pads[i].saturating_add(window.pads[window.rank() + i]);
        let offset = i64::try_from(window.kernel_shape[i]).ok().zip(i64::try_from(pads).ok());
        let (kernel, pads) = offset.ok_or_else(|| Error::invalid("kernel or padding too large"))?;
        out.push(d.offset(-1).mul(&Dim::Known(window.strides[i])).offset(kernel - pads));
    }
    Ok(out)
}

impl Operator for MaxUnpool {
    fn schema(&self) -> Schema {
        Schema { name: "MaxUnpool", domain: "", since: &[9, 11, 22], inputs: (2, 3), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let shape = match (cx.has(2), cx.shape(0)?) {
            (true, x) => match cx.dims(2) {
                Some(d) => Some(d.into_elems()),
                None => x.map(|s| vec![Dim::Unknown; s.len()]),
            },
            (false, Some(x)) => Some(inferred_shape(cx.node, x)?),
            (false, None) => None,
        };
        Ok(vec![TensorType { dtype: cx.dtype(0)?, shape }.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (x, indices) = (cx.tensor(0)?, cx.tensor(1)?.to_i64s()?);
        let dims: Vec<Dim> = x.shape().iter().map(|d| Dim::Known(*d)).collect();
        let known: Option<Vec<usize>> = inferred_shape(cx.node, &dims)?.iter().map(Dim::known).collect();
        let inner = known.ok_or_else(|| Error::invalid("extent of the output overflows"))?;
        let outer = match cx.opt_tensor(2)?.map(Tensor::to_i64s).transpose()? {
            None => inner.clone(),
            Some(s) => {
                let extents: Option<Vec<usize>> = s.iter().map(|v| usize::try_from(*v).ok()).collect();
                extents.filter(|e| e.len() == inner.len()).ok_or_else(|| {
                    Error::mismatch("output_shape", format!("{s:?}"), format!("{} extents", inner.len()))
                })?
            }
        };
        if indices.len() != x.len() {
            return Err(Error::mismatch("elements of I", indices.len(), x.len()));
        }
        let (total, len) = (elem_count(&inner)?, elem_count(&outer)?);
        // indices number the elements of the shape that the window gives; a given shape is filled from its beginning
        let place = |index: i64| -> Result<usize> {
            let bad = || Error::mismatch("index", index, format!("inside {inner:?} and {outer:?}"));
            let mut rest = usize::try_from(index).ok().filter(|i| *i < total).ok_or_else(bad)?;
            if inner == outer {
                return Ok(rest);
            }
            let (mut at, mut step) = (0, 1);
            for (i, o) in inner.iter().zip(&outer).rev() {
                let along = rest % i;
                if along >= *o {
                    return Err(bad());
                }
                at += along * step;
                step *= o;
                rest /= i;
            }
            Ok(at)
        };
        with_real!(x.dtype(), T => {
            let mut y = vec![T::ZERO; len];
            for (v, index) in T::load(x)?.iter().zip(indices) {
                y[place(index)?] = *v;
            }
            Ok(vec![T::store(x.dtype(), outer.clone(), y)?.into()])
        })
    }
}
