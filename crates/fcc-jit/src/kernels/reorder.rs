//! Reorders: between plain NCHW and blocked layouts, and between halos.

use super::clif::{at, coordinates, for_n, for_range, off, share};
use super::halo::Halo;
use super::layout::BlockedLayout;
use super::split::{Run, Split};
use crate::asm::reg::*;
use crate::asm::{Asm, Assembled, Isa};
use crate::error::{Error, Result};
use crate::module::{Emitter, Kernel, Operand};
use cranelift_codegen::ir::{InstBuilder, Value, types::I64};
use cranelift_frontend::FunctionBuilder;
use cranelift_module::{FuncId, Module};

/// A copy from one layout of an activation into another; the output's halo is zeroed.
#[derive(Clone, Debug, PartialEq)]
pub struct Reorder {
    /// Input; its halo is not read.
    pub x: BlockedLayout,
    /// Output, of the same sizes.
    pub y: BlockedLayout,
}

/// `fn(x, y)`: transposes `rows` vectors of `lanes` values: `y[j][i] = x[i][j]`. Missing rows count as zeros; `lanes`
/// output rows are stored, whole (`store` = lanes of the level) or only their first values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Transpose {
    pub isa: Isa,
    pub rows: usize,
    pub lanes: usize,
    pub store: usize,
    pub x_step: i32,
    pub y_step: i32,
}

impl Transpose {
    pub(super) fn define<M: Module>(&self, e: &mut Emitter<M>) -> Result<FuncId> {
        e.cached(format!("{self:?}"), |e| {
            let code = self.assemble()?;
            e.assembled("transpose", 2, &code)
        })
    }

    fn assemble(&self) -> Result<Assembled> {
        let mut w = Asm::new(self.isa)?;
        let n = self.isa.lanes();
        let load = w.lanes(self.lanes)?;
        let store = if self.store == self.lanes { load } else { w.lanes(self.store)? };
        let mut free: Vec<usize> = (n..w.regs()).rev().collect();
        let mut v: Vec<usize> = (0..n).collect();
        for &r in &v {
            match r < self.rows {
                true => w.load_lanes(r, rdi + r as i32 * self.x_step, load)?,
                false => w.zero(r)?,
            }
        }
        // Each stage replaces pairs (a, b) by two mixtures of them, in other registers.
        let pairs = |w: &mut Asm,
                     free: &mut Vec<usize>,
                     v: &mut [usize],
                     at: &[(usize, usize)],
                     mix: fn(&mut Asm, bool, usize, usize, usize) -> Result<()>| {
            for &(i, j) in at {
                let (Some(low), Some(high)) = (free.pop(), free.pop()) else {
                    return Err(Error::Codegen("out of registers".into()));
                };
                let (a, b) = (v[i], v[j]);
                mix(w, false, low, a, b)?;
                mix(w, true, high, a, b)?;
                (v[i], v[j]) = (low, high);
                free.extend([a, b]);
            }
            Ok(())
        };
        let stage = |step: usize| -> Vec<(usize, usize)> {
            (0..n).filter(|i| i & step == 0).map(|i| (i, i + step)).collect()
        };
        pairs(&mut w, &mut free, &mut v, &stage(1), |w, high, d, a, b| {
            if high { w.unpackhi(d, a, b) } else { w.unpacklo(d, a, b) }
        })?;
        pairs(&mut w, &mut free, &mut v, &stage(2), |w, high, d, a, b| {
            if high { w.unpackhi64(d, a, b) } else { w.unpacklo64(d, a, b) }
        })?;
        // Now v[4j + i] holds, in 128-bit block k, column 4k + [0, 2, 1, 3][i] of rows 4j .. 4j+3.
        match self.isa {
            Isa::Avx512 | Isa::Amx => {
                let blocks: fn(&mut Asm, bool, usize, usize, usize) -> Result<()> =
                    |w, high, d, a, b| w.shuffle_blocks(d, a, b, if high { 0xdd } else { 0x88 });
                pairs(&mut w, &mut free, &mut v, &stage(4), blocks)?;
                pairs(&mut w, &mut free, &mut v, &stage(8), blocks)?;
            }
            Isa::Baseline => {}
            Isa::Avx2 => pairs(&mut w, &mut free, &mut v, &stage(4), |w, high, d, a, b| {
                w.shuffle_blocks(d, a, b, if high { 0x31 } else { 0x20 })
            })?,
        }
        // v[4k + i] is now column 4k + [0, 2, 1, 3][i] of all rows.
        let out: Vec<usize> = (0..n).map(|j| v[4 * (j / 4) + [0, 2, 1, 3][j % 4]]).collect();
        for (j, &r) in out.iter().enumerate().take(self.lanes) {
            w.store_lanes(rsi + j as i32 * self.y_step, r, store)?;
        }
        w.finish()
    }
}

/// `fn(x, y)`: copies `bytes` (a multiple of 4).
fn define_copy<M: Module>(e: &mut Emitter<M>, bytes: usize) -> Result<FuncId> {
    let isa = e.isa();
    e.cached(format!("copy {bytes}"), |e| {
        let mut w = Asm::new(isa)?;
        let vb = isa.vector_bytes();
        let tail = bytes % vb;
        let mask = if tail == 0 { None } else { Some(w.lanes(tail / 4)?) };
        let turns = bytes / (4 * vb);
        let copy = |w: &mut Asm, n: usize| -> Result<()> {
            for i in 0..n {
                w.load(i, rdi + (i * vb) as i32)?;
            }
            for i in 0..n {
                w.store(rsi + (i * vb) as i32, i)?;
            }
            w.add_imm(rdi, (n * vb) as i64)?;
            w.add_imm(rsi, (n * vb) as i64)
        };
        if turns > 0 {
            let top = w.repeat(rax, turns)?;
            copy(&mut w, 4)?;
            w.again(rax, top)?;
        }
        copy(&mut w, bytes % (4 * vb) / vb)?;
        if let Some(mask) = mask {
            w.load_lanes(0, rdi.into(), mask)?;
            w.store_lanes(rsi.into(), 0, mask)?;
        }
        let code = w.finish()?;
        e.assembled("copy", 2, &code)
    })
}

/// What one row of one channel block needs.
enum Row {
    /// One copy.
    Copy(FuncId),
    /// Runs of pixels with the transposing kernel of each, for whole blocks and for the last block.
    Transpose(Vec<(Run, FuncId, FuncId)>),
}

impl Reorder {
    fn check(&self, isa: Isa) -> Result<()> {
        let (x, y) = (&self.x, &self.y);
        x.check("reorder")?;
        y.check("reorder")?;
        let blocks = [1, isa.lanes()];
        if (x.n, x.c, x.spatial) != (y.n, y.c, y.spatial)
            || !blocks.contains(&x.cb)
            || !blocks.contains(&y.cb)
        {
            return Err(Error::invalid("reorder", format!("{x:?} to {y:?} at level {isa}")));
        }
        if x.n == 0 || x.c == 0 || x.spatial.contains(&0) {
            return Err(Error::unsupported("reorder", format!("the empty activation {x:?}")));
        }
        Ok(())
    }

    /// The step function; operands `x`, `y`.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the layouts do not match.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        let isa = e.isa();
        self.check(isa)?;
        let (x, y) = (self.x, self.y);
        // Without halos every plane is one row.
        let flat = x.is_tight() && y.is_tight();
        let [d, h, w] = if flat { [1, 1, x.spatial.iter().product()] } else { x.spatial };
        let cb = isa.lanes();
        let copies = x.cb == y.cb;
        let block = if copies { x.cb } else { cb };
        let blocks = x.c.div_ceil(block);
        let row =
            if copies { Row::Copy(define_copy(e, w * x.pixel_bytes())?) } else { self.transposes(e, w)? };
        // Steps of the unit's channel block in x and y.
        let (x_block, y_block) = (x.block_bytes() * block / x.cb, y.block_bytes() * block / y.cb);
        let halo = Halo::define(e, &y)?;
        let bands = if x.n * blocks >= 4 * threads { 1 } else { threads.min(h) };
        let units = x.n * blocks * bands;
        let tasks = units.min(threads.max(1));
        let operands = vec![Operand::read("x", x.bytes()), Operand::write("y", y.bytes())];
        let whole = if copies { blocks } else { x.c / block };
        let func = e.step("reorder", 2, |m, b, p, task| {
            let (low, high) = share(b, task, units, tasks);
            for_range(b, low, high, |b, u| {
                let c = coordinates(b, u, &[x.n, blocks, bands]);
                let (lo_row, hi_row) = share(b, c[2], h, bands);
                let image = at(b, p[1], c[0], y.batch_bytes() as i64);
                let to = at(b, image, c[1], y_block as i64);
                if let Some(halo) = &halo {
                    super::clif::if_equal(b, c[2], 0, |b| {
                        let planes = b.ins().iconst(I64, (block / y.cb) as i64);
                        let first = b.ins().imul_imm_s(c[1], (block / y.cb) as i64);
                        let last = b.ins().iadd(first, planes);
                        let all = b.ins().iconst(I64, y.blocks() as i64);
                        let last = b.ins().umin(last, all);
                        for_range(b, first, last, |b, i| {
                            let plane = at(b, image, i, y.block_bytes() as i64);
                            halo.call(m, b, plane);
                        });
                    });
                }
                let from = at(b, p[0], c[0], x.batch_bytes() as i64);
                let from = at(b, from, c[1], x_block as i64);
                let (from, to) = (off(b, from, x.origin_bytes() as i64), off(b, to, y.origin_bytes() as i64));
                for_n(b, d as i64, |b, od| {
                    let from = at(b, from, od, x.plane_bytes() as i64);
                    let to = at(b, to, od, y.plane_bytes() as i64);
                    for_range(b, lo_row, hi_row, |b, oh| {
                        let from = at(b, from, oh, x.row_bytes() as i64);
                        let to = at(b, to, oh, y.row_bytes() as i64);
                        self.emit_row(m, b, &row, from, to, c[1], whole);
                    });
                });
            });
            Ok(())
        })?;
        let name = format!(
            "reorder {}x{} {}x{} by {} to {} {isa}",
            x.n, x.c, x.spatial[1], x.spatial[2], x.cb, y.cb
        );
        Ok(Kernel { func, name, operands, tasks, flops: 0 })
    }

    fn transposes<M: Module>(&self, e: &mut Emitter<M>, w: usize) -> Result<Row> {
        let (isa, lanes) = (e.isa(), e.isa().lanes());
        let mut runs = Vec::new();
        // Whole vectors first, then what is left.
        let mut parts = Vec::new();
        if w / lanes > 0 {
            parts.extend(Split::into(w / lanes * lanes, w / lanes).runs());
        }
        if !w.is_multiple_of(lanes) {
            parts.push(Run { from: 0, to: 1, size: w % lanes, start: w / lanes * lanes });
        }
        for run in parts {
            let mut ids = Vec::new();
            for channels in [lanes, (self.x.c - 1) % lanes + 1] {
                let t = if self.x.cb == 1 {
                    let (x_step, y_step) = (self.x.block_bytes() as i32, self.y.pixel_bytes() as i32);
                    Transpose { isa, rows: channels, lanes: run.size, store: lanes, x_step, y_step }
                } else {
                    let (x_step, y_step) = (self.x.pixel_bytes() as i32, self.y.block_bytes() as i32);
                    Transpose { isa, rows: run.size, lanes: channels, store: run.size, x_step, y_step }
                };
                ids.push(t.define(e)?);
            }
            runs.push((run, ids[0], ids[1]));
        }
        Ok(Row::Transpose(runs))
    }

    fn emit_row<M: Module>(
        &self,
        m: &mut M,
        b: &mut FunctionBuilder,
        row: &Row,
        from: Value,
        to: Value,
        block: Value,
        whole: usize,
    ) {
        let runs = match row {
            Row::Copy(id) => {
                let f = m.declare_func_in_func(*id, b.func);
                b.ins().call(f, &[from, to]);
                return;
            }
            Row::Transpose(runs) => runs,
        };
        for (run, full, last) in runs {
            let (px_x, px_y) = (self.x.pixel_bytes() as i64, self.y.pixel_bytes() as i64);
            let (from, to) = (off(b, from, run.start as i64 * px_x), off(b, to, run.start as i64 * px_y));
            let step = run.size as i64;
            for_n(b, (run.to - run.from) as i64, |b, t| {
                let (from, to) = (at(b, from, t, step * px_x), at(b, to, t, step * px_y));
                let mut call = |b: &mut FunctionBuilder, id: FuncId| {
                    let f = m.declare_func_in_func(id, b.func);
                    b.ins().call(f, &[from, to]);
                };
                if full == last {
                    return call(b, *full);
                }
                let next = b.ins().iadd_imm_s(block, 1);
                let split = b.ins().iconst(I64, whole as i64);
                let hi = b.ins().umin(next, split);
                for_range(b, block, hi, |b, _| call(b, *full));
                let lo = b.ins().umax(block, split);
                for_range(b, lo, next, |b, _| call(b, *last));
            });
        }
    }
}
