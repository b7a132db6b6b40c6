//! A case: a model with inputs, made from its number alone.
use crate::build::Build;
use crate::draw::{Values, once_in, one, within};
use crate::ops;
use crate::pb;
use fcc_ir::interp;
use fcc_ir::random::Random;
use fcc_ir::{DType, Dim, Tensor, ValueType};
use fcc_onnx::proto::{ModelProto, NodeProto, TensorProto};
use std::collections::{BTreeMap, BTreeSet};

/// A model and a value for each input that it needs.
#[derive(Debug, Clone)]
pub struct Case {
    /// The model.
    pub model: ModelProto,
    /// Its inputs; overridable initializers keep their defaults.
    pub inputs: interp::Values,
}

/// What was made on the way to a case.
#[derive(Debug, Default)]
pub struct Made {
    /// Operators that were tried and did not fit, with the interpreter's reason where it has one.
    pub refused: Vec<(String, String)>,
}

/// The opsets that models are made for: every one, and those in use more often.
fn opset(r: &mut Random) -> i64 {
    match r.below(3) {
        0 => 1 + r.below(28) as i64,
        _ => *one(r, &[9, 11, 13, 13, 17, 18, 21, 22]),
    }
}

/// The case of a number.
pub fn case(number: u64) -> (Case, Made) {
    let mut r = Random::new(number.wrapping_mul(0x9e37_79b9).wrapping_add(crate::VERSION));
    r.bits();
    let values = *one(&mut r, &[Values::Small, Values::Small, Values::Real, Values::Real, Values::Special]);
    let opset = opset(&mut r);
    let zeros = once_in(&mut r, 6);
    let nodes = *one(&mut r, &[1, 1, 2, 3, 4, 5, 6, 8, 12]);
    let mut b = Build::new(r, values, opset, zeros);
    let mut made = 0;
    for _ in 0..4 * nodes {
        made += usize::from(ops::add_any(&mut b).is_some());
        if made >= nodes {
            break;
        }
    }
    finish(b)
}

/// A case of one operator, and what it stands on.
pub fn case_of(maker: &ops::Maker, number: u64, opset: i64) -> (Case, Made) {
    let mut r = Random::new(number.wrapping_mul(0x517c_c1b7).wrapping_add(crate::VERSION));
    r.bits();
    let values = *one(&mut r, &[Values::Small, Values::Real, Values::Special]);
    let zeros = once_in(&mut r, 6);
    let mut b = Build::new(r, values, opset, zeros);
    let _ = (maker.make)(&mut b, maker.op);
    finish(b)
}

fn finish(mut b: Build) -> (Case, Made) {
    let mut graph = b.finish();
    let r = &mut b.r;
    let read: BTreeSet<String> = graph.node.iter().flat_map(pb::reads).map(String::from).collect();
    let values = |n: &NodeProto| n.output.iter().filter(|o| !o.is_empty()).cloned().collect::<Vec<_>>();
    let all: Vec<String> = graph.node.iter().filter(|n| n.op_type() != "Constant").flat_map(values).collect();
    let mut outputs: Vec<String> = all.iter().filter(|n| !read.contains(*n)).cloned().collect();
    for name in all.iter().filter(|n| read.contains(*n)) {
        if once_in(r, 4) {
            outputs.push(name.clone());
        }
    }
    // an input or an initializer that is an output
    let given: Vec<String> = graph.input.iter().map(|i| i.name().to_string()).collect();
    if !given.is_empty() && once_in(r, 12) {
        outputs.push(one(r, &given).clone());
    }
    if let Some(i) = graph.initializer.first().filter(|_| once_in(r, 20)) {
        outputs.push(i.name().into());
    }
    outputs.sort();
    outputs.dedup();
    for i in (1..outputs.len()).rev() {
        let j = within(r, 0, i);
        outputs.swap(i, j);
    }
    let most = *one(r, &[1, 2, 2, 3, 4, 8]);
    outputs.truncate(most);

    let symbolic = once_in(r, 3);
    for name in &outputs {
        let ty = b.known[name].value_type();
        let ty = match r.below(4) {
            0 => ValueType::Unknown,
            1 | 2 if !symbolic => ty,
            _ => open(ty),
        };
        graph.output.push(pb::info(name, &ty));
    }
    let mut model = ModelProto {
        ir_version: Some(10),
        producer_name: Some("fcc-testgen".into()),
        opset_import: b.opsets(),
        functions: std::mem::take(&mut b.functions),
        graph: None,
        ..Default::default()
    };
    graph.name = Some("main".into());
    if symbolic {
        for input in &mut graph.input {
            let name = input.name().to_string();
            if b.given.contains_key(&name) {
                *input = pb::info(&name, &symbols(&mut b.r, b.known[&name].value_type()));
            }
        }
    }
    model.graph = Some(graph);
    let mut case = Case { model, inputs: b.given.clone() };
    if !once_in(&mut b.r, 10) {
        sweep(&mut case);
    }
    (case, Made { refused: b.refused })
}

/// The type with extents that are not known; a scalar stays one.
fn open(ty: ValueType) -> ValueType {
    let mut ty = ty;
    ty.for_each_dim(&mut |d| *d = Dim::Unknown);
    ty
}

/// The type with some extents named: equal extents may bear one name.
fn symbols(r: &mut Random, mut ty: ValueType) -> ValueType {
    ty.for_each_dim(&mut |d| {
        if let Dim::Known(n) = d {
            match r.below(10) {
                0..=4 => *d = Dim::symbol(&format!("N{n}")),
                5 => *d = Dim::Unknown,
                _ => {}
            }
        }
    });
    ty
}

/// Removes nodes, initializers, inputs and functions that no output needs.
pub fn sweep(case: &mut Case) {
    let Some(graph) = &mut case.model.graph else { return };
    let mut needed: BTreeSet<String> = graph.output.iter().map(|o| o.name().to_string()).collect();
    for node in graph.node.iter().rev() {
        if node.output.iter().any(|o| needed.contains(o)) {
            needed.extend(pb::reads(node).into_iter().map(String::from));
        }
    }
    graph.node.retain(|n| n.output.iter().any(|o| needed.contains(o)));
    graph.initializer.retain(|i| needed.contains(i.name()));
    graph.input.retain(|i| needed.contains(i.name()));
    graph.value_info.retain(|i| needed.contains(i.name()));
    case.inputs.retain(|n, _| needed.contains(n));
    let mut called = BTreeSet::new();
    let mut todo: Vec<NodeProto> = graph.node.clone();
    while let Some(node) = todo.pop() {
        let new = called.insert((node.domain().to_string(), node.op_type().to_string()));
        todo.extend(node.attribute.iter().filter_map(|a| a.g.as_ref()).flat_map(|g| g.node.clone()));
        let body = case
            .model
            .functions
            .iter()
            .filter(|f| new && f.domain() == node.domain() && f.name() == node.op_type());
        todo.extend(body.flat_map(|f| f.node.clone()));
    }
    let calls = |f: &fcc_onnx::proto::FunctionProto| called.contains(&(f.domain().into(), f.name().into()));
    case.model.functions.retain(calls);
}

/// The tensor of a message whose elements stand in it.
pub fn tensor_of(proto: &TensorProto) -> Result<Tensor, String> {
    let dtype = DType::from_code(proto.data_type()).ok_or("unknown element type")?;
    let shape: Vec<usize> = proto.dims.iter().map(|d| *d as usize).collect();
    let made = match &proto.raw_data {
        Some(raw) => Tensor::from_bytes(dtype, shape, raw.clone()),
        None => Tensor::from_strings(shape, proto.string_data.iter().cloned()),
    };
    made.map_err(|e| e.to_string())
}

/// How often each operator occurs, those of subgraphs and functions among them.
pub fn operators(model: &ModelProto) -> BTreeMap<String, usize> {
    fn count(nodes: &[NodeProto], into: &mut BTreeMap<String, usize>) {
        for node in nodes {
            *into.entry(node.op_type().into()).or_default() += 1;
            for graph in node.attribute.iter().filter_map(|a| a.g.as_ref()) {
                count(&graph.node, into);
            }
        }
    }
    let mut found = BTreeMap::new();
    count(model.graph.as_ref().map_or(&[], |g| &g.node), &mut found);
    model.functions.iter().for_each(|f| count(&f.node, &mut found));
    found
}
