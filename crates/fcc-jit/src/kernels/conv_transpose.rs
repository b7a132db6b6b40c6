//! Transposed convolution on blocked activations, as one dense convolution for each phase of the stride.
//!
//! Output `o` of a dim takes `x[i] * w[k]` where `i * stride + k * dilation - pad = o`. Outputs with the same remainder
//! of `o + pad` by the stride use the same `k`, every `stride / gcd(stride, dilation)`-th, and neighbouring ones of
//! them neighbouring `i`: each such phase is a convolution of stride 1 that writes every `stride`-th pixel.

use super::activation::Activation;
use super::conv::last_lanes;
use super::halo::Halo;
use super::layout::BlockedLayout;
use super::nest::{BiasKind, Epilogue, Nest, NestArgs, NestKernels, Reduction, Strides};
use super::split::Split;
use super::tile;
use crate::asm::Isa;
use crate::error::{Error, Result};
use crate::floats::Floats;
use crate::module::{Emitter, Kernel, Operand};
use cranelift_module::Module;

/// A transposed convolution in ONNX's words; ranks below 3 have leading 1s.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvTranspose {
    /// Input, blocked by the lanes, whose halo is at least [`ConvTranspose::halo`].
    pub x: BlockedLayout,
    /// Output, blocked by the lanes; its halo is zeroed.
    pub y: BlockedLayout,
    /// Kernel D, H, W.
    pub kernel: [usize; 3],
    /// Strides.
    pub strides: [usize; 3],
    /// Dilations.
    pub dilations: [usize; 3],
    /// Padding that is cut from the start of each dim.
    pub pads_begin: [usize; 3],
    /// Groups: 1, or such that each has whole channel blocks.
    pub group: usize,
    /// Whether there is a bias operand, of [`ConvTranspose::bias_elems`].
    pub bias: bool,
    /// Applied last.
    pub activation: Option<Activation>,
}

/// The outputs of one dim that use the same positions of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Phase {
    /// First output, and how many, `stride` apart.
    first: usize,
    count: usize,
    /// First position of the kernel, distance of positions, and how many.
    k: usize,
    k_step: usize,
    taps: usize,
    /// Input of the first output at the first position, and its change from one position to the next.
    input: i64,
    input_step: i64,
}

fn gcd(a: usize, b: usize) -> usize {
    if b == 0 { a } else { gcd(b, a % b) }
}

impl ConvTranspose {
    fn ic_per_group(&self) -> usize {
        self.x.c / self.group.max(1)
    }
    fn oc_per_group(&self) -> usize {
        self.y.c / self.group.max(1)
    }
    fn vectors(&self, isa: Isa) -> usize {
        self.oc_per_group().div_ceil(isa.lanes())
    }

    /// The phases of dim `d`; a phase without taps has `taps == 0`.
    fn phases(&self, d: usize) -> Vec<Phase> {
        let (out, s, dil, pad) = (self.y.spatial[d], self.strides[d], self.dilations[d], self.pads_begin[d]);
        let g = gcd(s, dil);
        let phase = |first: usize| {
            let count = (out - first).div_ceil(s);
            let taps: Vec<usize> =
                (0..self.kernel[d]).filter(|k| (k * dil) % s == (first + pad) % s).collect();
            let k = taps.first().copied().unwrap_or(0);
            let input = ((first + pad) as i64 - (k * dil) as i64).div_euclid(s as i64);
            Phase { first, count, k, k_step: s / g, taps: taps.len(), input, input_step: -((dil / g) as i64) }
        };
        (0..s.min(out)).map(phase).collect()
    }

    /// The zeros that the input must have around it.
    pub fn halo(&self) -> [(usize, usize); 3] {
        [0, 1, 2].map(|d| {
            let (mut before, mut after) = (0i64, 0i64);
            for p in self.phases(d).iter().filter(|p| p.taps > 0) {
                let last_tap = p.input + (p.taps as i64 - 1) * p.input_step;
                before = before.max(-last_tap).max(-p.input);
                after = after.max(p.input + p.count as i64 - self.x.spatial[d] as i64);
            }
            (before.max(0) as usize, after.max(0) as usize)
        })
    }

    fn combinations(&self) -> Vec<[Phase; 3]> {
        let [d, h, w] = [0, 1, 2].map(|d| self.phases(d));
        let mut out = Vec::new();
        for &d in &d {
            for &h in &h {
                out.extend(w.iter().map(|&w| [d, h, w]));
            }
        }
        out
    }

    fn check(&self, isa: Isa) -> Result<()> {
        const WHAT: &str = "transposed conv";
        let bad = |why: String| Err(Error::invalid(WHAT, why));
        self.x.check(WHAT)?;
        self.y.check(WHAT)?;
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
        let cb = isa.lanes();
        if !self.x.c.is_multiple_of(self.group)
            || !self.y.c.is_multiple_of(self.group)
            || self.x.n != self.y.n
            || self.x.cb != cb
            || self.y.cb != cb
        {
            return bad(format!("{:?} to {:?} in {} groups at level {isa}", self.x, self.y, self.group));
        }
        if self.y.n == 0
            || self.x.c == 0
            || self.y.c == 0
            || self.y.spatial.contains(&0)
            || self.x.spatial.contains(&0)
        {
            return Err(Error::unsupported(WHAT, "an empty convolution"));
        }
        if self.group > 1
            && !(self.ic_per_group().is_multiple_of(cb) && self.oc_per_group().is_multiple_of(cb))
        {
            return Err(Error::unsupported(
                WHAT,
                format!("group {} of {} to {} channels", self.group, self.x.c, self.y.c),
            ));
        }
        if (0..3).any(|d| self.phases(d).iter().any(|p| p.taps == 0)) {
            return Err(Error::unsupported(
                WHAT,
                format!(
                    "kernel {:?} leaves outputs of strides {:?} without input",
                    self.kernel, self.strides
                ),
            ));
        }
        let need = self.halo();
        if (0..3).any(|d| need[d].0 > self.x.halo[d].0 || need[d].1 > self.x.halo[d].1) {
            return bad(format!("the input needs a halo of {need:?} and has {:?}", self.x.halo));
        }
        Ok(())
    }

    fn products(&self, phases: &[Phase; 3]) -> usize {
        self.ic_per_group() * phases.iter().map(|p| p.taps).product::<usize>()
    }

    fn tiling(&self, isa: Isa, phases: &[Phase; 3]) -> tile::Tiling {
        tile::choose(
            isa,
            phases[1].count,
            phases[2].count,
            self.vectors(isa),
            self.products(phases),
            tile::Most::ANY,
        )
    }

    fn phase_elems(&self, isa: Isa, phases: &[Phase; 3]) -> usize {
        self.group * self.vectors(isa) * isa.lanes() * self.products(phases)
    }

    /// Elements of the packed weights.
    pub fn packed_elems(&self, isa: Isa) -> usize {
        self.combinations().iter().map(|p| self.phase_elems(isa, p)).sum()
    }

    /// Elements of the bias operand: whole vectors for each group.
    pub fn bias_elems(&self, isa: Isa) -> usize {
        if self.bias { self.group * self.vectors(isa) * isa.lanes() } else { 0 }
    }

    /// Packs weights `[C, M/group, kD, kH, kW]` into `out` (of [`ConvTranspose::packed_elems`]), phase by phase.
    ///
    /// # Errors
    /// When a slice has another length.
    pub fn pack_weights<'a>(&self, isa: Isa, w: impl Into<Floats<'a>>, out: &mut [f32]) -> Result<()> {
        let w = w.into();
        let (icg, ocg, lanes) = (self.ic_per_group(), self.oc_per_group(), isa.lanes());
        let [kd, kh, kw] = self.kernel;
        if w.len() != self.x.c * ocg * kd * kh * kw || out.len() != self.packed_elems(isa) {
            return Err(Error::invalid(
                "transposed conv",
                format!("packing {} weights into {}", w.len(), out.len()),
            ));
        }
        let mut slots = out.iter_mut();
        for phases in self.combinations() {
            let split = self.tiling(isa, &phases).vectors;
            let taps: Vec<usize> = positions(&phases).map(|[d, h, w]| (d * kh + h) * kw + w).collect();
            for g in 0..self.group {
                for i in 0..split.pieces {
                    let (first, width) = (split.start(i) * lanes, split.size(i) * lanes);
                    for c0 in (0..icg).step_by(self.x.cb) {
                        for &tap in &taps {
                            for c in c0..(c0 + self.x.cb).min(icg) {
                                for j in first..first + width {
                                    let at = ((g * icg + c) * ocg + j) * kd * kh * kw + tap;
                                    let value = if j < ocg { w.at(at) } else { 0.0 };
                                    if let Some(slot) = slots.next() {
                                        *slot = value;
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn nest(&self, isa: Isa, phases: &[Phase; 3], w_base: usize, threads: usize) -> Nest {
        let (x, y) = (&self.x, &self.y);
        let tiling = self.tiling(isa, phases);
        let icg = self.ic_per_group();
        let whole = icg / x.cb;
        let (blocks, k, tail_k) = if whole == 0 { (1, icg, 0) } else { (whole, x.cb, icg % x.cb) };
        let i = |n: usize| n as i64;
        let x_bytes = [x.plane_bytes(), x.row_bytes(), x.pixel_bytes()];
        let y_bytes = [y.plane_bytes(), y.row_bytes(), y.pixel_bytes()];
        let loops = (0..3).map(|d| (phases[d].taps, (phases[d].input_step * i(x_bytes[d])) as i32));
        let products: usize = phases.iter().map(|p| p.taps).product();
        let vb = i(isa.vector_bytes());
        let vectors = i(self.vectors(isa));
        let all = i(self.products(phases));
        let spatial =
            |d: usize| Strides { x: i(x_bytes[d]), y: i(y_bytes[d] * self.strides[d]), ..Strides::default() };
        let from: i64 = (0..3).map(|d| phases[d].input * i(x_bytes[d])).sum();
        let to: usize = (0..3).map(|d| phases[d].first * y_bytes[d]).sum();
        let batch = Strides { x: i(x.batch_bytes()), y: i(y.batch_bytes()), ..Strides::default() };
        let group = Strides {
            x: i(x.block_bytes() * icg / x.cb),
            w: vectors * vb * all,
            bias: vectors * vb,
            residual: 0,
            y: vectors * i(y.block_bytes()),
        };
        let others = y.n * self.group * phases[0].count * tiling.vectors.pieces;
        let mut row_blocks = 1;
        while row_blocks < tiling.rows.pieces && !super::gemm::balanced(others * row_blocks, threads) {
            row_blocks += 1;
        }
        Nest {
            isa,
            batch: vec![(y.n, batch), (self.group, group), (phases[0].count, spatial(0))],
            rows: tiling.rows,
            row: spatial(1),
            row_blocks,
            cols: tiling.cols,
            col: spatial(2),
            vectors: tiling.vectors,
            vector: Strides { x: 0, w: all * vb, bias: vb, residual: 0, y: i(y.block_bytes()) },
            vector_blocks: tiling.vectors.pieces,
            first_lane: 0,
            last_lanes: last_lanes(isa, self.oc_per_group()),
            b_step: None,
            reduction: Reduction {
                chunks: Split::into(blocks, 1),
                x_step: i(x.block_bytes()),
                products: products * k,
                straight: false,
                loops: loops.collect(),
                taps: vec![0],
                k,
                head: None,
                tail_k,
                a_step: 4,
            },
            epilogue: Epilogue {
                alpha: 1.0,
                bias: if self.bias { BiasKind::Column } else { BiasKind::None },
                residual: None,
                activation: self.activation,
            },
            base: Strides {
                x: i(x.origin_bytes()) + from,
                y: i(y.origin_bytes() + to),
                w: i(4 * w_base),
                ..Strides::default()
            },
            prefetch: 1024,
            vectors_first: false,
            tiles: None,
        }
    }

    /// The step function; operands `x`, `w` (packed), `bias` (if any), `y`. The halo of `y` is zeroed too.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for small groups and for kernels shorter than the stride, [`Error::Invalid`] for layouts
    /// that do not fit.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        let isa = e.isa();
        self.check(isa)?;
        let threads = threads.max(1);
        let mut nests: Vec<(Nest, NestKernels)> = Vec::new();
        let mut w_base = 0;
        for phases in self.combinations() {
            let nest = self.nest(isa, &phases, w_base, threads);
            let kernels = nest.define_kernels(e)?;
            nests.push((nest, kernels));
            w_base += self.phase_elems(isa, &phases);
        }
        let tasks = nests.iter().map(|n| n.0.units()).max().unwrap_or(1).min(threads);
        let mut operands = vec![Operand::read("x", self.x.bytes()), Operand::read("w", 4 * w_base)];
        if self.bias {
            operands.push(Operand::read("bias", 4 * self.bias_elems(isa)));
        }
        operands.push(Operand::write("y", self.y.bytes()));
        let last = operands.len() - 1;
        let halo = Halo::define(e, &self.y)?;
        let (y, bias, per_group) = (self.y, self.bias, self.vectors(isa));
        let func = e.step("conv_transpose", operands.len(), |m, b, p, task| {
            for (index, (nest, kernels)) in nests.iter().enumerate() {
                let args = NestArgs {
                    x: p[0],
                    w: p[1],
                    bias: if bias { p[2] } else { p[0] },
                    residual: p[0],
                    y: p[last],
                };
                nest.emit(m, b, &args, task, tasks, kernels, &mut |m, b, batch, rows, groups| {
                    if let Some(halo) = halo.as_ref().filter(|_| index == 0) {
                        halo.zero_unit(m, b, &y, p[last], batch, rows, groups, &nest.vectors, per_group);
                    }
                });
            }
            Ok(())
        })?;
        let pixels: usize = self.x.spatial.iter().product();
        let taps: usize = self.kernel.iter().product();
        let [_, kh, kw] = self.kernel;
        let [_, h, w] = self.y.spatial;
        let name =
            format!("conv transpose {kh}x{kw}/{} {}->{} {h}x{w} {isa}", self.strides[2], self.x.c, self.y.c);
        let flops = 2 * (self.x.n * self.x.c * self.oc_per_group() * taps * pixels) as u64;
        Ok(Kernel { func, name, operands, tasks, flops })
    }
}

/// The kernel positions of a phase, in the order of the micro-kernel's loops.
fn positions(phases: &[Phase; 3]) -> impl Iterator<Item = [usize; 3]> + '_ {
    let [d, h, w] = phases;
    (0..d.taps * h.taps * w.taps).map(move |i| {
        let at = [i / (h.taps * w.taps), i / w.taps % h.taps, i % w.taps];
        [d.k + at[0] * d.k_step, h.k + at[1] * h.k_step, w.k + at[2] * w.k_step]
    })
}
