//! Running one operator by hand, for the operators' own tests.
use crate::attr::Attrs;
use crate::graph::OpNode;
use crate::op::Fact;
use crate::{Op, Result, Tensor, Value};

/// A node of `ai.onnx` at an opset version.
pub fn node(op_type: &str, version: i64, attrs: Attrs, n_inputs: usize) -> OpNode {
    node_in("", op_type, version, attrs, n_inputs)
}

/// A node of a domain at an opset version.
pub fn node_in(domain: &str, op_type: &str, version: i64, attrs: Attrs, n_inputs: usize) -> OpNode {
    let op = Op::lookup(domain, op_type);
    assert_ne!(op, Op::Opaque, "{op_type} is in no list");
    OpNode {
        op,
        domain: domain.into(),
        op_type: op_type.into(),
        overload: String::new(),
        version,
        attrs,
        n_inputs: n_inputs as u32,
        device_configurations: vec![],
    }
}

/// The outputs of one node on tensors; `None` is an absent input.
pub fn eval(
    op_type: &str,
    version: i64,
    attrs: Attrs,
    inputs: &[Option<Tensor>],
    n: usize,
) -> Result<Vec<Value>> {
    let node = node(op_type, version, attrs, inputs.len());
    let inputs: Vec<Option<Value>> = inputs.iter().map(|t| t.clone().map(Value::from)).collect();
    crate::interp::eval_op(&node, &[], &inputs, &[], &vec![true; n])
}

/// The outputs of one node of a domain on tensors.
pub fn eval_in(
    domain: &str,
    op_type: &str,
    attrs: Attrs,
    inputs: &[Option<Tensor>],
    n: usize,
) -> Result<Vec<Value>> {
    let node = node_in(domain, op_type, if domain.is_empty() { 22 } else { 1 }, attrs, inputs.len());
    let inputs: Vec<Option<Value>> = inputs.iter().map(|t| t.clone().map(Value::from)).collect();
    crate::interp::eval_op(&node, &[], &inputs, &[], &vec![true; n])
}

/// The only output of one node on tensors.
pub fn eval1(op_type: &str, version: i64, attrs: Attrs, inputs: &[Option<Tensor>]) -> Result<Tensor> {
    eval(op_type, version, attrs, inputs, 1)?.remove(0).as_tensor().cloned()
}

/// The facts that follow from facts of the inputs.
pub fn infer(
    op_type: &str,
    version: i64,
    attrs: Attrs,
    inputs: &[Option<Fact>],
    n: usize,
) -> Result<Vec<Fact>> {
    let node = node(op_type, version, attrs, inputs.len());
    crate::infer::infer_op(&node, &[], inputs, &[], n)
}

/// The facts that follow from facts of the inputs of a node of a domain.
pub fn infer_in(
    domain: &str,
    op_type: &str,
    attrs: Attrs,
    inputs: &[Option<Fact>],
    n: usize,
) -> Result<Vec<Fact>> {
    let node = node_in(domain, op_type, if domain.is_empty() { 22 } else { 1 }, attrs, inputs.len());
    crate::infer::infer_op(&node, &[], inputs, &[], n)
}

/// The outputs of one node of `ai.onnx.ml` on tensors.
pub fn eval_ml(op_type: &str, version: i64, attrs: Attrs, inputs: &[Tensor]) -> Result<Vec<Value>> {
    let inputs: Vec<Value> = inputs.iter().cloned().map(Value::from).collect();
    eval_values(crate::ops::ml::DOMAIN, op_type, version, attrs, &inputs)
}

/// The outputs of one node on values of any kind; inference must agree with their types.
pub fn eval_values(
    domain: &str,
    op_type: &str,
    version: i64,
    attrs: Attrs,
    inputs: &[Value],
) -> Result<Vec<Value>> {
    let node = node_in(domain, op_type, version, attrs, inputs.len());
    let n = node.op.schema().map_or(1, |s| s.outputs.1);
    let facts: Vec<Option<Fact>> = inputs.iter().map(|v| Some(v.value_type().into())).collect();
    let inputs: Vec<Option<Value>> = inputs.iter().cloned().map(Some).collect();
    let made = crate::interp::eval_op(&node, &[], &inputs, &[], &vec![true; n])?;
    let inferred = crate::infer::infer_op(&node, &[], &facts, &[], n)?;
    for (made, inferred) in made.iter().zip(inferred) {
        let ty = made.value_type();
        assert!(inferred.ty.merge(&ty).is_ok(), "{op_type}: inferred {}, computed {ty}", inferred.ty);
    }
    Ok(made)
}
