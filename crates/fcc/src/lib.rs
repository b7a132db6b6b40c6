//! fcc, a compiler for ONNX models: the library.
//!
//! [`load`] reads a model, [`rewrite`] turns linear layers into convolutions and back, [`save`] writes it,
//! [`compile`] makes machine code of it, and [`interpret`] computes it plainly. What lies below is in the crates
//! `fcc-ir` (graphs, operators), `fcc-onnx` (files), `fcc-rewrite` (rules) and `fcc-jit` (machine code).
//!
//! ```
//! # fn main() -> Result<(), fcc::Error> {
//! # let folder = env!("CARGO_MANIFEST_DIR");
//! let mut model = fcc::load(format!("{folder}/../../fixtures/mnist_cnn.onnx"))?;
//!
//! // its linear layer becomes a 7x7 convolution
//! let report = fcc::rewrite(&mut model, &["linear-to-full-kernel-conv"])?;
//! assert_eq!(report.rewritten("linear-to-full-kernel-conv").count(), 1);
//!
//! let digit = fcc::Tensor::new([1, 1, 28, 28], vec![0.5f32; 784])?;
//! let inputs = fcc::Values::from([("image".to_string(), digit.into())]);
//! let compiled = fcc::compile(&model, &fcc::CompileOptions::default())?;
//! let logits = compiled.run(&inputs)?;
//! assert_eq!(logits["logits"].as_tensor()?.shape(), [1, 10]);
//! # Ok(()) }
//! ```
#![forbid(unsafe_code)]

pub mod cases;
mod choices;
mod engine;
mod error;

use std::path::Path;

pub use choices::{load_choices, save_choices};
pub use engine::{Engine, Runner};
pub use error::Error;
pub use fcc_ir::interp::{Values, run as interpret};
pub use fcc_ir::{CancelToken, Model, Op, RunLimits, Stopped, Tensor, Value};
pub use fcc_jit::tune::tune;
pub use fcc_jit::{Choices, CompiledModel, Isa, Options as CompileOptions, Precision, compile};
pub use fcc_onnx::LoadOptions;
pub use fcc_rewrite::{Registry, Report, pattern, registry};

/// Reads a model from an ONNX file and verifies it. Its weights stay in the mapped file.
///
/// # Errors
/// A file that cannot be read, is not an ONNX model, or holds an invalid one: one line that names the place.
pub fn load(path: impl AsRef<Path>) -> Result<Model, Error> {
    load_with(path, &LoadOptions::default())
}

/// As [`load`], with options: [`LoadOptions::follow_links`] for models in a package cache.
///
/// # Errors
/// As [`load`].
pub fn load_with(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Model, Error> {
    let model = fcc_onnx::load(path, options)?;
    fcc_ir::verify::verify(&model)?;
    Ok(model)
}

/// Writes a model to an ONNX file, which is replaced only once the new one is complete. Beyond 2 GiB the weights go
/// to a file of their own beside it.
///
/// # Errors
/// A target that is a folder or a special file, and what the system says.
pub fn save(model: &Model, path: impl AsRef<Path>) -> Result<(), Error> {
    fcc_onnx::save(model, path.as_ref(), &fcc_onnx::SaveOptions::default())?;
    Ok(())
}

/// Rewrites a model by rules or pipelines in the order given; without any, by those of `fcc rewrite`: clean-up, then
/// linear layers to convolutions. The names are those that `fcc rules` lists.
///
/// # Errors
/// An unknown name, and what shape inference finds wrong with the model.
pub fn rewrite(model: &mut Model, rules: &[&str]) -> Result<Report, Error> {
    rewrite_with(model, &Registry::builtin(), rules)
}

/// As [`rewrite`], by the rules and pipelines of a registry: fcc's with the caller's own, or the caller's alone.
///
/// # Errors
/// As [`rewrite`].
pub fn rewrite_with(model: &mut Model, registry: &Registry, names: &[&str]) -> Result<Report, Error> {
    let passes = registry.passes_of(names)?;
    Ok(fcc_rewrite::run(model, &passes, fcc_rewrite::Options::default())?)
}
