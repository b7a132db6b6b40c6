//! From a program to the steps of a plan.
use super::ir::{Kind, Program, Vx};
use super::{Action, Interpret, Plan, Src, Step, Tail};
use crate::segment::Shared;
use fcc_ir::{Error, Result, Value};

impl Plan {
    pub(crate) fn emit(
        program: Program,
        input_slots: &[usize],
        tail: Option<Tail>,
        _shared: &Shared,
    ) -> Result<Plan> {
        let mut e = Emit { homes: vec![None; program.vals.len()], consts: vec![], n_slots: 0 };
        let inputs: Vec<(usize, u32)> =
            input_slots.iter().zip(&program.inputs).map(|(from, v)| (*from, e.slot(*v))).collect();
        let last = last_uses(&program);
        let mut steps = Vec::with_capacity(program.nodes.len());
        for (n, node) in program.nodes.iter().enumerate() {
            let Kind::Interpret { op, captures } = &node.kind;
            let mut reads: Vec<Option<Src>> = node
                .inputs
                .iter()
                .map(|v| v.map(|v| e.src(&program, v)).transpose())
                .collect::<Result<_>>()?;
            let captured = reads.split_off(reads.len().saturating_sub(*captures));
            let captures = captured.into_iter().flatten().collect();
            let outputs = node.outputs.iter();
            let outputs = outputs.map(|v| v.map(|v| (e.slot(v), program.val(v).ty.clone()))).collect();
            let action = Action::Interpret(Interpret { op: op.clone(), inputs: reads, captures, outputs });
            let touched = node.inputs.iter().chain(&node.outputs).flatten();
            let mut free: Vec<u32> =
                touched.filter(|v| last[v.at()] == Some(n)).filter_map(|v| e.freed(*v)).collect();
            free.sort_unstable();
            free.dedup();
            steps.push(Step { place: node.place.clone(), action, free });
        }
        let outputs = program.outputs.iter().map(|v| e.src(&program, *v)).collect::<Result<_>>()?;
        Ok(Plan {
            interpreted: None,
            steps,
            consts: e.consts,
            n_slots: e.n_slots as usize,
            input_slots: inputs,
            outputs,
            tail,
        })
    }
}

/// For each value the last node that touches it; `None` for what the caller wants and for what nothing touches.
fn last_uses(program: &Program) -> Vec<Option<usize>> {
    let mut last = vec![None; program.vals.len()];
    for (n, node) in program.nodes.iter().enumerate() {
        for v in node.inputs.iter().chain(&node.outputs).flatten() {
            last[v.at()] = Some(n);
        }
    }
    for v in &program.outputs {
        last[v.at()] = None;
    }
    last
}

struct Emit {
    homes: Vec<Option<Src>>,
    consts: Vec<Value>,
    n_slots: u32,
}

impl Emit {
    fn slot(&mut self, v: Vx) -> u32 {
        let slot = self.n_slots;
        self.n_slots += 1;
        self.homes[v.at()] = Some(Src::Slot(slot));
        slot
    }
    fn freed(&self, v: Vx) -> Option<u32> {
        match self.homes[v.at()] {
            Some(Src::Slot(s)) => Some(s),
            _ => None,
        }
    }
    fn src(&mut self, program: &Program, v: Vx) -> Result<Src> {
        if let Some(home) = self.homes[v.at()] {
            return Ok(home);
        }
        let val = program.val(v);
        let tensor = val
            .constant
            .clone()
            .ok_or_else(|| Error::invalid(format!("value `{}` is read before it is made", val.name)))?;
        self.consts.push(tensor.into());
        let home = Src::Const(self.consts.len() as u32 - 1);
        self.homes[v.at()] = Some(home);
        Ok(home)
    }
}
