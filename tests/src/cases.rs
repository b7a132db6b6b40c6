//! Test-case folders as ONNX lays them out: `model.onnx`, `test_data_set_*/{input,output}_*.pb`, `tol.json`.
use fcc::Engine;
pub use fcc::cases::{Outcome, Status};
use std::path::{Path, PathBuf};

/// The case folders of a directory, in order of their names. Errors if it cannot be read or holds none.
pub fn list(dir: &Path) -> Result<Vec<PathBuf>, String> {
    fcc::cases::find(&[dir.to_path_buf()])
}

/// The kinds of the ONNX backend suite that a build without optimisation gets through in reasonable time: all but `real`.
const KINDS: [&str; 4] = ["node", "simple", "pytorch-converted", "pytorch-operator"];

/// The backend cases that `scripts/backend_cases.py` wrote to `FCC_CACHE` (by default `.cache`). Panics where there are none.
pub fn backend() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache");
    let cache = std::env::var_os("FCC_CACHE").map_or(root, PathBuf::from);
    let cases = |kind: &str| list(&cache.join(kind)).expect("cases written by scripts/backend_cases.py");
    KINDS.into_iter().flat_map(cases).collect()
}

/// Runs a case in the interpreter. Inference must not contradict any value that the run makes.
pub fn interpret(case: &Path) -> Outcome {
    fcc::cases::run(case, Engine::Interpreter, &fcc_jit::Options::with_threads(1))
}
