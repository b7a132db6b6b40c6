//! `Equal`, `Greater`, `GreaterOrEqual`, `Less`, `LessOrEqual`: two inputs to truth values.
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::broadcast;
use crate::ops::numeric::{Num, with_num};
use crate::{DType, Error, Result, Tensor, Value};
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
    /// The answer where it is the same in every run although an extent is symbolic: equal expressions are equal, and
    /// what is not negative is greater than what is.
    fn decided(&self, cx: &InferCtx<'_>) -> Option<Tensor> {
        let (a, b) = (cx.dims(0)?, cx.dims(1)?);
        let n = if a.elems().len() == 1 { b.elems().len() } else { a.elems().len() };
        let order = |i: usize| -> Option<Ordering> {
            let (i, k) = (if a.elems().len() == 1 { 0 } else { i }, if b.elems().len() == 1 { 0 } else { i });
            let (x, y) = (a.elems().get(i)?, b.elems().get(k)?);
            match (a.int(i), b.int(k)) {
                (Some(x), Some(y)) => Some(x.cmp(&y)),
                (None, Some(y)) if y < 0 && x.is_nonnegative() => Some(Ordering::Greater),
                (Some(x), None) if x < 0 && y.is_nonnegative() => Some(Ordering::Less),
                _ => x.same(y).then_some(Ordering::Equal),
            }
        };
        let answers: Option<Vec<bool>> = (0..n).map(|i| order(i).map(self.holds)).collect();
        let shape = if a.is_scalar() && b.is_scalar() { vec![] } else { vec![n] };
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::op::DimTensor;
    use crate::ops::testing::infer;
    use crate::{Dim, ValueType};

    #[test]
    fn an_extent_never_equals_minus_one() {
        let shape = Fact {
            ty: ValueType::tensor(DType::I64, [2usize]),
            dims: DimTensor::vector([Dim::symbol("N"), Dim::Known(3)]),
            value: None,
        };
        let equal = |b: &[i64]| {
            let b = Fact::constant(Tensor::from_i64s(b));
            infer("Equal", 19, Attrs::new(), &[Some(shape.clone()), Some(b)], 1).unwrap().remove(0).value
        };
        assert_eq!(equal(&[-1, -1]).unwrap().as_bools().unwrap(), [false, false]);
        assert_eq!(equal(&[-1, 3]).unwrap().as_bools().unwrap(), [false, true]);
        assert_eq!(equal(&[4, 3]), None, "N may be 4");
        let difference = Fact::of_dims(DType::I64, DimTensor::scalar(Dim::symbol("N").offset(-5)));
        let minus_one = Fact::constant(Tensor::scalar(-1i64));
        let facts = infer("Equal", 19, Attrs::new(), &[Some(difference), Some(minus_one)], 1).unwrap();
        assert_eq!(facts[0].value, None, "N may be 4");
    }
}
