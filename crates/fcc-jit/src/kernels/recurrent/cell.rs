//! One time step of a recurrent layer for a few sequences: the product of their states with the recurrence weights
//! and, on its accumulators, the equations of the cell.
use super::CellFunction;
use crate::asm::reg::*;
use crate::asm::{Asm, Assembled, Isa, Lanes, Src};
use crate::error::{Error, Result};

/// What a step does with its products.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Gate: the state itself.
    Rnn,
    /// Gates i, o, f, c; `extra` holds the peepholes of i, o, f where there are such.
    Lstm { peepholes: bool, input_forget: bool },
    /// Gates z, r, h, the last one scaled by r; `extra` holds its recurrence bias.
    GruLinear,
    /// Gates z, r: keeps z, and the state scaled by r.
    GruGates,
    /// Gate h, of the scaled state.
    GruCandidate,
}

impl Phase {
    /// The gates of the layer that the step computes.
    pub fn gates(self) -> std::ops::Range<usize> {
        match self {
            Phase::Rnn => 0..1,
            Phase::Lstm { .. } => 0..4,
            Phase::GruLinear => 0..3,
            Phase::GruGates => 0..2,
            Phase::GruCandidate => 2..3,
        }
    }
}

/// What the code depends on. Sizes are in elements, steps between sequences in bytes.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Cell {
    pub phase: Phase,
    pub hidden: usize,
    /// Sequences.
    pub rows: usize,
    /// Vectors of units whose gates are accumulated at once.
    pub vectors: usize,
    /// From one sequence's working space to the next one's.
    pub row: usize,
    /// From one sequence's projected input to the next one's, and so for the results.
    pub g_row: usize,
    pub y_row: Option<usize>,
    /// Functions f, g, h.
    pub functions: Vec<CellFunction>,
    pub clip: Option<f32>,
}

/// Products unrolled in one turn of the inner loop.
const UNROLL: usize = 4;
const UNIT: Reg = rbx;
const STATE: Reg = r8;
const NEXT: Reg = r10;
const WORK: Reg = r11;

/// Vector registers beside the accumulators.
struct Temps {
    t: [usize; 3],
    x: usize,
    c: usize,
}

impl Cell {
    /// Bytes of one padded list of units.
    fn part(&self, isa: Isa) -> i32 {
        super::padded(isa, self.hidden) as i32 * 4
    }

    /// `fn(weights, work, g, extra, flip, y)`: `work` is the first sequence's working space, whose state stands at byte
    /// `flip` (0 or one part) and whose new state is put in the other part; behind the two come the parts that
    /// the phase needs besides: the cell state, or z and the scaled state.
    pub fn assemble(&self, isa: Isa) -> Result<Assembled> {
        let mut w = Asm::new(isa)?;
        let units = self.hidden.div_ceil(isa.lanes());
        let last = (self.hidden - 1) % isa.lanes() + 1;
        let tail = w.lanes(last)?;
        w.enter(&[UNIT], 0)?;
        let part = self.part(isa);
        // rsi + part - r8
        w.copy(NEXT, r8)?;
        w.neg(NEXT)?;
        w.add_reg(NEXT, rsi)?;
        w.add_imm(NEXT, part.into())?;
        w.lea(WORK, rsi + 2 * part)?;
        w.add_reg(STATE, rsi)?;
        w.set(UNIT, 0)?;
        let (whole, rest) = ((units - 1) / self.vectors, (units - 1) % self.vectors + 1);
        if whole > 0 {
            let top = w.here()?;
            self.panel(&mut w, self.vectors, Lanes::All)?;
            let step = self.vectors as i32 * w.vb();
            w.until(UNIT, step, whole as i32 * step, top)?;
        }
        self.panel(&mut w, rest, tail)?;
        w.leave(&[UNIT], 0)?;
        w.finish()
    }

    fn acc(&self, vectors: usize, row: usize, gate: usize, v: usize) -> usize {
        (row * self.phase.gates().len() + gate) * vectors + v
    }

    /// `vectors` vectors of units from byte `UNIT` on.
    fn panel(&self, w: &mut Asm, vectors: usize, tail: Lanes) -> Result<()> {
        let gates = self.phase.gates().len();
        let accs = self.rows * gates * vectors;
        let room = if w.isa() == Isa::Avx2 { self.rows + 1 } else { 5 };
        if accs + room.max(5) > w.regs() {
            return Err(Error::Codegen(format!("a cell of {accs} accumulators")));
        }
        (0..accs).try_for_each(|a| w.zero(a))?;
        // the scaled state stands behind z
        match self.phase {
            Phase::GruCandidate => w.lea(rax, WORK + self.part(w.isa()))?,
            _ => w.copy(rax, STATE)?,
        }
        let (turns, rest) = (self.hidden / UNROLL, self.hidden % UNROLL);
        if turns > 0 {
            let top = w.repeat(rsi, turns)?;
            self.products(w, vectors, UNROLL, accs)?;
            w.again(rsi, top)?;
        }
        self.products(w, vectors, rest, accs)?;
        let temps = Temps { t: [accs, accs + 1, accs + 2], x: accs + 3, c: accs + 4 };
        for row in 0..self.rows {
            for v in 0..vectors {
                let lanes = if v + 1 == vectors { tail } else { Lanes::All };
                let accs: Vec<usize> = (0..gates).map(|g| self.acc(vectors, row, g, v)).collect();
                Site { cell: self, row, v, lanes, temps: &temps }.equations(w, &accs)?;
            }
        }
        Ok(())
    }

    /// The products with `count` elements of the states.
    fn products(&self, w: &mut Asm, vectors: usize, count: usize, free: usize) -> Result<()> {
        let (n, vb) = (self.phase.gates().len() * vectors, w.vb());
        for k in 0..count {
            let state = |r: usize| rax + (r * self.row + 4 * k) as i32;
            let weight = |i: usize| rdi + ((k * n + i) as i32 * vb);
            if self.rows == 1 {
                w.broadcast(free, state(0))?;
                (0..n).try_for_each(|i| w.fma(i, free, Src::Mem(weight(i))))?;
            } else if w.isa() == Isa::Avx512 {
                for i in 0..n {
                    w.load(free, weight(i))?;
                    (0..self.rows).try_for_each(|r| w.fma(r * n + i, free, Src::Each(state(r))))?;
                }
            } else {
                (0..self.rows).try_for_each(|r| w.broadcast(free + 1 + r, state(r)))?;
                for i in 0..n {
                    w.load(free, weight(i))?;
                    (0..self.rows).try_for_each(|r| w.fma(r * n + i, free, free + 1 + r))?;
                }
            }
        }
        w.add_imm(rax, 4 * count as i64)?;
        w.add_imm(rdi, (count * n) as i64 * i64::from(vb))
    }
}

/// One vector of units of one sequence.
struct Site<'a> {
    cell: &'a Cell,
    row: usize,
    v: usize,
    lanes: Lanes,
    temps: &'a Temps,
}

impl Site<'_> {
    fn at(&self, w: &Asm, base: Reg, offset: usize) -> Mem {
        base + UNIT + (offset as i32 + self.v as i32 * w.vb())
    }
    /// A part of the working space, counted from the one behind the states.
    fn work(&self, w: &Asm, index: usize) -> Mem {
        self.at(w, WORK, self.row * self.cell.row + index * self.cell.part(w.isa()) as usize)
    }
    fn state(&self, w: &Asm) -> Mem {
        self.at(w, STATE, self.row * self.cell.row)
    }
    /// `acc += g` of a gate: the projected input with its biases.
    fn add_input(&self, w: &mut Asm, acc: usize, gate: usize) -> Result<()> {
        self.load_input(w, gate)?;
        w.add(acc, acc, self.temps.x)
    }
    fn load_input(&self, w: &mut Asm, gate: usize) -> Result<()> {
        let m = self.at(w, rdx, self.row * self.cell.g_row + 4 * gate * self.cell.hidden);
        w.load_lanes(self.temps.x, m, self.lanes)
    }
    fn extra(&self, w: &mut Asm, index: usize) -> Result<()> {
        let m = self.at(w, rcx, index * self.cell.part(w.isa()) as usize);
        w.load(self.temps.x, m)
    }
    /// A function of the clipped value.
    fn function(&self, w: &mut Asm, which: usize, d: usize) -> Result<()> {
        if let Some(bound) = self.cell.clip {
            w.clamp(d, -bound, bound, self.temps.t[0])?;
        }
        self.cell.functions[which].emit(w, d, self.temps.t)
    }
    /// The new state of these units.
    fn finish(&self, w: &mut Asm, h: usize) -> Result<()> {
        let m = self.at(w, NEXT, self.row * self.cell.row);
        w.store(m, h)?;
        if let Some(y_row) = self.cell.y_row {
            let m = self.at(w, r9, self.row * y_row);
            w.store_lanes(m, h, self.lanes)?;
        }
        Ok(())
    }

    fn equations(&self, w: &mut Asm, acc: &[usize]) -> Result<()> {
        match (self.cell.phase, acc) {
            (Phase::Rnn, &[h]) => {
                self.add_input(w, h, 0)?;
                self.function(w, 0, h)?;
                self.finish(w, h)
            }
            (Phase::Lstm { peepholes, input_forget }, &[i, o, f, c]) => {
                self.lstm(w, [i, o, f, c], peepholes, input_forget)
            }
            (Phase::GruLinear, &[z, r, h]) => {
                for (gate, a) in [(0, z), (1, r)] {
                    self.add_input(w, a, gate)?;
                    self.function(w, 0, a)?;
                }
                self.extra(w, 0)?;
                w.add(h, h, self.temps.x)?;
                w.mul(h, h, r)?;
                self.add_input(w, h, 2)?;
                self.function(w, 1, h)?;
                self.mix(w, z, h)
            }
            (Phase::GruGates, &[z, r]) => {
                for (gate, a) in [(0, z), (1, r)] {
                    self.add_input(w, a, gate)?;
                    self.function(w, 0, a)?;
                }
                let (kept, scaled, state) = (self.work(w, 0), self.work(w, 1), self.state(w));
                w.store(kept, z)?;
                w.load(self.temps.x, state)?;
                w.mul(r, r, self.temps.x)?;
                w.store(scaled, r)
            }
            (Phase::GruCandidate, &[h]) => {
                self.add_input(w, h, 2)?;
                self.function(w, 1, h)?;
                let z = self.work(w, 0);
                w.load(self.temps.c, z)?;
                self.mix(w, self.temps.c, h)
            }
            _ => Err(Error::Codegen("a cell with another number of gates".into())),
        }
    }

    /// `(1 - z) * h + z * state`
    fn mix(&self, w: &mut Asm, z: usize, h: usize) -> Result<()> {
        let (t, x) = (self.temps.t[0], self.temps.x);
        let state = self.state(w);
        w.splat(t, 1.0)?;
        w.sub(t, t, z)?;
        w.mul(h, h, t)?;
        w.load(x, state)?;
        w.fma(h, z, x)?;
        self.finish(w, h)
    }

    fn lstm(&self, w: &mut Asm, [i, o, f, g]: [usize; 4], peepholes: bool, input_forget: bool) -> Result<()> {
        let (c, x) = (self.temps.c, self.temps.x);
        let kept = self.work(w, 0);
        w.load(c, kept)?;
        let gate = |w: &mut Asm, acc: usize, gate: usize| -> Result<()> {
            self.add_input(w, acc, gate)?;
            if peepholes {
                self.extra(w, gate)?;
                w.fma(acc, x, c)?;
            }
            self.function(w, 0, acc)
        };
        gate(w, i, 0)?;
        if input_forget {
            w.splat(f, 1.0)?;
            w.sub(f, f, i)?;
        } else {
            gate(w, f, 2)?;
        }
        self.add_input(w, g, 3)?;
        self.function(w, 1, g)?;
        w.mul(c, c, f)?;
        w.fma(c, i, g)?;
        w.store(kept, c)?;
        gate(w, o, 1)?;
        self.cell.functions[2].emit(w, c, self.temps.t)?;
        w.mul(o, o, c)?;
        self.finish(w, o)
    }
}
