//! The micro-kernel: a batch-reduce GEMM whose offsets and loop counts are constants.
//!
//! `C[r][v] = act(alpha * Σ A[r, k] * B[k, v] + bias + residual)` for `rows` rows (pixels, or rows of a matrix) and `nv`
//! vectors of columns (output channels). The sum runs over nested loops, then over unrolled taps, then over `k`: that is
//! a GEMM with no loops and one tap, and a convolution with loops over channel blocks and kernel rows and a tap for each
//! kernel column. B is read in that same order, `b_step` bytes for each k.

use super::activation::Activation;
use super::amx::tiles::{TileKernel, Tiles};
use super::split::Split;
use super::walk::{Loops, Products, counted, walk};
use crate::asm::reg::*;
use crate::asm::{Asm, Assembled, Isa, Lanes, Src};
use crate::error::{Error, Result};
use crate::module::Emitter;
use cranelift_module::{FuncId, Module};

/// What is added to the sums before the activation.
#[derive(Clone, Debug, PartialEq)]
pub enum Bias {
    /// Nothing.
    None,
    /// One value for each column, whole vectors: as a convolution's bias.
    Column,
    /// One value for each row, at these byte offsets.
    Row(Vec<i32>),
    /// For each column a factor of the sum and a value: a vector of factors and one of values for each vector of columns.
    Scaled,
}

/// A second operand added to the result, at its own byte offsets for each row and vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Residual {
    /// Byte offset of each row.
    pub rows: Vec<i32>,
    /// Bytes between vectors of columns.
    pub vector_step: i32,
    /// Factor.
    pub scale: f32,
}

/// One micro-kernel: `fn(a, b, c, bias, residual)`.
#[derive(Clone, Debug, PartialEq)]
pub struct Brgemm {
    /// Level.
    pub isa: Isa,
    /// Byte offset in A of each row.
    pub a_rows: Vec<i32>,
    /// Byte offset in C of each row.
    pub c_rows: Vec<i32>,
    /// Vectors of columns.
    pub nv: usize,
    /// Columns of the last vector (1 up to the lanes); only they are written. B and a column bias are read whole
    /// unless `b_masked`.
    pub last_lanes: usize,
    /// Columns of the first vector that are not written.
    pub first_lane: usize,
    /// B is read only up to `last_lanes` in the last vector (B in place, not padded).
    pub b_masked: bool,
    /// Bytes between vectors of columns in C.
    pub c_step: i32,
    /// `(count, bytes to advance in A)`, outermost first.
    pub loops: Vec<(usize, i32)>,
    /// Byte offsets in A inside the innermost loop.
    pub taps: Vec<i32>,
    /// Products for each tap.
    pub k: usize,
    /// Products for each tap in one turn of the outermost loop before its first, and what A moves after it: channels from
    /// the middle of a block to its end.
    pub head: Option<(usize, i32)>,
    /// Products for each tap in one more turn of the outermost loop after its last: the channels that do not fill a
    /// block. 0 for no such turn.
    pub tail_k: usize,
    /// Bytes between k in A.
    pub a_step: i32,
    /// Bytes between k in B.
    pub b_step: i32,
    /// Start from C instead of zero or bias.
    pub accumulate: bool,
    /// Factor of the sums.
    pub alpha: f32,
    /// Added term.
    pub bias: Bias,
    /// Second added term.
    pub residual: Option<Residual>,
    /// Applied last.
    pub activation: Option<Activation>,
    /// Bytes ahead in B to prefetch; 0 for none.
    pub prefetch: i32,
    /// Tiles of products of bf16, where it is not multiply-adds in vectors. A is then regrouped: a step of k is a row of a
    /// tile, 32 channels of one pixel, and every tap has one.
    pub tiles: Option<Tiles>,
}

/// Products that one turn of the innermost loop unrolls.
const UNROLL: usize = 16;
const COUNTERS: [Reg; 4] = [rax, r10, r11, r9];

/// How many rows fit beside `nv` vectors of columns, leaving what the epilogue needs.
pub fn max_rows(isa: Isa, nv: usize) -> usize {
    match (isa.vectors(), nv) {
        (Isa::Avx512, 1) => 28,
        (Isa::Avx512, 2) => 14,
        (Isa::Avx512, 3) => 8,
        (Isa::Avx512, 4) => 6,
        (Isa::Avx2, 1) => 11,
        (Isa::Avx2, 2) => 6,
        (Isa::Avx2, 3) => 3,
        (Isa::Baseline, 1) => 11,
        (Isa::Baseline, 2) => 6,
        (Isa::Baseline, 3) => 4,
        // One row streams B from memory and needs no registers for it.
        (Isa::Avx512, 5..=16) => 1,
        (Isa::Avx2 | Isa::Baseline, 4..=8) => 1,
        _ => 0,
    }
}

struct Emit<'a> {
    w: Asm,
    s: &'a Brgemm,
    first: Lanes,
    last: Lanes,
}

impl Brgemm {
    /// Rows.
    pub fn rows(&self) -> usize {
        self.a_rows.len()
    }

    /// The function in the emitter's module, made once for each spec.
    pub fn define<M: Module>(&self, e: &mut Emitter<M>) -> Result<FuncId> {
        let spec = self.clone();
        e.cached(format!("{self:?}"), |e| {
            let code = spec.assemble()?;
            e.assembled("brgemm", 5, &code)
        })
    }

    fn check(&self) -> Result<()> {
        let ok = self.rows() > 0
            && (self.tiles.is_some() || self.rows() <= max_rows(self.isa, self.nv))
            && self.c_rows.len() == self.rows()
            && self.k > 0
            && !self.taps.is_empty()
            && (1..=self.isa.lanes()).contains(&self.last_lanes)
            && self.first_lane < if self.nv == 1 { self.last_lanes } else { self.isa.lanes() }
            && (self.first_lane == 0 || !self.b_masked)
            && (self.tail_k == 0 && self.head.is_none() || !self.loops.is_empty())
            && self.loops.iter().all(|l| l.0 > 0)
            && self.residual.as_ref().is_none_or(|r| r.rows.len() == self.rows())
            && (self.tiles.is_none() || self.k == 1 && self.tail_k == 0 && self.head.is_none())
            && match &self.bias {
                Bias::Row(rows) => rows.len() == self.rows(),
                _ => true,
            };
        if ok { Ok(()) } else { Err(Error::Codegen(format!("bad micro-kernel {self:?}"))) }
    }

    /// The machine code.
    pub fn assemble(&self) -> Result<Assembled> {
        self.check()?;
        let mut w = Asm::new(self.isa)?;
        let alone = self.nv == 1 && self.first_lane > 0;
        let last = if alone { Lanes::All } else { w.lanes(self.last_lanes)? };
        let first = match (self.first_lane, alone) {
            (0, _) => Lanes::All,
            (f, true) => w.lane_range(f, self.last_lanes)?,
            (f, false) => w.lane_range(f, self.isa.lanes())?,
        };
        if let Some(tiles) = &self.tiles {
            return self.assemble_tiles(w, tiles, first, last);
        }
        let mut e = Emit { w, s: self, first, last };
        e.start()?;
        e.products()?;
        e.epilogue()?;
        e.w.finish()
    }

    /// The sums of each row of tiles go through memory into vectors, which end as they do else.
    fn assemble_tiles(&self, w: Asm, tiles: &Tiles, first: Lanes, last: Lanes) -> Result<Assembled> {
        let mut w = w;
        let kernel = TileKernel::new(tiles, &self.a_rows, self.nv, &self.taps)?;
        kernel.enter(&mut w)?;
        kernel.products(&mut w, &self.reduction())?;
        for (i, tile) in kernel.rows().iter().enumerate() {
            kernel.store(&mut w, i)?;
            for run in Split::at_most(tile.count, max_rows(self.isa, self.nv)).ranges() {
                let part = self.part(tile.first + run.start..tile.first + run.end);
                let mut e = Emit { w, s: &part, first, last };
                e.collect(|r, v| kernel.sum(run.start + r, v))?;
                e.epilogue()?;
                w = e.w;
            }
        }
        kernel.leave(&mut w)?;
        w.finish()
    }

    /// The same of some of the rows.
    fn part(&self, rows: std::ops::Range<usize>) -> Brgemm {
        let cut = |v: &[i32]| v[rows.clone()].to_vec();
        Brgemm {
            a_rows: cut(&self.a_rows),
            c_rows: cut(&self.c_rows),
            residual: self.residual.as_ref().map(|r| Residual { rows: cut(&r.rows), ..r.clone() }),
            bias: match &self.bias {
                Bias::Row(at) => Bias::Row(cut(at)),
                other => other.clone(),
            },
            ..self.clone()
        }
    }

    fn reduction(&self) -> Loops<'_> {
        Loops { loops: &self.loops, k: self.k, head: self.head, tail_k: self.tail_k }
    }

    /// Bias as the first accumulator is free; not when the sums are scaled, or made elsewhere.
    pub(super) fn bias_first(&self) -> bool {
        !self.accumulate && self.alpha == 1.0 && self.tiles.is_none()
    }
}

impl Products for Emit<'_> {
    fn asm(&mut self) -> &mut Asm {
        &mut self.w
    }

    fn body(&mut self, k: usize, counters: &mut Vec<Reg>) -> Result<i64> {
        let s = self.s;
        if s.taps.len() == 1 && k > UNROLL {
            let unroll = UNROLL;
            let turns = k / unroll;
            let turn = |e: &mut Self, _: &mut Vec<Reg>| {
                e.steps(unroll, 0)?;
                e.advance(unroll)
            };
            match turns {
                1 => turn(self, counters)?,
                _ => counted(self, turns, counters, turn)?,
            }
            let rest = k % unroll;
            self.steps(rest, 0)?;
            self.w.add_imm(rsi, rest as i64 * i64::from(s.b_step))?;
            return Ok((turns * unroll) as i64 * i64::from(s.a_step));
        }
        for (t, &tap) in s.taps.iter().enumerate() {
            for i in 0..k {
                self.step(tap + i as i32 * s.a_step, (t * k + i) as i32 * s.b_step)?;
            }
        }
        self.w.add_imm(rsi, (s.taps.len() * k) as i64 * i64::from(s.b_step))?;
        Ok(0)
    }
}

impl Emit<'_> {
    fn acc(&self, r: usize, v: usize) -> usize {
        r * self.s.nv + v
    }
    fn accumulators(&self) -> usize {
        self.s.rows() * self.s.nv
    }
    /// B vectors and broadcasts of A share what the accumulators leave.
    fn b_reg(&self, v: usize) -> usize {
        self.accumulators() + v
    }
    fn lanes_of(&self, v: usize) -> Lanes {
        match v {
            0 if self.s.first_lane > 0 => self.first,
            _ if v + 1 == self.s.nv => self.last,
            _ => Lanes::All,
        }
    }
    fn c_at(&self, r: usize, v: usize) -> Mem {
        rdx + (self.s.c_rows[r] + v as i32 * self.s.c_step)
    }

    fn start(&mut self) -> Result<()> {
        let s = self.s;
        for v in 0..s.nv {
            for r in 0..s.rows() {
                let acc = self.acc(r, v);
                if s.accumulate {
                    let (at, lanes) = (self.c_at(r, v), self.lanes_of(v));
                    self.w.load_lanes(acc, at, lanes)?;
                    continue;
                }
                match &s.bias {
                    Bias::Column if s.bias_first() => match r {
                        0 => self.w.load(acc, rcx + v as i32 * self.w.vb())?,
                        _ => self.w.mov(acc, self.acc(0, v))?,
                    },
                    Bias::Row(rows) if s.bias_first() => match v {
                        0 => self.w.broadcast(acc, rcx + rows[r])?,
                        _ => self.w.mov(acc, self.acc(r, 0))?,
                    },
                    _ => self.w.zero(acc)?,
                }
            }
        }
        Ok(())
    }

    /// Takes sums from memory, beside what C holds if this is not the first part of the reduction.
    fn collect(&mut self, sum: impl Fn(usize, usize) -> Mem) -> Result<()> {
        for r in 0..self.s.rows() {
            for v in 0..self.s.nv {
                let acc = self.acc(r, v);
                match self.s.accumulate {
                    true => {
                        let (at, lanes) = (self.c_at(r, v), self.lanes_of(v));
                        self.w.load_lanes(acc, at, lanes)?;
                        self.w.add(acc, acc, Src::Mem(sum(r, v)))?;
                    }
                    false => self.w.load(acc, sum(r, v))?,
                }
            }
        }
        Ok(())
    }

    fn products(&mut self) -> Result<()> {
        let s = self.s;
        walk(self, &s.reduction(), &COUNTERS)
    }

    fn steps(&mut self, n: usize, from: i32) -> Result<()> {
        for k in from..from + n as i32 {
            self.step(self.s.taps[0] + k * self.s.a_step, k * self.s.b_step)?;
        }
        Ok(())
    }

    fn advance(&mut self, n: usize) -> Result<()> {
        self.w.add_imm(rdi, n as i64 * i64::from(self.s.a_step))?;
        self.w.add_imm(rsi, n as i64 * i64::from(self.s.b_step))
    }

    /// One k: `acc[r][v] += A[r] * B[v]`.
    fn step(&mut self, a: i32, b: i32) -> Result<()> {
        let s = self.s;
        let vb = self.w.vb();
        let b_at = |v: usize| -> Mem { rsi + (b + v as i32 * vb) };
        let masked = |v: usize| s.b_masked && v + 1 == s.nv;
        if s.rows() == 1 {
            let t = self.accumulators();
            self.w.broadcast(t, rdi + (a + s.a_rows[0]))?;
            for v in 0..s.nv {
                if masked(v) {
                    self.w.load_lanes(t + 1, b_at(v), self.last)?;
                    self.w.fma(v, t, t + 1)?;
                } else {
                    self.w.fma(v, t, Src::Mem(b_at(v)))?;
                }
                if s.prefetch != 0 {
                    self.w.prefetch(rsi + (b + v as i32 * vb + s.prefetch))?;
                }
            }
            return Ok(());
        }
        for v in 0..s.nv {
            let lanes = if masked(v) { self.last } else { Lanes::All };
            let reg = self.b_reg(v);
            self.w.load_lanes(reg, b_at(v), lanes)?;
        }
        if s.prefetch != 0 {
            for v in 0..s.nv {
                self.w.prefetch(rsi + (b + v as i32 * vb + s.prefetch))?;
            }
        }
        let first = self.b_reg(s.nv);
        let temps = self.w.regs().saturating_sub(first);
        for r in 0..s.rows() {
            let at: Mem = rdi + (a + s.a_rows[r]);
            if s.nv == 1 && s.isa == Isa::Avx512 {
                let (acc, breg) = (self.acc(r, 0), self.b_reg(0));
                self.multiply_add(0, acc, breg, Src::Each(at))?;
                continue;
            }
            let t = first + r % temps.max(1);
            self.w.broadcast(t, at)?;
            for v in 0..s.nv {
                let (acc, breg) = (self.acc(r, v), self.b_reg(v));
                self.multiply_add(v, acc, t, Src::Reg(breg))?;
            }
        }
        Ok(())
    }

    /// `acc += x * y` of the columns of vector `v`: half a vector if the last has no more.
    fn multiply_add(&mut self, v: usize, acc: usize, x: usize, y: Src) -> Result<()> {
        let half = v + 1 == self.s.nv && 2 * self.s.last_lanes <= self.s.isa.lanes();
        if half { self.w.fma_low(acc, x, y) } else { self.w.fma(acc, x, y) }
    }

    fn epilogue(&mut self) -> Result<()> {
        let s = self.s;
        let free = self.accumulators();
        let temps = [free, free + 1, free + 2];
        if s.alpha != 1.0 {
            self.w.splat(temps[0], s.alpha)?;
            for i in 0..self.accumulators() {
                self.w.mul(i, i, temps[0])?;
            }
        }
        if !s.bias_first() {
            self.late_bias(temps)?;
        }
        if let Some(residual) = &s.residual {
            self.add_residual(residual, temps)?;
        }
        if let Some(activation) = s.activation {
            let all: Vec<usize> = (0..self.accumulators()).collect();
            activation.emit(&mut self.w, &all, temps)?;
        }
        for r in 0..s.rows() {
            for v in 0..s.nv {
                let (at, acc, lanes) = (self.c_at(r, v), self.acc(r, v), self.lanes_of(v));
                self.w.store_lanes(at, acc, lanes)?;
            }
        }
        Ok(())
    }

    fn late_bias(&mut self, temps: [usize; 3]) -> Result<()> {
        let s = self.s;
        match &s.bias {
            Bias::None => {}
            Bias::Scaled => {
                for v in 0..s.nv {
                    let record = rcx + 2 * v as i32 * self.w.vb();
                    self.w.load(temps[0], record)?;
                    self.w.load(temps[1], record + self.w.vb())?;
                    for r in 0..s.rows() {
                        let acc = self.acc(r, v);
                        self.w.fma213(acc, temps[0], temps[1])?;
                    }
                }
            }
            Bias::Column => {
                for v in 0..s.nv {
                    self.w.load(temps[0], rcx + v as i32 * self.w.vb())?;
                    for r in 0..s.rows() {
                        let acc = self.acc(r, v);
                        self.w.add(acc, acc, temps[0])?;
                    }
                }
            }
            Bias::Row(rows) => {
                for (r, &row) in rows.iter().enumerate() {
                    self.w.broadcast(temps[0], rcx + row)?;
                    for v in 0..s.nv {
                        let acc = self.acc(r, v);
                        self.w.add(acc, acc, temps[0])?;
                    }
                }
            }
        }
        Ok(())
    }

    fn add_residual(&mut self, residual: &Residual, temps: [usize; 3]) -> Result<()> {
        const BASE: Reg = r8;
        if residual.scale != 1.0 {
            self.w.splat(temps[1], residual.scale)?;
        }
        for (r, &row) in residual.rows.iter().enumerate() {
            for v in 0..self.s.nv {
                let (acc, lanes) = (self.acc(r, v), self.lanes_of(v));
                self.w.load_lanes(temps[0], BASE + (row + v as i32 * residual.vector_step), lanes)?;
                match residual.scale == 1.0 {
                    true => self.w.add(acc, acc, temps[0])?,
                    false => self.w.fma(acc, temps[0], temps[1])?,
                }
            }
        }
        Ok(())
    }
}
