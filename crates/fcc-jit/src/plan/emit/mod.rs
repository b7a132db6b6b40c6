//! From a program to the steps of a plan: each node asks for its operands in the form that its kernel wants, copies
//! between forms are put in where that is not the form at hand, and buffers get places in the arena.
mod about;
mod amx;
mod conv;
mod elementwise;
mod forms;
mod gemm;
mod int8;
mod movement;
mod recurrent;
mod weights;

use super::info::StepInfo;
use super::ir::{Kind, Node, Program, Vx};
use super::memory::{Request, place};
use super::{Action, Arg, Const, HostRun, Interpret, Level, Output, Plan, Src, Step, Tail, control};
use crate::aligned::AlignedF32;
use crate::choices::problem::{Chooser, Setting};
use crate::host::Host;
use crate::kernels::layout::BlockedLayout;
use crate::kernels::rows::{Normalise, Reduce};
use crate::kernels::softmax::Softmax;
use crate::module::{Code, Emitter, Kernel};
use crate::segment::{Shared, lock};
use about::About;
use cranelift_jit::JITModule;
use fcc_ir::limits::{self, Held, Watch};
use fcc_ir::{At as _, Error, NodeId, Result};
use forms::Forms;
use std::collections::HashMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

/// Why emission stopped.
#[derive(Debug)]
pub(crate) enum Stop {
    /// There is no kernel for what these nodes of the graph became: the interpreter computes them.
    NoKernel(Vec<NodeId>, String),
    Error(Error),
}

impl From<Error> for Stop {
    fn from(e: Error) -> Stop {
        Stop::Error(e)
    }
}

/// How a value lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Form {
    /// Row-major.
    Plain,
    /// Row-major with zeros around the spatial extents: input of a first convolution.
    Haloed,
    /// Blocked by channels.
    Blocked,
    /// Bytes blocked by four channels: input of a first convolution.
    Quad,
}

/// What holds a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Home {
    Slot(u32),
    Const(u32),
    Buffer(u32),
}

/// Where a value lies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Loc {
    pub home: Home,
    /// Bytes from the start of the home.
    pub offset: usize,
    /// For an activation (f32, int32 or bytes, of rank 3 to 5); others are row-major.
    pub layout: Option<BlockedLayout>,
}

/// A constant that is still to be filled.
struct Packing {
    at: usize,
    elems: usize,
    job: Box<dyn FnOnce(&mut [f32]) -> crate::error::Result<()> + Send>,
}

struct Buffer {
    bytes: usize,
    first: usize,
    last: usize,
    /// Which output of the plan it is.
    output: Option<usize>,
}

/// A step whose buffers have no place yet.
struct Draft {
    info: StepInfo,
    action: DraftAction,
}

enum DraftAction {
    Interpret {
        op: Box<fcc_ir::OpNode>,
        inputs: Vec<Option<(Loc, Vx)>>,
        captures: Vec<(Loc, Vx)>,
        outputs: Vec<Option<(u32, Vx)>>,
        bodies: Vec<control::Body>,
    },
    Run {
        kernel: Kernel,
        args: Vec<Loc>,
    },
    Host {
        host: Host,
        reads: Vec<(Loc, usize)>,
        write: (Loc, usize),
    },
}

/// Makes the kernel of a problem for a number of threads.
type Build<S> = fn(&S, &mut Emitter<JITModule>, usize) -> crate::error::Result<Kernel>;

pub(crate) struct Emit<'a> {
    program: &'a Program,
    shared: &'a Arc<Shared>,
    /// Whether kernels that may raise a flag are left out.
    plain: bool,
    code: Code,
    /// The kernels made so far, by what makes them and of what.
    kernels: HashMap<(usize, usize, String), Kernel>,
    forms: Forms,
    /// Decides where there is more than one way.
    chooser: Chooser<'a>,
    /// Whether one thread runs the whole plan; `None`: as the estimate of its time says.
    alone: Option<bool>,
    /// What the halos of bytes hold: the zero point, and its value if it is no number.
    halos: HashMap<(Vx, Form), (crate::kernels::int8::Zero, Option<Vx>)>,
    locs: HashMap<(Vx, Form), Loc>,
    /// Values in rows of tiles, by what they were made of and how.
    regroups: HashMap<String, Loc>,
    consts: Vec<Const>,
    packing: Vec<Packing>,
    /// What the packed weights count as.
    held: Vec<Held>,
    const_of: HashMap<Vx, u32>,
    buffers: Vec<Buffer>,
    drafts: Vec<Draft>,
    about: About,
    n_slots: u32,
    /// Last use of each slot, by step.
    slot_last: Vec<usize>,
}

impl Plan {
    pub(crate) fn emit(
        program: &Program,
        input_slots: &[usize],
        tail: Option<Tail>,
        shared: &Arc<Shared>,
        level: Level,
        plain: bool,
    ) -> Result<Plan, Stop> {
        let made = |kernels: usize| {
            let mut e = Emit::new(program, shared, level, plain, kernels)?;

            let inputs: Vec<(usize, u32)> =
                input_slots.iter().zip(&program.inputs).map(|(from, v)| (*from, e.slot(*v))).collect();
            for node in &program.nodes {
                limits::check().map_err(|why| why.at(node.place.clone()))?;
                e.node(node)?;
            }
            let outputs = program.outputs.iter().enumerate();
            let outputs = outputs.map(|(i, v)| e.output(i, *v)).collect::<Result<Vec<_>, Stop>>()?;
            Ok((e, inputs, outputs))
        };
        let (e, inputs, outputs) = match made(program.nodes.len()) {
            // code that is far larger than usual finds no place
            Err(Stop::Error(e)) if !e.is_stopped() => made(usize::MAX),
            made => made,
        }?;
        e.finish(inputs, outputs, tail)
    }
}

impl<'a> Emit<'a> {
    fn new(
        program: &'a Program,
        shared: &'a Arc<Shared>,
        level: Level,
        plain: bool,
        kernels: usize,
    ) -> Result<Emit<'a>, Stop> {
        let mut code = Code::for_kernels(level.isa, kernels).map_err(Error::from)?;
        if !shared.options.vnni {
            code.emitter().without_vnni();
        }
        let setting = Setting { isa: code.isa(), ..shared.setting() };
        let mut chooser = Chooser::new(shared.options.choices.as_deref(), setting);
        let forms = Forms::choose(program, &mut chooser);
        Ok(Emit {
            program,
            shared,
            plain,
            forms,
            chooser,
            alone: level.alone,
            halos: HashMap::new(),
            code,
            kernels: HashMap::new(),
            locs: HashMap::new(),
            regroups: HashMap::new(),
            consts: vec![],
            packing: vec![],
            held: vec![],
            const_of: HashMap::new(),
            buffers: vec![],
            drafts: vec![],
            about: About::nothing(),
            n_slots: 0,
            slot_last: vec![],
        })
    }

    fn node(&mut self, node: &Node) -> Result<(), Stop> {
        self.begin(node);
        let done = match &node.kind {
            Kind::Interpret { op, captures } => self.interpret(node, op, *captures),
            Kind::View => self.view(node),
            Kind::Ew(expr) => self.elementwise(node, expr),
            Kind::Conv(conv) => self.conv(node, conv),
            Kind::Gemm(gemm) => self.gemm(node, gemm),
            Kind::IntConv(conv, p) => self.int_conv(node, conv, p),
            Kind::IntGemm(gemm, p) => self.int_gemm(node, gemm, p),
            Kind::DynamicRange => self.dynamic_range(node),
            Kind::Pool(pool) => self.pool(node, pool),
            Kind::GlobalPool(kind) => self.global_pool(node, *kind),
            Kind::Softmax { log, outer, n, inner } => {
                let spec = Softmax { log: *log, outer: *outer, n: *n, inner: *inner };
                self.plain(node, &spec, Softmax::build)
            }
            Kind::Concat { axis } => self.concat(node, *axis),
            Kind::Part { axis, start } => self.part(node, *axis, *start),
            Kind::Select { sources, fill } => self.select(node, sources, *fill),
            Kind::Resize { taps } => self.resize(node, taps),
            Kind::Lrn(p) => self.lrn(node, p),
            Kind::Reduce { fold, outer, n, inner } => {
                let spec = Reduce { fold: *fold, outer: *outer, n: *n, inner: *inner };
                self.plain(node, &spec, Reduce::build)
            }
            Kind::Normalise { n, epsilon, per_row } => {
                let elems: usize = node.out().map_or(0, |y| self.program.shape(y).iter().product());
                let spec =
                    Normalise { rows: elems / (*n).max(1), n: *n, epsilon: *epsilon, per_row: *per_row };
                self.plain(node, &spec, Normalise::build)
            }
            Kind::Copy { offset, dims } => self.copy(node, *offset, dims),
            Kind::Recurrent(spec) => self.recurrent(node, spec),
            Kind::Host(host) => self.host(node, host),
        };
        done.map_err(|stop| match stop {
            Stop::NoKernel(_, why) => Stop::NoKernel(node.origins.clone(), why),
            Stop::Error(e) => Stop::Error(e.at(node.place.clone())),
        })
    }

    // ---- where values lie

    fn slot(&mut self, v: Vx) -> u32 {
        let slot = self.n_slots;
        self.n_slots += 1;
        self.slot_last.push(self.drafts.len());
        let layout = forms::activation(self.program, v);
        self.locs.insert((v, Form::Plain), Loc { home: Home::Slot(slot), offset: 0, layout });
        slot
    }
    fn buffer(&mut self, bytes: usize) -> u32 {
        let now = self.drafts.len();
        self.buffers.push(Buffer { bytes, first: now, last: now, output: None });
        self.buffers.len() as u32 - 1
    }
    /// A constant of `elems` floats that `job` fills before the plan is finished, beside others.
    fn packed_later(
        &mut self,
        elems: usize,
        job: impl FnOnce(&mut [f32]) -> crate::error::Result<()> + Send + 'static,
    ) -> Loc {
        let loc = self.packed(AlignedF32::zeros(0));
        self.packing.push(Packing { at: self.consts.len() - 1, elems, job: Box::new(job) });
        loc
    }
    /// Does the packing that was put off, on as many threads as a run has.
    fn pack(&mut self) -> Result<()> {
        let jobs: Mutex<Vec<Packing>> = Mutex::new(std::mem::take(&mut self.packing));
        let made: Mutex<Vec<(usize, Result<(AlignedF32, Option<Held>)>)>> = Mutex::new(vec![]);
        let watch = Watch::current();
        let work = || {
            loop {
                // the lock must not be held while the job runs
                let next = lock(&jobs).pop();
                let Some(Packing { at, elems, job }) = next else { return };
                let done = watch.within(|| {
                    limits::check_now()?;
                    limits::reserve(elems.saturating_mul(4))?;
                    let mut data = AlignedF32::zeros(elems);
                    let held = limits::hold(elems.saturating_mul(4));
                    job(&mut data)?;
                    Ok((data, held))
                });
                lock(&made).push((at, done));
            }
        };
        std::thread::scope(|s| {
            for _ in 1..self.shared.options.threads {
                s.spawn(work);
            }
            work();
        });
        for (at, data) in made.into_inner().unwrap_or_else(PoisonError::into_inner) {
            let (data, held) = data.at(|| "packing weights")?;
            self.consts[at] = Const::Packed(data);
            self.held.extend(held);
        }
        Ok(())
    }
    fn packed(&mut self, data: AlignedF32) -> Loc {
        self.consts.push(Const::Packed(data));
        Loc { home: Home::Const(self.consts.len() as u32 - 1), offset: 0, layout: None }
    }
    fn const_tensor(&mut self, v: Vx) -> Option<u32> {
        if let Some(c) = self.const_of.get(&v) {
            return Some(*c);
        }
        let tensor = self.program.constant_of(v)?.clone();
        self.consts.push(Const::Value(tensor.into()));
        let at = self.consts.len() as u32 - 1;
        self.const_of.insert(v, at);
        Some(at)
    }
    fn bytes_of(&self, v: Vx) -> Result<usize, Stop> {
        let dense = self.program.val(v).dense.as_ref();
        let bytes = dense.and_then(|(d, s)| d.byte_len(s.iter().product()));
        bytes.ok_or_else(|| no_kernel("a value that is no dense tensor"))
    }
    /// Bytes of a home from a location on that belong to value `v` in this form.
    fn extent(&self, loc: &Loc, v: Vx) -> Result<usize, Stop> {
        match loc.layout {
            Some(l) => Ok(l.bytes()),
            None => self.bytes_of(v),
        }
    }

    // ---- steps

    fn touch(&mut self, loc: &Loc) {
        let now = self.drafts.len();
        match loc.home {
            Home::Slot(s) => self.slot_last[s as usize] = now,
            Home::Buffer(b) => self.buffers[b as usize].last = now,
            Home::Const(_) => {}
        }
    }
    /// A kernel step; the scratch and flag operands, if it has such, get buffers.
    fn run(&mut self, place: &str, kernel: Kernel, mut args: Vec<Loc>) -> Result<(), Stop> {
        use crate::module::Access;
        for (i, operand) in kernel.operands.iter().enumerate() {
            if matches!(operand.access, Access::Scratch | Access::Flag) {
                let buffer = self.buffer(operand.bytes);
                let at = i.min(args.len());
                args.insert(at, Loc { home: Home::Buffer(buffer), offset: 0, layout: None });
            }
        }
        if kernel.operands.len() != args.len() {
            let why = format!("{} takes {} operands, got {}", kernel.name, kernel.operands.len(), args.len());
            return Err(Error::invalid(why).into());
        }
        for (arg, operand) in args.iter().zip(&kernel.operands) {
            self.inside(place, &kernel.name, arg, operand.bytes)?;
        }
        args.iter().for_each(|a| self.touch(a));
        let info = self.kernel_info(place, &kernel);
        self.drafts.push(Draft { info, action: DraftAction::Run { kernel, args } });
        Ok(())
    }
    /// Errors where an operand reaches beyond its buffer: beside it in the arena lies another value.
    fn inside(&self, place: &str, kernel: &str, loc: &Loc, bytes: usize) -> Result<(), Stop> {
        let Home::Buffer(b) = loc.home else { return Ok(()) };
        let room = self.buffers[b as usize].bytes;
        match loc.offset.checked_add(bytes) {
            Some(end) if end <= room => Ok(()),
            _ => {
                let got = format!("{bytes} bytes from {}", loc.offset);
                let wanted = format!("{room} bytes at most");
                Err(Error::mismatch(format!("{place}: operand of {kernel}"), got, wanted).into())
            }
        }
    }
    /// The kernel of a problem: layers that have the same one share its code.
    fn kernel<S: Debug>(&mut self, spec: &S, build: Build<S>) -> Result<Kernel, Stop> {
        self.kernel_for(spec, build, self.shared.options.threads)
    }
    /// The same for a number of threads.
    fn kernel_for<S: Debug>(&mut self, spec: &S, build: Build<S>, threads: usize) -> Result<Kernel, Stop> {
        // what a problem prints is all that it says
        let key = (build as usize, threads, format!("{spec:?}"));
        if let Some(kernel) = self.kernels.get(&key) {
            return Ok(kernel.clone());
        }
        let kernel = built(build(spec, self.code.emitter(), threads))?;
        self.kernels.insert(key, kernel.clone());
        Ok(kernel)
    }
    /// A step that reads and writes row-major tensors.
    fn plain<S: Debug>(&mut self, node: &Node, spec: &S, build: Build<S>) -> Result<(), Stop> {
        let mut args = vec![];
        for v in node.inputs.iter().flatten() {
            args.push(self.need(*v, Form::Plain, &node.place)?);
        }
        for v in node.outputs.iter().flatten() {
            args.push(self.make_in(*v, Form::Plain)?);
        }
        let kernel = self.kernel(spec, build)?;
        self.run(&node.place, kernel, args)
    }
    fn interpret(&mut self, node: &Node, op: &fcc_ir::OpNode, captured_count: usize) -> Result<(), Stop> {
        let mut reads = vec![];
        for v in &node.inputs {
            reads.push(match v {
                Some(v) => Some((self.need(*v, Form::Plain, &node.place)?, *v)),
                None => None,
            });
        }
        reads.iter().flatten().for_each(|(l, _)| self.touch(l));
        let captured = reads.split_off(reads.len().saturating_sub(captured_count));
        let captures = captured.into_iter().flatten().collect();
        let outputs = node.outputs.iter().map(|v| v.map(|v| (self.slot(v), v))).collect();
        let first = node.inputs.len().saturating_sub(captured_count);
        let fixed = |i: usize| {
            node.inputs.get(first + i).copied().flatten().and_then(|v| self.program.constant_of(v).cloned())
        };
        let bodies = control::bodies(op, &fixed, self.shared);
        let mut info = self.interpret_info(node, &op.op_type);
        if !bodies.is_empty() {
            // its bodies are compiled: what is left is to choose and to count
            info.work = super::info::Work::Compute;
        }
        let op = Box::new(op.clone());
        let action = DraftAction::Interpret { op, inputs: reads, captures, outputs, bodies };
        self.drafts.push(Draft { info, action });
        Ok(())
    }
    fn host(&mut self, node: &Node, host: &Host) -> Result<(), Stop> {
        let mut reads = vec![];
        for v in node.inputs.iter().flatten() {
            reads.push((self.need(*v, Form::Plain, &node.place)?, self.bytes_of(*v)?));
        }
        let y = node.out().ok_or_else(|| no_kernel("no output"))?;
        let write = (self.make_in(y, Form::Plain)?, self.bytes_of(y)?);
        self.host_step(&node.place, host.clone(), reads, write);
        Ok(())
    }
    /// A step in Rust; each operand with its bytes.
    fn host_step(&mut self, place: &str, host: Host, reads: Vec<(Loc, usize)>, write: (Loc, usize)) {
        reads.iter().chain([&write]).for_each(|(l, _)| self.touch(l));
        let info = self.host_info(place, &host.name(), &reads, write.1);
        self.drafts.push(Draft { info, action: DraftAction::Host { host, reads, write } });
    }

    fn output(&mut self, index: usize, v: Vx) -> Result<Output, Stop> {
        self.begin_output(v);
        let loc = self.need(v, Form::Plain, "output")?;
        self.touch(&loc);
        Ok(match loc.home {
            Home::Slot(_) | Home::Const(_) => Output::Value(source(self.program, &loc, v)?),
            Home::Buffer(b) => {
                let (dtype, shape) =
                    self.program.val(v).dense.clone().ok_or_else(|| no_kernel("an output"))?;
                let bytes = self.bytes_of(v)?;
                let buffer = &mut self.buffers[b as usize];
                let own = loc.offset == 0 && buffer.bytes == bytes && buffer.output.is_none();
                if own {
                    buffer.output = Some(index);
                }
                Output::Made { arg: Draftless::arg(loc, bytes), dtype, shape, own }
            }
        })
    }
}

/// Places of buffers are known when all steps are.
struct Draftless;
impl Draftless {
    fn arg(loc: Loc, bytes: usize) -> Arg {
        let Loc { home, offset, .. } = loc;
        let at = match home {
            Home::Slot(s) => super::At::Slot(s),
            Home::Const(c) => super::At::Const(c),
            Home::Buffer(b) => super::At::Buffer(b),
        };
        Arg { at, offset, bytes }
    }
}

impl Emit<'_> {
    fn finish(
        mut self,
        inputs: Vec<(usize, u32)>,
        outputs: Vec<Output>,
        tail: Option<Tail>,
    ) -> Result<Plan, Stop> {
        if let Err(e) = self.code.finalize() {
            return Err(Stop::Error(e.into()));
        }
        if let Err(e) = self.pack() {
            return Err(Stop::Error(e));
        }
        let end = self.drafts.len();
        // outputs are handed over when all steps are done, copies between forms that later outputs need included
        for o in &outputs {
            match o {
                Output::Made { arg: Arg { at: super::At::Buffer(b), .. }, .. } => {
                    self.buffers[*b as usize].last = end;
                }
                Output::Value(Src::Slot(s, _)) => self.slot_last[*s as usize] = end,
                Output::Made { .. } | Output::Value(_) => {}
            }
        }
        let requests: Vec<Request> = self
            .buffers
            .iter()
            .map(|b| Request {
                bytes: if b.output.is_some() { 0 } else { b.bytes },
                first: b.first,
                last: b.last,
            })
            .collect();
        let (offsets, arena_bytes) = place(&requests);
        self.note_arena_use();
        let mut info = self.plan_info(&outputs, arena_bytes);
        let resolve = |mut arg: Arg| {
            if let super::At::Buffer(b) = arg.at {
                let buffer = &self.buffers[b as usize];
                match buffer.output {
                    Some(o) => arg.at = super::At::Output(o as u32),
                    None => {
                        arg.at = super::At::Arena;
                        arg.offset += offsets[b as usize];
                    }
                }
            }
            arg
        };
        let mut freed: Vec<Vec<u32>> = vec![vec![]; self.drafts.len() + 1];
        for (s, last) in self.slot_last.iter().enumerate() {
            freed[*last].push(s as u32);
        }
        let mut steps = Vec::with_capacity(self.drafts.len());
        let mut estimate = 0u64;
        for (n, draft) in self.drafts.iter_mut().enumerate() {
            let free = std::mem::take(&mut freed[n]);
            let action = match &mut draft.action {
                DraftAction::Host { host, reads, write } => {
                    let arg = |(l, bytes): &(Loc, usize)| resolve(Draftless::arg(*l, *bytes));
                    let reads = reads.iter().map(arg).collect();
                    Action::Host(HostRun { host: host.clone(), reads, write: arg(write) })
                }
                DraftAction::Interpret { op, inputs, captures, outputs, bodies } => {
                    // subgraphs are told apart by their address: the operator moves, it is not copied
                    let op = std::mem::replace(op, Box::new(op.as_ref().clone()));
                    let src = |(loc, v): &(Loc, Vx)| {
                        source(self.program, loc, *v).map(|s| match s {
                            Src::Bytes(arg, d, s) => Src::Bytes(resolve(arg), d, s),
                            other => other,
                        })
                    };
                    let read = inputs.iter().map(|i| i.as_ref().map(src).transpose()).collect::<Result<_>>();
                    let captured = captures.iter().map(src).collect::<Result<_>>();
                    let (inputs, captures) = match (read, captured) {
                        (Ok(a), Ok(b)) => (a, b),
                        (Err(e), _) | (_, Err(e)) => return Err(Stop::Error(e)),
                    };
                    let promised = |(s, v): &(u32, Vx)| (*s, self.program.val(*v).ty.clone());
                    let outputs = outputs.iter().map(|o| o.as_ref().map(promised)).collect();
                    let bodies = std::mem::take(bodies);
                    Action::Interpret(Interpret { bodies, op, inputs, captures, outputs })
                }
                DraftAction::Run { kernel, args } => {
                    let step = match self.code.step(kernel) {
                        Ok(step) => step,
                        Err(e) => return Err(Stop::Error(e.into())),
                    };
                    let arg = |(l, o): (&Loc, &crate::module::Operand)| resolve(Draftless::arg(*l, o.bytes));
                    let args: Vec<Arg> = args.iter().zip(&kernel.operands).map(arg).collect();
                    estimate = estimate.saturating_add(super::estimated_ns(kernel.flops, &args));
                    let flag = kernel.operands.iter().position(|o| o.access == crate::module::Access::Flag);
                    Action::Run(super::Run { step, args, flag })
                }
            };
            steps.push(Step { info: Arc::new(draft.info.clone()), action, free });
        }
        let outputs: Vec<Output> = outputs
            .into_iter()
            .map(|o| match o {
                Output::Made { arg, dtype, shape, own } => {
                    Output::Made { arg: resolve(arg), dtype, shape, own }
                }
                other => other,
            })
            .collect();
        // every byte that a step may touch lies inside its home: checked here once, for all runs
        let n_slots = self.n_slots as usize;
        let mut given_slots = vec![None; n_slots];
        for (from, slot) in inputs {
            given_slots[slot as usize] = Some(from);
        }
        let small = estimate < super::SPLIT_NS.saturating_mul(steps.len() as u64);
        info.alone = self.alone.unwrap_or(small);
        let plan = Plan {
            interpreted: None,
            alone: info.alone,
            info,
            asked: self.chooser.asked(),
            steps,
            consts: self.consts,
            n_slots,
            given_slots,
            outputs,
            tail,
            arena_bytes,
            frames: Default::default(),
            spares: Default::default(),
            code: Some(self.code),
            held: self.held,
        };
        match plan.check() {
            Ok(()) => Ok(plan),
            Err(e) => Err(Stop::Error(e)),
        }
    }
}

/// What an interpreted step or the caller reads.
fn source(program: &Program, loc: &Loc, v: Vx) -> Result<Src> {
    let val = program.val(v);
    Ok(match loc.home {
        Home::Slot(s) => Src::Slot(s, val.dense.as_ref().map(|d| d.1.clone())),
        Home::Const(c) => Src::Const(c, val.dense.as_ref().map(|d| d.1.clone())),
        Home::Buffer(_) => {
            let (dtype, shape) = val
                .dense
                .clone()
                .ok_or_else(|| Error::invalid(format!("value `{}` is not dense", val.name)))?;
            let bytes = dtype.byte_len(shape.iter().product()).unwrap_or(0);
            Src::Bytes(Draftless::arg(*loc, bytes), dtype, shape)
        }
    })
}

/// This kind of problem has no kernel.
fn no_kernel(why: impl Into<String>) -> Stop {
    Stop::NoKernel(vec![], why.into())
}

/// A kernel that cannot be built for this problem is no error of the model.
fn built(made: crate::error::Result<Kernel>) -> Result<Kernel, Stop> {
    made.map_err(|e| match e {
        crate::error::Error::Unsupported { .. } => no_kernel(e.to_string()),
        other => Stop::Error(other.into()),
    })
}
