//! One module of machine code: assembled kernels and CLIF nests side by side, called through checked steps.

use crate::asm::{self, Assembled, Dot, Form, Isa, Target};
use crate::error::{Error, Result};
use crate::guard;
use crate::pool::{self, Pool};
use cranelift_codegen::Context;
use cranelift_codegen::ir::{AbiParam, Function, Signature, UserFuncName, Value, types::I64};
use cranelift_codegen::isa::{Builder, CallConv, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use cranelift_jit::{ArenaMemoryProvider, JITBuilder, JITModule};
use cranelift_module::{FuncId, Linkage, Module, default_libcall_names};
use fcc_ir::limits::Watch;
use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Address space reserved for one module's code: calls between its functions stay within 32-bit range.
const CODE_RESERVE_BYTES: usize = 256 << 20;
/// The same for a plan of few steps, and for each of its steps: the largest kernels have 200 KiB.
const LEAST_RESERVE_BYTES: usize = 1 << 20;
const KERNEL_RESERVE_BYTES: usize = 1 << 20;

/// Whether a step reads or writes an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Only read.
    Read,
    /// Only written. Bytes that the step does not write keep what they held.
    Write,
    /// Read and written.
    ReadWrite,
    /// Four bytes that are 0 before the step and that any task may set to 1: the result is then not to be used.
    Flag,
    /// Working space: what it held before does not matter and what it holds after means nothing. All tasks share it
    /// (each has its part), so it must hold `bytes` in whole.
    Scratch,
}

/// One buffer that a step touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operand {
    /// Its role: `x`, `w`, `bias`, `residual`, `y`, `scratch`.
    pub name: &'static str,
    /// The step touches bytes `0..bytes` of it.
    pub bytes: usize,
    /// How.
    pub access: Access,
}

impl Operand {
    /// An operand that is only read.
    pub fn read(name: &'static str, bytes: usize) -> Operand {
        Operand { name, bytes, access: Access::Read }
    }
    /// An operand that is only written.
    pub fn write(name: &'static str, bytes: usize) -> Operand {
        Operand { name, bytes, access: Access::Write }
    }
    /// Working space.
    pub fn scratch(bytes: usize) -> Operand {
        Operand { name: "scratch", bytes, access: Access::Scratch }
    }
}

/// A step function and what it needs: everything but the pointers is a constant of the code.
///
/// The machine function is `extern "sysv64" fn(args: *const *mut u8, task: u64)`: `args` has one pointer for each of
/// `operands`, in that order; `task` is in `0..tasks`. Tasks of one step may run at the same time, each at most once.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The function in its module.
    pub func: FuncId,
    /// A short name for profiles, such as `conv 3x3/1 64->64 56x56 avx512 14x2`.
    pub name: String,
    /// The buffers, in the order of `args`.
    pub operands: Vec<Operand>,
    /// Number of tasks.
    pub tasks: usize,
    /// Floating-point operations of one run, counting a multiply-add as two.
    pub flops: u64,
}

/// Emits functions into any Cranelift module: a JIT module here, an object file for ahead-of-time use.
pub struct Emitter<M: Module> {
    /// The module.
    pub module: M,
    isa: Isa,
    tiles: bool,
    dot: Dot,
    context: Context,
    builder: FunctionBuilderContext,
    functions: u32,
    cache: HashMap<String, FuncId>,
    listing: Option<Vec<Listed>>,
}

/// A function as it was emitted, to be looked at.
#[derive(Clone, Debug)]
pub struct Listed {
    /// What it does, such as `brgemm`.
    pub name: String,
    /// Its code.
    pub code: ListedCode,
}

/// The code of a [`Listed`] function.
#[derive(Clone, Debug)]
pub enum ListedCode {
    /// Assembled x86-64 code, with its constants behind.
    Bytes(Vec<u8>),
    /// Cranelift's listing of what it compiled.
    Text(String),
}

/// The Cranelift settings that every function is compiled with. At the baseline the kernels themselves are CLIF, which is
/// worth a better register allocation; above it CLIF is only the loops around them.
pub fn flags(pic: bool, isa: Isa) -> Result<settings::Flags> {
    let mut builder = settings::builder();
    let verifier = if cfg!(debug_assertions) { "true" } else { "false" };
    for (name, value) in [
        ("use_colocated_libcalls", "false"),
        ("is_pic", if pic { "true" } else { "false" }),
        ("opt_level", "none"),
        ("regalloc_algorithm", if isa == Isa::Baseline { "backtracking" } else { "single_pass" }),
        ("enable_verifier", verifier),
    ] {
        builder.set(name, value).map_err(|e| Error::Codegen(format!("cranelift setting {name}: {e}")))?;
    }
    Ok(settings::Flags::new(builder))
}

impl<M: Module> Emitter<M> {
    /// Emits into `module` at level `isa`.
    pub fn new(module: M, isa: Isa) -> Emitter<M> {
        let context = module.make_context();
        let (tiles, isa) = (isa == Isa::Amx, isa.vectors());
        Emitter {
            module,
            isa,
            tiles,
            dot: Dot::detect(isa),
            context,
            builder: FunctionBuilderContext::new(),
            functions: 0,
            cache: HashMap::new(),
            listing: None,
        }
    }

    /// Keeps a listing of everything that is emitted from now on.
    pub fn keep_listing(&mut self) {
        self.listing.get_or_insert_default();
    }

    /// What was emitted since [`Emitter::keep_listing`].
    pub fn listing(&self) -> &[Listed] {
        self.listing.as_deref().unwrap_or_default()
    }

    /// The level of the vectors that kernels are made for, which is below [`Isa::Amx`].
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Whether kernels may use AMX tiles too: the level is [`Isa::Amx`].
    pub fn has_tiles(&self) -> bool {
        self.tiles
    }

    /// How kernels sum products of bytes: the best way of this CPU, unless limited.
    pub fn dot(&self) -> Dot {
        self.dot
    }

    /// Has kernels use no VNNI from here on.
    pub fn without_vnni(&mut self) {
        self.dot = Dot::Words;
    }

    /// A signature of `params` pointer-sized integers and no result.
    pub fn signature(&self, params: usize) -> Signature {
        let mut sig = Signature::new(CallConv::SystemV);
        sig.params = vec![AbiParam::new(I64); params];
        sig
    }

    fn declare(&mut self, what: &str, params: usize) -> Result<FuncId> {
        self.functions += 1;
        let name = format!("{what}_{}", self.functions);
        let sig = self.signature(params);
        Ok(self.module.declare_function(&name, Linkage::Local, &sig)?)
    }

    /// Gives a kernel a name that a linker sees: `void name(void **args, uint64_t task)`.
    pub fn export(&mut self, name: &str, kernel: &Kernel) -> Result<()> {
        use cranelift_codegen::ir::InstBuilder;
        let sig = self.signature(2);
        let id = self.module.declare_function(name, Linkage::Export, &sig)?;
        self.define(name, id, 2, |m, b, args| {
            let step = m.declare_func_in_func(kernel.func, b.func);
            b.ins().call(step, args);
            Ok(())
        })
    }

    /// Adds an assembled function of `params` integer parameters, by the System V convention.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for portable code on a CPU too old for it.
    pub fn assembled(&mut self, what: &str, params: usize, code: &Assembled) -> Result<FuncId> {
        match &code.0 {
            Form::Bytes(bytes) => {
                let id = self.declare(what, params)?;
                if let Some(listing) = &mut self.listing {
                    listing.push(Listed { name: what.into(), code: ListedCode::Bytes(bytes.clone()) });
                }
                self.module.define_function_bytes(id, 64, bytes, &[])?;
                Ok(id)
            }
            Form::Portable(code) => {
                let target = Target::of(self.module.isa())?;
                self.clif(what, params, |_, b, args| {
                    asm::emit(b, args, code, target);
                    Ok(())
                })
            }
        }
    }

    /// The function that `make` emits, made once for each `key`: the key must hold everything that the code depends on.
    pub fn cached(
        &mut self,
        key: String,
        make: impl FnOnce(&mut Emitter<M>) -> Result<FuncId>,
    ) -> Result<FuncId> {
        if let Some(&id) = self.cache.get(&key) {
            return Ok(id);
        }
        let id = make(self)?;
        self.cache.insert(key, id);
        Ok(id)
    }

    /// Adds a CLIF function of `params` integer parameters; `body` emits everything but the final `return`.
    pub fn clif(
        &mut self,
        what: &str,
        params: usize,
        body: impl FnOnce(&mut M, &mut FunctionBuilder, &[Value]) -> Result<()>,
    ) -> Result<FuncId> {
        let id = self.declare(what, params)?;
        self.define(what, id, params, body)?;
        Ok(id)
    }

    fn define(
        &mut self,
        what: &str,
        id: FuncId,
        params: usize,
        body: impl FnOnce(&mut M, &mut FunctionBuilder, &[Value]) -> Result<()>,
    ) -> Result<()> {
        use cranelift_codegen::ir::InstBuilder;
        let sig = self.signature(params);
        self.context.set_disasm(self.listing.is_some());
        self.context.func = Function::with_name_signature(UserFuncName::user(0, id.as_u32()), sig);
        let mut b = FunctionBuilder::new(&mut self.context.func, &mut self.builder);
        let entry = b.create_block();
        b.append_block_params_for_function_params(entry);
        b.switch_to_block(entry);
        let args = b.block_params(entry).to_vec();
        let made = body(&mut self.module, &mut b, &args);
        b.ins().return_(&[]);
        b.seal_all_blocks();
        b.finalize(self.module.target_config());
        let defined = match made {
            Ok(()) => self.module.define_function(id, &mut self.context).map_err(Error::from),
            Err(e) => Err(e),
        };
        if let (Some(listing), Some(compiled)) = (&mut self.listing, self.context.compiled_code())
            && let Some(text) = &compiled.vcode
        {
            listing.push(Listed { name: what.into(), code: ListedCode::Text(text.clone()) });
        }
        self.module.clear_context(&mut self.context);
        defined
    }

    /// Adds a step function: [`Emitter::clif`] with `args` loaded; `body` gets the operand pointers and the task number.
    pub fn step(
        &mut self,
        what: &str,
        operands: usize,
        body: impl FnOnce(&mut M, &mut FunctionBuilder, &[Value], Value) -> Result<()>,
    ) -> Result<FuncId> {
        use cranelift_codegen::ir::{InstBuilder, MemFlagsData};
        self.clif(what, 2, |m, b, args| {
            let flags = MemFlagsData::new().with_notrap();
            let pointers: Vec<Value> =
                (0..operands).map(|i| b.ins().load(I64, flags, args[0], 8 * i as i32)).collect();
            body(m, b, &pointers, args[1])
        })
    }
}

/// A JIT module: emit kernels, [`Code::finalize`], then run them. Its memory is freed when it is dropped.
pub struct Code {
    // `None` only while dropping.
    emitter: Option<Emitter<JITModule>>,
}

// SAFETY: a JITModule is not Send/Sync only because its memory provider is a trait object and its symbol lookups are
// closures. Code holds an ArenaMemoryProvider (Send) and gives no shared access that mutates: every emitting method
// takes `&mut self`, and `run` reads finished code.
unsafe impl Send for Code {}
// SAFETY: as above.
unsafe impl Sync for Code {}

/// Cranelift's description of this CPU, without what [`asm::MAX_ISA`] does not allow.
fn native() -> Result<Builder> {
    let mut target = cranelift_native::builder().map_err(|e| Error::unsupported("machine code", e))?;
    let allowed = Isa::allowed().map_err(|why| Error::unsupported("this level", why))?;
    let above = |feature: &str| match allowed {
        Isa::Baseline => {
            feature.starts_with("has_avx")
                || ["has_fma", "has_bmi1", "has_bmi2", "has_lzcnt"].contains(&feature)
        }
        Isa::Avx2 => feature.starts_with("has_avx512"),
        Isa::Avx512 | Isa::Amx => false,
    };
    let features: Vec<&str> = target.iter().map(|s| s.name).filter(|name| above(name)).collect();
    for feature in features {
        target.set(feature, "false").map_err(|e| Error::Codegen(format!("feature {feature}: {e}")))?;
    }
    Ok(target)
}

/// This CPU at level `isa`, as Cranelift describes it.
fn target_of(isa: Isa) -> Result<(OwnedTargetIsa, Isa)> {
    isa.check().map_err(|why| Error::unsupported("this level", why))?;
    let isa = Isa::within(isa);
    let target = native()?.finish(flags(false, isa)?).map_err(|e| Error::Codegen(e.to_string()))?;
    Ok((target, isa))
}

impl Code {
    /// An empty module at level `isa`, limited to what this CPU has.
    ///
    /// # Errors
    /// [`Isa::Amx`] where it is not available; a [`asm::MAX_ISA`] that names no level.
    pub fn new(isa: Isa) -> Result<Code> {
        let (target, isa) = target_of(isa)?;
        Code::for_target(target, isa)
    }

    /// An empty module of code for `target`, which must describe this CPU or one that it can stand in for.
    pub fn for_target(target: OwnedTargetIsa, isa: Isa) -> Result<Code> {
        Code::reserving(target, isa, CODE_RESERVE_BYTES)
    }

    /// As [`Code::new`], for code of about this many kernels. Code has to lie together, so its address space is
    /// reserved beforehand; a model of many small bodies must not reserve the most for each.
    ///
    /// # Errors
    /// As [`Code::new`]. Emitting errors where `kernels` was far too low.
    pub fn for_kernels(isa: Isa, kernels: usize) -> Result<Code> {
        let (target, isa) = target_of(isa)?;
        let bytes = kernels.saturating_mul(KERNEL_RESERVE_BYTES).saturating_add(LEAST_RESERVE_BYTES);
        Code::reserving(target, isa, bytes.min(CODE_RESERVE_BYTES))
    }

    fn reserving(target: OwnedTargetIsa, isa: Isa, bytes: usize) -> Result<Code> {
        let mut builder = JITBuilder::with_isa(target, default_libcall_names());
        let memory = ArenaMemoryProvider::new_with_size(bytes)
            .map_err(|e| Error::Codegen(format!("reserving code memory: {e}")))?;
        builder.memory_provider(Box::new(memory));
        let module = JITModule::new(builder);
        Ok(Code { emitter: Some(Emitter::new(module, Isa::within(isa))) })
    }

    /// The emitter that kernels are built with.
    pub fn emitter(&mut self) -> &mut Emitter<JITModule> {
        match &mut self.emitter {
            Some(e) => e,
            None => unreachable!("the emitter is taken only by drop"),
        }
    }

    /// The level of the vectors that kernels are made for.
    pub fn isa(&self) -> Isa {
        self.emitter.as_ref().map_or(Isa::Baseline, |e| e.isa)
    }

    /// Makes everything emitted so far callable; more may be emitted afterwards, followed by another call.
    pub fn finalize(&mut self) -> Result<()> {
        Ok(self.emitter().module.finalize_definitions()?)
    }

    /// The finished function of a kernel, for [`Step::run`].
    ///
    /// # Errors
    /// When the module does not know the function.
    pub fn step(&self, kernel: &Kernel) -> Result<Step> {
        let emitter = self.emitter.as_ref().ok_or_else(|| Error::Codegen("module is gone".into()))?;
        let address = emitter.module.get_finalized_function(kernel.func);
        if address.is_null() {
            return Err(Error::Codegen(format!("{} is not finalized", kernel.name)));
        }
        // SAFETY: the function was defined with the signature of `StepFn` (Emitter::step, or assembled with two
        // parameters) and the System V convention, and is finalized.
        let entry = unsafe { std::mem::transmute::<*const u8, StepFn>(address) };
        Ok(Step { entry, name: kernel.name.clone(), tasks: kernel.tasks, operands: kernel.operands.clone() })
    }
}

impl Drop for Code {
    fn drop(&mut self) {
        if let Some(emitter) = self.emitter.take() {
            // SAFETY: Steps are only run through `unsafe fn Step::run`, whose contract is that the Code is alive.
            unsafe { emitter.module.free_memory() }
        }
    }
}

/// The machine function of a step.
#[cfg(target_arch = "x86_64")]
pub type StepFn = unsafe extern "sysv64" fn(args: *const *mut u8, task: u64);
/// The machine function of a step.
#[cfg(not(target_arch = "x86_64"))]
pub type StepFn = unsafe extern "C" fn(args: *const *mut u8, task: u64);

/// A buffer given to a step: a pointer and the number of bytes that may be touched from it.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    /// First byte.
    pub ptr: *mut u8,
    /// Bytes from there.
    pub bytes: usize,
}

/// A callable step.
#[derive(Clone, Debug)]
pub struct Step {
    entry: StepFn,
    name: String,
    tasks: usize,
    operands: Vec<Operand>,
}

impl Step {
    /// Runs all tasks on the pool; returns when all are done.
    ///
    /// # Errors
    /// The first operand that is missing or smaller than the kernel needs; nothing ran then.
    ///
    /// # Safety
    /// The [`Code`] that made this step is alive. Each buffer of `args` is valid for reads, and for writes where the
    /// operand is written, of the bytes it claims; no other thread writes what is read or touches what is written
    /// during the call, and written buffers overlap no other buffer of `args`.
    pub unsafe fn run(&self, pool: &Pool, args: &[Buffer]) -> Result<()> {
        // SAFETY: the caller's promise is the same.
        unsafe { self.run_logged(pool, args, None) }
    }

    /// As [`Step::run`]; notes when each task ran if there is a log.
    ///
    /// # Errors
    /// As [`Step::run`].
    ///
    /// # Safety
    /// As [`Step::run`].
    pub unsafe fn run_logged(&self, pool: &Pool, args: &[Buffer], log: Option<&Tasks>) -> Result<()> {
        let pointers = self.check(args)?;
        // SAFETY: sizes were checked; the rest is the caller's promise.
        unsafe { self.run_checked(Some(pool), pointers.as_slice(), log, &Watch::default()) };
        Ok(())
    }

    /// As [`Step::run`] on guarded copies of the operands (see [`guard`]).
    ///
    /// # Errors
    /// As [`Step::run`], and what the guards found.
    ///
    /// # Safety
    /// As [`Step::run`].
    #[doc(hidden)]
    pub unsafe fn run_guarded(&self, pool: &Pool, args: &[Buffer]) -> Result<()> {
        let pointers = self.check(args)?;
        // SAFETY: sizes were checked; the rest is the caller's promise.
        unsafe { self.run_checked_guarded(Some(pool), pointers.as_slice(), None) }
    }

    /// As [`Step::run_checked`] on guarded copies of the operands.
    ///
    /// # Errors
    /// What the guards found.
    ///
    /// # Safety
    /// As [`Step::run_checked`].
    pub(crate) unsafe fn run_checked_guarded(
        &self,
        pool: Option<&Pool>,
        pointers: &[*mut u8],
        log: Option<&Tasks>,
    ) -> Result<()> {
        // SAFETY: the caller's promise, and that of `twice`: copies have the operands' sizes.
        unsafe {
            // whole runs are compared: none is stopped in the middle
            let whole = &Watch::default();
            guard::twice(&self.name, &self.operands, pointers, |copies| {
                self.run_checked(pool, copies, log, whole);
            })
        }
    }

    /// As [`Step::run_logged`], for a caller that knows the operands' sizes: one pointer for each operand. Without a
    /// pool the calling thread does all tasks. Once a limit is reached no task begins: the caller asks `watch`.
    ///
    /// # Safety
    /// As [`Step::run`], where each pointer has the operand's number of bytes behind it.
    pub(crate) unsafe fn run_checked(
        &self,
        pool: Option<&Pool>,
        pointers: &[*mut u8],
        log: Option<&Tasks>,
        watch: &Watch,
    ) {
        debug_assert_eq!(pointers.len(), self.operands.len());
        let (shared, entry) = (Shared(pointers.as_ptr()), self.entry);
        let run = |task: usize| {
            let shared = &shared;
            // SAFETY: the caller's promise; tasks of one step write disjoint bytes by construction of the kernels.
            let run = || unsafe { entry(shared.0, task as u64) };
            match log {
                Some(log) => log.time(task, run),
                None => run(),
            }
        };
        let unless_stopped = |task: usize| {
            if watch.check().is_ok() {
                run(task);
            }
        };
        let job: &(dyn Fn(usize) + Sync) = if watch.is_none() { &run } else { &unless_stopped };
        match pool.filter(|_| self.tasks > 1) {
            Some(pool) => pool.run(self.tasks, job),
            None => (0..self.tasks).for_each(job),
        }
    }

    fn check(&self, args: &[Buffer]) -> Result<Pointers> {
        if args.len() != self.operands.len() {
            return Err(Error::invalid(
                "step",
                format!("got {} buffers, needs {}", args.len(), self.operands.len()),
            ));
        }
        let mut pointers = Pointers::new(args.len());
        for (i, (arg, &Operand { bytes, .. })) in args.iter().zip(&self.operands).enumerate() {
            if arg.bytes < bytes || (bytes > 0 && arg.ptr.is_null()) {
                return Err(Error::invalid(
                    "step",
                    format!("buffer {i} has {} bytes, the kernel touches {bytes}", arg.bytes),
                ));
            }
            pointers.set(i, arg.ptr);
        }
        Ok(pointers)
    }
}

/// When a task of a step ran.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskSpan {
    /// The task's number in its step.
    pub task: usize,
    /// The thread of the pool: 0 is the one that called.
    pub thread: usize,
    /// Its beginning, from the beginning of the log.
    pub start: Duration,
    /// How long it ran.
    pub time: Duration,
}

/// A log of the tasks of one step, written by the threads that run them.
#[derive(Debug)]
pub struct Tasks {
    begin: Instant,
    spans: Vec<OnceLock<TaskSpan>>,
}

impl Tasks {
    /// A log for a step of `tasks` tasks, whose times count from `begin`.
    pub fn new(begin: Instant, tasks: usize) -> Tasks {
        Tasks { begin, spans: std::iter::repeat_with(OnceLock::new).take(tasks).collect() }
    }
    /// Runs a task and notes when.
    fn time(&self, task: usize, work: impl FnOnce()) {
        let start = Instant::now();
        work();
        let span = TaskSpan {
            task,
            thread: pool::current_thread(),
            start: start.duration_since(self.begin),
            time: start.elapsed(),
        };
        if let Some(place) = self.spans.get(task) {
            let _ = place.set(span);
        }
    }
    /// The tasks that ran, by number.
    pub fn spans(self) -> Vec<TaskSpan> {
        self.spans.into_iter().filter_map(OnceLock::into_inner).collect()
    }
}

/// The pointer array of a call, on the stack for the usual small counts.
enum Pointers {
    Inline([*mut u8; 12], usize),
    Heap(Vec<*mut u8>),
}
impl Pointers {
    fn new(n: usize) -> Pointers {
        if n <= 12 {
            Pointers::Inline([std::ptr::null_mut(); 12], n)
        } else {
            Pointers::Heap(vec![std::ptr::null_mut(); n])
        }
    }
    fn set(&mut self, i: usize, p: *mut u8) {
        match self {
            Pointers::Inline(a, _) => a[i] = p,
            Pointers::Heap(v) => v[i] = p,
        }
    }
    fn as_slice(&self) -> &[*mut u8] {
        match self {
            Pointers::Inline(a, n) => &a[..*n],
            Pointers::Heap(v) => v,
        }
    }
}

struct Shared(*const *mut u8);
// SAFETY: the array behind the pointer outlives `Pool::run`, and is only read.
unsafe impl Sync for Shared {}
