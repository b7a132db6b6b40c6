//! Running a plan.
use super::{Action, Arg, At, Const, Interpret, Output, Plan, Run, Src, Step, StepInfo};
use crate::aligned::AlignedF32;
use crate::module::{Buffer, TaskSpan, Tasks};
use crate::segment::{Shared, lock};
use fcc_ir::interp::eval_op;
use fcc_ir::{At as _, Bytes, Error, Result, Tensor, Value, ValueType};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How a run of a plan ended.
pub(crate) enum Outcome {
    Done(Vec<Value>),
    /// A step made a type that inference had not promised.
    Surprise(String),
    /// The plan leaves all to the interpreter.
    Interpret,
    /// A kernel met numbers that it does not treat as plain arithmetic does: a plan without such kernels is wanted.
    Flagged,
}

/// How long each step of a run took.
#[derive(Debug, Clone)]
pub struct Profile {
    /// The steps in order, those of later regions too.
    pub steps: Vec<ProfiledStep>,
    /// When the run began.
    begin: Instant,
    /// Whether the tasks of steps are timed.
    tasks: bool,
}

/// A step of a run.
#[derive(Debug, Clone)]
pub struct ProfiledStep {
    /// What it does.
    pub info: Arc<StepInfo>,
    /// When it began, from the beginning of the run.
    pub start: Duration,
    /// How long it took.
    pub time: Duration,
    /// When its tasks ran, where that was asked for, from the beginning of the run.
    pub tasks: Vec<TaskSpan>,
}

impl Profile {
    /// A profile that begins now.
    pub(crate) fn new(tasks: bool) -> Profile {
        Profile { steps: vec![], begin: Instant::now(), tasks }
    }
    /// A log for the tasks of a step, if they are timed.
    fn log(&self, step: &Step) -> Option<Tasks> {
        self.tasks.then(|| Tasks::new(self.begin, step.info.tasks))
    }
    fn add(&mut self, info: Arc<StepInfo>, start: Instant, tasks: Option<Tasks>) {
        let time = start.elapsed();
        let tasks = tasks.map(Tasks::spans).unwrap_or_default();
        self.steps.push(ProfiledStep { info, start: start - self.begin, time, tasks });
    }
    /// Adds a stretch in which the interpreter computed a whole region.
    pub(crate) fn add_interpreted(&mut self, why: &str, start: Instant) {
        self.add(Arc::new(StepInfo::whole(why)), start, None);
    }
}

/// The memory of a run in progress.
struct Frame {
    slots: Vec<Option<Value>>,
    arena: AlignedF32,
    outputs: Vec<Option<AlignedF32>>,
}

struct Owned(AlignedF32);
impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

impl Plan {
    pub(crate) fn run(
        &self,
        shared: &Shared,
        given: &[Option<Value>],
        mut profile: Option<&mut Profile>,
    ) -> Result<Outcome> {
        if self.interpreted.is_some() {
            return Ok(Outcome::Interpret);
        }
        let mut frame = self.frame(given);
        for step in &self.steps {
            let start = profile.is_some().then(Instant::now);
            let tasks = profile.as_ref().and_then(|p| p.log(step));
            let surprise = match &step.action {
                Action::Interpret(i) => {
                    self.interpret_step(i, shared, &mut frame).at(|| step.info.place.clone())?
                }
                Action::Run(r) => {
                    let run = self.kernel_step(r, shared, &mut frame, tasks.as_ref());
                    if run.at(|| step.info.place.clone())? {
                        lock(&self.arenas).push(frame.arena);
                        return Ok(Outcome::Flagged);
                    }
                    None
                }
            };
            if let Some(why) = surprise {
                return Ok(Outcome::Surprise(format!("{}: {why}", step.info.place)));
            }
            for slot in &step.free {
                frame.slots[*slot as usize] = None;
            }
            if let (Some(p), Some(start)) = (profile.as_deref_mut(), start) {
                p.add(step.info.clone(), start, tasks);
            }
        }
        let outputs = self
            .outputs
            .iter()
            .enumerate()
            .map(|(i, o)| self.take(&mut frame, i, o))
            .collect::<Result<_>>()?;
        lock(&self.arenas).push(frame.arena);
        self.finish(outputs, profile)
    }

    fn frame(&self, given: &[Option<Value>]) -> Frame {
        let mut slots: Vec<Option<Value>> = vec![None; self.n_slots];
        for &(from, slot) in &self.input_slots {
            slots[slot as usize] = given.get(from).cloned().flatten();
        }
        let arena =
            lock(&self.arenas).pop().unwrap_or_else(|| AlignedF32::zeros(self.arena_bytes.div_ceil(4)));
        let own = |o: &Output| match o {
            Output::Made { arg, own: true, .. } => Some(AlignedF32::zeros(arg.bytes.div_ceil(4))),
            _ => None,
        };
        Frame { slots, arena, outputs: self.outputs.iter().map(own).collect() }
    }

    /// Hands what crosses the cut to the tail, and puts all outputs in order.
    fn finish(&self, mut outputs: Vec<Value>, profile: Option<&mut Profile>) -> Result<Outcome> {
        let Some(tail) = &self.tail else { return Ok(Outcome::Done(outputs)) };
        let n_now = tail.made_now.iter().filter(|m| **m).count();
        let crossing = outputs.split_off(n_now).into_iter().map(Some).collect();
        let later = tail.segment.run(crossing, profile)?;
        let (mut now, mut later) = (outputs.into_iter(), later.into_iter());
        let all: Option<Vec<Value>> =
            tail.made_now.iter().map(|m| if *m { now.next() } else { later.next() }).collect();
        all.map(Outcome::Done).ok_or_else(|| Error::invalid("a region made too few outputs"))
    }

    /// An output of the plan, moved out of the frame where it has its own memory.
    fn take(&self, frame: &mut Frame, index: usize, output: &Output) -> Result<Value> {
        match output {
            Output::Value(src) => self.get(frame, src),
            Output::Made { arg, dtype, shape, own: true } => {
                let memory =
                    frame.outputs[index].take().ok_or_else(|| Error::invalid("an output is taken twice"))?;
                let bytes = Bytes::from_owner(Owned(memory)).slice(..arg.bytes);
                Ok(Tensor::from_bytes(*dtype, shape.clone(), bytes)?.into())
            }
            Output::Made { arg, dtype, shape, own: false } => {
                let bytes = Bytes::copy_from_slice(self.bytes(frame, *arg)?);
                Ok(Tensor::from_bytes(*dtype, shape.clone(), bytes)?.into())
            }
        }
    }

    fn bytes<'f>(&'f self, frame: &'f Frame, arg: Arg) -> Result<&'f [u8]> {
        let all: &[u8] = match arg.at {
            At::Arena => bytemuck::cast_slice(&frame.arena),
            At::Output(o) => match frame.outputs.get(o as usize) {
                Some(Some(m)) => bytemuck::cast_slice(m),
                _ => &[],
            },
            At::Slot(s) => match frame.slots.get(s as usize) {
                Some(Some(Value::Tensor(t))) => t.bytes(),
                _ => &[],
            },
            At::Const(c) => match self.consts.get(c as usize) {
                Some(Const::Packed(data)) => bytemuck::cast_slice(data),
                Some(Const::Value(Value::Tensor(t))) => t.bytes(),
                _ => &[],
            },
            At::Buffer(_) => &[],
        };
        let end = arg.offset.checked_add(arg.bytes);
        end.and_then(|end| all.get(arg.offset..end)).ok_or_else(|| {
            Error::mismatch("bytes of a value", all.len(), format!("{} from {}", arg.bytes, arg.offset))
        })
    }

    fn get(&self, frame: &Frame, src: &Src) -> Result<Value> {
        let found = match src {
            Src::Slot(i, shape) => {
                frame.slots.get(*i as usize).cloned().flatten().map(|v| seen(v, shape)).transpose()?
            }
            Src::Const(i, shape) => match self.consts.get(*i as usize) {
                Some(Const::Value(v)) => Some(seen(v.clone(), shape)?),
                _ => None,
            },
            Src::Bytes(arg, dtype, shape) => {
                let bytes = Bytes::copy_from_slice(self.bytes(frame, *arg)?);
                Some(Tensor::from_bytes(*dtype, shape.clone(), bytes)?.into())
            }
        };
        found.ok_or_else(|| Error::invalid("a value is not computed"))
    }

    /// Runs a step in the interpreter; gives a reason where a result is not of the type that was promised.
    fn interpret_step(&self, i: &Interpret, shared: &Shared, frame: &mut Frame) -> Result<Option<String>> {
        let get = |src: &Src| self.get(frame, src);
        let inputs: Vec<Option<Value>> =
            i.inputs.iter().map(|s| s.as_ref().map(get).transpose()).collect::<Result<_>>()?;
        let captures: Vec<Value> = i.captures.iter().map(get).collect::<Result<_>>()?;
        let wanted: Vec<bool> = i.outputs.iter().map(Option::is_some).collect();
        let made = eval_op(&i.op, &shared.functions, &inputs, &captures, &wanted)?;
        for (value, output) in made.into_iter().zip(&i.outputs) {
            let Some((slot, promised)) = output else { continue };
            let ty = value.value_type();
            if !fits(promised, &ty) {
                return Ok(Some(format!("made {ty}, inferred {promised}")));
            }
            frame.slots[*slot as usize] = Some(value);
        }
        Ok(None)
    }

    /// Runs a kernel; true if it raised its flag.
    fn kernel_step(
        &self,
        run: &Run,
        shared: &Shared,
        frame: &mut Frame,
        tasks: Option<&Tasks>,
    ) -> Result<bool> {
        let flag = run.flag.and_then(|f| run.args.get(f)).filter(|f| f.at == At::Arena).map(|f| f.offset / 4);
        if let Some(word) = flag.and_then(|f| frame.arena.get_mut(f)) {
            *word = 0.0;
        }
        let none = Buffer { ptr: std::ptr::null_mut(), bytes: 0 };
        // nearly every step has few operands; a Concat may have any number
        let (mut few, mut many) = ([none; 16], vec![]);
        let n = run.args.len();
        let buffers = match few.get_mut(..n) {
            Some(few) => few,
            None => {
                many.resize(n, none);
                &mut many[..]
            }
        };
        for (buffer, arg) in buffers.iter_mut().zip(&run.args) {
            let ptr = match arg.at {
                // kernels write here, so the pointer must come from a mutable borrow
                At::Arena => bytemuck::cast_slice_mut::<f32, u8>(&mut frame.arena)
                    .get_mut(arg.offset..)
                    .map(|s| s.as_mut_ptr()),
                At::Output(o) => match frame.outputs.get_mut(o as usize) {
                    Some(Some(m)) => {
                        bytemuck::cast_slice_mut::<f32, u8>(m).get_mut(arg.offset..).map(|s| s.as_mut_ptr())
                    }
                    _ => None,
                },
                At::Slot(_) | At::Const(_) => Some(self.bytes(frame, *arg)?.as_ptr().cast_mut()),
                At::Buffer(_) => None,
            };
            *buffer = Buffer {
                ptr: ptr.ok_or_else(|| Error::invalid("an operand has no memory"))?,
                bytes: arg.bytes,
            };
        }
        // SAFETY: `self.code` is alive as long as the plan. `Plan::check` saw that every operand lies inside its arena,
        // output or constant, `bytes` that it lies inside a slot's tensor; kernels write only their own outputs, which
        // emission gives a buffer in the arena or an output that no other operand of the step overlaps (buffers alive
        // in one step do not overlap, see `memory::place`). The frame is this run's own, so no other thread has it.
        unsafe { run.step.run_logged(&shared.pool, buffers, tasks) }.map_err(Error::from)?;
        Ok(flag.and_then(|f| frame.arena.get(f)).is_some_and(|word| word.to_bits() != 0))
    }
}

/// A tensor under the shape that a view gives it.
fn seen(value: Value, shape: &Option<Vec<usize>>) -> Result<Value> {
    match (value, shape) {
        (Value::Tensor(t), Some(shape)) if t.shape() != shape => Ok(t.reshaped(shape.clone())?.into()),
        (value, _) => Ok(value),
    }
}

/// Whether a value of type `ty` is what `promised` says: fixed extents must be equal.
fn fits(promised: &ValueType, ty: &ValueType) -> bool {
    promised.merge(ty).is_ok()
}
