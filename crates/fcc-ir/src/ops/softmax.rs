//! `Softmax`, `LogSoftmax`, `Hardmax`. <https://onnx.ai/onnx/operators/onnx__Softmax.html>
use crate::limits::watched;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::numeric::{Num, Real, with_real};
use crate::{OpNode, Result, Value};

/// Normalisation of one axis to a distribution.
pub struct Softmax {
    name: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy)]
enum Kind {
    Softmax,
    Log,
    Hard,
}

/// `Softmax`: `exp(x) / sum(exp(x))`.
pub static SOFTMAX: Softmax = Softmax { name: "Softmax", kind: Kind::Softmax };
/// `LogSoftmax`: `ln(Softmax(x))`.
pub static LOG_SOFTMAX: Softmax = Softmax { name: "LogSoftmax", kind: Kind::Log };
/// `Hardmax`: 1 at the first greatest element, else 0.
pub static HARDMAX: Softmax = Softmax { name: "Hardmax", kind: Kind::Hard };

/// A tensor seen as `[outer, len, inner]`, normalised over `len`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SoftmaxProblem {
    /// Product of the extents before.
    pub outer: usize,
    /// Extent that is normalised.
    pub len: usize,
    /// Product of the extents behind.
    pub inner: usize,
}

/// The axes that are normalised together, as a range: one from opset 13 on, before that the axis and all behind it.
pub fn axes(node: &OpNode, rank: usize) -> Result<std::ops::Range<usize>> {
    let coerced = node.version < 13;
    let given = node.attrs.int_or("axis", if coerced { 1 } else { -1 })?;
    if rank == 0 || (coerced && usize::try_from(given) == Ok(rank)) {
        return Ok(rank..rank);
    }
    let axis = crate::op::axis(given, rank)?;
    Ok(axis..if coerced { rank } else { axis + 1 })
}

impl SoftmaxProblem {
    /// The view of a shape.
    pub fn new(node: &OpNode, shape: &[usize]) -> Result<SoftmaxProblem> {
        let axes = axes(node, shape.len())?;
        let product = |s: &[usize]| s.iter().product();
        Ok(SoftmaxProblem {
            outer: product(&shape[..axes.start]),
            len: product(&shape[axes.clone()]),
            inner: product(&shape[axes.end..]),
        })
    }
    /// Applies `f` to every line along the normalised extent.
    pub(crate) fn for_each_line<T: Copy>(&self, data: &mut [T], mut f: impl FnMut(&mut [T])) {
        let mut line = Vec::with_capacity(self.len);
        for o in watched(0..self.outer) {
            for i in watched(0..self.inner) {
                let at = |l: usize| (o * self.len + l) * self.inner + i;
                line.clear();
                line.extend((0..self.len).map(|l| data[at(l)]));
                f(&mut line);
                line.iter().enumerate().for_each(|(l, v)| data[at(l)] = *v);
            }
        }
    }
}

/// `Softmax` or `LogSoftmax` of one line, shifted by its maximum.
pub(crate) fn softmax_line<T: Real>(line: &mut [T], log: bool) {
    let max = line.iter().fold(T::LOWEST, |m, v| if *v > m || v.is_nan() { *v } else { m });
    line.iter_mut().for_each(|v| *v = *v - max);
    let mut sum = T::ZERO;
    line.iter().for_each(|v| sum += v.exp());
    line.iter_mut().for_each(|v| *v = if log { *v - sum.ln() } else { v.exp() / sum });
}

fn hardmax_line<T: Real>(line: &mut [T]) {
    let first = (0..line.len()).reduce(|best, i| if line[i] > line[best] { i } else { best });
    line.iter_mut().enumerate().for_each(|(i, v)| *v = if Some(i) == first { T::ONE } else { T::ZERO });
}

impl Operator for Softmax {
    fn schema(&self) -> Schema {
        Schema { name: self.name, domain: "", since: &[1, 11, 13], inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        if let Some(shape) = cx.shape(0)? {
            axes(cx.node, shape.len())?;
        }
        Ok(vec![cx.ty(0)?.clone().into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let p = SoftmaxProblem::new(cx.node, x.shape())?;
        with_real!(x.dtype(), T => {
            let mut y = T::load(x)?.into_owned();
            p.for_each_line(&mut y, |line| match self.kind {
                Kind::Softmax => softmax_line(line, false),
                Kind::Log => softmax_line(line, true),
                Kind::Hard => hardmax_line(line),
            });
            Ok(vec![T::store(x.dtype(), x.shape(), y)?.into()])
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::Tensor;
    use crate::attr::Attrs;
    use crate::ops::testing::eval1;

    #[test]
    fn before_opset_13_the_axis_and_all_behind_it_are_one() {
        let x = Some(Tensor::new([1, 2, 2], vec![0f32; 4]).unwrap());
        let values = |version, attrs| {
            let y = eval1("Softmax", version, attrs, std::slice::from_ref(&x)).unwrap();
            y.as_slice::<f32>().unwrap().to_vec()
        };
        assert_eq!(values(11, Attrs::new()), [0.25; 4]);
        assert_eq!(values(13, Attrs::new()), [0.5; 4]);
        assert_eq!(values(13, Attrs::new().with("axis", 0i64)), [1.0; 4]);
    }

    #[test]
    fn large_scores_do_not_overflow() {
        let x = Some(Tensor::new([2], vec![1e4f32, 1e4]).unwrap());
        let y = eval1("LogSoftmax", 13, Attrs::new(), &[x]).unwrap();
        assert_eq!(y.as_slice::<f32>().unwrap()[..], [-std::f32::consts::LN_2; 2]);
    }
}
