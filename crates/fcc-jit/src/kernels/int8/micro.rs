//! The micro-kernel: a batch-reduce GEMM of bytes whose offsets and loop counts are constants.
//!
//! `Y[r][v] = f(init[v] + Σ X[r, k] * W[k, v])` for `rows` rows (pixels, or rows of a matrix) and `nv` vectors of columns.
//! One step of the reduction is four k. The sum runs over nested loops, then unrolled taps, then k; W is read in that order.

use super::{Input, Zero};
use crate::asm::reg::*;
use crate::asm::{Asm, Assembled, Dot, Isa, Lanes, Src, TILE_ROWS};
use crate::error::{Error, Result};
use crate::kernels::amx::tiles::{TileKernel, Tiles};
use crate::kernels::brgemm::max_rows;
use crate::kernels::elem::Elem;
use crate::kernels::ew::in_registers;
use crate::kernels::split::Split;
use crate::kernels::walk::{Loops, Products, counted, walk};
use crate::module::Emitter;
use cranelift_module::{FuncId, Module};

/// One micro-kernel: `fn(x, w, y, columns, residual, operands)`. `operands` are the pointers of the step's operands, for
/// those of one element.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Micro {
    pub isa: Isa,
    pub dot: Dot,
    /// Whether x is int8, not uint8.
    pub signed: bool,
    /// Byte offset in x of each row.
    pub x_rows: Vec<i32>,
    /// Byte offset in y of each row.
    pub y_rows: Vec<i32>,
    /// Byte offset in the residual of each row.
    pub residual_rows: Vec<i32>,
    /// Vectors of columns.
    pub nv: usize,
    /// Columns of the last vector that are stored.
    pub last_lanes: usize,
    /// Bytes between vectors of columns in y and in the residual.
    pub y_step: i32,
    pub residual_step: i32,
    /// `(count, bytes to advance in x)`, outermost first.
    pub loops: Vec<(usize, i32)>,
    /// Byte offsets in x inside the innermost loop.
    pub taps: Vec<i32>,
    /// Steps of four k for each tap.
    pub k: usize,
    /// Steps for each tap in one more turn of the outermost loop after its last; 0 for no such turn.
    pub tail_k: usize,
    /// k behind the last step of a straight reduction that fill no step: 0 to 3.
    pub rest: usize,
    pub zero: Zero,
    pub epilogue: super::Epilogue,
    /// By input of the epilogue that is a scalar, and first for a zero point at run time: the index of its operand.
    pub scalars: Vec<usize>,
    /// Bytes ahead in W to prefetch; 0 for none.
    pub prefetch: i32,
}

/// Steps that one turn of the innermost loop unrolls.
const UNROLL: usize = 8;
const COUNTERS: [Reg; 5] = [rbx, r12, r11, r10, rax];
const SAVED: [Reg; 2] = [rbx, r12];

/// Registers that an expression may take, beside its inputs.
const EXPRESSION_REGS: usize = 9;

struct Emit<'a> {
    w: Asm,
    s: &'a Micro,
    last: Lanes,
}

impl Micro {
    pub fn rows(&self) -> usize {
        self.x_rows.len()
    }

    /// The function in the emitter's module, made once for each spec.
    pub fn define<M: Module>(&self, e: &mut Emitter<M>) -> Result<FuncId> {
        e.cached(format!("{self:?}"), |e| {
            let code = self.assemble()?;
            e.assembled("int8", 6, &code)
        })
    }

    fn assemble(&self) -> Result<Assembled> {
        let fine = self.rows() > 0
            && (self.dot == Dot::Tiles || self.rows() <= max_rows(self.isa, self.nv))
            && (self.dot != Dot::Tiles || (self.k, self.tail_k, self.rest) == (TILE_ROWS, 0, 0))
            && self.y_rows.len() == self.rows()
            && (self.k > 0 || self.rest > 0)
            && !self.taps.is_empty()
            && (self.tail_k == 0 || !self.loops.is_empty())
            && (self.rest == 0 || self.taps.len() == 1)
            && (self.epilogue.residual().is_none() || self.residual_rows.len() == self.rows());
        if !fine {
            return Err(Error::Codegen(format!("bad micro-kernel {self:?}")));
        }
        let mut w = Asm::new(self.isa)?;
        let last = w.lanes(self.last_lanes)?;
        if self.dot == Dot::Tiles {
            return self.assemble_tiles(w, last);
        }
        w.enter(&SAVED, 0)?;
        let mut e = Emit { w, s: self, last };
        e.start()?;
        e.products()?;
        let mut w = e.epilogue()?;
        w.leave(&SAVED, 0)?;
        w.finish()
    }

    /// The sums of each row of tiles go through memory into vectors, which end as they do else.
    fn assemble_tiles(&self, w: Asm, last: Lanes) -> Result<Assembled> {
        let mut w = w;
        let kernel =
            TileKernel::new(&Tiles::Bytes { signed: self.signed }, &self.x_rows, self.nv, &self.taps)?;
        kernel.enter(&mut w)?;
        kernel.products(&mut w, &self.reduction())?;
        for (i, tile) in kernel.rows().iter().enumerate() {
            kernel.store(&mut w, i)?;
            for run in Split::at_most(tile.count, max_rows(self.isa, self.nv)).ranges() {
                let part = self.part(tile.first + run.start..tile.first + run.end);
                let mut e = Emit { w, s: &part, last };
                e.start()?;
                for r in 0..part.rows() {
                    for v in 0..part.nv {
                        let acc = e.acc(r, v);
                        e.w.addi(acc, acc, Src::Mem(kernel.sum(run.start + r, v)))?;
                    }
                }
                w = e.epilogue()?;
            }
        }
        kernel.leave(&mut w)?;
        w.finish()
    }

    /// The same of some of the rows.
    fn part(&self, rows: std::ops::Range<usize>) -> Micro {
        let cut = |v: &[i32]| v.get(rows.clone()).unwrap_or_default().to_vec();
        Micro {
            x_rows: cut(&self.x_rows),
            y_rows: cut(&self.y_rows),
            residual_rows: cut(&self.residual_rows),
            ..self.clone()
        }
    }

    fn reduction(&self) -> Loops<'_> {
        Loops { loops: &self.loops, k: self.k, head: None, tail_k: self.tail_k }
    }

    /// Bytes of what the columns of one vector have: the start of the sums, the sums of w where the zero point of x is
    /// read at run time, then the constants of the epilogue.
    pub fn column_bytes(isa: Isa, zero: Zero, epilogue: &super::Epilogue) -> usize {
        (1 + usize::from(zero == Zero::Operand) + epilogue.columns()) * isa.vector_bytes()
    }
}

impl Products for Emit<'_> {
    fn asm(&mut self) -> &mut Asm {
        &mut self.w
    }

    fn body(&mut self, k: usize, counters: &mut Vec<Reg>) -> Result<i64> {
        let (s, w_step) = (self.s, self.w_step());
        let mut moved = 0;
        let mut k = k;
        if s.taps.len() == 1 && k > UNROLL {
            let turns = k / UNROLL;
            let turn = |e: &mut Self, _: &mut Vec<Reg>| {
                for i in 0..UNROLL as i32 {
                    e.step(s.taps[0] + 4 * i, i * w_step, 4)?;
                }
                e.w.add_imm(rdi, 4 * UNROLL as i64)?;
                e.w.add_imm(rsi, UNROLL as i64 * i64::from(w_step))
            };
            counted(self, turns, counters, turn)?;
            moved = (turns * UNROLL * 4) as i64;
            k %= UNROLL;
        }
        let mut next = 0;
        for &tap in &s.taps {
            for i in 0..k as i32 {
                self.step(tap + 4 * i, next, 4)?;
                next += w_step;
            }
        }
        // the end of a row is read by twos and ones: what lies behind it may be no memory
        let mut at = s.taps[0] + 4 * k as i32;
        for bytes in [2, 1] {
            if s.rest & bytes != 0 {
                self.step(at, next, bytes)?;
                next += w_step;
                at += bytes as i32;
            }
        }
        self.w.add_imm(rsi, i64::from(next))?;
        Ok(moved)
    }
}

impl Emit<'_> {
    fn acc(&self, r: usize, v: usize) -> usize {
        r * self.s.nv + v
    }
    fn accumulators(&self) -> usize {
        self.s.rows() * self.s.nv
    }
    fn lanes_of(&self, v: usize) -> Lanes {
        if v + 1 == self.s.nv { self.last } else { Lanes::All }
    }
    /// Array `j` of the columns of vector `v`.
    fn column(&self, v: usize, j: usize) -> Mem {
        let bytes = Micro::column_bytes(self.s.isa, self.s.zero, &self.s.epilogue);
        rcx + (v * bytes + j * self.s.isa.vector_bytes()) as i32
    }

    /// `init`, less the zero point times the column's sum of w if it comes at run time.
    fn start(&mut self) -> Result<()> {
        let s = self.s;
        let (t, z) = (self.accumulators(), self.accumulators() + 1);
        if s.zero == Zero::Operand {
            let operand = *s.scalars.first().ok_or_else(|| Error::Codegen("no zero point".into()))?;
            self.w.load_pointer(rax, r9 + 8 * operand as i32)?;
            self.w.broadcast_byte(z, rax + 0, s.signed)?;
            if s.signed && s.dot == Dot::Bytes {
                self.w.addi(z, z, Src::Bits(128))?;
            }
        }
        for v in 0..s.nv {
            let first = self.acc(0, v);
            let init = self.column(v, 0);
            self.w.load(first, init)?;
            if s.zero == Zero::Operand {
                let sums = self.column(v, 1);
                self.w.muli(t, z, Src::Mem(sums))?;
                self.w.subi(first, first, t)?;
            }
            for r in 1..s.rows() {
                let acc = self.acc(r, v);
                self.w.mov(acc, first)?;
            }
        }
        if s.dot == Dot::Bytes && s.signed {
            let flip = self.flip();
            self.w.splat(flip, f32::from_bits(0x8080_8080))?;
        }
        Ok(())
    }
    /// The register that turns int8 into uint8.
    fn flip(&self) -> usize {
        self.w.regs() - 1
    }

    fn products(&mut self) -> Result<()> {
        let s = self.s;
        walk(self, &s.reduction(), &COUNTERS)
    }

    /// Bytes of w for one step.
    fn w_step(&self) -> i32 {
        (self.s.nv * self.s.dot.step_bytes(self.s.isa.lanes())) as i32
    }

    /// One step: `acc[r][v] += Σ X[r][0..4] * W[0..4][v]`; of fewer than four bytes, they stand repeated.
    fn step(&mut self, x: i32, w: i32, bytes: usize) -> Result<()> {
        match self.s.dot {
            Dot::Bytes => self.step_bytes(x, w, bytes),
            Dot::Words => self.step_words(x, w, bytes),
            Dot::Tiles => Err(Error::Codegen("tiles take sixteen steps at once".into())),
        }
    }

    fn step_bytes(&mut self, x: i32, w: i32, bytes: usize) -> Result<()> {
        let (s, vb, accs) = (self.s, self.w.vb(), self.accumulators());
        let spare = self.w.regs() - accs - usize::from(s.signed);
        let w_at = |v: usize| -> Mem { rsi + (w + v as i32 * vb) };
        // w stays in registers while several rows use it, if there are so many
        let held = s.rows() > 1 && spare > s.nv;
        if held {
            for v in 0..s.nv {
                self.w.load(accs + v, w_at(v))?;
            }
        }
        if s.prefetch != 0 {
            for v in 0..s.nv {
                self.w.prefetch(rsi + (w + v as i32 * vb + s.prefetch))?;
            }
        }
        let first = accs + if held { s.nv } else { 0 };
        let temps = accs + spare - first;
        for r in 0..s.rows() {
            let t = first + r % temps.max(1);
            self.w.repeat_bytes(t, rdi + (x + s.x_rows[r]), bytes)?;
            if s.signed {
                let flip = self.flip();
                self.w.xor(t, t, flip)?;
            }
            for v in 0..s.nv {
                let acc = self.acc(r, v);
                let y = if held { Src::Reg(accs + v) } else { Src::Mem(w_at(v)) };
                self.w.dot_bytes(acc, t, y)?;
            }
        }
        Ok(())
    }

    /// As words: k 0 and 2 of each step, then 1 and 3.
    fn step_words(&mut self, x: i32, w: i32, bytes: usize) -> Result<()> {
        let (s, vb, accs) = (self.s, self.w.vb(), self.accumulators());
        let (odd, even, p) = (accs, accs + 1, accs + 2);
        for r in 0..s.rows() {
            self.w.repeat_bytes(odd, rdi + (x + s.x_rows[r]), bytes)?;
            if s.signed {
                self.w.shift_words_left(even, odd, 8)?;
                self.w.shift_words_right_arithmetic(even, even, 8)?;
                self.w.shift_words_right_arithmetic(odd, odd, 8)?;
            } else {
                self.w.and(even, odd, Src::Bits(0x00ff_00ff))?;
                self.w.shift_words_right(odd, odd, 8)?;
            }
            for v in 0..s.nv {
                let acc = self.acc(r, v);
                for (pair, words) in [even, odd].into_iter().enumerate() {
                    let at = rsi + (w + (pair * s.nv + v) as i32 * vb);
                    self.w.multiply_pairs(p, words, Src::Mem(at))?;
                    self.w.addi(acc, acc, p)?;
                }
            }
        }
        Ok(())
    }

    /// Stores the sums, or what the expression makes of them.
    fn epilogue(mut self) -> Result<Asm> {
        let s = self.s;
        let Some(expr) = &s.epilogue.expr else {
            for r in 0..s.rows() {
                for v in 0..s.nv {
                    let (acc, lanes) = (self.acc(r, v), self.lanes_of(v));
                    self.w.store_lanes(rdx + (s.y_rows[r] + v as i32 * s.y_step), acc, lanes)?;
                }
            }
            return Ok(self.w);
        };
        let (accs, regs) = (self.accumulators(), self.w.regs());
        let inputs = s.epilogue.inputs.len();
        // what the expression needs is taken from the first accumulators, which wait on the stack
        let spilled = (inputs + EXPRESSION_REGS).saturating_sub(regs - accs).min(accs);
        if spilled > 0 {
            self.w.open_spills(spilled)?;
        }
        for i in 0..spilled {
            self.w.spill(i, i)?;
        }
        let pool: Vec<usize> = (0..spilled).chain(accs..regs).collect();
        let (input_regs, free) = pool.split_at(inputs.min(pool.len()));
        if input_regs.len() < inputs {
            return Err(Error::unsupported("int8", "an expression of too many inputs"));
        }
        let Emit { mut w, last, .. } = self;
        let mut scalars = s.scalars.iter().skip(usize::from(s.zero == Zero::Operand));
        for (input, r) in s.epilogue.inputs.iter().zip(input_regs) {
            if let Input::Scalar(elem) = input {
                let at = scalars.next().ok_or_else(|| Error::Codegen("no scalar operand".into()))?;
                w.load_pointer(rax, r9 + 8 * *at as i32)?;
                elem.broadcast(&mut w, *r, rax + 0)?;
            }
        }
        let me = Emit { w: Asm::new(s.isa)?, s, last };
        let (mut w, ()) = in_registers(w, expr, |f| {
            for v in 0..s.nv {
                // the constants of a vector's columns stay for all rows
                let mut column = 1 + usize::from(s.zero == Zero::Operand);
                for (input, r) in s.epilogue.inputs.iter().zip(input_regs) {
                    if *input == Input::Column {
                        f.asm().load(*r, me.column(v, column))?;
                        column += 1;
                    }
                }
                let count = if v + 1 == s.nv { s.last_lanes } else { s.isa.lanes() };
                for r in 0..s.rows() {
                    let mut free = free.to_vec();
                    let mut acc = me.acc(r, v);
                    if acc < spilled {
                        let room = acc;
                        acc = free.pop().ok_or_else(|| Error::Codegen("no register".into()))?;
                        f.asm().unspill(acc, room)?;
                    }
                    f.asm().from_int(acc, acc)?;
                    let lanes = me.lanes_of(v);
                    for (input, reg) in s.epilogue.inputs.iter().zip(input_regs) {
                        if let Input::Residual(elem) = input {
                            let at = r8 + (s.residual_rows[r] + v as i32 * s.residual_step);
                            elem.load(f.asm(), *reg, at, lanes, count)?;
                        }
                    }
                    let all: Vec<usize> = std::iter::once(acc).chain(input_regs.iter().copied()).collect();
                    let (y, t) = f.evaluate(&all, &free)?;
                    let at = rdx + (s.y_rows[r] + v as i32 * s.y_step);
                    s.epilogue.out.store(f.asm(), at, y, lanes, count, t)?;
                }
            }
            Ok(())
        })?;
        if spilled > 0 {
            w.close_spills(spilled)?;
        }
        Ok(w)
    }
}

/// An offset that an instruction can hold.
pub(super) fn i32_of(n: i64) -> Result<i32> {
    i32::try_from(n).map_err(|_| Error::unsupported("int8", format!("offset {n} does not fit 32 bits")))
}

/// What is stored of the elements of `elem` beside one another in one vector, in bytes.
pub(super) fn vector_bytes(isa: Isa, elem: Elem) -> i64 {
    (isa.lanes() * elem.bytes()) as i64
}
