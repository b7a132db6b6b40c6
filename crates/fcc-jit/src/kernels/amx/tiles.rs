//! The products of a micro-kernel by tiles: at most two tiles of rows by two vectors of columns.
//!
//! Tiles 0 to 3 hold the sums, 4 and 5 rows of A, 6 and 7 columns of B. Sums leave through memory on the stack.

use super::Terms;
use crate::asm::reg::*;
use crate::asm::{Asm, TILE_BYTES, TILE_ROW_BYTES, TILE_ROWS, TileProduct};
use crate::error::{Error, Result};
use crate::kernels::split::Split;
use crate::kernels::tile::Tiling;
use crate::kernels::walk::{Loops, Products, walk};
use crate::module::Emitter;
use cranelift_codegen::ir::InstBuilder;
use cranelift_frontend::FunctionBuilder;
use cranelift_module::{FuncId, Module};

/// Most rows of a micro-kernel.
pub(crate) const MAX_ROWS: usize = 2 * TILE_ROWS;
/// Most vectors of columns.
pub(crate) const MAX_VECTORS: usize = 2;

/// What tiles multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tiles {
    /// Terms of f32.
    Bf16 {
        /// Which products.
        terms: Terms,
        /// Bytes in A from one part to the next.
        part: i32,
    },
    /// Bytes.
    Bytes {
        /// Whether A is signed.
        signed: bool,
    },
}

impl Tiles {
    /// Tiles of B for each step and vector.
    pub(crate) fn parts(self) -> usize {
        match self {
            Tiles::Bf16 { terms, .. } => terms.parts(),
            Tiles::Bytes { .. } => 1,
        }
    }
    /// Products of tiles for each step.
    pub(crate) fn products(self) -> usize {
        self.schedule().len()
    }
    fn schedule(self) -> &'static [(usize, usize)] {
        match self {
            Tiles::Bf16 { terms, .. } => terms.products(),
            Tiles::Bytes { .. } => &[(0, 0)],
        }
    }
    fn part(self) -> i32 {
        match self {
            Tiles::Bf16 { part, .. } => part,
            Tiles::Bytes { .. } => 0,
        }
    }
    fn product(self) -> TileProduct {
        match self {
            Tiles::Bf16 { .. } => TileProduct::Bf16,
            Tiles::Bytes { signed } => TileProduct::Bytes { signed },
        }
    }
}

/// Rows of A that one tile holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TileRows {
    /// The first.
    pub first: usize,
    /// How many.
    pub count: usize,
    /// Byte offset of the first.
    offset: i32,
}

/// Cuts rows at these offsets into tiles; also the bytes between rows of a tile.
fn cut(offsets: &[i32]) -> Result<(Vec<TileRows>, i32)> {
    let stride = offsets.windows(2).next().map_or(TILE_ROW_BYTES as i32, |w| w[1] - w[0]);
    let mut tiles = vec![];
    let mut rest = 0..0;
    while rest.end < offsets.len() {
        let from = rest.end;
        let run = offsets[from..].windows(2).take_while(|w| w[1] - w[0] == stride).count() + 1;
        rest = from..from + run;
        let pieces = Split::at_most(run, TILE_ROWS);
        let tile = |r: std::ops::Range<usize>| TileRows {
            first: from + r.start,
            count: r.len(),
            offset: offsets[from + r.start],
        };
        tiles.extend(pieces.ranges().map(tile));
    }
    match tiles.len() {
        1 | 2 if stride > 0 => Ok((tiles, stride)),
        n => Err(Error::Codegen(format!("rows at {offsets:?} in {n} tiles, {stride} bytes apart"))),
    }
}

/// How `rows x cols` pixels and vectors of columns are cut: what wastes the fewest rows of tiles.
pub(crate) fn tiling(rows: usize, cols: usize, vectors: usize) -> Tiling {
    let vectors = Split::at_most(vectors, MAX_VECTORS);
    let lines = |n: usize| Split::at_most(rows, n);
    // a matrix has rows alone; of an image, two rows in a tile each, or one in two
    let shapes = match cols {
        1 => vec![(MAX_ROWS, 1)],
        _ => vec![(1, MAX_ROWS), (2, TILE_ROWS), (1, TILE_ROWS)],
    };
    let cut = shapes.into_iter().map(|(r, c)| (lines(r), Split::at_most(cols, c)));
    // a tile takes about a cycle a row and a few more; B is loaded for each call
    let cost = |(r, c): &(Split, Split)| {
        let calls = r.pieces * c.pieces;
        let tiles = calls * (r.size(0) * c.size(0)).div_ceil(TILE_ROWS).max(r.size(0).min(2).min(c.size(0)));
        8 * calls + 4 * tiles + rows * cols
    };
    let best = cut.min_by_key(cost);
    let (rows, cols) = best.unwrap_or((lines(1), Split::at_most(cols, 1)));
    Tiling { rows, cols, vectors }
}

/// How many rows each tile register has for rows of A at these offsets.
pub(crate) fn config(offsets: &[i32]) -> Result<[u8; 8]> {
    let mut rows = [0; 8];
    (rows[6], rows[7]) = (TILE_ROWS as u8, TILE_ROWS as u8);
    for (i, tile) in cut(offsets)?.0.iter().enumerate() {
        for register in [2 * i, 2 * i + 1, 4 + i] {
            rows[register] = tile.count as u8;
        }
    }
    Ok(rows)
}

const A_STRIDE: Reg = rbx;
/// Bytes between rows of B, and between rows of sums.
const B_STRIDE: Reg = r12;
const SUMS: Reg = r13;
const COUNTERS: [Reg; 5] = [rax, r10, r11, r14, r15];
const SAVED: [Reg; 5] = [rbx, r12, r13, r14, r15];
/// Room for the sums of one tile of rows, and to align it.
const SLOTS: usize = (MAX_VECTORS * TILE_BYTES + 64) / 8;

/// The part of a micro-kernel that works with tiles.
pub(crate) struct TileKernel<'a> {
    tiles: Tiles,
    rows: Vec<TileRows>,
    stride: i32,
    nv: usize,
    taps: &'a [i32],
}

impl<'a> TileKernel<'a> {
    /// For rows of A at these offsets. Every tap is one tile of k.
    pub fn new(tiles: &Tiles, offsets: &[i32], nv: usize, taps: &'a [i32]) -> Result<TileKernel<'a>> {
        if nv > MAX_VECTORS {
            return Err(Error::Codegen(format!("{nv} vectors of columns in tiles")));
        }
        let (rows, stride) = cut(offsets)?;
        Ok(TileKernel { tiles: *tiles, rows, stride, nv, taps })
    }

    /// The tiles of rows.
    pub fn rows(&self) -> &[TileRows] {
        &self.rows
    }

    /// Keeps registers and makes room on the stack.
    pub fn enter(&self, w: &mut Asm) -> Result<()> {
        use iced_x86::code_asm::registers::rsp;
        w.enter(&SAVED, SLOTS)?;
        w.a.lea(SUMS.x86(), rsp + 63)?;
        w.a.and(SUMS.x86(), -64)?;
        w.set(A_STRIDE, self.stride as u32)?;
        w.set(B_STRIDE, (self.nv * TILE_ROW_BYTES) as u32)
    }

    /// Undoes [`TileKernel::enter`].
    pub fn leave(&self, w: &mut Asm) -> Result<()> {
        w.leave(&SAVED, SLOTS)
    }

    /// All products, A from `rdi` on, B from `rsi` on.
    pub fn products(&self, w: &mut Asm, loops: &Loops<'_>) -> Result<()> {
        for i in 0..self.rows.len() {
            for v in 0..self.nv {
                w.tile_zero(2 * i + v)?;
            }
        }
        walk(&mut Steps { w, kernel: self }, loops, &COUNTERS)
    }

    /// Puts the sums of tile `i` of rows where [`TileKernel::sum`] says.
    pub fn store(&self, w: &mut Asm, i: usize) -> Result<()> {
        for v in 0..self.nv {
            w.tile_store(SUMS + (v * TILE_ROW_BYTES) as i32, B_STRIDE, 2 * i + v)?;
        }
        Ok(())
    }

    /// The sums of row `r` of the tile that was stored, for vector `v`.
    pub fn sum(&self, r: usize, v: usize) -> Mem {
        SUMS + ((r * self.nv + v) * TILE_ROW_BYTES) as i32
    }
}

struct Steps<'a, 'b> {
    w: &'a mut Asm,
    kernel: &'a TileKernel<'b>,
}

impl Products for Steps<'_, '_> {
    fn asm(&mut self) -> &mut Asm {
        self.w
    }

    fn body(&mut self, _: usize, _: &mut Vec<Reg>) -> Result<i64> {
        let k = self.kernel;
        let part_bytes = k.nv * TILE_BYTES;
        let mut next = 0;
        for &tap in k.taps {
            self.step(tap, next)?;
            next += (k.tiles.parts() * part_bytes) as i32;
        }
        self.w.add_imm(rsi, i64::from(next))?;
        Ok(0)
    }
}

impl Steps<'_, '_> {
    /// One step of k: a tile of A for each tile of rows, one of B for each vector, in each part.
    fn step(&mut self, a: i32, b: i32) -> Result<()> {
        let (k, w) = (self.kernel, &mut *self.w);
        let mut held = (None, None);
        for &(b_part, a_part) in k.tiles.schedule() {
            if held.0 != Some(b_part) {
                for v in 0..k.nv {
                    let at = b + (b_part * k.nv * TILE_BYTES + v * TILE_ROW_BYTES) as i32;
                    w.tile_load(6 + v, rsi + at, B_STRIDE)?;
                }
            }
            if held.1 != Some(a_part) {
                for (i, rows) in k.rows.iter().enumerate() {
                    w.tile_load(4 + i, rdi + (a + rows.offset + a_part as i32 * k.tiles.part()), A_STRIDE)?;
                }
            }
            held = (Some(b_part), Some(a_part));
            for i in 0..k.rows.len() {
                for v in 0..k.nv {
                    w.tile_product(2 * i + v, 4 + i, 6 + v, k.tiles.product())?;
                }
            }
        }
        Ok(())
    }
}

/// The calls that configure tiles for the micro-kernels of a nest, and give them up.
pub(crate) struct TileCalls {
    /// By shape of rows, in the order in which the nest visits them.
    configs: Vec<FuncId>,
    release: FuncId,
}

impl TileCalls {
    /// For micro-kernels whose rows of A are at these offsets.
    pub fn define<M: Module>(e: &mut Emitter<M>, shapes: &[Vec<i32>]) -> Result<TileCalls> {
        let isa = e.isa();
        let mut configs = vec![];
        for offsets in shapes {
            let rows = config(offsets)?;
            configs.push(e.cached(format!("tile config {rows:?}"), |e| {
                let mut w = Asm::new(isa)?;
                w.tile_config(rows)?;
                let code = w.finish()?;
                e.assembled("tile_config", 0, &code)
            })?);
        }
        let release = e.cached("tile release".into(), |e| {
            let mut w = Asm::new(isa)?;
            w.tile_release()?;
            let code = w.finish()?;
            e.assembled("tile_release", 0, &code)
        })?;
        Ok(TileCalls { configs, release })
    }

    /// Whether one configuration serves all shapes.
    fn one(&self) -> bool {
        self.configs.windows(2).all(|w| w[0] == w[1])
    }
    fn call<M: Module>(m: &mut M, b: &mut FunctionBuilder, id: FuncId) {
        let f = m.declare_func_in_func(id, b.func);
        b.ins().call(f, &[]);
    }
    /// At the beginning of a task.
    pub fn begin<M: Module>(&self, m: &mut M, b: &mut FunctionBuilder) {
        if let Some(id) = self.configs.first().filter(|_| self.one()) {
            TileCalls::call(m, b, *id);
        }
    }
    /// Before micro-kernels of shape `i`.
    pub fn shape<M: Module>(&self, m: &mut M, b: &mut FunctionBuilder, i: usize) {
        if let Some(id) = self.configs.get(i).filter(|_| !self.one()) {
            TileCalls::call(m, b, *id);
        }
    }
    /// At the end of a task.
    pub fn end<M: Module>(&self, m: &mut M, b: &mut FunctionBuilder) {
        TileCalls::call(m, b, self.release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_cut_into_tiles_of_one_stride() {
        let line = |n: i32, from: i32| (0..n).map(move |i| from + 64 * i);
        let counts = |offsets: &[i32]| cut(offsets).map(|t| t.0.iter().map(|r| r.count).collect::<Vec<_>>());
        assert_eq!(counts(&[0]).ok(), Some(vec![1]));
        assert_eq!(counts(&line(16, 0).collect::<Vec<_>>()).ok(), Some(vec![16]));
        assert_eq!(counts(&line(17, 0).collect::<Vec<_>>()).ok(), Some(vec![9, 8]));
        let two = line(7, 0).chain(line(7, 1000)).collect::<Vec<_>>();
        assert_eq!(counts(&two).ok(), Some(vec![7, 7]));
        assert_eq!(counts(&[0, 1000]).ok(), Some(vec![2]));
        let three: Vec<i32> = line(2, 0).chain(line(2, 1000)).chain(line(2, 3000)).collect();
        assert!(counts(&three).is_err());
        assert!(counts(&line(33, 0).collect::<Vec<_>>()).is_err());
        assert_eq!(config(&two).ok(), Some([7, 7, 7, 7, 7, 7, 16, 16]));
    }
}
