//! Operators with bodies, and functions of the model.
use super::{Make, NUMBERS};
use crate::build::Build;
use crate::draw::{self, once_in, one, within};
use crate::pb::attrs;
use fcc_ir::{DType, Op, Tensor, Value};
use fcc_onnx::proto::{FunctionProto, NodeProto, OperatorSetIdProto};

pub(super) const TABLE: &[(Op, Make)] =
    &[(Op::If, branch), (Op::Loop, repeat), (Op::Scan, scan), (Op::SequenceMap, sequence_map)];

/// How deep bodies are nested.
const DEPTH: usize = 3;

/// Adds some nodes to the graph of now, and gives a tensor that it made, of this type and shape if one is asked for.
fn some_nodes(b: &mut Build, fits: Option<(DType, &[usize])>) -> Option<String> {
    let before = b.readable().len();
    for _ in 0..within(&mut b.r, 1, 3) {
        let _ = super::add_any(b);
    }
    let made: Vec<String> = b.readable()[before.min(b.readable().len())..].to_vec();
    let fitting = |b: &Build, n: &String| {
        b.known[n].as_tensor().is_ok_and(|t| fits.is_none_or(|(d, s)| t.dtype() == d && t.shape() == s))
    };
    let made: Vec<String> = made.into_iter().filter(|n| fitting(b, n)).collect();
    if !made.is_empty() {
        return Some(one(&mut b.r, &made).clone());
    }
    let (dtype, shape) = fits?;
    let x = b.pick(|t| t.dtype() == dtype && t.shape() == shape);
    let x = x.unwrap_or_else(|| b.weight_of(dtype, shape));
    // what a body gives must be made in it
    b.node1(Op::Identity, &[&x], attrs())
}

fn branch(b: &mut Build, op: Op) -> Option<()> {
    if b.depth() >= DEPTH {
        return None;
    }
    let shape = if once_in(&mut b.r, 2) { vec![] } else { vec![1] };
    let condition = b.operand(DType::Bool, &shape);
    let n = within(&mut b.r, 1, 3);
    let (then, values) = b.subgraph(&[], |b, _| (0..n).map(|_| some_nodes(b, None)).collect())?;
    let types: Vec<(DType, Vec<usize>)> = values
        .iter()
        .map(|v| v.as_tensor().ok().map(|t| (t.dtype(), t.shape().to_vec())))
        .collect::<Option<_>>()?;
    let (other, _) = b.subgraph(&[], |b, _| {
        types.iter().map(|(dtype, shape)| some_nodes(b, Some((*dtype, shape)))).collect()
    })?;
    let (then, other) = if once_in(&mut b.r, 2) { (then, other) } else { (other, then) };
    let outputs = if once_in(&mut b.r, 8) { within(&mut b.r, 1, n) } else { n };
    let a = attrs().graph("then_branch", then).graph("else_branch", other);
    b.node(op, &[&condition], a, outputs).map(drop)
}

fn tensor_type(v: &Value) -> Option<(DType, Vec<usize>)> {
    v.as_tensor().ok().map(|t| (t.dtype(), t.shape().to_vec()))
}

fn repeat(b: &mut Build, op: Op) -> Option<()> {
    if b.depth() >= DEPTH {
        return None;
    }
    let carried: Vec<String> = (0..within(&mut b.r, 1, 2)).map(|_| b.ranked(NUMBERS, 0, 3)).collect();
    let values: Vec<Value> = carried.iter().map(|n| b.known[n].clone()).collect();
    let scans = within(&mut b.r, 0, 1);
    let condition = Tensor::from_bools(vec![], [true]).ok()?;
    let inputs: Vec<Value> =
        [Tensor::scalar(0i64).into(), condition.clone().into()].into_iter().chain(values.clone()).collect();
    let stops = once_in(&mut b.r, 3);
    let (body, _) = b.subgraph(&inputs, |b, names| {
        let go = match stops {
            true => {
                let limit = b.constant(Tensor::scalar(2i64));
                b.node1(Op::Less, &[&names[0], &limit], attrs()).filter(|_| b.opset >= 9)?
            }
            false => b.node1(Op::Identity, &[&names[1]], attrs())?,
        };
        let mut outputs = vec![go];
        for v in &values {
            let (dtype, shape) = tensor_type(v)?;
            outputs.push(some_nodes(b, Some((dtype, &shape)))?);
        }
        for _ in 0..scans {
            let n = some_nodes(b, None)?;
            outputs.push(b.node1(Op::Identity, &[&n], attrs())?);
        }
        Some(outputs)
    })?;
    let turns = *one(&mut b.r, &[0, 1, 2, 3]);
    let (turns, condition) = (b.constant(Tensor::scalar(turns)), b.constant(condition));
    let turns = if stops && once_in(&mut b.r, 2) { String::new() } else { turns };
    let condition = if once_in(&mut b.r, 2) { condition } else { String::new() };
    let mut inputs: Vec<&str> = vec![&turns, &condition];
    inputs.extend(carried.iter().map(String::as_str));
    let outputs = carried.len() + scans;
    let outputs = if once_in(&mut b.r, 8) { within(&mut b.r, 1, outputs) } else { outputs };
    b.node(op, &inputs, attrs().graph("body", body), outputs).map(drop)
}

fn scan(b: &mut Build, op: Op) -> Option<()> {
    if b.depth() >= DEPTH || b.opset < 9 {
        return None;
    }
    let steps = within(&mut b.r, 1, 4);
    let state = b.ranked(NUMBERS, 0, 2);
    let (row, dtype) = (draw::row(&mut b.r), b.one_type(NUMBERS));
    let x = b.operand(dtype, &[steps, row]);
    let slice = draw::tensor(&mut b.r, b.values, dtype, vec![row]);
    let first = b.known[&state].clone();
    let (body, _) = b.subgraph(&[first.clone(), slice.into()], |b, _| {
        let (dtype, shape) = tensor_type(&first)?;
        let next = some_nodes(b, Some((dtype, &shape)))?;
        let made = some_nodes(b, None)?;
        Some(vec![next, b.node1(Op::Identity, &[&made], attrs())?])
    })?;
    let a = attrs().graph("body", body).int("num_scan_inputs", 1);
    let a = a.when(once_in(&mut b.r, 3), |a| a.ints("scan_input_directions", &[1]));
    let a = a.when(once_in(&mut b.r, 3), |a| a.ints("scan_output_directions", &[1]));
    b.node(op, &[&state, &x], a, 2).map(drop)
}

fn sequence_map(b: &mut Build, op: Op) -> Option<()> {
    if b.depth() >= DEPTH || b.opset < 17 {
        return None;
    }
    let list = super::sequence::list(b)?;
    let Value::Sequence(_, items) = b.known[&list].clone() else { return None };
    let first = items.first()?.clone();
    let (body, _) = b.subgraph(&[first], |b, _| Some(vec![some_nodes(b, None)?]))?;
    b.node1(op, &[&list], attrs().graph("body", body)).map(drop)
}

/// Names that functions bear: one of their own, and those of operators of one input and output.
const NAMES: &[(&str, &str)] = &[("local", "Twice"), ("local", "Conv"), ("", "Softplus"), ("", "Relu")];

/// A function with a body of some nodes, and a call of it, or two.
pub(super) fn function(b: &mut Build) -> Option<()> {
    if !b.is_main() || b.opset < 9 {
        return None;
    }
    let given: Vec<String> = (0..within(&mut b.r, 1, 2)).map(|_| b.ranked(NUMBERS, 0, 4)).collect();
    let values: Vec<Value> = given.iter().map(|n| b.known[n].clone()).collect();
    let (domain, name) = *one(&mut b.r, NAMES);
    let taken = |f: &FunctionProto| f.domain() == domain && f.name() == name;
    let bears = |nodes: &[NodeProto]| nodes.iter().any(|n| n.op_type() == name);
    // a node of that name would become a call
    let used = bears(&b.graph().node) || b.functions.iter().any(|f| bears(&f.node));
    if domain.is_empty() && used || b.functions.iter().any(taken) {
        return None;
    }
    let n = if domain.is_empty() { 1 } else { within(&mut b.r, 1, 2) };
    if domain.is_empty() && given.len() > 1 {
        return None;
    }
    let mut inputs = vec![];
    let (body, _) = b.body(&values, |b, names| {
        inputs = names.to_vec();
        (0..n).map(|_| some_nodes(b, None)).collect()
    })?;
    let outputs: Vec<String> = body.output.iter().map(|o| o.name().to_string()).collect();
    let mut distinct = outputs.clone();
    distinct.sort();
    distinct.dedup();
    let subgraphs = |n: &NodeProto| n.attribute.iter().any(|a| a.g.is_some());
    let calls = body.node.iter().any(|n| (n.domain(), n.op_type()) == (domain, name));
    if distinct.len() < outputs.len() || calls || body.node.iter().any(subgraphs) {
        return None;
    }
    if !domain.is_empty() {
        b.domains.entry(domain.into()).or_insert(1);
    }
    let imports: Vec<OperatorSetIdProto> = b.opsets();
    b.functions.push(FunctionProto {
        name: Some(name.into()),
        domain: Some(domain.into()),
        input: inputs,
        output: outputs,
        node: body.node,
        opset_import: imports,
        ..Default::default()
    });
    let given: Vec<&str> = given.iter().map(String::as_str).collect();
    let called = b.call(domain, name, &given, attrs(), &vec![true; n]);
    if called.is_none() {
        b.functions.pop();
    }
    called.map(drop)
}
