//! One module for each subcommand, and what they share.
mod arrays;
pub mod bench;
mod common;
mod compile;
pub mod completions;
pub mod explain;
mod failure;
mod files;
mod inputs;
mod interpreted;
mod limits;
mod out;
pub mod print;
pub mod profile;
mod progress;
pub mod rewrite;
pub mod rules;
pub mod run;
mod shape;
mod steps;
pub mod summary;
pub mod test;
mod tune;

use compile::CompileArgs;
pub use failure::Failure;
use limits::LimitArgs;
use tune::TuneArgs;

/// What `--engine` takes.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
pub enum EngineArg {
    /// Compiled machine code
    #[default]
    Jit,
    /// The reference interpreter: slow, and plain loops to the letter of the ONNX text
    Interpreter,
}

impl From<EngineArg> for fcc::Engine {
    fn from(arg: EngineArg) -> Self {
        match arg {
            EngineArg::Jit => fcc::Engine::Jit,
            EngineArg::Interpreter => fcc::Engine::Interpreter,
        }
    }
}
