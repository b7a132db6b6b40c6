//! Packing B at run time, for products of two computed matrices.

use super::clif::{at, coordinates, for_n, for_range, off, share};
use super::gemm::Gemm;
use super::reorder::Transpose;
use crate::asm::Asm;
use crate::asm::reg::*;
use crate::error::{Error, Result};
use crate::module::{Emitter, Kernel, Operand};
use cranelift_codegen::ir::{InstBuilder, types::I64};
use cranelift_module::{FuncId, Module};

/// Lays a computed B out as [`super::gemm::BStorage::Packed`] wants it. A transposed B (`[N, K]`) has no other way into
/// a product; a row-major one can also be used in place, and is worth packing when A has many rows.
#[derive(Clone, Debug, PartialEq)]
pub struct PackB {
    /// The product that will use it, with B packed.
    pub gemm: Gemm,
    /// B is `[N, K]` instead of `[K, N]`.
    pub transposed: bool,
    /// Elements between rows of the given B.
    pub row: usize,
    /// Batch dims, outermost first: count and elements between matrices. Packed matrices follow one another.
    pub batch: Vec<(usize, usize)>,
}

/// `fn(b, packed)` for one panel.
struct Panel {
    from: usize,
    to: usize,
    start: usize,
    nv: usize,
    last_lanes: usize,
}

impl PackB {
    fn matrices(&self) -> usize {
        self.batch.iter().map(|b| b.0).product()
    }

    /// One run of k lines of `nv` vectors, copied: `fn(b, packed)`.
    fn copy_panel<M: Module>(&self, e: &mut Emitter<M>, nv: usize, last_lanes: usize) -> Result<FuncId> {
        let (isa, k, row) = (e.isa(), self.gemm.k, self.row);
        e.cached(format!("pack {k} {row} {nv} {last_lanes}"), |e| {
            let mut w = Asm::new(isa)?;
            let vb = isa.vector_bytes();
            let last = w.lanes(last_lanes)?;
            let top = w.repeat(rax, k)?;
            for v in 0..nv {
                let lanes = if v + 1 == nv { last } else { crate::asm::Lanes::All };
                w.load_lanes(v % 8, rdi + (v * vb) as i32, lanes)?;
                w.store(rsi + (v * vb) as i32, v % 8)?;
            }
            w.add_imm(rdi, 4 * row as i64)?;
            w.add_imm(rsi, (nv * vb) as i64)?;
            w.again(rax, top)?;
            let code = w.finish()?;
            e.assembled("pack", 2, &code)
        })
    }

    /// The same of a transposed B: tiles of lanes x lanes.
    fn transpose_panel<M: Module>(&self, e: &mut Emitter<M>, nv: usize, last_lanes: usize) -> Result<FuncId> {
        let (isa, k, row, lanes) = (e.isa(), self.gemm.k, self.row, e.isa().lanes());
        let y_step = (nv * isa.vector_bytes()) as i32;
        let mut tile = |rows: usize, ks: usize| {
            Transpose { isa, rows, lanes: ks, store: lanes, x_step: 4 * row as i32, y_step }.define(e)
        };
        // Kernels for whole and last vectors, by whole and last k.
        let mut ids = Vec::new();
        for rows in [lanes, last_lanes] {
            let whole = if k >= lanes { Some(tile(rows, lanes)?) } else { None };
            let rest = if k.is_multiple_of(lanes) { None } else { Some(tile(rows, k % lanes)?) };
            ids.push((whole, rest));
        }
        e.cached(format!("pack transposed {k} {row} {nv} {last_lanes}"), |e| {
            e.clif("pack", 2, |m, b, p| {
                for v in 0..nv {
                    let (whole, rest) = ids[usize::from(v + 1 == nv)];
                    let from = off(b, p[0], (v * lanes * row * 4) as i64);
                    let to = off(b, p[1], (v * isa.vector_bytes()) as i64);
                    let turns = (k / lanes) as i64;
                    if let Some(id) = whole {
                        for_n(b, turns, |b, i| {
                            let (from, to) = (
                                at(b, from, i, 4 * lanes as i64),
                                at(b, to, i, lanes as i64 * i64::from(y_step)),
                            );
                            let f = m.declare_func_in_func(id, b.func);
                            b.ins().call(f, &[from, to]);
                        });
                    }
                    if let Some(id) = rest {
                        let (from, to) = (
                            off(b, from, 4 * lanes as i64 * turns),
                            off(b, to, lanes as i64 * i64::from(y_step) * turns),
                        );
                        let f = m.declare_func_in_func(id, b.func);
                        b.ins().call(f, &[from, to]);
                    }
                }
                Ok(())
            })
        })
    }

    fn panels(&self, e: &Emitter<impl Module>) -> Vec<Panel> {
        let (isa, n) = (e.isa(), self.gemm.n);
        let split = self.gemm.vector_split(isa);
        let last_lanes = (n - 1) % isa.lanes() + 1;
        let mut out = Vec::new();
        for r in split.runs() {
            let cut = if r.to == split.pieces { r.to - 1 } else { r.to };
            let nv = r.size;
            if cut > r.from {
                out.push(Panel { from: r.from, to: cut, start: r.start, nv, last_lanes: isa.lanes() });
            }
            if cut < r.to {
                out.push(Panel { from: cut, to: r.to, start: r.start + (cut - r.from) * nv, nv, last_lanes });
            }
        }
        out
    }

    /// The step function; operands `b`, `packed`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for empty matrices and row pitches beyond 2 GiB inside a tile.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        let (isa, g) = (e.isa(), &self.gemm);
        let matrices = self.matrices();
        if g.n == 0 || g.k == 0 || matrices == 0 || self.row > i32::MAX as usize / 64 {
            return Err(Error::unsupported(
                "pack",
                format!("B of {}x{} with a pitch of {}", g.k, g.n, self.row),
            ));
        }
        let panels = self.panels(e);
        let mut ids = Vec::new();
        for p in &panels {
            ids.push(if self.transposed {
                self.transpose_panel(e, p.nv, p.last_lanes)?
            } else {
                self.copy_panel(e, p.nv, p.last_lanes)?
            });
        }
        let span = if self.transposed { (g.n - 1) * self.row + g.k } else { (g.k - 1) * self.row + g.n };
        let b_elems = span + self.batch.iter().map(|b| (b.0 - 1) * b.1).sum::<usize>();
        let packed = g.packed_elems(isa);
        let operands = vec![Operand::read("b", 4 * b_elems), Operand::write("packed", 4 * packed * matrices)];
        let split = g.vector_split(isa);
        let units = matrices * split.pieces;
        let tasks = units.min(threads.max(1));
        let column = if self.transposed { 4 * isa.lanes() * self.row } else { isa.vector_bytes() } as i64;
        let func = e.step("pack", 2, |m, b, p, task| {
            let (low, high) = share(b, task, units, tasks);
            let mut dims: Vec<usize> = self.batch.iter().map(|d| d.0).collect();
            dims.push(split.pieces);
            for_range(b, low, high, |b, u| {
                let c = coordinates(b, u, &dims);
                let (mut from, mut matrix) = (p[0], b.ins().iconst(I64, 0));
                for (&i, &(n, step)) in c.iter().zip(&self.batch) {
                    from = at(b, from, i, 4 * step as i64);
                    let scaled = b.ins().imul_imm_s(matrix, n as i64);
                    matrix = b.ins().iadd(scaled, i);
                }
                let to = at(b, p[1], matrix, 4 * packed as i64);
                let piece = c[self.batch.len()];
                for (panel, &id) in panels.iter().zip(&ids) {
                    let first = b.ins().iconst(I64, panel.from as i64);
                    let behind = b.ins().iconst(I64, panel.to as i64);
                    let next = b.ins().iadd_imm_s(piece, 1);
                    let (lo, hi) = (b.ins().umax(piece, first), b.ins().umin(next, behind));
                    for_range(b, lo, hi, |b, i| {
                        let scaled = b.ins().imul_imm_s(i, panel.nv as i64);
                        let vector = off(b, scaled, panel.start as i64 - (panel.from * panel.nv) as i64);
                        let from = at(b, from, vector, column);
                        let to = at(b, to, vector, (g.k * isa.vector_bytes()) as i64);
                        let f = m.declare_func_in_func(id, b.func);
                        b.ins().call(f, &[from, to]);
                    });
                }
            });
            Ok(())
        })?;
        let name = format!("pack b {matrices}x {}x{} {isa}", g.k, g.n);
        Ok(Kernel { func, name, operands, tasks, flops: 0 })
    }
}
