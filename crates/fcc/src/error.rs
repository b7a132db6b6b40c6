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

impl Error {
    /// The limit that was reached, where that is why something ended ([`RunLimits`](crate::RunLimits)).
    pub fn stopped(&self) -> Option<fcc_ir::Stopped> {
        match self {
            Error::Model(e) => e.stopped(),
            Error::File(_) => None,
        }
    }
    /// Whether a limit was reached: nothing is wrong with the model.
    pub fn is_stopped(&self) -> bool {
        self.stopped().is_some()
    }
}
