//! Rows: reductions to one number, and normalisation to mean 0 and variance 1.

use super::clif::{at, coordinates, for_range, off, share};
use crate::asm::reg::*;
use crate::asm::{Asm, Cmp, Lanes, Src};
use crate::error::{Error, Result};
use crate::module::{Emitter, Kernel, Operand};
use cranelift_codegen::ir::InstBuilder;
use cranelift_module::{FuncId, Module};

/// What a reduction makes of its elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fold {
    /// The sum.
    Sum,
    /// The sum over the count.
    Mean,
    /// The largest; NaN if there is one.
    Max,
    /// The smallest; NaN if there is one.
    Min,
    /// The sum of squares.
    SumSquare,
    /// The sum of magnitudes.
    L1,
    /// The root of the sum of squares.
    L2,
}

/// A reduction of the middle of `[outer, n, inner]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reduce {
    /// What to make.
    pub fold: Fold,
    /// Product of the extents before.
    pub outer: usize,
    /// Elements that are reduced to one.
    pub n: usize,
    /// Product of the extents behind.
    pub inner: usize,
}

/// `y = (x - mean) / sqrt(variance + epsilon) * scale + bias` for each row.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalise {
    /// Rows.
    pub rows: usize,
    /// Elements of a row.
    pub n: usize,
    /// Added to the variance.
    pub epsilon: f32,
    /// Whether scale and bias have one element for each row, else one for each column.
    pub per_row: bool,
}

const SPLIT_ELEMS: usize = 8192;
/// Vectors that one turn of a row's loop reads, into as many accumulators.
const PARTS: usize = 4;

/// Runs `body` over a row of `n` elements: `(part, byte offset from rax, lanes)`.
fn over_row(
    w: &mut Asm,
    n: usize,
    tail: Lanes,
    mut body: impl FnMut(&mut Asm, usize, i32, Lanes) -> Result<()>,
) -> Result<()> {
    let (lanes, vb) = (w.isa().lanes(), w.vb());
    let (whole, rest) = (n / lanes, n % lanes);
    let turns = whole / PARTS;
    w.set(rax, 0)?;
    if turns > 0 {
        let top = w.here()?;
        for part in 0..PARTS {
            body(w, part, part as i32 * vb, Lanes::All)?;
        }
        w.until(rax, PARTS as i32 * vb, (turns * PARTS) as i32 * vb, top)?;
    }
    for part in 0..whole % PARTS {
        body(w, part, part as i32 * vb, Lanes::All)?;
    }
    if rest > 0 {
        body(w, PARTS - 1, (whole % PARTS) as i32 * vb, tail)?;
    }
    Ok(())
}

impl Fold {
    fn start(self, w: &mut Asm, acc: usize) -> Result<()> {
        match self {
            Fold::Max => w.splat(acc, f32::NEG_INFINITY),
            Fold::Min => w.splat(acc, f32::INFINITY),
            _ => w.zero(acc),
        }
    }
    /// `acc = fold(acc, v)`; `v` and the `t` are overwritten.
    fn take(self, w: &mut Asm, acc: usize, v: usize, t: [usize; 2]) -> Result<()> {
        match self {
            Fold::Sum | Fold::Mean => w.add(acc, acc, v),
            Fold::SumSquare | Fold::L2 => w.fma(acc, v, v),
            Fold::L1 => {
                w.and(v, v, Src::Bits(0x7fff_ffff))?;
                w.add(acc, acc, v)
            }
            Fold::Max | Fold::Min => {
                // the instruction gives its second operand where either is NaN: that keeps a NaN in acc
                if self == Fold::Max {
                    w.max(t[0], v, acc)?
                } else {
                    w.min(t[0], v, acc)?
                }
                w.select(acc, Cmp::Unordered, v, v, v, t[0], t[1])
            }
        }
    }
    /// The same between two accumulators.
    fn join(self, w: &mut Asm, acc: usize, other: usize, t: [usize; 2]) -> Result<()> {
        match self {
            Fold::Max | Fold::Min => self.take(w, acc, other, t),
            _ => w.add(acc, acc, other),
        }
    }
    fn finish(self, w: &mut Asm, acc: usize, n: usize) -> Result<()> {
        match self {
            Fold::Mean => w.mul(acc, acc, 1.0 / n as f32),
            Fold::L2 => w.sqrt(acc, acc),
            _ => Ok(()),
        }
    }
}

impl Reduce {
    /// The step function; operands `x`, `y`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for empty extents, and below AVX2.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        let Reduce { fold, outer, n, inner } = *self;
        if outer == 0 || n == 0 || inner == 0 || n.max(inner) > i32::MAX as usize / 64 {
            return Err(Error::unsupported("reduction", format!("extents {self:?}")));
        }
        let lanes = e.isa().lanes();
        let elems = outer * n * inner;
        let wanted = if elems < SPLIT_ELEMS { 1 } else { threads.max(1) };
        let (func, tasks) = if inner == 1 {
            let tasks = wanted.min(outer);
            let row = self.row(e)?;
            let func = e.step("reduce", 2, |m, b, p, task| {
                let row = m.declare_func_in_func(row, b.func);
                let (low, high) = share(b, task, outer, tasks);
                for_range(b, low, high, |b, u| {
                    let (x, y) = (at(b, p[0], u, 4 * n as i64), at(b, p[1], u, 4));
                    b.ins().call(row, &[x, y]);
                });
                Ok(())
            })?;
            (func, tasks)
        } else {
            let columns = inner.div_ceil(lanes);
            let units = outer * columns;
            let tasks = wanted.min(units);
            let whole = self.columns(e, lanes)?;
            let rest = inner % lanes;
            let tail = if rest > 0 { Some(self.columns(e, rest)?) } else { None };
            let func = e.step("reduce", 2, |m, b, p, task| {
                let mut part =
                    |b: &mut cranelift_frontend::FunctionBuilder, f: FuncId, count: usize, first: usize| {
                        let f = m.declare_func_in_func(f, b.func);
                        let (low, high) = share(b, task, outer * count, tasks);
                        for_range(b, low, high, |b, u| {
                            let c = coordinates(b, u, &[outer, count]);
                            let x = at(b, p[0], c[0], 4 * (n * inner) as i64);
                            let y = at(b, p[1], c[0], 4 * inner as i64);
                            let [x, y] = [x, y].map(|p| {
                                let p = at(b, p, c[1], 4 * lanes as i64);
                                off(b, p, 4 * first as i64)
                            });
                            b.ins().call(f, &[x, y]);
                        });
                    };
                if inner >= lanes {
                    part(b, whole, inner / lanes, 0);
                }
                if let Some(f) = tail {
                    part(b, f, 1, inner / lanes * lanes);
                }
                Ok(())
            })?;
            (func, tasks)
        };
        let operands = vec![Operand::read("x", 4 * elems), Operand::write("y", 4 * outer * inner)];
        let name = format!("{fold:?} of {outer}x{n}x{inner}");
        Ok(Kernel { func, name, operands, tasks, flops: elems as u64 })
    }

    /// `fn(x, y)`: one contiguous row.
    fn row<M: Module>(&self, e: &mut Emitter<M>) -> Result<FuncId> {
        let (isa, fold, n) = (e.isa(), self.fold, self.n);
        e.cached(format!("reduce row {fold:?} {n}"), |e| {
            let mut w = Asm::new(isa)?;
            let tail = w.lanes((n - 1) % isa.lanes() + 1)?;
            let (v, t, start) = (PARTS, [PARTS + 1, PARTS + 2], PARTS + 3);
            (0..PARTS).try_for_each(|i| fold.start(&mut w, i))?;
            fold.start(&mut w, start)?;
            over_row(&mut w, n, tail, |w, part, o, l| {
                w.load_lanes(v, rdi + rax + o, l)?;
                w.blend_lanes(v, start, l)?;
                fold.take(w, part, v, t)
            })?;
            (1..PARTS).try_for_each(|i| fold.join(&mut w, 0, i, t))?;
            match fold {
                Fold::Max | Fold::Min => {
                    // NaNs of any lane, else 0: added to the result in the end
                    w.zero(1)?;
                    w.select(1, Cmp::Unordered, 0, 0usize, 0, 1, 2)?;
                    w.sum_lanes(1, 2)?;
                    if fold == Fold::Min {
                        w.xor(0, 0, Src::Bits(0x8000_0000))?;
                    }
                    w.max_lanes(0, 2)?;
                    if fold == Fold::Min {
                        w.xor(0, 0, Src::Bits(0x8000_0000))?;
                    }
                    w.add(0, 0, 1)?;
                }
                _ => w.sum_lanes(0, 1)?,
            }
            fold.finish(&mut w, 0, n)?;
            w.store_lane0(rsi + 0, 0)?;
            let code = w.finish()?;
            e.assembled("reduce_row", 2, &code)
        })
    }

    /// `fn(x, y)`: `count` neighbouring columns.
    fn columns<M: Module>(&self, e: &mut Emitter<M>, count: usize) -> Result<FuncId> {
        let (isa, fold, n, inner) = (e.isa(), self.fold, self.n, self.inner);
        e.cached(format!("reduce columns {fold:?} {n} {inner} {count}"), |e| {
            let mut w = Asm::new(isa)?;
            let l = w.lanes(count)?;
            let (v, t) = (1, [2, 3]);
            fold.start(&mut w, 0)?;
            let top = w.repeat(rax, n)?;
            w.load_lanes(v, rdi + 0, l)?;
            fold.take(&mut w, 0, v, t)?;
            w.add_imm(rdi, 4 * inner as i64)?;
            w.again(rax, top)?;
            fold.finish(&mut w, 0, n)?;
            w.store_lanes(rsi + 0, 0, l)?;
            let code = w.finish()?;
            e.assembled("reduce_columns", 2, &code)
        })
    }
}

impl Normalise {
    /// The step function; operands `x`, `scale`, `bias`, `y`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for empty extents, and below AVX2.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        let Normalise { rows, n, per_row, .. } = *self;
        if rows == 0 || n == 0 || n > i32::MAX as usize / 64 {
            return Err(Error::unsupported("normalisation", format!("{rows} rows of {n}")));
        }
        let tasks = if rows * n < SPLIT_ELEMS { 1 } else { threads.max(1).min(rows) };
        let row = self.row(e)?;
        let step = if per_row { 4 } else { 0 };
        let func = e.step("normalise", 4, |m, b, p, task| {
            let row = m.declare_func_in_func(row, b.func);
            let (low, high) = share(b, task, rows, tasks);
            for_range(b, low, high, |b, u| {
                let (x, y) = (at(b, p[0], u, 4 * n as i64), at(b, p[3], u, 4 * n as i64));
                let (s, c) = (at(b, p[1], u, step), at(b, p[2], u, step));
                b.ins().call(row, &[x, s, c, y]);
            });
            Ok(())
        })?;
        let params = 4 * if per_row { rows } else { n };
        let operands = vec![
            Operand::read("x", 4 * rows * n),
            Operand::read("scale", params),
            Operand::read("bias", params),
            Operand::write("y", 4 * rows * n),
        ];
        let name = format!("normalise {rows} rows of {n}");
        Ok(Kernel { func, name, operands, tasks, flops: 8 * (rows * n) as u64 })
    }

    /// `fn(x, scale, bias, y)`: one row.
    fn row<M: Module>(&self, e: &mut Emitter<M>) -> Result<FuncId> {
        let (isa, n, per_row, epsilon) = (e.isa(), self.n, self.per_row, self.epsilon);
        e.cached(format!("normalise row {n} {per_row} {epsilon}"), |e| {
            let mut w = Asm::new(isa)?;
            let tail = w.lanes((n - 1) % isa.lanes() + 1)?;
            let [v, mean, factor, zero, t, s, c] = [4, 5, 6, 7, 8, 9, 10];
            let total = |w: &mut Asm| -> Result<()> {
                (1..PARTS).try_for_each(|i| w.add(0, 0, i))?;
                w.sum_lanes(0, 1)?;
                w.mul(0, 0, 1.0 / n as f32)
            };
            (0..PARTS).try_for_each(|i| w.zero(i))?;
            w.zero(zero)?;
            over_row(&mut w, n, tail, |w, part, o, l| {
                w.load_lanes(v, rdi + rax + o, l)?;
                w.add(part, part, v)
            })?;
            total(&mut w)?;
            w.broadcast_lane0(mean, 0)?;
            (0..PARTS).try_for_each(|i| w.zero(i))?;
            over_row(&mut w, n, tail, |w, part, o, l| {
                w.load_lanes(v, rdi + rax + o, l)?;
                w.sub(v, v, mean)?;
                // what a mask leaves out is no element
                w.blend_lanes(v, zero, l)?;
                w.fma(part, v, v)
            })?;
            total(&mut w)?;
            w.add(0, 0, epsilon)?;
            w.sqrt(0, 0)?;
            w.splat(t, 1.0)?;
            w.div(0, t, 0)?;
            w.broadcast_lane0(factor, 0)?;
            if per_row {
                w.broadcast(s, rsi + 0)?;
                w.broadcast(c, rdx + 0)?;
            }
            over_row(&mut w, n, tail, |w, _, o, l| {
                w.load_lanes(v, rdi + rax + o, l)?;
                w.sub(v, v, mean)?;
                w.mul(v, v, factor)?;
                if !per_row {
                    let (a, b) = (rsi + rax + o, rdx + rax + o);
                    w.load_lanes(s, a, l)?;
                    w.load_lanes(c, b, l)?;
                }
                w.mul(v, v, s)?;
                w.add(v, v, c)?;
                w.store_lanes(rcx + rax + o, v, l)
            })?;
            let code = w.finish()?;
            e.assembled("normalise_row", 4, &code)
        })
    }
}
