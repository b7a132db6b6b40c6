//! The two ways to compute a model, behind one call.
use fcc_ir::interp::{self, Values};
use fcc_ir::{Model, Result};
use fcc_jit::CompiledModel;

/// Who computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// Compiled machine code; operators without a kernel run in the interpreter, as steps of the same plan.
    #[default]
    Jit,
    /// The reference: plain loops, exact to the ONNX text, slow.
    Interpreter,
}

/// A model ready to run in one of the engines.
#[derive(Debug)]
pub enum Runner<'m> {
    /// Compiled.
    Jit(Box<CompiledModel>),
    /// Read by the interpreter in each run.
    Interpreter(&'m Model),
}

impl Engine {
    /// Prepares a model. `threads` is for the compiled code; the interpreter uses one.
    ///
    /// # Errors
    /// What the code generator finds wrong with the model, with its place.
    pub fn prepare<'m>(self, model: &'m Model, options: &fcc_jit::Options) -> Result<Runner<'m>> {
        match self {
            Engine::Jit => Ok(Runner::Jit(Box::new(fcc_jit::compile(model, options)?))),
            Engine::Interpreter => Ok(Runner::Interpreter(model)),
        }
    }
}

impl Runner<'_> {
    /// Runs the model. `inputs` by name; overridable initializers may be given too.
    ///
    /// # Errors
    /// A wrong name, type or shape of an input, and what the operators find wrong with their inputs, with the node.
    pub fn run(&self, inputs: &Values) -> Result<Values> {
        match self {
            Runner::Jit(compiled) => compiled.run(inputs),
            Runner::Interpreter(model) => interp::run(model, inputs),
        }
    }
}
