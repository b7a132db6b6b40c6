//! ONNX test-case folders: `model.onnx`, `test_data_set_*/{input,output}_*.pb`, and `tol.json` with rtol and atol.
use crate::engine::Engine;
use fcc_ir::compare::{Tolerance, close};
use fcc_ir::infer::infer;
use fcc_ir::interp::{Values, run_observed};
use fcc_ir::{Model, NodeKind, Value, ValueInfo};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

/// How a case ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Every output is as expected.
    Passed,
    /// An output differs, or the model was refused.
    Failed,
    /// The model is valid, but fcc says that it does not compute it.
    Unsupported,
    /// A limit of the run was reached ([`RunLimits`](fcc_ir::RunLimits)): nothing is known of the case.
    Stopped,
}

/// A case and how it ended. Field names are stable: `fcc test --json` writes this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The folder's name.
    pub name: String,
    /// How it ended.
    pub status: Status,
    /// The first difference or the error; empty if it passed.
    pub reason: String,
}

/// What ONNX's own backend tests allow, for a folder without `tol.json`.
const ONNX_TESTS: Tolerance = Tolerance { rtol: 1e-3, atol: 1e-7 };

/// Why a case did not pass.
struct Stop(Status, String);

impl From<fcc_ir::Error> for Stop {
    fn from(error: fcc_ir::Error) -> Self {
        let status = match error.root() {
            fcc_ir::Error::Stopped(_) => Status::Stopped,
            fcc_ir::Error::Unsupported(_) => Status::Unsupported,
            _ => Status::Failed,
        };
        Stop(status, error.to_string())
    }
}

impl From<fcc_onnx::Error> for Stop {
    fn from(error: fcc_onnx::Error) -> Self {
        let unsupported = error.kind() == fcc_onnx::ErrorKind::Unsupported;
        Stop(if unsupported { Status::Unsupported } else { Status::Failed }, error.to_string())
    }
}

fn failed(reason: impl fmt::Display) -> Stop {
    Stop(Status::Failed, reason.to_string())
}

/// The case folders at or directly below the given ones, in the order of the names: a folder with a `model.onnx` is a
/// case, any other holds cases.
///
/// # Errors
/// A folder that cannot be read, or holds no case.
pub fn find(folders: &[PathBuf]) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for folder in folders {
        if folder.join("model.onnx").is_file() {
            found.push(folder.clone());
            continue;
        }
        let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
        let mut below: Vec<PathBuf> = entries
            .filter_map(|entry| entry.ok().map(|e| e.path()))
            .filter(|path| path.join("model.onnx").is_file())
            .collect();
        if below.is_empty() {
            return Err(format!("{}: no model.onnx in it or in a folder of it", folder.display()));
        }
        below.sort();
        found.append(&mut below);
    }
    Ok(found)
}

/// Runs one case. In the interpreter, inference must not contradict any value either.
/// Never panics: a panic inside is a failed case.
pub fn run(folder: &Path, engine: Engine, options: &fcc_jit::Options) -> Outcome {
    run_with(folder, engine, options, &fcc_onnx::LoadOptions::default())
}

/// As [`run`]; `load` says how the model is read.
pub fn run_with(
    folder: &Path,
    engine: Engine,
    options: &fcc_jit::Options,
    load: &fcc_onnx::LoadOptions,
) -> Outcome {
    let name =
        folder.file_name().map_or_else(|| folder.display().to_string(), |n| n.to_string_lossy().into_owned());
    let ended = catch_unwind(AssertUnwindSafe(|| check(folder, engine, options, load)));
    let (status, reason) = match ended {
        Ok(Ok(())) => (Status::Passed, String::new()),
        Ok(Err(Stop(status, reason))) => (status, reason),
        Err(panic) => (Status::Failed, format!("panicked: {}", panic_message(&*panic))),
    };
    Outcome { name, status, reason }
}

fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message").to_string()
}

fn check(
    folder: &Path,
    engine: Engine,
    options: &fcc_jit::Options,
    load: &fcc_onnx::LoadOptions,
) -> Result<(), Stop> {
    let mut model = fcc_onnx::load(folder.join("model.onnx"), load)?;
    fcc_ir::verify::verify(&model)?;
    let tolerance = tolerance(folder)?;
    let sets = data_sets(folder)?;
    if sets.is_empty() {
        return Err(failed("no folder test_data_set_*"));
    }
    let inputs: Vec<ValueInfo> = model
        .graph
        .inputs
        .iter()
        .filter(|i| matches!(model.graph.node(i.node).kind, NodeKind::Input))
        .map(|i| i.info.clone())
        .collect();
    let outputs: Vec<ValueInfo> = model.graph.outputs.iter().map(|o| o.info.clone()).collect();
    let compiled = match engine {
        Engine::Jit => Some(fcc_jit::compile(&model, options)?),
        Engine::Interpreter => {
            let functions = model.functions.clone();
            infer(&mut model.graph, &functions)?;
            None
        }
    };
    for set in sets {
        let given = read_values(&set, "input", &inputs)?;
        let want = read_values(&set, "output", &outputs)?;
        if want.is_empty() {
            return Err(failed(format!("{}: no output_*.pb", set.display())));
        }
        let got = match &compiled {
            Some(compiled) => compiled.run(&given)?,
            None => interpret(&model, &given)?,
        };
        for (name, value) in &want {
            let computed = got.get(name).ok_or_else(|| failed(format!("output `{name}`: not computed")))?;
            close(computed, value, tolerance).map_err(|e| failed(format!("output `{name}`: {e}")))?;
        }
    }
    Ok(())
}

/// Runs the interpreter; what inference said of a value must not contradict the value.
fn interpret(model: &Model, given: &Values) -> Result<Values, Stop> {
    let mut clash = None;
    let mut observer = |id, name: &str, value: &Value| {
        let (inferred, found) = (model.graph.ty(id), value.value_type());
        if clash.is_none() && inferred.merge(&found).is_err() {
            clash = Some(format!("value `{name}`: inferred {inferred}, computed {found}"));
        }
    };
    let got = run_observed(model, given, &mut observer)?;
    clash.map_or(Ok(got), |text| Err(failed(text)))
}

fn tolerance(folder: &Path) -> Result<Tolerance, Stop> {
    #[derive(Deserialize)]
    struct File {
        rtol: f64,
        atol: f64,
    }
    let path = folder.join("tol.json");
    if !path.is_file() {
        return Ok(ONNX_TESTS);
    }
    let text = std::fs::read_to_string(&path).map_err(|e| failed(format!("{}: {e}", path.display())))?;
    let File { rtol, atol } =
        serde_json::from_str(&text).map_err(|e| failed(format!("{}: {e}", path.display())))?;
    Ok(Tolerance { rtol, atol })
}

fn data_sets(folder: &Path) -> Result<Vec<PathBuf>, Stop> {
    let entries = std::fs::read_dir(folder).map_err(|e| failed(format!("{}: {e}", folder.display())))?;
    let mut sets: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|p| {
            p.is_dir() && p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("test_data_set_"))
        })
        .collect();
    sets.sort();
    Ok(sets)
}

/// The values of `KIND_0.pb`, `KIND_1.pb`, ... by the names that the graph declares; a missing file gives no value.
fn read_values(set: &Path, kind: &str, declared: &[ValueInfo]) -> Result<Values, Stop> {
    let mut values = Values::new();
    for (index, info) in declared.iter().enumerate() {
        let path = set.join(format!("{kind}_{index}.pb"));
        if path.is_file() {
            let value: Value = fcc_onnx::read_value_pb(&path, &info.ty)?;
            values.insert(info.name.clone(), value);
        }
    }
    Ok(values)
}
