//! Test-case folders as ONNX lays them out: `model.onnx`, `test_data_set_*/{input,output}_*.pb`, `tol.json`.
use fcc_ir::compare::{Tolerance, close};
use fcc_ir::infer::infer;
use fcc_ir::interp::{Values, run_observed};
use fcc_ir::{Model, ValueInfo};
use fcc_onnx::{LoadOptions, load, read_value_pb};
use std::path::{Path, PathBuf};

/// What became of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Every output of every data set is as it should be.
    Passed,
    /// fcc says itself that it does not compute this, and why.
    Unsupported(String),
    /// Anything else.
    Failed(String),
}

#[derive(serde::Deserialize)]
struct Tol {
    rtol: f64,
    atol: f64,
}

/// The case folders of a directory, in order of their names. Errors if it cannot be read.
pub fn list(dir: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut cases = vec![];
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.join("model.onnx").is_file() {
            cases.push(path);
        }
    }
    cases.sort();
    Ok(cases)
}

/// Runs a case in the interpreter. Inference must not contradict any value that the run makes.
pub fn interpret(case: &Path) -> Outcome {
    match check(case) {
        Ok(()) => Outcome::Passed,
        Err(why) if why.contains("unsupported") => Outcome::Unsupported(why),
        Err(why) => Outcome::Failed(why),
    }
}

fn check(case: &Path) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    let mut model = load(case.join("model.onnx"), &LoadOptions::default()).map_err(|e| text(&e))?;
    let tolerance = tolerance(case)?;
    let functions = model.functions.clone();
    infer(&mut model.graph, &functions).map_err(|e| format!("inference: {e}"))?;
    let mut sets: Vec<PathBuf> = std::fs::read_dir(case)
        .map_err(|e| text(&e))?
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("test_data_set_")))
        .collect();
    sets.sort();
    if sets.is_empty() {
        return Err("no test_data_set_*".into());
    }
    sets.iter().try_for_each(|set| check_set(&model, set, tolerance))
}

fn tolerance(case: &Path) -> Result<Tolerance, String> {
    let Ok(json) = std::fs::read(case.join("tol.json")) else {
        return Ok(Tolerance { rtol: 1e-3, atol: 1e-7 });
    };
    let Tol { rtol, atol } = serde_json::from_slice(&json).map_err(|e| format!("tol.json: {e}"))?;
    Ok(Tolerance { rtol, atol })
}

fn check_set(model: &Model, set: &Path, tolerance: Tolerance) -> Result<(), String> {
    let infos: Vec<&ValueInfo> = model
        .graph
        .inputs
        .iter()
        .filter(|i| matches!(model.graph.node(i.node).kind, fcc_ir::NodeKind::Input))
        .map(|i| &i.info)
        .collect();
    let outputs: Vec<&ValueInfo> = model.graph.outputs.iter().map(|o| &o.info).collect();
    let (inputs, wanted) = (read(set, "input", &infos)?, read(set, "output", &outputs)?);
    let mut clash = None;
    let mut observer = |id, name: &str, value: &fcc_ir::Value| {
        let inferred = model.graph.ty(id);
        if let Err(why) = inferred.merge(&value.value_type())
            && clash.is_none()
        {
            clash = Some(format!("inference of `{name}`: {inferred} for {}: {why}", value.value_type()));
        }
    };
    let got = run_observed(model, &inputs, &mut observer).map_err(|e| e.to_string())?;
    if let Some(clash) = clash {
        return Err(clash);
    }
    for (name, want) in &wanted {
        let value = got.get(name).ok_or_else(|| format!("no output `{name}`"))?;
        close(value, want, tolerance).map_err(|e| format!("output `{name}`: {e}"))?;
    }
    Ok(())
}

/// The values of the files `input_0.pb`, … in the order of the declarations; a missing file is a value not given.
fn read(set: &Path, kind: &str, infos: &[&ValueInfo]) -> Result<Values, String> {
    let mut values = Values::new();
    for (i, info) in infos.iter().enumerate() {
        let path = set.join(format!("{kind}_{i}.pb"));
        if path.is_file() {
            let value = read_value_pb(&path, &info.ty).map_err(|e| e.to_string())?;
            values.insert(info.name.clone(), value);
        }
    }
    if values.is_empty() && kind == "output" {
        return Err(format!("{}: no outputs", set.display()));
    }
    Ok(values)
}
