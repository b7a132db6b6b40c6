//! fcc-jit: the code generator and runtime of fcc.
//!
//! [`compile`] takes a model; [`CompiledModel::run`] specialises it by the shapes of its inputs and runs the
//! resulting [`Plan`]. What the code generator has no kernel for runs in the interpreter, as a step of the same plan.
//!
//! The lower half goes from plain problem structs to machine code and knows nothing of graphs: [`module`] owns code,
//! [`asm`] writes wide vector code, [`kernels`] makes step functions, [`pool`] runs them on threads.

pub mod aligned;
pub mod asm;
pub mod choices;
mod compiled;
mod declined;
pub mod error;
pub mod floats;
#[doc(hidden)]
pub mod guard;
mod host;
pub mod kernels;
mod lower;
pub mod module;
pub mod peak;
mod plan;
pub mod pool;
mod precision;
mod segment;
mod splice;
pub mod tune;

pub use asm::{Isa, MAX_ISA};
pub use choices::Choices;
pub use compiled::{CompiledModel, Options, Release, compile};
pub use declined::Declined;
pub use module::TaskSpan;
pub use plan::{NodeInfo, Plan, PlanInfo, Profile, ProfiledStep, StepInfo, Work};
pub use precision::Precision;
