//! `AttributeProto`, both ways.

use std::collections::HashSet;

use fcc_ir::Owner;
use fcc_ir::attr::{Attr, AttrKind, AttrValue, Attrs};

use crate::error::{At, quoted};
use crate::import_graph::Nesting;
use crate::keep::{Kept, put};
use crate::proto::AttributeProto;
use crate::proto::attribute_proto::AttributeType as T;
use crate::{Error, Result, export, tensors, types};

/// Reads attributes; the graphs among them as subgraphs of the node that `nesting` describes.
pub(crate) fn import(protos: Vec<AttributeProto>, nesting: &mut Nesting<'_, '_>) -> Result<Attrs> {
    let mut attrs = Attrs::new();
    let mut seen = HashSet::new();
    for proto in protos {
        let name = proto.name().to_string();
        let place = || format!("attribute {}", quoted(&name));
        if !seen.insert(name.clone()) {
            return Err(Error::invalid("attribute", "the same name twice", "unique names").at(place()));
        }
        attrs.push(one(proto, nesting).at(place)?);
    }
    Ok(attrs)
}

fn one(mut proto: AttributeProto, nesting: &mut Nesting<'_, '_>) -> Result<Attr> {
    let kind = kind(&proto)?;
    let missing = || Error::invalid("value", "none", format!("{kind:?}"));
    let reference = proto.ref_attr_name.take_if(|name| !name.is_empty());
    let value = if let Some(reference) = reference {
        AttrValue::Ref(reference, attr_kind(kind))
    } else {
        match kind {
            T::Undefined => AttrValue::Undefined,
            T::Float => AttrValue::Float(proto.f.take().unwrap_or_default()),
            T::Int => AttrValue::Int(proto.i.take().unwrap_or_default()),
            T::String => AttrValue::String(proto.s.take().unwrap_or_default()),
            T::Floats => std::mem::take(&mut proto.floats).into(),
            T::Ints => std::mem::take(&mut proto.ints).into(),
            T::Strings => std::mem::take(&mut proto.strings).into(),
            T::Tensor => {
                AttrValue::Tensor(tensors::import(proto.t.take().ok_or_else(missing)?, nesting.source())?)
            }
            T::Tensors => {
                let all = std::mem::take(&mut proto.tensors).into_iter();
                AttrValue::Tensors(all.map(|t| tensors::import(t, nesting.source())).collect::<Result<_>>()?)
            }
            T::SparseTensor => {
                let sparse = proto.sparse_tensor.take().ok_or_else(missing)?;
                AttrValue::SparseTensor(Box::new(tensors::import_sparse(sparse, nesting.source())?))
            }
            T::SparseTensors => {
                let all = std::mem::take(&mut proto.sparse_tensors).into_iter();
                let read = all.map(|t| tensors::import_sparse(t, nesting.source()));
                AttrValue::SparseTensors(read.collect::<Result<_>>()?)
            }
            T::Graph => AttrValue::Graph(Box::new(nesting.subgraph(proto.g.take().ok_or_else(missing)?)?)),
            T::Graphs => {
                let all = std::mem::take(&mut proto.graphs).into_iter();
                AttrValue::Graphs(all.map(|g| nesting.subgraph(g)).collect::<Result<_>>()?)
            }
            T::TypeProto => {
                let spelt = proto.tp.as_ref().ok_or_else(missing)?;
                let ty = types::import(spelt)?;
                if types::export(&ty) == *spelt {
                    proto.tp = None;
                }
                AttrValue::Type(ty)
            }
            T::TypeProtos => {
                let read: Vec<_> = proto.type_protos.iter().map(types::import).collect::<Result<_>>()?;
                if read.iter().map(types::export).eq(proto.type_protos.iter().cloned()) {
                    proto.type_protos.clear();
                }
                AttrValue::Types(read)
            }
        }
    };
    // a value of another kind than the attribute's is kept, but nothing reads it
    let extra = proto.kept();
    let (name, doc) = (proto.name.take(), proto.doc_string.take());
    Ok(Attr { name: name.unwrap_or_default(), doc: doc.unwrap_or_default(), value, extra })
}

/// The kind that a file gives, or, before IR 2 had the field, the kind of the value that is there.
fn kind(proto: &AttributeProto) -> Result<T> {
    if let Some(code) = proto.r#type {
        return T::try_from(code)
            .map_err(|_| Error::invalid("attribute type", format!("code {code}"), "a code from 0 to 14"));
    }
    let there = [
        (T::Float, proto.f.is_some()),
        (T::Int, proto.i.is_some()),
        (T::String, proto.s.is_some()),
        (T::Tensor, proto.t.is_some()),
        (T::Graph, proto.g.is_some()),
        (T::SparseTensor, proto.sparse_tensor.is_some()),
        (T::TypeProto, proto.tp.is_some()),
        (T::Floats, !proto.floats.is_empty()),
        (T::Ints, !proto.ints.is_empty()),
        (T::Strings, !proto.strings.is_empty()),
        (T::Tensors, !proto.tensors.is_empty()),
        (T::Graphs, !proto.graphs.is_empty()),
        (T::SparseTensors, !proto.sparse_tensors.is_empty()),
        (T::TypeProtos, !proto.type_protos.is_empty()),
    ];
    let kinds: Vec<T> = there.iter().filter(|(_, there)| *there).map(|(kind, _)| *kind).collect();
    match kinds.as_slice() {
        [] => Ok(T::Undefined),
        [kind] => Ok(*kind),
        several => Err(Error::invalid("attribute type", format!("none, and values {several:?}"), "a type")),
    }
}

macro_rules! kinds { ($($onnx:ident $ir:ident),*) => {
    fn attr_kind(kind: T) -> AttrKind {
        match kind { $(T::$onnx => AttrKind::$ir,)* }
    }
    fn attribute_type(kind: AttrKind) -> T {
        match kind { $(AttrKind::$ir => T::$onnx,)* }
    }
} }
kinds! { Undefined Undefined, Float Float, Int Int, String String, Tensor Tensor, Graph Graph, Floats Floats,
Ints Ints, Strings Strings, Tensors Tensors, Graphs Graphs, SparseTensor SparseTensor,
SparseTensors SparseTensors, TypeProto Type, TypeProtos Types }

/// Writes one attribute; `owner` is the node that holds it, for the names that its subgraphs capture.
pub(crate) fn export(attr: &Attr, owner: Option<&Owner<'_>>) -> Result<AttributeProto> {
    let mut proto = AttributeProto::restored(&attr.extra);
    put(&mut proto.name, &attr.name);
    put(&mut proto.doc_string, &attr.doc);
    proto.r#type = Some(attribute_type(attr.value.kind()) as i32);
    match &attr.value {
        AttrValue::Undefined => {}
        AttrValue::Ref(name, _) => proto.ref_attr_name = Some(name.clone()),
        AttrValue::Float(v) => proto.f = Some(*v),
        AttrValue::Int(v) => proto.i = Some(*v),
        AttrValue::String(v) => proto.s = Some(v.clone()),
        AttrValue::Floats(v) => proto.floats = v.to_vec(),
        AttrValue::Ints(v) => proto.ints = v.to_vec(),
        AttrValue::Strings(v) => proto.strings = v.iter().cloned().collect(),
        AttrValue::Tensor(v) => proto.t = Some(tensors::export(v)),
        AttrValue::Tensors(v) => proto.tensors = v.iter().map(tensors::export).collect(),
        AttrValue::SparseTensor(v) => proto.sparse_tensor = Some(tensors::export_sparse(v)),
        AttrValue::SparseTensors(v) => proto.sparse_tensors = v.iter().map(tensors::export_sparse).collect(),
        AttrValue::Graph(v) => proto.g = Some(export::graph(v, owner)?),
        AttrValue::Graphs(v) => {
            proto.graphs = v.iter().map(|g| export::graph(g, owner)).collect::<Result<_>>()?
        }
        AttrValue::Type(ty) => {
            let spelt = proto.tp.take().filter(|spelt| types::import(spelt).is_ok_and(|t| t == *ty));
            proto.tp = Some(spelt.unwrap_or_else(|| types::export(ty)));
        }
        AttrValue::Types(tys) => {
            let spelt: Result<Vec<_>> = proto.type_protos.iter().map(types::import).collect();
            if spelt.as_ref() != Ok(tys) {
                proto.type_protos = tys.iter().map(types::export).collect();
            }
        }
    }
    Ok(proto)
}
