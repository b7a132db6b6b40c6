//! Why a command did not do its work, and the exit code for it.
use std::fmt;
use std::path::Path;
use std::process::ExitCode;

/// Why a command stopped.
#[derive(Debug)]
pub enum Failure {
    /// A check or comparison failed; what differs has been printed. Exit code 1.
    Check,
    /// Bad usage or bad input: one line. Exit code 2.
    Input(String),
    /// Nobody reads the output any more: no error. Exit code 0.
    Closed,
}

impl Failure {
    /// An [`Failure::Input`] from anything printable.
    pub fn input(message: impl fmt::Display) -> Self {
        Failure::Input(message.to_string())
    }
    /// Puts the error at a file.
    pub fn in_file(self, path: &Path) -> Self {
        match self {
            Failure::Input(message) => Failure::Input(format!("{}: {message}", path.display())),
            other => other,
        }
    }
    /// Says it, and gives the exit code.
    pub fn report(&self) -> ExitCode {
        match self {
            Failure::Check => ExitCode::from(1),
            Failure::Closed => ExitCode::SUCCESS,
            Failure::Input(message) => {
                super::out::complain(message);
                ExitCode::from(2)
            }
        }
    }
}

impl From<fcc_ir::Error> for Failure {
    fn from(error: fcc_ir::Error) -> Self {
        Failure::input(error)
    }
}

impl From<fcc_onnx::Error> for Failure {
    fn from(error: fcc_onnx::Error) -> Self {
        Failure::input(error)
    }
}

impl From<std::io::Error> for Failure {
    /// An error of writing to standard output.
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::BrokenPipe => Failure::Closed,
            _ => Failure::input(format!("standard output: {error}")),
        }
    }
}
