//! `OneHot`. <https://onnx.ai/onnx/operators/onnx__OneHot.html>
use super::movement;
use crate::convert::{Wide, widen};
use crate::limits::watched;
use crate::op::{DimTensor, EvalCtx, Fact, InferCtx, Operator, Schema, axis};
use crate::{Dim, Error, OpNode, Result, Tensor, TensorType, Value};

/// `OneHot`.
pub struct OneHot;

/// The axis of the output that is new, the last by default.
pub fn new_axis(node: &OpNode, rank_of_indices: usize) -> Result<usize> {
    axis(node.attrs.int_or("axis", -1)?, rank_of_indices + 1)
}

/// The elements as integers: the text allows any numeric type.
fn integers(t: &Tensor) -> Result<Vec<i64>> {
    Ok(match widen(t)? {
        Wide::Int(v) => v,
        Wide::UInt(v) => v.into_iter().map(|v| i64::try_from(v).unwrap_or(i64::MAX)).collect(),
        Wide::Float(v) => v.into_iter().map(|v| v as i64).collect(),
    })
}

fn depth(t: &Tensor) -> Result<usize> {
    let wanted = || Error::mismatch("depth", t.tensor_type(), "one positive number");
    match integers(t)?[..] {
        [d] => usize::try_from(d).ok().filter(|d| *d > 0 && *d < 1 << 40).ok_or_else(wanted),
        _ => Err(wanted()),
    }
}

impl Operator for OneHot {
    fn schema(&self) -> Schema {
        Schema { name: "OneHot", domain: "", since: &[9, 11, 28], inputs: (3, 3), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(2)?;
        let Some(x) = cx.shape(0)? else { return Ok(vec![TensorType::unranked(dtype).into()]) };
        let new = match cx.value(1) {
            Some(t) => Dim::Known(depth(t)?),
            None => cx.dims(1).map(DimTensor::first).unwrap_or_default(),
        };
        let mut out = x.clone();
        out.insert(new_axis(cx.node, x.len())?, new);
        Ok(vec![TensorType::new(dtype, out).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (x, depth, values) = (cx.tensor(0)?, depth(cx.tensor(1)?)?, cx.tensor(2)?);
        if values.shape() != [2] {
            return Err(Error::mismatch("values", values.tensor_type(), "[off, on]"));
        }
        let at = new_axis(cx.node, x.rank())?;
        let inner: usize = x.shape()[at..].iter().product();
        let outer: usize = x.shape()[..at].iter().product();
        let mut shape = x.shape().to_vec();
        shape.insert(at, depth);
        let mut on = vec![0usize; movement::new_elems(&shape)?];
        let indices = integers(x)?;
        let n = depth as i64;
        for o in watched(0..outer) {
            for i in 0..inner {
                let index = indices[o * inner + i];
                // what lies outside -depth..depth is off everywhere
                if (-n..n).contains(&index) {
                    on[(o * depth + index.rem_euclid(n) as usize) * inner + i] = 1;
                }
            }
        }
        Ok(vec![movement::take(values, shape, &on)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::eval1;

    #[test]
    fn indices_outside_are_off_and_the_axis_may_be_any() {
        let x = Tensor::new(vec![3], vec![-1f32, 5., 0.]).unwrap();
        let d = Tensor::scalar(3i64);
        let v = Tensor::new(vec![2], vec![7u8, 9]).unwrap();
        let run = |axis: i64| {
            let attrs = Attrs::new().with("axis", axis);
            eval1("OneHot", 11, attrs, &[Some(x.clone()), Some(d.clone()), Some(v.clone())]).unwrap()
        };
        assert_eq!(run(-1).bytes().as_ref(), [7, 7, 9, 7, 7, 7, 9, 7, 7]);
        assert_eq!(run(0).bytes().as_ref(), [7, 7, 9, 7, 7, 7, 9, 7, 7]);
    }
}
