//! `CumSum`, `CumProd`. <https://onnx.ai/onnx/operators/onnx__CumSum.html>
use crate::limits::watched;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::numeric::{Num, with_num};
use crate::{Error, OpNode, Result, Value};

/// A running sum or product along an axis.
pub struct Cumulative {
    name: &'static str,
    since: &'static [i64],
    product: bool,
}

/// `CumProd`.
pub static CUM_PROD: Cumulative = Cumulative { name: "CumProd", since: &[26], product: true };
/// `CumSum`.
pub static CUM_SUM: Cumulative = Cumulative { name: "CumSum", since: &[11, 14], product: false };

/// Whether the element itself is left out, and whether it runs backwards.
pub fn params(node: &OpNode) -> Result<(bool, bool)> {
    Ok((node.attrs.flag("exclusive", false)?, node.attrs.flag("reverse", false)?))
}

impl Operator for Cumulative {
    fn schema(&self) -> Schema {
        Schema { name: self.name, domain: "", since: self.since, inputs: (2, 2), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![cx.ty(0)?.clone().into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (x, axis) = (cx.tensor(0)?, cx.tensor(1)?);
        let (exclusive, reverse) = params(cx.node)?;
        let [axis] = axis.to_i64s()?[..] else {
            return Err(Error::mismatch("shape of axis", format!("{:?}", axis.shape()), "a scalar"));
        };
        let axis = crate::op::axis(axis, x.rank())?;
        let len = x.shape()[axis];
        let inner: usize = x.shape()[axis + 1..].iter().product();
        with_num!(x.dtype(), T => {
            let mut y = T::load(x)?.into_owned();
            for outer in watched(y.chunks_mut((len * inner).max(1))) {
                for i in watched(0..inner) {
                    let mut total = if self.product { T::ONE } else { T::ZERO };
                    for step in 0..len {
                        let at = if reverse { len - 1 - step } else { step } * inner + i;
                        let next = if self.product { total.times(outer[at]) } else { total.plus(outer[at]) };
                        outer[at] = if exclusive { total } else { next };
                        total = next;
                    }
                }
            }
            Ok(vec![T::store(x.dtype(), x.shape(), y)?.into()])
        })
    }
}
