//! What is known of a plan when it is made, for profiles and explanations.
use crate::asm::Isa;
use crate::choices::Choice;
use crate::declined::Declined;
use std::fmt;

/// A node of the graph that a step has to do with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its name; that of its first output where it has none.
    pub name: String,
    /// Its operator.
    pub op_type: String,
}

impl fmt::Display for NodeInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.op_type, self.name)
    }
}

/// What a step is there for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Work {
    /// To compute its nodes, in machine code.
    Compute,
    /// To copy a value into the layout in which a later step reads it.
    Reorder {
        /// The value.
        value: String,
        /// How it lay, such as `row-major` or `channels in blocks of 16`.
        from: String,
        /// How it lies afterwards.
        to: String,
    },
    /// To make the border of zeros around an activation that a kernel does not write.
    Border,
    /// To compute a node in the interpreter.
    Interpret {
        /// Why there is no machine code.
        why: Declined,
    },
}

/// A step of a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StepInfo {
    /// How errors call it.
    pub place: String,
    /// What it is there for.
    pub work: Work,
    /// The nodes that it computes in the graph's order, the others fused into one of them; of a reorder or border,
    /// those of the step that it is made for. None where it is made for an output of the model.
    pub nodes: Vec<NodeInfo>,
    /// The kernel, such as `conv 3x3/1 64->64 56x56 avx512 14x2`; the operator where the interpreter computes it.
    pub kernel: String,
    /// The type of what it makes, such as `float[1,64,56,56]`; several where it makes more.
    pub output: String,
    /// Why this kernel and no other, where there was a choice.
    pub why: Option<String>,
    /// The choice of a table that it follows.
    pub tuned: Option<Choice>,
    /// Floating-point operations, a multiply-add counted as two: those of the plain algorithm, whichever is used. 0 of
    /// the interpreter.
    pub flops: u64,
    /// Bytes of the operands that it reads.
    pub read_bytes: u64,
    /// Bytes of the operands that it writes.
    pub written_bytes: u64,
    /// The pieces that the threads of a run share.
    pub tasks: usize,
    /// Bytes of the arena that hold a value while it runs.
    pub arena_in_use_bytes: usize,
}

impl StepInfo {
    /// A whole region that is left to the interpreter.
    pub(crate) fn whole(why: &str) -> StepInfo {
        let why = Declined::new("region", why, "types and kernels that are known before the run");
        StepInfo {
            place: "region".into(),
            work: Work::Interpret { why },
            nodes: vec![],
            kernel: "everything".into(),
            output: String::new(),
            why: None,
            tuned: None,
            flops: 0,
            read_bytes: 0,
            written_bytes: 0,
            tasks: 1,
            arena_in_use_bytes: 0,
        }
    }
    /// Whether the interpreter computes it.
    pub fn is_interpreted(&self) -> bool {
        matches!(self.work, Work::Interpret { .. })
    }
    /// Its operators, as `Conv+Add+Relu`; `reorder` or `border` of steps that compute none.
    pub fn ops(&self) -> String {
        let list = || self.nodes.iter().map(|n| n.op_type.as_str()).collect::<Vec<_>>().join("+");
        match &self.work {
            Work::Reorder { .. } => "reorder".into(),
            Work::Border => "border".into(),
            Work::Compute | Work::Interpret { .. } => list(),
        }
    }
}

/// What becomes of the nodes that no step computes, and what a plan holds in memory.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlanInfo {
    /// The instructions of its kernels; `None` where the interpreter does all.
    pub isa: Option<Isa>,
    /// Whether one thread runs all steps.
    pub alone: bool,
    /// Why these instructions and threads, where a table of choices has something to say.
    pub why: Option<String>,
    /// Operators of the graph, those left out that nothing reads, and those after a cut.
    pub nodes: usize,
    /// Operators whose results are the same in every run: computed when the plan is made.
    pub constant: Vec<NodeInfo>,
    /// Operators that only rename or reshape a value: no step computes them.
    pub views: Vec<NodeInfo>,
    /// Bytes of weights in the order of their kernels.
    pub packed_bytes: usize,
    /// Bytes of constants that are used as the model gives them, or as they were computed.
    pub constant_bytes: usize,
    /// Bytes that all values between steps need at once.
    pub arena_bytes: usize,
    /// Bytes of outputs that are written in place.
    pub output_bytes: usize,
}
