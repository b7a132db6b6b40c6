//! Matrix products of bytes: `Y = f(A · B)`, B constant, A row-major.

use super::micro::{Micro, vector_bytes};
use super::nest::{Nest, Pointers, Steps};
use super::pack::{self, Columns, Weights};
use super::{Epilogue, Input, Zero};
use crate::asm::{Dot, Isa, TILE_ROW_BYTES, TILE_ROWS};
use crate::error::{Error, Result};
use crate::kernels::amx::regroup::{Regroup, Values};
use crate::kernels::amx::{BYTE_CHANNELS, LEAST_CHANNELS, LEAST_ROWS, tiles};
use crate::kernels::elem::Elem;
use crate::kernels::split::Split;
use crate::kernels::tile::{self, Tiling};
use crate::module::{Emitter, Kernel, Operand};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, types::I64};
use cranelift_module::Module;

/// One product, or one for each matrix of a batch.
#[derive(Clone, Debug, PartialEq)]
pub struct Gemm {
    /// Rows of A and Y.
    pub m: usize,
    /// Columns of B and Y.
    pub n: usize,
    /// Columns of A, rows of B: not 0.
    pub k: usize,
    /// Batch dims, outermost first: count, matrices of A (0 or more) and of B (0 or 1 each) from one to the next.
    pub batch: Vec<(usize, usize, usize)>,
    /// Whether A is int8, not uint8.
    pub signed: bool,
    /// How products are summed; for tiles A is what [`Gemm::for_tiles`] makes of it.
    pub dot: Dot,
    /// Zero point of A.
    pub zero: Zero,
    /// Signed bytes that each weight is the sum of: [`pack::parts`].
    pub parts: usize,
    /// What is made of the sums; a residual has the shape of Y.
    pub epilogue: Epilogue,
}

/// Bytes of B that one block of column panels may have: a good part of L2.
const B_BLOCK_BYTES: usize = 512 << 10;

impl Gemm {
    /// The same by AMX tiles, and the step that regroups A first.
    ///
    /// # Errors
    /// Why tiles do not do it.
    pub fn for_tiles(&self) -> std::result::Result<(Gemm, Regroup), String> {
        if self.m < LEAST_ROWS || self.k < LEAST_CHANNELS {
            let need = format!("{LEAST_ROWS} rows and {LEAST_CHANNELS} columns or more");
            return Err(format!("no AMX: A of {} rows and {} columns, need {need}", self.m, self.k));
        }
        let tiled = Gemm { dot: Dot::Tiles, ..self.clone() };
        let regroup = tiled.regroup();
        match i32::try_from(regroup.group_bytes()) {
            Ok(_) => Ok((tiled, regroup)),
            Err(_) => Err(format!("no AMX: A of {} rows", self.m)),
        }
    }
    fn regroup(&self) -> Regroup {
        let outer = [(self.matrices(|d| d.1), self.m * self.k)];
        Regroup::matrix(self.m, self.k, self.k, &outer, Values::Bytes)
    }
    /// Matrices of an operand whose batch steps are these.
    fn matrices(&self, of: fn(&(usize, usize, usize)) -> usize) -> usize {
        1 + self.batch.iter().map(|d| (d.0.max(1) - 1) * of(d)).sum::<usize>()
    }

    fn steps(&self) -> usize {
        if self.dot == Dot::Tiles {
            return self.k.div_ceil(BYTE_CHANNELS) * BYTE_CHANNELS / 4;
        }
        let rest = self.k % 4;
        self.k / 4 + usize::from(rest & 2 != 0) + usize::from(rest & 1 != 0)
    }
    fn tiling(&self, isa: Isa) -> Tiling {
        let vectors = self.n.div_ceil(isa.lanes());
        if self.dot == Dot::Tiles {
            return tiles::tiling(self.m, 1, vectors);
        }
        let most = tile::Most { rows: tile::rows_in_cache(self.k), ..tile::Most::ANY };
        tile::choose(isa, self.m, 1, vectors, self.steps() * self.parts, most)
    }
    /// Bytes of one packed B.
    pub fn packed_bytes(&self, isa: Isa) -> usize {
        self.n.div_ceil(isa.lanes()) * self.parts * self.steps() * self.dot.step_bytes(isa.lanes())
    }
    /// Floats of what the columns of one B have beside.
    pub fn column_elems(&self, isa: Isa) -> usize {
        self.n.div_ceil(isa.lanes()) * Micro::column_bytes(isa, self.zero, &self.epilogue) / 4
    }

    fn weights<'a>(&self, at: &'a dyn Fn(usize, usize, usize) -> i32) -> Weights<'a> {
        Weights { n: self.n, steps: self.steps(), at }
    }
    /// k of `(step, i)`.
    fn k_of(&self, step: usize, i: usize) -> Option<usize> {
        if self.dot == Dot::Tiles {
            return (4 * step + i < self.k).then_some(4 * step + i);
        }
        let whole = self.k / 4;
        let (first, bytes) = match step - whole.min(step) {
            _ if step < whole => (4 * step, 4),
            0 if self.k % 4 >= 2 => (4 * whole, 2),
            _ => (self.k - 1, 1),
        };
        (i < bytes).then_some(first + i)
    }

    /// Packs one B: `b(k, n)` is a weight less its zero point.
    ///
    /// # Errors
    /// When `out` has another length than [`Gemm::packed_bytes`].
    pub fn pack(&self, isa: Isa, b: &dyn Fn(usize, usize) -> i32, out: &mut [u8]) -> Result<()> {
        let at = |step: usize, i: usize, n: usize| self.k_of(step, i).map_or(0, |k| b(k, n));
        pack::pack(isa, self.dot, &self.tiling(isa).vectors, self.parts, &self.weights(&at), out)
    }
    /// Packs what the columns of one B have: an int32 bias and the constants of the epilogue.
    ///
    /// # Errors
    /// When there is not one constant for each column and input.
    pub fn pack_columns(
        &self,
        isa: Isa,
        b: &dyn Fn(usize, usize) -> i32,
        bias: Option<&[i32]>,
        constants: &[Vec<f32>],
        out: &mut [f32],
    ) -> Result<()> {
        let at = |step: usize, i: usize, n: usize| self.k_of(step, i).map_or(0, |k| b(k, n));
        let columns = Columns { zero: self.zero, signed: self.signed, bias, constants };
        pack::pack_columns(isa, self.dot, &self.epilogue, &self.weights(&at), &columns, out)
    }

    fn nest(&self, isa: Isa, threads: usize) -> Nest {
        let dot = self.dot;
        let Tiling { rows, vectors, .. } = self.tiling(isa);
        let (steps, lanes) = (self.steps(), isa.lanes());
        let w_vector = self.parts * steps * dot.step_bytes(lanes);
        let column = Micro::column_bytes(isa, self.zero, &self.epilogue) as i64;
        let (out, residual) = (self.epilogue.out, self.epilogue.residual().unwrap_or_default());
        // each thread has its own rows where there are many, else its own columns
        let panels = (B_BLOCK_BYTES / (w_vector * vectors.size(0)).max(1)).clamp(1, vectors.pieces);
        let mut vector_blocks = vectors.pieces.div_ceil(panels);
        let batch: usize = self.batch.iter().map(|d| d.0).product();
        let mut row_blocks = 1;
        if threads > 1 && !crate::kernels::gemm::balanced(batch * vector_blocks, threads) {
            if rows.pieces >= 2 * threads {
                row_blocks = threads;
            } else if vectors.pieces >= threads {
                vector_blocks = vectors.pieces.min(vector_blocks.next_multiple_of(threads));
            } else {
                row_blocks = rows.pieces.min(threads);
            }
        }
        let packed = self.packed_bytes(isa) as i64;
        let columns = 4 * self.column_elems(isa) as i64;
        let matrix = (self.m * self.n) as i64;
        let tiled = self.regroup();
        let (a_matrix, row, loops, k, rest) = match dot {
            Dot::Tiles => {
                let groups = (self.k.div_ceil(BYTE_CHANNELS), tiled.group_bytes() as i32);
                (tiled.outer_bytes(), TILE_ROW_BYTES, vec![(self.parts, 0), groups], TILE_ROWS, 0)
            }
            // the same row once for each part of the weights
            _ => (self.m * self.k, self.k, vec![(self.parts, 0)], self.k / 4, self.k % 4),
        };
        let mut after: usize = batch;
        let dims = self.batch.iter().map(|(count, a, b)| {
            // matrices of Y follow one another
            after /= (*count).max(1);
            let y = after as i64 * matrix;
            let steps = Steps {
                x: (a * a_matrix) as i64,
                w: *b as i64 * packed,
                columns: *b as i64 * columns,
                residual: y * residual.bytes() as i64,
                y: y * out.bytes() as i64,
            };
            (*count, steps)
        });
        Nest {
            isa,
            batch: dims.collect(),
            rows,
            row: Steps {
                x: row as i64,
                w: 0,
                columns: 0,
                residual: (self.n * residual.bytes()) as i64,
                y: (self.n * out.bytes()) as i64,
            },
            row_blocks,
            cols: Split::into(1, 1),
            col: Steps::default(),
            vectors,
            vector: Steps {
                x: 0,
                w: w_vector as i64,
                columns: column,
                residual: vector_bytes(isa, residual),
                y: vector_bytes(isa, out),
            },
            vector_blocks,
            vectors_first: true,
            last_lanes: Elem::last_lanes(isa, self.n),
            base: Steps::default(),
            kernel: Micro {
                isa,
                dot,
                signed: self.signed,
                x_rows: vec![],
                y_rows: vec![],
                residual_rows: vec![],
                nv: 1,
                last_lanes: lanes,
                y_step: 0,
                residual_step: 0,
                loops,
                taps: vec![0],
                k,
                tail_k: 0,
                rest,
                zero: self.zero,
                scalars: scalars(self.zero, &self.epilogue),
                epilogue: self.epilogue.clone(),
                prefetch: 1024,
            },
        }
    }

    /// The step function; operands `a`, `b`, `columns`, the zero point (if it is an operand), the scalars and the
    /// residual of the epilogue (in the order of its inputs, the residual last), `y`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for empty products and offsets beyond 2 GiB inside a tile.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        super::check_way(e, self.dot)?;
        if self.m == 0 || self.n == 0 || self.k == 0 || self.batch.iter().any(|d| d.0 == 0) {
            return Err(Error::unsupported("int8 gemm", "an empty product"));
        }
        let isa = e.isa();
        let a = match self.dot {
            Dot::Tiles => self.regroup().bytes(),
            _ => self.matrices(|d| d.1) * self.m * self.k,
        };
        let batch: usize = self.batch.iter().map(|d| d.0).product();
        let y = batch * self.m * self.n;
        let mut operands = vec![
            Operand::read("a", a),
            Operand::read("b", self.matrices(|d| d.2) * self.packed_bytes(isa)),
            Operand::read("columns", 4 * self.matrices(|d| d.2) * self.column_elems(isa)),
        ];
        operands.extend(scalar_operands(self.zero, &self.epilogue));
        operands.extend(self.epilogue.residual().map(|r| Operand::read("residual", y * r.bytes())));
        operands.push(Operand::write("y", y * self.epilogue.out.bytes()));
        let nest = self.nest(isa, threads.max(1));
        let count = if batch == 1 { String::new() } else { format!("{batch}x ") };
        let name = format!(
            "int8 gemm {count}{}x{}x{} {isa} {} {}x{}",
            self.m,
            self.n,
            self.k,
            super::way(self.dot),
            nest.rows.size(0),
            nest.vectors.size(0)
        );
        let flops = 2 * (batch as u64) * self.m as u64 * self.n as u64 * self.k as u64;
        step(e, &nest, operands, name, flops, threads, self.epilogue.residual().is_some())
    }
}

/// The operands of one element: their indexes, the first being 3.
pub(super) fn scalars(zero: Zero, epilogue: &Epilogue) -> Vec<usize> {
    (3..3 + scalar_operands(zero, epilogue).len()).collect()
}

pub(super) fn scalar_operands(zero: Zero, epilogue: &Epilogue) -> Vec<Operand> {
    let of =
        |i: &Input| if let Input::Scalar(e) = i { Some(Operand::read("scalar", e.bytes())) } else { None };
    let zero = (zero == Zero::Operand).then(|| Operand::read("zero", 1));
    zero.into_iter().chain(epilogue.inputs.iter().filter_map(of)).collect()
}

/// The step function of a nest.
pub(super) fn step<M: Module>(
    e: &mut Emitter<M>,
    nest: &Nest,
    operands: Vec<Operand>,
    name: String,
    flops: u64,
    threads: usize,
    residual: bool,
) -> Result<Kernel> {
    let ids = nest.define(e)?;
    let tasks = nest.units().min(threads.max(1));
    let last = operands.len() as i32 - 1;
    let func = e.clif("int8", 2, |m, b, args| {
        let flags = MemFlagsData::new().with_notrap();
        let mut pointer = |i: i32| b.ins().load(I64, flags, args[0], 8 * i);
        let p = Pointers {
            x: pointer(0),
            w: pointer(1),
            columns: pointer(2),
            residual: pointer(if residual { last - 1 } else { 0 }),
            y: pointer(last),
            operands: args[0],
        };
        nest.emit(m, b, p, args[1], tasks, &ids);
        Ok(())
    })?;
    Ok(Kernel { func, name, operands, tasks, flops })
}
