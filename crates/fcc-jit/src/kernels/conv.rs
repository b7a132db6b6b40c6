//! Convolution on blocked activations: dense, or in groups whose channels are whole blocks.
//!
//! The input is blocked (`cb` = lanes), or plain NCHW with a halo (`cb` = 1) for the first layer of a network.

use super::activation::Activation;
use super::clif::off;
use super::cut::Cut;
use super::gemm::balanced;
use super::layout::BlockedLayout;
use super::nest::{BiasKind, Epilogue, Nest, NestArgs, NestKernels, Reduction, Strides};
use super::split::Split;
use super::{halo, tile};
use crate::asm::Isa;
use crate::error::{Error, Result};
use crate::floats::Floats;
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
    /// How the direct kernel cuts it, if the model of its time is not to decide; not of ragged groups.
    pub cut: Option<Cut>,
}

/// Most products that are unrolled for the taps of a kernel row.
const MAX_UNROLLED: usize = 128;
/// Weights of one group of column vectors that a kernel call may stream: stays in L2.
const WEIGHT_CHUNK_BYTES: usize = 320 << 10;
/// The same when few tiles use them: stays in L1.
const WEIGHT_CHUNK_SMALL_BYTES: usize = 40 << 10;
/// Bytes ahead in the weights that are fetched.
const AHEAD: usize = 1024;
/// Input rows that one row block may span: stays in L2 while all output channels pass.
const INPUT_BLOCK_BYTES: usize = 256 << 10;
/// What stays in L2 while something else is streamed.
const L2_BYTES: usize = 900 << 10;

/// The channels of one group as the layouts have them: where they begin, and the vectors that they touch.
pub(super) struct Part {
    x_block: usize,
    x_lane: usize,
    y_block: usize,
    y_lane: usize,
    pub vectors: usize,
}

/// A part with the nest that computes it, and that nest's kernels.
pub(super) type PartNest = (Part, Nest, NestKernels);

fn whole_blocks(icg: usize, ocg: usize, cb: usize) -> bool {
    icg.is_multiple_of(cb) && ocg.is_multiple_of(cb)
}

/// Most groups that are nests of their own.
const MAX_RAGGED: usize = 32;

/// The lanes of the last vector of `c` channels that a kernel makes: all of a block, whose padding may hold anything, but
/// only those that there are where half a vector is enough.
pub(super) fn last_lanes(isa: Isa, c: usize) -> usize {
    let last = (c - 1) % isa.lanes() + 1;
    if isa == Isa::Avx512 && 2 * last <= isa.lanes() { last } else { isa.lanes() }
}

/// Whether groups of `icg` to `ocg` channels are done by this kernel: those of whole blocks, and those that are large and
/// few enough.
pub fn dense_groups(group: usize, icg: usize, ocg: usize, cb: usize) -> bool {
    // vectors of four have no masks of inner lanes
    let ragged = cb > 4 && group <= MAX_RAGGED && icg >= 4 && 2 * ocg >= cb;
    group == 1 || whole_blocks(icg, ocg, cb) || ragged
}

impl Conv {
    pub(super) fn ic_per_group(&self) -> usize {
        self.x.c / self.group.max(1)
    }
    pub(super) fn oc_per_group(&self) -> usize {
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
        let (icg, ocg) = (self.ic_per_group(), self.oc_per_group());
        self.group == 1 || self.x.cb == isa.lanes() && dense_groups(self.group, icg, ocg, isa.lanes())
    }

    /// Whether groups begin inside channel blocks: each is a nest of its own then.
    pub(super) fn ragged(&self, isa: Isa) -> bool {
        self.group > 1 && !whole_blocks(self.ic_per_group(), self.oc_per_group(), isa.lanes())
    }

    /// The channels of a group.
    pub(super) fn part(&self, isa: Isa, group: usize) -> Part {
        let cb = isa.lanes();
        let first = if self.ragged(isa) { group } else { 0 };
        let (x, y) = (first * self.ic_per_group(), first * self.oc_per_group());
        Part {
            x_block: x / self.x.cb,
            x_lane: x % self.x.cb,
            y_block: y / cb,
            y_lane: y % cb,
            vectors: (y % cb + self.oc_per_group()).div_ceil(cb),
        }
    }

    /// One part for each group that is a nest of its own, else one for all.
    fn parts(&self, isa: Isa) -> Vec<Part> {
        (0..if self.ragged(isa) { self.group } else { 1 }).map(|g| self.part(isa, g)).collect()
    }

    pub(super) fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    /// Whether nothing lies between the pixels that a kernel of one pixel reads and writes: they are rows of a matrix.
    fn flat(&self) -> bool {
        self.kernel == [1, 1, 1]
            && self.strides == [1, 1, 1]
            && self.pads_begin == [0; 3]
            && self.x.is_tight()
            && self.y.is_tight()
            && self.residual.is_none_or(|r| r.is_tight())
    }

    /// Whether the nest takes the pixels of a line for rows of one column, so that they are dealt out to threads and
    /// stay in L2 in blocks as rows do: all pixels where the convolution is [`Conv::flat`], those of the only row else.
    fn line(&self) -> bool {
        self.flat() || self.out()[1] == 1
    }

    /// Planes, rows and columns of the output as the nest sees them.
    pub(super) fn output_plane(&self) -> [usize; 3] {
        match self.out() {
            [d, h, w] if self.flat() => [1, d * h * w, 1],
            [d, 1, w] => [d, w, 1],
            out => out,
        }
    }

    /// Bytes of `l` between the rows and between the columns that the nest sees.
    pub(super) fn pitches(&self, l: &BlockedLayout) -> [usize; 2] {
        if self.line() { [l.pixel_bytes(), 0] } else { [l.row_bytes(), l.pixel_bytes()] }
    }

    /// Bytes of x between neighbouring rows and columns of the output, as the nest sees them.
    pub(super) fn input_steps(&self) -> [usize; 2] {
        let [row, col] = self.pitches(&self.x);
        let [_, h, w] = self.strides;
        if self.line() { [row * w, 0] } else { [row * h, col * w] }
    }

    fn tiling(&self, isa: Isa, part: &Part) -> tile::Tiling {
        let [_, h, w] = self.output_plane();
        if let Some(cut) = &self.cut {
            return tile::Tiling::of(h, w, part.vectors, cut.tile);
        }
        tile::choose(isa, h, w, part.vectors, self.ic_per_group() * self.taps(), self.most(isa))
    }

    fn most(&self, isa: Isa) -> tile::Most {
        // without mask registers there is room for one mask
        let vectors = if self.ragged(isa) && isa.vectors() != Isa::Avx512 { 1 } else { usize::MAX };
        tile::Most { vectors, ..tile::Most::ANY }
    }

    /// Elements of the packed weights of one of `parts`, of one group.
    fn part_elems(&self, isa: Isa, part: &Part) -> usize {
        part.vectors * isa.lanes() * self.ic_per_group() * self.taps()
    }

    /// Groups inside a part.
    fn inner_groups(&self, isa: Isa) -> usize {
        if self.ragged(isa) { 1 } else { self.group }
    }

    /// Elements of the packed weights.
    pub fn packed_elems(&self, isa: Isa) -> usize {
        let all: usize = self.parts(isa).iter().map(|p| self.part_elems(isa, p)).sum();
        all * self.inner_groups(isa)
    }

    /// In how many equal runs the values of the bias operand stand, each padded to whole vectors (with anything).
    pub fn bias_runs(&self, isa: Isa) -> usize {
        self.inner_groups(isa)
    }

    /// Elements of the bias operand.
    pub fn bias_elems(&self, isa: Isa) -> usize {
        let runs = self.bias_runs(isa);
        if self.bias { runs * (self.y.c / runs).next_multiple_of(isa.lanes()) } else { 0 }
    }

    /// Packs weights `w` `[M, C/group, kD, kH, kW]` into `out` (of [`Conv::packed_elems`]):
    /// `[group][vectors][C/cb][kD][kH][kW][cb][columns]`.
    ///
    /// # Errors
    /// When a slice has another length.
    pub fn pack_weights<'a>(&self, isa: Isa, w: impl Into<Floats<'a>>, out: &mut [f32]) -> Result<()> {
        let w = w.into();
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
        let mut next = 0;
        for g in 0..self.group {
            let part = self.part(isa, g);
            let split = self.tiling(isa, &part).vectors;
            for i in 0..split.pieces {
                let (first, width) = (split.start(i) * lanes, split.size(i) * lanes);
                for (c0, cs) in self.channel_runs(&part) {
                    let panel = &mut out[next..next + taps * cs * width];
                    next += panel.len();
                    panel.fill(0.0);
                    // columns before and behind the group's are 0
                    let own = part.y_lane.max(first)..(part.y_lane + ocg).min(first + width);
                    for j in own {
                        let start = ((g * ocg + j - part.y_lane) * icg + c0) * taps;
                        for (c, line) in w.part(start..start + cs * taps).chunks(taps).enumerate() {
                            for (t, v) in line.iter().enumerate() {
                                panel[(t * cs + c) * width + j - first] = v;
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// The runs in which a group's channels are read: what is left of the block it begins in, whole blocks, the rest.
    fn channel_runs(&self, part: &Part) -> Vec<(usize, usize)> {
        let icg = self.ic_per_group();
        let mut runs = vec![];
        let mut c = 0;
        while c < icg {
            let room = self.x.cb - (part.x_lane + c) % self.x.cb;
            runs.push((c, room.min(icg - c)));
            c += room;
        }
        runs
    }

    /// The loops over a kernel, and the taps of one of its rows where there are at most `most`.
    pub(super) fn window(&self, most: usize) -> (Vec<(usize, i32)>, Vec<i32>) {
        let (x, [kd, kh, kw]) = (&self.x, self.kernel);
        let step = |bytes: usize, d: usize| (bytes * self.dilations[d]) as i32;
        let mut loops = vec![(kd, step(x.plane_bytes(), 0)), (kh, step(x.row_bytes(), 1))];
        let pixel = step(x.pixel_bytes(), 2);
        if kw <= most {
            return (loops, (0..kw as i32).map(|i| i * pixel).collect());
        }
        loops.push((kw, pixel));
        (loops, vec![0])
    }

    /// How many of the blocks of a reduction one kernel call should take, where each brings so many bytes of weights.
    pub(super) fn blocks_at_once(tiling: &tile::Tiling, blocks: usize, block_bytes: usize) -> usize {
        let tiles = tiling.rows.pieces * tiling.cols.pieces;
        let limit = if tiles <= 1 {
            usize::MAX
        } else if tiles <= 4 && block_bytes * blocks > WEIGHT_CHUNK_BYTES {
            WEIGHT_CHUNK_SMALL_BYTES
        } else {
            WEIGHT_CHUNK_BYTES
        };
        (limit / block_bytes).max(1)
    }

    fn reduction(&self, isa: Isa, tiling: &tile::Tiling, part: &Part) -> Reduction {
        let x = &self.x;
        let mut runs: Vec<usize> = self.channel_runs(part).iter().map(|r| r.1).collect();
        // a first run that is shorter than those behind it, or begins inside a block
        let has_head = part.x_lane > 0 && runs.len() > 1;
        let head = has_head.then(|| runs.remove(0));
        let tail_k = if runs.len() > 1 && runs.last() != runs.first() { runs.pop().unwrap_or(0) } else { 0 };
        let (blocks, k) = (runs.len(), runs.first().copied().unwrap_or(1));
        let head = head.map(|k| (k, (x.block_bytes() - 4 * part.x_lane) as i32));
        let (loops, taps) = self.window(MAX_UNROLLED / k.max(1));
        let products = self.taps() * k;
        let block_bytes = products * tiling.vectors.size(0) * isa.vector_bytes();
        let most = match &self.cut {
            _ if head.is_some() => blocks,
            Some(cut) => cut.chunk,
            None => Conv::blocks_at_once(tiling, blocks, block_bytes),
        };
        let chunks = Split::at_most(blocks, most);
        Reduction {
            chunks,
            x_step: x.block_bytes() as i64,
            products,
            straight: false,
            loops,
            taps,
            k,
            head,
            tail_k,
            a_step: if x.cb == 1 { x.block_bytes() as i32 } else { 4 },
        }
    }

    /// Blocks of output rows whose input stays in cache.
    fn fewest_row_blocks(&self, isa: Isa, tiling: &tile::Tiling) -> usize {
        let tiles = tiling.rows.pieces;
        if let Some(cut) = &self.cut {
            return cut.blocks.min(tiles);
        }
        let row = self.input_steps()[0] * self.ic_per_group().div_ceil(self.x.cb);
        let tile_bytes = row * tiling.rows.size(0);
        let most = tiles.div_ceil((INPUT_BLOCK_BYTES / tile_bytes.max(1)).max(1));
        // Each block reads all weights, each group of vectors the block's input: what of it comes from beyond L2?
        let (x, groups) = (row * tiling.rows.total, tiling.vectors.pieces);
        let w = tiling.vectors.total * isa.vector_bytes() * self.ic_per_group() * self.taps();
        let held = (w / groups.max(1)).min(WEIGHT_CHUNK_BYTES);
        let far = |blocks: usize| {
            let part = x / blocks;
            let weights = if w + part <= L2_BYTES { w } else { blocks * w };
            weights + if part + held <= L2_BYTES { x } else { groups * x }
        };
        (1..=most.max(1)).rev().min_by_key(|n| far(*n)).unwrap_or(1)
    }

    /// How many blocks the output rows are dealt out in. Threads get rows where they can: what a thread reads then is
    /// mostly what it wrote in the step before. Where the weights are large they get output channels, if those divide
    /// evenly: each then reads a part of the weights.
    fn row_blocks(&self, isa: Isa, tiling: &tile::Tiling, threads: usize) -> usize {
        let tiles = tiling.rows.pieces;
        let blocks = self.fewest_row_blocks(isa, tiling);
        let vectors = &tiling.vectors;
        let outer = self.y.n * self.group * self.output_plane()[0];
        let large = blocks == 1 && 4 * self.packed_elems(isa) > WEIGHT_CHUNK_BYTES;
        let by_channels = large && vectors.big == 0;
        if threads <= 1
            || balanced(outer, threads)
            || by_channels && balanced(vectors.pieces * outer, threads)
        {
            return blocks;
        }
        let even = blocks.next_multiple_of(threads);
        if even <= tiles {
            return even;
        }
        let fits = |n: &usize| balanced(outer * vectors.pieces * n, threads);
        (blocks..=tiles).find(fits).unwrap_or(tiles)
    }

    /// How the direct kernel cuts it: as it says itself, else as the model of its time does. `None` of ragged groups,
    /// each of which is cut in its own way.
    pub fn cut(&self, isa: Isa) -> Option<Cut> {
        let part = (!self.ragged(isa)).then(|| self.part(isa, 0))?;
        Some(self.cut.unwrap_or_else(|| self.cut_to(isa, &self.tiling(isa, &part), &part)))
    }

    /// The cut for a tiling, the rest as the model has it.
    fn cut_to(&self, isa: Isa, tiling: &tile::Tiling, part: &Part) -> Cut {
        let chunk = self.reduction(isa, tiling, part).chunks.size(0);
        Cut {
            tile: tiling.tile(),
            chunk: chunk.max(1),
            blocks: self.fewest_row_blocks(isa, tiling).max(1),
            ahead: AHEAD,
        }
    }

    /// Cuts with other tiles that may be as fast.
    pub(crate) fn tiles_to_try(&self, isa: Isa, limit: f64) -> Vec<Cut> {
        if self.ragged(isa) {
            return vec![];
        }
        let ([_, h, w], part) = (self.output_plane(), self.part(isa, 0));
        let products = self.ic_per_group() * self.taps();
        let near = tile::near_best(isa, h, w, part.vectors, products, self.most(isa), limit);
        near.iter().map(|t| self.cut_to(isa, t, &part)).collect()
    }

    /// Cuts that differ from this one in the reduction or in what is dealt out.
    pub(crate) fn cuts_beside(&self, cut: &Cut) -> Vec<Cut> {
        let runs = self.ic_per_group() / self.x.cb.min(self.ic_per_group());
        let tiles = Split::at_most(self.output_plane()[1], cut.tile[0]).pieces;
        let chunks = [cut.chunk / 2, 2 * cut.chunk, runs].map(|chunk| Cut { chunk: chunk.min(runs), ..*cut });
        let blocks = [1, cut.blocks / 2, 2 * cut.blocks, tiles].map(|n| Cut { blocks: n.min(tiles), ..*cut });
        let other = chunks.into_iter().chain(blocks).chain(cut.other_distances());
        other.filter(|c| c.check_sizes().is_ok()).collect()
    }

    /// Whether the direct kernel can be cut so.
    pub(crate) fn check_cut(&self, isa: Isa, cut: &Cut) -> std::result::Result<(), String> {
        if self.ragged(isa) {
            let why =
                format!("got group {} of channels that are no whole blocks, wanted whole ones", self.group);
            return Err(why);
        }
        cut.check_tile(isa)
    }

    /// The nest of a part whose packed weights begin at byte `weights_at`.
    fn nest(&self, isa: Isa, threads: usize, part: &Part, weights_at: usize) -> Nest {
        let tiling = self.tiling(isa, part);
        let reduction = self.reduction(isa, &tiling, part);
        self.nest_of(isa, threads, part, weights_at, tiling, reduction)
    }

    /// The same, cut and reduced so.
    pub(super) fn nest_of(
        &self,
        isa: Isa,
        threads: usize,
        part: &Part,
        weights_at: usize,
        tiling: tile::Tiling,
        reduction: Reduction,
    ) -> Nest {
        let (x, y) = (&self.x, &self.y);
        let r = self.residual.unwrap_or(*y);
        let i = |n: usize| n as i64;
        let vb = i(isa.vector_bytes());
        let products = i(self.ic_per_group() * self.taps());
        let vectors = part.vectors;
        let group = Strides {
            x: i(x.block_bytes() * self.ic_per_group() / x.cb),
            w: i(vectors) * vb * products,
            bias: i(vectors) * vb,
            residual: i(vectors * r.block_bytes()),
            y: i(vectors * y.block_bytes()),
        };
        let spatial = |x: usize, bytes: &dyn Fn(&BlockedLayout) -> usize| Strides {
            x: i(x),
            residual: i(bytes(&r)),
            y: i(bytes(y)),
            ..Strides::default()
        };
        let [x_row, x_col] = self.input_steps();
        let pads = [x.plane_bytes(), x.row_bytes(), x.pixel_bytes()];
        let padding: usize = (0..3).map(|d| pads[d] * self.pads_begin[d]).sum();
        let batch = Strides {
            x: i(x.batch_bytes()),
            residual: i(r.batch_bytes()),
            y: i(y.batch_bytes()),
            ..Strides::default()
        };
        Nest {
            isa,
            batch: vec![
                (y.n, batch),
                (self.inner_groups(isa), group),
                (
                    self.output_plane()[0],
                    spatial(x.plane_bytes() * self.strides[0], &BlockedLayout::plane_bytes),
                ),
            ],
            rows: tiling.rows,
            row: spatial(x_row, &|l| self.pitches(l)[0]),
            row_blocks: self.row_blocks(isa, &tiling, threads),
            cols: tiling.cols,
            col: spatial(x_col, &|l| self.pitches(l)[1]),
            vectors: tiling.vectors,
            vector: Strides {
                x: 0,
                w: products * vb,
                bias: vb,
                residual: i(r.block_bytes()),
                y: i(y.block_bytes()),
            },
            vector_blocks: tiling.vectors.pieces,
            first_lane: part.y_lane,
            last_lanes: match part.y_lane + self.oc_per_group() {
                end if self.ragged(isa) => (end - 1) % isa.lanes() + 1,
                end => last_lanes(isa, end),
            },
            b_step: None,
            reduction,
            epilogue: Epilogue {
                alpha: 1.0,
                bias: if self.bias { BiasKind::Column } else { BiasKind::None },
                residual: self.residual.map(|_| 1.0),
                activation: self.activation,
            },
            base: Strides {
                x: i(x.origin_bytes() + part.x_block * x.block_bytes() + 4 * part.x_lane) - i(padding),
                w: i(weights_at),
                bias: i(part.y_block) * vb,
                residual: i(r.origin_bytes() + part.y_block * r.block_bytes()),
                y: i(y.origin_bytes() + part.y_block * y.block_bytes()),
            },
            prefetch: self.cut.map_or(AHEAD, |c| c.ahead) as i32,
            vectors_first: false,
            tiles: None,
        }
    }

    /// The step function; operands `x`, `w` (packed), `bias` (if any), `residual` (if any), `y`. The halo of `y` is zeroed too.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for groups that are not whole blocks, [`Error::Invalid`] for layouts that do not fit.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        let isa = e.isa();
        self.check(isa)?;
        if let Some(why) = self.cut.and_then(|cut| self.check_cut(isa, &cut).err()) {
            return Err(Error::invalid("conv", why));
        }
        if !self.handles_group(isa) {
            return Err(Error::unsupported(
                "conv",
                format!("group {} of {} to {} channels", self.group, self.x.c, self.y.c),
            ));
        }
        let (mut nests, mut weights_at) = (vec![], 0);
        for part in self.parts(isa) {
            let nest = self.nest(isa, threads.max(1), &part, weights_at);
            weights_at += 4 * self.part_elems(isa, &part) * self.inner_groups(isa);
            let kernels = nest.define_kernels(e)?;
            nests.push((part, nest, kernels));
        }
        let mut operands =
            vec![Operand::read("x", self.x.bytes()), Operand::read("w", 4 * self.packed_elems(isa))];
        if self.bias {
            operands.push(Operand::read("bias", 4 * self.bias_elems(isa)));
        }
        let bias_at = if self.bias { 2 } else { 0 };
        self.finish(e, threads, &nests, operands, bias_at)
    }

    /// The step function around nests; `operands` are those before the residual and y, `bias_at` is which of them has what
    /// the columns have, if something does.
    pub(super) fn finish<M: Module>(
        &self,
        e: &mut Emitter<M>,
        threads: usize,
        nests: &[PartNest],
        operands: Vec<Operand>,
        bias_at: usize,
    ) -> Result<Kernel> {
        let units = nests.iter().map(|n| n.1.units()).max().unwrap_or(1);
        let tasks = units.min(threads.max(1));
        let mut operands = operands;
        operands.extend(self.residual.map(|r| Operand::read("residual", r.bytes())));
        operands.push(Operand::write("y", self.y.bytes()));
        let (residual, last) = (self.residual.is_some(), operands.len() - 1);
        let halo = halo::Halo::define(e, &self.y)?;
        let y = self.y;
        let func = e.step("conv", operands.len(), |m, b, p, task| {
            let args = NestArgs {
                x: p[0],
                w: p[1],
                bias: p[bias_at],
                residual: if residual { p[last - 1] } else { p[0] },
                y: p[last],
            };
            for (part, nest, kernels) in nests {
                let first_block = off(b, args.y, (part.y_block * y.block_bytes()) as i64);
                nest.emit(m, b, &args, task, tasks, kernels, &mut |m, b, batch, rows, groups| {
                    if let Some(halo) = &halo {
                        let (vectors, all) = (&nest.vectors, part.vectors);
                        halo.zero_unit(m, b, &y, first_block, batch, rows, groups, vectors, all);
                    }
                });
            }
            Ok(())
        })?;
        let flops = 2
            * (self.y.n * self.y.c * self.ic_per_group() * self.taps()) as u64
            * self.out().iter().product::<usize>() as u64;
        let name = nests.first().map_or_else(String::new, |n| self.name(&n.1));
        Ok(Kernel { func, name, operands, tasks, flops })
    }

    fn name(&self, nest: &Nest) -> String {
        let dims = |d: &[usize; 3]| {
            d.map(|n| n.to_string())[usize::from(self.out()[0] == 1 && self.kernel[0] == 1)..].join("x")
        };
        let group = if self.group == 1 { String::new() } else { format!(" group {}", self.group) };
        let tile = format!("{}x{}", nest.rows.size(0) * nest.cols.size(0), nest.vectors.size(0));
        let (k, s) = (dims(&self.kernel), self.strides[2]);
        let how = nest.how();
        format!("conv {k}/{s} {}->{}{group} {} {how} {tile}", self.x.c, self.y.c, dims(&self.out()))
    }
}
