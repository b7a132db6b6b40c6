//! Equality of models: what `parse(print(m)) == m` means.

use crate::attr::{Attr, AttrValue, Attrs, ConstSparse, ConstTensor};
use crate::{
    At, DType, Error, Graph, Model, Names, NodeId, NodeKind, OpNode, Owner, Result, ValueId, ValueInfo,
};
use std::fmt::Debug;

/// Whether two models say the same in everything that a file can say; the error names the first difference.
///
/// Numbers are compared bit by bit, nodes in topological order, captured values by the names that they have outside.
/// What is known beside what is said (inferred types) does not count.
pub fn same(a: &Model, b: &Model) -> Result<()> {
    equal("ir_version", &a.ir_version, &b.ir_version)?;
    equal("opset_import", &a.opset_imports, &b.opset_imports)?;
    equal("producer_name", &a.producer_name, &b.producer_name)?;
    equal("producer_version", &a.producer_version, &b.producer_version)?;
    equal("domain", &a.domain, &b.domain)?;
    equal("model_version", &a.model_version, &b.model_version)?;
    equal("doc_string", &a.doc, &b.doc)?;
    equal("metadata_props", &a.metadata, &b.metadata)?;
    equal("training_info and configuration", &a.verbatim, &b.verbatim)?;
    equal("other fields of the model", &a.extra, &b.extra)?;
    graphs(Names::new(&a.graph, None), Names::new(&b.graph, None))?;
    equal("number of functions", &a.functions.len(), &b.functions.len())?;
    for (a, b) in a.functions.iter().zip(&b.functions) {
        let place = || format!("function `{}`", a.name);
        let parts = |f: &crate::Function| {
            let names = (f.domain.clone(), f.name.clone(), f.overload.clone(), f.attributes.clone());
            (names, f.spelt_imports(), f.doc.clone(), f.metadata.clone(), f.extra.clone())
        };
        equal("function", &parts(a), &parts(b)).at(place)?;
        attributes(&a.defaults, None, &b.defaults, None).at(place)?;
        graphs(Names::new(&a.body, None), Names::new(&b.body, None)).at(place)?;
    }
    Ok(())
}

fn equal<T: PartialEq + Debug>(what: &str, a: &T, b: &T) -> Result<()> {
    if a == b { Ok(()) } else { Err(Error::mismatch(what, format!("{b:?}"), format!("{a:?}"))) }
}

fn graphs(a: Names<'_>, b: Names<'_>) -> Result<()> {
    let (g, h) = (a.graph(), b.graph());
    let about = |g: &Graph| (g.doc.clone(), g.metadata.clone(), g.extra.clone());
    equal("name of the graph", &g.name, &h.name)?;
    equal("doc_string, metadata and other fields", &about(g), &about(h))?;
    equal("quantization annotations", &g.quantization, &h.quantization)?;
    equal("opsets", &g.opsets, &h.opsets)?;
    equal("overridable inputs", &g.overridable_inputs, &h.overridable_inputs)?;
    let named = |info: &ValueInfo, name: &str| ValueInfo { name: name.into(), ..info.clone() };
    let input = |g: &Graph| -> Vec<ValueInfo> {
        g.inputs.iter().map(|i| named(&i.info, g.value_name(ValueId { node: i.node, output: 0 }))).collect()
    };
    equal("inputs", &input(g), &input(h))?;
    let output = |names: &Names<'_>| -> Result<Vec<ValueInfo>> {
        names.graph().outputs.iter().map(|o| Ok(named(&o.info, names.name(o.value)?))).collect()
    };
    equal("outputs", &output(&a)?, &output(&b)?)?;
    equal("value_info", &g.value_info, &h.value_info)?;
    constants(g, h)?;
    let (nodes_a, nodes_b) = (g.ops()?, h.ops()?);
    equal("number of nodes", &nodes_a.len(), &nodes_b.len())?;
    for (x, y) in nodes_a.into_iter().zip(nodes_b) {
        nodes(a, x, b, y).at(|| g.place(x))?;
    }
    Ok(())
}

/// Initializers, dense and sparse each in order.
fn constants(a: &Graph, b: &Graph) -> Result<()> {
    let all = |g: &Graph| -> Vec<(String, NodeId)> {
        let is_constant =
            |id: &NodeId| matches!(g.node(*id).kind, NodeKind::Constant(_) | NodeKind::SparseConstant(_));
        let name = |id: NodeId| g.value_name(ValueId { node: id, output: 0 }).to_string();
        g.nodes().into_iter().filter(is_constant).map(|id| (name(id), id)).collect()
    };
    let (all_a, all_b) = (all(a), all(b));
    equal("number of initializers", &all_a.len(), &all_b.len())?;
    for ((name, x), (other, y)) in all_a.into_iter().zip(all_b) {
        equal("name of an initializer", &name, &other)?;
        let place = || format!("initializer `{name}`");
        match (&a.node(x).kind, &b.node(y).kind) {
            (NodeKind::Constant(p), NodeKind::Constant(q)) => tensors(p, q, false).at(place)?,
            (NodeKind::SparseConstant(p), NodeKind::SparseConstant(q)) => {
                sparse(p, q).at(place)?;
            }
            _ => return Err(Error::mismatch("kind", "another", "dense or sparse in both").at(place())),
        }
    }
    Ok(())
}

/// Tensors with all that is said of them; `named` where the name is no value's.
fn tensors(a: &ConstTensor, b: &ConstTensor, named: bool) -> Result<()> {
    if named {
        equal("name", &a.name, &b.name)?;
    }
    let about = |t: &ConstTensor| (t.doc.clone(), t.metadata.clone(), t.extra.clone());
    equal("doc_string, metadata and other fields", &about(a), &about(b))?;
    // strings have one place only
    let stored = |t: &ConstTensor| (t.typed_field || t.tensor.dtype() == DType::String, t.external.clone());
    equal("place of the data", &stored(a), &stored(b))?;
    if a.tensor == b.tensor { Ok(()) } else { Err(Error::mismatch("data", "others", "equal data")) }
}

fn sparse(a: &ConstSparse, b: &ConstSparse) -> Result<()> {
    equal("shape", &a.shape, &b.shape)?;
    tensors(&a.values, &b.values, true)?;
    tensors(&a.indices, &b.indices, true)
}

fn nodes(a: Names<'_>, x: NodeId, b: Names<'_>, y: NodeId) -> Result<()> {
    let about = |g: &Graph, id: NodeId| {
        let node = g.node(id);
        (node.name.clone(), node.doc.clone(), node.metadata.clone(), node.extra.clone())
    };
    equal("name, doc_string, metadata and other fields", &about(a.graph(), x), &about(b.graph(), y))?;
    let values = |names: &Names<'_>, id: NodeId| -> Result<_> {
        let g = names.graph();
        let name = |v| names.name(v).map(str::to_string);
        let inputs: Vec<Option<String>> =
            g.inputs_of(id).into_iter().map(|v| v.map(name).transpose()).collect::<Result<_>>()?;
        let outputs: Vec<String> = g.node(id).outputs().iter().map(|o| o.name.clone()).collect();
        // captures are numbered as a reader meets them: the order is no property of the model
        let mut captures: Vec<String> = g.captures_of(id).into_iter().map(name).collect::<Result<_>>()?;
        captures.sort();
        Ok((inputs, outputs, captures))
    };
    equal("inputs, outputs and captures", &values(&a, x)?, &values(&b, y)?)?;
    let (Some(p), Some(q)) = (a.graph().op(x), b.graph().op(y)) else { return Ok(()) };
    let operator = |op: &OpNode| {
        let name = (op.op, op.domain.clone(), op.op_type.clone(), op.overload.clone());
        (name, op.version, op.n_inputs, op.device_configurations.clone())
    };
    equal("operator", &operator(p), &operator(q))?;
    let (owner_a, owner_b) = (Owner::new(a, x), Owner::new(b, y));
    attributes(&p.attrs, Some(&owner_a), &q.attrs, Some(&owner_b))
}

fn attributes(a: &Attrs, owner_a: Option<&Owner<'_>>, b: &Attrs, owner_b: Option<&Owner<'_>>) -> Result<()> {
    let about = |attrs: &Attrs| {
        attrs.iter().map(|a: &Attr| (a.name.clone(), a.doc.clone(), a.extra.clone())).collect::<Vec<_>>()
    };
    equal("attributes", &about(a), &about(b))?;
    for (a, b) in a.iter().zip(b.iter()) {
        values(&a.value, owner_a, &b.value, owner_b).at(|| format!("attribute `{}`", a.name))?;
    }
    Ok(())
}

fn values(
    a: &AttrValue,
    owner_a: Option<&Owner<'_>>,
    b: &AttrValue,
    owner_b: Option<&Owner<'_>>,
) -> Result<()> {
    use AttrValue as V;
    let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let subgraphs = |a: &Graph, b: &Graph| graphs(Names::new(a, owner_a), Names::new(b, owner_b));
    let is_same = match (a, b) {
        (V::Float(a), V::Float(b)) => a.to_bits() == b.to_bits(),
        (V::Floats(a), V::Floats(b)) => bits(a) == bits(b),
        (V::Int(a), V::Int(b)) => a == b,
        (V::Ints(a), V::Ints(b)) => a == b,
        (V::String(a), V::String(b)) => a == b,
        (V::Strings(a), V::Strings(b)) => a == b,
        (V::Tensor(a), V::Tensor(b)) => return tensors(a, b, true),
        (V::Tensors(a), V::Tensors(b)) if a.len() == b.len() => {
            return a.iter().zip(b).try_for_each(|(a, b)| tensors(a, b, true));
        }
        (V::SparseTensor(a), V::SparseTensor(b)) => return sparse(a, b),
        (V::SparseTensors(a), V::SparseTensors(b)) if a.len() == b.len() => {
            return a.iter().zip(b).try_for_each(|(a, b)| sparse(a, b));
        }
        (V::Type(a), V::Type(b)) => a == b,
        (V::Types(a), V::Types(b)) => a == b,
        (V::Ref(a, k), V::Ref(b, l)) => a == b && k == l,
        (V::Undefined, V::Undefined) => true,
        (V::Graph(a), V::Graph(b)) => return subgraphs(a, b),
        (V::Graphs(a), V::Graphs(b)) if a.len() == b.len() => {
            return a.iter().zip(b).try_for_each(|(a, b)| subgraphs(a, b));
        }
        // two different kinds, or numbers of elements
        _ => false,
    };
    if is_same { Ok(()) } else { Err(Error::mismatch("value", format!("{b:?}"), format!("{a:?}"))) }
}
