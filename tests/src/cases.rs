//! Test-case folders as ONNX lays them out: `model.onnx`, `test_data_set_*/{input,output}_*.pb`, `tol.json`.
use fcc::Engine;
pub use fcc::cases::{Outcome, Status};
use std::path::{Path, PathBuf};

/// The case folders of a directory, in order of their names. Errors if it cannot be read or holds none.
pub fn list(dir: &Path) -> Result<Vec<PathBuf>, String> {
    fcc::cases::find(&[dir.to_path_buf()])
}

/// Runs a case in the interpreter. Inference must not contradict any value that the run makes.
pub fn interpret(case: &Path) -> Outcome {
    fcc::cases::run(case, Engine::Interpreter, &fcc_jit::Options::with_threads(1))
}
