//! Plans: lists of steps over slots and an arena, and their execution.
mod build;
mod channels;
mod control;
mod emit;
mod fuse;
mod fuse_int8;
mod info;
pub(crate) mod ir;
mod memory;
mod print;
mod run;

use crate::aligned::AlignedF32;
use crate::asm::Isa;
use crate::choices::problem::Asked;
use crate::host::Host;
use crate::module::{self, Code};
use crate::segment::Segment;
use control::Body;
use fcc_ir::limits::Held;
use fcc_ir::{DType, Error, OpNode, Result, Value, ValueType};
use run::{Frame, Spares};
use std::sync::{Arc, Mutex};

pub use info::{NodeInfo, PlanInfo, StepInfo, Work};
pub(crate) use run::Outcome;
pub use run::{Profile, ProfiledStep};

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

/// What is decided of a whole plan before it is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Level {
    /// The instructions of its kernels.
    pub isa: Isa,
    /// Whether one thread runs all steps; `None`: as the estimate of their time says.
    pub alone: Option<bool>,
}

/// One thing to do.
#[derive(Debug)]
pub(crate) struct Step {
    pub info: Arc<StepInfo>,
    pub action: Action,
    /// Slots that nothing reads afterwards.
    pub free: Vec<u32>,
}

#[derive(Debug)]
pub(crate) enum Action {
    Interpret(Interpret),
    Run(Run),
    Host(HostRun),
}

/// A step in Rust.
#[derive(Debug)]
pub(crate) struct HostRun {
    pub host: Host,
    pub reads: Vec<Arg>,
    pub write: Arg,
}

/// A step that the operator's own code computes: the interpreter's, or, where it has subgraphs, its walk over
/// compiled bodies.
#[derive(Debug)]
pub(crate) struct Interpret {
    /// The subgraphs, in the order of the attributes.
    pub bodies: Vec<Body>,
    pub op: Box<OpNode>,
    pub inputs: Vec<Option<Src>>,
    pub captures: Vec<Src>,
    /// By output: its slot and the type that shape inference promised.
    pub outputs: Vec<Option<(u32, ValueType)>>,
}

/// A step that machine code computes.
#[derive(Debug)]
pub(crate) struct Run {
    pub step: module::Step,
    pub args: Vec<Arg>,
    /// The operand that the kernel may set to say that its result is not to be used.
    pub flag: Option<usize>,
}

/// Estimated mean time of a step below which one thread runs the whole plan. It is all steps or none: values that go
/// back and forth between the caches of two threads cost more than a small step gains.
const SPLIT_NS: u64 = 6_000;

/// How long one thread takes for a step, roughly: 50 operations a nanosecond, 20 bytes of weights, which come from far
/// away, or 40 of what the steps before have just touched.
fn estimated_ns(flops: u64, args: &[Arg]) -> u64 {
    let weights = |a: &Arg| matches!(a.at, At::Const(_));
    let bytes: usize = args.iter().map(|a| if weights(a) { 2 * a.bytes } else { a.bytes }).sum();
    (flops / 50).max(bytes as u64 / 40)
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
    info: PlanInfo,
    pub(crate) steps: Vec<Step>,
    /// Whether one thread runs all steps, because they are too small to be dealt out.
    pub(crate) alone: bool,
    pub(crate) consts: Vec<Const>,
    pub(crate) n_slots: usize,
    /// For each slot which of the caller's inputs it is, if it is one.
    pub(crate) given_slots: Vec<Option<usize>>,
    /// Outputs made here, then the values that the tail needs.
    pub(crate) outputs: Vec<Output>,
    pub(crate) tail: Option<Tail>,
    pub(crate) arena_bytes: usize,
    /// The problems that a table of choices was asked for; none without a table.
    pub(crate) asked: Vec<Asked>,
    /// Frames of finished runs, for the next ones.
    frames: Mutex<Vec<Frame>>,
    /// Memory of outputs that callers have dropped, by output.
    spares: Arc<Spares>,
    /// The machine code that steps point into.
    #[allow(dead_code)]
    code: Option<Code>,
    /// What the packed weights count as under the limits that the plan was made under.
    #[allow(dead_code)]
    held: Vec<Held>,
}

impl Plan {
    pub(crate) fn interpreted(why: impl Into<String>) -> Plan {
        Plan {
            interpreted: Some(why.into()),
            info: PlanInfo::default(),
            steps: vec![],
            alone: true,
            consts: vec![],
            n_slots: 0,
            given_slots: vec![],
            outputs: vec![],
            tail: None,
            arena_bytes: 0,
            asked: vec![],
            frames: Mutex::default(),
            spares: Arc::default(),
            code: None,
            held: vec![],
        }
    }

    /// The steps, those of later regions left out.
    pub fn steps(&self) -> impl Iterator<Item = &StepInfo> {
        self.steps.iter().map(|s| &*s.info)
    }
    /// What becomes of nodes that no step computes, and what the plan holds in memory.
    pub fn info(&self) -> &PlanInfo {
        &self.info
    }
    /// Why the whole is left to the interpreter, if it is.
    pub fn interpreted_whole(&self) -> Option<&str> {
        self.interpreted.as_deref()
    }
    /// Number of steps, those of later regions left out.
    pub fn step_count(&self) -> usize {
        self.steps.len()
    }
    /// The places of the steps that the interpreter computes, those of later regions left out; all in one entry with
    /// the reason if the whole graph is left to it.
    pub fn interpreted_steps(&self) -> Vec<&str> {
        let whole = self.interpreted.as_deref();
        let interpreted = |s: &&Step| matches!(&s.action, Action::Interpret(i) if i.bodies.is_empty());
        let steps = self.steps.iter().filter(interpreted);
        whole.into_iter().chain(steps.map(|s| s.info.place.as_str())).collect()
    }
    /// Whether the plan ends where a shape depends on data; what follows is planned when its shapes are first seen.
    pub fn is_cut(&self) -> bool {
        self.tail.is_some()
    }
    /// Bytes that all values between steps need at once.
    pub fn arena_bytes(&self) -> usize {
        self.arena_bytes
    }

    /// Checks that every byte that a step may touch lies inside what holds it, and that a step in Rust reads nothing
    /// that it writes.
    pub(crate) fn check(&self) -> Result<()> {
        for step in &self.steps {
            let (place, kernel) = (&step.info.place, &step.info.kernel);
            match &step.action {
                Action::Run(run) => run.args.iter().try_for_each(|arg| self.check_arg(arg, place, kernel))?,
                Action::Host(h) => {
                    let mut all = h.reads.iter().chain([&h.write]);
                    all.try_for_each(|arg| self.check_arg(arg, place, kernel))?;
                    if !matches!(h.write.at, At::Arena | At::Output(_))
                        || h.reads.iter().any(|r| overlap(r, &h.write))
                    {
                        let got = format!("reads {:?}, writes {:?}", h.reads, h.write);
                        return Err(Error::mismatch(format!("{place}: operands"), got, "apart"));
                    }
                }
                Action::Interpret(_) => {}
            }
        }
        Ok(())
    }

    fn check_arg(&self, arg: &Arg, place: &str, name: &str) -> Result<()> {
        let room = match arg.at {
            At::Arena => self.arena_bytes,
            At::Const(c) => match self.consts.get(c as usize) {
                Some(Const::Packed(data)) => data.len() * 4,
                Some(Const::Value(Value::Tensor(t))) => t.byte_len(),
                _ => 0,
            },
            At::Output(o) => match self.outputs.get(o as usize) {
                Some(Output::Made { arg, own: true, .. }) => arg.offset + arg.bytes,
                _ => 0,
            },
            // checked in each run against the tensor that is there
            At::Slot(_) => return Ok(()),
            At::Buffer(_) => 0,
        };
        if arg.offset.checked_add(arg.bytes).is_none_or(|end| end > room) {
            let got = format!("bytes {} to {} of {room}", arg.offset, arg.offset.saturating_add(arg.bytes));
            return Err(Error::mismatch(format!("{place}: operand of {name}"), got, "inside"));
        }
        Ok(())
    }
}

/// Whether two operands share a byte.
fn overlap(a: &Arg, b: &Arg) -> bool {
    a.at == b.at && a.offset < b.offset + b.bytes && b.offset < a.offset + a.bytes
}
