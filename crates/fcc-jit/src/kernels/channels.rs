//! Channels of a blocked activation in another order: channel shuffles, and slices that begin inside a block.
//!
//! A vector of the output takes its lanes from the few vectors of the input that hold them, one permutation for each.

use super::clif::{at, clip, coordinates, for_range, if_equal, off, share};
use super::halo::Halo;
use super::layout::BlockedLayout;
use crate::asm::reg::*;
use crate::asm::{Asm, Isa, Table};
use crate::error::{Error, Result};
use crate::module::{Emitter, Kernel, Operand};
use cranelift_codegen::ir::InstBuilder;
use cranelift_module::{FuncId, Module};

/// `y[n, c] = x[n, sources[c]]` for whole planes.
#[derive(Clone, Debug, PartialEq)]
pub struct Channels {
    /// Input, blocked by the lanes.
    pub x: BlockedLayout,
    /// Output, blocked by the lanes; its halo is zeroed.
    pub y: BlockedLayout,
    /// For each channel of the output the channel of the input; any number of times, in any order.
    pub sources: Vec<usize>,
}

/// A vector of the input that an output block takes lanes from: its distance from the first such, in blocks, and for
/// each lane the lane it takes (counted behind the own lanes), or its own to stay as it is: [`Asm::take`].
type Part = (usize, Vec<u32>);

/// Output blocks with the same parts at input blocks that are evenly apart.
struct Run {
    func: FuncId,
    from: usize,
    to: usize,
    x_from: usize,
    x_step: usize,
}

impl Channels {
    /// The parts of an output block, and the input block that they count from.
    fn parts(&self, block: usize) -> (usize, Vec<Part>) {
        let cb = self.y.cb;
        let wanted = self.sources.iter().skip(block * cb).take(cb);
        let wanted: Vec<(usize, usize)> = wanted.map(|c| (c / cb, c % cb)).collect();
        let mut blocks: Vec<usize> = wanted.iter().map(|w| w.0).collect();
        blocks.sort_unstable();
        blocks.dedup();
        let first = blocks[0];
        let part = |from: usize| {
            let lane = |l: usize| match wanted.get(l) {
                Some((b, lane)) if *b == from => (cb + lane) as u32,
                _ => l as u32,
            };
            (from - first, (0..cb).map(lane).collect())
        };
        (first, blocks.into_iter().map(part).collect())
    }

    /// `fn(x, y)`: the pixels of one plane of an output block, from where the first part's plane begins.
    fn kernel<M: Module>(&self, e: &mut Emitter<M>, parts: &[Part]) -> Result<FuncId> {
        let (isa, x, y) = (e.isa(), &self.x, &self.y);
        let [_, h, w] = x.spatial;
        // without halo between them, rows are one run of pixels
        let (rows, pixels) = if x.is_tight() && y.is_tight() { (1, h * w) } else { (h, w) };
        let shape = (rows, pixels, x.block_bytes(), x.row_bytes(), y.row_bytes());
        e.cached(format!("channels {shape:?} {parts:?}"), |e| {
            let mut a = Asm::new(isa)?;
            let group = group(isa);
            let tables = parts.iter().enumerate();
            let tables = tables.map(|(i, p)| a.load_table(group + i, &p.1)).collect::<Result<Vec<_>>>()?;
            let px = a.vb();
            let row = a.repeat(r10, rows)?;
            if pixels >= group {
                let top = a.repeat(rax, pixels / group)?;
                self.pixels(&mut a, parts, &tables, group)?;
                a.add_imm(rdi, i64::from(px) * group as i64)?;
                a.add_imm(rsi, i64::from(px) * group as i64)?;
                a.again(rax, top)?;
            }
            self.pixels(&mut a, parts, &tables, pixels % group)?;
            let done = (pixels - pixels % group) as i64 * i64::from(px);
            a.add_imm(rdi, x.row_bytes() as i64 - done)?;
            a.add_imm(rsi, y.row_bytes() as i64 - done)?;
            a.again(r10, row)?;
            let code = a.finish()?;
            e.assembled("channels", 2, &code)
        })
    }

    fn pixels(&self, a: &mut Asm, parts: &[Part], tables: &[Table], n: usize) -> Result<()> {
        let (px, temp) = (a.vb(), group(a.isa()) + parts.len());
        for (i, ((block, _), table)) in parts.iter().zip(tables).enumerate() {
            for q in 0..n {
                let from = rdi + ((block * self.x.block_bytes()) as i32 + q as i32 * px);
                // lanes that other parts take may hold anything before
                if i == 0 { a.permute(q, table, from)? } else { a.take(q, table, from, temp)? }
            }
        }
        (0..n).try_for_each(|q| a.store(rsi + q as i32 * px, q))
    }

    fn runs<M: Module>(&self, e: &mut Emitter<M>) -> Result<Vec<Run>> {
        let mut runs: Vec<Run> = vec![];
        for block in 0..self.y.blocks() {
            let (first, parts) = self.parts(block);
            let func = self.kernel(e, &parts)?;
            if let Some(run) = runs.last_mut().filter(|r| r.func == func && first >= r.x_from) {
                let (step, count) = (first - run.x_from, run.to - run.from);
                if count == 1 || step == count * run.x_step {
                    run.x_step = step / count;
                    run.to += 1;
                    continue;
                }
            }
            runs.push(Run { func, from: block, to: block + 1, x_from: first, x_step: 0 });
        }
        Ok(runs)
    }

    fn check(&self, isa: Isa) -> Result<()> {
        let (x, y) = (&self.x, &self.y);
        x.check("channels")?;
        y.check("channels")?;
        let lanes = x.cb == isa.lanes() && y.cb == isa.lanes() && x.elem.bytes() == 4 && x.elem == y.elem;
        let fits = (x.n, x.spatial) == (y.n, y.spatial) && self.sources.len() == y.c;
        if !lanes || !fits || self.sources.iter().any(|c| *c >= x.c) {
            return Err(Error::invalid("channels", format!("{self:?} at level {isa}")));
        }
        if y.n == 0 || y.c == 0 || y.spatial.contains(&0) {
            return Err(Error::unsupported("channels", "an empty activation"));
        }
        if x.c.div_ceil(x.cb) * x.block_bytes() > i32::MAX as usize {
            return Err(Error::unsupported("channels", format!("an image of more than 2 GiB: {x:?}")));
        }
        Ok(())
    }

    /// The step function; operands `x`, `y`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for layouts or channels that do not fit, [`Error::Unsupported`] for empty activations.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        let (isa, x, y) = (e.isa(), &self.x, &self.y);
        self.check(isa)?;
        let runs = self.runs(e)?;
        let halo = Halo::define(e, y)?;
        let [depth, h, w] = y.spatial;
        let dims = [y.n, y.blocks(), depth];
        let units: usize = dims.iter().product();
        let tasks = units.min(threads.max(1));
        let i = |n: usize| n as i64;
        let func = e.step("channels", 2, |m, b, p, task| {
            let (low, high) = share(b, task, units, tasks);
            for_range(b, low, high, |b, u| {
                let c = coordinates(b, u, &dims);
                let image = at(b, p[0], c[0], i(x.batch_bytes()));
                let from = at(b, image, c[2], i(x.plane_bytes()));
                let from = off(b, from, i(x.origin_bytes()));
                let image = at(b, p[1], c[0], i(y.batch_bytes()));
                let block = at(b, image, c[1], i(y.block_bytes()));
                if let Some(halo) = &halo {
                    if_equal(b, c[2], 0, |b| halo.call(m, b, block));
                }
                let to = at(b, block, c[2], i(y.plane_bytes()));
                let to = off(b, to, i(y.origin_bytes()));
                for run in &runs {
                    // a range of one block or none: this unit's block, if it is in the run
                    let next = off(b, c[1], 1);
                    let (low, high) = clip(b, (c[1], next), run.from, run.to, runs.len() == 1);
                    for_range(b, low, high, |b, block| {
                        let x0 = at(b, from, block, i(run.x_step * x.block_bytes()));
                        let x0 = off(b, x0, (i(run.x_from) - i(run.from * run.x_step)) * i(x.block_bytes()));
                        let f = m.declare_func_in_func(run.func, b.func);
                        b.ins().call(f, &[x0, to]);
                    });
                }
            });
            Ok(())
        })?;
        let operands = vec![Operand::read("x", x.bytes()), Operand::write("y", y.bytes())];
        let name = format!("channels {}->{} {h}x{w} {isa}", x.c, y.c);
        Ok(Kernel { func, name, operands, tasks, flops: 0 })
    }
}

/// Pixels made at once, in the first registers; the tables lie behind them.
fn group(isa: Isa) -> usize {
    if isa == Isa::Avx512 { 8 } else { 4 }
}
