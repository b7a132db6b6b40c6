//! The lengths of sequences, checked before machine code walks along them.
use super::{HostOp, elems, elems_mut, input};
use fcc_ir::{DType, Error, Result};

/// `sequence_lens` as 64-bit numbers from 0 to `steps`.
#[derive(Debug)]
pub(crate) struct Lengths {
    /// The greatest length.
    pub steps: usize,
    /// The input's type: int32 or int64.
    pub dtype: DType,
}

impl HostOp for Lengths {
    fn name(&self) -> String {
        format!("lengths up to {}", self.steps)
    }
    fn run(&self, inputs: &[&[u8]], output: &mut [u8]) -> Result<()> {
        let length = |v: i64| {
            let wanted = || Error::mismatch("sequence_lens", v, format!("0 to {}", self.steps));
            u64::try_from(v).ok().filter(|v| *v <= self.steps as u64).ok_or_else(wanted)
        };
        let (x, out) = (input(inputs, 0)?, elems_mut::<u64>(output)?);
        let all: Vec<i64> = match self.dtype {
            DType::I32 => elems::<i32>(x).iter().map(|v| i64::from(*v)).collect(),
            DType::I64 => elems::<i64>(x).into_owned(),
            other => return Err(Error::mismatch("element type of sequence_lens", other, "int32")),
        };
        for (o, v) in out.iter_mut().zip(all) {
            *o = length(v)?;
        }
        Ok(())
    }
}
