//! [`compile`] and [`CompiledModel`]: the crate's front door.
use crate::asm::Isa;
use crate::choices::Choices;
use crate::plan::Profile;
use crate::precision::Precision;
use crate::segment::Segment;
use fcc_ir::interp::{Values, by_slot};
use fcc_ir::{Error, Model, Result, RunLimits, Value, ValueInfo, ValueType};
use std::fmt;
use std::sync::Arc;

/// How to compile.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Options {
    /// Threads that one run uses, the calling thread included; 0 means 1.
    pub threads: usize,
    /// How many sets of input shapes stay compiled at a time.
    pub cached_shapes: usize,
    /// Results of constant operators above this many bytes are computed in each run, not kept.
    pub fold_budget_bytes: usize,
    /// The highest instruction set that kernels may use; the machine's own is a limit too. [`Isa::Amx`] is only used if it
    /// is given here.
    pub isa: Isa,
    /// How far kernels may depart from plain f32.
    pub precision: Precision,
    /// Whether products of 8-bit integers may use the VNNI instructions, where the machine has them.
    pub vnni: bool,
    /// Whether operators are compiled at all: without, each is a step of the interpreter.
    pub kernels: bool,
    /// Told which weights have been packed and need not stay in memory as the file has them.
    pub release: Option<Release>,
    /// Choices that were measured: they override the models of the time. Problems are noted for [`crate::tune`] only
    /// with a table, an empty one included.
    pub choices: Option<Arc<Choices>>,
}

/// What is called with bytes of weights that are not needed for now: whoever owns them may let go of their pages, if it
/// can bring them back unasked, as a mapped file can.
#[derive(Clone)]
pub struct Release(Arc<dyn Fn(&[u8]) + Send + Sync>);

impl Release {
    /// Calls this function.
    pub fn new(release: impl Fn(&[u8]) + Send + Sync + 'static) -> Release {
        Release(Arc::new(release))
    }
    pub(crate) fn call(&self, bytes: &[u8]) {
        (self.0)(bytes);
    }
}

impl fmt::Debug for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Release")
    }
}

impl Default for Options {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Options {
            threads,
            cached_shapes: 8,
            fold_budget_bytes: 256 << 20,
            isa: Isa::Avx512,
            precision: Precision::F32,
            vnni: true,
            kernels: true,
            release: None,
            choices: None,
        }
    }
}

impl Options {
    /// The defaults with this number of threads.
    pub fn with_threads(threads: usize) -> Self {
        Options { threads, ..Options::default() }
    }
}

/// A model ready to run. It owns its code, and may be run from several threads at once.
///
/// A run whose input shapes were not seen before compiles for them first; the most recent sets of shapes stay
/// compiled.
pub struct CompiledModel {
    inputs: Vec<ValueInfo>,
    outputs: Vec<String>,
    main: Segment,
}

impl fmt::Debug for CompiledModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompiledModel").field("inputs", &self.inputs).field("outputs", &self.outputs).finish()
    }
}

/// Prepares a model to run. If every input has a fixed shape, the code is made here, else in the first run.
///
/// # Errors
/// What shape inference and code generation find wrong with the model, with its place; [`Isa::Amx`] on a machine that has
/// none.
pub fn compile(model: &Model, options: &Options) -> Result<CompiledModel> {
    options.isa.check().map_err(|why| Error::unsupported(format!("level {}: {why}", options.isa)))?;
    let main = Segment::main(model, options)?;
    let graph = &model.graph;
    let compiled = CompiledModel {
        inputs: graph.inputs.iter().map(|i| i.info.clone()).collect(),
        outputs: graph.outputs.iter().map(|o| o.info.name.clone()).collect(),
        main,
    };
    if let Some(types) = compiled.main.fixed_types() {
        compiled.main.plan(&types)?;
    }
    Ok(compiled)
}

impl CompiledModel {
    /// The declared inputs, overridable initializers included.
    pub fn inputs(&self) -> &[ValueInfo] {
        &self.inputs
    }
    /// The names of the outputs, in order.
    pub fn outputs(&self) -> &[String] {
        &self.outputs
    }
    /// Runs the model. `inputs` by name; overridable initializers may be given too.
    ///
    /// # Errors
    /// A wrong name, type or shape of an input, and what the operators find wrong with their inputs, with the node.
    pub fn run(&self, inputs: &Values) -> Result<Values> {
        self.run_with(inputs, None)
    }
    /// As [`CompiledModel::run`], within limits: a run that reaches one errs with [`Error::Stopped`], and the model runs
    /// again afterwards. What is counted as memory says [`RunLimits`]; weights that an earlier run packed are not.
    ///
    /// # Errors
    /// As [`CompiledModel::run`], and the limit that was reached, at the step.
    pub fn run_within(&self, inputs: &Values, limits: &RunLimits) -> Result<Values> {
        limits.within(|| self.run(inputs))
    }
    /// As [`CompiledModel::run`], with the time of each step, and of each task of each step if `tasks`.
    ///
    /// # Errors
    /// As [`CompiledModel::run`].
    pub fn run_profiled(&self, inputs: &Values, tasks: bool) -> Result<(Values, Profile)> {
        let mut profile = Profile::new(tasks);
        Ok((self.run_with(inputs, Some(&mut profile))?, profile))
    }
    fn run_with(&self, inputs: &Values, profile: Option<&mut Profile>) -> Result<Values> {
        let given: Vec<Option<&Value>> = self.inputs.iter().map(|i| inputs.get(&i.name)).collect();
        let named = given.iter().flatten().count() == inputs.len();
        // types that a plan was made for were checked then
        let outputs = match self.main.at_hand(&given).filter(|_| named) {
            Some(plan) => self.main.run_plan(&plan, &given, profile)?,
            None => {
                by_slot(self.main.graph(), inputs)?;
                self.main.run(&given, profile)?
            }
        };
        Ok(self.outputs.iter().cloned().zip(outputs).collect())
    }
    /// The plan for inputs of these types, by input slot (`None` where an overridable initializer keeps its value):
    /// what `run` would execute. Compiles it if need be.
    ///
    /// # Errors
    /// A type that an input cannot have, and as [`compile`].
    pub fn plan(&self, types: &[Option<ValueType>]) -> Result<Arc<crate::plan::Plan>> {
        if types.len() != self.inputs.len() {
            return Err(Error::mismatch("number of input types", types.len(), self.inputs.len()));
        }
        for (info, ty) in self.inputs.iter().zip(types) {
            if let Some(ty) = ty.as_ref().filter(|ty| !fits_declared(&info.ty, ty)) {
                return Err(Error::mismatch(format!("input `{}`", info.name), ty, &info.ty));
            }
        }
        self.main.plan(types)
    }
    /// The plan that a run on these inputs executes.
    ///
    /// # Errors
    /// As [`CompiledModel::run`], before anything is computed.
    pub fn plan_for(&self, inputs: &Values) -> Result<Arc<crate::plan::Plan>> {
        let given = by_slot(self.main.graph(), inputs)?;
        let types: Vec<_> = given.iter().map(|v| v.as_ref().map(Value::value_type)).collect();
        self.main.plan(&types)
    }
}

/// As [`by_slot`] judges a value.
fn fits_declared(declared: &ValueType, ty: &ValueType) -> bool {
    declared.merge(ty).is_ok() || matches!(declared, ValueType::SparseTensor(_))
}
