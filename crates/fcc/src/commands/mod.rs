//! One module for each subcommand. Exit codes: 0 done, 1 a check or comparison failed, 2 bad usage or bad input.
pub mod test;

/// What `--engine` takes.
#[derive(Debug, Clone, Copy, Default, clap::ValueEnum)]
pub enum EngineArg {
    /// Compiled machine code.
    #[default]
    Jit,
    /// The reference interpreter.
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
