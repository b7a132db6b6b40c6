//! `TopK`. <https://onnx.ai/onnx/operators/onnx__TopK.html>
use super::movement;
use crate::convert::widen;
use crate::limits::watched;
use crate::op::{DimTensor, EvalCtx, Fact, InferCtx, Operator, Schema, axis};
use crate::{DType, Dim, Error, OpNode, Result, Tensor, TensorType, Value};

/// `TopK`.
pub struct TopK;

/// The axis, the last by default.
pub fn topk_axis(node: &OpNode, rank: usize) -> Result<usize> {
    axis(node.attrs.int_or("axis", -1)?, rank)
}

/// How many: the attribute `k` of version 1, else the one element of input K.
fn count(node: &OpNode, input: Option<&Tensor>) -> Result<Option<usize>> {
    let k = match (node.attrs.int("k")?, input) {
        (Some(k), _) => k,
        (None, Some(t)) => match t.to_i64s()?[..] {
            [k] => k,
            _ => return Err(Error::mismatch("K", t.tensor_type(), "one element")),
        },
        (None, None) => return Ok(None),
    };
    usize::try_from(k).map(Some).map_err(|_| Error::mismatch("K", k, "at least 0"))
}

impl Operator for TopK {
    fn schema(&self) -> Schema {
        Schema { name: "TopK", domain: "", since: &[1, 10, 11, 24], inputs: (1, 2), outputs: (2, 2) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let mut shape = cx.shape(0)?.cloned();
        if let Some(shape) = &mut shape {
            let at = topk_axis(cx.node, shape.len())?;
            let symbolic = cx.dims(1).map(DimTensor::first);
            shape[at] = match count(cx.node, cx.value(1))? {
                Some(k) => Dim::Known(k),
                None => symbolic.unwrap_or_default(),
            };
        }
        let of = |dtype| Fact::from(TensorType { dtype, shape: shape.clone() });
        Ok(vec![of(cx.dtype(0)?), of(DType::I64)])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let at = topk_axis(cx.node, x.rank())?;
        let k = count(cx.node, cx.opt_tensor(1)?)?.ok_or_else(|| Error::mismatch("K", "none", "a number"))?;
        let n = x.shape()[at];
        if k > n {
            return Err(Error::mismatch("K", k, format!("at most {n}, the extent of axis {at}")));
        }
        let largest = cx.node.attrs.flag("largest", true)?;
        let keys = widen(x)?;
        let inner: usize = x.shape()[at + 1..].iter().product();
        let outer: usize = x.shape()[..at].iter().product();
        let mut shape = x.shape().to_vec();
        shape[at] = k;
        // positions along the axis, laid out like the output
        let mut positions = vec![0i64; outer * k * inner];
        let mut offsets = vec![0usize; outer * k * inner];
        for o in watched(0..outer) {
            for i in watched(0..inner) {
                let offset = |p: usize| (o * n + p) * inner + i;
                let mut order: Vec<usize> = (0..n).collect();
                // stable: of equal elements the first comes first
                order.sort_by(|&a, &b| match (keys.compare(offset(a), offset(b)), largest) {
                    (c, true) => c.reverse(),
                    (c, false) => c,
                });
                for (j, &p) in order[..k].iter().enumerate() {
                    let to = (o * k + j) * inner + i;
                    positions[to] = p as i64;
                    offsets[to] = offset(p);
                }
            }
        }
        let values = movement::take(x, shape.clone(), &offsets)?;
        Ok(vec![values.into(), Tensor::new(shape, positions)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::eval;

    #[test]
    fn ties_keep_their_order_in_every_version() {
        let x = Tensor::new(vec![2, 3], vec![1f32, 3., 3., 5., 4., 5.]).unwrap();
        let k = Some(Tensor::from_i64s([2]));
        let run = |version, attrs, k: Option<Tensor>| {
            let inputs: Vec<_> = std::iter::once(Some(x.clone())).chain(k.map(Some)).collect();
            let y = eval("TopK", version, attrs, &inputs, 2).unwrap();
            y[1].as_tensor().unwrap().to_i64s().unwrap()
        };
        assert_eq!(run(1, Attrs::new().with("k", 2i64), None), [1, 2, 0, 2]);
        assert_eq!(run(11, Attrs::new(), k.clone()), [1, 2, 0, 2]);
        assert_eq!(run(11, Attrs::new().with("largest", 0i64), k.clone()), [0, 1, 1, 0]);
        let far = Some(Tensor::from_i64s([4]));
        assert!(eval("TopK", 11, Attrs::new(), &[Some(x.clone()), far], 2).is_err());
        let along_0 = eval("TopK", 11, Attrs::new().with("axis", 0i64), &[Some(x.clone()), k], 2).unwrap();
        assert_eq!(along_0[1].as_tensor().unwrap().to_i64s().unwrap(), [1, 1, 1, 0, 0, 0]);
    }
}
