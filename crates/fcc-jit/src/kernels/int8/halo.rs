//! Filling the halo of an activation of bytes with a zero point.

use super::Zero;
use crate::error::{Error, Result};
use crate::kernels::clif::{at, coordinates, for_n, for_range, off, share};
use crate::kernels::halo::stretches;
use crate::kernels::layout::BlockedLayout;
use crate::module::{Access, Emitter, Kernel, Operand};
use cranelift_codegen::ir::types::{I8, I8X16, I32};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value};
use cranelift_frontend::FunctionBuilder;
use cranelift_module::Module;

/// The halo of an activation, to hold one value.
#[derive(Clone, Debug, PartialEq)]
pub struct FillHalo {
    /// The activation, of bytes.
    pub layout: BlockedLayout,
    /// The value.
    pub value: Zero,
}

/// Stores `value` in every byte of `bytes` (a multiple of 4) from `p`.
fn fill(b: &mut FunctionBuilder, p: Value, bytes: usize, value: Value) {
    let flags = MemFlagsData::new().with_notrap();
    let wide = b.ins().splat(I8X16, value);
    for_n(b, (bytes / 16) as i64, |b, i| {
        let q = at(b, p, i, 16);
        b.ins().store(flags, wide, q, 0);
    });
    let p = off(b, p, (bytes / 16 * 16) as i64);
    let word = b.ins().uextend(I32, value);
    let word = b.ins().imul_imm_s(word, 0x0101_0101);
    for i in 0..bytes % 16 / 4 {
        b.ins().store(flags, word, p, 4 * i as i32);
    }
}

impl FillHalo {
    /// The step function; operands the value (if it is an operand), `x`, whose inside is left alone.
    ///
    /// # Errors
    /// A layout without a valid size, or not of bytes.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        let l = self.layout;
        l.check("halo")?;
        if l.elem.bytes() != 1 || !l.cb.is_multiple_of(4) {
            return Err(Error::invalid("halo", format!("{l:?}")));
        }
        let given = self.value == Zero::Operand;
        let one = BlockedLayout { n: 1, c: l.cb, parent_blocks: None, ..l };
        let units = l.n * l.blocks();
        let tasks = if units * l.block_bytes() < 1 << 18 { 1 } else { threads.max(1) };
        let func = e.step("fill_halo", 1 + usize::from(given), |_, b, p, task| {
            let value = match self.value {
                Zero::Const(z) => b.ins().iconst(I8, i64::from(z as u8)),
                Zero::Operand => b.ins().load(I8, MemFlagsData::new().with_notrap(), p[0], 0),
            };
            let (low, high) = share(b, task, units, tasks);
            for_range(b, low, high, |b, u| {
                let c = coordinates(b, u, &[l.n, l.blocks()]);
                let image = at(b, p[usize::from(given)], c[0], l.batch_bytes() as i64);
                let block = at(b, image, c[1], l.block_bytes() as i64);
                let [outer, inner] = stretches(&one);
                for s in &outer {
                    let p = off(b, block, s.start as i64);
                    fill(b, p, s.bytes, value);
                }
                let first = off(b, block, (one.halo[0].0 * one.plane_bytes()) as i64);
                for_n(b, one.spatial[0] as i64, |b, d| {
                    let plane = at(b, first, d, one.plane_bytes() as i64);
                    for s in &inner {
                        let p = off(b, plane, s.start as i64);
                        for_n(b, s.count as i64, |b, i| {
                            let p = at(b, p, i, s.stride as i64);
                            fill(b, p, s.bytes, value);
                        });
                    }
                });
            });
            Ok(())
        })?;
        let mut operands = vec![];
        if given {
            operands.push(Operand::read("zero", 1));
        }
        operands.push(Operand { name: "x", bytes: l.bytes(), access: Access::ReadWrite });
        Ok(Kernel { func, name: format!("zero point around {}x{}", l.n, l.c), operands, tasks, flops: 0 })
    }
}
