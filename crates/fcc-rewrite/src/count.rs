//! How many operators and constants there are.
use crate::context::known_constant;
use crate::report::Size;
use fcc_ir::op::Fact;
use fcc_ir::{Graph, Model, NodeId, NodeKind, ValueId};
use std::collections::BTreeMap;

/// The constants that these nodes read, each counted once.
pub(crate) fn constants_of(graph: &Graph, captures: &[Fact], nodes: &[NodeId]) -> Size {
    let mut read: BTreeMap<ValueId, Size> = BTreeMap::new();
    for value in nodes.iter().flat_map(|id| graph.inputs_of(*id)).flatten() {
        if let Some(t) = known_constant(graph, captures, value) {
            read.insert(value, size_of(&t));
        }
    }
    read.values().fold(Size::default(), |sum, size| Size {
        bytes: sum.bytes + size.bytes,
        elements: sum.elements + size.elements,
    })
}

pub(crate) fn size_of(t: &fcc_ir::Tensor) -> Size {
    Size { bytes: t.byte_len() as u64, elements: t.len() as u64 }
}

/// Operators and constants of a model, subgraphs and functions included.
pub(crate) fn totals(model: &Model) -> (usize, Size) {
    let mut size = constants(&model.graph);
    let mut nodes = op_count(&model.graph);
    for f in &model.functions {
        let more = constants(&f.body);
        size.bytes += more.bytes;
        size.elements += more.elements;
        nodes += op_count(&f.body);
    }
    (nodes, size)
}

fn op_count(graph: &Graph) -> usize {
    let ops = graph.nodes().into_iter().filter_map(|id| graph.op(id));
    ops.map(|op| 1 + op.attrs.graphs().map(op_count).sum::<usize>()).sum()
}

pub(crate) fn constants(graph: &Graph) -> Size {
    let mut size = Size::default();
    for id in graph.nodes() {
        let held = match &graph.node(id).kind {
            NodeKind::Constant(c) => Some(size_of(&c.tensor)),
            NodeKind::Op(op) => {
                for sub in op.attrs.graphs() {
                    let inner = constants(sub);
                    size.bytes += inner.bytes;
                    size.elements += inner.elements;
                }
                let value = ValueId { node: id, output: 0 };
                (op.op == fcc_ir::Op::Constant).then(|| graph.constant(value).map(|t| size_of(&t))).flatten()
            }
            NodeKind::Input | NodeKind::SparseConstant(_) | NodeKind::Capture(_) => None,
        };
        if let Some(held) = held {
            size.bytes += held.bytes;
            size.elements += held.elements;
        }
    }
    size
}
