//! Whether nodes of two graphs are the same.
use fcc_ir::attr::{AttrValue, Attrs};
use fcc_ir::text::{PrintOptions, print_graph};
use fcc_ir::{Graph, Model, NodeId, Tensor, ValueId};

/// Whether the node that makes a value is the same in both models, fed by values of the same names.
pub(crate) fn same_producer(original: &Model, rewritten: &Model, value: ValueId) -> bool {
    let (a, b) = (&original.graph, &rewritten.graph);
    let Some(old) = a.value(b.value_name(value)) else { return false };
    let (Some(p), Some(q)) = (a.op(old.node), b.op(value.node)) else { return false };
    let same_op = p.op_type == q.op_type
        && p.domain == q.domain
        && p.overload == q.overload
        && p.version == q.version
        && old.output == value.output
        && same_attrs(&p.attrs, &q.attrs);
    let names = |g: &Graph, id: NodeId| -> Vec<Option<String>> {
        let feeds = g.inputs_of(id).into_iter().chain(g.captures_of(id).into_iter().map(Some));
        feeds.map(|v| v.map(|v| g.value_name(v).to_string())).collect()
    };
    let constants = |g: &Graph, id: NodeId| -> Vec<Option<Tensor>> {
        g.inputs_of(id).into_iter().map(|v| v.and_then(|v| g.constant(v))).collect()
    };
    same_op
        && names(a, old.node) == names(b, value.node)
        && constants(a, old.node) == constants(b, value.node)
}

/// Whether two nodes have the same attributes.
pub(crate) fn same_attrs(a: &Attrs, b: &Attrs) -> bool {
    a.iter().count() == b.iter().count()
        && a.iter().all(|x| b.get(&x.name).is_some_and(|y| same_attr(&x.value, y)))
}

pub(crate) fn same_attr(a: &AttrValue, b: &AttrValue) -> bool {
    use AttrValue as V;
    let text = |g: &Graph| print_graph(g, &PrintOptions::readable());
    match (a, b) {
        (V::Float(a), V::Float(b)) => a.to_bits() == b.to_bits(),
        (V::Int(a), V::Int(b)) => a == b,
        (V::String(a), V::String(b)) => a == b,
        (V::Tensor(a), V::Tensor(b)) => a.tensor == b.tensor,
        (V::Graph(a), V::Graph(b)) => text(a) == text(b),
        (V::Graphs(a), V::Graphs(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| text(a) == text(b))
        }
        (V::SparseTensor(a), V::SparseTensor(b)) => a == b,
        (V::SparseTensors(a), V::SparseTensors(b)) => a == b,
        (V::Tensors(a), V::Tensors(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.tensor == b.tensor)
        }
        (V::Floats(a), V::Floats(b)) => {
            a.len() == b.len() && a.iter().zip(&b[..]).all(|(a, b)| a.to_bits() == b.to_bits())
        }
        (V::Ints(a), V::Ints(b)) => a == b,
        (V::Strings(a), V::Strings(b)) => a == b,
        (V::Type(a), V::Type(b)) => a == b,
        (V::Types(a), V::Types(b)) => a == b,
        (V::Ref(a, _), V::Ref(b, _)) => a == b,
        (V::Undefined, V::Undefined) => true,
        _ => false,
    }
}
