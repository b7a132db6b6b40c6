//! The loop nest around the micro-kernel: units of output (images, groups, row blocks, blocks of column vectors) are dealt
//! out to tasks; inside one: row tiles, column tiles, groups of column vectors. The whole reduction is one kernel call.

use super::micro::{Micro, i32_of};
use crate::asm::{Dot, Isa};
use crate::error::Result;
use crate::kernels::amx::tiles::TileCalls;
use crate::kernels::clif::{at, coordinates, for_n, for_range, off, share};
use crate::kernels::split::{Run, Split};
use crate::module::Emitter;
use cranelift_codegen::ir::{InstBuilder, Value, types::I64};
use cranelift_frontend::FunctionBuilder;
use cranelift_module::{FuncId, Module};

/// Byte steps of the operands along one dim.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Steps {
    pub x: i64,
    pub w: i64,
    pub columns: i64,
    pub residual: i64,
    pub y: i64,
}

/// A product with every size and step known.
#[derive(Clone, Debug)]
pub(super) struct Nest {
    pub isa: Isa,
    /// Outer dims.
    pub batch: Vec<(usize, Steps)>,
    pub rows: Split,
    pub row: Steps,
    pub row_blocks: usize,
    pub cols: Split,
    pub col: Steps,
    /// Column vectors, cut into groups for one kernel call each; `w` of `vector` is of one vector.
    pub vectors: Split,
    pub vector: Steps,
    pub vector_blocks: usize,
    pub vectors_first: bool,
    pub last_lanes: usize,
    /// Offsets of the first element.
    pub base: Steps,
    /// The kernel for one row and one vector; its tile is filled in.
    pub kernel: Micro,
}

/// The micro-kernels of a nest, and what stands around them.
pub(super) struct NestKernels {
    micro: Vec<FuncId>,
    tiles: Option<TileCalls>,
}

/// A run of groups of `nv` vectors, the last one of the run with `lanes` lanes.
struct Class {
    run: Run,
    lanes: usize,
}

#[derive(Clone, Copy)]
pub(super) struct Pointers {
    pub x: Value,
    pub w: Value,
    pub columns: Value,
    pub residual: Value,
    pub y: Value,
    /// The array of the step's operands.
    pub operands: Value,
}

impl Pointers {
    fn step(self, b: &mut FunctionBuilder, i: Value, s: &Steps) -> Pointers {
        Pointers {
            x: at(b, self.x, i, s.x),
            w: at(b, self.w, i, s.w),
            columns: at(b, self.columns, i, s.columns),
            residual: at(b, self.residual, i, s.residual),
            y: at(b, self.y, i, s.y),
            operands: self.operands,
        }
    }
    fn offset(self, b: &mut FunctionBuilder, s: &Steps) -> Pointers {
        Pointers {
            x: off(b, self.x, s.x),
            w: off(b, self.w, s.w),
            columns: off(b, self.columns, s.columns),
            residual: off(b, self.residual, s.residual),
            y: off(b, self.y, s.y),
            operands: self.operands,
        }
    }
}

impl Nest {
    pub fn units(&self) -> usize {
        self.batch.iter().map(|d| d.0).product::<usize>() * self.row_blocks * self.vector_blocks
    }

    fn classes(&self) -> Vec<Class> {
        let lanes = self.isa.lanes();
        let mut out: Vec<Class> = self.vectors.runs().into_iter().map(|run| Class { run, lanes }).collect();
        let Some(last) = out.last_mut().filter(|_| self.last_lanes != lanes) else { return out };
        let run = last.run;
        let n = run.to - 1;
        let start = run.start + (n - run.from) * run.size;
        let tail = Class { run: Run { from: n, to: run.to, size: run.size, start }, lanes: self.last_lanes };
        if run.from < n {
            last.run.to = n
        } else {
            out.truncate(out.len() - 1)
        }
        out.push(tail);
        out
    }

    fn micro(&self, class: &Class, rows: usize, cols: usize) -> Result<Micro> {
        let offsets = |row: i64, col: i64| -> Result<Vec<i32>> {
            (0..rows * cols).map(|i| i32_of((i / cols) as i64 * row + (i % cols) as i64 * col)).collect()
        };
        Ok(Micro {
            x_rows: offsets(self.row.x, self.col.x)?,
            y_rows: offsets(self.row.y, self.col.y)?,
            residual_rows: offsets(self.row.residual, self.col.residual)?,
            nv: class.run.size,
            last_lanes: class.lanes,
            y_step: i32_of(self.vector.y)?,
            residual_step: i32_of(self.vector.residual)?,
            ..self.kernel.clone()
        })
    }

    /// Defines every micro-kernel that the nest calls, in the order in which `emit` visits them.
    pub fn define<M: Module>(&self, e: &mut Emitter<M>) -> Result<NestKernels> {
        let (mut ids, mut shapes) = (vec![], vec![]);
        for rows in self.rows.runs() {
            for cols in self.cols.runs() {
                for (i, class) in self.classes().iter().enumerate() {
                    let micro = self.micro(class, rows.size, cols.size)?;
                    ids.push(micro.define(e)?);
                    shapes.extend((i == 0).then_some(micro.x_rows));
                }
            }
        }
        let tiles = match self.kernel.dot {
            Dot::Tiles => Some(TileCalls::define(e, &shapes)?),
            _ => None,
        };
        Ok(NestKernels { micro: ids, tiles })
    }

    /// Emits the loops into a step function.
    pub fn emit<M: Module>(
        &self,
        m: &mut M,
        b: &mut FunctionBuilder,
        p: Pointers,
        task: Value,
        tasks: usize,
        kernels: &NestKernels,
    ) {
        if let Some(tiles) = &kernels.tiles {
            tiles.begin(m, b);
        }
        let (low, high) = share(b, task, self.units(), tasks);
        let mut dims: Vec<usize> = self.batch.iter().map(|d| d.0).collect();
        dims.extend(match self.vectors_first {
            true => [self.vector_blocks, self.row_blocks],
            false => [self.row_blocks, self.vector_blocks],
        });
        let p = p.offset(b, &self.base);
        for_range(b, low, high, |b, u| {
            let c = coordinates(b, u, &dims);
            let (batch, inner) = c.split_at(self.batch.len());
            let (rb, vb) = if self.vectors_first { (inner[1], inner[0]) } else { (inner[0], inner[1]) };
            let mut p = p;
            for (&i, (_, steps)) in batch.iter().zip(&self.batch) {
                p = p.step(b, i, steps);
            }
            let rows = share(b, rb, self.rows.pieces, self.row_blocks);
            let groups = share(b, vb, self.vectors.pieces, self.vector_blocks);
            self.tiles(m, b, p, rows, groups, kernels);
        });
        if let Some(tiles) = &kernels.tiles {
            tiles.end(m, b);
        }
    }

    fn tiles<M: Module>(
        &self,
        m: &mut M,
        b: &mut FunctionBuilder,
        p: Pointers,
        rows: (Value, Value),
        groups: (Value, Value),
        kernels: &NestKernels,
    ) {
        let classes = self.classes();
        let mut ids = kernels.micro.chunks_exact(classes.len());
        let (row_runs, col_runs) = (self.rows.runs(), self.cols.runs());
        for (i, row_run) in row_runs.iter().enumerate() {
            let ids: Vec<&[FuncId]> = ids.by_ref().take(col_runs.len()).collect();
            let (lo, hi) = clip(b, rows, row_run, row_runs.len() == 1);
            for_range(b, lo, hi, |b, t| {
                let row = start_of(b, t, row_run);
                let p = p.step(b, row, &self.row);
                for (j, (col_run, ids)) in col_runs.iter().zip(&ids).enumerate() {
                    if let Some(tiles) = &kernels.tiles {
                        tiles.shape(m, b, i * col_runs.len() + j);
                    }
                    let from_zero = Run { from: 0, ..*col_run };
                    for_n(b, (col_run.to - col_run.from) as i64, |b, t| {
                        let col = start_of(b, t, &from_zero);
                        let p = p.step(b, col, &self.col);
                        for (class, id) in classes.iter().zip(*ids) {
                            let (lo, hi) = clip(b, groups, &class.run, classes.len() == 1);
                            for_range(b, lo, hi, |b, g| {
                                let vector = start_of(b, g, &class.run);
                                let q = p.step(b, vector, &self.vector);
                                let f = m.declare_func_in_func(*id, b.func);
                                b.ins().call(f, &[q.x, q.w, q.y, q.columns, q.residual, q.operands]);
                            });
                        }
                    });
                }
            });
        }
    }
}

/// The intersection of a run-time range with a run.
fn clip(b: &mut FunctionBuilder, range: (Value, Value), run: &Run, whole: bool) -> (Value, Value) {
    if whole {
        return range;
    }
    let from = b.ins().iconst(I64, run.from as i64);
    let to = b.ins().iconst(I64, run.to as i64);
    (b.ins().umax(range.0, from), b.ins().umin(range.1, to))
}

/// Where piece `i` of a run starts.
fn start_of(b: &mut FunctionBuilder, i: Value, run: &Run) -> Value {
    let v = b.ins().imul_imm_s(i, run.size as i64);
    off(b, v, run.start as i64 - (run.from * run.size) as i64)
}
