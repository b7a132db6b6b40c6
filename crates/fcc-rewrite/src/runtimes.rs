//! What other runtimes implement of what ONNX defines: a rewritten model must run where the original runs.
use fcc_ir::{DType, OpNode};

/// Whether ONNX Runtime's CPU provider has a kernel for an operator that makes this element type, for the operators
/// that rules make. Found by asking release 1.31 for each operator, opset and element type.
///
/// `float16` counts as implemented where ONNX Runtime puts Casts to `float` around the node, which needs the Cast of
/// opset 6.
pub(crate) fn has_kernel(op: &OpNode, dtype: DType) -> bool {
    let name = op.onnx_name();
    let first_opset = match name {
        "Add" | "Div" | "Gemm" | "Mul" | "Sub" => 7,
        "Sum" => 6,
        "Concat" => 4,
        "Pad" => 2,
        _ => 1,
    };
    let moves = matches!(
        name,
        "Flatten"
            | "Gather"
            | "Reshape"
            | "Shape"
            | "Slice"
            | "Squeeze"
            | "Transpose"
            | "Unsqueeze"
            | "Concat"
    );
    op.version >= first_opset
        && match dtype {
            DType::F64 => name != "Conv",
            DType::F16 => moves || op.version >= 6,
            DType::BF16 => moves,
            _ => true,
        }
}
