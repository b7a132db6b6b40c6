//! Elementwise expressions: one pass over memory for a whole chain of operators.
//!
//! An [`Expr`] is a straight-line program over the inputs' elements. [`Elementwise`] runs it over an iteration space whose
//! operands each have their own strides: 0 where an input is broadcast. The innermost dim is contiguous (or broadcast) for
//! every operand and is what vectors cover.

use super::activation::Activation;
use super::elem::Elem;
use crate::asm::reg::*;
use crate::asm::{Asm, Assembled, Cmp, Cond, Isa, Label, Lanes, Src};
use crate::error::{Error, Result};
use crate::module::{Access, Emitter, Kernel, Operand};
use cranelift_module::Module;

/// A function of one element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Unary {
    /// One of the activations.
    Act(Activation),
    /// `-x`
    Neg,
    /// `|x|`
    Abs,
    /// `√x`
    Sqrt,
    /// `e^x`
    Exp,
    /// The natural logarithm.
    Log,
    /// `1 / x`
    Reciprocal,
    /// The error function.
    Erf,
    /// Towards minus infinity.
    Floor,
    /// Towards plus infinity.
    Ceil,
    /// To nearest, ties to even.
    Round,
    /// To nearest, ties to even; NaN becomes 0: as quantisation rounds.
    RoundOrZero,
    /// `-1`, `0` or `1`; NaN stays.
    Sign,
    /// `x / (1 + |x|)`
    Softsign,
    /// `x < 0 ? alpha * (e^x - 1) : x`, with the exponential's own error near 0 (absolute, not relative).
    Elu(f32),
}

/// A function of two elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binary {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
    /// `a / b`
    Div,
    /// The smaller; NaN if either is.
    Min,
    /// The larger; NaN if either is.
    Max,
    /// `a < 0 ? a * b : a`
    PRelu,
}

/// One instruction of an [`Expr`]; operands are indexes of earlier instructions.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Ins {
    /// The element of an input.
    Input(usize),
    /// A number.
    Const(f32),
    /// A function of one value.
    Unary(Unary, usize),
    /// A function of two values.
    Binary(Binary, usize, usize),
}

/// A straight-line program; its result is the last instruction.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Expr {
    /// The instructions.
    pub code: Vec<Ins>,
}

impl Expr {
    /// The instructions' operands.
    fn reads(ins: Ins) -> [Option<usize>; 2] {
        match ins {
            Ins::Input(_) | Ins::Const(_) => [None, None],
            Ins::Unary(_, a) => [Some(a), None],
            Ins::Binary(_, a, b) => [Some(a), Some(b)],
        }
    }
    /// The inputs' count: one more than the largest index.
    pub fn inputs(&self) -> usize {
        self.code.iter().map(|i| if let Ins::Input(n) = i { n + 1 } else { 0 }).max().unwrap_or(0)
    }
    /// Appends an instruction, or finds the one that is there already.
    pub fn push(&mut self, ins: Ins) -> usize {
        if let Some(i) = self.code.iter().position(|c| *c == ins) {
            return i;
        }
        self.code.push(ins);
        self.code.len() - 1
    }
    /// Replaces input `at` by the result of `inner`, whose input `i` becomes input `map[i]`; inputs of `self` are
    /// renumbered by `own`.
    pub fn inline(&self, at: usize, inner: &Expr, map: &[usize], own: &[usize]) -> Expr {
        let mut out = Expr::default();
        let mut places = Vec::with_capacity(inner.code.len());
        for ins in &inner.code {
            let ins = match *ins {
                Ins::Input(n) => Ins::Input(map[n]),
                Ins::Const(c) => Ins::Const(c),
                Ins::Unary(f, a) => Ins::Unary(f, places[a]),
                Ins::Binary(f, a, b) => Ins::Binary(f, places[a], places[b]),
            };
            places.push(out.push(ins));
        }
        let result = places.last().copied().unwrap_or(0);
        let mut here = Vec::with_capacity(self.code.len());
        for ins in &self.code {
            let place = match *ins {
                Ins::Input(n) if n == at => result,
                Ins::Input(n) => out.push(Ins::Input(own[n])),
                Ins::Const(c) => out.push(Ins::Const(c)),
                Ins::Unary(f, a) => out.push(Ins::Unary(f, here[a])),
                Ins::Binary(f, a, b) => out.push(Ins::Binary(f, here[a], here[b])),
            };
            here.push(place);
        }
        // the result must stand last, also where it was found among earlier instructions
        let last = here.last().copied().unwrap_or(result);
        out.ending_at(last)
    }
    /// The program without what `result` does not need, with `result` last.
    pub fn ending_at(&self, result: usize) -> Expr {
        let mut needed = vec![false; self.code.len()];
        needed[result] = true;
        for i in (0..=result).rev() {
            if needed[i] {
                Expr::reads(self.code[i]).into_iter().flatten().for_each(|r| needed[r] = true);
            }
        }
        let mut place = vec![0; self.code.len()];
        let mut out = Expr::default();
        for i in (0..=result).filter(|i| needed[*i]) {
            place[i] = out.code.len();
            out.code.push(match self.code[i] {
                Ins::Unary(f, a) => Ins::Unary(f, place[a]),
                Ins::Binary(f, a, b) => Ins::Binary(f, place[a], place[b]),
                other => other,
            });
        }
        out
    }
    /// Floating-point operations for an element, roughly.
    pub fn cost(&self) -> usize {
        let one = |i: &Ins| match i {
            Ins::Input(_) | Ins::Const(_) => 0,
            Ins::Unary(Unary::Exp | Unary::Log | Unary::Erf | Unary::Elu(_), _) => 14,
            Ins::Unary(
                Unary::Act(Activation::Sigmoid | Activation::Silu | Activation::Tanh | Activation::Gelu),
                _,
            ) => 18,
            Ins::Unary(..) | Ins::Binary(..) => 1,
        };
        self.code.iter().map(one).sum()
    }
}

/// One dim of the iteration space: its extent and each operand's step in bytes (inputs in order, then the output).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dim {
    /// Extent.
    pub count: usize,
    /// Bytes between neighbours, by operand.
    pub steps: Vec<i64>,
}

/// An expression over an iteration space.
#[derive(Clone, Debug, PartialEq)]
pub struct Elementwise {
    /// The expression.
    pub expr: Expr,
    /// The space, outermost first; the innermost dim has steps of one element or 0, and of one for the output.
    pub dims: Vec<Dim>,
    /// By operand, bytes from its pointer to its first element.
    pub base: Vec<i64>,
    /// By operand, bytes that may be touched.
    pub bytes: Vec<usize>,
    /// By operand, the element type; empty where all are f32. What is stored as an integer must be one, in range.
    pub types: Vec<Elem>,
}

/// Elements below which one thread does all.
const SPLIT_ELEMS: usize = 8192;
/// Rows or vectors that one turn of the innermost loop does.
const UNROLL: usize = 4;
const POINTERS: [Reg; 12] = [r8, r9, r10, r11, rcx, rdx, rbx, rbp, r12, r13, r14, r15];
const SAVED: [Reg; 6] = [rbx, rbp, r12, r13, r14, r15];

/// The most inputs that one kernel reads.
pub const MAX_INPUTS: usize = POINTERS.len() - 1;

impl Elementwise {
    fn elem(&self, operand: usize) -> Elem {
        self.types.get(operand).copied().unwrap_or_default()
    }

    /// Merges neighbouring dims that every operand walks as one, and drops dims of extent 1.
    fn collapsed(&self) -> Vec<Dim> {
        let mut out: Vec<Dim> = Vec::new();
        for d in self.dims.iter().filter(|d| d.count != 1) {
            let joins = out
                .last()
                .is_some_and(|o: &Dim| o.steps.iter().zip(&d.steps).all(|(a, b)| *a == b * d.count as i64));
            match out.last_mut().filter(|_| joins) {
                Some(o) => *o = Dim { count: o.count * d.count, steps: d.steps.clone() },
                None => out.push(d.clone()),
            }
        }
        out
    }

    /// The step function; operands are the inputs in order, then the output.
    ///
    /// # Errors
    /// [`Error::Unsupported`] below AVX2, with too many inputs, or where the innermost dim is not contiguous.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        let inputs = self.expr.inputs();
        let operands = self.base.len();
        if operands != self.bytes.len()
            || inputs >= operands
            || self.dims.iter().any(|d| d.steps.len() != operands)
        {
            return Err(Error::invalid("elementwise", format!("{inputs} inputs for {operands} operands")));
        }
        if operands > POINTERS.len() {
            return Err(Error::unsupported(
                "elementwise",
                format!("{operands} operands, at most {}", POINTERS.len()),
            ));
        }
        if e.isa() == Isa::Baseline && self.types.iter().any(|t| *t != Elem::F32) {
            return Err(Error::unsupported("elementwise", "integers at the baseline"));
        }
        let elems: usize = self.dims.iter().map(|d| d.count).product();
        let mut dims = self.collapsed();
        let size = |o: usize| self.elem(o).bytes() as i64;
        let last = dims.pop().unwrap_or(Dim { count: 1, steps: (0..operands).map(size).collect() });
        let fine = last.steps.iter().enumerate().all(|(o, s)| *s == size(o) || *s == 0)
            && last.steps.last() == Some(&size(operands - 1));
        if !fine && last.count != 1 {
            return Err(Error::unsupported(
                "elementwise",
                format!("innermost steps of {:?} bytes", last.steps),
            ));
        }
        let tasks = if elems * self.expr.cost().max(1) < SPLIT_ELEMS { 1 } else { threads.max(1) };
        let body = Body { spec: self, isa: e.isa(), dims, last, tasks };
        let func = e.cached(
            format!(
                "{:?} {:?} {:?} {:?} {:?} {tasks}",
                self.expr, self.types, body.dims, body.last, self.base
            ),
            |e| {
                let code = body.assemble()?;
                e.assembled("elementwise", 2, &code)
            },
        )?;
        let read = |i: usize| Operand::read("x", self.bytes[i]);
        let mut list: Vec<Operand> = (0..operands - 1).map(read).collect();
        list.push(Operand { name: "y", bytes: self.bytes[operands - 1], access: Access::Write });
        let name = format!("elementwise {} of {} over {elems}", self.expr, operands - 1);
        Ok(Kernel { func, name, operands: list, tasks, flops: (elems * self.expr.cost()) as u64 })
    }
}

impl std::fmt::Display for Expr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut text: Vec<String> = Vec::new();
        for i in &self.code {
            text.push(match *i {
                Ins::Input(n) => format!("x{n}"),
                Ins::Const(c) => format!("{c}"),
                Ins::Unary(Unary::Act(a), x) => format!("{a:?}({})", text[x]),
                Ins::Unary(u, x) => format!("{u:?}({})", text[x]),
                Ins::Binary(b, x, y) => format!("{b:?}({}, {})", text[x], text[y]),
            });
        }
        f.write_str(text.last().map_or("", |t| if t.len() > 120 { "chain" } else { t }))
    }
}

struct Body<'a> {
    spec: &'a Elementwise,
    isa: Isa,
    dims: Vec<Dim>,
    last: Dim,
    tasks: usize,
}

/// A vector to compute: its byte offset from each operand's pointer, and its lanes.
#[derive(Clone)]
struct Site {
    offsets: Vec<i32>,
    lanes: Lanes,
    /// Which of the hoisted vectors it uses.
    vector: usize,
}

impl Body<'_> {
    fn assemble(&self) -> Result<Assembled> {
        let w = Asm::new(self.isa)?;
        let mut f = Function { b: self, w, hoisted: vec![], free: vec![], tail: Lanes::All };
        f.all()?;
        f.w.finish()
    }
    fn operands(&self) -> usize {
        self.spec.base.len()
    }
    /// Vectors of the innermost dim, the last one partial or not.
    fn vectors(&self) -> usize {
        self.last.count.div_ceil(self.isa.lanes())
    }
    /// Bytes of a vector's elements of an operand.
    fn vector_bytes(&self, operand: usize) -> i32 {
        (self.isa.lanes() * self.spec.elem(operand).bytes()) as i32
    }
    /// Bytes from an operand's pointer to vector `v` of its row: none where one element stands for the whole row.
    fn in_row(&self, operand: usize, v: usize) -> i32 {
        if self.last.steps[operand] == 0 { 0 } else { v as i32 * self.vector_bytes(operand) }
    }
    /// Whether whole rows are unrolled and the loop runs over the next dim.
    fn row_mode(&self) -> bool {
        self.vectors() <= 2 && !self.dims.is_empty()
    }
}

/// Evaluates expressions whose inputs are in registers: how kernels end that have one behind their sums.
pub(super) fn in_registers<R>(
    w: Asm,
    expr: &Expr,
    body: impl FnOnce(&mut InRegisters<'_>) -> Result<R>,
) -> Result<(Asm, R)> {
    let isa = w.isa();
    let spec = Elementwise { expr: expr.clone(), dims: vec![], base: vec![], bytes: vec![], types: vec![] };
    let last = Dim { count: isa.lanes(), steps: vec![] };
    let b = Body { spec: &spec, isa, dims: vec![], last, tasks: 1 };
    let f = Function { b: &b, w, hoisted: vec![], free: vec![], tail: Lanes::All };
    let mut r = InRegisters(f);
    let made = body(&mut r)?;
    Ok((r.0.w, made))
}

/// See [`in_registers`].
pub(super) struct InRegisters<'a>(Function<'a>);

impl InRegisters<'_> {
    pub fn asm(&mut self) -> &mut Asm {
        &mut self.0.w
    }
    /// The register with the result; `inputs` keep theirs, those of `free` may be overwritten. Gives two that are
    /// still free as well.
    pub fn evaluate(&mut self, inputs: &[usize], free: &[usize]) -> Result<(usize, [usize; 2])> {
        self.0.hoisted = inputs.iter().map(|r| vec![*r]).collect();
        self.0.free = free.to_vec();
        let r = self.0.evaluate(&Site { offsets: vec![], lanes: Lanes::All, vector: 0 })?;
        self.0.free.retain(|f| *f != r);
        let t = self.0.temps()?;
        Ok((r, t))
    }
}

struct Function<'a> {
    b: &'a Body<'a>,
    w: Asm,
    /// Registers of inputs that stand still in the innermost loop, by input and vector.
    hoisted: Vec<Vec<usize>>,
    free: Vec<usize>,
    tail: Lanes,
}

impl Function<'_> {
    fn saved(&self) -> &'static [Reg] {
        &SAVED[..self.b.operands().saturating_sub(6).min(SAVED.len())]
    }

    fn all(&mut self) -> Result<()> {
        let lanes = self.b.isa.lanes();
        self.tail = self.w.lanes((self.b.last.count - 1) % lanes + 1)?;
        let (saved, levels) = (self.saved(), self.b.dims.len() + 1);
        self.w.enter(saved, levels)?;
        for (i, p) in POINTERS.iter().enumerate().take(self.b.operands()) {
            self.w.load_pointer(*p, rdi + 8 * i as i32)?;
            self.w.add_imm(*p, self.b.spec.base[i])?;
        }
        self.free = (0..self.w.regs()).rev().collect();
        let done = self.w.label();
        self.split(done)?;
        self.level(0)?;
        self.w.bind(done)?;
        self.w.leave(saved, levels)
    }

    /// Moves the pointers to this task's share and stores how much it is (in rows of the split dim, or vectors).
    fn split(&mut self, done: Label) -> Result<()> {
        let b = self.b;
        let (total, steps) = match b.dims.first() {
            Some(d) => (d.count, d.steps.clone()),
            None => (b.vectors(), b.last.steps.iter().map(|s| s * b.isa.lanes() as i64).collect()),
        };
        let chunk = total.div_ceil(b.tasks);
        if b.tasks == 1 {
            return self.w.set_slot(0, total as i64);
        }
        let turns =
            u32::try_from(chunk).map_err(|_| Error::unsupported("elementwise", format!("{chunk} turns")))?;
        let (chunk, total) = (i64::from(turns), total as i64);
        self.w.mul_imm(rax, rsi, chunk)?;
        self.w.copy(rsi, rax)?;
        self.w.neg(rax)?;
        self.w.add_imm(rax, total)?;
        self.w.branch(rax, Cond::Le, 0, done)?;
        let fits = self.w.label();
        self.w.branch(rax, Cond::Le, chunk, fits)?;
        self.w.set(rax, turns)?;
        self.w.bind(fits)?;
        self.w.store_slot(0, rax)?;
        // rsi: first row; what the innermost loop leaves of it says whether the tail is this task's
        for (&pointer, &step) in POINTERS.iter().zip(&steps).filter(|(_, step)| **step != 0) {
            self.w.mul_imm(rdi, rsi, step)?;
            self.w.add_reg(pointer, rdi)?;
        }
        self.w.add_reg(rsi, rax)
    }

    /// Loops over dim `i` and all inside it; pointers are where they were afterwards, but for the outermost dim.
    fn level(&mut self, i: usize) -> Result<()> {
        let b = self.b;
        let innermost = b.dims.len() - usize::from(b.row_mode());
        if i >= innermost {
            return if b.row_mode() { self.rows(i) } else { self.vectors(i) };
        }
        if i > 0 {
            self.w.set_slot(i, b.dims[i].count as i64)?;
        }
        let top = self.w.here()?;
        self.level(i + 1)?;
        self.advance(&b.dims[i].steps, 1)?;
        self.w.again_slot(i, top)?;
        if i > 0 {
            self.advance(&b.dims[i].steps, -(b.dims[i].count as i64))?;
        }
        Ok(())
    }

    fn advance(&mut self, steps: &[i64], times: i64) -> Result<()> {
        for (p, s) in POINTERS.iter().zip(steps) {
            self.w.add_imm(*p, s * times)?;
        }
        Ok(())
    }

    /// Loads the inputs that `still` says do not move, for each of `vectors` vectors.
    fn hoist(&mut self, still: &[bool], vectors: usize) -> Result<()> {
        self.hoisted = vec![vec![]; still.len()];
        let used: Vec<usize> = self
            .b
            .spec
            .expr
            .code
            .iter()
            .filter_map(|i| if let Ins::Input(n) = i { Some(*n) } else { None })
            .collect();
        for i in 0..still.len() {
            // leave registers for the expression itself
            if !still[i] || !used.contains(&i) || self.free.len() < 8 + vectors {
                continue;
            }
            for v in 0..vectors {
                let lanes = if v + 1 == vectors { self.tail } else { Lanes::All };
                let r = self.take()?;
                let at = POINTERS[i] + self.b.in_row(i, v);
                self.load_input(r, i, at, lanes)?;
                self.hoisted[i].push(r);
            }
        }
        Ok(())
    }
    fn drop_hoisted(&mut self) {
        for r in std::mem::take(&mut self.hoisted).into_iter().flatten() {
            self.free.push(r);
        }
    }

    fn load_input(&mut self, r: usize, input: usize, at: Mem, lanes: Lanes) -> Result<()> {
        let elem = self.b.spec.elem(input);
        if self.b.last.steps[input] == 0 {
            return elem.broadcast(&mut self.w, r, at);
        }
        elem.load(&mut self.w, r, at, lanes, Elem::last_lanes(self.b.isa, self.b.last.count))
    }

    /// The innermost loop over whole rows of one or two vectors: dim `i`, the last.
    fn rows(&mut self, i: usize) -> Result<()> {
        let b = self.b;
        let d = &b.dims[i];
        let n = b.vectors();
        let still: Vec<bool> = d.steps[..b.operands() - 1].iter().map(|s| *s == 0).collect();
        self.hoist(&still, n)?;
        let sites = |rows: usize, tail: Lanes| -> Vec<Site> {
            let site = |r: usize, v: usize| Site {
                offsets: (0..b.operands()).map(|o| (r as i64 * d.steps[o]) as i32 + b.in_row(o, v)).collect(),
                lanes: if v + 1 == n { tail } else { Lanes::All },
                vector: v,
            };
            (0..rows).flat_map(|r| (0..n).map(move |v| (r, v))).map(|(r, v)| site(r, v)).collect()
        };
        let unroll = if d.steps.iter().all(|s| s.abs() < 1 << 24) { UNROLL / n } else { 1 };
        self.turns(i, d.count)?;
        let many = sites(unroll, self.tail);
        let one = sites(1, self.tail);
        self.counted(unroll, &d.steps, &many, &one)?;
        self.drop_hoisted();
        if i > 0 { self.advance(&d.steps, -(d.count as i64)) } else { Ok(()) }
    }

    /// `rax` turns of `one`, where possible `unroll` at once as `many`.
    fn counted(&mut self, unroll: usize, steps: &[i64], many: &[Site], one: &[Site]) -> Result<()> {
        let end = self.w.label();
        if unroll > 1 {
            let (rest, turns) = (self.w.label(), unroll as i64);
            self.w.sub_branch(rax, turns, Cond::Lt, rest)?;
            let top = self.w.here()?;
            self.sites(many)?;
            self.advance(steps, turns)?;
            self.w.sub_branch(rax, turns, Cond::Ge, top)?;
            self.w.bind(rest)?;
            self.w.add_imm(rax, turns)?;
        }
        self.w.branch(rax, Cond::Eq, 0, end)?;
        let turn = self.w.here()?;
        self.sites(one)?;
        self.advance(steps, 1)?;
        self.w.again_wide(rax, turn)?;
        self.w.bind(end)
    }

    /// `rax` = the turns of the innermost loop, dim `i`: this task's share where that is the outermost.
    fn turns(&mut self, i: usize, all: usize) -> Result<()> {
        if i == 0 {
            return self.w.load_slot(rax, 0);
        }
        let all =
            u32::try_from(all).map_err(|_| Error::unsupported("elementwise", format!("{all} turns")))?;
        self.w.set(rax, all)
    }

    /// The innermost loop over the vectors of a long row.
    fn vectors(&mut self, i: usize) -> Result<()> {
        let b = self.b;
        let lanes = b.isa.lanes();
        let still: Vec<bool> = b.last.steps[..b.operands() - 1].iter().map(|s| *s == 0).collect();
        self.hoist(&still, 1)?;
        let steps: Vec<i64> = b.last.steps.iter().map(|s| s * lanes as i64).collect();
        let site = |u: usize, l: Lanes| Site {
            offsets: steps.iter().map(|s| (*s * u as i64) as i32).collect(),
            lanes: l,
            vector: 0,
        };
        let partial = !b.last.count.is_multiple_of(lanes);
        let whole = b.last.count / lanes;
        self.turns(i, whole)?;
        if i == 0 {
            // this dim is dealt out to the tasks: whole vectors first, the partial one is in the last task's count
            if partial {
                self.last_task_only(|f| f.w.add_imm(rax, -1))?;
            }
        }
        let many: Vec<Site> = (0..UNROLL).map(|u| site(u, Lanes::All)).collect();
        self.counted(UNROLL, &steps, &many, &[site(0, Lanes::All)])?;
        if partial {
            let tail = site(0, self.tail);
            if i == 0 {
                self.last_task_only(|f| f.sites(std::slice::from_ref(&tail)))?;
            } else {
                self.sites(&[tail])?;
            }
        }
        self.drop_hoisted();
        if i > 0 { self.advance(&steps, -(whole as i64)) } else { Ok(()) }
    }

    /// Emits `body` so that only the task with the last vector of the split dim runs it.
    fn last_task_only(&mut self, body: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        if self.b.tasks == 1 {
            return body(self);
        }
        let skip = self.w.label();
        self.w.branch(rsi, Cond::Ne, self.b.vectors() as i64, skip)?;
        body(self)?;
        self.w.bind(skip)
    }

    fn take(&mut self) -> Result<usize> {
        self.free
            .pop()
            .ok_or_else(|| Error::unsupported("elementwise", "an expression of too many live values"))
    }

    /// Computes and stores vectors, one after the other.
    fn sites(&mut self, sites: &[Site]) -> Result<()> {
        for s in sites {
            let free = self.free.clone();
            let r = self.evaluate(s)?;
            let out = self.b.operands() - 1;
            let (elem, count) = (self.b.spec.elem(out), Elem::last_lanes(self.b.isa, self.b.last.count));
            let t = if elem == Elem::F32 { [0; 2] } else { self.temps()? };
            elem.store(&mut self.w, POINTERS[out] + s.offsets[out], r, s.lanes, count, t)?;
            self.free = free;
        }
        Ok(())
    }

    fn evaluate(&mut self, s: &Site) -> Result<usize> {
        let code = &self.b.spec.expr.code;
        let mut last = vec![0; code.len()];
        for (i, ins) in code.iter().enumerate() {
            Expr::reads(*ins).into_iter().flatten().for_each(|r| last[r] = i);
        }
        let mut regs: Vec<Option<usize>> = vec![None; code.len()];
        let mut owned = vec![false; code.len()];
        for (i, ins) in code.iter().enumerate() {
            let d = match *ins {
                Ins::Input(n) => match self.hoisted.get(n).and_then(|h| h.get(s.vector)) {
                    Some(&r) => {
                        regs[i] = Some(r);
                        continue;
                    }
                    None => {
                        let r = self.take()?;
                        self.load_input(r, n, POINTERS[n] + s.offsets[n], s.lanes)?;
                        r
                    }
                },
                // read as a memory operand where possible
                Ins::Const(_) => continue,
                Ins::Unary(f, a) => {
                    let d = self.own(code, &mut regs, &mut owned, a, last[a] == i)?;
                    self.unary(f, d)?;
                    d
                }
                Ins::Binary(f, a, b) => {
                    self.binary(code, &mut regs, &mut owned, f, (a, last[a] == i), (b, last[b] == i))?
                }
            };
            regs[i] = Some(d);
            owned[i] = true;
            for r in Expr::reads(*ins).into_iter().flatten() {
                if last[r] == i && owned[r] && regs[r].is_some_and(|x| x != d) {
                    owned[r] = false;
                    self.free.extend(regs[r]);
                }
            }
        }
        let result = code.len().saturating_sub(1);
        match regs.get(result).copied().flatten() {
            Some(r) => Ok(r),
            None => self.own(code, &mut regs, &mut owned, result, true),
        }
    }

    /// A register with value `a` that may be overwritten.
    fn own(
        &mut self,
        code: &[Ins],
        regs: &mut [Option<usize>],
        owned: &mut [bool],
        a: usize,
        dies: bool,
    ) -> Result<usize> {
        match (regs[a], code[a]) {
            (Some(r), _) if owned[a] && dies => {
                owned[a] = false;
                Ok(r)
            }
            (Some(r), _) => {
                let d = self.take()?;
                self.w.mov(d, r)?;
                Ok(d)
            }
            (None, Ins::Const(c)) => {
                let d = self.take()?;
                self.w.splat(d, c)?;
                Ok(d)
            }
            (None, _) => Err(Error::Codegen("a value is read before it is made".into())),
        }
    }

    fn temps<const N: usize>(&mut self) -> Result<[usize; N]> {
        let mut t = [0; N];
        for slot in &mut t {
            *slot = self.take()?;
        }
        Ok(t)
    }

    fn unary(&mut self, f: Unary, d: usize) -> Result<()> {
        let t: [usize; 3] = self.temps()?;
        let w = &mut self.w;
        match f {
            Unary::Act(a) => a.emit(w, &[d], t)?,
            Unary::Neg => w.xor(d, d, Src::Bits(0x8000_0000))?,
            Unary::Abs => w.and(d, d, Src::Bits(0x7fff_ffff))?,
            Unary::Sqrt => w.sqrt(d, d)?,
            Unary::Exp => w.exp(d, [t[0], t[1]])?,
            Unary::Log => {
                let more: [usize; 2] = self.temps()?;
                self.w.ln(d, [t[0], t[1], t[2], more[0], more[1]])?;
                self.free.extend(more.into_iter().rev());
            }
            Unary::Reciprocal => {
                w.splat(t[0], 1.0)?;
                w.div(d, t[0], d)?;
            }
            Unary::Erf => w.erf(d, t)?,
            Unary::Floor => w.round(d, d, 1)?,
            Unary::Ceil => w.round(d, d, 2)?,
            Unary::Round => w.round(d, d, 0)?,
            Unary::RoundOrZero => {
                w.round(d, d, 0)?;
                w.zero(t[0])?;
                w.select(d, Cmp::Unordered, d, d, t[0], d, t[1])?;
            }
            Unary::Sign => {
                // ±1 with the sign of x where x is not 0 and not NaN
                w.and(t[0], d, Src::Bits(0x8000_0000))?;
                w.or(t[0], t[0], 1.0)?;
                w.select(t[1], Cmp::Eq, d, 0.0, d, t[0], t[2])?;
                w.select(d, Cmp::Unordered, d, d, d, t[1], t[2])?;
            }
            Unary::Softsign => {
                w.and(t[0], d, Src::Bits(0x7fff_ffff))?;
                w.add(t[0], t[0], 1.0)?;
                w.div(d, d, t[0])?;
            }
            Unary::Elu(alpha) => {
                w.mov(t[2], d)?;
                w.exp(t[2], [t[0], t[1]])?;
                w.sub(t[2], t[2], 1.0)?;
                w.mul(t[2], t[2], alpha)?;
                w.select(d, Cmp::Lt, d, 0.0, t[2], d, t[0])?;
            }
        }
        self.free.extend(t.into_iter().rev());
        Ok(())
    }

    fn binary(
        &mut self,
        code: &[Ins],
        regs: &mut [Option<usize>],
        owned: &mut [bool],
        f: Binary,
        (a, a_dies): (usize, bool),
        (b, b_dies): (usize, bool),
    ) -> Result<usize> {
        let commutes = matches!(f, Binary::Add | Binary::Mul);
        let (a, a_dies, b, b_dies) = if commutes && matches!(code[a], Ins::Const(_)) {
            (b, b_dies, a, a_dies)
        } else {
            (a, a_dies, b, b_dies)
        };
        let simple = matches!(f, Binary::Add | Binary::Sub | Binary::Mul | Binary::Div);
        let x = match regs[a] {
            Some(r) => r,
            None => self.own(code, regs, owned, a, true)?,
        };
        if simple {
            let d = match () {
                () if owned[a] && a_dies => {
                    owned[a] = false;
                    x
                }
                () if regs[a].is_none() => x,
                () if owned[b] && b_dies && a != b => {
                    owned[b] = false;
                    regs[b].unwrap_or(x)
                }
                () => self.take()?,
            };
            let y = match (regs[b], code[b]) {
                (Some(r), _) => Src::Reg(r),
                (None, Ins::Const(c)) => Src::Const(c),
                (None, _) => return Err(Error::Codegen("a value is read before it is made".into())),
            };
            match f {
                Binary::Add => self.w.add(d, x, y)?,
                Binary::Sub => self.w.sub(d, x, y)?,
                Binary::Mul => self.w.mul(d, x, y)?,
                _ => self.w.div(d, x, y)?,
            }
            return Ok(d);
        }
        let y = match regs[b] {
            Some(r) => r,
            None => self.own(code, regs, owned, b, true)?,
        };
        let [d, t]: [usize; 2] = self.temps()?;
        match f {
            // the instruction gives its second operand if either is NaN: bring back a NaN in the first
            Binary::Min | Binary::Max => {
                if f == Binary::Min {
                    self.w.min(t, x, y)?
                } else {
                    self.w.max(t, x, y)?
                }
                let t2 = self.take()?;
                self.w.select(d, Cmp::Unordered, x, x, x, t, t2)?;
                self.free.push(t2);
            }
            _ => {
                self.w.mul(t, x, y)?;
                let t2 = self.take()?;
                self.w.select(d, Cmp::Lt, x, 0.0, t, x, t2)?;
                self.free.push(t2);
            }
        }
        self.free.push(t);
        for (i, r) in [(a, x), (b, y)] {
            // constants brought into a register for this instruction only
            if regs[i].is_none() {
                self.free.push(r);
            }
        }
        Ok(d)
    }
}
