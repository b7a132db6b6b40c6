//! Convolution on blocked activations: dense, or in groups whose channels are whole blocks.
//!
//! The input is blocked (`cb` = lanes), or plain NCHW with a halo (`cb` = 1) for the first layer of a network.

use super::activation::Activation;
use super::gemm::balanced;
use super::layout::BlockedLayout;
use super::nest::{BiasKind, Epilogue, Nest, NestArgs, Reduction, Strides};
use super::split::Split;
use super::{halo, tile};
use crate::asm::Isa;
use crate::error::{Error, Result};
use crate::module::{Emitter, Kernel, Operand};
use cranelift_module::Module;

/// A convolution in ONNX's words; ranks below 3 have leading 1s (dilation 1, stride 1, pads 0).
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    /// Input, whose halo covers the padding (a wider halo is fine).
    pub x: BlockedLayout,
    /// Output, blocked by the lanes of the level; its halo is zeroed.
    pub y: BlockedLayout,
    /// Kernel D, H, W.
    pub kernel: [usize; 3],
    /// Strides.
    pub strides: [usize; 3],
    /// Dilations.
    pub dilations: [usize; 3],
    /// Padding before each dim; that after follows from the sizes.
    pub pads_begin: [usize; 3],
    /// Groups.
    pub group: usize,
    /// Whether there is a bias operand, of [`Conv::bias_elems`].
    pub bias: bool,
    /// A residual added before the activation: blocked like the output, with its own halo.
    pub residual: Option<BlockedLayout>,
    /// Applied last.
    pub activation: Option<Activation>,
}

/// Most products that are unrolled for the taps of a kernel row.
const MAX_UNROLLED: usize = 128;
/// Weights of one group of column vectors that a kernel call may stream: stays in L2.
const WEIGHT_CHUNK_BYTES: usize = 320 << 10;
/// The same when few tiles use them: stays in L1.
const WEIGHT_CHUNK_SMALL_BYTES: usize = 40 << 10;
/// Input rows that one row block may span: stays in L2 while all output channels pass.
const INPUT_BLOCK_BYTES: usize = 256 << 10;

impl Conv {
    fn ic_per_group(&self) -> usize {
        self.x.c / self.group.max(1)
    }
    fn oc_per_group(&self) -> usize {
        self.y.c / self.group.max(1)
    }
    fn out(&self) -> [usize; 3] {
        self.y.spatial
    }

    /// Padding after each dim that the sizes imply: what the halo must have.
    pub fn pads_end(&self) -> [usize; 3] {
        [0, 1, 2].map(|d| {
            let reach = (self.out()[d].max(1) - 1) * self.strides[d]
                + (self.kernel[d].max(1) - 1) * self.dilations[d]
                + 1;
            reach.saturating_sub(self.pads_begin[d] + self.x.spatial[d])
        })
    }

    pub(super) fn check(&self, isa: Isa) -> Result<()> {
        let bad = |why: String| Err(Error::invalid("conv", why));
        self.x.check("conv")?;
        self.y.check("conv")?;
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
        {
            return bad(format!(
                "input {}x{} and output {}x{} channels do not go with group {}",
                self.x.n, self.x.c, self.y.n, self.y.c, self.group
            ));
        }
        if self.y.n == 0 || self.x.c == 0 || self.y.c == 0 || self.out().contains(&0) {
            return Err(Error::unsupported("conv", "an empty convolution"));
        }
        if self.y.cb != isa.lanes() || (self.x.cb != isa.lanes() && self.x.cb != 1) {
            return bad(format!("channel blocks of {} and {} at level {isa}", self.x.cb, self.y.cb));
        }
        let end = self.pads_end();
        for d in 0..3 {
            if self.pads_begin[d] > self.x.halo[d].0 || end[d] > self.x.halo[d].1 {
                return bad(format!(
                    "padding {:?}, {end:?} needs a halo, the input has {:?}",
                    self.pads_begin, self.x.halo
                ));
            }
        }
        if let Some(r) = &self.residual {
            r.check("conv")?;
            if (r.n, r.c, r.spatial, r.cb) != (self.y.n, self.y.c, self.y.spatial, self.y.cb) {
                return bad(format!("residual {r:?} is not shaped like the output {:?}", self.y));
            }
        }
        Ok(())
    }

    /// Whether this kernel does groups of these sizes; others are [`super::lanewise`].
    pub fn handles_group(&self, isa: Isa) -> bool {
        let cb = isa.lanes();
        self.group == 1
            || (self.x.cb == cb
                && self.ic_per_group().is_multiple_of(cb)
                && self.oc_per_group().is_multiple_of(cb))
    }

    fn vectors(&self, isa: Isa) -> usize {
        self.oc_per_group().div_ceil(isa.lanes())
    }

    fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Rows and columns of the output as the kernel sees them: one long row when nothing lies between rows.
    fn flat(&self) -> bool {
        self.kernel == [1, 1, 1]
            && self.strides == [1, 1, 1]
            && self.pads_begin == [0; 3]
            && self.x.is_tight()
            && self.y.is_tight()
            && self.residual.is_none_or(|r| r.is_tight())
    }

    fn output_plane(&self) -> [usize; 3] {
        let [d, h, w] = self.out();
        if self.flat() { [1, 1, d * h * w] } else { [d, h, w] }
    }

    fn tiling(&self, isa: Isa) -> tile::Tiling {
        let [_, h, w] = self.output_plane();
        tile::choose(isa, h, w, self.vectors(isa), self.ic_per_group() * self.taps())
    }

    /// Elements of the packed weights.
    pub fn packed_elems(&self, isa: Isa) -> usize {
        self.group * self.vectors(isa) * isa.lanes() * self.ic_per_group() * self.taps()
    }

    /// Elements of the bias operand: whole vectors for each group (what pads them does not matter).
    pub fn bias_elems(&self, isa: Isa) -> usize {
        if self.bias { self.group * self.vectors(isa) * isa.lanes() } else { 0 }
    }

    /// Packs weights `w` `[M, C/group, kD, kH, kW]` into `out` (of [`Conv::packed_elems`]):
    /// `[group][vectors][C/cb][kD][kH][kW][cb][columns]`.
    ///
    /// # Errors
    /// When a slice has another length.
    pub fn pack_weights(&self, isa: Isa, w: &[f32], out: &mut [f32]) -> Result<()> {
        let (icg, ocg, taps, lanes) = (self.ic_per_group(), self.oc_per_group(), self.taps(), isa.lanes());
        if w.len() != self.y.c * icg * taps || out.len() != self.packed_elems(isa) {
            return Err(Error::invalid(
                "conv",
                format!(
                    "packing {} weights into {}, needs {} and {}",
                    w.len(),
                    out.len(),
                    self.y.c * icg * taps,
                    self.packed_elems(isa)
                ),
            ));
        }
        let split = self.tiling(isa).vectors;
        let mut next = 0;
        for g in 0..self.group {
            for i in 0..split.pieces {
                let (first, width) = (split.start(i) * lanes, split.size(i) * lanes);
                let used = width.min(ocg - first);
                for c0 in (0..icg).step_by(self.x.cb) {
                    let cs = self.x.cb.min(icg - c0);
                    let panel = &mut out[next..next + taps * cs * width];
                    next += panel.len();
                    for j in 0..used {
                        let row = &w[((g * ocg + first + j) * icg + c0) * taps..][..cs * taps];
                        for (c, line) in row.chunks_exact(taps).enumerate() {
                            for (t, &v) in line.iter().enumerate() {
                                panel[(t * cs + c) * width + j] = v;
                            }
                        }
                    }
                    if used < width {
                        panel.chunks_exact_mut(width).for_each(|line| line[used..].fill(0.0));
                    }
                }
            }
        }
        Ok(())
    }

    fn reduction(&self, isa: Isa, tiling: &tile::Tiling) -> Reduction {
        let (x, icg, [kd, kh, kw]) = (&self.x, self.ic_per_group(), self.kernel);
        let whole = icg / x.cb;
        let (blocks, k, tail_k) = if whole == 0 { (1, icg, 0) } else { (whole, x.cb, icg % x.cb) };
        let step = |bytes: usize, d: usize| (bytes * self.dilations[d]) as i32;
        let mut loops = vec![(kd, step(x.plane_bytes(), 0)), (kh, step(x.row_bytes(), 1))];
        let pixel = step(x.pixel_bytes(), 2);
        let taps = if kw * k <= MAX_UNROLLED {
            (0..kw as i32).map(|i| i * pixel).collect()
        } else {
            loops.push((kw, pixel));
            vec![0]
        };
        let products = self.taps() * k;
        let block_bytes = products * tiling.vectors.size(0) * isa.vector_bytes();
        let tiles = tiling.rows.pieces * tiling.cols.pieces;
        let limit = if tiles <= 1 {
            usize::MAX
        } else if tiles <= 4 && block_bytes * blocks > WEIGHT_CHUNK_BYTES {
            WEIGHT_CHUNK_SMALL_BYTES
        } else {
            WEIGHT_CHUNK_BYTES
        };
        let chunks = Split::at_most(blocks, (limit / block_bytes).max(1));
        Reduction {
            chunks,
            x_step: x.block_bytes() as i64,
            products,
            straight: false,
            loops,
            taps,
            k,
            tail_k,
            a_step: if x.cb == 1 { x.block_bytes() as i32 } else { 4 },
        }
    }

    /// How many blocks the output rows are dealt out in.
    fn row_blocks(&self, tiling: &tile::Tiling, groups: usize, threads: usize) -> usize {
        let tiles = tiling.rows.pieces;
        let row = self.x.row_bytes() * self.strides[1] * (self.ic_per_group().div_ceil(self.x.cb));
        let tile_bytes = row * tiling.rows.size(0);
        let mut blocks = tiles.div_ceil((INPUT_BLOCK_BYTES / tile_bytes.max(1)).max(1));
        let others = self.y.n * self.group * self.output_plane()[0] * groups;
        while blocks < tiles && !balanced(others * blocks, threads) {
            blocks += 1;
        }
        blocks
    }

    fn nest(&self, isa: Isa, threads: usize) -> Nest {
        let tiling = self.tiling(isa);
        let reduction = self.reduction(isa, &tiling);
        let (x, y) = (&self.x, &self.y);
        let r = self.residual.unwrap_or(*y);
        let i = |n: usize| n as i64;
        let vb = i(isa.vector_bytes());
        let products = i(self.ic_per_group() * self.taps());
        let vectors = self.vectors(isa);
        let group = Strides {
            x: i(x.block_bytes() * self.ic_per_group() / x.cb),
            w: i(vectors) * vb * products,
            bias: i(vectors) * vb,
            residual: i(vectors * r.block_bytes()),
            y: i(vectors * y.block_bytes()),
        };
        let spatial = |d: usize, bytes: fn(&BlockedLayout) -> usize| Strides {
            x: i(bytes(x) * self.strides[d]),
            residual: i(bytes(&r)),
            y: i(bytes(y)),
            ..Strides::default()
        };
        let pads = [x.plane_bytes(), x.row_bytes(), x.pixel_bytes()];
        let padding: usize = (0..3).map(|d| pads[d] * self.pads_begin[d]).sum();
        let batch = Strides {
            x: i(x.batch_bytes()),
            residual: i(r.batch_bytes()),
            y: i(y.batch_bytes()),
            ..Strides::default()
        };
        let weights = tiling.vectors.pieces;
        Nest {
            isa,
            batch: vec![
                (y.n, batch),
                (self.group, group),
                (self.output_plane()[0], spatial(0, BlockedLayout::plane_bytes)),
            ],
            rows: tiling.rows,
            row: spatial(1, BlockedLayout::row_bytes),
            row_blocks: self.row_blocks(&tiling, weights, threads),
            cols: tiling.cols,
            col: spatial(2, BlockedLayout::pixel_bytes),
            vectors: tiling.vectors,
            vector: Strides {
                x: 0,
                w: products * vb,
                bias: vb,
                residual: i(r.block_bytes()),
                y: i(y.block_bytes()),
            },
            vector_blocks: tiling.vectors.pieces,
            last_lanes: isa.lanes(),
            b_step: None,
            reduction,
            epilogue: Epilogue {
                alpha: 1.0,
                bias: if self.bias { BiasKind::Column } else { BiasKind::None },
                residual: self.residual.map(|_| 1.0),
                activation: self.activation,
            },
            base: Strides {
                x: i(x.origin_bytes()) - i(padding),
                residual: i(r.origin_bytes()),
                y: i(y.origin_bytes()),
                ..Strides::default()
            },
            prefetch: 1024,
            vectors_first: false,
        }
    }

    /// The step function; operands `x`, `w` (packed), `bias` (if any), `residual` (if any), `y`. The halo of `y` is zeroed too.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for groups that are not whole blocks, [`Error::Invalid`] for layouts that do not fit.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        let isa = e.isa();
        self.check(isa)?;
        if !self.handles_group(isa) {
            return Err(Error::unsupported(
                "conv",
                format!("group {} of {} to {} channels", self.group, self.x.c, self.y.c),
            ));
        }
        let nest = self.nest(isa, threads.max(1));
        let tasks = nest.units().min(threads.max(1));
        let kernels = nest.define_kernels(e)?;
        let mut operands =
            vec![Operand::read("x", self.x.bytes()), Operand::read("w", 4 * self.packed_elems(isa))];
        if self.bias {
            operands.push(Operand::read("bias", 4 * self.bias_elems(isa)));
        }
        operands.extend(self.residual.map(|r| Operand::read("residual", r.bytes())));
        operands.push(Operand::write("y", self.y.bytes()));
        let (bias, residual, last) = (self.bias, self.residual.is_some(), operands.len() - 1);
        let halo = halo::Halo::define(e, &self.y)?;
        let (y, vectors, per_group) = (self.y, nest.vectors, self.vectors(isa));
        let func = e.step("conv", operands.len(), |m, b, p, task| {
            let args = NestArgs {
                x: p[0],
                w: p[1],
                bias: if bias { p[2] } else { p[0] },
                residual: if residual { p[last - 1] } else { p[0] },
                y: p[last],
            };
            nest.emit(m, b, args, task, tasks, &kernels, &mut |m, b, batch, rows, groups| {
                if let Some(halo) = &halo {
                    halo.zero_unit(m, b, &y, p[last], batch, rows, groups, &vectors, per_group);
                }
            });
            Ok(())
        })?;
        let flops = 2
            * (self.y.n * self.y.c * self.ic_per_group() * self.taps()) as u64
            * self.out().iter().product::<usize>() as u64;
        Ok(Kernel { func, name: self.name(&nest), operands, tasks, flops })
    }

    fn name(&self, nest: &Nest) -> String {
        let dims = |d: &[usize; 3]| {
            d.map(|n| n.to_string())[usize::from(self.out()[0] == 1 && self.kernel[0] == 1)..].join("x")
        };
        let group = if self.group == 1 { String::new() } else { format!(" group {}", self.group) };
        let tile = format!("{}x{}", nest.rows.size(0) * nest.cols.size(0), nest.vectors.size(0));
        let (k, s) = (dims(&self.kernel), self.strides[2]);
        format!("conv {k}/{s} {}->{}{group} {} {} {tile}", self.x.c, self.y.c, dims(&self.out()), nest.isa)
    }
}
