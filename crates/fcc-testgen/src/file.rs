//! Cases as files: a model in the text form, and beside it a model without nodes that holds the inputs.
use crate::case::{Case, tensor_of};
use crate::pb;
use fcc_ir::text::{PrintOptions, parse, print};
use fcc_onnx::proto::{GraphProto, ModelProto, OperatorSetIdProto};
use prost::Message;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the inputs of a model at this path stand.
fn inputs_of(path: &Path) -> PathBuf {
    path.with_extension("inputs.onnxtxt")
}

/// Writes a case: `path` ends in `.onnxtxt`, or in `.onnx` where the text form cannot say the model.
///
/// # Errors
/// What cannot be written, with the reason.
pub fn write(case: &Case, path: &Path) -> Result<(), String> {
    let bytes = case.model.encode_to_vec();
    let text = |bytes: Vec<u8>| {
        let model = fcc_onnx::load_bytes(bytes).map_err(|e| e.to_string())?;
        Ok::<_, String>(print(&model, &PrintOptions::whole()))
    };
    let put =
        |path: &Path, bytes: &[u8]| fs::write(path, bytes).map_err(|e| format!("{}: {e}", path.display()));
    match text(bytes.clone()) {
        Ok(text) if parse(&text).is_ok() => put(path, text.as_bytes())?,
        _ => put(&path.with_extension("onnx"), &bytes)?,
    }
    let mut graph = GraphProto { name: Some("inputs".into()), ..Default::default() };
    for (name, value) in &case.inputs {
        let tensor = value.as_tensor().map_err(|e| e.to_string())?;
        graph.initializer.push(pb::tensor(name, tensor));
        graph.output.push(pb::info(name, &value.value_type()));
    }
    let opset = OperatorSetIdProto { domain: None, version: Some(17) };
    let held = ModelProto {
        ir_version: Some(10),
        opset_import: vec![opset],
        graph: Some(graph),
        ..Default::default()
    };
    put(&inputs_of(path), text(held.encode_to_vec())?.as_bytes())
}

/// Reads what [`write()`] wrote; a model without a file of inputs takes none.
///
/// # Errors
/// What cannot be read, with the reason.
pub fn read(path: &Path) -> Result<Case, String> {
    let proto = |path: &Path| -> Result<ModelProto, String> {
        let bytes = fs::read(path).map_err(|e| format!("{}: {e}", path.display()))?;
        let bytes = match path.extension().is_some_and(|e| e == "onnxtxt") {
            true => {
                let text = String::from_utf8(bytes).map_err(|e| format!("{}: {e}", path.display()))?;
                let model = parse(&text).map_err(|e| format!("{}: {e}", path.display()))?;
                fcc_onnx::to_bytes(&model).map_err(|e| e.to_string())?
            }
            false => bytes,
        };
        ModelProto::decode(bytes.as_slice()).map_err(|e| format!("{}: {e}", path.display()))
    };
    let mut case = Case { model: proto(path)?, inputs: Default::default() };
    let inputs = inputs_of(path);
    if inputs.exists() {
        for t in proto(&inputs)?.graph.unwrap_or_default().initializer {
            case.inputs.insert(t.name().into(), tensor_of(&t)?.into());
        }
    }
    Ok(case)
}
