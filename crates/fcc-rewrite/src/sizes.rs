//! What bounds the error of a value: how many products its elements are the sum of, and how large these are.
use crate::side::Known;
use crate::verify::as_f64s;
use fcc_ir::interp::eval_op;
use fcc_ir::{DType, Function, OpNode, Tensor, Value};

/// How many products a sum of this node has.
pub(crate) fn terms(op: &OpNode, inputs: &[Option<Known>]) -> u64 {
    let shape = |i: usize| -> Vec<usize> {
        let value = inputs.get(i).and_then(Option::as_ref).map(|k| &k.value);
        value.and_then(|v| v.as_tensor().ok()).map(|t| t.shape().to_vec()).unwrap_or_default()
    };
    let n = match op.onnx_name() {
        "Gemm" if op.attrs.flag("transA", false).unwrap_or(false) => shape(0).first().copied().unwrap_or(1),
        "MatMul" | "Gemm" => shape(0).last().copied().unwrap_or(1),
        "Conv" => shape(1).iter().skip(1).product(),
        "Sum" | "Mean" | "Concat" => inputs.len(),
        _ if op.attrs.graphs().next().is_some() => 1 << 14,
        _ => 4,
    };
    n as u64 + 1
}

/// Operators that give the sum of absolute products when they are given absolute values.
const HOMOGENEOUS: &[&str] = &[
    "Add",
    "AveragePool",
    "Concat",
    "Conv",
    "Dropout",
    "Expand",
    "Flatten",
    "Gather",
    "Gemm",
    "GlobalAveragePool",
    "Identity",
    "MatMul",
    "Max",
    "MaxPool",
    "Mean",
    "Mul",
    "Pad",
    "Relu",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Sub",
    "Sum",
    "Tile",
    "Transpose",
    "Unsqueeze",
];

/// For each element of each output the sum of absolute products behind it.
pub(crate) fn sizes(
    op: &OpNode,
    functions: &[Function],
    inputs: &[Option<Known>],
    wanted: &[bool],
    values: &[Value],
) -> Vec<Vec<f64>> {
    if HOMOGENEOUS.contains(&op.onnx_name())
        && let Some(sizes) = homogeneous(op, functions, inputs, wanted)
    {
        return sizes;
    }
    // other functions: at most 4 times the error of what they read, on elements of the same place where the shapes
    // are the same, else of the largest
    let largest = inputs.iter().flatten().flat_map(|k| k.size().into_owned()).fold(0.0f64, f64::max);
    values
        .iter()
        .map(|value| {
            let own = abs_of(value);
            let only = inputs.first().and_then(Option::as_ref).filter(|_| inputs.len() == 1);
            let alike = only.map(Known::size).filter(|size| size.len() == own.len());
            let of = |i: usize| alike.as_ref().and_then(|size| size.get(i).copied()).unwrap_or(largest);
            own.iter().enumerate().map(|(i, v)| v.max(4.0 * of(i))).collect()
        })
        .collect()
}

fn homogeneous(
    op: &OpNode,
    functions: &[Function],
    inputs: &[Option<Known>],
    wanted: &[bool],
) -> Option<Vec<Vec<f64>>> {
    let mut op = op.clone();
    if op.op_type == "Sub" {
        op.become_onnx("Add");
    }
    for name in ["alpha", "beta"] {
        if let Ok(Some(v)) = op.attrs.float(name) {
            op.attrs.set(name, v.abs());
        }
    }
    let given: Option<Vec<Option<Value>>> = inputs
        .iter()
        .map(|k| match k {
            None => Some(None),
            Some(k) => match &k.value {
                Value::Tensor(t) if as_f64s(t).is_some() => {
                    Tensor::new(t.shape(), k.size().into_owned()).ok().map(|t| Some(t.into()))
                }
                other => Some(Some(other.clone())),
            },
        })
        .collect();
    let made = eval_op(&op, functions, &given?, &[], wanted).ok()?;
    made.iter().map(|v| v.as_tensor().ok().and_then(as_f64s)).collect()
}

pub(crate) fn abs_of(value: &Value) -> Vec<f64> {
    let Value::Tensor(t) = value else { return vec![] };
    as_f64s(t).map(|v| v.into_iter().map(f64::abs).collect()).unwrap_or_default()
}

/// The tensor with its floats as `f64`; other tensors as they are.
pub(crate) fn widened(t: &Tensor) -> Tensor {
    match as_f64s(t) {
        Some(v) if t.dtype() != DType::F64 => Tensor::new(t.shape(), v).unwrap_or_else(|_| t.clone()),
        _ => t.clone(),
    }
}
