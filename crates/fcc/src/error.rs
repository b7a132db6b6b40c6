//! The facade's error.

/// What went wrong: one line that names the place, what was got and what was wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// With a model, a value or a run.
    #[error(transparent)]
    Model(#[from] fcc_ir::Error),
    /// With a file.
    #[error(transparent)]
    File(#[from] fcc_onnx::Error),
}
