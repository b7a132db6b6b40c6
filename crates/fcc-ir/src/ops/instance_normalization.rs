//! `InstanceNormalization` and `GroupNormalization`: over the channels of a group and all spatial axes.
//! <https://onnx.ai/onnx/operators/onnx__GroupNormalization.html>
use crate::limits::watched;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::numeric::{Num, Real, with_real};
use crate::{Dim, Error, OpNode, Result, Tensor, Value};

/// `InstanceNormalization`: each channel is a group.
pub struct InstanceNormalization;
/// `GroupNormalization`.
pub struct GroupNormalization;

/// A normalisation of x `[N, C, spatial…]` in groups of channels.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct GroupNormProblem {
    /// Batch.
    pub n: usize,
    /// Channels.
    pub c: usize,
    /// Product of the spatial extents.
    pub inner: usize,
    /// Groups of channels.
    pub groups: usize,
    /// Scale and bias have one element for each group (`GroupNormalization` before opset 21), not for each channel.
    pub scale_per_group: bool,
    /// Added to the variance.
    pub epsilon: f32,
}

impl GroupNormProblem {
    /// Checks either operator against the shape of x. Errors name what does not fit.
    pub fn new(node: &OpNode, x: &[usize]) -> Result<GroupNormProblem> {
        let [n, c, spatial @ ..] = x else {
            return Err(Error::mismatch("rank of x", x.len(), "at least 2"));
        };
        let is_group = node.op == crate::Op::GroupNormalization;
        let groups = if is_group { node.attrs.need_int("num_groups")? } else { *c as i64 };
        let groups = usize::try_from(groups)
            .ok()
            .filter(|g| (*g > 0 && c % g == 0) || !is_group)
            .ok_or_else(|| Error::mismatch("attribute `num_groups`", groups, format!("a divisor of {c}")))?;
        Ok(GroupNormProblem {
            n: *n,
            c: *c,
            inner: spatial.iter().product(),
            groups,
            scale_per_group: is_group && node.version < 21,
            epsilon: node.attrs.float_or("epsilon", 1e-5)?,
        })
    }
}

fn infer(cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
    if let Some(x) = cx.shape(0)? {
        let c = x.get(1).ok_or_else(|| Error::mismatch("rank of x", x.len(), "at least 2"))?;
        let per_group = cx.node.op == crate::Op::GroupNormalization && cx.version() < 21;
        let groups = usize::try_from(cx.node.attrs.int_or("num_groups", 0)?).unwrap_or(0);
        let wanted = if per_group { Dim::Known(groups) } else { c.clone() };
        cx.need_shape(1, std::slice::from_ref(&wanted))?;
        cx.need_shape(2, &[wanted])?;
    }
    Ok(vec![cx.ty(0)?.clone().into()])
}

fn eval(cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
    let (x, scale, bias) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
    let p = GroupNormProblem::new(cx.node, x.shape())?;
    let wanted = if p.scale_per_group { p.groups } else { p.c };
    let fits = |t: &Tensor| t.shape() == [wanted];
    if !fits(scale) || !fits(bias) {
        let got = format!("{:?} and {:?}", scale.shape(), bias.shape());
        return Err(Error::mismatch("shapes of scale and bias", got, format!("[{wanted}]")));
    }
    with_real!(x.dtype(), T => {
        let (mut y, scale, bias) = (T::load(x)?.into_owned(), T::load(scale)?, T::load(bias)?);
        let per_group = p.c / p.groups.max(1);
        let size = per_group * p.inner;
        for (number, group) in watched(y.chunks_mut(size.max(1)).enumerate()) {
            let g = number % p.groups;
            let n = T::from_f64(group.len() as f64);
            let mean = group.iter().fold(T::ZERO, |s, v| s + *v) / n;
            let variance = group.iter().fold(T::ZERO, |s, v| s + (*v - mean) * (*v - mean)) / n;
            let deviation = (variance + T::of(p.epsilon)).sqrt();
            for (i, v) in group.iter_mut().enumerate() {
                let k = if p.scale_per_group { g } else { g * per_group + i / p.inner };
                *v = scale[k] * ((*v - mean) / deviation) + bias[k];
            }
        }
        Ok(vec![T::store(x.dtype(), x.shape(), y)?.into()])
    })
}

impl Operator for InstanceNormalization {
    fn schema(&self) -> Schema {
        Schema {
            name: "InstanceNormalization",
            domain: "",
            since: &[1, 6, 22],
            inputs: (3, 3),
            outputs: (1, 1),
        }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        infer(cx)
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        eval(cx)
    }
}

impl Operator for GroupNormalization {
    fn schema(&self) -> Schema {
        Schema { name: "GroupNormalization", domain: "", since: &[18, 21], inputs: (3, 3), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.node.attrs.need_int("num_groups")?;
        infer(cx)
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        eval(cx)
    }
}
