//! `ArgMax` and `ArgMin`.
use super::{HostOp, elems, elems_mut, input};
use fcc_ir::{DType, Error, Result};

/// The index of the greatest or least along the middle of `[outer, n, inner]`.
#[derive(Debug)]
pub(crate) struct Arg {
    /// The greatest, else the least.
    pub max: bool,
    /// Of equal elements the last one counts.
    pub select_last: bool,
    /// Product of the extents before the axis.
    pub outer: usize,
    /// The axis; at least 1.
    pub n: usize,
    /// Product of the extents behind.
    pub inner: usize,
    /// The input's type.
    pub dtype: DType,
}

impl Arg {
    /// Whether it searches this type.
    pub fn takes(dtype: DType) -> bool {
        matches!(dtype, DType::F32 | DType::I32 | DType::I64 | DType::U8 | DType::I8)
    }

    /// `first` says whether an element goes before the best one so far; NaN is the most extreme, as in numpy.
    fn search<T: Copy + PartialOrd>(&self, x: &[T], out: &mut [i64]) {
        let nan = |v: T| v.partial_cmp(&v).is_none();
        let better = |new: T, best: T| {
            if new == best || (nan(new) && nan(best)) {
                return self.select_last;
            }
            !nan(best) && (nan(new) || if self.max { new > best } else { new < best })
        };
        let (n, inner) = (self.n, self.inner);
        for (o, out) in out.chunks_exact_mut(inner.max(1)).enumerate() {
            for (i, out) in out.iter_mut().enumerate() {
                let column = &x[o * n * inner + i..];
                let mut best = 0;
                for l in 1..n {
                    if better(column[l * inner], column[best * inner]) {
                        best = l;
                    }
                }
                *out = best as i64;
            }
        }
    }
}

impl HostOp for Arg {
    fn name(&self) -> String {
        format!("Arg{} of {}x{}x{}", if self.max { "Max" } else { "Min" }, self.outer, self.n, self.inner)
    }
    fn run(&self, inputs: &[&[u8]], output: &mut [u8]) -> Result<()> {
        let (x, out) = (input(inputs, 0)?, elems_mut::<i64>(output)?);
        match self.dtype {
            DType::F32 => self.search(&elems::<f32>(x), out),
            DType::I32 => self.search(&elems::<i32>(x), out),
            DType::I64 => self.search(&elems::<i64>(x), out),
            DType::U8 => self.search(x, out),
            DType::I8 => self.search(&elems::<i8>(x), out),
            other => return Err(Error::unsupported(format!("element type {other} in a compiled step"))),
        }
        Ok(())
    }
}
