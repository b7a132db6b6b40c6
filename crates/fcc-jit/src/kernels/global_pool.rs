//! GlobalAveragePool and GlobalMaxPool of a blocked activation.

use super::clif::{at, coordinates, for_range, off, share};
use super::layout::BlockedLayout;
use crate::asm::reg::*;
use crate::asm::{Asm, Cmp, Src};
use crate::error::{Error, Result};
use crate::module::{Emitter, Kernel, Operand};
use cranelift_codegen::ir::{InstBuilder, types::I64};
use cranelift_module::{FuncId, Module};

/// A pool over all pixels. The output is plain `[N, C]` (which `[N, C, 1, 1]` is too).
#[derive(Clone, Debug, PartialEq)]
pub struct GlobalPool {
    /// Input, blocked by the lanes.
    pub x: BlockedLayout,
    /// The largest value (NaN when there is one) instead of the mean.
    pub max: bool,
}

/// Accumulators: sums of every eighth pixel are added at the end.
const PARTS: usize = 8;

impl GlobalPool {
    /// `fn(x, y)`: all pixels of one channel block.
    fn kernel<M: Module>(&self, e: &mut Emitter<M>, lanes: usize) -> Result<FuncId> {
        let (x, isa) = (&self.x, e.isa());
        let [d, h, w] = x.spatial;
        // Without halo between them, rows (and planes) are one run of pixels.
        let (planes, rows, pixels) = if x.is_tight() { (1, 1, d * h * w) } else { (d, h, w) };
        let one = BlockedLayout { n: 1, c: lanes, parent_blocks: None, ..*x };
        e.cached(format!("global pool {one:?} {}", self.max), |e| {
            let mut a = Asm::new(isa)?;
            let mask = a.lanes(lanes)?;
            for i in 0..PARTS {
                if self.max { a.splat(i, f32::NEG_INFINITY)? } else { a.zero(i)? }
            }
            let plane = a.repeat(r9, planes)?;
            a.copy(r11, rdi)?;
            let row = a.repeat(r10, rows)?;
            a.copy(rcx, r11)?;
            let turns = pixels / PARTS;
            let px = x.pixel_bytes() as i32;
            if turns > 0 {
                let top = a.repeat(rax, turns)?;
                self.take(&mut a, PARTS, px)?;
                a.add_imm(rcx, i64::from(px) * PARTS as i64)?;
                a.again(rax, top)?;
            }
            self.take(&mut a, pixels % PARTS, px)?;
            a.add_imm(r11, x.row_bytes() as i64)?;
            a.again(r10, row)?;
            a.add_imm(rdi, x.plane_bytes() as i64)?;
            a.again(r9, plane)?;
            for width in [4, 2, 1] {
                for i in 0..width {
                    self.combine(&mut a, i, Src::Reg(i + width))?;
                }
            }
            if !self.max {
                a.splat(1, (d * h * w) as f32)?;
                a.div(0, 0, 1)?;
            }
            a.store_lanes(rsi.into(), 0, mask)?;
            let code = a.finish()?;
            e.assembled("global_pool", 2, &code)
        })
    }

    fn take(&self, a: &mut Asm, n: usize, px: i32) -> Result<()> {
        (0..n).try_for_each(|i| self.combine(a, i, Src::Mem(rcx + i as i32 * px)))
    }

    fn combine(&self, a: &mut Asm, d: usize, x: Src) -> Result<()> {
        if !self.max {
            return a.add(d, d, x);
        }
        a.max(PARTS, d, x)?;
        a.select(d, Cmp::Unordered, d, d, d, PARTS, PARTS + 1)
    }

    /// The step function; operands `x`, `y`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for another layout, [`Error::Unsupported`] for empty inputs.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        let (x, isa) = (self.x, e.isa());
        x.check("global pool")?;
        if x.cb != isa.lanes() {
            return Err(Error::unsupported("global pool", format!("{x:?} at level {isa}")));
        }
        if x.n == 0 || x.c == 0 || x.spatial.contains(&0) {
            return Err(Error::unsupported("global pool", format!("the empty input {x:?}")));
        }
        let full = self.kernel(e, isa.lanes())?;
        let tail = self.kernel(e, x.last_channels())?;
        let operands = vec![Operand::read("x", x.bytes()), Operand::write("y", 4 * x.n * x.c)];
        let (blocks, whole) = (x.blocks(), x.c / x.cb);
        let units = x.n * blocks;
        let tasks = units.min(threads.max(1));
        let func = e.step("global_pool", 2, |m, b, p, task| {
            let (low, high) = share(b, task, units, tasks);
            for_range(b, low, high, |b, u| {
                let c = coordinates(b, u, &[x.n, blocks]);
                let from = at(b, p[0], c[0], x.batch_bytes() as i64);
                let from = at(b, from, c[1], x.block_bytes() as i64);
                let from = off(b, from, x.origin_bytes() as i64);
                let to = at(b, p[1], c[0], 4 * x.c as i64);
                let to = at(b, to, c[1], x.pixel_bytes() as i64);
                let next = b.ins().iadd_imm_s(c[1], 1);
                let split = b.ins().iconst(I64, whole as i64);
                let hi = b.ins().umin(next, split);
                for (id, lo, hi) in [(full, c[1], hi), (tail, b.ins().umax(c[1], split), next)] {
                    for_range(b, lo, hi, |b, _| {
                        let f = m.declare_func_in_func(id, b.func);
                        b.ins().call(f, &[from, to]);
                    });
                }
            });
            Ok(())
        })?;
        let kind = if self.max { "max" } else { "average" };
        let name = format!("global {kind} pool {} {}x{} {isa}", x.c, x.spatial[1], x.spatial[2]);
        let flops = (x.n * x.c * x.spatial.iter().product::<usize>()) as u64;
        Ok(Kernel { func, name, operands, tasks, flops })
    }
}
