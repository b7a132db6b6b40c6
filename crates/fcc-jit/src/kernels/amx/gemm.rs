//! Matrix products of f32 by tiles of bf16 terms, B being constant.

use super::regroup::{Regroup, Values};
use super::tiles::{self, Tiles};
use super::{CHANNELS, LEAST_CHANNELS, LEAST_ROWS, MOST_TERMS, Panels, Terms};
use crate::asm::{Isa, TILE_BYTES, TILE_ROW_BYTES};
use crate::error::{Error, Result};
use crate::floats::Floats;
use crate::kernels::gemm::{BStorage, Gemm, GemmBias};
use crate::kernels::nest::{BiasKind, Nest, Reduction};
use crate::kernels::split::Split;
use crate::kernels::tile::Tiling;
use crate::module::{Emitter, Kernel, Operand};
use cranelift_module::Module;

/// A product whose A a step of its own has put into terms.
#[derive(Clone, Debug, PartialEq)]
pub struct AmxGemm {
    gemm: Gemm,
    terms: Terms,
}

/// Groups of 32 k in one kernel call when there are many rows.
const CHUNK: usize = 32;

impl AmxGemm {
    /// The product by these terms.
    ///
    /// # Errors
    /// Why it has not the form: packed B, rows of A, bias for columns or none, no factor.
    pub fn new(gemm: &Gemm, terms: Terms) -> std::result::Result<AmxGemm, String> {
        let columns = matches!(gemm.bias, GemmBias::None | GemmBias::Columns);
        if gemm.b != BStorage::Packed || gemm.a_col != 1 || !columns || gemm.alpha != 1.0 {
            return Err("no AMX: B of the run, a transposed A, a factor, or a bias of rows".into());
        }
        if gemm.batch.iter().any(|d| d.bias != 0) {
            return Err("no AMX: a bias for each matrix".into());
        }
        let made = AmxGemm { gemm: gemm.clone(), terms };
        if gemm.k > MOST_TERMS || made.regroup().group_bytes() > i32::MAX as usize {
            return Err(format!("no AMX: A of {} rows and {} columns", gemm.m, gemm.k));
        }
        Ok(made)
    }

    /// The product by these terms where that may pay.
    ///
    /// # Errors
    /// Why not: as [`AmxGemm::new`], and too few rows or columns of A.
    pub fn choose(gemm: &Gemm, terms: Terms) -> std::result::Result<AmxGemm, String> {
        if gemm.m < LEAST_ROWS || gemm.k < LEAST_CHANNELS {
            let need = format!("{LEAST_ROWS} rows and {LEAST_CHANNELS} columns or more");
            return Err(format!("no AMX: A of {} rows and {} columns, need {need}", gemm.m, gemm.k));
        }
        AmxGemm::new(gemm, terms)
    }

    /// The step that puts A into terms: what the product reads.
    pub fn regroup(&self) -> Regroup {
        let g = &self.gemm;
        let outer: Vec<(usize, usize)> = g.batch.iter().map(|d| (d.count, d.a)).collect();
        Regroup::matrix(g.m, g.k, g.a_row, &outer, Values::Terms(self.terms.parts()))
    }

    fn vectors(&self) -> usize {
        self.gemm.n.div_ceil(16)
    }
    fn tiling(&self) -> Tiling {
        tiles::tiling(self.gemm.m, 1, self.vectors())
    }
    fn column_elems(&self) -> usize {
        2 * 16 * self.vectors()
    }

    /// Floats of one packed B: what its columns have, then panels.
    pub fn packed_elems(&self) -> usize {
        self.column_elems() + Panels::elems(self.terms, self.gemm.k, 1, self.vectors())
    }
    fn matrices(&self) -> usize {
        1 + self.gemm.batch.iter().map(|d| (d.count - 1) * d.b).sum::<usize>()
    }

    /// Packs one B, all finite, with the bias of its columns: element `(k, n)` is `b[k * row + n * col]`, times `scale`.
    ///
    /// # Errors
    /// When a slice is too short.
    pub fn pack<'a>(
        &self,
        b: impl Into<Floats<'a>>,
        (row, col): (usize, usize),
        scale: f32,
        bias: Option<&[f32]>,
        out: &mut [f32],
    ) -> Result<()> {
        let (b, g) = (b.into(), &self.gemm);
        let need = (g.k - 1) * row + (g.n - 1) * col + 1;
        if b.len() < need || bias.is_some_and(|b| b.len() < g.n) || out.len() != self.packed_elems() {
            let got =
                format!("{} of B into {}, needs {need} and {}", b.len(), out.len(), self.packed_elems());
            return Err(Error::invalid("amx gemm", format!("packing {got}")));
        }
        let at = |k: usize, _: usize, n: usize| b.at(k * row + n * col) * scale;
        let (columns, panels) = out.split_at_mut(self.column_elems());
        let matrix = Panels {
            terms: self.terms,
            channels: g.k,
            taps: 1,
            n: g.n,
            vectors: self.tiling().vectors,
            at: &at,
            bias,
        };
        super::pack(&matrix, columns, panels);
        Ok(())
    }

    /// The plain product's nest over other operands.
    fn nest(&self, isa: Isa, threads: usize) -> Nest {
        let tiling = self.tiling();
        let mut nest = self.gemm.nest_of(isa, threads, tiling);
        let (from, groups, parts) = (self.regroup(), self.gemm.k.div_ceil(CHANNELS), self.terms.parts());
        let vector = (groups * parts * TILE_BYTES) as i64;
        let mut matrices: usize = self.gemm.batch.iter().map(|d| d.count).product();
        for ((count, steps), d) in nest.batch.iter_mut().zip(&self.gemm.batch) {
            // matrices of A follow one another here
            matrices /= (*count).max(1);
            steps.x = (matrices * from.outer_bytes()) as i64;
            steps.w = (4 * d.b * self.packed_elems()) as i64;
            steps.bias = steps.w;
        }
        nest.row.x = TILE_ROW_BYTES as i64;
        (nest.vector.w, nest.vector.bias) = (vector, 2 * isa.vector_bytes() as i64);
        nest.base.w = 4 * self.column_elems() as i64;
        nest.reduction = Reduction {
            chunks: Split::at_most(groups, if tiling.rows.pieces > 1 { CHUNK } else { groups }),
            x_step: from.group_bytes() as i64,
            products: 1,
            straight: false,
            loops: Vec::new(),
            taps: vec![0],
            k: 1,
            head: None,
            tail_k: 0,
            a_step: 0,
        };
        nest.epilogue.bias = BiasKind::Scaled;
        nest.prefetch = 0;
        nest.tiles = Some(Tiles::Bf16 { terms: self.terms, part: from.part_bytes() as i32 });
        nest
    }

    /// The step function; operands `a` (of [`AmxGemm::regroup`]), `b` (packed), `residual` (if any), `y`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for empty products, and without AVX-512.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        let isa = e.isa();
        if !e.has_tiles() {
            return Err(Error::unsupported("amx gemm", format!("level {isa}")));
        }
        self.gemm.check()?;
        let plain = Gemm { bias: GemmBias::None, ..self.gemm.clone() };
        let mut operands = plain.operands(isa)?;
        operands[0] = Operand::read("a", self.regroup().bytes());
        operands[1] = Operand::read("b", 4 * self.matrices() * self.packed_elems());
        self.gemm.finish(e, threads, &self.nest(isa, threads.max(1)), operands, 1)
    }
}
