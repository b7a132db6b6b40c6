//! Running a plan.
use super::{Action, Arg, At, Const, HostRun, Interpret, Output, Plan, Run, Src, Step, StepInfo, control};
use crate::aligned::AlignedF32;
use crate::guard;
use crate::module::{TaskSpan, Tasks};
use crate::segment::{Shared, lock};
use fcc_ir::interp::eval_op;
use fcc_ir::limits::{self, Held, Watch};
use fcc_ir::{At as _, Bytes, DType, Error, Result, Tensor, Value, ValueType};
use std::sync::{Arc, Mutex};
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
    /// The steps in order, those of later regions too. A step with bodies (a loop, a branch) takes what its bodies take.
    pub steps: Vec<ProfiledStep>,
    /// Steps in bodies that the interpreter computed, each once with the time of all its turns.
    pub in_bodies: Vec<ProfiledStep>,
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
        Profile { steps: vec![], in_bodies: vec![], begin: Instant::now(), tasks }
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
    /// Adds what a turn of a body left to the interpreter.
    pub(crate) fn add_body(&mut self, turn: Profile) {
        let left = turn.steps.into_iter().filter(|s| s.info.is_interpreted());
        for step in left.chain(turn.in_bodies) {
            match self.in_bodies.iter_mut().find(|s| s.info == step.info) {
                Some(known) => known.time += step.time,
                None => self.in_bodies.push(step),
            }
        }
    }
    /// Adds a stretch in which the interpreter computed a whole region.
    pub(crate) fn add_interpreted(&mut self, why: &str, start: Instant) {
        self.add(Arc::new(StepInfo::whole(why)), start, None);
    }
}

/// The memory of a run, kept for the next one.
pub(crate) struct Frame {
    /// Values that steps made; the caller's stand beside.
    slots: Vec<Option<Value>>,
    arena: AlignedF32,
    outputs: Vec<Option<AlignedF32>>,
}

/// Memory of outputs that nobody holds any more.
#[derive(Default)]
pub(crate) struct Spares(Mutex<Vec<(u32, AlignedF32)>>);

/// Pieces of memory that wait for the next runs.
const MOST_SPARES: usize = 16;

impl Spares {
    /// Memory for output `index`: the bytes of an earlier run, which the steps of this one write in whole.
    fn take(&self, index: u32, bytes: usize) -> Result<AlignedF32> {
        let mut spares = lock(&self.0);
        if let Some(at) = spares.iter().position(|(i, _)| *i == index) {
            return Ok(spares.swap_remove(at).1);
        }
        drop(spares);
        zeros(bytes, "an output")
    }
}

/// Zeroed memory of a run. Errors where the system has not that much.
fn zeros(bytes: usize, what: &str) -> Result<AlignedF32> {
    AlignedF32::try_zeros(bytes.div_ceil(4))
        .ok_or_else(|| Error::unsupported(format!("{what} of {bytes} bytes, more than fit memory")))
}

/// The memory of an output while the caller holds it.
struct Owned {
    memory: Option<AlignedF32>,
    index: u32,
    home: Arc<Spares>,
    _held: Option<Held>,
}
impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        self.memory.as_deref().map_or(&[], |m| bytemuck::cast_slice(m))
    }
}
impl Drop for Owned {
    fn drop(&mut self) {
        let mut spares = lock(&self.home.0);
        if let Some(memory) = self.memory.take().filter(|_| spares.len() < MOST_SPARES) {
            spares.push((self.index, memory));
        }
    }
}

/// A run in progress: what the caller gave, and the memory.
struct Running<'p, 'g> {
    plan: &'p Plan,
    shared: &'p Shared,
    given: &'g [Option<&'g Value>],
    frame: Frame,
}

impl Plan {
    pub(crate) fn run(
        &self,
        shared: &Shared,
        given: &[Option<&Value>],
        mut profile: Option<&mut Profile>,
    ) -> Result<Outcome> {
        if self.interpreted.is_some() {
            return Ok(Outcome::Interpret);
        }
        let watch = Watch::current();
        let _arena = self.hold_memory()?;
        let mut running = Running { plan: self, shared, given, frame: self.frame()? };
        for step in &self.steps {
            watch.check().at(|| step.info.place.clone())?;
            let start = profile.is_some().then(Instant::now);
            let tasks = profile.as_ref().and_then(|p| p.log(step));
            let surprise = match &step.action {
                Action::Run(r) => match running.kernel_step(r, tasks.as_ref(), &watch) {
                    Ok(true) => {
                        let mut frame = running.frame;
                        frame.slots.fill(None);
                        lock(&self.frames).push(frame);
                        return Ok(Outcome::Flagged);
                    }
                    done => done.map(|_| None),
                },
                Action::Host(h) => running.host_step(h).map(|()| None),
                Action::Interpret(i) => running.interpret_step(i, profile.as_deref_mut()),
            };
            if let Some(why) = surprise.at(|| step.info.place.clone())? {
                return Ok(Outcome::Surprise(format!("{}: {why}", step.info.place)));
            }
            for slot in &step.free {
                running.frame.slots[*slot as usize] = None;
            }
            if let (Some(p), Some(start)) = (profile.as_deref_mut(), start) {
                p.add(step.info.clone(), start, tasks);
            }
        }
        // what a step was stopped in the middle of is not a result
        let last = || self.steps.last().map_or_else(String::new, |s| s.info.place.clone());
        watch.check().at(last)?;
        let outputs = running.outputs()?;
        let mut frame = running.frame;
        frame.slots.fill(None);
        lock(&self.frames).push(frame);
        self.finish(outputs, profile)
    }

    /// Counts the arena while a run uses it, whether it is new or waited for one. Errors where it, or the outputs with
    /// memory of their own, are over the limit.
    fn hold_memory(&self) -> Result<Option<Held>> {
        let own = |o: &Output| if let Output::Made { arg, own: true, .. } = o { arg.bytes } else { 0 };
        limits::reserve(self.outputs.iter().map(own).fold(self.arena_bytes, usize::saturating_add))?;
        Ok(limits::hold(self.arena_bytes))
    }

    fn frame(&self) -> Result<Frame> {
        let waiting = lock(&self.frames).pop();
        let mut frame = match waiting {
            Some(frame) => frame,
            None => Frame {
                slots: vec![None; self.n_slots],
                arena: zeros(self.arena_bytes, "an arena")?,
                outputs: self.outputs.iter().map(|_| None).collect(),
            },
        };
        for (i, o) in self.outputs.iter().enumerate() {
            if let Output::Made { arg, own: true, .. } = o {
                frame.outputs[i] = Some(self.spares.take(i as u32, arg.bytes)?);
            }
        }
        Ok(frame)
    }

    /// Hands what crosses the cut to the tail, and puts all outputs in order.
    fn finish(&self, mut outputs: Vec<Value>, profile: Option<&mut Profile>) -> Result<Outcome> {
        let Some(tail) = &self.tail else { return Ok(Outcome::Done(outputs)) };
        let n_now = tail.made_now.iter().filter(|m| **m).count();
        let crossing = outputs.split_off(n_now);
        let crossing: Vec<Option<&Value>> = crossing.iter().map(Some).collect();
        let later = tail.segment.run(&crossing, profile)?;
        let (mut now, mut later) = (outputs.into_iter(), later.into_iter());
        let all: Option<Vec<Value>> =
            tail.made_now.iter().map(|m| if *m { now.next() } else { later.next() }).collect();
        all.map(Outcome::Done).ok_or_else(|| Error::invalid("a region made too few outputs"))
    }
}

impl Running<'_, '_> {
    /// All outputs: first those that have memory of their own, then those that may lie in it too.
    fn outputs(&mut self) -> Result<Vec<Value>> {
        let plan = self.plan;
        let mut made: Vec<Option<Value>> = Vec::with_capacity(plan.outputs.len());
        for (i, o) in plan.outputs.iter().enumerate() {
            made.push(match o {
                Output::Made { arg, dtype, shape, own: true } => {
                    Some(self.take(i as u32, arg.bytes, *dtype, shape)?)
                }
                _ => None,
            });
        }
        for (i, o) in plan.outputs.iter().enumerate() {
            let value = match o {
                Output::Value(src) => self.get(src)?,
                Output::Made { arg, dtype, shape, own: false } => {
                    let whole = match arg.at {
                        At::Output(o) => made.get(o as usize).and_then(Option::as_ref),
                        _ => None,
                    };
                    let bytes = match whole {
                        Some(Value::Tensor(t)) if arg.offset + arg.bytes <= t.byte_len() => {
                            t.bytes().slice(arg.offset..arg.offset + arg.bytes)
                        }
                        _ => self.copy(*arg)?,
                    };
                    Tensor::from_bytes(*dtype, shape.clone(), bytes)?.into()
                }
                Output::Made { own: true, .. } => continue,
            };
            made[i] = Some(value);
        }
        made.into_iter().collect::<Option<_>>().ok_or_else(|| Error::invalid("an output is not made"))
    }

    /// An output with memory of its own, moved out of the frame.
    fn take(&mut self, index: u32, bytes: usize, dtype: DType, shape: &[usize]) -> Result<Value> {
        let memory = self.frame.outputs.get_mut(index as usize).and_then(Option::take);
        if memory.is_none() {
            return Err(Error::invalid("an output is taken twice"));
        }
        let held = limits::hold(bytes.saturating_add(limits::TENSOR_BYTES));
        let owned = Owned { memory, index, home: self.plan.spares.clone(), _held: held };
        let bytes = Bytes::from_owner(owned).slice(..bytes);
        Ok(Tensor::from_bytes(dtype, shape, bytes)?.into())
    }

    /// The value in a slot: the caller's, or one that a step made.
    fn slot(&self, slot: u32) -> Option<&Value> {
        match self.plan.given_slots.get(slot as usize)? {
            Some(input) => self.given.get(*input).copied().flatten(),
            None => self.frame.slots.get(slot as usize)?.as_ref(),
        }
    }

    fn bytes(&self, arg: Arg) -> Result<&[u8]> {
        let all: &[u8] = match arg.at {
            At::Arena => bytemuck::cast_slice(&self.frame.arena),
            At::Output(o) => match self.frame.outputs.get(o as usize) {
                Some(Some(m)) => bytemuck::cast_slice(m),
                _ => &[],
            },
            At::Slot(s) => match self.slot(s) {
                Some(Value::Tensor(t)) => t.bytes(),
                _ => &[],
            },
            At::Const(c) => match self.plan.consts.get(c as usize) {
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

    /// A copy for a tensor.
    fn copy(&self, arg: Arg) -> Result<Bytes> {
        limits::reserve(arg.bytes)?;
        Ok(limits::counted(Bytes::copy_from_slice(self.bytes(arg)?)))
    }

    fn get(&self, src: &Src) -> Result<Value> {
        let found = match src {
            Src::Slot(i, shape) => self.slot(*i).cloned().map(|v| seen(v, shape)).transpose()?,
            Src::Const(i, shape) => match self.plan.consts.get(*i as usize) {
                Some(Const::Value(v)) => Some(seen(v.clone(), shape)?),
                _ => None,
            },
            Src::Bytes(arg, dtype, shape) => {
                let bytes = self.copy(*arg)?;
                Some(Tensor::from_bytes(*dtype, shape.clone(), bytes)?.into())
            }
        };
        found.ok_or_else(|| Error::invalid("a value is not computed"))
    }

    /// Runs a step of the operator's own code; gives a reason where a result is not of the type that was promised.
    fn interpret_step(&mut self, i: &Interpret, profile: Option<&mut Profile>) -> Result<Option<String>> {
        let get = |src: &Src| self.get(src);
        let inputs: Vec<Option<Value>> =
            i.inputs.iter().map(|s| s.as_ref().map(get).transpose()).collect::<Result<_>>()?;
        let wanted: Vec<bool> = i.outputs.iter().map(Option::is_some).collect();
        let made = match &i.bodies[..] {
            [] => {
                let captures: Vec<Value> = i.captures.iter().map(get).collect::<Result<_>>()?;
                eval_op(&i.op, &self.shared.functions, &inputs, &captures, &wanted)?
            }
            bodies => {
                let missing = || Error::invalid("a capture is not given");
                let capture = |c: usize| get(i.captures.get(c).ok_or_else(missing)?);
                control::eval(&i.op, bodies, &inputs, &capture, &wanted, profile)?
            }
        };
        for (value, output) in made.into_iter().zip(&i.outputs) {
            let Some((slot, promised)) = output else { continue };
            let ty = value.value_type();
            if !fits(promised, &ty) {
                return Ok(Some(format!("made {ty}, inferred {promised}")));
            }
            self.frame.slots[*slot as usize] = Some(value);
        }
        Ok(None)
    }

    /// Where the bytes of an operand begin, valid as long as the frame and the caller's values.
    fn pointer(&self, arg: &Arg) -> Result<*mut u8> {
        // steps write here, so the pointer is the memory's own, not one that a shared borrow lends
        let memory = match arg.at {
            At::Arena => Some(&self.frame.arena),
            At::Output(o) => self.frame.outputs.get(o as usize).and_then(Option::as_ref),
            At::Slot(_) | At::Const(_) => return Ok(self.bytes(*arg)?.as_ptr().cast_mut()),
            At::Buffer(_) => None,
        };
        let end = arg.offset.checked_add(arg.bytes);
        let memory = memory.filter(|m| end.is_some_and(|end| end <= 4 * m.len()));
        memory
            .map(|m| m.base().cast::<u8>().wrapping_add(arg.offset))
            .ok_or_else(|| Error::invalid("an operand has no memory"))
    }

    /// Runs a kernel; true if it raised its flag. Once a limit is reached it begins no more tasks.
    fn kernel_step(&mut self, run: &Run, tasks: Option<&Tasks>, watch: &Watch) -> Result<bool> {
        let flag = run.flag.and_then(|f| run.args.get(f)).filter(|f| f.at == At::Arena).map(|f| f.offset / 4);
        if let Some(word) = flag.and_then(|f| self.frame.arena.get_mut(f)) {
            *word = 0.0;
        }
        // nearly every step has few operands; a Concat may have any number
        let (mut few, mut many) = ([std::ptr::null_mut(); 16], vec![]);
        let pointers = match few.get_mut(..run.args.len()) {
            Some(few) => few,
            None => {
                many.resize(run.args.len(), std::ptr::null_mut());
                &mut many[..]
            }
        };
        for (pointer, arg) in pointers.iter_mut().zip(&run.args) {
            *pointer = self.pointer(arg)?;
        }
        let pool = (!self.plan.alone).then_some(&self.shared.pool);
        // SAFETY: `plan.code` is alive as long as the plan. `pointer` saw that every operand lies inside its arena,
        // output, constant or tensor with the kernel's own number of bytes (`Plan::emit` takes it from the kernel);
        // kernels write only their own outputs, which emission gives a buffer in the arena or an output that no other
        // operand of the step overlaps (buffers alive in one step do not overlap, see `memory::place`). The frame is
        // this run's own, so no other thread has it.
        unsafe {
            match guard::guards_every_step() {
                false => run.step.run_checked(pool, pointers, tasks, watch),
                true => run.step.run_checked_guarded(pool, pointers, tasks)?,
            }
        }
        Ok(flag.and_then(|f| self.frame.arena.get(f)).is_some_and(|word| word.to_bits() != 0))
    }

    fn host_step(&mut self, step: &HostRun) -> Result<()> {
        let mut few: [&[u8]; 4] = [&[]; 4];
        let to = self.pointer(&step.write)?;
        let Some(reads) = few.get_mut(..step.reads.len()) else {
            return Err(Error::invalid("a step in Rust of more than four operands"));
        };
        for (read, arg) in reads.iter_mut().zip(&step.reads) {
            let from = self.pointer(arg)?;
            // SAFETY: `pointer` saw that the bytes lie inside their home; nothing writes them during the step:
            // `Plan::check` saw that what it writes lies apart, and the frame is this run's own.
            *read = unsafe { std::slice::from_raw_parts(from, arg.bytes) };
        }
        // SAFETY: as above; the output lies in the arena or in an output's memory, both initialised, and apart from
        // all that is read.
        let write = unsafe { std::slice::from_raw_parts_mut(to, step.write.bytes) };
        let pool = (!self.plan.alone).then_some(&self.shared.pool);
        step.host.run_on(pool, reads, write)
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
