//! Zeroing the halo of an activation, for steps that write only its inside.

use super::clif::{at, coordinates, for_range, share};
use super::halo::Halo;
use super::layout::BlockedLayout;
use crate::error::Result;
use crate::module::{Emitter, Kernel, Operand};
use cranelift_module::Module;

/// The halo of an activation.
#[derive(Clone, Debug, PartialEq)]
pub struct ZeroHalo {
    /// The activation.
    pub layout: BlockedLayout,
}

impl ZeroHalo {
    /// The step function; operand `y`.
    ///
    /// # Errors
    /// A layout without a valid size.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        let l = self.layout;
        l.check("halo")?;
        let halo = Halo::define(e, &l)?;
        let units = l.n * l.blocks();
        let tasks = if units * l.block_bytes() < 1 << 18 { 1 } else { threads.max(1) };
        let func = e.step("zero_halo", 1, |m, b, p, task| {
            if let Some(halo) = &halo {
                let (low, high) = share(b, task, units, tasks);
                for_range(b, low, high, |b, u| {
                    let c = coordinates(b, u, &[l.n, l.blocks()]);
                    let image = at(b, p[0], c[0], l.batch_bytes() as i64);
                    let block = at(b, image, c[1], l.block_bytes() as i64);
                    halo.call(m, b, block);
                });
            }
            Ok(())
        })?;
        let operands = vec![Operand::write("y", l.bytes())];
        Ok(Kernel { func, name: format!("halo of {}x{}", l.n, l.c), operands, tasks, flops: 0 })
    }
}
