//! Recurrent layers after their input projection: what each time step needs of the one before.
//!
//! The products of all inputs with the weights `W`, biases added, are one matrix product before this step (operand `g`).
//! Here each sequence walks through time with its states in working space, one call of an assembled cell for
//! each step; tasks are directions and blocks of sequences, which need nothing of one another.
mod cell;
mod function;
mod walk;

pub use function::CellFunction;

use crate::asm::Isa;
use crate::error::{Error, Result};
use crate::floats::Floats;
use crate::module::{Access, Emitter, Kernel, Operand};
use cell::{Cell, Phase};
use cranelift_module::{FuncId, Module};

/// The equations of a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CellKind {
    /// `H' = f(W x + R H + b)`.
    Rnn,
    /// Gates z, r, h.
    Gru {
        /// The reset gate scales after the matrix.
        linear_before_reset: bool,
    },
    /// Gates i, o, f, c.
    Lstm {
        /// Whether the cell state enters gates i, o, f.
        peepholes: bool,
        /// The forget gate is one less the input gate.
        input_forget: bool,
    },
}

impl CellKind {
    /// Gates, each with a weight matrix.
    pub fn gates(self) -> usize {
        match self {
            CellKind::Rnn => 1,
            CellKind::Gru { .. } => 3,
            CellKind::Lstm { .. } => 4,
        }
    }
    /// The passes of a time step.
    fn phases(self) -> &'static [Phase] {
        match self {
            CellKind::Rnn => &[Phase::Rnn],
            CellKind::Gru { linear_before_reset: true } => &[Phase::GruLinear],
            CellKind::Gru { linear_before_reset: false } => &[Phase::GruGates, Phase::GruCandidate],
            CellKind::Lstm { peepholes: false, input_forget: false } => {
                &[Phase::Lstm { peepholes: false, input_forget: false }]
            }
            CellKind::Lstm { peepholes: false, input_forget: true } => {
                &[Phase::Lstm { peepholes: false, input_forget: true }]
            }
            CellKind::Lstm { peepholes: true, input_forget: false } => {
                &[Phase::Lstm { peepholes: true, input_forget: false }]
            }
            CellKind::Lstm { peepholes: true, input_forget: true } => {
                &[Phase::Lstm { peepholes: true, input_forget: true }]
            }
        }
    }
    /// Lists of `hidden` numbers that a cell reads besides: peepholes i, o, f, or the recurrence bias of gate h.
    pub fn extras(self) -> usize {
        match self {
            CellKind::Lstm { peepholes: true, .. } => 3,
            CellKind::Gru { linear_before_reset: true } => 1,
            _ => 0,
        }
    }
    /// Padded lists of units in a sequence's working space: two states, then what the cell keeps.
    fn parts(self) -> usize {
        match self {
            CellKind::Rnn | CellKind::Gru { linear_before_reset: true } => 2,
            CellKind::Gru { linear_before_reset: false } => 4,
            CellKind::Lstm { .. } => 3,
        }
    }
    fn is_lstm(self) -> bool {
        matches!(self, CellKind::Lstm { .. })
    }
}

/// The recurrence of a layer. `g` is `[steps, batch, directions, gates, hidden]`, or with the batch first.
#[derive(Clone, Debug, PartialEq)]
pub struct Recurrence {
    /// The equations.
    pub cell: CellKind,
    /// Time steps.
    pub steps: usize,
    /// Sequences.
    pub batch: usize,
    /// Units.
    pub hidden: usize,
    /// By direction whether it runs backwards.
    pub reverse: Vec<bool>,
    /// By direction the functions f, g, h.
    pub functions: Vec<Vec<CellFunction>>,
    /// Bound of what enters f and g.
    pub clip: Option<f32>,
    /// Whether each sequence has a length of its own (operand `lens`, `[batch]` of 64 bits, each at most `steps`: the
    /// caller has checked that).
    pub lens: bool,
    /// The batch is the first axis of `g`, `y` and the states.
    pub batch_first: bool,
    /// Which of y, the last h and the last c are wanted.
    pub wanted: [bool; 3],
}

/// Accumulators that hide the latency of a product.
const BUSY: usize = 8;
/// Products below which one thread does all.
const SPLIT_FLOPS: u64 = 200_000;

/// `hidden` rounded up to whole vectors.
fn padded(isa: Isa, hidden: usize) -> usize {
    hidden.next_multiple_of(isa.lanes())
}

impl Recurrence {
    fn directions(&self) -> usize {
        self.reverse.len()
    }
    /// Sequences of one cell.
    fn rows(&self, isa: Isa) -> usize {
        let most = match (isa, self.cell) {
            (Isa::Avx512 | Isa::Amx, CellKind::Lstm { .. }) => 6,
            (Isa::Avx512 | Isa::Amx, _) => 8,
            (_, CellKind::Rnn) => 4,
            _ => 2,
        };
        // a sequence of its own length goes alone
        if self.lens { 1 } else { most.min(self.batch) }
    }
    /// Vectors of units that a phase accumulates at once.
    fn vectors(&self, isa: Isa, phase: Phase) -> usize {
        let units = self.hidden.div_ceil(isa.lanes());
        (BUSY / (phase.gates().len() * self.rows(isa))).clamp(1, units)
    }
    fn phase_elems(&self, isa: Isa, phase: Phase) -> usize {
        phase.gates().len() * padded(isa, self.hidden) * self.hidden
    }
    /// Elements of the packed recurrence weights.
    pub fn packed_elems(&self, isa: Isa) -> usize {
        self.directions() * self.cell.gates() * padded(isa, self.hidden) * self.hidden
    }
    /// Elements of the packed `extra` operand.
    pub fn extra_elems(&self, isa: Isa) -> usize {
        self.directions() * self.cell.extras() * padded(isa, self.hidden)
    }

    /// Packs `r`, `[directions, gates * hidden, hidden]`: for each direction and phase panels of units, k by k, the
    /// gates side by side.
    ///
    /// # Errors
    /// When `out` or `r` has another size.
    pub fn pack<'a>(&self, isa: Isa, r: impl Into<Floats<'a>>, out: &mut [f32]) -> Result<()> {
        let r = r.into();
        let (n, lanes) = (self.hidden, isa.lanes());
        let rows = self.cell.gates() * n;
        if out.len() != self.packed_elems(isa) || r.len() != self.directions() * rows * n {
            return Err(Error::invalid("recurrence", format!("packing {} into {}", r.len(), out.len())));
        }
        let mut next = out.iter_mut();
        for direction in r.chunks(rows * n) {
            for phase in self.cell.phases() {
                let (units, vectors) = (n.div_ceil(lanes), self.vectors(isa, *phase));
                for first in (0..units).step_by(vectors) {
                    let columns = (first * lanes)..((first + vectors).min(units) * lanes);
                    for k in 0..n {
                        for gate in phase.gates() {
                            for (unit, to) in columns.clone().zip(&mut next) {
                                *to = if unit < n { direction.at((gate * n + unit) * n + k) } else { 0.0 };
                            }
                        }
                    }
                }
            }
        }
        Ok(())
    }

    /// Packs the lists of `hidden` numbers (see [`CellKind::extras`]), direction by direction.
    pub fn pack_extra(&self, isa: Isa, lists: &[f32]) -> Vec<f32> {
        let mut out = Vec::with_capacity(self.extra_elems(isa));
        for list in lists.chunks_exact(self.hidden) {
            out.extend_from_slice(list);
            out.resize(out.len() + padded(isa, self.hidden) - self.hidden, 0.0);
        }
        out
    }

    /// Elements between neighbouring steps and sequences of `tokens * width` elements.
    fn token(&self, width: usize) -> (usize, usize) {
        if self.batch_first { (width, self.steps * width) } else { (self.batch * width, width) }
    }
    /// Elements between steps, sequences and directions of y.
    fn y_steps(&self) -> (usize, usize, usize) {
        let (d, n) = (self.directions(), self.hidden);
        if self.batch_first {
            (d * n, self.steps * d * n, n)
        } else {
            (d * self.batch * n, n, self.batch * n)
        }
    }
    /// Elements between sequences and directions of the states.
    fn state_steps(&self) -> (usize, usize) {
        let n = self.hidden;
        if self.batch_first { (self.directions() * n, n) } else { (n, self.batch * n) }
    }
    /// Bytes of one sequence's working space.
    fn row_bytes(&self, isa: Isa) -> usize {
        4 * self.cell.parts() * padded(isa, self.hidden)
    }

    /// Operands: `g`, `r`, `extra` (if the cell has one), `h0`, `c0` (LSTM), `lens` (if given), those of `y`, `h`, `c`
    /// that are wanted, scratch.
    fn operands(&self, isa: Isa) -> Result<Vec<Operand>> {
        let product = |list: &[usize]| {
            let n =
                list.iter().try_fold(4usize, |a, b| a.checked_mul(*b)).filter(|n| *n <= isize::MAX as usize);
            n.ok_or_else(|| Error::invalid("recurrence", format!("{list:?} is too large")))
        };
        let (d, n) = (self.directions(), self.hidden);
        let state = product(&[d, self.batch, n])?;
        let g = product(&[self.steps, self.batch, d, self.cell.gates(), n])?;
        let mut ops = vec![Operand::read("g", g), Operand::read("r", product(&[self.packed_elems(isa)])?)];
        if self.cell.extras() > 0 {
            ops.push(Operand::read("extra", product(&[self.extra_elems(isa)])?));
        }
        ops.push(Operand::read("h0", state));
        if self.cell.is_lstm() {
            ops.push(Operand::read("c0", state));
        }
        if self.lens {
            ops.push(Operand::read("lens", 8 * self.batch));
        }
        let sizes = [("y", product(&[self.steps, d, self.batch, n])?), ("h", state), ("c", state)];
        for ((name, bytes), wanted) in sizes.into_iter().zip(self.wanted) {
            if wanted {
                ops.push(Operand { name, bytes, access: Access::Write });
            }
        }
        let work = product(&[d, self.batch, self.row_bytes(isa)])? / 4;
        ops.push(Operand::scratch(work));
        Ok(ops)
    }

    /// The step function; operands in the order of `Recurrence::operands`.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for empty extents, and below AVX2.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        let isa = e.isa();
        let empty = self.steps == 0 || self.batch == 0 || self.hidden == 0 || self.directions() == 0;
        // offsets between the sequences of one cell are constants of 32 bits
        let width = self.directions().saturating_mul(self.cell.gates() * self.hidden);
        let pitch = if self.batch_first { width.saturating_mul(self.steps) } else { width };
        if empty || self.hidden > 1 << 20 || pitch.saturating_mul(self.rows(isa)) > i32::MAX as usize / 16 {
            return Err(Error::unsupported("recurrence", format!("extents {self:?}")));
        }
        if self.wanted[2] && !self.cell.is_lstm() || self.functions.len() != self.directions() {
            return Err(Error::invalid("recurrence", "outputs or functions of another cell"));
        }
        let operands = self.operands(isa)?;
        let flops = 2
            * (self.steps * self.batch * self.cell.gates() * self.directions()) as u64
            * (self.hidden * self.hidden) as u64;
        let blocks = self.batch.div_ceil(self.rows(isa)) * self.directions();
        let tasks = if flops < SPLIT_FLOPS { 1 } else { threads.max(1).min(blocks) };
        let func = self.walk(e, &operands, tasks)?;
        let what = match self.cell {
            CellKind::Rnn => "rnn",
            CellKind::Gru { .. } => "gru",
            CellKind::Lstm { .. } => "lstm",
        };
        let name = format!(
            "{what} of {} units over {} steps of {} in {} directions {isa}",
            self.hidden,
            self.steps,
            self.batch,
            self.directions()
        );
        Ok(Kernel { func, name, operands, tasks, flops })
    }

    /// The assembled cells of one direction for blocks of `rows` sequences, by phase.
    fn cells<M: Module>(&self, e: &mut Emitter<M>, direction: usize, rows: usize) -> Result<Vec<FuncId>> {
        let isa = e.isa();
        let width = self.directions() * self.cell.gates() * self.hidden;
        let mut made = vec![];
        for phase in self.cell.phases() {
            let cell = Cell {
                phase: *phase,
                hidden: self.hidden,
                rows,
                vectors: self.vectors(isa, *phase),
                row: self.row_bytes(isa),
                g_row: 4 * self.token(width).1,
                y_row: self.wanted[0].then(|| 4 * self.y_steps().1),
                functions: self.functions[direction].clone(),
                clip: self.clip,
            };
            made.push(e.cached(format!("{cell:?}"), |e| {
                let code = cell.assemble(isa)?;
                e.assembled("cell", 6, &code)
            })?);
        }
        Ok(made)
    }
}
