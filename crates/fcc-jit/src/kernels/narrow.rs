//! Convolutions of few output channels: lanes are neighbouring pixels of a row, where those of [`super::conv`] are
//! channels and most of them would be empty.
//!
//! Input and output are plain `[N, C, H, W]`, the input with its halo. One kernel call makes a tile of a few rows and
//! vectors of pixels for all output channels: each vector of pixels is read once for each tap and multiplied with one
//! weight for each output channel. With a stride along the row the input is first split into phases
//! ([`NarrowConv::split`]), so that neighbouring outputs still read neighbouring inputs.

use super::activation::Activation;
use super::clif::{at, clip, coordinates, for_range, off, share};
use super::copy::{Copy, CopyDim, CopyPart};
use super::gemm::balanced;
use super::layout::BlockedLayout;
use super::split::{Run, Split};
use crate::asm::reg::*;
use crate::asm::{Asm, Isa, Lanes, Src};
use crate::error::{Error, Result};
use crate::floats::Floats;
use crate::module::{Emitter, Kernel, Operand};
use cranelift_codegen::ir::{InstBuilder, types::I64};
use cranelift_module::{FuncId, Module};

/// A convolution in one or two dims, of one group.
#[derive(Clone, Debug, PartialEq)]
pub struct NarrowConv {
    /// Input: plain, with a halo that covers the padding.
    pub x: BlockedLayout,
    /// Output: plain, without halo.
    pub y: BlockedLayout,
    /// Kernel H, W.
    pub kernel: [usize; 2],
    /// Strides.
    pub strides: [usize; 2],
    /// Dilations.
    pub dilations: [usize; 2],
    /// Padding before each dim.
    pub pads_begin: [usize; 2],
    /// Whether there is a bias operand `[M]`.
    pub bias: bool,
    /// Whether there is a residual, laid out as the output, that is added before the activation.
    pub residual: bool,
    /// Applied last.
    pub activation: Option<Activation>,
}

/// Taps of one kernel row at evenly spaced places: the first byte offset, the step, their number.
#[derive(Clone, Copy, Debug, PartialEq)]
struct TapRun {
    first: i32,
    step: i32,
    count: usize,
}

/// Taps above which a run is a loop, and how many one turn of it has.
const MAX_UNROLLED: usize = 12;
const UNROLL: usize = 8;

/// A tile: rows and vectors of pixels, and the lanes of its last vectors.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Tile {
    rows: usize,
    vectors: usize,
    last_lanes: usize,
}

impl NarrowConv {
    /// Whether lanes may be pixels in a convolution of `c` to `m` channels: their results fit in half a vector.
    pub fn possible(isa: Isa, c: usize, m: usize, out: [usize; 2]) -> bool {
        2 * m <= isa.lanes() && m * c > 0 && !out.contains(&0)
    }

    /// Whether lanes of pixels beat lanes of channels for a convolution of these sizes.
    pub fn pays(isa: Isa, c: usize, m: usize, out: [usize; 2], kernel: [usize; 2]) -> bool {
        let lanes = isa.lanes();
        if !NarrowConv::possible(isa, c, m, out) {
            return false;
        }
        let [h, w] = out;
        let (taps, vectors) = (c * kernel[0] * kernel[1], w.div_ceil(lanes));
        // vector multiply-adds; a load for each tap of a vector of pixels; the copy of the input
        let narrow = vectors * h * (taps * (4 * m + 3) / 4 + 4 * c);
        10 * narrow < 9 * w * h * taps
    }

    /// The largest tile: `(vectors of pixels, whether weights stay in registers)`.
    fn capacity(&self, isa: Isa) -> (usize, bool) {
        let m = self.y.c;
        // AVX2 keeps a mask in a vector register
        let registers = isa.registers() - usize::from(isa == Isa::Avx2);
        let held = registers.saturating_sub(m + 1) / m;
        let (vectors, holds) = if held > 0 { (held, true) } else { ((registers - 2) / m, false) };
        // the epilogue needs three registers
        (vectors.min((registers - 3) / m).clamp(1, 12), holds)
    }

    fn splits(&self, isa: Isa) -> (Split, Split) {
        let [_, h, w] = self.y.spatial;
        let (most, _) = self.capacity(isa);
        let cols = Split::at_most(w.div_ceil(isa.lanes()), most);
        (Split::at_most(h, (most / cols.size(0)).max(1)), cols)
    }

    /// Pixels of one phase of a row.
    fn phase_elems(&self) -> usize {
        self.x.pitch()[2].div_ceil(self.strides[1])
    }

    fn row_elems(&self) -> usize {
        match self.strides[1] {
            1 => self.x.pitch()[2],
            s => s * self.phase_elems(),
        }
    }

    /// Elements of the input as the kernel reads it.
    pub fn input_elems(&self) -> usize {
        self.x.n * self.x.c * self.x.pitch()[1] * self.row_elems()
    }

    /// The copy that puts the input into the order in which the kernel reads it, where that is not its own.
    pub fn split(&self) -> Option<Copy> {
        let (s, pitch) = (self.strides[1], self.x.pitch());
        if s == 1 {
            return None;
        }
        let rows = self.x.n * self.x.c * pitch[1];
        let part = |phase: usize| CopyPart {
            source: 0,
            src: 4 * phase,
            dst: 4 * phase * self.phase_elems(),
            dims: vec![
                CopyDim { count: rows, src: 4 * pitch[2] as i64, dst: 4 * self.row_elems() as i64 },
                CopyDim { count: (pitch[2] - phase).div_ceil(s), src: 4 * s as i64, dst: 4 },
            ],
        };
        let parts = (0..s.min(pitch[2])).map(part).collect();
        Some(Copy { width: 4, parts, src_bytes: vec![self.x.bytes()], dst_bytes: 4 * self.input_elems() })
    }

    /// The taps of a kernel row by phase, and the kernel columns in that order.
    fn taps(&self) -> (Vec<TapRun>, Vec<usize>) {
        let (s, d) = (self.strides[1], self.dilations[1]);
        let slack = self.x.halo[2].0 - self.pads_begin[1];
        let place = |k: usize| {
            let at = k * d + slack;
            match s {
                1 => (0, at),
                _ => (at % s, at % s * self.phase_elems() + at / s),
            }
        };
        let mut columns: Vec<usize> = (0..self.kernel[1]).collect();
        columns.sort_by_key(|k| (place(*k).0, *k));
        let mut runs: Vec<TapRun> = vec![];
        for k in &columns {
            let at = 4 * place(*k).1 as i32;
            match runs.last_mut() {
                Some(r) if r.count == 1 && at > r.first => *r = TapRun { step: at - r.first, count: 2, ..*r },
                Some(r) if r.count > 1 && at == r.first + r.step * r.count as i32 => r.count += 1,
                _ => runs.push(TapRun { first: at, step: 4, count: 1 }),
            }
        }
        (runs, columns)
    }

    /// Elements of the packed weights.
    pub fn packed_elems(&self) -> usize {
        self.y.c * self.x.c * self.kernel[0] * self.kernel[1]
    }

    /// Packs weights `[M, C, kH, kW]` as `[C][kH][taps by phase][M]`.
    ///
    /// # Errors
    /// When a slice has another length.
    pub fn pack_weights<'a>(&self, w: impl Into<Floats<'a>>, out: &mut [f32]) -> Result<()> {
        let w = w.into();
        if w.len() != self.packed_elems() || out.len() != self.packed_elems() {
            return Err(Error::invalid("conv", format!("packing {} weights into {}", w.len(), out.len())));
        }
        let (m, [kh, kw], (_, columns)) = (self.y.c, self.kernel, self.taps());
        for (i, line) in out.chunks_exact_mut(m).enumerate() {
            let (row, column) = (i / kw, columns[i % kw]);
            for (o, v) in line.iter_mut().enumerate() {
                *v = w.at((o * self.x.c * kh + row) * kw + column);
            }
        }
        Ok(())
    }

    fn check(&self, isa: Isa) -> Result<()> {
        let bad = |why: String| Err(Error::invalid("narrow conv", why));
        self.x.check("narrow conv")?;
        self.y.check("narrow conv")?;
        let (x, y) = (&self.x, &self.y);
        let flat = x.pitch()[0] == 1 && y.pitch()[0] == 1;
        if (x.cb, y.cb) != (1, 1) || x.n != y.n || !y.is_tight() || !flat {
            return bad(format!("{x:?} to {y:?}"));
        }
        if 2 * y.c > isa.lanes() {
            return Err(Error::unsupported("narrow conv", format!("{} output channels at {isa}", y.c)));
        }
        if y.n == 0 || x.c == 0 || y.c == 0 || y.spatial.contains(&0) || self.kernel.contains(&0) {
            return Err(Error::unsupported("narrow conv", "an empty convolution"));
        }
        for d in 0..2 {
            let reach =
                (y.spatial[d + 1] - 1) * self.strides[d] + (self.kernel[d] - 1) * self.dilations[d] + 1;
            let (begin, end) = (x.halo[d + 1].0, x.spatial[d + 1] + x.halo[d + 1].1);
            if self.pads_begin[d] > begin || reach > end + self.pads_begin[d] {
                return bad(format!(
                    "padding {:?} needs a halo, the input has {:?}",
                    self.pads_begin, x.halo
                ));
            }
        }
        Ok(())
    }

    fn kernel<M: Module>(&self, e: &mut Emitter<M>, tile: Tile) -> Result<FuncId> {
        let isa = e.isa();
        e.cached(format!("narrow {self:?} {tile:?}"), |e| {
            let mut emit = Emit::new(self, isa, tile)?;
            emit.all()?;
            let code = emit.w.finish()?;
            e.assembled("narrow", 5, &code)
        })
    }

    /// The step function; operands `x` (as [`NarrowConv::split`] leaves it), `w` (packed), `bias` (if any), `residual`
    /// (if any), `y`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for layouts that do not fit, [`Error::Unsupported`] for many output channels.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        let isa = e.isa();
        self.check(isa)?;
        let (rows, cols) = self.splits(isa);
        let lanes = isa.lanes();
        let [_, h, w] = self.y.spatial;
        let mut kernels: Vec<(Run, Vec<(Run, FuncId)>)> = vec![];
        for r in rows.runs() {
            let mut across = vec![];
            for c in cols.runs() {
                // the last piece may end inside a vector
                let ends = c.to == cols.pieces && w % lanes != 0;
                let whole = Run { to: c.to - usize::from(ends), ..c };
                let tile = |last_lanes| Tile { rows: r.size, vectors: c.size, last_lanes };
                if whole.from < whole.to {
                    across.push((whole, self.kernel(e, tile(lanes))?));
                }
                if ends {
                    let start = c.start + (c.to - 1 - c.from) * c.size;
                    let last = Run { from: c.to - 1, start, ..c };
                    across.push((last, self.kernel(e, tile(w % lanes))?));
                }
            }
            kernels.push((r, across));
        }
        let mut operands =
            vec![Operand::read("x", 4 * self.input_elems()), Operand::read("w", 4 * self.packed_elems())];
        if self.bias {
            operands.push(Operand::read("bias", 4 * self.y.c));
        }
        if self.residual {
            operands.push(Operand::read("residual", self.y.bytes()));
        }
        operands.push(Operand::write("y", self.y.bytes()));
        let last = operands.len() - 1;
        // few rows are cut across as well
        let bands =
            if balanced(self.y.n * rows.pieces, threads.max(1)) { 1 } else { threads.min(cols.pieces) };
        let dims = [self.y.n, rows.pieces, bands];
        let units = self.y.n * rows.pieces * bands;
        let tasks = units.min(threads.max(1));
        let i = |n: usize| n as i64;
        let x_row = 4 * self.row_elems() * self.strides[0];
        let x_image = 4 * self.input_elems() / self.y.n;
        let top = (self.x.halo[1].0 - self.pads_begin[0]) * 4 * self.row_elems();
        let func = e.step("narrow", operands.len(), |m, b, p, task| {
            let (low, high) = share(b, task, units, tasks);
            for_range(b, low, high, |b, u| {
                let c = coordinates(b, u, &dims);
                let x = at(b, p[0], c[0], i(x_image));
                let x = off(b, x, i(top));
                let y = at(b, p[last], c[0], i(self.y.batch_bytes()));
                let r = match self.residual {
                    true => at(b, p[last - 1], c[0], i(self.y.batch_bytes())),
                    false => y,
                };
                let bias = if self.bias { p[2] } else { y };
                for (run, across) in &kernels {
                    // this unit's rows, if they are in the run
                    let (from, to) = (b.ins().iconst(I64, i(run.from)), b.ins().iconst(I64, i(run.to)));
                    let next = b.ins().iadd_imm_s(c[1], 1);
                    let (lo, hi) = (b.ins().umax(c[1], from), b.ins().umin(next, to));
                    for_range(b, lo, hi, |b, t| {
                        let row = b.ins().imul_imm_s(t, i(run.size));
                        let row = off(b, row, i(run.start) - i(run.from * run.size));
                        let x = at(b, x, row, i(x_row));
                        let (y, r) = (at(b, y, row, i(4 * w)), at(b, r, row, i(4 * w)));
                        let band = share(b, c[2], cols.pieces, bands);
                        for (piece, id) in across {
                            let (lo, hi) = clip(b, band, piece.from, piece.to, across.len() == 1);
                            for_range(b, lo, hi, |b, t| {
                                let step = i(piece.size * isa.vector_bytes());
                                let first = i(piece.start * isa.vector_bytes()) - i(piece.from) * step;
                                let [x, y, r] = [x, y, r].map(|q| {
                                    let q = at(b, q, t, step);
                                    off(b, q, first)
                                });
                                let f = m.declare_func_in_func(*id, b.func);
                                b.ins().call(f, &[x, p[1], y, bias, r]);
                            });
                        }
                    });
                }
            });
            Ok(())
        })?;
        let [kh, kw] = self.kernel;
        let name = format!(
            "conv {kh}x{kw}/{} {}->{} {h}x{w} {isa} pixels {}x{}",
            self.strides[1],
            self.x.c,
            self.y.c,
            rows.size(0),
            cols.size(0)
        );
        let flops = 2 * (self.y.n * self.packed_elems() * h * w) as u64;
        Ok(Kernel { func, name, operands, tasks, flops })
    }
}

/// `fn(x, w, y, bias, residual)`: one tile.
struct Emit<'a> {
    w: Asm,
    c: &'a NarrowConv,
    tile: Tile,
    holds: bool,
    /// Byte offsets in x of each vector of pixels.
    places: Vec<(i32, Lanes)>,
}

impl<'a> Emit<'a> {
    fn new(c: &'a NarrowConv, isa: Isa, tile: Tile) -> Result<Emit<'a>> {
        let mut w = Asm::new(isa)?;
        let last = w.lanes(tile.last_lanes)?;
        let row = (4 * c.row_elems() * c.strides[0]) as i32;
        let vb = w.vb();
        let place = |i: usize| {
            let (r, v) = (i / tile.vectors, i % tile.vectors);
            let lanes = if v + 1 == tile.vectors { last } else { Lanes::All };
            (r as i32 * row + v as i32 * vb, lanes)
        };
        let places = (0..tile.rows * tile.vectors).map(place).collect();
        Ok(Emit { w, c, tile, holds: c.capacity(isa).1, places })
    }

    fn m(&self) -> usize {
        self.c.y.c
    }
    fn acc(&self, m: usize, place: usize) -> usize {
        m * self.places.len() + place
    }
    /// The first register behind the accumulators.
    fn free(&self) -> usize {
        self.m() * self.places.len()
    }

    fn all(&mut self) -> Result<()> {
        for m in 0..self.m() {
            for p in 0..self.places.len() {
                let acc = self.acc(m, p);
                match (self.c.bias, p) {
                    (false, _) => self.w.zero(acc)?,
                    (true, 0) => self.w.broadcast(acc, rcx + 4 * m as i32)?,
                    (true, _) => self.w.mov(acc, self.acc(m, 0))?,
                }
            }
        }
        let rows = self.c.kernel[0];
        let row_step = (4 * self.c.row_elems() * self.c.dilations[0]) as i64;
        let plane = (4 * self.c.row_elems() * self.c.x.pitch()[1]) as i64;
        let (runs, _) = self.c.taps();
        let channel = self.w.repeat(r11, self.c.x.c)?;
        let line = self.w.repeat(r10, rows)?;
        for run in &runs {
            self.run(*run)?;
        }
        self.w.add_imm(rdi, row_step)?;
        self.w.again(r10, line)?;
        self.w.add_imm(rdi, plane - row_step * rows as i64)?;
        self.w.again(r11, channel)?;
        self.epilogue()
    }

    fn run(&mut self, run: TapRun) -> Result<()> {
        let bytes = 4 * self.m();
        let taps = |e: &mut Self, base: Reg, first: i32, n: usize| -> Result<()> {
            for i in 0..n as i32 {
                e.tap(base + (first + i * run.step), i * bytes as i32)?;
            }
            e.w.add_imm(rsi, (n * bytes) as i64)
        };
        if run.count <= MAX_UNROLLED {
            return taps(self, rdi, run.first, run.count);
        }
        self.w.lea(r9, rdi + run.first)?;
        let top = self.w.repeat(rax, run.count / UNROLL)?;
        taps(self, r9, 0, UNROLL)?;
        self.w.add_imm(r9, UNROLL as i64 * i64::from(run.step))?;
        self.w.again(rax, top)?;
        taps(self, r9, 0, run.count % UNROLL)
    }

    /// One tap: every vector of pixels times one weight for each output channel.
    fn tap(&mut self, x: Mem, weights: i32) -> Result<()> {
        let (m, free) = (self.m(), self.free());
        let weight = |o: usize| -> Mem { rsi + (weights + 4 * o as i32) };
        let (value, first_weight) = (free, free + 1);
        if self.holds {
            for o in 0..m {
                self.w.broadcast(first_weight + o, weight(o))?;
            }
        }
        for p in 0..self.places.len() {
            let (offset, lanes) = self.places[p];
            if m == 1 && lanes == Lanes::All {
                self.w.fma(self.acc(0, p), first_weight, Src::Mem(x + offset))?;
                continue;
            }
            self.w.load_lanes(value, x + offset, lanes)?;
            for o in 0..m {
                if !self.holds {
                    self.w.broadcast(first_weight, weight(o))?;
                }
                let factor = if self.holds { first_weight + o } else { first_weight };
                self.w.fma(self.acc(o, p), value, factor)?;
            }
        }
        Ok(())
    }

    fn epilogue(&mut self) -> Result<()> {
        let (free, y) = (self.free(), &self.c.y);
        let temps = [free, free + 1, free + 2];
        let vb = self.w.vb();
        let place = |m: usize, p: usize| {
            let (r, v) = (p / self.tile.vectors, p % self.tile.vectors);
            (m * y.block_bytes() + r * y.row_bytes()) as i32 + v as i32 * vb
        };
        for m in 0..self.m() {
            for p in 0..self.places.len() {
                let (acc, lanes) = (self.acc(m, p), self.places[p].1);
                if self.c.residual {
                    self.w.load_lanes(temps[0], r8 + place(m, p), lanes)?;
                    self.w.add(acc, acc, temps[0])?;
                }
            }
        }
        if let Some(activation) = self.c.activation {
            let all: Vec<usize> = (0..free).collect();
            activation.emit(&mut self.w, &all, temps)?;
        }
        for m in 0..self.m() {
            for p in 0..self.places.len() {
                let (acc, lanes) = (self.acc(m, p), self.places[p].1);
                self.w.store_lanes(rdx + place(m, p), acc, lanes)?;
            }
        }
        Ok(())
    }
}
