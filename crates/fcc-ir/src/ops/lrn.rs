//! `LRN`: local response normalisation over channels. <https://onnx.ai/onnx/operators/onnx__LRN.html>
use crate::limits::watched;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::numeric::{Num, Real, with_real};
use crate::{Error, OpNode, Result, Value};

/// `LRN`.
pub struct Lrn;

/// The attributes of an `LRN`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LrnParams {
    /// Channels that count before and behind the one that is normalised.
    pub reach: (usize, usize),
    /// Channels summed over, at least 1.
    pub size: usize,
    /// Factor of the mean square.
    pub alpha: f32,
    /// Exponent.
    pub beta: f32,
    /// Added before the power.
    pub bias: f32,
}

/// Reads the attributes.
pub fn params(node: &OpNode) -> Result<LrnParams> {
    let size = node.attrs.need_int("size")?;
    let size = usize::try_from(size)
        .ok()
        .filter(|s| *s > 0)
        .ok_or_else(|| Error::mismatch("attribute `size`", size, "at least 1"))?;
    Ok(LrnParams {
        reach: ((size - 1) / 2, (size - 1).div_ceil(2)),
        size,
        alpha: node.attrs.float_or("alpha", 1e-4)?,
        beta: node.attrs.float_or("beta", 0.75)?,
        bias: node.attrs.float_or("bias", 1.0)?,
    })
}

impl Operator for Lrn {
    fn schema(&self) -> Schema {
        Schema { name: "LRN", domain: "", since: &[1, 13], inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        params(cx.node)?;
        Ok(vec![cx.ty(0)?.clone().into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (x, p) = (cx.tensor(0)?, params(cx.node)?);
        let [n, c, spatial @ ..] = x.shape() else {
            return Err(Error::mismatch("rank of x", x.rank(), "at least 2"));
        };
        let (n, c, inner) = (*n, *c, spatial.iter().product::<usize>());
        with_real!(x.dtype(), T => {
            let values = T::load(x)?;
            let mut y = Vec::with_capacity(values.len());
            for b in 0..n {
                for channel in watched(0..c) {
                    let first = channel.saturating_sub(p.reach.0);
                    let last = channel.saturating_add(p.reach.1).min(c - 1);
                    for i in watched(0..inner) {
                        let at = |ch: usize| values[(b * c + ch) * inner + i];
                        let squares = (first..=last).fold(T::ZERO, |s, ch| s + at(ch) * at(ch));
                        let scale = T::of(p.bias) + T::of(p.alpha) / T::from_f64(p.size as f64) * squares;
                        y.push(at(channel) / scale.powf(T::of(p.beta)));
                    }
                }
            }
            Ok(vec![T::store(x.dtype(), x.shape(), y)?.into()])
        })
    }
}
