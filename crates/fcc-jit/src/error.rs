//! The one error type of code generation.

/// Why a kernel could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No kernel of this crate computes this problem on this machine: run the step in the interpreter.
    #[error("no kernel for {what}: {why}")]
    Unsupported {
        /// The kind of kernel that was asked for, such as `conv`.
        what: &'static str,
        /// What was needed and what was found.
        why: String,
    },
    /// The problem contradicts itself, or does not fit in memory.
    #[error("{what}: {why}")]
    Invalid {
        /// The kind of kernel that was asked for, such as `conv`.
        what: &'static str,
        /// What was needed and what was found.
        why: String,
    },
    /// The assembler or Cranelift refused what this crate gave it: a bug of this crate.
    #[error("code generation failed: {0}")]
    Codegen(String),
}

/// Result of code generation.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn unsupported(what: &'static str, why: impl Into<String>) -> Error {
        Error::Unsupported { what, why: why.into() }
    }
    pub(crate) fn invalid(what: &'static str, why: impl Into<String>) -> Error {
        Error::Invalid { what, why: why.into() }
    }
}

impl From<iced_x86::IcedError> for Error {
    fn from(e: iced_x86::IcedError) -> Error {
        Error::Codegen(format!("assembler: {e}"))
    }
}

impl From<cranelift_module::ModuleError> for Error {
    fn from(e: cranelift_module::ModuleError) -> Error {
        Error::Codegen(format!("cranelift: {e:?}"))
    }
}

impl From<Error> for fcc_ir::Error {
    fn from(e: Error) -> fcc_ir::Error {
        match e {
            Error::Unsupported { .. } => fcc_ir::Error::unsupported(e.to_string()),
            other => fcc_ir::Error::invalid(other.to_string()),
        }
    }
}
