//! Winograd's F(2x2, 3x3) for 3x3 convolutions of stride 1: 16 products for 4 outputs, where direct convolution has 36.
//!
//! `Y = Aᵀ [ (G w Gᵀ) ⊙ (Bᵀ x B) ] A` for tiles of 4x4 inputs and 2x2 outputs, with interpolation points 0, 1, -1 and ∞.
//! Its error against exact results is no larger than that of direct convolution in f32 (fewer terms are added), and no
//! output depends on a pixel outside its receptive field. What differs: an infinite input makes NaN where direct
//! convolution makes infinity, and sums of four inputs and of nine weights must not overflow.
//!
//! One unit of work is a block of tiles: their inputs are transformed into scratch, 16 products are made over the
//! channels by the same micro-kernel as everywhere, and the results are transformed back, with bias, residual and
//! activation, a chunk of output channels at a time.

use super::activation::Activation;
use super::brgemm::{Bias, Brgemm, max_rows};
use super::clif::{at, coordinates, for_n, for_range, off, share};
use super::conv::Conv;
use super::gemm::balanced;
use super::halo::Halo;
use super::split::Split;
use crate::asm::reg::*;
use crate::asm::{Asm, Isa, Src};
use crate::error::{Error, Result};
use crate::module::{Emitter, Kernel, Operand};
use cranelift_codegen::ir::{InstBuilder, Value, types::I64};
use cranelift_frontend::FunctionBuilder;
use cranelift_module::{FuncId, Module};

/// Columns of the widest micro-kernel used here.
const WIDEST: usize = 32;
/// Products of a tile.
const POINTS: usize = 16;
/// Limits of one unit of work.
struct Limits {
    tiles: usize,
    /// Scratch that the transformed inputs may take.
    input_bytes: usize,
    /// Scratch that the products of one chunk of output channels may take.
    product_bytes: usize,
}
/// Everything of a unit stays in L2.
const SMALL: Limits = Limits { tiles: 56, input_bytes: 1 << 20, product_bytes: 256 << 10 };
/// For weights that do not fit in L2: more tiles use each load of them.
const LARGE: Limits = Limits { tiles: 196, input_bytes: 8 << 20, product_bytes: 8 << 20 };
/// Weights that are taken to stay in L2.
const L2_WEIGHT_BYTES: usize = 3 << 19;

/// A convolution computed by F(2x2, 3x3).
#[derive(Clone, Debug, PartialEq)]
pub struct Winograd {
    /// The convolution: 3x3, stride and dilation 1, one group, blocked input. Its input needs no more halo than for
    /// direct convolution.
    pub conv: Conv,
}

/// A run of unit positions along one dim that have the same number of tiles, and whether the last tile is cut off.
#[derive(Clone, Copy, Debug)]
struct Piece {
    from: usize,
    to: usize,
    start: usize,
    tiles: usize,
    cut: bool,
}

/// Rows `0..tiles` of tiles of one channel block: see [`Winograd::input_kernel`] and [`Winograd::output_kernel`].
#[derive(Clone, Copy, Debug)]
struct TileRun {
    tiles: usize,
    /// The tiles lack their last row, the last tile its last column, beyond the edge.
    cut_row: bool,
    cut_col: bool,
    /// Bytes between products of a tile.
    point_step: i32,
}

struct Plan {
    rows: Split,
    cols: Split,
    cut: [bool; 2],
    /// Column vectors of a micro-kernel, and groups of them in a chunk.
    nv: usize,
    chunk: usize,
    tiles: usize,
}

impl Plan {
    fn pieces(split: &Split, cut: bool) -> Vec<Piece> {
        let mut out = Vec::new();
        for r in split.runs() {
            out.push(Piece { from: r.from, to: r.to, start: r.start, tiles: r.size, cut: false });
        }
        if cut && let Some(mut last) = out.pop() {
            let n = last.to - last.from;
            if n > 1 {
                out.push(Piece { to: last.to - 1, ..last });
                last.start += (n - 1) * last.tiles;
                last.from = last.to - 1;
            }
            out.push(Piece { cut: true, ..last });
        }
        out
    }
}

impl Winograd {
    /// Whether the convolution has this form; whether it pays is [`Winograd::pays`].
    pub fn fits(conv: &Conv, isa: Isa) -> bool {
        conv.kernel == [1, 3, 3]
            && conv.strides == [1; 3]
            && conv.dilations == [1; 3]
            && conv.group == 1
            && conv.x.cb == isa.lanes()
            && conv.y.spatial[0] == 1
            && conv.x.spatial[0] == 1
    }

    /// A rule of thumb from measurements: enough channels to pay for the transforms, and enough tiles for its weights,
    /// which are 16/9 as large.
    pub fn pays(conv: &Conv, isa: Isa) -> bool {
        let [_, h, w] = conv.y.spatial;
        Winograd::fits(conv, isa) && conv.x.c >= 32 && conv.y.c >= 32 && h * w >= 36
    }

    fn plan(&self, isa: Isa, threads: usize) -> Plan {
        let [_, h, w] = self.conv.y.spatial;
        let (ty, tx) = (h.div_ceil(2), w.div_ceil(2));
        let vb = isa.vector_bytes();
        let per_tile = POINTS * self.conv.x.blocks() * vb;
        let limits = if 4 * self.packed_elems(isa) > L2_WEIGHT_BYTES { LARGE } else { SMALL };
        let most = limits.tiles.min(limits.input_bytes / per_tile).max(16);
        let cols = Split::at_most(tx, most);
        let mut rows = Split::at_most(ty, (most / cols.size(0)).max(1));
        while rows.pieces < ty && !balanced(self.conv.y.n * rows.pieces * cols.pieces, threads) {
            rows = Split::into(ty, rows.pieces + 1);
        }
        let blocks = self.conv.y.blocks();
        let nv = if blocks.is_multiple_of(2) { 2 } else { 1 };
        let tiles = rows.size(0) * cols.size(0);
        let groups = blocks / nv;
        let product_bytes = if tiles > SMALL.tiles { limits.product_bytes } else { SMALL.product_bytes };
        let chunk = (product_bytes / (POINTS * nv * tiles * vb)).clamp(1, groups);
        let chunk = (1..=chunk).rev().find(|c| groups.is_multiple_of(*c)).unwrap_or(1);
        Plan { rows, cols, cut: [h % 2 == 1, w % 2 == 1], nv, chunk, tiles }
    }

    fn point_steps(&self, isa: Isa, p: &Plan) -> (usize, usize) {
        // One line more than the data: a power of two would put all points into the same cache sets.
        let vb = isa.vector_bytes();
        (self.conv.x.blocks() * p.tiles * vb + 64, p.chunk * p.nv * p.tiles * vb + 64)
    }

    /// Elements of the packed weights.
    pub fn packed_elems(&self, isa: Isa) -> usize {
        POINTS * self.conv.x.c * self.conv.y.blocks() * isa.lanes()
    }

    /// Elements of the bias operand: whole blocks.
    pub fn bias_elems(&self, isa: Isa) -> usize {
        if self.conv.bias { self.conv.y.blocks() * isa.lanes() } else { 0 }
    }

    /// Transforms weights `[M, C, 3, 3]` and packs them for a kernel that is built with the same `threads`:
    /// `[chunk of vector groups][point][group][C][columns]`.
    ///
    /// # Errors
    /// When a slice has another length.
    pub fn pack_weights(&self, isa: Isa, threads: usize, w: &[f32], out: &mut [f32]) -> Result<()> {
        let (ic, oc) = (self.conv.x.c, self.conv.y.c);
        if w.len() != oc * ic * 9 || out.len() != self.packed_elems(isa) {
            return Err(Error::invalid(
                "winograd",
                format!("packing {} weights into {}", w.len(), out.len()),
            ));
        }
        let plan = self.plan(isa, threads.max(1));
        let width = plan.nv * isa.lanes();
        // A chunk is all points of some vector groups.
        for (chunk, out) in out.chunks_exact_mut(POINTS * plan.chunk * ic * width).enumerate() {
            for inside in 0..plan.chunk {
                let first = (chunk * plan.chunk + inside) * width;
                let columns = width.min(oc.saturating_sub(first));
                for c in 0..ic {
                    let mut filters = [[0.0; WIDEST]; 9];
                    for column in 0..columns {
                        let filter = &w[((first + column) * ic + c) * 9..][..9];
                        for (to, &v) in filters.iter_mut().zip(filter) {
                            to[column] = v;
                        }
                    }
                    for (point, values) in transform_filters(&filters).iter().enumerate() {
                        let line = (point * plan.chunk + inside) * ic + c;
                        out[line * width..][..width].copy_from_slice(&values[..width]);
                    }
                }
            }
        }
        Ok(())
    }

    /// `fn(x, v)`: transforms the inputs of one run of tiles of one channel block.
    fn input_kernel<M: Module>(&self, e: &mut Emitter<M>, run: TileRun) -> Result<FuncId> {
        let (isa, px, row) = (e.isa(), self.conv.x.pixel_bytes() as i32, self.conv.x.row_bytes() as i32);
        e.cached(format!("winograd in {run:?} {px} {row}"), |e| {
            let mut w = Asm::new(isa)?;
            w.zero(12)?;
            let whole = run.tiles - usize::from(run.cut_col);
            tile_loop(&mut w, whole, |w| {
                input_tile(w, px, row, run, false)?;
                w.add_imm(rdi, i64::from(2 * px))?;
                w.add_imm(rsi, i64::from(w.vb()))
            })?;
            if run.cut_col {
                input_tile(&mut w, px, row, run, true)?;
            }
            let code = w.finish()?;
            e.assembled("winograd_in", 2, &code)
        })
    }

    /// `fn(m, y, bias, residual)`: transforms the products of one run of tiles of one channel block into outputs.
    fn output_kernel<M: Module>(&self, e: &mut Emitter<M>, run: TileRun) -> Result<FuncId> {
        let (isa, y) = (e.isa(), &self.conv.y);
        let out = OutputTile {
            px: y.pixel_bytes() as i32,
            row: y.row_bytes() as i32,
            residual_row: self.conv.residual.map(|r| r.row_bytes() as i32),
            bias: self.conv.bias,
            activation: self.conv.activation,
        };
        e.cached(format!("winograd out {run:?} {out:?}"), |e| {
            let mut w = Asm::new(isa)?;
            let whole = run.tiles - usize::from(run.cut_col);
            tile_loop(&mut w, whole, |w| {
                out.emit(w, run, false)?;
                w.add_imm(rdi, i64::from(w.vb()))?;
                w.add_imm(rsi, i64::from(2 * out.px))?;
                w.add_imm(rcx, i64::from(2 * out.px))
            })?;
            if run.cut_col {
                out.emit(&mut w, run, true)?;
            }
            let code = w.finish()?;
            e.assembled("winograd_out", 4, &code)
        })
    }

    /// The products of `rows` tiles out of a unit's `tiles`.
    fn product_kernel<M: Module>(
        &self,
        e: &mut Emitter<M>,
        plan: &Plan,
        tiles: usize,
        rows: usize,
    ) -> Result<FuncId> {
        let (isa, x) = (e.isa(), &self.conv.x);
        let vb = isa.vector_bytes();
        let offsets: Vec<i32> = (0..rows).map(|i| (i * vb) as i32).collect();
        let whole = x.c / x.cb;
        let (blocks, k, tail_k) = if whole == 0 { (1, x.c, 0) } else { (whole, x.cb, x.c % x.cb) };
        let spec = Brgemm {
            isa,
            a_rows: offsets.clone(),
            c_rows: offsets,
            nv: plan.nv,
            last_lanes: isa.lanes(),
            b_masked: false,
            c_step: (tiles * vb) as i32,
            loops: vec![(blocks, (tiles * vb) as i32)],
            taps: vec![0],
            k,
            tail_k,
            a_step: 4,
            b_step: (plan.nv * vb) as i32,
            accumulate: false,
            alpha: 1.0,
            bias: Bias::None,
            residual: None,
            activation: None,
            prefetch: 2048,
        };
        spec.define(e)
    }

    /// The step function for a number of threads; operands `x`, `w` (packed), `bias` (if any), `residual` (if any), `y`, `scratch`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for convolutions of another form, [`Error::Invalid`] for layouts that do not fit.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        let (isa, c, threads) = (e.isa(), &self.conv, threads.max(1));
        if !Winograd::fits(c, isa) {
            return Err(Error::unsupported(
                "winograd",
                format!("kernel {:?}, strides {:?}, group {}", c.kernel, c.strides, c.group),
            ));
        }
        c.check(isa)?;
        let plan = self.plan(isa, threads);
        let rows = Plan::pieces(&plan.rows, plan.cut[0]);
        let cols = Plan::pieces(&plan.cols, plan.cut[1]);
        let mut bodies = Vec::new();
        for r in &rows {
            for q in &cols {
                bodies.push(self.body(e, &plan, *r, *q)?);
            }
        }
        let units = c.y.n * plan.rows.pieces * plan.cols.pieces;
        let tasks = units.min(threads);
        let (v_step, m_step) = self.point_steps(isa, &plan);
        let task_scratch = (POINTS * (v_step + m_step)).next_multiple_of(4096) + 192;
        let mut operands =
            vec![Operand::read("x", c.x.bytes()), Operand::read("w", 4 * self.packed_elems(isa))];
        if c.bias {
            operands.push(Operand::read("bias", 4 * self.bias_elems(isa)));
        }
        operands.extend(c.residual.map(|r| Operand::read("residual", r.bytes())));
        operands.push(Operand::write("y", c.y.bytes()));
        operands.push(Operand::scratch(tasks * task_scratch));
        let last = operands.len() - 2;
        let halo = Halo::define(e, &c.y)?;
        let dims = [c.y.n, plan.rows.pieces, plan.cols.pieces];
        let func = e.step("winograd", operands.len(), |m, b, p, task| {
            let scratch = at(b, p[last + 1], task, task_scratch as i64);
            let (low, high) = share(b, task, units, tasks);
            for_range(b, low, high, |b, u| {
                let i = coordinates(b, u, &dims);
                let image = at(b, p[last], i[0], c.y.batch_bytes() as i64);
                if let Some(halo) = &halo {
                    let position = b.ins().iadd(i[1], i[2]);
                    super::clif::if_equal(b, position, 0, |b| {
                        for_n(b, c.y.blocks() as i64, |b, block| {
                            let block = at(b, image, block, c.y.block_bytes() as i64);
                            halo.call(m, b, block);
                        });
                    });
                }
                let x = at(b, p[0], i[0], c.x.batch_bytes() as i64);
                let x = off(b, x, self.window_origin());
                let y = off(b, image, c.y.origin_bytes() as i64);
                let residual = match &c.residual {
                    Some(r) => {
                        let q = at(b, p[last - 1], i[0], r.batch_bytes() as i64);
                        off(b, q, r.origin_bytes() as i64)
                    }
                    None => y,
                };
                let args = Args { x, w: p[1], bias: if c.bias { p[2] } else { y }, residual, y, scratch };
                for body in &bodies {
                    one_of(b, i[1], body.row.from, body.row.to, |b, row| {
                        one_of(b, i[2], body.col.from, body.col.to, |b, col| {
                            let tile_row = tile_of(b, row, &body.row);
                            let tile_col = tile_of(b, col, &body.col);
                            self.emit_body(m, b, &plan, body, &args, tile_row, tile_col, isa);
                        });
                    });
                }
            });
            Ok(())
        })?;
        let [_, h, w] = c.y.spatial;
        let name =
            format!("conv 3x3/1 {}->{} {h}x{w} {isa} winograd 2x2 {}x{}", c.x.c, c.y.c, plan.tiles, plan.nv);
        let flops = 2 * (c.y.n * c.y.c * c.x.c * 9 * h * w) as u64;
        Ok(Kernel { func, name, operands, tasks, flops })
    }

    fn window_origin(&self) -> i64 {
        let (x, pads) = (&self.conv.x, &self.conv.pads_begin);
        x.origin_bytes() as i64 - (pads[1] * x.row_bytes() + pads[2] * x.pixel_bytes()) as i64
    }

    fn body<M: Module>(&self, e: &mut Emitter<M>, plan: &Plan, row: Piece, col: Piece) -> Result<Body> {
        let isa = e.isa();
        let (v_step, m_step) = self.point_steps(isa, plan);
        let run = |cut_row: bool, step: usize| TileRun {
            tiles: col.tiles,
            cut_row,
            cut_col: col.cut,
            point_step: step as i32,
        };
        let tiles = row.tiles * col.tiles;
        let split = Split::at_most(tiles, max_rows(isa, plan.nv));
        let mut products = Vec::new();
        for r in split.runs() {
            products.push((r, self.product_kernel(e, plan, tiles, r.size)?));
        }
        Ok(Body {
            row,
            col,
            tiles,
            input: [self.input_kernel(e, run(false, v_step))?, self.input_kernel(e, run(row.cut, v_step))?],
            output: [
                self.output_kernel(e, run(false, m_step))?,
                self.output_kernel(e, run(row.cut, m_step))?,
            ],
            products,
        })
    }

    fn emit_body<M: Module>(
        &self,
        m: &mut M,
        b: &mut FunctionBuilder,
        plan: &Plan,
        body: &Body,
        p: &Args,
        tile_row: Value,
        tile_col: Value,
        isa: Isa,
    ) {
        let (c, vb) = (&self.conv, isa.vector_bytes() as i64);
        let (v_step, m_step) = self.point_steps(isa, plan);
        let products = off(b, p.scratch, (POINTS * v_step).next_multiple_of(64) as i64);
        let run_bytes = body.col.tiles as i64 * vb;
        let block_bytes = body.tiles as i64 * vb;
        let place = |b: &mut FunctionBuilder, base: Value, l: &super::layout::BlockedLayout| {
            let q = at(b, base, tile_row, 2 * l.row_bytes() as i64);
            at(b, q, tile_col, 2 * l.pixel_bytes() as i64)
        };
        let (x, y) = (place(b, p.x, &c.x), place(b, p.y, &c.y));
        let residual = c.residual.map_or(y, |r| place(b, p.residual, &r));
        // The last row of tiles may be cut off.
        let rows = |b: &mut FunctionBuilder,
                    ids: [FuncId; 2],
                    mut call: Box<dyn FnMut(&mut FunctionBuilder, Value, FuncId) + '_>| {
            let n = body.row.tiles as i64;
            if ids[0] == ids[1] {
                for_n(b, n, |b, i| call(b, i, ids[0]));
            } else {
                for_n(b, n - 1, |b, i| call(b, i, ids[0]));
                let i = b.ins().iconst(I64, n - 1);
                call(b, i, ids[1]);
            }
        };
        for_n(b, c.x.blocks() as i64, |b, block| {
            let from = at(b, x, block, c.x.block_bytes() as i64);
            let to = at(b, p.scratch, block, block_bytes);
            rows(
                b,
                body.input,
                Box::new(|b, i, id| {
                    let (from, to) = (at(b, from, i, 2 * c.x.row_bytes() as i64), at(b, to, i, run_bytes));
                    let f = m.declare_func_in_func(id, b.func);
                    b.ins().call(f, &[from, to]);
                }),
            );
        });
        let groups = c.y.blocks() / plan.nv;
        let weights = (c.x.c * plan.nv) as i64 * vb;
        for_n(b, (groups / plan.chunk) as i64, |b, chunk| {
            let w = at(b, p.w, chunk, (POINTS * plan.chunk) as i64 * weights);
            for_n(b, POINTS as i64, |b, point| {
                let v = at(b, p.scratch, point, v_step as i64);
                let to = at(b, products, point, m_step as i64);
                let w = at(b, w, point, plan.chunk as i64 * weights);
                for_n(b, plan.chunk as i64, |b, group| {
                    let w = at(b, w, group, weights);
                    let to = at(b, to, group, plan.nv as i64 * block_bytes);
                    for (run, id) in &body.products {
                        let (v, to) = (off(b, v, run.start as i64 * vb), off(b, to, run.start as i64 * vb));
                        for_n(b, (run.to - run.from) as i64, |b, t| {
                            let (v, to) =
                                (at(b, v, t, run.size as i64 * vb), at(b, to, t, run.size as i64 * vb));
                            let f = m.declare_func_in_func(*id, b.func);
                            b.ins().call(f, &[v, w, to, to, to]);
                        });
                    }
                });
            });
            let first = b.ins().imul_imm_s(chunk, (plan.chunk * plan.nv) as i64);
            for_n(b, (plan.chunk * plan.nv) as i64, |b, inside| {
                let block = b.ins().iadd(first, inside);
                let from = at(b, products, inside, block_bytes);
                let to = at(b, y, block, c.y.block_bytes() as i64);
                let r = c.residual.map_or(to, |l| at(b, residual, block, l.block_bytes() as i64));
                let bias = if c.bias { at(b, p.bias, block, vb) } else { p.bias };
                rows(
                    b,
                    body.output,
                    Box::new(|b, i, id| {
                        let (from, to) =
                            (at(b, from, i, run_bytes), at(b, to, i, 2 * c.y.row_bytes() as i64));
                        let r = c.residual.map_or(to, |l| at(b, r, i, 2 * l.row_bytes() as i64));
                        let f = m.declare_func_in_func(id, b.func);
                        b.ins().call(f, &[from, to, bias, r]);
                    }),
                );
            });
        });
    }
}

/// What one unit does, for one pair of pieces.
struct Body {
    row: Piece,
    col: Piece,
    tiles: usize,
    input: [FuncId; 2],
    output: [FuncId; 2],
    products: Vec<(super::split::Run, FuncId)>,
}

struct Args {
    x: Value,
    w: Value,
    bias: Value,
    residual: Value,
    y: Value,
    scratch: Value,
}

/// `body(i)` when `from <= i < to`.
fn one_of(
    b: &mut FunctionBuilder,
    i: Value,
    from: usize,
    to: usize,
    body: impl FnOnce(&mut FunctionBuilder, Value),
) {
    let next = b.ins().iadd_imm_s(i, 1);
    let from = b.ins().iconst(I64, from as i64);
    let to = b.ins().iconst(I64, to as i64);
    let (lo, hi) = (b.ins().umax(i, from), b.ins().umin(next, to));
    for_range(b, lo, hi, body);
}

fn tile_of(b: &mut FunctionBuilder, i: Value, piece: &Piece) -> Value {
    let v = b.ins().imul_imm_s(i, piece.tiles as i64);
    off(b, v, piece.start as i64 - (piece.from * piece.tiles) as i64)
}

/// `G g Gᵀ` of many filters at once. Halves are exact, so only sums round; the error is that of the products to come.
fn transform_filters(g: &[[f32; WIDEST]; 9]) -> [[f32; WIDEST]; POINTS] {
    let one = |a: &[f32; WIDEST], b: &[f32; WIDEST], c: &[f32; WIDEST]| {
        let mut out = [[0.0; WIDEST]; 4];
        for i in 0..WIDEST {
            let (ends, middle) = ((a[i] + c[i]) * 0.5, b[i] * 0.5);
            out[0][i] = -a[i];
            out[1][i] = ends + middle;
            out[2][i] = ends - middle;
            out[3][i] = c[i];
        }
        out
    };
    // Columns, then rows.
    let columns = [0, 1, 2].map(|j| one(&g[j], &g[3 + j], &g[6 + j]));
    let mut out = [[0.0; WIDEST]; POINTS];
    for i in 0..4 {
        for (j, v) in one(&columns[0][i], &columns[1][i], &columns[2][i]).into_iter().enumerate() {
            out[4 * i + j] = v;
        }
    }
    out
}

fn tile_loop(w: &mut Asm, n: usize, body: impl FnOnce(&mut Asm) -> Result<()>) -> Result<()> {
    if n == 0 {
        return Ok(());
    }
    let top = w.repeat(rax, n)?;
    body(w)?;
    w.again(rax, top)
}

/// One tile of inputs at `rdi` to 16 points at `rsi`. Rows and columns beyond the edge, which only outputs beyond the
/// edge depend on, count as zeros. Register 12 holds 0.
fn input_tile(w: &mut Asm, px: i32, row: i32, run: TileRun, cut_col: bool) -> Result<()> {
    let pixel = |i: i32, j: i32| -> Option<Mem> {
        let beyond = (i == 3 && run.cut_row) || (j == 3 && cut_col);
        (!beyond).then(|| rdi + (i * row + j * px))
    };
    // Bᵀ: rows d2 - d0, d1 + d2, d2 - d1, d3 - d1.
    let mixes = [(2, 0, false), (1, 2, true), (2, 1, false), (3, 1, false)];
    for (i, &(p, q, plus)) in mixes.iter().enumerate() {
        for j in 0..4 {
            let first = match pixel(p, j) {
                Some(m) => {
                    w.load(j as usize, m)?;
                    j as usize
                }
                None => 12,
            };
            let second = pixel(q, j).map_or(Src::Reg(12), Src::Mem);
            if plus { w.add(j as usize, first, second)? } else { w.sub(j as usize, first, second)? }
        }
        for (j, &(p, q, plus)) in mixes.iter().enumerate() {
            if plus {
                w.add(4 + j, p as usize, q as usize)?
            } else {
                w.sub(4 + j, p as usize, q as usize)?
            }
            w.store(rsi + (4 * i as i32 + j as i32) * run.point_step, 4 + j)?;
        }
    }
    Ok(())
}

#[derive(Clone, Copy, Debug)]
struct OutputTile {
    px: i32,
    row: i32,
    residual_row: Option<i32>,
    bias: bool,
    activation: Option<Activation>,
}

impl OutputTile {
    /// 16 points at `rdi` to 2x2 outputs at `rsi`; bias vector at `rdx`, residual at `rcx`.
    fn emit(&self, w: &mut Asm, run: TileRun, cut_col: bool) -> Result<()> {
        const POINT: Reg = rdi;
        // Aᵀ on rows: m0 + m1 + m2 into register 2i, m1 - m2 + m3 into 2i + 1.
        for i in 0..4i32 {
            let point = |j: i32| -> Mem { POINT + (4 * i + j) * run.point_step };
            let (first, second) = (2 * i as usize, 2 * i as usize + 1);
            w.load(8, point(1))?;
            w.load(9, point(2))?;
            w.add(first, 8, 9usize)?;
            w.sub(second, 8, 9usize)?;
            w.add(first, first, Src::Mem(point(0)))?;
            w.add(second, second, Src::Mem(point(3)))?;
        }
        // The same on columns: the four outputs in registers 8 to 11.
        for j in 0..2 {
            w.add(8 + j, 2 + j, 4 + j)?;
            w.sub(10 + j, 2 + j, 4 + j)?;
            w.add(8 + j, 8 + j, j)?;
            w.add(10 + j, 10 + j, 6 + j)?;
        }
        let outputs: Vec<(usize, i32, i32)> = [(8, 0, 0), (9, 0, 1), (10, 1, 0), (11, 1, 1)]
            .into_iter()
            .filter(|o| !(o.1 == 1 && run.cut_row || o.2 == 1 && cut_col))
            .collect();
        for &(r, i, j) in &outputs {
            if self.bias {
                w.add(r, r, Src::Mem(rdx.into()))?;
            }
            if let Some(row) = self.residual_row {
                w.add(r, r, Src::Mem(rcx + (i * row + j * self.px)))?;
            }
        }
        if let Some(activation) = self.activation {
            let regs: Vec<usize> = outputs.iter().map(|o| o.0).collect();
            activation.emit(w, &regs, [0, 1, 2])?;
        }
        for &(r, i, j) in &outputs {
            w.store(rsi + (i * self.row + j * self.px), r)?;
        }
        Ok(())
    }
}
