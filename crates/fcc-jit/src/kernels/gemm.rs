//! Matrix products: `Y = act(alpha * A·B + bias + beta * R)`, batched.

use super::activation::Activation;
use super::cut::Cut;
use super::nest::{BiasKind, Epilogue, Nest, NestArgs, Reduction, Strides};
use super::split::Split;
use super::tile;
use crate::asm::Isa;
use crate::error::{Error, Result};
use crate::floats::Floats;
use crate::module::{Emitter, Kernel, Operand};
use cranelift_module::Module;
use std::ops::Range;

/// A batch dim: its count and the distance of neighbouring matrices in elements (0 to use one matrix again).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BatchDim {
    /// Matrices.
    pub count: usize,
    /// Elements between matrices of A.
    pub a: usize,
    /// Elements between matrices of B; when B is packed, in matrices: 0 for one B, 1 for one each.
    pub b: usize,
    /// Elements between biases.
    pub bias: usize,
    /// Elements between residuals.
    pub residual: usize,
    /// Elements between results.
    pub y: usize,
}

/// How B is stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BStorage {
    /// As [`Gemm::pack_b`] lays it out: for constant B.
    Packed,
    /// Row-major `[K, N]` in place, with this many elements between rows.
    /// A transposed one has to be packed by a step of its own, [`super::pack::PackB`].
    InPlace {
        /// Elements between rows.
        row: usize,
    },
}

/// The bias operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GemmBias {
    /// None.
    None,
    /// `[N]`, one value a column; the operand is padded to [`Gemm::bias_elems`].
    Columns,
    /// `[M]`, one value a row.
    Rows,
    /// One value for all.
    Scalar,
}

/// A second added term `[M, N]`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GemmResidual {
    /// Elements between rows (0 when one row serves all).
    pub row: usize,
    /// Factor (Gemm's beta).
    pub scale: f32,
}

/// One matrix product. Columns of Y and of the residual are contiguous.
#[derive(Clone, Debug, PartialEq)]
pub struct Gemm {
    /// Rows of A and Y.
    pub m: usize,
    /// Columns of B and Y.
    pub n: usize,
    /// Columns of A, rows of B. Not 0: a product of nothing is the caller's fill.
    pub k: usize,
    /// Batch dims, outermost first.
    pub batch: Vec<BatchDim>,
    /// Elements between rows of A.
    pub a_row: usize,
    /// Elements between columns of A: 1, or the pitch of a transposed A.
    pub a_col: usize,
    /// B.
    pub b: BStorage,
    /// Elements between rows of Y.
    pub y_row: usize,
    /// Factor of the product. For constant B fold it into the weights instead.
    pub alpha: f32,
    /// Bias operand.
    pub bias: GemmBias,
    /// Residual operand.
    pub residual: Option<GemmResidual>,
    /// Applied last.
    pub activation: Option<Activation>,
    /// How it is cut, if the model of its time is not to decide.
    pub cut: Option<Cut>,
}

/// Bytes of B that one block of column panels may have: a good part of L2.
const B_BLOCK_BYTES: usize = 512 << 10;
/// Longest run of k in one kernel call when there are many rows.
const K_CHUNK: usize = 1024;
/// Bytes ahead in B that are fetched.
const AHEAD: usize = 2048;
/// Elements of B that are packed between one word about what is done and the next: 1 MiB.
const DONE_ELEMS: usize = 1 << 18;
/// Rows of a panel that are written at a time. From a transposed B that takes some cache lines of each column, for columns
/// may lie so that few of them fit into the caches side by side.
const BLOCK_K: usize = 64;

impl Gemm {
    /// A plain product of row-major matrices.
    pub fn new(m: usize, n: usize, k: usize, b: BStorage) -> Gemm {
        Gemm {
            m,
            n,
            k,
            batch: Vec::new(),
            a_row: k,
            a_col: 1,
            b,
            y_row: n,
            alpha: 1.0,
            bias: GemmBias::None,
            residual: None,
            activation: None,
            cut: None,
        }
    }

    /// How the column vectors are cut into panels.
    pub(super) fn vector_split(&self, isa: Isa) -> Split {
        self.tiling(isa).vectors
    }

    fn tiling(&self, isa: Isa) -> tile::Tiling {
        let vectors = self.n.div_ceil(isa.lanes());
        match &self.cut {
            Some(cut) => tile::Tiling::of(self.m, 1, vectors, cut.tile),
            None => tile::choose(isa, self.m, 1, vectors, self.k, self.most()),
        }
    }

    fn most(&self) -> tile::Most {
        // what lies at a constant distance along k is read through, whatever its rows
        let rows = if self.a_col == 1 { tile::rows_in_cache(4 * self.a_row) } else { usize::MAX };
        tile::Most { rows, ..tile::Most::ANY }
    }

    /// How the product is cut: as it says itself, else as the model of its time does.
    pub fn cut(&self, isa: Isa) -> Cut {
        self.cut.unwrap_or_else(|| self.cut_to(isa, &self.tiling(isa)))
    }

    /// The cut for a tiling, the rest as the model has it.
    fn cut_to(&self, isa: Isa, tiling: &tile::Tiling) -> Cut {
        // B is used once by each row tile: with one tile there is nothing to keep in cache.
        let keeps = tiling.rows.pieces > 1;
        let chunk = Split::at_most(self.k, if keeps { K_CHUNK } else { self.k }).size(0);
        let panel_bytes = chunk * tiling.vectors.size(0) * isa.vector_bytes();
        let per_block = if keeps { (B_BLOCK_BYTES / panel_bytes).max(1) } else { 1 };
        // one row reads B once, in order, as fast as the hardware's own prefetches bring it
        let ahead = if self.m == 1 { 0 } else { AHEAD };
        Cut { tile: tiling.tile(), chunk, blocks: tiling.vectors.pieces.div_ceil(per_block), ahead }
    }

    /// Cuts with other tiles that may be as fast.
    pub(crate) fn tiles_to_try(&self, isa: Isa, limit: f64) -> Vec<Cut> {
        let near = tile::near_best(isa, self.m, 1, self.n.div_ceil(isa.lanes()), self.k, self.most(), limit);
        near.iter().map(|t| self.cut_to(isa, t)).collect()
    }

    /// Cuts that differ from this one in the reduction or in what is dealt out.
    pub(crate) fn cuts_beside(&self, isa: Isa, cut: &Cut) -> Vec<Cut> {
        let panels = Split::at_most(self.n.div_ceil(isa.lanes()), cut.tile[2]).pieces;
        let chunks =
            [cut.chunk / 2, 2 * cut.chunk, self.k].map(|chunk| Cut { chunk: chunk.min(self.k), ..*cut });
        let blocks =
            [1, cut.blocks / 2, 2 * cut.blocks, panels].map(|n| Cut { blocks: n.min(panels), ..*cut });
        let other = chunks.into_iter().chain(blocks).chain(cut.other_distances());
        other.filter(|c| c.check_sizes().is_ok()).collect()
    }

    /// Whether the kernels can be cut so.
    pub(crate) fn check_cut(&self, isa: Isa, cut: &Cut) -> std::result::Result<(), String> {
        match cut.tile[1] {
            1 => cut.check_tile(isa),
            n => Err(format!("got tiles of {n} columns of pixels, wanted 1 of a product")),
        }
    }

    /// Elements of packed B for one matrix.
    pub fn packed_elems(&self, isa: Isa) -> usize {
        self.n.div_ceil(isa.lanes()) * isa.lanes() * self.k
    }

    /// Elements of the bias operand: columns are padded to whole vectors (with anything).
    pub fn bias_elems(&self, isa: Isa) -> usize {
        match self.bias {
            GemmBias::None => 0,
            GemmBias::Columns => self.n.div_ceil(isa.lanes()) * isa.lanes(),
            GemmBias::Rows => self.m,
            GemmBias::Scalar => 1,
        }
    }

    /// Packs one constant B into `out` (of [`Gemm::packed_elems`]): column panels of the kernel's width, k by k. Element
    /// `(k, n)` of B is `b[k * row + n * col]`, times `scale`; one of the two steps must be 1.
    ///
    /// B is read from its first element to its last, and `done` hears again and again of a run of elements that is not
    /// read any more: B may be as large as what there is of memory.
    ///
    /// # Errors
    /// When `out` or `b` is too small, and for other steps.
    pub fn pack_b<'a>(
        &self,
        isa: Isa,
        b: impl Into<Floats<'a>>,
        (row, col): (usize, usize),
        scale: f32,
        out: &mut [f32],
        mut done: impl FnMut(Range<usize>),
    ) -> Result<()> {
        let (b, need) = (b.into(), (self.k - 1) * row + (self.n - 1) * col + 1);
        if out.len() < self.packed_elems(isa) || b.len() < need || row != 1 && col != 1 {
            return Err(Error::invalid(
                "gemm",
                format!(
                    "packing B of {} elements, {row} and {col} apart, into {}, needs {need} and {}",
                    b.len(),
                    out.len(),
                    self.packed_elems(isa)
                ),
            ));
        }
        let mut told = 0;
        let mut tell = |end: usize| {
            if end - told >= DONE_ELEMS || end >= need {
                done(told..end);
                told = end;
            }
        };
        if col == 1 {
            let panels: Vec<_> = self.panels(isa).collect();
            for k in (0..self.k).step_by(BLOCK_K) {
                let ks = k..(k + BLOCK_K).min(self.k);
                for (first, used, at) in &panels {
                    self.pack_lines(b, row, *first, *used, ks.clone(), scale, &mut out[at.clone()]);
                }
                tell((ks.end - 1) * row + self.n);
            }
        } else {
            for (first, used, at) in self.panels(isa) {
                let rows = b.part(first * col..(first + used - 1) * col + self.k);
                self.pack_panel(rows, col, used, scale, &mut out[at]);
                tell((first + used - 1) * col + self.k);
            }
        }
        Ok(())
    }

    /// The panels of packed B: first column, columns, and where the panel lies.
    fn panels(&self, isa: Isa) -> impl Iterator<Item = (usize, usize, Range<usize>)> {
        let (split, lanes, n, k) = (self.vector_split(isa), isa.lanes(), self.n, self.k);
        (0..split.pieces).map(move |i| {
            let (first, width) = (split.start(i) * lanes, split.size(i) * lanes);
            (first, width.min(n - first), first * k..(first + width) * k)
        })
    }

    /// Packs some rows of one panel, of `used` columns from `first` on of a B whose rows are `pitch` elements apart.
    fn pack_lines(
        &self,
        b: Floats<'_>,
        pitch: usize,
        first: usize,
        used: usize,
        ks: Range<usize>,
        scale: f32,
        panel: &mut [f32],
    ) {
        let width = panel.len() / self.k;
        let lines = panel[ks.start * width..ks.end * width].chunks_exact_mut(width);
        for (k, line) in ks.zip(lines) {
            let (values, padding) = line.split_at_mut(used);
            let row = b.part(k * pitch + first..k * pitch + first + used);
            for (to, v) in values.iter_mut().zip(row.iter()) {
                *to = v * scale;
            }
            padding.fill(0.0);
        }
    }

    /// Packs one panel of `used` columns of a transposed B, whose columns are rows, `pitch` elements apart.
    fn pack_panel(&self, rows: Floats<'_>, pitch: usize, used: usize, scale: f32, panel: &mut [f32]) {
        let width = panel.len() / self.k;
        for (i, block) in panel.chunks_mut(width * BLOCK_K).enumerate() {
            let (from, ks) = (i * BLOCK_K, block.len() / width);
            let row = |j: usize| rows.part(j * pitch + from..j * pitch + from + ks);
            // four columns at a time are one vector
            for j in (0..used / 4 * 4).step_by(4) {
                let four = [row(j), row(j + 1), row(j + 2), row(j + 3)];
                for (k, line) in block.chunks_exact_mut(width).enumerate() {
                    line[j..j + 4].copy_from_slice(&four.map(|row| row.at(k) * scale));
                }
            }
            for j in used / 4 * 4..used {
                for (to, v) in block[j..].iter_mut().step_by(width).zip(row(j).iter()) {
                    *to = v * scale;
                }
            }
            for line in block.chunks_exact_mut(width) {
                line[used..].fill(0.0);
            }
        }
    }

    pub(super) fn check(&self) -> Result<()> {
        if self.m == 0 || self.n == 0 || self.k == 0 || self.batch.iter().any(|d| d.count == 0) {
            return Err(Error::unsupported(
                "gemm",
                format!("an empty product {}x{}x{}", self.m, self.n, self.k),
            ));
        }
        Ok(())
    }

    fn span(&self, what: &str, inner: usize, step: impl Fn(&BatchDim) -> usize) -> Result<usize> {
        let outer = self
            .batch
            .iter()
            .try_fold(0usize, |s, d| step(d).checked_mul(d.count - 1).and_then(|v| s.checked_add(v)));
        let bytes = outer
            .and_then(|o| o.checked_add(inner))
            .and_then(|e| e.checked_mul(4))
            .filter(|&b| b <= isize::MAX as usize);
        bytes.ok_or_else(|| Error::invalid("gemm", format!("operand {what} is too large")))
    }

    /// Operands in order: `a`, `b`, then `bias` and `residual` when there are such, then `y`.
    pub(super) fn operands(&self, isa: Isa) -> Result<Vec<Operand>> {
        let a = (self.m - 1) * self.a_row + (self.k - 1) * self.a_col + 1;
        let mut ops = vec![Operand::read("a", self.span("a", a, |d| d.a)?)];
        let b = match self.b {
            BStorage::Packed => self.span("b", self.packed_elems(isa), |d| d.b * self.packed_elems(isa))?,
            BStorage::InPlace { row } => self.span("b", (self.k - 1) * row + self.n, |d| d.b)?,
        };
        ops.push(Operand::read("b", b));
        if self.bias != GemmBias::None {
            ops.push(Operand::read("bias", self.span("bias", self.bias_elems(isa), |d| d.bias)?));
        }
        if let Some(r) = self.residual {
            ops.push(Operand::read(
                "residual",
                self.span("residual", (self.m - 1) * r.row + self.n, |d| d.residual)?,
            ));
        }
        ops.push(Operand::write("y", self.span("y", (self.m - 1) * self.y_row + self.n, |d| d.y)?));
        Ok(ops)
    }

    fn nest(&self, isa: Isa, threads: usize) -> Nest {
        self.nest_of(isa, threads, self.tiling(isa))
    }

    /// The same, cut so.
    pub(super) fn nest_of(&self, isa: Isa, threads: usize, tiling: tile::Tiling) -> Nest {
        let vb = isa.vector_bytes() as i64;
        let cut = self.cut.unwrap_or_else(|| self.cut_to(isa, &tiling));
        let chunks = Split::at_most(self.k, cut.chunk);
        let mut vector_blocks = cut.blocks.min(tiling.vectors.pieces);
        let batch: usize = self.batch.iter().map(|d| d.count).product();
        let mut row_blocks = 1;
        if threads > 1 && !balanced(batch * vector_blocks, threads) {
            // Rows are the better cut when there are many: each thread then reads its own A and all of B.
            if tiling.rows.pieces >= 2 * threads {
                row_blocks = threads;
            } else if tiling.vectors.pieces >= threads {
                vector_blocks = tiling.vectors.pieces.min(vector_blocks.next_multiple_of(threads));
            } else {
                row_blocks = tiling.rows.pieces.min(threads);
            }
        }
        let e = |n: usize| 4 * n as i64;
        let (b_step, w_vector) = match self.b {
            BStorage::Packed => (None, self.k as i64 * vb),
            BStorage::InPlace { row } => (Some(4 * row as i32), vb),
        };
        let packed = self.packed_elems(isa);
        let batch = self.batch.iter().map(|d| {
            let w = match self.b {
                BStorage::Packed => e(d.b * packed),
                BStorage::InPlace { .. } => e(d.b),
            };
            (d.count, Strides { x: e(d.a), w, bias: e(d.bias), residual: e(d.residual), y: e(d.y) })
        });
        let bias_vector = if self.bias == GemmBias::Columns { vb } else { 0 };
        let bias_row = if self.bias == GemmBias::Rows { 4 } else { 0 };
        Nest {
            isa,
            batch: batch.collect(),
            rows: tiling.rows,
            row: Strides {
                x: e(self.a_row),
                w: 0,
                bias: bias_row,
                residual: e(self.residual.map_or(0, |r| r.row)),
                y: e(self.y_row),
            },
            row_blocks,
            cols: Split::into(1, 1),
            col: Strides::default(),
            vectors: tiling.vectors,
            vector: Strides { x: 0, w: w_vector, bias: bias_vector, residual: vb, y: vb },
            vector_blocks,
            first_lane: 0,
            last_lanes: (self.n - 1) % isa.lanes() + 1,
            b_step,
            reduction: Reduction {
                chunks,
                x_step: e(self.a_col),
                products: 1,
                straight: true,
                loops: Vec::new(),
                taps: vec![0],
                k: 0,
                head: None,
                tail_k: 0,
                a_step: 4 * self.a_col as i32,
            },
            epilogue: Epilogue {
                alpha: self.alpha,
                bias: match self.bias {
                    GemmBias::None => BiasKind::None,
                    GemmBias::Columns => BiasKind::Column,
                    GemmBias::Rows | GemmBias::Scalar => BiasKind::Row,
                },
                residual: self.residual.map(|r| r.scale),
                activation: self.activation,
            },
            base: Strides::default(),
            prefetch: cut.ahead as i32,
            vectors_first: true,
            tiles: None,
        }
    }

    /// The step function; operands `a`, `b`, `bias` (if any), `residual` (if any), `y`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for empty products and offsets beyond 2 GiB inside a tile.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        self.check()?;
        let isa = e.isa();
        if let Some(why) = self.cut.and_then(|cut| self.check_cut(isa, &cut).err()) {
            return Err(Error::invalid("gemm", why));
        }
        let limit = i32::MAX as usize / 4 / 32;
        let pitches = [
            self.a_row,
            self.a_col,
            self.y_row,
            if let BStorage::InPlace { row } = self.b { row } else { 0 },
        ];
        if let Some(p) = pitches.iter().find(|&&p| p > limit) {
            return Err(Error::unsupported("gemm", format!("a pitch of {p} elements is above {limit}")));
        }
        let operands = self.operands(isa)?;
        let bias_at = if self.bias == GemmBias::None { 0 } else { 2 };
        self.finish(e, threads, &self.nest(isa, threads.max(1)), operands, bias_at)
    }

    /// The step function around a nest; `bias_at` is which operand has what the columns have, if something does.
    pub(super) fn finish<M: Module>(
        &self,
        e: &mut Emitter<M>,
        threads: usize,
        nest: &Nest,
        operands: Vec<Operand>,
        bias_at: usize,
    ) -> Result<Kernel> {
        let tasks = nest.units().min(threads.max(1));
        let kernels = nest.define_kernels(e)?;
        let (residual, y) = (self.residual.is_some(), operands.len() - 1);
        let func = e.step("gemm", operands.len(), |m, b, p, task| {
            let args = NestArgs {
                x: p[0],
                w: p[1],
                bias: p[bias_at],
                residual: if residual { p[y - 1] } else { p[0] },
                y: p[y],
            };
            nest.emit(m, b, &args, task, tasks, &kernels, &mut |_, _, _, _, _| {});
            Ok(())
        })?;
        let batch: usize = self.batch.iter().map(|d| d.count).product();
        let count = if batch == 1 { String::new() } else { format!("{batch}x ") };
        let name = format!(
            "gemm {count}{}x{}x{} {} {}x{}",
            self.m,
            self.n,
            self.k,
            nest.how(),
            nest.rows.size(0),
            nest.vectors.size(0)
        );
        let flops = 2 * (batch as u64) * self.m as u64 * self.n as u64 * self.k as u64;
        Ok(Kernel { func, name, operands, tasks, flops })
    }
}

/// True when dealing `units` out to `threads` wastes little.
pub(super) fn balanced(units: usize, threads: usize) -> bool {
    units.is_multiple_of(threads) || units >= 8 * threads
}
