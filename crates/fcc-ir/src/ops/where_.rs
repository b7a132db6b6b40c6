//! `Where`: from X where the condition holds, else from Y. <https://onnx.ai/onnx/operators/onnx__Where.html>
use crate::op::{DimTensor, EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::broadcast;
use crate::{DType, Error, Result, Tensor, Value};

/// `Where`.
pub struct Where;

/// Elements of symbolic shapes, chosen by a constant condition.
fn dims(cx: &InferCtx<'_>) -> Option<DimTensor> {
    let condition = cx.value(0).filter(|c| c.rank() <= 1)?.as_bools().ok()?;
    let (x, y) = (cx.dims(1), cx.dims(2));
    let all = |wanted: bool| !condition.contains(&!wanted);
    let lens = [x.as_ref(), y.as_ref()].map(|d| d.map_or(1, |d| d.elems.len()));
    let n = condition.len().max(lens[0]).max(lens[1]);
    let picked = match (&x, &y) {
        (Some(x), Some(y)) => (0..n)
            .map(|i| {
                let c = condition.get(if condition.len() == 1 { 0 } else { i })?;
                let from = if *c { x } else { y };
                from.elems.get(if from.elems.len() == 1 { 0 } else { i }).cloned()
            })
            .collect::<Option<Vec<_>>>()?,
        (Some(x), None) if all(true) && x.elems.len() == n => x.elems.clone(),
        (None, Some(y)) if all(false) && y.elems.len() == n => y.elems.clone(),
        _ => return None,
    };
    Some(DimTensor { scalar: false, elems: picked })
}

impl Operator for Where {
    fn schema(&self) -> Schema {
        Schema { name: "Where", domain: "", since: &[9, 16], inputs: (3, 3), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = if cx.dtype(1)? == DType::Undefined { cx.dtype(2)? } else { cx.dtype(1)? };
        let ty = broadcast::infer(cx, [0, 1, 2], dtype)?;
        let dims = dims(cx).filter(|_| ty.rank() == Some(1) && matches!(dtype, DType::I64 | DType::I32));
        Ok(vec![Fact { dims, ..ty.into() }])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (c, x, y) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        if x.dtype() != y.dtype() {
            return Err(Error::mismatch("element type of Y", y.dtype(), x.dtype()));
        }
        let out = broadcast::shape(&[c.shape(), x.shape(), y.shape()])?;
        let condition = c.as_bools()?;
        let strides = [c, x, y].map(|t| broadcast::strides(t.shape(), &out));
        let strides = [&strides[0][..], &strides[1][..], &strides[2][..]];
        if x.dtype() == DType::String {
            let (xs, ys, mut z) = (x.as_strings()?, y.as_strings()?, vec![]);
            broadcast::for_each(&out, strides, |[c, i, k]| {
                z.push(if condition[c] { xs[i].clone() } else { ys[k].clone() });
            });
            return Ok(vec![Tensor::from_strings(out, z)?.into()]);
        }
        let width = (x.dtype().bits() / 8).max(1);
        let (xs, ys) = (x.unpacked_bits(), y.unpacked_bits());
        let mut z: Vec<u8> = Vec::with_capacity(out.iter().product::<usize>() * width);
        broadcast::for_each(&out, strides, |[c, i, k]| {
            let (from, at) = if condition[c] { (&xs, i) } else { (&ys, k) };
            z.extend_from_slice(&from[at * width..][..width]);
        });
        Ok(vec![Tensor::from_unpacked_bits(x.dtype(), out, &z)?.into()])
    }
}
