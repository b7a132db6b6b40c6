//! fcc-jit: the code generator and runtime of fcc.
//!
//! [`compile`] takes a model; [`CompiledModel::run`] specialises it by the shapes of its inputs and runs the
//! resulting [`Plan`]. What the code generator has no kernel for runs in the interpreter, as a step of the same plan.

mod compiled;
mod plan;
mod segment;

pub use compiled::{CompiledModel, Options, compile};
pub use plan::Plan;
