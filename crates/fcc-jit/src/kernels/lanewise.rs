//! Row kernels that work lane by lane on blocked activations: depthwise and small-group convolution, pooling.
//!
//! One kernel call makes one row of output pixels of one channel block. Windows are clipped to what may be read, row by
//! row outside the kernel (one kernel for each distinct set of rows) and pixel by pixel inside it, so no halo is needed.

use super::activation::Activation;
use super::clif::{at, coordinates, for_range, off, share};
use super::halo::Halo;
use super::layout::BlockedLayout;
use crate::asm::reg::*;
use crate::asm::{Asm, Cmp, Isa, Src};
use crate::error::{Error, Result};
use crate::floats::Floats;
use crate::module::{Emitter, Kernel, Operand};
use cranelift_codegen::ir::{InstBuilder, types::I64};
use cranelift_module::{FuncId, Module};

/// Taps above which the rows of a window become a loop.
const MAX_UNROLLED: usize = 200;

/// Where the lanes of one factor come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Source {
    /// The same lanes of the pixel.
    Lanes,
    /// Lanes of the pixel in another order.
    Permuted(Vec<u32>),
    /// Lanes at these byte offsets from the pixel's first block.
    Gathered(Vec<u32>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Op {
    /// Products with weights; bias in `rcx`.
    Weighted { bias: bool, residual: bool, activation: Option<Activation> },
    /// Largest value; NaN wins.
    Max,
    /// Mean.
    Mean,
}

/// Output pixels of a row with the same columns of the window, and the same divisor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Segment {
    count: usize,
    columns: (usize, usize),
    divisor: usize,
}

/// `fn(x, w, y, bias, residual)`: x is where the window of the first pixel begins, were it not clipped.
#[derive(Clone, Debug, PartialEq)]
struct RowKernel {
    isa: Isa,
    op: Op,
    sources: Vec<Source>,
    /// Byte offsets in x and in the weights of each row of the window.
    rows: Vec<(i32, i32)>,
    segments: Vec<Segment>,
    /// Bytes in x between columns of the window, and between windows.
    column_step: i32,
    window_step: i32,
}

struct Emit<'a> {
    w: Asm,
    k: &'a RowKernel,
}

impl RowKernel {
    fn define<M: Module>(&self, e: &mut Emitter<M>) -> Result<FuncId> {
        e.cached(format!("{self:?}"), |e| {
            let mut emit = Emit { w: Asm::new(self.isa)?, k: self };
            emit.row()?;
            let code = emit.w.finish()?;
            e.assembled("lanewise", 5, &code)
        })
    }

    /// Pixels made at once.
    fn group(&self) -> usize {
        if self.isa == Isa::Avx512 { 8 } else { 6 }
    }
}

impl Emit<'_> {
    fn row(&mut self) -> Result<()> {
        let px = self.w.vb();
        for segment in &self.k.segments {
            let group = self.k.group().min(segment.count);
            let turns = segment.count / group;
            if turns > 1 {
                let top = self.w.repeat(rax, turns)?;
                self.pixels(segment, group)?;
                self.advance(group as i32, px)?;
                self.w.again(rax, top)?;
            } else {
                self.pixels(segment, group)?;
                self.advance(group as i32, px)?;
            }
            let rest = segment.count % group;
            if rest > 0 {
                self.pixels(segment, rest)?;
                self.advance(rest as i32, px)?;
            }
        }
        Ok(())
    }

    fn advance(&mut self, n: i32, px: i32) -> Result<()> {
        self.w.add_imm(rdi, i64::from(n * self.k.window_step))?;
        self.w.add_imm(rdx, i64::from(n * px))?;
        self.w.add_imm(r8, i64::from(n * px))
    }

    fn pixels(&mut self, segment: &Segment, n: usize) -> Result<()> {
        for q in 0..n {
            match self.k.op {
                Op::Weighted { bias: true, .. } if q == 0 => self.w.load(q, rcx.into())?,
                Op::Weighted { bias: true, .. } => self.w.mov(q, 0)?,
                Op::Max => self.w.splat(q, f32::NEG_INFINITY)?,
                _ => self.w.zero(q)?,
            }
        }
        let columns = segment.columns.1 - segment.columns.0;
        let taps = self.k.rows.len() * columns * self.k.sources.len();
        let strides: Vec<(i32, i32)> =
            self.k.rows.windows(2).map(|r| (r[1].0 - r[0].0, r[1].1 - r[0].1)).collect();
        let regular = strides.windows(2).all(|s| s[0] == s[1]);
        if taps > MAX_UNROLLED && regular && strides.len() > 1 {
            self.w.lea(r11, rdi + self.k.rows[0].0)?;
            self.w.lea(r9, rsi + self.k.rows[0].1)?;
            let top = self.w.repeat(r10, self.k.rows.len())?;
            self.window_row(segment, n, r11, r9, (0, 0))?;
            self.w.add_imm(r11, i64::from(strides[0].0))?;
            self.w.add_imm(r9, i64::from(strides[0].1))?;
            self.w.again(r10, top)?;
        } else {
            for &row in &self.k.rows {
                self.window_row(segment, n, rdi, rsi, row)?;
            }
        }
        self.finish_pixels(segment, n)
    }

    fn window_row(&mut self, segment: &Segment, n: usize, x: Reg, w: Reg, row: (i32, i32)) -> Result<()> {
        let vb = self.w.vb();
        let (weight, index, value, temp) = (n, n + 1, n + 2, n + 3);
        for column in segment.columns.0..segment.columns.1 {
            for (j, source) in self.k.sources.iter().enumerate() {
                if matches!(self.k.op, Op::Weighted { .. }) {
                    let tap = column * self.k.sources.len() + j;
                    self.w.load(weight, w + (row.1 + tap as i32 * vb))?;
                }
                let table = match source {
                    Source::Lanes => None,
                    Source::Permuted(words) | Source::Gathered(words) => {
                        Some(self.w.load_table(index, words)?)
                    }
                };
                for q in 0..n {
                    let offset = row.0 + column as i32 * self.k.column_step + q as i32 * self.k.window_step;
                    let at: Mem = x + offset;
                    let x = match (source, &table) {
                        (Source::Permuted(_), Some(table)) => {
                            self.w.permute(value, table, at)?;
                            Src::Reg(value)
                        }
                        (Source::Gathered(_), Some(table)) => {
                            self.w.gather(value, x, offset, table, temp)?;
                            Src::Reg(value)
                        }
                        _ => Src::Mem(at),
                    };
                    match self.k.op {
                        Op::Weighted { .. } => self.w.fma(q, weight, x)?,
                        Op::Mean => self.w.add(q, q, x)?,
                        Op::Max => {
                            // max gives its second operand when either is NaN: bring a NaN of the first back.
                            self.w.max(value, q, x)?;
                            self.w.select(q, Cmp::Unordered, q, q, q, value, temp)?;
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn finish_pixels(&mut self, segment: &Segment, n: usize) -> Result<()> {
        let temps = [n, n + 1, n + 2];
        let vb = self.w.vb();
        match self.k.op {
            Op::Weighted { residual, activation, .. } => {
                if residual {
                    for q in 0..n {
                        self.w.add(q, q, Src::Mem(r8 + q as i32 * vb))?;
                    }
                }
                if let Some(activation) = activation {
                    let all: Vec<usize> = (0..n).collect();
                    activation.emit(&mut self.w, &all, temps)?;
                }
            }
            Op::Mean => {
                self.w.splat(temps[0], segment.divisor as f32)?;
                for q in 0..n {
                    self.w.div(q, q, temps[0])?;
                }
            }
            Op::Max => {}
        }
        for q in 0..n {
            self.w.store(rdx + q as i32 * vb, q)?;
        }
        Ok(())
    }
}

/// One dim of a window sliding over a dim of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Slide {
    out: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    begin: usize,
    /// What may be read: from `-low` up to `high`.
    low: usize,
    high: usize,
    /// Positions below this count for the mean, from `-count_low`.
    count_low: usize,
    count_high: usize,
}

/// Neighbouring outputs whose windows are clipped alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Clip {
    from: usize,
    to: usize,
    taps: (usize, usize),
    counted: usize,
}

impl Slide {
    fn inside(&self, o: usize, k: usize, low: usize, high: usize) -> bool {
        let at = (o * self.stride + k * self.dilation) as i64 - self.begin as i64;
        -(low as i64) <= at && at < high as i64
    }

    fn clip(&self, o: usize) -> ((usize, usize), usize) {
        let valid = |low, high| (0..self.kernel).filter(move |&k| self.inside(o, k, low, high));
        let first = valid(self.low, self.high).next().unwrap_or(0);
        let count = valid(self.low, self.high).count();
        ((first, first + count), valid(self.count_low, self.count_high).count())
    }

    fn clips(&self) -> Vec<Clip> {
        let mut out: Vec<Clip> = Vec::new();
        for o in 0..self.out {
            let (taps, counted) = self.clip(o);
            match out.last_mut() {
                Some(last) if last.taps == taps && last.counted == counted => last.to = o + 1,
                _ => out.push(Clip { from: o, to: o + 1, taps, counted }),
            }
        }
        out
    }
}

/// Everything that the loop nest needs.
struct Rows {
    x: BlockedLayout,
    y: BlockedLayout,
    residual: Option<BlockedLayout>,
    slides: [Slide; 3],
    op: Op,
    /// For each run of output blocks: first, behind last, x blocks at the first, x blocks for each step, sources.
    runs: Vec<BlockRun>,
    weights: bool,
    bias: bool,
    name: String,
    flops: u64,
}

struct BlockRun {
    from: usize,
    to: usize,
    x_from: usize,
    x_step: usize,
    sources: Vec<Source>,
}

impl Rows {
    fn row_kernel(&self, isa: Isa, d: &Clip, h: &Clip, run: &BlockRun) -> RowKernel {
        let [sd, sh, sw] = &self.slides;
        let (x, js) = (&self.x, run.sources.len());
        let tap_bytes = js * isa.vector_bytes();
        let mut rows = Vec::new();
        for kd in d.taps.0..d.taps.1 {
            for kh in h.taps.0..h.taps.1 {
                let offset = kd * sd.dilation * x.plane_bytes() + kh * sh.dilation * x.row_bytes();
                rows.push((offset as i32, ((kd * sh.kernel + kh) * sw.kernel * tap_bytes) as i32));
            }
        }
        let segments = sw.clips().into_iter().map(|w| Segment {
            count: w.to - w.from,
            columns: w.taps,
            divisor: d.counted * h.counted * w.counted,
        });
        RowKernel {
            isa,
            op: self.op,
            sources: run.sources.clone(),
            rows,
            segments: segments.collect(),
            column_step: (sw.dilation * x.pixel_bytes()) as i32,
            window_step: (sw.stride * x.pixel_bytes()) as i32,
        }
    }

    fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        let isa = e.isa();
        let (x, y, r) = (&self.x, &self.y, self.residual.unwrap_or(self.y));
        let [sd, sh, sw] = self.slides;
        let (depths, heights) = (sd.clips(), sh.clips());
        let mut kernels = Vec::new();
        for run in &self.runs {
            for d in &depths {
                for h in &heights {
                    kernels.push(self.row_kernel(isa, d, h, run).define(e)?);
                }
            }
        }
        let mut operands = vec![Operand::read("x", x.bytes())];
        let taps = sd.kernel * sh.kernel * sw.kernel;
        let sources = self.runs.first().map_or(1, |r| r.sources.len());
        let block_weights = taps * sources * isa.vector_bytes();
        if self.weights {
            operands.push(Operand::read("w", y.blocks() * block_weights));
        }
        if self.bias {
            operands.push(Operand::read("bias", y.blocks() * isa.vector_bytes()));
        }
        operands.extend(self.residual.map(|r| Operand::read("residual", r.bytes())));
        operands.push(Operand::write("y", y.bytes()));
        let halo = Halo::define(e, y)?;
        // Units: image, channel block, and bands of rows when there are too few blocks.
        let blocks = y.n * y.blocks();
        let bands =
            if blocks.is_multiple_of(threads) || blocks >= 8 * threads { 1 } else { threads.min(sh.out) };
        let units = blocks * bands;
        let tasks = units.min(threads);
        let dims = [y.n, y.blocks(), bands];
        let window: i64 =
            [(sd.begin, x.plane_bytes()), (sh.begin, x.row_bytes()), (sw.begin, x.pixel_bytes())]
                .iter()
                .map(|&(n, bytes)| (n * bytes) as i64)
                .sum();
        let i = |n: usize| n as i64;
        let (w_at, bias_at) = (1, 1 + usize::from(self.weights));
        let last = operands.len() - 1;
        let func = e.step("lanewise", operands.len(), |m, b, p, task| {
            let (low, high) = share(b, task, units, tasks);
            for_range(b, low, high, |b, u| {
                let c = coordinates(b, u, &dims);
                let (lo_row, hi_row) = share(b, c[2], sh.out, bands);
                if let Some(halo) = &halo {
                    super::clif::if_equal(b, c[2], 0, |b| {
                        let image = at(b, p[last], c[0], i(y.batch_bytes()));
                        let block = at(b, image, c[1], i(y.block_bytes()));
                        halo.call(m, b, block);
                    });
                }
                let x0 = at(b, p[0], c[0], i(x.batch_bytes()));
                let x0 = off(b, x0, i(x.origin_bytes()) - window);
                let y0 = at(b, p[last], c[0], i(y.batch_bytes()));
                let y0 = at(b, y0, c[1], i(y.block_bytes()));
                let y0 = off(b, y0, i(y.origin_bytes()));
                let r0 = match self.residual {
                    Some(_) => {
                        let q = at(b, p[last - 1], c[0], i(r.batch_bytes()));
                        let q = at(b, q, c[1], i(r.block_bytes()));
                        off(b, q, i(r.origin_bytes()))
                    }
                    None => y0,
                };
                let w0 = if self.weights { at(b, p[w_at], c[1], i(block_weights)) } else { y0 };
                let b0 = if self.bias { at(b, p[bias_at], c[1], i(isa.vector_bytes())) } else { y0 };
                let mut ids = kernels.iter();
                for run in &self.runs {
                    // A range of one block or none: this unit's block, if it is in the run.
                    let from = b.ins().iconst(I64, i(run.from));
                    let to = b.ins().iconst(I64, i(run.to));
                    let next = b.ins().iadd_imm_s(c[1], 1);
                    let lo = b.ins().umax(c[1], from);
                    let hi = b.ins().umin(next, to);
                    let ids: Vec<FuncId> = ids.by_ref().take(depths.len() * heights.len()).copied().collect();
                    for_range(b, lo, hi, |b, block| {
                        let x1 = at(b, x0, block, i(run.x_step * x.block_bytes()));
                        let x1 = off(b, x1, (i(run.x_from) - i(run.from * run.x_step)) * i(x.block_bytes()));
                        let mut ids = ids.iter();
                        for d in &depths {
                            let lo_d = b.ins().iconst(I64, i(d.from));
                            let hi_d = b.ins().iconst(I64, i(d.to));
                            let ids: Vec<FuncId> = ids.by_ref().take(heights.len()).copied().collect();
                            for_range(b, lo_d, hi_d, |b, od| {
                                for (h, &id) in heights.iter().zip(&ids) {
                                    let from = b.ins().iconst(I64, i(h.from));
                                    let to = b.ins().iconst(I64, i(h.to));
                                    let lo = b.ins().umax(lo_row, from);
                                    let hi = b.ins().umin(hi_row, to);
                                    for_range(b, lo, hi, |b, oh| {
                                        let xr = at(b, x1, od, i(sd.stride * x.plane_bytes()));
                                        let xr = at(b, xr, oh, i(sh.stride * x.row_bytes()));
                                        let yr = at(b, y0, od, i(y.plane_bytes()));
                                        let yr = at(b, yr, oh, i(y.row_bytes()));
                                        let rr = at(b, r0, od, i(r.plane_bytes()));
                                        let rr = at(b, rr, oh, i(r.row_bytes()));
                                        let f = m.declare_func_in_func(id, b.func);
                                        b.ins().call(f, &[xr, w0, yr, b0, rr]);
                                    });
                                }
                            });
                        }
                    });
                }
            });
            Ok(())
        })?;
        Ok(Kernel { func, name: format!("{} {isa}", self.name), operands, tasks, flops: self.flops })
    }
}

/// A convolution whose groups are not whole channel blocks: depthwise, channel multipliers, small groups. Any group
/// count is right; depthwise is fast, groups inside one channel block are fair, others gather.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupConv {
    /// Input, blocked by the lanes. Its halo is read where the padding reaches into it, else windows are clipped.
    pub x: BlockedLayout,
    /// Output, blocked by the lanes; its halo is zeroed.
    pub y: BlockedLayout,
    /// Kernel D, H, W.
    pub kernel: [usize; 3],
    /// Strides.
    pub strides: [usize; 3],
    /// Dilations.
    pub dilations: [usize; 3],
    /// Padding before each dim.
    pub pads_begin: [usize; 3],
    /// Groups.
    pub group: usize,
    /// Whether there is a bias operand, padded to whole blocks.
    pub bias: bool,
    /// A residual added before the activation.
    pub residual: Option<BlockedLayout>,
    /// Applied last.
    pub activation: Option<Activation>,
}

impl GroupConv {
    fn per_group(&self) -> (usize, usize) {
        (self.x.c / self.group.max(1), self.y.c / self.group.max(1))
    }

    fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    fn check(&self, isa: Isa) -> Result<()> {
        let bad = |why: String| Err(Error::invalid("group conv", why));
        self.x.check("group conv")?;
        self.y.check("group conv")?;
        let cb = isa.lanes();
        if self.kernel.contains(&0)
            || self.strides.contains(&0)
            || self.dilations.contains(&0)
            || self.group == 0
        {
            return bad(format!(
                "kernel {:?}, strides {:?}, dilations {:?}, group {}",
                self.kernel, self.strides, self.dilations, self.group
            ));
        }
        if !self.x.c.is_multiple_of(self.group)
            || !self.y.c.is_multiple_of(self.group)
            || self.x.n != self.y.n
            || self.x.cb != cb
            || self.y.cb != cb
        {
            return bad(format!("{:?} to {:?} in {} groups at level {isa}", self.x, self.y, self.group));
        }
        if self.y.n == 0 || self.x.c == 0 || self.y.c == 0 || self.y.spatial.contains(&0) {
            return Err(Error::unsupported("group conv", "an empty convolution"));
        }
        if let Some(r) = &self.residual {
            r.check("group conv")?;
            if (r.n, r.c, r.spatial, r.cb) != (self.y.n, self.y.c, self.y.spatial, self.y.cb) {
                return bad(format!("residual {r:?} is not shaped like the output {:?}", self.y));
            }
        }
        Ok(())
    }

    /// Elements of the packed weights.
    pub fn packed_elems(&self, isa: Isa) -> usize {
        self.y.blocks() * isa.lanes() * self.taps() * self.per_group().0
    }

    /// Elements of the bias operand: whole blocks (what pads them does not matter).
    pub fn bias_elems(&self, isa: Isa) -> usize {
        if self.bias { self.y.blocks() * isa.lanes() } else { 0 }
    }

    /// Packs weights `[M, C/group, kD, kH, kW]` into `[M/cb][kD][kH][kW][C/group][cb]`.
    ///
    /// # Errors
    /// When a slice has another length.
    pub fn pack_weights<'a>(&self, isa: Isa, w: impl Into<Floats<'a>>, out: &mut [f32]) -> Result<()> {
        let w = w.into();
        let (icg, taps, cb) = (self.per_group().0, self.taps(), isa.lanes());
        if w.len() != self.y.c * icg * taps || out.len() != self.packed_elems(isa) {
            return Err(Error::invalid(
                "group conv",
                format!("packing {} weights into {}", w.len(), out.len()),
            ));
        }
        out.fill(0.0);
        for (m, filter) in w.chunks(icg * taps).enumerate() {
            for (j, line) in filter.chunks(taps).enumerate() {
                for (t, v) in line.iter().enumerate() {
                    out[((m / cb * taps + t) * icg + j) * cb + m % cb] = v;
                }
            }
        }
        Ok(())
    }

    /// Where the lanes of output block `block` find factor `j`: first block of x, and the source relative to it.
    fn sources(&self, cb: usize, block: usize) -> (usize, Vec<Source>) {
        let (icg, ocg) = self.per_group();
        let channel = |lane: usize, j: usize| (block * cb + lane).min(self.y.c - 1) / ocg * icg + j;
        let first = channel(0, 0) / cb;
        let source = |j: usize| {
            let at: Vec<(usize, usize)> =
                (0..cb).map(|l| (channel(l, j) / cb - first, channel(l, j) % cb)).collect();
            if at.iter().all(|a| a.0 == 0) {
                // Lanes of padding channels may hold anything.
                let real = (self.y.c - block * cb).min(cb);
                if at.iter().take(real).enumerate().all(|(l, a)| a.1 == l) {
                    return Source::Lanes;
                }
                return Source::Permuted(at.iter().map(|a| a.1 as u32).collect());
            }
            Source::Gathered(at.iter().map(|a| (a.0 * self.x.block_bytes() + a.1 * 4) as u32).collect())
        };
        (first, (0..icg).map(source).collect())
    }

    fn runs(&self, cb: usize) -> Result<Vec<BlockRun>> {
        let mut runs: Vec<BlockRun> = Vec::new();
        for block in 0..self.y.blocks() {
            let (first, sources) = self.sources(cb, block);
            if let Some(last) = runs.last_mut()
                && last.sources == sources
            {
                let n = last.to - last.from;
                if n == 1 {
                    last.x_step = first - last.x_from;
                }
                if last.x_from + n * last.x_step == first {
                    last.to += 1;
                    continue;
                }
            }
            runs.push(BlockRun { from: block, to: block + 1, x_from: first, x_step: 0, sources });
        }
        if runs.len() > 64 {
            return Err(Error::unsupported(
                "group conv",
                format!("{} different patterns of {} groups", runs.len(), self.group),
            ));
        }
        Ok(runs)
    }

    /// The step function; operands `x`, `w` (packed), `bias` (if any), `residual` (if any), `y`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for layouts that do not fit, [`Error::Unsupported`] for very irregular groups.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        let isa = e.isa();
        self.check(isa)?;
        let slides = [0, 1, 2].map(|d| Slide {
            out: self.y.spatial[d],
            kernel: self.kernel[d],
            stride: self.strides[d],
            dilation: self.dilations[d],
            begin: self.pads_begin[d],
            low: self.x.halo[d].0,
            high: self.x.spatial[d] + self.x.halo[d].1,
            count_low: 0,
            count_high: 0,
        });
        let [_, h, w] = self.y.spatial;
        let (icg, [_, kh, kw]) = (self.per_group().0, self.kernel);
        let macs = self.y.n * self.y.c * icg * self.taps() * self.y.spatial.iter().product::<usize>();
        let rows = Rows {
            x: self.x,
            y: self.y,
            residual: self.residual,
            slides,
            op: Op::Weighted {
                bias: self.bias,
                residual: self.residual.is_some(),
                activation: self.activation,
            },
            runs: self.runs(isa.lanes())?,
            weights: true,
            bias: self.bias,
            name: format!(
                "conv {kh}x{kw}/{} {}->{} group {} {h}x{w}",
                self.strides[2], self.x.c, self.y.c, self.group
            ),
            flops: 2 * macs as u64,
        };
        rows.build(e, threads.max(1))
    }
}

/// What a pool takes from its window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// The largest value; NaN when there is one.
    Max,
    /// The mean of the values inside the input.
    Average,
    /// The sum over the input divided by the number of positions inside the padded input.
    AverageCountingPads,
}

/// MaxPool or AveragePool on a blocked activation. Windows are clipped: the input needs no halo, and one that it has is
/// not read. With `ceil_mode` the last windows may reach beyond the padding: the output's size says how many there are.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Input, blocked by the lanes.
    pub x: BlockedLayout,
    /// Output, blocked by the lanes; its halo is zeroed.
    pub y: BlockedLayout,
    /// Kernel D, H, W.
    pub kernel: [usize; 3],
    /// Strides.
    pub strides: [usize; 3],
    /// Dilations.
    pub dilations: [usize; 3],
    /// Padding before each dim.
    pub pads_begin: [usize; 3],
    /// Padding after each dim.
    pub pads_end: [usize; 3],
    /// What to take.
    pub kind: PoolKind,
}

impl Pool {
    /// The step function; operands `x`, `y`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for layouts that do not fit, or windows wholly outside the input.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        let isa = e.isa();
        let (x, y) = (&self.x, &self.y);
        x.check("pool")?;
        y.check("pool")?;
        if (x.n, x.c, x.cb) != (y.n, y.c, y.cb) || x.cb != isa.lanes() {
            return Err(Error::invalid("pool", format!("{x:?} to {y:?} at level {isa}")));
        }
        if self.kernel.contains(&0) || self.strides.contains(&0) || self.dilations.contains(&0) {
            return Err(Error::invalid(
                "pool",
                format!(
                    "kernel {:?}, strides {:?}, dilations {:?}",
                    self.kernel, self.strides, self.dilations
                ),
            ));
        }
        if y.n == 0 || y.c == 0 || y.spatial.contains(&0) {
            return Err(Error::unsupported("pool", "an empty pool"));
        }
        let padded = self.kind == PoolKind::AverageCountingPads;
        let slides = [0, 1, 2].map(|d| Slide {
            out: y.spatial[d],
            kernel: self.kernel[d],
            stride: self.strides[d],
            dilation: self.dilations[d],
            begin: self.pads_begin[d],
            low: 0,
            high: x.spatial[d],
            count_low: if padded { self.pads_begin[d] } else { 0 },
            count_high: x.spatial[d] + if padded { self.pads_end[d] } else { 0 },
        });
        if slides.iter().any(|s| s.clips().iter().any(|c| c.taps.0 == c.taps.1 || c.counted == 0)) {
            return Err(Error::unsupported("pool", format!("a window of {self:?} lies outside the input")));
        }
        let (op, name) = if self.kind == PoolKind::Max { (Op::Max, "max") } else { (Op::Mean, "average") };
        let [_, kh, kw] = self.kernel;
        let taps: usize = self.kernel.iter().product();
        let rows = Rows {
            x: *x,
            y: *y,
            residual: None,
            slides,
            op,
            runs: vec![BlockRun {
                from: 0,
                to: y.blocks(),
                x_from: 0,
                x_step: 1,
                sources: vec![Source::Lanes],
            }],
            weights: false,
            bias: false,
            name: format!(
                "{name} pool {kh}x{kw}/{} {} {}x{}",
                self.strides[2], x.c, y.spatial[1], y.spatial[2]
            ),
            flops: (y.n * y.c * taps * y.spatial.iter().product::<usize>()) as u64,
        };
        rows.build(e, threads.max(1))
    }
}
