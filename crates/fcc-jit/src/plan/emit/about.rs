//! What explanations and profiles say of the step that is being made.
use super::Emit;
use crate::choices::Choice;
use crate::declined::Declined;
use crate::module::{Access, Kernel};
use crate::plan::info::{NodeInfo, PlanInfo, StepInfo, Work};
use crate::plan::ir::{Kind, Node, Program, Vx};
use crate::plan::{Const, Output};
use fcc_ir::Value;
use std::collections::HashSet;

/// The node at work, and what the next steps are for.
pub(super) struct About {
    nodes: Vec<NodeInfo>,
    /// The types of what it makes.
    output: String,
    /// What the next steps do.
    work: Work,
    /// Why the next kernel, where there was a choice.
    why: Option<String>,
    /// The choice of a table that the next kernel follows.
    tuned: Option<Choice>,
}

impl About {
    pub fn nothing() -> About {
        About { nodes: vec![], output: String::new(), work: Work::Compute, why: None, tuned: None }
    }
}

/// The nodes of the graph that went into a node, in the graph's order.
fn nodes_of(program: &Program, node: &Node) -> Vec<NodeInfo> {
    let mut origins: Vec<_> = node.origins.iter().filter_map(|id| program.origins.get(id)).collect();
    origins.sort_by_key(|o| o.order);
    origins.dedup_by_key(|o| o.order);
    origins.into_iter().map(|o| o.info.clone()).collect()
}

fn types(program: &Program, values: impl Iterator<Item = Vx>) -> String {
    values.map(|v| program.val(v).ty.to_string()).collect::<Vec<_>>().join(", ")
}

impl Emit<'_> {
    /// From here on steps are made for this node.
    pub(super) fn begin(&mut self, node: &Node) {
        let program = self.program;
        let declined = || node.origins.first().and_then(|id| program.origins.get(id)?.declined.clone());
        let work = match &node.kind {
            Kind::Interpret { .. } => {
                let unknown = || Declined::new("operator", "no reason", "one that there is a kernel for");
                Work::Interpret { why: declined().unwrap_or_else(unknown) }
            }
            _ => Work::Compute,
        };
        self.about = About {
            nodes: nodes_of(program, node),
            output: types(program, node.outputs.iter().flatten().copied()),
            work,
            ..About::nothing()
        };
    }
    /// From here on steps are made for an output of the plan.
    pub(super) fn begin_output(&mut self, v: Vx) {
        let output = types(self.program, std::iter::once(v));
        self.about = About { output, ..About::nothing() };
    }
    /// Says why the next kernel was chosen.
    pub(super) fn because(&mut self, why: impl Into<String>) {
        self.about.why = Some(why.into());
    }
    /// The same, for any number of reasons, and the choice of a table that is followed.
    pub(super) fn decided(&mut self, why: impl IntoIterator<Item = String>, tuned: Option<Choice>) {
        let why: Vec<String> = why.into_iter().collect();
        self.about.why = (!why.is_empty()).then(|| why.join("; "));
        self.about.tuned = tuned;
    }
    /// Makes a step that does something else than what the node at work is there for, to a value of type `output`.
    pub(super) fn aside<T>(&mut self, work: Work, output: String, make: impl FnOnce(&mut Self) -> T) -> T {
        let about = About { nodes: self.about.nodes.clone(), output, work, ..About::nothing() };
        let about = std::mem::replace(&mut self.about, about);
        let made = make(self);
        self.about = about;
        made
    }
    /// What is known of a step that runs `kernel`.
    pub(super) fn kernel_info(&mut self, place: &str, kernel: &Kernel) -> StepInfo {
        let bytes = |wanted: [Access; 2]| -> u64 {
            kernel.operands.iter().filter(|o| wanted.contains(&o.access)).map(|o| o.bytes as u64).sum()
        };
        StepInfo {
            place: place.into(),
            work: self.about.work.clone(),
            nodes: self.about.nodes.clone(),
            kernel: kernel.name.clone(),
            output: self.about.output.clone(),
            why: self.about.why.take(),
            tuned: self.about.tuned.take(),
            flops: kernel.flops,
            read_bytes: bytes([Access::Read, Access::ReadWrite]),
            written_bytes: bytes([Access::Write, Access::ReadWrite]),
            tasks: kernel.tasks,
            arena_in_use_bytes: 0,
        }
    }
    /// What is known of a step in Rust.
    pub(super) fn host_info(
        &mut self,
        place: &str,
        name: &str,
        reads: &[(super::Loc, usize)],
        written: usize,
    ) -> StepInfo {
        StepInfo {
            place: place.into(),
            work: self.about.work.clone(),
            nodes: self.about.nodes.clone(),
            kernel: name.into(),
            output: self.about.output.clone(),
            why: self.about.why.take(),
            tuned: self.about.tuned.take(),
            flops: 0,
            read_bytes: reads.iter().map(|r| r.1 as u64).sum(),
            written_bytes: written as u64,
            tasks: 1,
            arena_in_use_bytes: 0,
        }
    }
    /// What is known of a step that the interpreter computes.
    pub(super) fn interpret_info(&self, node: &Node, op_type: &str) -> StepInfo {
        let bytes = |values: &[Option<Vx>]| -> u64 {
            values.iter().flatten().map(|v| self.bytes_of(*v).unwrap_or(0) as u64).sum()
        };
        StepInfo {
            place: node.place.clone(),
            work: self.about.work.clone(),
            nodes: self.about.nodes.clone(),
            kernel: op_type.into(),
            output: self.about.output.clone(),
            why: None,
            tuned: None,
            flops: 0,
            read_bytes: bytes(&node.inputs),
            written_bytes: bytes(&node.outputs),
            tasks: 1,
            arena_in_use_bytes: 0,
        }
    }
    /// Fills in how much of the arena is in use in each step.
    pub(super) fn note_arena_use(&mut self) {
        let mut change = vec![0i64; self.drafts.len() + 2];
        for b in self.buffers.iter().filter(|b| b.output.is_none()) {
            change[b.first] += b.bytes as i64;
            change[b.last + 1] -= b.bytes as i64;
        }
        let mut in_use = 0;
        for (draft, change) in self.drafts.iter_mut().zip(change) {
            in_use += change;
            draft.info.arena_in_use_bytes = usize::try_from(in_use).unwrap_or(0);
        }
    }
    /// What becomes of the other nodes, and of memory.
    pub(super) fn plan_info(&self, outputs: &[Output], arena_bytes: usize) -> PlanInfo {
        let mut stepped: HashSet<_> = HashSet::new();
        let mut viewed: HashSet<_> = HashSet::new();
        for node in &self.program.nodes {
            let set = if matches!(node.kind, Kind::View) { &mut viewed } else { &mut stepped };
            set.extend(node.origins.iter().copied());
        }
        let mut all: Vec<_> = self.program.origins.iter().collect();
        all.sort_by_key(|(_, o)| o.order);
        let with = |wanted: &dyn Fn(&fcc_ir::NodeId) -> bool| -> Vec<NodeInfo> {
            all.iter().filter(|(id, _)| wanted(id)).map(|(_, o)| o.info.clone()).collect()
        };
        let const_bytes = |c: &Const| match c {
            Const::Packed(data) => (data.len() * 4, 0),
            Const::Value(Value::Tensor(t)) => (0, t.byte_len()),
            Const::Value(_) => (0, 0),
        };
        let (packed, given): (Vec<usize>, Vec<usize>) = self.consts.iter().map(const_bytes).unzip();
        let made = |o: &Output| match o {
            Output::Made { arg, own: true, .. } => arg.bytes,
            _ => 0,
        };
        PlanInfo {
            isa: Some(self.code.isa()),
            alone: false,
            why: None,
            nodes: all.len(),
            constant: with(&|id| self.program.origins[id].constant),
            views: with(&|id| viewed.contains(id) && !stepped.contains(id)),
            packed_bytes: packed.iter().sum(),
            constant_bytes: given.iter().sum(),
            arena_bytes,
            output_bytes: outputs.iter().map(made).sum(),
        }
    }
}
