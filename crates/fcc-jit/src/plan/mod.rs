//! Plans: lists of steps over slots and an arena, and their execution.
mod build;
mod emit;
mod fuse;
mod fuse_int8;
pub(crate) mod ir;
mod memory;
mod print;
mod run;

use crate::aligned::AlignedF32;
use crate::module::{self, Code};
use crate::segment::Segment;
use fcc_ir::{DType, Error, OpNode, Result, Value, ValueType};
use std::sync::Mutex;

pub(crate) use run::Outcome;
pub use run::Profile;

/// Where bytes lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum At {
    /// The tensor in a slot of the run.
    Slot(u32),
    /// A constant of the plan.
    Const(u32),
    /// The arena.
    Arena,
    /// The memory of an output of the plan.
    Output(u32),
    /// A buffer that has no place yet: only while a plan is made.
    Buffer(u32),
}

/// Bytes that a step touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Arg {
    pub at: At,
    pub offset: usize,
    pub bytes: usize,
}

/// Where a step finds a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Src {
    /// A slot of the run; a tensor is seen with this shape.
    Slot(u32, Option<Vec<usize>>),
    /// A constant of the plan; a tensor is seen with this shape.
    Const(u32, Option<Vec<usize>>),
    /// A dense tensor in the arena or an output's memory.
    Bytes(Arg, DType, Vec<usize>),
}

/// A constant of a plan.
pub(crate) enum Const {
    Value(Value),
    /// Weights in the order of a kernel.
    Packed(AlignedF32),
}

/// One thing to do.
#[derive(Debug)]
pub(crate) struct Step {
    /// The node, as errors call it.
    pub place: String,
    pub action: Action,
    /// Slots that nothing reads afterwards.
    pub free: Vec<u32>,
}

#[derive(Debug)]
pub(crate) enum Action {
    Interpret(Interpret),
    Run(Run),
}

/// A step that the interpreter computes.
#[derive(Debug)]
pub(crate) struct Interpret {
    pub op: Box<OpNode>,
    pub inputs: Vec<Option<Src>>,
    pub captures: Vec<Src>,
    /// By output: its slot and the type that shape inference promised.
    pub outputs: Vec<Option<(u32, ValueType)>>,
}

/// A step that machine code computes.
#[derive(Debug)]
pub(crate) struct Run {
    pub name: String,
    pub flops: u64,
    pub tasks: usize,
    pub step: module::Step,
    pub args: Vec<Arg>,
}

/// An output of a plan.
pub(crate) enum Output {
    /// A value that a slot or a constant holds.
    Value(Src),
    /// Bytes that kernels made; `own` if they have memory of their own, else they are copied out of the arena.
    Made { arg: Arg, dtype: DType, shape: Vec<usize>, own: bool },
}

/// What follows where a shape depends on data.
pub(crate) struct Tail {
    pub segment: Segment,
    /// For each output of the graph whether this plan makes it, else the tail does.
    pub made_now: Vec<bool>,
}

/// What a region of a model compiles to for one set of input types.
pub struct Plan {
    /// Why the whole is left to the interpreter, if it is.
    interpreted: Option<String>,
    pub(crate) steps: Vec<Step>,
    pub(crate) consts: Vec<Const>,
    pub(crate) n_slots: usize,
    /// The slot that takes each of the caller's inputs.
    pub(crate) input_slots: Vec<(usize, u32)>,
    /// Outputs made here, then the values that the tail needs.
    pub(crate) outputs: Vec<Output>,
    pub(crate) tail: Option<Tail>,
    pub(crate) arena_bytes: usize,
    /// Arenas of finished runs, for the next ones.
    arenas: Mutex<Vec<AlignedF32>>,
    /// The machine code that steps point into.
    #[allow(dead_code)]
    code: Option<Code>,
}

impl Plan {
    pub(crate) fn interpreted(why: impl Into<String>) -> Plan {
        Plan {
            interpreted: Some(why.into()),
            steps: vec![],
            consts: vec![],
            n_slots: 0,
            input_slots: vec![],
            outputs: vec![],
            tail: None,
            arena_bytes: 0,
            arenas: Mutex::default(),
            code: None,
        }
    }

    /// Number of steps, those of later regions left out.
    pub fn step_count(&self) -> usize {
        self.steps.len()
    }
    /// The places of the steps that the interpreter computes, those of later regions left out; all in one entry with
    /// the reason if the whole graph is left to it.
    pub fn interpreted_steps(&self) -> Vec<&str> {
        let whole = self.interpreted.as_deref();
        let steps = self.steps.iter().filter(|s| matches!(s.action, Action::Interpret(_)));
        whole.into_iter().chain(steps.map(|s| s.place.as_str())).collect()
    }
    /// Whether the plan ends where a shape depends on data; what follows is planned when its shapes are first seen.
    pub fn is_cut(&self) -> bool {
        self.tail.is_some()
    }
    /// Bytes that all values between steps need at once.
    pub fn arena_bytes(&self) -> usize {
        self.arena_bytes
    }

    /// Checks that every byte that a kernel may touch lies inside what holds it.
    pub(crate) fn check(&self) -> Result<()> {
        for step in &self.steps {
            let Action::Run(run) = &step.action else { continue };
            for arg in &run.args {
                let room = match arg.at {
                    At::Arena => self.arena_bytes,
                    At::Const(c) => match self.consts.get(c as usize) {
                        Some(Const::Packed(data)) => data.len() * 4,
                        Some(Const::Value(Value::Tensor(t))) => t.byte_len(),
                        _ => 0,
                    },
                    At::Output(o) => match self.outputs.get(o as usize) {
                        Some(Output::Made { arg, .. }) => arg.offset + arg.bytes,
                        _ => 0,
                    },
                    // checked in each run against the tensor that is there
                    At::Slot(_) => continue,
                    At::Buffer(_) => 0,
                };
                if arg.offset.checked_add(arg.bytes).is_none_or(|end| end > room) {
                    let got =
                        format!("bytes {} to {} of {room}", arg.offset, arg.offset.saturating_add(arg.bytes));
                    return Err(Error::mismatch(
                        format!("{}: operand of {}", step.place, run.name),
                        got,
                        "inside",
                    ));
                }
            }
        }
        Ok(())
    }
}
