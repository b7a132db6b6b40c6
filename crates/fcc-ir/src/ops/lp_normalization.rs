//! `LpNormalization` and `MeanVarianceNormalization`: without learned parameters.
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::numeric::{Num, with_real};
use crate::ops::pool::norm;
use crate::ops::reduce;
use crate::ops::softmax::SoftmaxProblem;
use crate::{Error, OpNode, Result, Value};

/// `LpNormalization`: `x / norm(x)` along an axis, 0 where the norm is 0.
pub struct LpNormalization;
/// `MeanVarianceNormalization`: `(x - mean) / (deviation + 1e-9)`.
pub struct MeanVarianceNormalization;

/// Axis (for an input of this rank) and order, 1 or 2.
pub fn params(node: &OpNode, rank: usize) -> Result<(usize, i64)> {
    let p = node.attrs.int_or("p", 2)?;
    if !matches!(p, 1 | 2) {
        return Err(Error::mismatch("attribute `p`", p, "1 or 2"));
    }
    Ok((crate::op::axis(node.attrs.int_or("axis", -1)?, rank)?, p))
}

/// The axes of `MeanVarianceNormalization` for an input of this rank.
pub fn mean_variance_axes(node: &OpNode, rank: usize) -> Result<Vec<usize>> {
    let axes = node.attrs.ints("axes")?.unwrap_or(&[0, 2, 3]);
    reduce::normalise_axes(axes, rank)
}

impl Operator for LpNormalization {
    fn schema(&self) -> Schema {
        Schema { name: "LpNormalization", domain: "", since: &[1, 22], inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        if let Some(shape) = cx.shape(0)? {
            params(cx.node, shape.len())?;
        }
        Ok(vec![cx.ty(0)?.clone().into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let (axis, p) = params(cx.node, x.rank())?;
        let product = |s: &[usize]| s.iter().product();
        let (outer, inner) = (product(&x.shape()[..axis]), product(&x.shape()[axis + 1..]));
        let view = SoftmaxProblem { outer, len: x.shape()[axis], inner };
        with_real!(x.dtype(), T => {
            let mut y = T::load(x)?.into_owned();
            view.for_each_line(&mut y, |line| {
                let norm = norm(&mut line.iter().copied(), T::from_f64(p as f64));
                line.iter_mut().for_each(|v| *v = if norm == T::ZERO { T::ZERO } else { *v / norm });
            });
            Ok(vec![T::store(x.dtype(), x.shape(), y)?.into()])
        })
    }
}

impl Operator for MeanVarianceNormalization {
    fn schema(&self) -> Schema {
        let name = "MeanVarianceNormalization";
        Schema { name, domain: "", since: &[9, 13], inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        if let Some(shape) = cx.shape(0)? {
            mean_variance_axes(cx.node, shape.len())?;
        }
        Ok(vec![cx.ty(0)?.clone().into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let plan = reduce::Plan::new(x.shape(), &mean_variance_axes(cx.node, x.rank())?);
        with_real!(x.dtype(), T => {
            let values = T::load(x)?;
            let n = T::from_f64(plan.count as f64);
            let mean: Vec<T> =
                plan.fold(&values, T::ZERO, |s, v| s + v).into_iter().map(|s| s / n).collect();
            let mut squares = vec![T::ZERO; plan.out_len];
            plan.for_each(|i, o| squares[o] += (values[i] - mean[o]) * (values[i] - mean[o]));
            let mut y = vec![T::ZERO; values.len()];
            let epsilon = T::from_f64(1e-9);
            plan.for_each(|i, o| y[i] = (values[i] - mean[o]) / ((squares[o] / n).sqrt() + epsilon));
            Ok(vec![T::store(x.dtype(), x.shape(), y)?.into()])
        })
    }
}
