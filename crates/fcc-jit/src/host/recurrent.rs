//! Weights of recurrent layers that are computed in the run: brought into the order of the kernels there.
use super::{HostOp, elems, elems_mut, input};
use crate::asm::Isa;
use crate::error;
use crate::kernels::recurrent::Recurrence;
use fcc_ir::{Error, Result};

/// Packs the recurrence weights, or the lists that a cell reads besides.
#[derive(Debug)]
pub(crate) struct PackRecurrence {
    /// The layer.
    pub spec: Recurrence,
    /// The level of its kernel.
    pub isa: Isa,
    /// The lists (see `CellKind::extras`), else the weights.
    pub extra: bool,
}

impl HostOp for PackRecurrence {
    fn name(&self) -> String {
        format!("pack {} of a recurrent layer", if self.extra { "peepholes or bias" } else { "weights" })
    }
    fn run(&self, inputs: &[&[u8]], output: &mut [u8]) -> Result<()> {
        let (x, out) = (elems::<f32>(input(inputs, 0)?), elems_mut::<f32>(output)?);
        if !self.extra {
            return self.spec.pack(self.isa, &*x, out).map_err(error::Error::into);
        }
        let packed = self.spec.pack_extra(self.isa, &x);
        if packed.len() != out.len() {
            return Err(Error::mismatch("packed lists", packed.len(), out.len()));
        }
        out.copy_from_slice(&packed);
        Ok(())
    }
}

/// The biases `[directions, 2 * rows]` of a recurrent layer, input side first, as the kernels want them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Biases {
    /// Gates times units.
    pub rows: usize,
    /// The rows from here on keep their recurrence bias apart; `rows` where all are joined.
    pub apart: usize,
    /// What is kept apart, else the joined ones.
    pub kept: bool,
}

impl Biases {
    /// `[directions * rows]` sums, or what is kept apart of all directions.
    pub fn make(&self, b: &[f32]) -> Vec<f32> {
        let mut out = vec![];
        for b in b.chunks_exact((2 * self.rows).max(1)) {
            let (own, state) = b.split_at(self.rows);
            if self.kept {
                out.extend_from_slice(&state[self.apart..]);
                continue;
            }
            let joined = own.iter().zip(state).enumerate();
            out.extend(joined.map(|(i, (w, r))| if i < self.apart { w + r } else { *w }));
        }
        out
    }
}

impl HostOp for Biases {
    fn name(&self) -> String {
        "biases of a recurrent layer".into()
    }
    fn run(&self, inputs: &[&[u8]], output: &mut [u8]) -> Result<()> {
        let (made, out) = (self.make(&elems::<f32>(input(inputs, 0)?)), elems_mut::<f32>(output)?);
        if made.len() != out.len() {
            return Err(Error::mismatch("biases", made.len(), out.len()));
        }
        out.copy_from_slice(&made);
        Ok(())
    }
}
