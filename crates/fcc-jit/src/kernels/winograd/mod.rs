//! Winograd's convolutions: products of transformed tiles, fewer than direct convolution has.
//!
//! `Y = Aᵀ [ (G w Gᵀ) ⊙ (Bᵀ x B) ] A` with a [`Bilinear`] algorithm for each of height and width: 3x3 kernels of stride 1
//! need 16 products for 2x2 outputs where direct convolution has 36; 3x3 of stride 2 needs 25, 5x5 needs 49 of 100.
//! With [`Scheme::Two`] the error against exact results is no larger than that of direct convolution in f32 (fewer terms
//! are added), and no output depends on a pixel outside its receptive field.
//!
//! What differs: an infinite input makes NaN where direct convolution makes infinity, and sums of inputs or of weights
//! may overflow. Every sum is therefore looked at, and where one is not finite the kernel writes 1 to its flag: the
//! caller computes the convolution in another way then.
//!
//! One unit of work is a block of tiles: their inputs are transformed into scratch, the products are made over the
//! channels by the same micro-kernel as everywhere, and the results are transformed back, with bias, residual and
//! activation, a chunk of output channels at a time.

pub mod bilinear;
mod cost;
mod pack;
mod transform;

use super::brgemm::{Bias, Brgemm, max_rows};
use super::clif::{at, coordinates, for_n, for_range, off, share};
use super::conv::Conv;
use super::cut::Cut;
use super::gemm::balanced;
use super::halo::Halo;
use super::layout::BlockedLayout;
use super::split::{Run, Split};
use crate::asm::{Asm, Isa};
use crate::error::Result;
use crate::module::{Access, Emitter, Kernel, Operand};
use bilinear::{Bilinear, Scheme};
pub use cost::Choice;
use cranelift_codegen::ir::{InstBuilder, Value, condcodes::IntCC, types::I64};
use cranelift_frontend::FunctionBuilder;
use cranelift_module::{FuncId, Module};
use transform::{InputTile, OutputTile, TileRun};

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
/// Bytes ahead in the weights that are fetched.
const AHEAD: usize = 2048;
/// Weights that are taken to stay in L2.
const L2_WEIGHT_BYTES: usize = 3 << 19;

/// A convolution computed by bilinear algorithms.
#[derive(Clone, Debug, PartialEq)]
pub struct Winograd {
    conv: Conv,
    y: Bilinear,
    x: Bilinear,
    schemes: [Scheme; 2],
    /// How it is cut, if the model of its time is not to decide.
    cut: Option<Cut>,
}

/// A run of unit positions along one dim that have the same number of tiles, and how many outputs the last tile has.
#[derive(Clone, Copy, Debug)]
struct Piece {
    from: usize,
    to: usize,
    start: usize,
    tiles: usize,
    last: usize,
}

struct Plan {
    /// Rows of tiles in runs of equal pieces.
    rows: Vec<Run>,
    cols: Split,
    /// Column vectors of a micro-kernel, and groups of them in a chunk.
    nv: usize,
    chunk: usize,
    tiles: usize,
}

/// Cuts `total` rows of tiles into pieces of at most `most`. Where threads have nothing else to share (`outer` units
/// beside), each first gets an equal part of the rows, which is then cut: 14 rows for two threads in pieces of up to 4
/// are 4, 3 and 4, 3, where 4, 4 and 3, 3 would leave one thread with 8.
fn bands(total: usize, most: usize, threads: usize, outer: usize) -> Vec<Run> {
    let split = Split::at_most(total, most);
    if balanced(outer, threads) || split.pieces >= 8 * threads {
        return split.runs();
    }
    let shares = Split::into(total, threads);
    let pieces = Split::at_most(shares.size(0), most).pieces;
    let mut out: Vec<Run> = vec![];
    for t in 0..shares.pieces {
        for r in Split::into(shares.size(t), pieces).runs() {
            let (n, from) = (r.to - r.from, out.last().map_or(0, |last| last.to));
            match out.last_mut() {
                Some(last) if last.size == r.size => last.to += n,
                _ => out.push(Run { from, to: from + n, size: r.size, start: shares.start(t) + r.start }),
            }
        }
    }
    out
}

/// Whether products of this many tiles are better cut into tall pieces of one vector: where those are nearly full and
/// pieces of two vectors are not. 25 or 49 tiles are 5 to 10 % faster so (measured, AVX-512, whose multiply-adds take
/// their load with them).
fn tall(isa: Isa, tiles: usize) -> bool {
    let [one, two] = [1, 2].map(|nv| max_rows(isa, nv));
    isa == Isa::Avx512 && tiles / tiles.div_ceil(one) >= one - 4 && !tiles.is_multiple_of(two)
}

/// The pieces of a split of tiles of `outputs` outputs each, `total` outputs in all.
fn pieces(runs: &[Run], outputs: usize, total: usize) -> Vec<Piece> {
    let whole = |r: &Run| Piece { from: r.from, to: r.to, start: r.start, tiles: r.size, last: outputs };
    let mut out: Vec<Piece> = runs.iter().map(whole).collect();
    let rest = total % outputs;
    if rest != 0
        && let Some(mut last) = out.pop()
    {
        let n = last.to - last.from;
        if n > 1 {
            out.push(Piece { to: last.to - 1, ..last });
            last.start += (n - 1) * last.tiles;
            last.from = last.to - 1;
        }
        out.push(Piece { last: rest, ..last });
    }
    out
}

impl Winograd {
    /// The convolution by these schemes for height and width, `None` if it has another form: one spatial depth, no
    /// dilation, blocked input, groups of whole blocks. The input needs no more halo than for direct convolution.
    pub fn new(conv: &Conv, isa: Isa, schemes: [Scheme; 2]) -> Option<Winograd> {
        let flat = conv.kernel[0] == 1 && conv.x.spatial[0] == 1 && conv.y.spatial[0] == 1;
        let dense = (1..3).all(|d| conv.kernel[d] == 1 || conv.dilations[d] == 1);
        let blocked = conv.x.cb == isa.lanes() && conv.handles_group(isa) && !conv.ragged(isa);
        if !flat || !dense || !blocked {
            return None;
        }
        let [y, x] = [0, 1].map(|d| Bilinear::new(schemes[d], conv.kernel[1 + d], conv.strides[1 + d]));
        let registers = InputTile::registers(&x).max(OutputTile::registers(&x));
        let made = Winograd { conv: Conv { cut: None, ..conv.clone() }, y, x, schemes, cut: None };
        (registers <= isa.registers() && made.points() > 1).then_some(made)
    }

    /// The convolution that it computes.
    pub fn conv(&self) -> &Conv {
        &self.conv
    }

    /// Products of a tile.
    fn points(&self) -> usize {
        self.y.products() * self.x.products()
    }
    fn in_channels(&self) -> usize {
        self.conv.x.c / self.conv.group
    }
    fn out_channels(&self) -> usize {
        self.conv.y.c / self.conv.group
    }
    /// Channel blocks of a group's input and output.
    fn blocks(&self) -> [usize; 2] {
        [self.in_channels().div_ceil(self.conv.x.cb), self.out_channels().div_ceil(self.conv.y.cb)]
    }

    /// Rows and columns of tiles.
    fn tiles(&self) -> [usize; 2] {
        let [_, h, w] = self.conv.y.spatial;
        [h.div_ceil(self.y.outputs), w.div_ceil(self.x.outputs)]
    }

    /// The algorithms for height and width.
    pub fn schemes(&self) -> [Scheme; 2] {
        self.schemes
    }

    /// The same, cut so.
    ///
    /// # Errors
    /// What does not fit, with what would.
    pub fn with_cut(self, isa: Isa, cut: Cut) -> std::result::Result<Winograd, String> {
        cut.check_sizes()?;
        let ([_, blocks], nv) = (self.blocks(), cut.tile[2]);
        if max_rows(isa, nv) == 0 || nv * isa.lanes() > pack::WIDEST || !blocks.is_multiple_of(nv) {
            return Err(format!(
                "got {nv} vectors, wanted 1 or 2 that divide {blocks} blocks of output channels"
            ));
        }
        if !(blocks / nv).is_multiple_of(cut.chunk) {
            return Err(format!("got chunks of {}, wanted a divisor of {} groups", cut.chunk, blocks / nv));
        }
        let made = Winograd { cut: Some(cut), ..self };
        let most = i32::MAX as usize / 2;
        // offsets between points are immediates, and all points are in one operand
        let (v_step, m_step) = made.point_steps(isa, &made.plan(isa, 1));
        match made.points().checked_mul(v_step.max(m_step)) {
            Some(bytes) if bytes <= most => Ok(made),
            _ => Err(format!("got units of {cut}, whose tiles take more than {most} bytes")),
        }
    }

    /// How it is cut: as it says itself, else as the model of its time does.
    pub fn cut(&self, isa: Isa) -> Cut {
        self.cut.unwrap_or_else(|| {
            let (most, [ty, tx]) = (self.most_tiles(isa), self.tiles());
            let cols = Split::at_most(tx, most).size(0);
            let rows = Split::at_most(ty, (most / cols.max(1)).max(1)).size(0);
            let nv = if self.blocks()[1].is_multiple_of(2) && !tall(isa, rows * cols) { 2 } else { 1 };
            Cut { tile: [rows, cols, nv], chunk: self.chunk(isa, rows * cols, nv), blocks: 1, ahead: AHEAD }
        })
    }

    fn limits(&self, isa: Isa) -> Limits {
        let weights = 4 * self.packed_elems(isa) / self.conv.group;
        if weights > L2_WEIGHT_BYTES { LARGE } else { SMALL }
    }

    /// Most tiles of a unit.
    fn most_tiles(&self, isa: Isa) -> usize {
        let limits = self.limits(isa);
        limits.tiles.min(limits.input_bytes / (self.points() * self.blocks()[0] * isa.vector_bytes())).max(16)
    }

    /// Groups of `nv` vectors whose products for `tiles` tiles are kept at a time.
    fn chunk(&self, isa: Isa, tiles: usize, nv: usize) -> usize {
        let limit = if tiles > SMALL.tiles { self.limits(isa).product_bytes } else { SMALL.product_bytes };
        let groups = self.blocks()[1] / nv;
        let chunk = limit / (self.points() * nv * tiles * isa.vector_bytes());
        let chunk = chunk.clamp(1, groups.max(1));
        (1..=chunk).rev().find(|c| groups.is_multiple_of(*c)).unwrap_or(1)
    }

    /// Cuts that differ from this one in one size.
    pub(crate) fn cuts_beside(&self, isa: Isa, cut: &Cut) -> Vec<Cut> {
        let ([rows, cols, nv], [ty, tx]) = (cut.tile, self.tiles());
        let units =
            [(rows, tx), (2 * rows, cols), (rows.div_ceil(2), cols), (rows, cols.div_ceil(2)), (ty, tx)];
        let mut out = vec![];
        for (r, c) in units.into_iter().map(|(r, c)| (r.min(ty), c.min(tx))) {
            if r * c <= 4 * LARGE.tiles {
                let chunk = self.chunk(isa, r * c, nv);
                out.push(Cut { tile: [r, c, nv], chunk, ..*cut });
            }
        }
        let groups = self.blocks()[1] / nv;
        let divisors = (1..=groups).filter(|c| groups.is_multiple_of(*c));
        let near = |c: &usize| *c != cut.chunk && (*c <= 2 * cut.chunk && 2 * *c >= cut.chunk);
        out.extend(divisors.filter(near).map(|chunk| Cut { chunk, ..*cut }));
        let other = 3 - nv.min(2);
        if self.blocks()[1].is_multiple_of(other) {
            let chunk = self.chunk(isa, rows * cols, other);
            out.push(Cut { tile: [rows, cols, other], chunk, ..*cut });
        }
        out.extend(cut.other_distances());
        out
    }

    fn plan(&self, isa: Isa, threads: usize) -> Plan {
        let [ty, tx] = self.tiles();
        let Cut { tile: [height, width, nv], chunk, .. } = self.cut(isa);
        let cols = Split::at_most(tx, width);
        let rows = bands(ty, height, threads, self.conv.y.n * self.conv.group);
        let tiles = rows.iter().map(|r| r.size).max().unwrap_or(1) * cols.size(0);
        // smaller units leave room for more products
        let chunk = if self.cut.is_some() { chunk } else { self.chunk(isa, tiles, nv) };
        Plan { rows, cols, nv, chunk, tiles }
    }

    fn point_steps(&self, isa: Isa, p: &Plan) -> (usize, usize) {
        // One line more than the data: a power of two would put all points into the same cache sets.
        let vb = isa.vector_bytes();
        (self.blocks()[0] * p.tiles * vb + 64, p.chunk * p.nv * p.tiles * vb + 64)
    }

    /// `fn(x, v)`: transforms the inputs of one run of tiles of one channel block.
    fn input_kernel<M: Module>(&self, e: &mut Emitter<M>, run: TileRun) -> Result<FuncId> {
        let (isa, px, row) = (e.isa(), self.conv.x.pixel_bytes() as i32, self.conv.x.row_bytes() as i32);
        let key = (self.schemes, self.conv.kernel, self.conv.strides);
        e.cached(format!("winograd in {key:?} {run:?} {px} {row}"), |e| {
            let mut w = Asm::new(isa)?;
            InputTile { y: &self.y, x: &self.x, px, row }.assemble(&mut w, run)?;
            let code = w.finish()?;
            e.assembled("winograd_in", 2, &code)
        })
    }

    /// `fn(m, y, bias, residual, flag)`: transforms the products of one run of tiles of one channel block into outputs.
    fn output_kernel<M: Module>(&self, e: &mut Emitter<M>, run: TileRun) -> Result<FuncId> {
        let (isa, y) = (e.isa(), &self.conv.y);
        let out = OutputTile {
            y: &self.y,
            x: &self.x,
            px: y.pixel_bytes() as i32,
            row: y.row_bytes() as i32,
            residual_row: self.conv.residual.map(|r| r.row_bytes() as i32),
            bias: self.conv.bias,
            activation: self.conv.activation,
        };
        let shape = (out.px, out.row, out.residual_row, out.bias, out.activation);
        let key = (self.schemes, self.conv.kernel, self.conv.strides);
        e.cached(format!("winograd out {key:?} {run:?} {shape:?}"), |e| {
            let mut w = Asm::new(isa)?;
            out.assemble(&mut w, run)?;
            let code = w.finish()?;
            e.assembled("winograd_out", 5, &code)
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
        let (isa, channels, cb) = (e.isa(), self.in_channels(), self.conv.x.cb);
        let vb = isa.vector_bytes();
        let offsets: Vec<i32> = (0..rows).map(|i| (i * vb) as i32).collect();
        let whole = channels / cb;
        let (blocks, k, tail_k) = if whole == 0 { (1, channels, 0) } else { (whole, cb, channels % cb) };
        let spec = Brgemm {
            isa,
            a_rows: offsets.clone(),
            c_rows: offsets,
            nv: plan.nv,
            first_lane: 0,
            last_lanes: isa.lanes(),
            b_masked: false,
            c_step: (tiles * vb) as i32,
            loops: vec![(blocks, (tiles * vb) as i32)],
            taps: vec![0],
            k,
            head: None,
            tail_k,
            a_step: 4,
            b_step: (plan.nv * vb) as i32,
            accumulate: false,
            alpha: 1.0,
            bias: Bias::None,
            residual: None,
            activation: None,
            prefetch: self.cut.map_or(AHEAD, |c| c.ahead) as i32,
            tiles: None,
        };
        spec.define(e)
    }

    /// The step function for a number of threads; operands `x`, `w` (packed), `bias` (if any), `residual` (if any), `y`,
    /// `scratch`, and `flag`: 4 bytes that become 1 where a sum is not finite, and are left alone else.
    ///
    /// # Errors
    /// [`crate::error::Error::Invalid`] for layouts that do not fit.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        let (isa, c, threads) = (e.isa(), &self.conv, threads.max(1));
        c.check(isa)?;
        let plan = self.plan(isa, threads);
        let rows = pieces(&plan.rows, self.y.outputs, c.y.spatial[1]);
        let cols = pieces(&plan.cols.runs(), self.x.outputs, c.y.spatial[2]);
        let mut bodies = Vec::new();
        for r in &rows {
            for q in &cols {
                bodies.push(self.body(e, &plan, *r, *q)?);
            }
        }
        let row_pieces = plan.rows.last().map_or(1, |r| r.to);
        let units = c.y.n * c.group * row_pieces * plan.cols.pieces;
        let tasks = units.min(threads);
        let (v_step, m_step) = self.point_steps(isa, &plan);
        let task_scratch = (self.points() * (v_step + m_step)).next_multiple_of(4096) + 192;
        let mut operands =
            vec![Operand::read("x", c.x.bytes()), Operand::read("w", 4 * self.packed_elems(isa))];
        if c.bias {
            operands.push(Operand::read("bias", 4 * self.bias_elems(isa)));
        }
        operands.extend(c.residual.map(|r| Operand::read("residual", r.bytes())));
        operands.push(Operand::write("y", c.y.bytes()));
        operands.push(Operand::scratch(tasks * task_scratch));
        operands.push(Operand { name: "flag", bytes: 4, access: Access::Flag });
        let last = operands.len() - 3;
        let halo = Halo::define(e, &c.y)?;
        let dims = [c.y.n, c.group, row_pieces, plan.cols.pieces];
        let [in_blocks, out_blocks] = self.blocks();
        let i64_of = |n: usize| n as i64;
        let group_weights = i64_of(4 * self.packed_elems(isa) / c.group);
        let group_bias = i64_of(out_blocks * isa.vector_bytes());
        let func = e.step("winograd", operands.len(), |m, b, p, task| {
            let scratch = at(b, p[last + 1], task, task_scratch as i64);
            let (low, high) = share(b, task, units, tasks);
            let (first_point, _) = share(b, task, self.points(), tasks);
            for_range(b, low, high, |b, u| {
                let i = coordinates(b, u, &dims);
                let place = |b: &mut FunctionBuilder, from: Value, l: &BlockedLayout, blocks: usize| {
                    let image = at(b, from, i[0], i64_of(l.batch_bytes()));
                    at(b, image, i[1], i64_of(blocks * l.block_bytes()))
                };
                let image = place(b, p[last], &c.y, out_blocks);
                if let Some(halo) = &halo {
                    let position = b.ins().iadd(i[2], i[3]);
                    super::clif::if_equal(b, position, 0, |b| {
                        for_n(b, out_blocks as i64, |b, block| {
                            let block = at(b, image, block, c.y.block_bytes() as i64);
                            halo.call(m, b, block);
                        });
                    });
                }
                let x = place(b, p[0], &c.x, in_blocks);
                let x = off(b, x, self.window_origin());
                let y = off(b, image, c.y.origin_bytes() as i64);
                let residual = match &c.residual {
                    Some(r) => {
                        let q = place(b, p[last - 1], r, out_blocks);
                        off(b, q, r.origin_bytes() as i64)
                    }
                    None => y,
                };
                let w = at(b, p[1], i[1], group_weights);
                let bias = if c.bias { at(b, p[2], i[1], group_bias) } else { y };
                let args = Args { x, w, bias, residual, y, scratch, flag: p[last + 2], first_point };
                for body in &bodies {
                    one_of(b, i[2], body.row.from, body.row.to, |b, row| {
                        one_of(b, i[3], body.col.from, body.col.to, |b, col| {
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
        let [_, kh, kw] = c.kernel;
        let group = if c.group == 1 { String::new() } else { format!(" group {}", c.group) };
        let name = format!(
            "conv {kh}x{kw}/{} {}->{}{group} {h}x{w} {isa} winograd {}x{} {}x{}",
            c.strides[2], c.x.c, c.y.c, self.y.outputs, self.x.outputs, plan.tiles, plan.nv
        );
        let flops = 2 * (c.y.n * c.y.c * self.in_channels() * kh * kw * h * w) as u64;
        Ok(Kernel { func, name, operands, tasks, flops })
    }

    fn window_origin(&self) -> i64 {
        let (x, pads) = (&self.conv.x, &self.conv.pads_begin);
        x.origin_bytes() as i64 - (pads[1] * x.row_bytes() + pads[2] * x.pixel_bytes()) as i64
    }

    fn body<M: Module>(&self, e: &mut Emitter<M>, plan: &Plan, row: Piece, col: Piece) -> Result<Body> {
        let isa = e.isa();
        let (v_step, m_step) = self.point_steps(isa, plan);
        let run = |rows: usize, step: usize| TileRun {
            tiles: col.tiles,
            rows,
            last_cols: col.last,
            point_step: step as i32,
        };
        let tiles = row.tiles * col.tiles;
        let split = Split::at_most(tiles, max_rows(isa, plan.nv));
        let mut products = Vec::new();
        for r in split.runs() {
            products.push((r, self.product_kernel(e, plan, tiles, r.size)?));
        }
        let heights = [self.y.outputs, row.last];
        let mut both = |step: usize, input: bool| -> Result<[FuncId; 2]> {
            let mut one = |rows: usize| match input {
                true => self.input_kernel(e, run(rows, step)),
                false => self.output_kernel(e, run(rows, step)),
            };
            Ok([one(heights[0])?, one(heights[1])?])
        };
        Ok(Body { row, col, tiles, input: both(v_step, true)?, output: both(m_step, false)?, products })
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
        let (c, vb, points) = (&self.conv, isa.vector_bytes() as i64, self.points());
        let (v_step, m_step) = self.point_steps(isa, plan);
        let products = off(b, p.scratch, (points * v_step).next_multiple_of(64) as i64);
        let run_bytes = body.col.tiles as i64 * vb;
        let block_bytes = body.tiles as i64 * vb;
        // bytes between tiles down and across, in the input and in the output
        let down = |l: &BlockedLayout, step: usize| (self.y.outputs * step * l.row_bytes()) as i64;
        let across = |l: &BlockedLayout, step: usize| (self.x.outputs * step * l.pixel_bytes()) as i64;
        let place = |b: &mut FunctionBuilder, base: Value, l: &BlockedLayout, steps: [usize; 2]| {
            let q = at(b, base, tile_row, down(l, steps[0]));
            at(b, q, tile_col, across(l, steps[1]))
        };
        let strides = [self.y.stride, self.x.stride];
        let (x, y) = (place(b, p.x, &c.x, strides), place(b, p.y, &c.y, [1; 2]));
        let residual = c.residual.map_or(y, |r| place(b, p.residual, &r, [1; 2]));
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
        let [in_blocks, out_blocks] = self.blocks();
        for_n(b, in_blocks as i64, |b, block| {
            let from = at(b, x, block, c.x.block_bytes() as i64);
            let to = at(b, p.scratch, block, block_bytes);
            rows(
                b,
                body.input,
                Box::new(|b, i, id| {
                    let (from, to) = (at(b, from, i, down(&c.x, self.y.stride)), at(b, to, i, run_bytes));
                    let f = m.declare_func_in_func(id, b.func);
                    b.ins().call(f, &[from, to]);
                }),
            );
        });
        let groups = out_blocks / plan.nv;
        let weights = (self.in_channels() * plan.nv) as i64 * vb;
        for_n(b, (groups / plan.chunk) as i64, |b, chunk| {
            let w = at(b, p.w, chunk, (points * plan.chunk) as i64 * weights);
            for_n(b, points as i64, |b, i| {
                let point = wrapped(b, i, p.first_point, points as i64);
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
                        let (from, to) = (at(b, from, i, run_bytes), at(b, to, i, down(&c.y, 1)));
                        let r = c.residual.map_or(to, |l| at(b, r, i, down(&l, 1)));
                        let f = m.declare_func_in_func(id, b.func);
                        b.ins().call(f, &[from, to, bias, r, p.flag]);
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
    /// Kernels for whole rows of tiles, and for the last.
    input: [FuncId; 2],
    output: [FuncId; 2],
    products: Vec<(Run, FuncId)>,
}

struct Args {
    x: Value,
    w: Value,
    bias: Value,
    residual: Value,
    y: Value,
    scratch: Value,
    flag: Value,
    /// Where this task begins with the products: tasks that stream the same weights fetch different parts of them.
    first_point: Value,
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

/// `(i + first) % n` for `i` and `first` below `n`.
fn wrapped(b: &mut FunctionBuilder, i: Value, first: Value, n: i64) -> Value {
    let next = b.ins().iadd(i, first);
    let round = off(b, next, -n);
    let inside = b.ins().icmp_imm_u(IntCC::UnsignedLessThan, next, n);
    b.ins().select(inside, next, round)
}

fn tile_of(b: &mut FunctionBuilder, i: Value, piece: &Piece) -> Value {
    let v = b.ins().imul_imm_s(i, piece.tiles as i64);
    off(b, v, piece.start as i64 - (piece.from * piece.tiles) as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_cover_all_rows_and_threads_get_equal_parts() {
        for total in 1..40usize {
            for most in 1..9 {
                for threads in 1..4usize {
                    let runs = bands(total, most, threads, 1);
                    let mut next = (0, 0);
                    let mut sizes = vec![];
                    for r in &runs {
                        assert_eq!((r.from, r.start), next);
                        next = (r.to, r.start + (r.to - r.from) * r.size);
                        sizes.extend(std::iter::repeat_n(r.size, r.to - r.from));
                    }
                    assert_eq!(next.1, total);
                    assert!(sizes.iter().all(|s| *s <= most));
                    let n = sizes.len();
                    let share =
                        |t: usize| sizes[t * n / threads..(t + 1) * n / threads].iter().sum::<usize>();
                    let largest = (0..threads).map(share).max().unwrap_or(0);
                    // pieces of one size where there are many of them, else as equal as whole rows allow
                    let room = if n >= 8 * threads { most } else { 0 };
                    assert!(largest <= total.div_ceil(threads) + room, "{total} {most} {threads}: {sizes:?}");
                }
            }
        }
    }
}
