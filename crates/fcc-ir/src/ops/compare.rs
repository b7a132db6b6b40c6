//! `Equal`, `Greater`, `GreaterOrEqual`, `Less`, `LessOrEqual`: two inputs to truth values.
use crate::op::{DimTensor, EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::broadcast;
use crate::ops::numeric::{Num, with_num};
use crate::{DType, Dim, Error, Result, Tensor, Value};
use std::cmp::Ordering;

/// A comparison of two inputs.
pub struct Compare {
    name: &'static str,
    since: &'static [i64],
    /// Whether the answer is yes for this order; NaN has none and is never equal, less or greater.
    holds: fn(Ordering) -> bool,
}

/// `Equal`.
pub static EQUAL: Compare = Compare { name: "Equal", since: &[1, 7, 11, 13, 19], holds: Ordering::is_eq };
/// `Greater`.
pub static GREATER: Compare = Compare { name: "Greater", since: &[1, 7, 9, 13], holds: Ordering::is_gt };
/// `GreaterOrEqual`.
pub static GREATER_OR_EQUAL: Compare =
    Compare { name: "GreaterOrEqual", since: &[12, 16], holds: Ordering::is_ge };
/// `Less`.
pub static LESS: Compare = Compare { name: "Less", since: &[1, 7, 9, 13], holds: Ordering::is_lt };
/// `LessOrEqual`.
pub static LESS_OR_EQUAL: Compare = Compare { name: "LessOrEqual", since: &[12, 16], holds: Ordering::is_le };

impl Compare {
    /// The answer where it is the same in every run although an extent is symbolic: an extent is never negative,
    /// and is equal to itself.
    fn decided(&self, cx: &InferCtx<'_>) -> Option<Tensor> {
        if let (Some(a), Some(b)) = (cx.dims(0), cx.dims(1)) {
            return self.zip(&a, &b.elems, b.scalar, |a, b| match (a, b) {
                (Dim::Known(a), Dim::Known(b)) => Some(a.cmp(b)),
                (a, b) if a.same(b) => Some(Ordering::Equal),
                _ => None,
            });
        }
        let (a, b) = (cx.dims(0)?, cx.value(1).filter(|t| t.rank() <= 1)?);
        let negative = |_: &Dim, b: &i64| (*b < 0).then_some(Ordering::Greater);
        self.zip(&a, &b.to_i64s().ok()?, b.rank() == 0, |a, b| match a {
            Dim::Known(n) => i64::try_from(*n).ok().map(|n| n.cmp(b)),
            _ => negative(a, b),
        })
    }
    fn zip<B>(
        &self,
        a: &DimTensor,
        b: &[B],
        b_scalar: bool,
        order: impl Fn(&Dim, &B) -> Option<Ordering>,
    ) -> Option<Tensor> {
        let n = if a.elems.len() == 1 { b.len() } else { a.elems.len() };
        let at = |i: usize, len: usize| if len == 1 { 0 } else { i };
        let answers = (0..n).map(|i| order(a.elems.get(at(i, a.elems.len()))?, b.get(at(i, b.len()))?));
        let answers: Option<Vec<bool>> = answers.map(|o| o.map(self.holds)).collect();
        let shape = if a.scalar && b_scalar { vec![] } else { vec![n] };
        Tensor::from_bools(shape, answers?).ok()
    }
}

impl Operator for Compare {
    fn schema(&self) -> Schema {
        Schema { name: self.name, domain: "", since: self.since, inputs: (2, 2), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        if let Some(answer) = self.decided(cx) {
            return Ok(vec![Fact::constant(answer)]);
        }
        Ok(vec![broadcast::infer(cx, [0, 1], DType::Bool)?.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (a, b) = (cx.tensor(0)?, cx.tensor(1)?);
        if a.dtype() != b.dtype() {
            return Err(Error::mismatch("element type of the second input", b.dtype(), a.dtype()));
        }
        let (a, b, out) = broadcast::operands(cx.node, a, b)?;
        let f = |o: Option<Ordering>| o.is_some_and(self.holds);
        let y = match a.dtype() {
            DType::Bool => {
                let (x, y) = (a.as_bools()?, b.as_bools()?);
                broadcast::map2((&x, a.shape()), (&y, b.shape()), &out, |x, y| f(x.partial_cmp(&y)))
            }
            DType::String => {
                let (x, y): (Vec<_>, Vec<_>) =
                    (a.as_strings()?.iter().collect(), b.as_strings()?.iter().collect());
                broadcast::map2((&x, a.shape()), (&y, b.shape()), &out, |x, y| f(x.partial_cmp(y)))
            }
            other => with_num!(other, T => {
                let (x, y) = (T::load(&a)?, T::load(&b)?);
                broadcast::map2((&x[..], a.shape()), (&y[..], b.shape()), &out, |x, y| f(x.partial_cmp(&y)))
            }),
        };
        Ok(vec![Tensor::from_bools(out, y)?.into()])
    }
}
