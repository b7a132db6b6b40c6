//! Convolution of bytes on blocked activations. A block of channels is one or more steps of four.
//!
//! Groups that are not whole blocks are merged into dense ones whose other weights are 0: of a depthwise convolution each
//! block of channels becomes one dense group, which costs four products of bytes a tap and little else.

use super::gemm::{scalar_operands, scalars, step};
use super::micro::Micro;
use super::nest::{Nest, Steps};
use super::pack::{self, Columns, Weights};
use super::{Epilogue, Zero};
use crate::asm::{Dot, Isa};
use crate::error::{Error, Result};
use crate::kernels::amx::regroup::{Regroup, Values};
use crate::kernels::amx::{BYTE_CHANNELS, LEAST_CHANNELS, tiles};
use crate::kernels::gemm::balanced;
use crate::kernels::layout::BlockedLayout;
use crate::kernels::tile::{self, Tiling};
use crate::module::{Emitter, Kernel, Operand};
use cranelift_module::Module;

/// A convolution in ONNX's words; ranks below 3 have leading 1s (dilation 1, stride 1, pads 0).
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    /// Input of bytes: blocked by the lanes of the level, or by 4; for tiles by 64 (see [`Conv::for_tiles`]). Its halo
    /// covers the padding and holds the zero point.
    pub x: BlockedLayout,
    /// Output, blocked by the lanes of the level. Its halo is left alone.
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
    /// How products are summed.
    pub dot: Dot,
    /// Zero point of x.
    pub zero: Zero,
    /// Signed bytes that each weight is the sum of: [`pack::parts`].
    pub parts: usize,
    /// What is made of the sums.
    pub epilogue: Epilogue,
    /// The residual, blocked like the output.
    pub residual: Option<BlockedLayout>,
}

/// Groups as the kernel sees them: all dense, of whole blocks but for the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Groups {
    count: usize,
    /// Channels of x and of y for each, whole blocks where there is more than one.
    ic: usize,
    oc: usize,
}

/// Most steps that are unrolled for the taps of a kernel row.
const MAX_UNROLLED: usize = 32;
/// Input rows that one row block may span: stays in L2 while all output channels pass.
const INPUT_BLOCK_BYTES: usize = 256 << 10;

impl Conv {
    /// The same by AMX tiles, and the step that puts its input into blocks of 64 first.
    ///
    /// # Errors
    /// Why tiles do not do it.
    pub fn for_tiles(&self) -> std::result::Result<(Conv, Regroup), String> {
        let x = BlockedLayout { cb: BYTE_CHANNELS, parent_blocks: None, ..self.x };
        let tiled = Conv { x, dot: Dot::Tiles, ..self.clone() };
        let of = tiled.groups();
        // zeros between groups that a tile would multiply
        let merged = of.count * of.ic * of.oc * self.group > self.x.c * self.y.c;
        if self.x.cb != 16 || of.ic < LEAST_CHANNELS || merged {
            let found = format!("{} channels in {} groups, in blocks of {}", self.x.c, self.group, self.x.cb);
            return Err(format!("no AMX: {found}, need {LEAST_CHANNELS} or more, groups in whole tiles"));
        }
        tiled.x.check("int8 conv").map_err(|e| format!("no AMX: {e}"))?;
        Ok((tiled, Regroup::activation(&self.x, Values::Bytes)))
    }

    fn groups(&self) -> Groups {
        let (x, y, g) = (self.x.cb, self.y.cb, self.group.max(1));
        let (ic, oc) = (self.x.c / g, self.y.c / g);
        if g > 1 && x == y && ic == oc && ic > 0 && x.is_multiple_of(ic) {
            return Groups { count: self.x.c.div_ceil(x), ic: x, oc: x };
        }
        let whole =
            (1..g).find(|m| g.is_multiple_of(*m) && (m * ic).is_multiple_of(x) && (m * oc).is_multiple_of(y));
        match whole {
            Some(m) => Groups { count: g / m, ic: m * ic, oc: m * oc },
            None => Groups { count: 1, ic: self.x.c, oc: self.y.c },
        }
    }
    fn taps(&self) -> usize {
        self.kernel.iter().product()
    }
    /// Blocks of input channels that are whole, and steps of the last one that is not.
    fn blocks(&self) -> (usize, usize) {
        let (ic, cb) = (self.groups().ic, self.x.cb);
        match (ic / cb, (ic % cb).div_ceil(4)) {
            // parts run over the same blocks again, tiles have rows of 64: there, blocks are taken whole
            (whole, tail) if whole == 0 || (tail > 0 && (self.parts > 1 || self.dot == Dot::Tiles)) => {
                (whole + usize::from(tail > 0), 0)
            }
            other => other,
        }
    }
    fn steps(&self) -> usize {
        let (whole, tail) = self.blocks();
        self.taps() * (whole * self.x.cb / 4 + tail)
    }
    fn vectors(&self) -> usize {
        self.groups().oc.div_ceil(self.y.cb)
    }

    /// One long row when nothing lies between rows.
    fn flat(&self) -> bool {
        self.kernel == [1, 1, 1]
            && self.strides == [1, 1, 1]
            && self.pads_begin == [0; 3]
            && self.x.is_tight()
            && self.y.is_tight()
            && self.residual.is_none_or(|r| r.is_tight())
    }
    fn plane(&self) -> [usize; 3] {
        let [d, h, w] = self.y.spatial;
        if self.flat() { [1, 1, d * h * w] } else { [d, h, w] }
    }
    fn tiling(&self, isa: Isa) -> Tiling {
        let [_, h, w] = self.plane();
        if self.dot == Dot::Tiles {
            return tiles::tiling(h, w, self.vectors());
        }
        tile::choose(isa, h, w, self.vectors(), self.steps() * self.parts, tile::Most::ANY)
    }

    /// Bytes of the packed weights.
    pub fn packed_bytes(&self, isa: Isa) -> usize {
        self.groups().count * self.vectors() * self.parts * self.steps() * self.dot.step_bytes(isa.lanes())
    }
    /// Floats of what the columns have beside.
    pub fn column_elems(&self, isa: Isa) -> usize {
        let record = Micro::column_bytes(isa, self.zero, &self.epilogue) / 4;
        self.groups().count * self.vectors() * record
    }

    /// `(channel of x in its group, tap)` of `(step, i)`.
    fn place(&self, step: usize, i: usize) -> (usize, usize) {
        let (whole, tail) = self.blocks();
        let (cb, taps) = (self.x.cb, self.taps());
        let per_block = taps * cb / 4;
        let (block, k, rest) = match step / per_block {
            b if b < whole => (b, cb / 4, step % per_block),
            _ => (whole, tail, step - whole * per_block),
        };
        (block * cb + rest % k * 4 + i, rest / k)
    }
    /// Calls `f` for each group of the kernel with its number and the weight `(step, i, column)` in it.
    fn each_group(
        &self,
        w: &dyn Fn(usize) -> i32,
        f: &mut dyn FnMut(usize, &Weights<'_>) -> Result<()>,
    ) -> Result<()> {
        let (g, group) = (self.groups(), self.group.max(1));
        let (ic, oc, taps) = (self.x.c / group, self.y.c / group, self.taps());
        for i in 0..g.count {
            let at = |step: usize, lane: usize, column: usize| {
                let (channel, tap) = self.place(step, lane);
                let (from, to) = (i * g.ic + channel, i * g.oc + column);
                if channel >= g.ic || from >= self.x.c || to >= self.y.c || from / ic != to / oc {
                    return 0;
                }
                w((to * ic + from % ic) * taps + tap)
            };
            let n = g.oc.min(self.y.c - i * g.oc);
            f(i, &Weights { n, steps: self.steps(), at: &at })?;
        }
        Ok(())
    }

    /// Packs weights: `w(i)` is element `i` of `[M, C/group, kD, kH, kW]` less its zero point.
    ///
    /// # Errors
    /// When `out` has another length than [`Conv::packed_bytes`].
    pub fn pack(&self, isa: Isa, w: &dyn Fn(usize) -> i32, out: &mut [u8]) -> Result<()> {
        let (vectors, parts) = (self.tiling(isa).vectors, self.parts);
        let each = self.packed_bytes(isa) / self.groups().count.max(1);
        self.each_group(w, &mut |g, weights| {
            pack::pack(isa, self.dot, &vectors, parts, weights, &mut out[g * each..][..each])
        })
    }
    /// Packs what the columns have: an int32 bias and the constants of the epilogue, each of M elements.
    ///
    /// # Errors
    /// When there is not one constant for each column and input.
    pub fn pack_columns(
        &self,
        isa: Isa,
        w: &dyn Fn(usize) -> i32,
        bias: Option<&[i32]>,
        constants: &[Vec<f32>],
        out: &mut [f32],
    ) -> Result<()> {
        let (each, oc) = (self.column_elems(isa) / self.groups().count.max(1), self.groups().oc);
        let signed = self.x.elem == crate::kernels::elem::Elem::I8;
        self.each_group(w, &mut |g, weights| {
            let cut = |v: &[f32]| v[g * oc..][..weights.n].to_vec();
            let constants: Vec<Vec<f32>> = constants.iter().map(|c| cut(c)).collect();
            let bias = bias.map(|b| &b[g * oc..][..weights.n]);
            let columns = Columns { zero: self.zero, signed, bias, constants: &constants };
            pack::pack_columns(isa, self.dot, &self.epilogue, weights, &columns, &mut out[g * each..][..each])
        })
    }

    fn check(&self, isa: Isa) -> Result<()> {
        let bad = |why: String| Err(Error::invalid("int8 conv", why));
        self.x.check("int8 conv")?;
        self.y.check("int8 conv")?;
        let zeros = [&self.kernel, &self.strides, &self.dilations].iter().any(|d| d.contains(&0));
        if zeros || self.group == 0 || self.x.n != self.y.n {
            return bad(format!("{self:?}"));
        }
        if !self.x.c.is_multiple_of(self.group) || !self.y.c.is_multiple_of(self.group) {
            return bad(format!("{} to {} channels in {} groups", self.x.c, self.y.c, self.group));
        }
        if self.y.n == 0 || self.x.c == 0 || self.y.c == 0 || self.y.spatial.contains(&0) {
            return Err(Error::unsupported("int8 conv", "an empty convolution"));
        }
        let x = match self.dot {
            Dot::Tiles => self.x.cb == BYTE_CHANNELS && isa == Isa::Avx512,
            _ => self.x.cb == isa.lanes() || self.x.cb == 4,
        };
        let blocks = self.y.cb == isa.lanes() && x;
        if !blocks || self.x.elem.bytes() != 1 || self.y.elem != self.epilogue.out || self.parts == 0 {
            return bad(format!("input {:?} and output {:?} at level {isa}", self.x, self.y));
        }
        for d in 0..3 {
            let reach =
                (self.y.spatial[d] - 1) * self.strides[d] + (self.kernel[d] - 1) * self.dilations[d] + 1;
            let end = reach.saturating_sub(self.pads_begin[d] + self.x.spatial[d]);
            if self.pads_begin[d] > self.x.halo[d].0 || end > self.x.halo[d].1 {
                return bad(format!("padding {:?} in a halo of {:?}", self.pads_begin, self.x.halo));
            }
        }
        let like = |r: &BlockedLayout| {
            (r.n, r.c, r.spatial, r.cb) == (self.y.n, self.y.c, self.y.spatial, self.y.cb)
        };
        match (&self.residual, self.epilogue.residual()) {
            (None, None) => Ok(()),
            (Some(r), Some(e)) if r.elem == e && like(r) => Ok(()),
            (r, e) => bad(format!("residual {r:?} for one of {e:?}")),
        }
    }

    fn nest(&self, isa: Isa, threads: usize) -> Nest {
        let dot = self.dot;
        let (x, y, g, tiling) = (&self.x, &self.y, self.groups(), self.tiling(isa));
        let r = self.residual.unwrap_or(*y);
        let used = if self.residual.is_some() { 1 } else { 0 };
        let steps_of = |x: usize, r: usize, y: usize| Steps {
            x: x as i64,
            residual: (used * r) as i64,
            y: y as i64,
            ..Steps::default()
        };
        let [d, _, _] = self.plane();
        let [sd, sh, sw] = self.strides;
        let vectors = self.vectors();
        let w_vector = self.parts * self.steps() * self.dot.step_bytes(isa.lanes());
        let column = Micro::column_bytes(isa, self.zero, &self.epilogue);
        let group = Steps {
            w: (vectors * w_vector) as i64,
            columns: (vectors * column) as i64,
            ..steps_of(
                g.ic / x.cb * x.block_bytes(),
                g.oc / y.cb * r.block_bytes(),
                g.oc / y.cb * y.block_bytes(),
            )
        };
        let (whole, tail_k) = self.blocks();
        let dilated = |bytes: usize, d: usize| (bytes * self.dilations[d]) as i32;
        let mut loops = vec![(self.parts, 0), (whole, x.block_bytes() as i32)];
        if self.parts == 1 {
            loops.remove(0);
        }
        loops.extend([
            (self.kernel[0], dilated(x.plane_bytes(), 0)),
            (self.kernel[1], dilated(x.row_bytes(), 1)),
        ]);
        let (pixel, kw, k) = (dilated(x.pixel_bytes(), 2), self.kernel[2], x.cb / 4);
        let unrolled = if dot == Dot::Tiles { kw } else { kw * k };
        let taps = if unrolled <= MAX_UNROLLED {
            (0..kw as i32).map(|i| i * pixel).collect()
        } else {
            loops.push((kw, pixel));
            vec![0]
        };
        let batch = y.n * g.count * d;
        let (row_blocks, vector_blocks) = self.blocks_of(&tiling, batch, threads);
        let base = |l: &BlockedLayout| l.origin_bytes();
        let pads = self.pads_begin;
        let first = base(x) as i64
            - (pads[0] * x.plane_bytes() + pads[1] * x.row_bytes() + pads[2] * x.pixel_bytes()) as i64;
        Nest {
            isa,
            batch: vec![
                (y.n, steps_of(x.batch_bytes(), r.batch_bytes(), y.batch_bytes())),
                (g.count, group),
                (d, steps_of(sd * x.plane_bytes(), r.plane_bytes(), y.plane_bytes())),
            ],
            rows: tiling.rows,
            row: steps_of(sh * x.row_bytes(), r.row_bytes(), y.row_bytes()),
            row_blocks,
            cols: tiling.cols,
            col: steps_of(sw * x.pixel_bytes(), r.pixel_bytes(), y.pixel_bytes()),
            vectors: tiling.vectors,
            vector: Steps {
                w: w_vector as i64,
                columns: column as i64,
                ..steps_of(0, r.block_bytes(), y.block_bytes())
            },
            vector_blocks,
            vectors_first: false,
            // padding channels of y may hold anything
            last_lanes: isa.lanes(),
            base: Steps { x: first, ..steps_of(0, base(&r), base(y)) },
            kernel: Micro {
                isa,
                dot,
                signed: x.elem == crate::kernels::elem::Elem::I8,
                x_rows: vec![],
                y_rows: vec![],
                residual_rows: vec![],
                nv: 1,
                last_lanes: isa.lanes(),
                y_step: 0,
                residual_step: 0,
                loops,
                taps,
                k,
                tail_k,
                rest: 0,
                zero: self.zero,
                scalars: scalars(self.zero, &self.epilogue),
                epilogue: self.epilogue.clone(),
                prefetch: if tiling.rows.pieces * tiling.cols.pieces <= 4 { 1024 } else { 0 },
            },
        }
    }

    /// How many blocks rows and vectors are dealt out in.
    fn blocks_of(&self, tiling: &Tiling, batch: usize, threads: usize) -> (usize, usize) {
        let tiles = tiling.rows.pieces;
        let row = self.x.row_bytes() * self.strides[1] * self.x.blocks().max(1);
        let rows = row * tiling.rows.size(0);
        let mut row_blocks = (tiles * rows).div_ceil(INPUT_BLOCK_BYTES).clamp(1, tiles);
        let mut vector_blocks = 1;
        if threads > 1 && !balanced(batch * row_blocks, threads) {
            if tiles >= 2 * threads {
                row_blocks = row_blocks.next_multiple_of(threads).min(tiles);
            } else if tiling.vectors.pieces >= threads {
                vector_blocks = threads;
            } else {
                row_blocks = tiles.min(threads);
            }
        }
        (row_blocks, vector_blocks)
    }

    /// The step function; operands `x`, `w`, `columns`, the zero point (if it is an operand), the scalars of the epilogue,
    /// the residual (if any), `y`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for layouts that do not fit, [`Error::Unsupported`] for empty convolutions.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        let isa = e.isa();
        super::check_way(e, self.dot)?;
        self.check(isa)?;
        let mut operands = vec![
            Operand::read("x", self.x.bytes()),
            Operand::read("w", self.packed_bytes(isa)),
            Operand::read("columns", 4 * self.column_elems(isa)),
        ];
        operands.extend(scalar_operands(self.zero, &self.epilogue));
        operands.extend(self.residual.map(|r| Operand::read("residual", r.bytes())));
        operands.push(Operand::write("y", self.y.bytes()));
        let nest = self.nest(isa, threads.max(1));
        let pixels: usize = self.y.spatial.iter().product();
        let flops = 2 * (self.y.n * pixels * self.y.c * (self.x.c / self.group) * self.taps()) as u64;
        let name = self.name(&nest);
        step(e, &nest, operands, name, flops, threads, self.residual.is_some())
    }

    fn name(&self, nest: &Nest) -> String {
        let short = |d: &[usize; 3]| {
            d.map(|n| n.to_string())[usize::from(self.y.spatial[0] == 1 && self.kernel[0] == 1)..].join("x")
        };
        let group = if self.group == 1 { String::new() } else { format!(" group {}", self.group) };
        let way = super::way(self.dot);
        let tile = format!("{}x{}", nest.rows.size(0) * nest.cols.size(0), nest.vectors.size(0));
        let (k, s) = (short(&self.kernel), self.strides[2]);
        format!(
            "int8 conv {k}/{s} {}->{}{group} {} {} {way} {tile}",
            self.x.c,
            self.y.c,
            short(&self.y.spatial),
            nest.isa
        )
    }
}

/// The halo that such a convolution of plain extents needs around x.
pub fn halo(
    x: [usize; 3],
    y: [usize; 3],
    kernel: [usize; 3],
    strides: [usize; 3],
    dilations: [usize; 3],
    pads: [usize; 3],
) -> [(usize, usize); 3] {
    [0, 1, 2].map(|d| {
        let reach = (y[d].max(1) - 1) * strides[d] + (kernel[d] - 1) * dilations[d] + 1;
        (pads[d], reach.saturating_sub(pads[d] + x[d]))
    })
}
