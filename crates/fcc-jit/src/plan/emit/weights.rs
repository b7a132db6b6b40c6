//! Weights on their way into the order of a kernel.
use super::{Emit, Loc};
use fcc_ir::Tensor;
use std::borrow::Cow;
use std::sync::Arc;

/// Constant weights, and factors for each of their output channels.
pub(super) struct Weights {
    tensor: Tensor,
    scale: Option<Arc<[f64]>>,
    /// Neighbouring elements that have one factor.
    run: usize,
}

/// The elements of weights, which lowering has seen to be f32.
pub(super) fn floats(t: &Tensor) -> crate::error::Result<Cow<'_, [f32]>> {
    t.as_slice::<f32>().map_err(|e| crate::error::Error::Codegen(e.to_string()))
}

impl Weights {
    /// As they are.
    pub fn plain(tensor: Tensor) -> Weights {
        Weights { tensor, scale: None, run: 1 }
    }
    /// With a factor for each output channel, which `run` neighbouring elements share; the channels come round again.
    pub fn scaled(tensor: Tensor, scale: Option<Arc<[f64]>>, run: usize) -> Weights {
        Weights { tensor, scale, run: run.max(1) }
    }

    /// Whether all values, times this factor, are finite.
    pub fn finite(&self, factor: f32) -> Result<bool, super::Stop> {
        let values = self.values().map_err(fcc_ir::Error::from)?;
        Ok(values.iter().all(|v| (v * factor).is_finite()))
    }

    fn values(&self) -> crate::error::Result<Cow<'_, [f32]>> {
        let plain = floats(&self.tensor)?;
        let Some(scale) = self.scale.as_ref().filter(|s| !s.is_empty()) else { return Ok(plain) };
        let mut values = Vec::with_capacity(plain.len());
        for (run, factor) in plain.chunks(self.run).zip(scale.iter().cycle()) {
            values.extend(run.iter().map(|v| (f64::from(*v) * factor) as f32));
        }
        Ok(values.into())
    }
}

impl Emit<'_> {
    /// A constant of `elems` floats that `job` makes from the weights before the plan is finished, beside others. Where
    /// the weights lie in the file is not needed afterwards, and said so.
    pub(super) fn packed_from(
        &mut self,
        weights: Weights,
        elems: usize,
        job: impl FnOnce(&[f32], &mut [f32]) -> crate::error::Result<()> + Send + 'static,
    ) -> Loc {
        let release = self.shared.options.release.clone();
        self.packed_later(elems, move |out| {
            job(&weights.values()?, out)?;
            if let Some(release) = release {
                release.call(weights.tensor.bytes());
            }
            Ok(())
        })
    }
}
