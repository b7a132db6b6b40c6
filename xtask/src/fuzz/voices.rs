//! Cases for another voice: the model, its inputs, what fcc's interpreter computes, and how far rounding explains.
use fcc_ir::Tensor;
use prost::Message;
use std::fs;
use std::path::Path;

/// Writes so many cases from this number on to `folder/NUMBER`: `model.onnx`, `input_I.pb` by the model's inputs that
/// are given, `output_I.pb`, and `bound_I.npy` (float64, as long as the output). A case whose outputs are not all
/// tensors is left out.
///
/// # Errors
/// What cannot be written, with the reason.
pub fn write(folder: &Path, first: u64, cases: u64) -> Result<String, String> {
    let mut written = 0;
    for number in first..first + cases {
        let (case, _) = fcc_testgen::case(number);
        let Ok((outputs, bounds)) = fcc_testgen::expected(&case) else { continue };
        let tensors: Option<Vec<&Tensor>> = outputs.iter().map(|v| v.as_tensor().ok()).collect();
        let Some(tensors) = tensors else { continue };
        let folder = folder.join(number.to_string());
        let said = |e: &dyn std::fmt::Display| format!("{}: {e}", folder.display());
        fs::create_dir_all(&folder).map_err(|e| said(&e))?;
        fs::write(folder.join("model.onnx"), case.model.encode_to_vec()).map_err(|e| said(&e))?;
        let inputs = case.inputs.iter().filter_map(|(n, v)| Some((n, v.as_tensor().ok()?)));
        for (i, (name, t)) in inputs.enumerate() {
            fcc_onnx::write_tensor_pb(folder.join(format!("input_{i}.pb")), name, t).map_err(|e| said(&e))?;
        }
        for (i, t) in tensors.iter().enumerate() {
            fcc_onnx::write_tensor_pb(folder.join(format!("output_{i}.pb")), "", t).map_err(|e| said(&e))?;
            let bound = bounds[i].first().cloned().unwrap_or_default();
            let bound = Tensor::new(vec![bound.len()], bound).map_err(|e| said(&e))?;
            fcc_onnx::write_npy(folder.join(format!("bound_{i}.npy")), &bound).map_err(|e| said(&e))?;
        }
        written += 1;
    }
    Ok(format!("{written} of {cases} cases from number {first} to {}", folder.display()))
}
