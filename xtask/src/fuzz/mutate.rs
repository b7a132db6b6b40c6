//! Cases: models with something wrong, or something unusual, in them.
use super::corpus::Corpus;
use fcc_ir::attr::AttrValue;
use fcc_ir::random::Random;
use fcc_ir::{Dim, Model, NodeKind, Slot, TensorType, ValueType};

/// What is given to fcc.
pub enum Case {
    /// To the parser of texts.
    Text(String),
    /// To the importer.
    Bytes(Vec<u8>),
    /// To the verifier, inference and the rules: a model that was read, and changed.
    Model(Box<Model>),
}

/// Numbers at the ends of ranges, and ones that shapes are made of.
const NUMBERS: &[i64] = &[
    0,
    1,
    -1,
    2,
    3,
    7,
    13,
    64,
    255,
    256,
    65_536,
    i32::MAX as i64,
    i32::MIN as i64,
    1 << 32,
    i64::MAX,
    i64::MIN,
];

/// The case of this number.
pub fn case(corpus: &Corpus, number: u64) -> Case {
    let r = &mut Random::new(number);
    let times = 1 + r.below(4);
    match r.below(5) {
        0 => {
            let mut text = pick(r, &corpus.texts).cloned().unwrap_or_default();
            (0..times).for_each(|_| text = changed_text(r, &text));
            Case::Text(text)
        }
        1 => {
            let mut bytes = pick(r, &corpus.files).cloned().unwrap_or_default();
            (0..times).for_each(|_| change_bytes(r, &mut bytes));
            Case::Bytes(bytes)
        }
        _ => {
            let Some(mut model) = pick(r, &corpus.models).cloned() else { return Case::Text(String::new()) };
            (0..times).for_each(|_| change_model(r, &mut model));
            Case::Model(Box::new(model))
        }
    }
}

fn pick<'a, T>(r: &mut Random, from: &'a [T]) -> Option<&'a T> {
    from.get(r.below(from.len() as u64) as usize)
}

fn number(r: &mut Random) -> i64 {
    pick(r, NUMBERS).copied().unwrap_or(0)
}

/// A place and a length from there, short ones most often.
fn span(r: &mut Random, len: usize) -> (usize, usize) {
    let begin = r.below(len as u64 + 1) as usize;
    let most = if r.below(4) == 0 { len - begin } else { (len - begin).min(12) };
    (begin, begin + r.below(most as u64 + 1) as usize)
}

/// The text cut at its tokens, with one of them changed, moved, doubled or left out.
fn changed_text(r: &mut Random, text: &str) -> String {
    let mut tokens: Vec<String> = vec![];
    for c in text.chars() {
        match tokens.last_mut() {
            Some(last) if c.is_alphanumeric() && last.chars().all(char::is_alphanumeric) => last.push(c),
            _ => tokens.push(c.into()),
        }
    }
    let (begin, end) = span(r, tokens.len());
    match r.below(6) {
        0 => drop(tokens.drain(begin..end)),
        1 => {
            let copy = tokens[begin..end].to_vec();
            tokens.splice(begin..begin, copy);
        }
        2 if !tokens.is_empty() => {
            let (i, j) = (r.below(tokens.len() as u64) as usize, r.below(tokens.len() as u64) as usize);
            tokens.swap(i, j);
        }
        3 => tokens.insert(
            begin,
            pick(r, &["<", ">", "{", "}", "[", "]", "(", ")", "\"", "=", "é", "#@ ", "-"])
                .unwrap_or(&"")
                .to_string(),
        ),
        _ => {
            // numbers and names are what the rest hangs on
            let words: Vec<usize> =
                (0..tokens.len()).filter(|&i| tokens[i].chars().all(char::is_alphanumeric)).collect();
            let (Some(&at), Some(&from)) = (pick(r, &words), pick(r, &words)) else { return text.into() };
            tokens[at] =
                if tokens[at].parse::<f64>().is_ok() { number(r).to_string() } else { tokens[from].clone() };
        }
    }
    tokens.concat()
}

fn change_bytes(r: &mut Random, bytes: &mut Vec<u8>) {
    let (begin, end) = span(r, bytes.len());
    match r.below(6) {
        0 => bytes.truncate(begin),
        1 => drop(bytes.drain(begin..end)),
        2 => {
            let copy = bytes[begin..end].to_vec();
            bytes.splice(begin..begin, copy);
        }
        // the longest number that protobuf writes
        3 => drop(bytes.splice(begin..begin, [0xff; 9].into_iter().chain([1]))),
        4 => {
            if let Some(byte) = bytes.get_mut(begin) {
                *byte ^= 1 << r.below(8);
            }
        }
        _ => {
            if let Some(byte) = bytes.get_mut(begin) {
                *byte = r.bits() as u8;
            }
        }
    }
}

fn change_model(r: &mut Random, model: &mut Model) {
    let graph = &mut model.graph;
    let ops = graph.ops().unwrap_or_default();
    let Some(&id) = pick(r, &ops) else { return };
    match r.below(8) {
        0 | 1 => change_attribute(r, graph, id),
        2 => {
            // other operand, a cycle perhaps
            let nodes = graph.nodes();
            let from = pick(r, &nodes).and_then(|node| graph.values_of(*node).next());
            let slots = graph.inputs_of(id).len() as u64;
            if let (Some(from), true) = (from, slots > 0) {
                graph.connect(from, id, Slot::Input(r.below(slots) as u32));
            }
        }
        3 => {
            let slots = graph.inputs_of(id).len() as u64;
            graph.disconnect(id, Slot::Input(r.below(slots.max(1)) as u32));
        }
        4 => {
            let i = r.below(graph.inputs.len().max(1) as u64) as usize;
            let Some(node) = graph.inputs.get(i).map(|i| i.node) else { return };
            let Some(info) = graph.inputs.infos_mut().nth(i) else { return };
            change_type(r, &mut info.ty);
            let ty = info.ty.clone();
            graph.set_ty(fcc_ir::ValueId { node, output: 0 }, ty);
        }
        5 => {
            let value = graph.values_of(id).next();
            if let Some(value) = value {
                let mut ty = graph.ty(value).clone();
                change_type(r, &mut ty);
                graph.set_ty(value, ty);
            }
        }
        6 => {
            let value = graph.values_of(id).next();
            if let Some(value) = value.filter(|v| !graph.is_output(*v)) {
                let info = fcc_ir::ValueInfo::new(graph.value_name(value), graph.ty(value).clone());
                graph.add_output(value, info);
            }
        }
        _ => change_constant(r, graph),
    }
}

fn change_attribute(r: &mut Random, graph: &mut fcc_ir::Graph, id: fcc_ir::NodeId) {
    let names =
        ["axis", "axes", "pads", "strides", "dilations", "group", "kernel_shape", "transA", "alpha", "perm"];
    let Some(op) = graph.node_mut(id).op_mut() else { return };
    // what a branch captures is wired to the node: a branch cannot be taken away alone
    let graph = |value: &AttrValue| matches!(value, AttrValue::Graph(_) | AttrValue::Graphs(_));
    let known: Vec<String> = op.attrs.iter().filter(|a| !graph(&a.value)).map(|a| a.name.clone()).collect();
    let name = match pick(r, &known) {
        Some(name) if r.below(4) > 0 => name.clone(),
        _ => pick(r, &names).unwrap_or(&"axis").to_string(),
    };
    let near = |r: &mut Random, v: i64| {
        if r.below(2) == 0 { v.wrapping_add(r.below(5) as i64 - 2) } else { number(r) }
    };
    let value: AttrValue = match op.attrs.get(&name) {
        Some(AttrValue::Int(v)) => near(r, *v).into(),
        Some(AttrValue::Ints(v)) => {
            let mut v = v.to_vec();
            match r.below(3) {
                0 => drop(v.pop()),
                1 => v.push(number(r)),
                _ => {
                    let i = r.below(v.len().max(1) as u64) as usize;
                    if let Some(n) = v.get_mut(i) {
                        *n = near(r, *n);
                    }
                }
            }
            v.into()
        }
        Some(AttrValue::Float(_)) => {
            [0.0f32, -1.5, f32::NAN, f32::INFINITY, 1e-40][r.below(5) as usize].into()
        }
        Some(value) if graph(value) => return,
        Some(_) => return op.attrs.remove(&name),
        None if r.below(2) == 0 => number(r).into(),
        None => vec![number(r), number(r)].into(),
    };
    op.attrs.set(&name, value);
}

fn change_type(r: &mut Random, ty: &mut ValueType) {
    let ValueType::Tensor(TensorType { dtype, shape }) = ty else { return };
    match (r.below(5), shape.as_mut()) {
        (0, _) => *dtype = pick(r, fcc_ir::DType::ALL).copied().unwrap_or(*dtype),
        (1, _) => *shape = None,
        (2, Some(dims)) => drop(dims.pop()),
        (3, Some(dims)) => dims.push(Dim::Known(1 + r.below(3) as usize)),
        (_, Some(dims)) => {
            let i = r.below(dims.len().max(1) as u64) as usize;
            let symbols = ["N", "M", "H"];
            if let Some(dim) = dims.get_mut(i) {
                *dim = match r.below(4) {
                    0 => Dim::symbol(symbols[r.below(3) as usize]),
                    1 => Dim::Unknown,
                    2 => Dim::Known(usize::try_from(number(r)).unwrap_or(0)),
                    _ => Dim::Known(r.below(6) as usize),
                };
            }
        }
        (_, None) => {}
    }
}

/// Another shape of the same elements, other integers, or one element less.
fn change_constant(r: &mut Random, graph: &mut fcc_ir::Graph) {
    let constants: Vec<_> = graph
        .nodes()
        .into_iter()
        .filter(|id| matches!(graph.node(*id).kind, NodeKind::Constant(_)))
        .collect();
    let Some(&id) = pick(r, &constants) else { return };
    let NodeKind::Constant(c) = &mut graph.node_mut(id).kind else { return };
    let changed = match (c.tensor.to_i64s(), r.below(3)) {
        (Ok(mut v), _) => {
            let i = r.below(v.len().max(1) as u64) as usize;
            if let Some(n) = v.get_mut(i) {
                *n = number(r);
            }
            fcc_ir::Tensor::new(c.tensor.shape(), v)
        }
        (_, 0) => c.tensor.reshaped([c.tensor.len()]),
        (_, 1) => c.tensor.reshaped([&[1], c.tensor.shape()].concat()),
        _ => c.tensor.reshaped(c.tensor.shape().iter().rev().copied().collect::<Vec<_>>()),
    };
    if let Ok(t) = changed {
        c.tensor = t;
        let value = fcc_ir::ValueId { node: id, output: 0 };
        let ty = graph.constant(value).map(|t| ValueType::from(t.tensor_type()));
        if let Some(ty) = ty {
            graph.set_ty(value, ty);
        }
    }
}
