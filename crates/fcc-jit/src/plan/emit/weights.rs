//! Weights on their way into the order of a kernel.
use super::{Emit, Loc};
use crate::compiled::Release;
use crate::error::{Error, Result};
use crate::floats::Floats;
use fcc_ir::{DType, Tensor};
use std::ops::Range;
use std::sync::Arc;

/// Constant weights, and factors for each of their output channels.
pub(super) struct Weights {
    tensor: Tensor,
    scale: Option<Arc<[f64]>>,
    /// Neighbouring elements that have one factor.
    run: usize,
}

/// Weights while they are packed.
pub(super) struct Source<'a> {
    /// Their elements.
    pub values: Floats<'a>,
    /// The bytes that `values` are, and who wants to know which of them are read.
    held: Option<(&'a [u8], &'a Release)>,
}

impl Source<'_> {
    /// Says that these elements are not read any more.
    pub fn done(&self, elems: Range<usize>) {
        if let Some((bytes, release)) = self.held {
            release.call(&bytes[4 * elems.start..4 * elems.end]);
        }
    }
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
    pub fn finite(&self, factor: f32) -> std::result::Result<bool, super::Stop> {
        let mut finite = false;
        let look = |w: &Source<'_>| {
            finite = w.values.iter().all(|v| (v * factor).is_finite());
            Ok(())
        };
        self.pack(None, look).map_err(fcc_ir::Error::from)?;
        Ok(finite)
    }

    /// Has the weights packed, then lets go of them.
    fn pack(&self, release: Option<&Release>, job: impl FnOnce(&Source<'_>) -> Result<()>) -> Result<()> {
        if self.tensor.dtype() != DType::F32 {
            return Err(Error::Codegen(format!("weights of {}", self.tensor.dtype())));
        }
        let bytes = self.tensor.bytes();
        let values = Floats::of_bytes(bytes);
        match self.scale.as_ref().filter(|s| !s.is_empty()) {
            None => job(&Source { values, held: release.map(|r| (&bytes[..], r)) })?,
            Some(scale) => {
                let mut scaled = Vec::with_capacity(values.len());
                for (run, factor) in values.chunks(self.run).zip(scale.iter().cycle()) {
                    scaled.extend(run.iter().map(|v| (f64::from(v) * factor) as f32));
                }
                job(&Source { values: (&scaled).into(), held: None })?;
            }
        }
        if let Some(release) = release {
            release.call(bytes);
        }
        Ok(())
    }
}

impl Emit<'_> {
    /// A constant of `elems` floats that `job` makes from the weights before the plan is finished, beside others. Where
    /// the weights lie in the file is not needed afterwards, and said so.
    pub(super) fn packed_from(
        &mut self,
        weights: Weights,
        elems: usize,
        job: impl FnOnce(&Source<'_>, &mut [f32]) -> Result<()> + Send + 'static,
    ) -> Loc {
        let release = self.shared.options.release.clone();
        self.packed_later(elems, move |out| weights.pack(release.as_ref(), |source| job(source, out)))
    }
}
