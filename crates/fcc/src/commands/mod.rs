//! One module for each subcommand, and what they share.
pub mod bench;
mod common;
pub mod completions;
pub mod explain;
mod failure;
mod inputs;
mod out;
pub mod print;
mod progress;
pub mod rewrite;
pub mod rules;
pub mod run;
pub mod summary;
pub mod test;

pub use failure::Failure;

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

/// What `--threads` takes.
#[derive(Debug, Clone, clap::Args)]
pub struct ThreadsArg {
    /// Threads of the compiled code [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

impl ThreadsArg {
    fn options(&self) -> fcc_jit::Options {
        self.threads.map_or_else(fcc_jit::Options::default, |n| fcc_jit::Options::with_threads(n.into()))
    }
}
