//! Steps in Rust: integers, truth values, mixed types, and indices that are known only in the run.
//!
//! They work on checked slices: what an operator forbids (an index outside, an integer division by zero) is the same
//! error as in the interpreter. Speed comes from plain loops over one type each, which the compiler turns to vectors.
mod elementwise;
mod features;
mod gather;
mod lengths;
mod recurrent;
mod search;
mod space;
mod trees;

pub(crate) use elementwise::{Arith, Cast, Compare, Logic, Not, Zip, ZipOp, select};
pub(crate) use features::{LinearRows, Normalise, Scale, takes as takes_features};
pub(crate) use gather::Gather;
pub(crate) use lengths::Lengths;
pub(crate) use recurrent::{Biases, PackRecurrence};
pub(crate) use search::Arg;
pub(crate) use space::Space;
pub(crate) use trees::{Ensembles, TreeOutput, TreeOutputs, TreeScores};

use crate::pool::Pool;
use fcc_ir::Result;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

/// A computation on the bytes of row-major tensors.
pub(crate) trait HostOp: Send + Sync + fmt::Debug {
    /// A short name for profiles.
    fn name(&self) -> String;
    /// Computes the whole output from the inputs; the sizes of all are those of the types it was made for.
    fn run(&self, inputs: &[&[u8]], output: &mut [u8]) -> Result<()>;
    /// The same on the threads of a pool, where the computation can be shared.
    fn run_on(&self, _pool: Option<&Pool>, inputs: &[&[u8]], output: &mut [u8]) -> Result<()> {
        self.run(inputs, output)
    }
}

/// A step that several plans may share.
pub(crate) type Host = Arc<dyn HostOp>;

/// The elements of an input, borrowed where they are aligned (data out of a file may not be).
fn elems<T: bytemuck::Pod>(bytes: &[u8]) -> Cow<'_, [T]> {
    match bytemuck::try_cast_slice(bytes) {
        Ok(s) => Cow::Borrowed(s),
        Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(bytes)),
    }
}

/// The elements of an output, which lies in memory of the plan and is aligned.
fn elems_mut<T: bytemuck::Pod>(bytes: &mut [u8]) -> Result<&mut [T]> {
    bytemuck::try_cast_slice_mut(bytes)
        .map_err(|e| fcc_ir::Error::invalid(format!("memory of an output: {e}")))
}

/// Input `i`.
fn input<'a>(inputs: &[&'a [u8]], i: usize) -> Result<&'a [u8]> {
    inputs.get(i).copied().ok_or_else(|| fcc_ir::Error::invalid(format!("a step lacks input {i}")))
}
