//! Makes a failing case small: fewer outputs and nodes, plain values, smaller extents, while the failure stays.
use crate::case::{Case, sweep, tensor_of};
use crate::noise::Steps;
use crate::pb;
use fcc_ir::convert::from_i64s;
use fcc_ir::{DType, Tensor, Value};
use fcc_onnx::proto::{AttributeProto, TensorProto, ValueInfoProto};
use std::collections::BTreeSet;

/// Makes a case smaller as long as `fails` holds of it and at most `budget` times. The case given must fail.
pub fn shrink(case: &Case, budget: usize, fails: &mut dyn FnMut(&Case) -> bool) -> Case {
    let mut s = Shrink { best: case.clone(), left: budget, fails };
    loop {
        let before = size(&s.best);
        s.outputs();
        s.nodes();
        s.declarations();
        s.attributes();
        s.extents();
        s.values();
        if s.left == 0 || size(&s.best) == before {
            return s.best;
        }
    }
}

/// What shrinking makes less of.
fn size(case: &Case) -> (usize, usize, usize) {
    let graph = case.model.graph.clone().unwrap_or_default();
    let attributes =
        graph.node.iter().map(|n| n.attribute.len() + n.input.len() + n.output.len()).sum::<usize>();
    let given = case.inputs.values().filter_map(|v| v.as_tensor().ok());
    let elems: usize = given.map(|t| t.len() + t.bytes().iter().filter(|b| **b != 0).count()).sum();
    let held: usize = graph.initializer.iter().map(|t| t.raw_data.as_ref().map_or(0, |d| d.len())).sum();
    (graph.node.len() + graph.output.len() + graph.input.len(), attributes, elems + held)
}

struct Shrink<'f> {
    best: Case,
    left: usize,
    fails: &'f mut dyn FnMut(&Case) -> bool,
}

impl Shrink<'_> {
    /// Takes a smaller case if it fails as well.
    fn try_case(&mut self, mut case: Case) -> bool {
        if self.left == 0 {
            return false;
        }
        self.left -= 1;
        sweep(&mut case);
        let empty = case.model.graph.as_ref().is_none_or(|g| g.output.is_empty());
        let kept = !empty && (self.fails)(&case);
        if kept {
            self.best = case;
        }
        kept
    }
    /// Takes a change of the best case if it fails as well.
    fn attempt(&mut self, change: impl FnOnce(&mut Case)) -> bool {
        let mut case = self.best.clone();
        change(&mut case);
        case.model != self.best.model && self.try_case(case)
    }
    fn graph(&self) -> fcc_onnx::proto::GraphProto {
        self.best.model.graph.clone().unwrap_or_default()
    }

    fn outputs(&mut self) {
        for i in 0..self.graph().output.len() {
            if self.attempt(|c| {
                c.model
                    .graph
                    .iter_mut()
                    .for_each(|g| g.output = g.output.get(i).cloned().into_iter().collect())
            }) {
                return;
            }
        }
        for i in (0..self.graph().output.len()).rev() {
            self.attempt(|c| {
                c.model.graph.iter_mut().for_each(|g| drop((i < g.output.len()).then(|| g.output.remove(i))))
            });
        }
    }

    /// What a node makes is given instead; or what a node at the end reads becomes the output.
    fn nodes(&mut self) {
        let Ok(values) = Steps::new(&self.best).map(|s| s.values()) else { return };
        for node in self.graph().node.iter().rev() {
            let made: Vec<&String> = node.output.iter().filter(|o| !o.is_empty()).collect();
            let known: Vec<(&String, &Tensor)> =
                made.iter().filter_map(|n| Some((*n, values.get(*n)?.as_tensor().ok()?))).collect();
            if known.len() < made.len() {
                continue;
            }
            let give = |case: &mut Case, constant: bool| {
                let Some(g) = &mut case.model.graph else { return };
                g.node.retain(|n| n.output != node.output);
                for (name, t) in &known {
                    if constant {
                        g.initializer.push(pb::tensor(name, t));
                    } else {
                        g.input.push(pb::info(name, &t.tensor_type().into()));
                        case.inputs.insert(name.to_string(), (*t).clone().into());
                    }
                }
            };
            let _ = self.attempt(|c| give(c, false)) || self.attempt(|c| give(c, true));
        }
        for i in 0..self.graph().output.len() {
            let name = self.graph().output[i].name().to_string();
            let node = self.graph().node.iter().find(|n| n.output.contains(&name)).cloned();
            for read in node.map(|n| n.input).unwrap_or_default() {
                let ahead = |c: &mut Case| {
                    let output = ValueInfoProto { name: Some(read.clone()), ..Default::default() };
                    c.model.graph.iter_mut().for_each(|g| g.output[i] = output.clone());
                };
                let taken = self.graph().output.iter().any(|o| o.name() == read);
                if !read.is_empty() && !taken && self.attempt(ahead) {
                    break;
                }
            }
        }
    }

    /// Types as they are, names of extents and of nodes left out.
    fn declarations(&mut self) {
        self.attempt(|c| {
            for input in c.model.graph.iter_mut().flat_map(|g| &mut g.input) {
                if let Some(v) = c.inputs.get(input.name()) {
                    *input = pb::info(input.name(), &v.value_type());
                }
            }
        });
        self.attempt(|c| c.model.graph.iter_mut().flat_map(|g| &mut g.node).for_each(|n| n.name = None));
        self.attempt(|c| c.model.graph.iter_mut().flat_map(|g| &mut g.output).for_each(|o| o.r#type = None));
        // an overridable initializer without its place among the inputs; then as a plain input
        for i in self.graph().initializer {
            self.attempt(|c| c.model.graph.iter_mut().for_each(|g| g.input.retain(|n| n.name() != i.name())));
        }
    }

    fn attributes(&mut self) {
        for (i, node) in self.graph().node.iter().enumerate() {
            for j in (0..node.attribute.len()).rev() {
                self.attempt(|c| {
                    with_node(c, i, |n| drop((j < n.attribute.len()).then(|| n.attribute.remove(j))))
                });
            }
            for j in (0..node.input.len()).rev() {
                self.attempt(|c| {
                    with_node(c, i, |n| match j + 1 == n.input.len() {
                        true => drop(n.input.pop()),
                        false => n.input.get_mut(j).into_iter().for_each(String::clear),
                    })
                });
            }
        }
    }

    /// Every extent of one size becomes another size, in tensors and in the integers that speak of it.
    fn extents(&mut self) {
        let mut sizes = BTreeSet::new();
        for v in self.best.inputs.values().filter_map(|v| v.as_tensor().ok()) {
            sizes.extend(v.shape().iter().copied());
        }
        sizes.extend(self.graph().initializer.iter().flat_map(|t| &t.dims).map(|d| *d as usize));
        for size in sizes.into_iter().rev().filter(|n| *n > 1) {
            for to in [1, 2, size / 2, size - 1] {
                if to < size && to > 0 && self.attempt(|c| resize(c, size, to)) {
                    break;
                }
            }
        }
        let axes = |t: &Tensor| t.rank();
        let names: Vec<(String, usize)> = self
            .best
            .inputs
            .iter()
            .filter_map(|(n, v)| Some((n.clone(), axes(v.as_tensor().ok()?))))
            .collect();
        // one tensor alone, where others broadcast
        for (name, rank) in names {
            for axis in 0..rank {
                self.attempt(|c| {
                    let Some(Value::Tensor(t)) = c.inputs.get(&name) else { return };
                    let Some(cut) = cut(t, axis, 1) else { return };
                    declare(c, &name, cut);
                });
            }
        }
    }

    fn values(&mut self) {
        let names: Vec<String> = self.best.inputs.keys().cloned().collect();
        for name in names {
            let Some(Value::Tensor(t)) = self.best.inputs.get(&name).cloned() else { continue };
            if t.dtype() == DType::String || t.is_empty() {
                continue;
            }
            let n = t.len() as i64;
            let zeros = vec![0; t.len()];
            let plain =
                [zeros.clone(), vec![1; t.len()], (0..n).map(|i| i % 5 - 2).collect(), (0..n).collect()];
            for v in plain {
                let Ok(new) = from_i64s(t.dtype(), t.shape(), v) else { break };
                if new == t || self.try_values(&name, new) {
                    break;
                }
            }
            // half of the elements as zeros, then single ones
            let mut width = t.len().div_ceil(2);
            while width > 0 && self.left > 0 {
                for from in (0..t.len()).step_by(width) {
                    let Some(Value::Tensor(now)) = self.best.inputs.get(&name).cloned() else { break };
                    let Ok(zero) = from_i64s(t.dtype(), t.shape(), zeros.clone()) else { break };
                    let bytes = t.dtype().bits() / 8;
                    if bytes == 0 {
                        break;
                    }
                    let mut data = now.bytes().to_vec();
                    let range = from * bytes..((from + width) * bytes).min(data.len());
                    data[range.clone()].copy_from_slice(&zero.bytes()[range]);
                    let Ok(new) = Tensor::from_bytes(t.dtype(), t.shape(), data.into()) else { break };
                    if new != now {
                        self.try_values(&name, new);
                    }
                }
                width = if width > 8 {
                    width / 4
                } else if width > 1 && t.len() <= 32 {
                    1
                } else {
                    0
                };
            }
        }
    }
    fn try_values(&mut self, name: &str, t: Tensor) -> bool {
        let mut case = self.best.clone();
        case.inputs.insert(name.into(), t.into());
        self.try_case(case)
    }
}

fn with_node(case: &mut Case, i: usize, change: impl FnOnce(&mut fcc_onnx::proto::NodeProto)) {
    if let Some(node) = case.model.graph.as_mut().and_then(|g| g.node.get_mut(i)) {
        change(node);
    }
}

/// The first `to` elements along an axis.
fn cut(t: &Tensor, axis: usize, to: usize) -> Option<Tensor> {
    let n = t.shape()[axis];
    let bits = t.unpacked_bits();
    let outer: usize = t.shape()[..axis].iter().product();
    let inner = t.len().checked_div(outer.max(1) * n.max(1))?;
    let width = bits.len().checked_div(t.len().max(1))?;
    if to >= n || width == 0 {
        return None;
    }
    let row = inner * width;
    let kept: Vec<u8> = (0..outer).flat_map(|o| bits[o * n * row..][..to * row].to_vec()).collect();
    let mut shape = t.shape().to_vec();
    shape[axis] = to;
    Tensor::from_unpacked_bits(t.dtype(), shape, &kept).ok()
}

fn cut_all(t: &Tensor, size: usize, to: usize) -> Tensor {
    let mut t = t.clone();
    for axis in 0..t.rank() {
        if t.shape()[axis] == size
            && let Some(c) = cut(&t, axis, to)
        {
            t = c;
        }
    }
    let spoken = |v: Vec<i64>| v.into_iter().map(|v| if v == size as i64 { to as i64 } else { v }).collect();
    match t.to_i64s() {
        Ok(v) if t.len() <= 8 => from_i64s(t.dtype(), t.shape(), spoken(v)).unwrap_or(t),
        _ => t,
    }
}

fn declare(case: &mut Case, name: &str, t: Tensor) {
    for input in case.model.graph.iter_mut().flat_map(|g| &mut g.input) {
        if input.name() == name {
            *input = pb::info(name, &t.tensor_type().into());
        }
    }
    case.inputs.insert(name.into(), t.into());
}

fn resize(case: &mut Case, size: usize, to: usize) {
    let inputs: Vec<(String, Value)> = case.inputs.clone().into_iter().collect();
    for (name, value) in inputs {
        if let Value::Tensor(t) = value {
            declare(case, &name, cut_all(&t, size, to));
        }
    }
    let Some(graph) = &mut case.model.graph else { return };
    let held = |proto: &mut TensorProto| {
        if let Ok(t) = tensor_of(proto) {
            *proto = pb::tensor(proto.name(), &cut_all(&t, size, to));
        }
    };
    for proto in &mut graph.initializer {
        held(proto);
        let ty = tensor_of(proto).map(|t| t.tensor_type().into());
        for input in graph.input.iter_mut().filter(|i| i.name() == proto.name()) {
            if let Ok(ty) = &ty {
                *input = pb::info(proto.name(), ty);
            }
        }
    }
    for a in graph.node.iter_mut().flat_map(|n| &mut n.attribute) {
        let AttributeProto { t, ints, i, .. } = a;
        t.iter_mut().for_each(held);
        ints.iter_mut().chain(i).for_each(|v| {
            if *v == size as i64 {
                *v = to as i64;
            }
        });
    }
    graph.output.iter_mut().for_each(|o| o.r#type = None);
}
