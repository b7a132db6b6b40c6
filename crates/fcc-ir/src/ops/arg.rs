//! `ArgMax`, `ArgMin`. <https://onnx.ai/onnx/operators/onnx__ArgMax.html>
use crate::limits::watched;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::numeric::{Num, with_num};
use crate::ops::reduce::out_shape;
use crate::{DType, Dim, Error, OpNode, Result, Tensor, TensorType, Value};

/// The index of the greatest or least element along an axis.
pub struct Arg {
    name: &'static str,
    max: bool,
}

/// `ArgMax`.
pub static ARG_MAX: Arg = Arg { name: "ArgMax", max: true };
/// `ArgMin`.
pub static ARG_MIN: Arg = Arg { name: "ArgMin", max: false };

/// The attributes of both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArgParams {
    /// The axis searched.
    pub axis: usize,
    /// It stays, with extent 1.
    pub keepdims: bool,
    /// Of equal elements the last one counts, not the first.
    pub select_last: bool,
}

/// Reads the attributes for an input of this rank.
pub fn params(node: &OpNode, rank: usize) -> Result<ArgParams> {
    Ok(ArgParams {
        axis: crate::op::axis(node.attrs.int_or("axis", 0)?, rank)?,
        keepdims: node.attrs.flag("keepdims", true)?,
        select_last: node.attrs.flag("select_last_index", false)?,
    })
}

impl Arg {
    /// Whether `new` takes the place of `best`; NaN is the most extreme, as in numpy.
    fn better<T: Num>(&self, new: T, best: T, select_last: bool) -> bool {
        let equal = new == best || (new.is_nan() && best.is_nan());
        if equal || best.is_nan() {
            return equal && select_last;
        }
        new.is_nan() || if self.max { new > best } else { new < best }
    }
}

impl Operator for Arg {
    fn schema(&self) -> Schema {
        Schema { name: self.name, domain: "", since: &[1, 11, 12, 13], inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let Some(shape) = cx.shape(0)? else { return Ok(vec![TensorType::unranked(DType::I64).into()]) };
        let p = params(cx.node, shape.len())?;
        Ok(vec![TensorType::new(DType::I64, out_shape(shape, &[p.axis], p.keepdims, Dim::Known(1))).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let p = params(cx.node, x.rank())?;
        let len = x.shape()[p.axis];
        if len == 0 {
            return Err(Error::mismatch(format!("extent of axis {}", p.axis), 0, "at least 1"));
        }
        let inner: usize = x.shape()[p.axis + 1..].iter().product();
        let outer: usize = x.shape()[..p.axis].iter().product();
        let mut y = Vec::with_capacity(outer * inner);
        with_num!(x.dtype(), T => {
            let values = T::load(x)?;
            for o in watched(0..outer) {
                for i in watched(0..inner) {
                    let at = |l: usize| values[(o * len + l) * inner + i];
                    let pick = |best, l| if self.better(at(l), at(best), p.select_last) { l } else { best };
                    y.push((1..len).fold(0, pick) as i64);
                }
            }
        });
        Ok(vec![Tensor::new(out_shape(x.shape(), &[p.axis], p.keepdims, 1), y)?.into()])
    }
}
