//! `Gather` with indices that are known only in the run.
use super::{HostOp, elems, input};
use fcc_ir::ops::gather::index;
use fcc_ir::{DType, Error, Result};

/// Takes slices of `[outer, extent, inner]` along the middle.
#[derive(Debug)]
pub(crate) struct Gather {
    /// Product of the extents before the axis.
    pub outer: usize,
    /// The axis.
    pub extent: usize,
    /// Bytes of a slice.
    pub inner_bytes: usize,
    /// The indices' type: int32 or int64.
    pub dtype: DType,
}

impl Gather {
    /// Positions of the indices, negative ones counted from the end. Errors outside.
    fn positions(&self, bytes: &[u8]) -> Result<Vec<usize>> {
        match self.dtype {
            DType::I32 => elems::<i32>(bytes).iter().map(|i| index(i64::from(*i), self.extent)).collect(),
            DType::I64 => elems::<i64>(bytes).iter().map(|i| index(*i, self.extent)).collect(),
            other => Err(Error::mismatch("element type of indices", other, "int64 or int32")),
        }
    }
}

impl HostOp for Gather {
    fn name(&self) -> String {
        format!("Gather slices of {} bytes out of {}x{}", self.inner_bytes, self.outer, self.extent)
    }
    fn run(&self, inputs: &[&[u8]], output: &mut [u8]) -> Result<()> {
        let (x, positions) = (input(inputs, 0)?, self.positions(input(inputs, 1)?)?);
        let n = self.inner_bytes;
        if n == 0 || positions.is_empty() {
            return Ok(());
        }
        let sources = x.chunks_exact(self.extent.max(1) * n);
        for (x, out) in sources.zip(output.chunks_exact_mut(positions.len() * n)) {
            match n {
                4 => copy::<4>(x, out, &positions),
                8 => copy::<8>(x, out, &positions),
                _ => {
                    for (p, out) in positions.iter().zip(out.chunks_exact_mut(n)) {
                        out.copy_from_slice(&x[p * n..][..n]);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Slices of `N` bytes.
fn copy<const N: usize>(x: &[u8], out: &mut [u8], positions: &[usize]) {
    let (x, out) = (x.as_chunks::<N>().0, out.as_chunks_mut::<N>().0);
    out.iter_mut().zip(positions).for_each(|(o, p)| *o = x[*p]);
}
