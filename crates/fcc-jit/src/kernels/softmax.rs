//! Softmax and LogSoftmax over the middle of `[outer, n, inner]`.
//!
//! With `inner == 1` one kernel call makes one row: its largest element, the exponentials and their sum, the division.
//! Otherwise lanes are neighbouring lines: the same three passes, going down `n`.

use super::clif::{at, coordinates, for_range, off, share};
use crate::asm::reg::*;
use crate::asm::{Asm, Lanes};
use crate::error::{Error, Result};
use crate::module::{Emitter, Kernel, Operand};
use cranelift_codegen::ir::InstBuilder;
use cranelift_module::{FuncId, Module};

/// A softmax.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Softmax {
    /// Product of the extents before.
    pub outer: usize,
    /// Extent that is normalised.
    pub n: usize,
    /// Product of the extents behind.
    pub inner: usize,
    /// The logarithm of the result, `x - max - ln(sum)`.
    pub log: bool,
}

const SPLIT_ELEMS: usize = 4096;
/// Registers that the logarithm may overwrite.
const LN_TEMPS: [usize; 5] = [6, 7, 8, 9, 10];

impl Softmax {
    /// The step function; operands `x`, `y`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for empty extents, and below AVX2.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        if self.outer == 0
            || self.n == 0
            || self.inner == 0
            || self.n.max(self.inner) > i32::MAX as usize / 64
        {
            return Err(Error::unsupported("softmax", format!("extents {self:?}")));
        }
        let lanes = e.isa().lanes();
        let elems = self.outer * self.n * self.inner;
        let columns = self.inner.div_ceil(lanes);
        let units = if self.inner == 1 { self.outer } else { self.outer * columns };
        let tasks = if elems < SPLIT_ELEMS { 1 } else { threads.max(1).min(units) };
        let (n, inner, log) = (self.n, self.inner, self.log);
        let func = if inner == 1 {
            let row = define(e, n, log)?;
            e.step("softmax", 2, |m, b, p, task| {
                let row = m.declare_func_in_func(row, b.func);
                let (low, high) = share(b, task, units, tasks);
                for_range(b, low, high, |b, u| {
                    let (x, y) = (at(b, p[0], u, 4 * n as i64), at(b, p[1], u, 4 * n as i64));
                    b.ins().call(row, &[x, y]);
                });
                Ok(())
            })?
        } else {
            let (whole, rest) = (inner / lanes, inner % lanes);
            let wide = if whole > 0 { Some(define_columns(e, n, inner, lanes, log)?) } else { None };
            let tail = if rest > 0 { Some(define_columns(e, n, inner, rest, log)?) } else { None };
            e.step("softmax", 2, |m, b, p, task| {
                // the units are blocks of lines, whole ones first
                let block = 4 * (n * inner) as i64;
                let mut part =
                    |b: &mut cranelift_frontend::FunctionBuilder, f: FuncId, count: usize, first: usize| {
                        let f = m.declare_func_in_func(f, b.func);
                        let (low, high) = share(b, task, self.outer * count, tasks);
                        for_range(b, low, high, |b, u| {
                            let c = coordinates(b, u, &[self.outer, count]);
                            let pointers = [p[0], p[1]].map(|p| {
                                let p = at(b, p, c[0], block);
                                let p = at(b, p, c[1], 4 * lanes as i64);
                                off(b, p, 4 * first as i64)
                            });
                            b.ins().call(f, &pointers);
                        });
                    };
                if let Some(f) = wide {
                    part(b, f, whole, 0);
                }
                if let Some(f) = tail {
                    part(b, f, 1, whole * lanes);
                }
                Ok(())
            })?
        };
        let operands = vec![Operand::read("x", 4 * elems), Operand::write("y", 4 * elems)];
        let what = if log { "log softmax" } else { "softmax" };
        let name = format!("{what} {}x{n}x{inner}", self.outer);
        Ok(Kernel { func, name, operands, tasks, flops: 20 * elems as u64 })
    }
}

/// Runs `body` over a row: whole vectors in a loop, then the partial one; `rax` is the byte offset.
fn over_row(
    w: &mut Asm,
    n: usize,
    tail: Lanes,
    mut body: impl FnMut(&mut Asm, Lanes) -> Result<()>,
) -> Result<()> {
    let lanes = w.isa().lanes();
    let (whole, rest) = (n / lanes, n % lanes);
    w.set(rax, 0)?;
    if whole > 0 {
        let top = w.here()?;
        body(w, Lanes::All)?;
        w.until(rax, w.vb(), whole as i32 * w.vb(), top)?;
    }
    if rest > 0 {
        body(w, tail)?;
    }
    Ok(())
}

/// `fn(x, y)`: one contiguous row.
fn define<M: Module>(e: &mut Emitter<M>, n: usize, log: bool) -> Result<FuncId> {
    let isa = e.isa();
    e.cached(format!("softmax row {n} {log}"), |e| {
        let mut w = Asm::new(isa)?;
        let lanes = isa.lanes();
        let tail = w.lanes((n - 1) % lanes + 1)?;
        let [max, sum, v, t0, t1, low] = [0, 1, 2, 3, 4, 5];
        let (x, y): (Reg, Reg) = (rdi, rsi);
        w.splat(low, f32::NEG_INFINITY)?;
        w.mov(max, low)?;
        over_row(&mut w, n, tail, |w, l| {
            // lanes beyond the end must not count: the smallest number takes their place
            if l == Lanes::All {
                w.max(max, max, crate::asm::Src::Mem(x + rax))?;
            } else {
                masked_load(w, v, x, l, low)?;
                w.max(max, max, v)?;
            }
            Ok(())
        })?;
        w.max_lanes(max, t0)?;
        w.broadcast_lane0(max, max)?;
        w.zero(sum)?;
        over_row(&mut w, n, tail, |w, l| {
            if l == Lanes::All {
                w.load(v, x + rax)?
            } else {
                masked_load(w, v, x, l, low)?
            }
            w.sub(v, v, max)?;
            if l != Lanes::All {
                // -inf - -inf is NaN where the row is all -inf, in lanes that are not there
                w.blend_lanes(v, low, l)?;
            }
            w.exp(v, [t0, t1])?;
            w.add(sum, sum, v)?;
            if log { Ok(()) } else { w.store_lanes(y + rax, v, l) }
        })?;
        w.sum_lanes(sum, t0)?;
        w.broadcast_lane0(sum, sum)?;
        if log {
            w.ln(sum, LN_TEMPS)?;
        }
        over_row(&mut w, n, tail, |w, l| {
            if log {
                w.load_lanes(v, x + rax, l)?;
                w.sub(v, v, max)?;
                w.sub(v, v, sum)?;
            } else {
                w.load_lanes(v, y + rax, l)?;
                w.div(v, v, sum)?;
            }
            w.store_lanes(y + rax, v, l)
        })?;
        let code = w.finish()?;
        e.assembled("softmax_row", 2, &code)
    })
}

/// Loads the lanes of a mask, `other` in the rest.
fn masked_load(w: &mut Asm, d: usize, x: Reg, l: Lanes, other: usize) -> Result<()> {
    w.load_lanes(d, x + rax, l)?;
    w.blend_lanes(d, other, l)
}

/// `fn(x, y)`: `lanes` neighbouring lines down `n` steps of `inner` elements.
fn define_columns<M: Module>(
    e: &mut Emitter<M>,
    n: usize,
    inner: usize,
    count: usize,
    log: bool,
) -> Result<FuncId> {
    let isa = e.isa();
    e.cached(format!("softmax columns {n} {inner} {count} {log}"), |e| {
        let mut w = Asm::new(isa)?;
        let l = w.lanes(count)?;
        let [max, sum, v, t0, t1] = [0, 1, 2, 3, 4];
        let step = 4 * inner as i64;
        let down = |w: &mut Asm, body: &mut dyn FnMut(&mut Asm) -> Result<()>| -> Result<()> {
            w.copy(rcx, rdi)?;
            w.copy(rdx, rsi)?;
            let top = w.repeat(rax, n)?;
            body(w)?;
            w.add_imm(rcx, step)?;
            w.add_imm(rdx, step)?;
            w.again(rax, top)
        };
        w.splat(max, f32::NEG_INFINITY)?;
        down(&mut w, &mut |w| {
            w.load_lanes(v, rcx + 0, l)?;
            w.max(max, max, v)
        })?;
        w.zero(sum)?;
        down(&mut w, &mut |w| {
            w.load_lanes(v, rcx + 0, l)?;
            w.sub(v, v, max)?;
            w.exp(v, [t0, t1])?;
            w.add(sum, sum, v)?;
            if log { Ok(()) } else { w.store_lanes(rdx + 0, v, l) }
        })?;
        if log {
            w.ln(sum, LN_TEMPS)?;
        }
        down(&mut w, &mut |w| {
            if log {
                w.load_lanes(v, rcx + 0, l)?;
                w.sub(v, v, max)?;
                w.sub(v, v, sum)?;
            } else {
                w.load_lanes(v, rdx + 0, l)?;
                w.div(v, v, sum)?;
            }
            w.store_lanes(rdx + 0, v, l)
        })?;
        let code = w.finish()?;
        e.assembled("softmax_columns", 2, &code)
    })
}
