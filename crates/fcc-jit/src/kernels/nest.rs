//! The loop nest around the micro-kernel: every contraction (GEMM, convolution, transposed convolution) is one `Nest`.
//!
//! The output is a space of batch dims x row tiles x column tiles x groups of column vectors. It is cut into *units*
//! (one index of each batch dim, one block of row tiles, one block of vector groups), which are dealt out to tasks in
//! contiguous shares. Inside a unit: chunks of the reduction, row tiles, column tiles, vector groups, innermost last.

use super::activation::Activation;
use super::amx::tiles::{TileCalls, Tiles};
use super::brgemm::{Bias, Brgemm, Residual};
use super::clif::{at, clip, coordinates, for_range, off, share};
use super::split::Split;
use crate::asm::{Isa, TILE_BYTES};
use crate::error::{Error, Result};
use crate::module::Emitter;
use cranelift_codegen::ir::{InstBuilder, Value, types::I64};
use cranelift_frontend::FunctionBuilder;
use cranelift_module::{FuncId, Module};

/// Byte strides of the operands along one dim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strides {
    /// Input, or A.
    pub x: i64,
    /// Weights, or B.
    pub w: i64,
    /// Bias.
    pub bias: i64,
    /// Residual.
    pub residual: i64,
    /// Output.
    pub y: i64,
}

/// How the reduction is read.
#[derive(Clone, Debug)]
pub struct Reduction {
    /// The dim that chunks are cut from: channel blocks, or K itself. `total` of it are whole; `tail_k` more products
    /// follow each tap behind the last.
    pub chunks: Split,
    /// Bytes in x for each of that dim.
    pub x_step: i64,
    /// Products for each of that dim (taps, kernel rows and all).
    pub products: usize,
    /// True when the dim is K itself and each chunk is one straight run of k.
    pub straight: bool,
    /// Loops inside the chunk dim.
    pub loops: Vec<(usize, i32)>,
    /// See [`Brgemm::taps`].
    pub taps: Vec<i32>,
    /// See [`Brgemm::k`]; ignored when `straight`.
    pub k: usize,
    /// See [`Brgemm::head`]; only where there is one chunk.
    pub head: Option<(usize, i32)>,
    /// See [`Brgemm::tail_k`].
    pub tail_k: usize,
    /// See [`Brgemm::a_step`].
    pub a_step: i32,
}

/// What happens to sums before they are stored.
#[derive(Clone, Debug, PartialEq)]
pub struct Epilogue {
    /// Factor of the sums.
    pub alpha: f32,
    /// Bias, by column vector or by row (output column index).
    pub bias: BiasKind,
    /// Factor of the residual operand, when there is one.
    pub residual: Option<f32>,
    /// Applied last.
    pub activation: Option<Activation>,
}

/// Which bias operand there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BiasKind {
    /// None.
    None,
    /// One value for each output channel, padded to whole vectors.
    Column,
    /// One value for each output row; its stride is that of the column tiles.
    Row,
    /// A factor and a value for each output channel: see [`Bias::Scaled`].
    Scaled,
}

/// A contraction with every size and stride known.
#[derive(Clone, Debug)]
pub struct Nest {
    /// Level.
    pub isa: Isa,
    /// Outer dims: batch, groups, depth.
    pub batch: Vec<(usize, Strides)>,
    /// Output rows, cut into tiles.
    pub rows: Split,
    /// Strides of one output row.
    pub row: Strides,
    /// Row tiles are dealt out in this many blocks.
    pub row_blocks: usize,
    /// Output columns (pixels of a row; rows of a matrix), cut into tiles.
    pub cols: Split,
    /// Strides of one output column.
    pub col: Strides,
    /// Column vectors (output channel blocks), cut into groups for one kernel call each.
    pub vectors: Split,
    /// Strides of one column vector; `w` is of all its products.
    pub vector: Strides,
    /// Groups are dealt out in this many blocks.
    pub vector_blocks: usize,
    /// Lanes of the very first column vector that belong to nobody here.
    pub first_lane: usize,
    /// Lanes of the very last column vector.
    pub last_lanes: usize,
    /// Bytes between k in B when it is read in place; `None` when packed.
    pub b_step: Option<i32>,
    /// The reduction.
    pub reduction: Reduction,
    /// The epilogue.
    pub epilogue: Epilogue,
    /// Offsets of the first element of each operand.
    pub base: Strides,
    /// Bytes ahead in B to prefetch.
    pub prefetch: i32,
    /// Blocks of vectors outermost among units, row blocks inside: for large weights.
    pub vectors_first: bool,
    /// See [`Brgemm::tiles`].
    pub tiles: Option<Tiles>,
}

/// One run of equal chunks.
struct Chunk {
    from: usize,
    to: usize,
    start: usize,
    size: usize,
    first: bool,
    last: bool,
}

/// One run of equal groups of column vectors.
struct Class {
    from: usize,
    to: usize,
    start: usize,
    nv: usize,
    first_lane: usize,
    last_lanes: usize,
}

#[derive(Clone, Copy)]
struct Pointers {
    x: Value,
    w: Value,
    bias: Value,
    residual: Value,
    y: Value,
}

impl Pointers {
    fn step(self, b: &mut FunctionBuilder, i: Value, s: &Strides) -> Pointers {
        Pointers {
            x: at(b, self.x, i, s.x),
            w: at(b, self.w, i, s.w),
            bias: at(b, self.bias, i, s.bias),
            residual: at(b, self.residual, i, s.residual),
            y: at(b, self.y, i, s.y),
        }
    }
    fn offset(self, b: &mut FunctionBuilder, n: i64, s: &Strides) -> Pointers {
        Pointers {
            x: off(b, self.x, n * s.x),
            w: off(b, self.w, n * s.w),
            bias: off(b, self.bias, n * s.bias),
            residual: off(b, self.residual, n * s.residual),
            y: off(b, self.y, n * s.y),
        }
    }
}

/// The operands of a nest as pointers inside the step function; `bias` and `residual` may be any pointer when unused.
pub struct NestArgs {
    /// Input.
    pub x: Value,
    /// Weights.
    pub w: Value,
    /// Bias.
    pub bias: Value,
    /// Residual.
    pub residual: Value,
    /// Output.
    pub y: Value,
}

/// The kernels of a nest, defined before the function that calls them.
pub struct NestKernels {
    micro: Vec<FuncId>,
    tiles: Option<TileCalls>,
}

fn i32_of(n: i64) -> Result<i32> {
    i32::try_from(n)
        .map_err(|_| Error::unsupported("contraction", format!("offset {n} does not fit 32 bits")))
}

impl Nest {
    /// The level, and how products are made where that is another, for names of kernels.
    pub fn how(&self) -> String {
        match self.tiles {
            Some(tiles) => format!("amx {} products", tiles.products()),
            None => self.isa.to_string(),
        }
    }

    /// Units of work.
    pub fn units(&self) -> usize {
        self.batch.iter().map(|d| d.0).product::<usize>() * self.row_blocks * self.vector_blocks
    }

    fn chunks(&self) -> Vec<Chunk> {
        let s = &self.reduction.chunks;
        let n = s.pieces;
        let mut cuts: Vec<usize> = vec![0, 1, n - 1, n, s.big];
        cuts.retain(|&c| c <= n);
        cuts.sort_unstable();
        cuts.dedup();
        let runs = cuts.windows(2);
        runs.map(|c| Chunk {
            from: c[0],
            to: c[1],
            start: s.start(c[0]),
            size: s.size(c[0]),
            first: c[0] == 0,
            last: c[1] == n,
        })
        .collect()
    }

    fn classes(&self) -> Vec<Class> {
        let (lanes, n) = (self.isa.lanes(), self.vectors.pieces);
        let mut out: Vec<Class> = Vec::new();
        for i in 0..n {
            let (nv, start) = (self.vectors.size(i), self.vectors.start(i));
            let first_lane = if i == 0 { self.first_lane } else { 0 };
            let last_lanes = if i + 1 == n { self.last_lanes } else { lanes };
            match out.last_mut() {
                Some(c) if (c.nv, c.first_lane, c.last_lanes) == (nv, first_lane, last_lanes) => c.to = i + 1,
                _ => out.push(Class { from: i, to: i + 1, start, nv, first_lane, last_lanes }),
            }
        }
        out
    }

    fn b_step_of(&self, nv: usize) -> i32 {
        let packed = match self.tiles {
            Some(tiles) => tiles.parts() * nv * TILE_BYTES,
            None => nv * self.isa.vector_bytes(),
        };
        self.b_step.unwrap_or(packed as i32)
    }

    /// Byte offsets of the pixels of a tile of `rows` by `cols`.
    fn offsets(&self, rows: usize, cols: usize, row: i64, col: i64) -> Result<Vec<i32>> {
        (0..rows * cols).map(|i| i32_of((i / cols) as i64 * row + (i % cols) as i64 * col)).collect()
    }

    fn kernel(&self, chunk: &Chunk, class: &Class, rows: usize, cols: usize) -> Result<Brgemm> {
        let r = &self.reduction;
        let offsets = |row: i64, col: i64| self.offsets(rows, cols, row, col);
        let (loops, k) = if r.straight {
            (Vec::new(), chunk.size)
        } else {
            let mut loops = vec![(chunk.size, i32_of(r.x_step)?)];
            loops.extend_from_slice(&r.loops);
            (loops, r.k)
        };
        let e = &self.epilogue;
        let bias = match e.bias {
            BiasKind::Column if chunk.first && e.alpha == 1.0 || chunk.last && e.alpha != 1.0 => Bias::Column,
            BiasKind::Scaled if chunk.last => Bias::Scaled,
            BiasKind::Row if chunk.first && e.alpha == 1.0 || chunk.last && e.alpha != 1.0 => {
                Bias::Row(offsets(self.row.bias, self.col.bias)?)
            }
            _ => Bias::None,
        };
        let residual = match e.residual {
            Some(scale) if chunk.last => Some(Residual {
                rows: offsets(self.row.residual, self.col.residual)?,
                vector_step: i32_of(self.vector.residual)?,
                scale,
            }),
            _ => None,
        };
        Ok(Brgemm {
            isa: self.isa,
            a_rows: offsets(self.row.x, self.col.x)?,
            c_rows: offsets(self.row.y, self.col.y)?,
            nv: class.nv,
            first_lane: class.first_lane,
            last_lanes: class.last_lanes,
            b_masked: self.b_step.is_some(),
            c_step: i32_of(self.vector.y)?,
            loops,
            taps: r.taps.clone(),
            k,
            head: r.head,
            tail_k: if chunk.last { r.tail_k } else { 0 },
            a_step: r.a_step,
            b_step: self.b_step_of(class.nv),
            accumulate: !chunk.first,
            alpha: if chunk.last { e.alpha } else { 1.0 },
            bias,
            residual,
            activation: e.activation.filter(|_| chunk.last),
            prefetch: self.prefetch,
            tiles: self.tiles,
        })
    }

    /// Defines every micro-kernel that the nest calls, in the order in which `emit` visits them.
    pub fn define_kernels<M: Module>(&self, e: &mut Emitter<M>) -> Result<NestKernels> {
        let mut ids = Vec::new();
        for chunk in self.chunks() {
            for rows in self.rows.runs() {
                for cols in self.cols.runs() {
                    for class in self.classes() {
                        ids.push(self.kernel(&chunk, &class, rows.size, cols.size)?.define(e)?);
                    }
                }
            }
        }
        let mut shapes = Vec::new();
        for rows in self.rows.runs() {
            for cols in self.cols.runs() {
                shapes.push(self.offsets(rows.size, cols.size, self.row.x, self.col.x)?);
            }
        }
        let tiles = self.tiles.map(|_| TileCalls::define(e, &shapes)).transpose()?;
        Ok(NestKernels { micro: ids, tiles })
    }

    /// Emits the loops into a step function; `unit` is called at the head of each unit with the indexes of the batch
    /// dims, the row block and the first and last vector of the unit.
    pub fn emit<M: Module>(
        &self,
        m: &mut M,
        b: &mut FunctionBuilder,
        args: &NestArgs,
        task: Value,
        tasks: usize,
        kernels: &NestKernels,
        unit: &mut dyn FnMut(&mut M, &mut FunctionBuilder, &[Value], Value, (Value, Value)),
    ) {
        if let Some(tiles) = &kernels.tiles {
            tiles.begin(m, b);
        }
        let (low, high) = share(b, task, self.units(), tasks);
        let mut dims: Vec<usize> = self.batch.iter().map(|d| d.0).collect();
        dims.extend(if self.vectors_first {
            [self.vector_blocks, self.row_blocks]
        } else {
            [self.row_blocks, self.vector_blocks]
        });
        let p = Pointers { x: args.x, w: args.w, bias: args.bias, residual: args.residual, y: args.y };
        let p = p.offset(b, 1, &self.base);
        for_range(b, low, high, |b, u| {
            let c = coordinates(b, u, &dims);
            let (batch, inner) = c.split_at(self.batch.len());
            let (rb, vb) = if self.vectors_first { (inner[1], inner[0]) } else { (inner[0], inner[1]) };
            let mut p = p;
            for (&i, (_, strides)) in batch.iter().zip(&self.batch) {
                p = p.step(b, i, strides);
            }
            let rows = share(b, rb, self.rows.pieces, self.row_blocks);
            let groups = share(b, vb, self.vectors.pieces, self.vector_blocks);
            unit(m, b, batch, rb, groups);
            self.emit_unit(m, b, p, rows, groups, kernels);
        });
        if let Some(tiles) = &kernels.tiles {
            tiles.end(m, b);
        }
    }

    fn emit_unit<M: Module>(
        &self,
        m: &mut M,
        b: &mut FunctionBuilder,
        p: Pointers,
        rows: (Value, Value),
        groups: (Value, Value),
        kernels: &NestKernels,
    ) {
        let mut ids = kernels.micro.iter();
        let per_chunk = self.rows.runs().len() * self.cols.runs().len() * self.classes().len();
        let chunk_x = Strides { x: self.reduction.x_step, ..Strides::default() };
        for chunk in self.chunks() {
            let ids: Vec<FuncId> = ids.by_ref().take(per_chunk).copied().collect();
            let lo = b.ins().iconst(I64, chunk.from as i64);
            let hi = b.ins().iconst(I64, chunk.to as i64);
            for_range(b, lo, hi, |b, c| {
                let done = index_to_start(b, c, chunk.from, chunk.start, chunk.size);
                let p = p.step(b, done, &chunk_x);
                self.emit_tiles(m, b, p, done, rows, groups, &ids, kernels.tiles.as_ref());
            });
        }
    }

    fn emit_tiles<M: Module>(
        &self,
        m: &mut M,
        b: &mut FunctionBuilder,
        p: Pointers,
        done: Value,
        rows: (Value, Value),
        groups: (Value, Value),
        ids: &[FuncId],
        tiles: Option<&TileCalls>,
    ) {
        let mut ids = ids.iter();
        for (i, run) in self.rows.runs().into_iter().enumerate() {
            let per_run = self.cols.runs().len() * self.classes().len();
            let ids: Vec<FuncId> = ids.by_ref().take(per_run).copied().collect();
            let (lo, hi) = clip(b, rows, run.from, run.to, self.rows.runs().len() == 1);
            for_range(b, lo, hi, |b, t| {
                let row = index_to_start(b, t, run.from, run.start, run.size);
                let p = p.step(b, row, &self.row);
                let mut ids = ids.iter();
                let cols = self.cols.runs();
                for (j, run) in cols.iter().enumerate() {
                    let ids: Vec<FuncId> = ids.by_ref().take(self.classes().len()).copied().collect();
                    if let Some(tiles) = tiles {
                        tiles.shape(m, b, i * cols.len() + j);
                    }
                    super::clif::for_n(b, (run.to - run.from) as i64, |b, t| {
                        let col = index_to_start(b, t, 0, run.start, run.size);
                        let p = p.step(b, col, &self.col);
                        self.emit_groups(m, b, p, done, groups, &ids);
                    });
                }
            });
        }
    }

    fn emit_groups<M: Module>(
        &self,
        m: &mut M,
        b: &mut FunctionBuilder,
        p: Pointers,
        done: Value,
        groups: (Value, Value),
        ids: &[FuncId],
    ) {
        let classes = self.classes();
        for (class, &id) in classes.iter().zip(ids) {
            let (lo, hi) = clip(b, groups, class.from, class.to, classes.len() == 1);
            for_range(b, lo, hi, |b, g| {
                let vector = index_to_start(b, g, class.from, class.start, class.nv);
                let q = p.step(b, vector, &self.vector);
                let k_bytes = self.reduction.products as i64 * i64::from(self.b_step_of(class.nv));
                let w = at(b, q.w, done, k_bytes);
                let f = m.declare_func_in_func(id, b.func);
                b.ins().call(f, &[q.x, w, q.y, q.bias, q.residual]);
            });
        }
    }
}

/// `start + (i - from) * size`
fn index_to_start(b: &mut FunctionBuilder, i: Value, from: usize, start: usize, size: usize) -> Value {
    let v = b.ins().imul_imm_s(i, size as i64);
    off(b, v, start as i64 - (from * size) as i64)
}
