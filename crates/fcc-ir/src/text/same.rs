//! Equality of models as far as the text form goes: what `parse(print(g)) == g` means.

use crate::attr::{AttrValue, Attrs, ConstSparse, ConstTensor};
use crate::{
    At, Error, Graph, Model, NodeId, NodeKind, OpNode, Result, SparseTensor, Tensor, ValueInfo, ValueType,
};
use std::fmt::Debug;

/// Whether two models say the same, as far as the text form can say it; the error names the first difference.
///
/// Numbers are compared bit by bit, nodes in topological order. What the text form leaves out does not count.
pub fn same(a: &Model, b: &Model) -> Result<()> {
    equal("ir_version", &a.ir_version, &b.ir_version)?;
    equal("opset_import", &a.opset_imports, &b.opset_imports)?;
    equal("producer_name", &a.producer_name, &b.producer_name)?;
    equal("producer_version", &a.producer_version, &b.producer_version)?;
    equal("domain", &a.domain, &b.domain)?;
    equal("model_version", &a.model_version, &b.model_version)?;
    equal("doc_string", &a.doc, &b.doc)?;
    equal("metadata_props", &a.metadata, &b.metadata)?;
    graphs(&a.graph, &b.graph)?;
    equal("number of functions", &a.functions.len(), &b.functions.len())?;
    for (a, b) in a.functions.iter().zip(&b.functions) {
        let place = || format!("function `{}`", a.name);
        let parts = |f: &crate::Function| {
            let names = (f.domain.clone(), f.name.clone(), f.overload.clone(), f.attributes.clone());
            (names, f.doc.clone(), f.metadata.clone())
        };
        equal("function", &parts(a), &parts(b)).at(place)?;
        attributes(&a.defaults, &b.defaults).at(place)?;
        graphs(&a.body, &b.body).at(place)?;
    }
    Ok(())
}

fn equal<T: PartialEq + Debug>(what: &str, a: &T, b: &T) -> Result<()> {
    if a == b { Ok(()) } else { Err(Error::mismatch(what, format!("{b:?}"), format!("{a:?}"))) }
}

fn graphs(a: &Graph, b: &Graph) -> Result<()> {
    equal("name of the graph", &a.name, &b.name)?;
    equal("doc_string and metadata", &(&a.doc, &a.metadata), &(&b.doc, &b.metadata))?;
    equal("opsets", &a.opsets, &b.opsets)?;
    let infos = |infos: &mut dyn Iterator<Item = &ValueInfo>| -> Vec<(String, ValueType)> {
        infos.map(|i| (i.name.clone(), i.ty.clone())).collect()
    };
    let inputs = |g: &Graph| infos(&mut g.inputs.iter().map(|i| &i.info));
    let outputs = |g: &Graph| infos(&mut g.outputs.iter().map(|o| &o.info));
    equal("inputs", &inputs(a), &inputs(b))?;
    equal("outputs", &outputs(a), &outputs(b))?;
    equal("value_info", &infos(&mut a.value_info.iter()), &infos(&mut b.value_info.iter()))?;
    equal("initializers", &constants(a), &constants(b))?;
    let (nodes_a, nodes_b) = (a.ops()?, b.ops()?);
    equal("number of nodes", &nodes_a.len(), &nodes_b.len())?;
    for (x, y) in nodes_a.into_iter().zip(nodes_b) {
        nodes(a, x, b, y).at(|| a.place(x))?;
    }
    Ok(())
}

#[derive(Debug, PartialEq)]
enum Constant {
    Dense(Tensor),
    Sparse(SparseTensor),
}

fn constants(g: &Graph) -> Vec<(String, Constant)> {
    let constant = |id: NodeId| {
        let node = g.node(id);
        let constant = match &node.kind {
            NodeKind::Constant(c) => Constant::Dense(c.tensor.clone()),
            NodeKind::SparseConstant(s) => Constant::Sparse(s.tensor()),
            NodeKind::Input | NodeKind::Capture(_) | NodeKind::Op(_) => return None,
        };
        Some((node.outputs().first().map(|o| o.name.clone()).unwrap_or_default(), constant))
    };
    g.nodes().into_iter().filter_map(constant).collect()
}

fn nodes(a: &Graph, x: NodeId, b: &Graph, y: NodeId) -> Result<()> {
    let about = |g: &Graph, id: NodeId| {
        let node = g.node(id);
        (node.name.clone(), node.doc.clone(), node.metadata.clone())
    };
    equal("name, doc_string and metadata", &about(a, x), &about(b, y))?;
    let names = |g: &Graph, id: NodeId| {
        let name = |v| g.value_name(v).to_string();
        let inputs: Vec<Option<String>> = g.inputs_of(id).into_iter().map(|v| v.map(name)).collect();
        let outputs: Vec<String> = g.node(id).outputs().iter().map(|o| o.name.clone()).collect();
        // captures are numbered as a reader meets them: the order is no property of the model
        let mut captures: Vec<String> = g.captures_of(id).into_iter().map(name).collect();
        captures.sort();
        (inputs, outputs, captures)
    };
    equal("inputs, outputs and captures", &names(a, x), &names(b, y))?;
    let (Some(p), Some(q)) = (a.op(x), b.op(y)) else { return Ok(()) };
    let operator = |op: &OpNode| {
        (op.op, op.domain.clone(), op.op_type.clone(), op.overload.clone(), op.version, op.n_inputs)
    };
    equal("operator", &operator(p), &operator(q))?;
    attributes(&p.attrs, &q.attrs)
}

fn attributes(a: &Attrs, b: &Attrs) -> Result<()> {
    let names = |attrs: &Attrs| attrs.iter().map(|a| a.name.clone()).collect::<Vec<_>>();
    equal("attributes", &names(a), &names(b))?;
    for (a, b) in a.iter().zip(b.iter()) {
        values(&a.value, &b.value).at(|| format!("attribute `{}`", a.name))?;
    }
    Ok(())
}

fn values(a: &AttrValue, b: &AttrValue) -> Result<()> {
    use AttrValue as V;
    let tensor = |c: &ConstTensor| (c.name.clone(), c.tensor.clone());
    let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let is_same = match (a, b) {
        (V::Float(a), V::Float(b)) => a.to_bits() == b.to_bits(),
        (V::Floats(a), V::Floats(b)) => bits(a) == bits(b),
        (V::Int(a), V::Int(b)) => a == b,
        (V::Ints(a), V::Ints(b)) => a == b,
        (V::String(a), V::String(b)) => a == b,
        (V::Strings(a), V::Strings(b)) => a == b,
        (V::Tensor(a), V::Tensor(b)) => tensor(a) == tensor(b),
        (V::Tensors(a), V::Tensors(b)) => a.iter().map(tensor).eq(b.iter().map(tensor)),
        (V::SparseTensor(a), V::SparseTensor(b)) => a.tensor() == b.tensor(),
        (V::SparseTensors(a), V::SparseTensors(b)) => {
            a.iter().map(ConstSparse::tensor).eq(b.iter().map(ConstSparse::tensor))
        }
        (V::Type(a), V::Type(b)) => a == b,
        (V::Types(a), V::Types(b)) => a == b,
        (V::Ref(a, k), V::Ref(b, l)) => a == b && k == l,
        (V::Undefined, V::Undefined) => true,
        (V::Graph(a), V::Graph(b)) => return graphs(a, b),
        (V::Graphs(a), V::Graphs(b)) if a.len() == b.len() => {
            return a.iter().zip(b).try_for_each(|(a, b)| graphs(a, b));
        }
        // two different kinds
        _ => false,
    };
    if is_same { Ok(()) } else { Err(Error::mismatch("value", format!("{b:?}"), format!("{a:?}"))) }
}
