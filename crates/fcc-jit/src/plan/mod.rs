//! Plans: lists of steps over slots, and their execution.
mod build;
mod emit;
pub(crate) mod ir;
mod print;

use crate::segment::{Segment, Shared};
use fcc_ir::interp::eval_op;
use fcc_ir::{At, Error, OpNode, Result, Value, ValueType};

/// Where a step finds a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Src {
    /// A slot of the run.
    Slot(u32),
    /// A constant of the plan.
    Const(u32),
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
    pub(crate) consts: Vec<Value>,
    pub(crate) n_slots: usize,
    /// The slot that takes each of the caller's inputs.
    pub(crate) input_slots: Vec<(usize, u32)>,
    /// Outputs made here, then the values that the tail needs.
    pub(crate) outputs: Vec<Src>,
    pub(crate) tail: Option<Tail>,
}

/// How a run of a plan ended.
pub(crate) enum Outcome {
    Done(Vec<Value>),
    /// A step made a type that inference had not promised.
    Surprise(String),
    /// The plan leaves all to the interpreter.
    Interpret,
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

    pub(crate) fn run(&self, shared: &Shared, given: &[Option<Value>]) -> Result<Outcome> {
        if self.interpreted.is_some() {
            return Ok(Outcome::Interpret);
        }
        let mut slots: Vec<Option<Value>> = vec![None; self.n_slots];
        for &(from, slot) in &self.input_slots {
            slots[slot as usize] = given.get(from).cloned().flatten();
        }
        for step in &self.steps {
            match &step.action {
                Action::Interpret(i) => {
                    let made = self.interpret(i, shared, &slots).at(|| step.place.clone())?;
                    for (value, output) in made.into_iter().zip(&i.outputs) {
                        let Some((slot, promised)) = output else { continue };
                        let ty = value.value_type();
                        if !fits(promised, &ty) {
                            return Ok(Outcome::Surprise(format!(
                                "{}: made {ty}, inferred {promised}",
                                step.place
                            )));
                        }
                        slots[*slot as usize] = Some(value);
                    }
                }
            }
            for slot in &step.free {
                slots[*slot as usize] = None;
            }
        }
        let outputs: Vec<Value> =
            self.outputs.iter().map(|src| self.get(&slots, *src)).collect::<Result<_>>()?;
        drop(slots);
        self.finish(outputs)
    }

    /// Hands what crosses the cut to the tail, and puts all outputs in order.
    fn finish(&self, mut outputs: Vec<Value>) -> Result<Outcome> {
        let Some(tail) = &self.tail else { return Ok(Outcome::Done(outputs)) };
        let n_now = tail.made_now.iter().filter(|m| **m).count();
        let crossing = outputs.split_off(n_now).into_iter().map(Some).collect();
        let later = tail.segment.run(crossing)?;
        let (mut now, mut later) = (outputs.into_iter(), later.into_iter());
        let all: Option<Vec<Value>> =
            tail.made_now.iter().map(|m| if *m { now.next() } else { later.next() }).collect();
        all.map(Outcome::Done).ok_or_else(|| Error::invalid("a region made too few outputs"))
    }

    fn get(&self, slots: &[Option<Value>], src: Src) -> Result<Value> {
        let found = match src {
            Src::Slot(i) => slots.get(i as usize).cloned().flatten(),
            Src::Const(i) => self.consts.get(i as usize).cloned(),
        };
        found.ok_or_else(|| Error::invalid("a value is not computed"))
    }

    fn interpret(&self, i: &Interpret, shared: &Shared, slots: &[Option<Value>]) -> Result<Vec<Value>> {
        let get = |src: &Src| self.get(slots, *src);
        let inputs: Vec<Option<Value>> =
            i.inputs.iter().map(|s| s.as_ref().map(get).transpose()).collect::<Result<_>>()?;
        let captures: Vec<Value> = i.captures.iter().map(get).collect::<Result<_>>()?;
        let wanted: Vec<bool> = i.outputs.iter().map(Option::is_some).collect();
        eval_op(&i.op, &shared.functions, &inputs, &captures, &wanted)
    }
}

/// Whether a value of type `ty` is what `promised` says: fixed extents must be equal.
fn fits(promised: &ValueType, ty: &ValueType) -> bool {
    promised.merge(ty).is_ok()
}
