//! Messages of the ONNX schema from tensors, types and attributes.
use fcc_ir::{DType, Dim, Tensor, ValueType};
use fcc_onnx::proto::attribute_proto::AttributeType as Kind;
use fcc_onnx::proto::tensor_shape_proto::{Dimension, dimension};
use fcc_onnx::proto::{
    AttributeProto, GraphProto, NodeProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
    type_proto,
};

/// A tensor under this name.
pub fn tensor(name: &str, t: &Tensor) -> TensorProto {
    let mut proto = TensorProto {
        name: Some(name.into()),
        dims: t.shape().iter().map(|n| *n as i64).collect(),
        data_type: Some(t.dtype() as i32),
        ..Default::default()
    };
    match t.as_strings() {
        Ok(strings) => proto.string_data = strings.to_vec(),
        Err(_) => proto.raw_data = Some(t.bytes().clone()),
    }
    proto
}

/// A type.
pub fn value_type(ty: &ValueType) -> TypeProto {
    use type_proto::Value as P;
    let inner = |ty: &ValueType| (*ty != ValueType::Unknown).then(|| Box::new(value_type(ty)));
    let value = match ty {
        ValueType::Tensor(t) => {
            let elem_type = (t.dtype != DType::Undefined).then_some(t.dtype as i32);
            let dims = |dims: &Vec<Dim>| TensorShapeProto { dim: dims.iter().map(dim).collect() };
            Some(P::TensorType(type_proto::Tensor { elem_type, shape: t.shape.as_ref().map(dims) }))
        }
        ValueType::Sequence(t) => {
            Some(P::SequenceType(Box::new(type_proto::Sequence { elem_type: inner(t) })))
        }
        ValueType::Optional(t) => {
            Some(P::OptionalType(Box::new(type_proto::Optional { elem_type: inner(t) })))
        }
        ValueType::Map(key, t) => {
            Some(P::MapType(Box::new(type_proto::Map { key_type: Some(*key as i32), value_type: inner(t) })))
        }
        ValueType::Unknown | ValueType::SparseTensor(_) | ValueType::Opaque(..) => None,
    };
    TypeProto { value, denotation: None }
}

fn dim(d: &Dim) -> Dimension {
    let value = match d {
        Dim::Known(n) => Some(dimension::Value::DimValue(*n as i64)),
        Dim::Sym(_) => Some(dimension::Value::DimParam(d.to_string())),
        Dim::Unknown => None,
    };
    Dimension { value, denotation: None }
}

/// A name with its type.
pub fn info(name: &str, ty: &ValueType) -> ValueInfoProto {
    let r#type = (*ty != ValueType::Unknown).then(|| value_type(ty));
    ValueInfoProto { name: Some(name.into()), r#type, ..Default::default() }
}

/// The attributes of a node, under construction.
#[derive(Debug, Clone, Default)]
pub struct Attrs(pub Vec<AttributeProto>);

/// No attributes yet.
pub fn attrs() -> Attrs {
    Attrs::default()
}

impl Attrs {
    fn with(mut self, name: &str, kind: Kind, set: impl FnOnce(&mut AttributeProto)) -> Attrs {
        let mut a =
            AttributeProto { name: Some(name.into()), r#type: Some(kind as i32), ..Default::default() };
        set(&mut a);
        self.0.push(a);
        self
    }
    /// An integer.
    pub fn int(self, name: &str, v: i64) -> Attrs {
        self.with(name, Kind::Int, |a| a.i = Some(v))
    }
    /// A list of integers.
    pub fn ints(self, name: &str, v: &[i64]) -> Attrs {
        self.with(name, Kind::Ints, |a| a.ints = v.to_vec())
    }
    /// A float.
    pub fn float(self, name: &str, v: f32) -> Attrs {
        self.with(name, Kind::Float, |a| a.f = Some(v))
    }
    /// A list of floats.
    pub fn floats(self, name: &str, v: &[f32]) -> Attrs {
        self.with(name, Kind::Floats, |a| a.floats = v.to_vec())
    }
    /// A string.
    pub fn str(self, name: &str, v: &str) -> Attrs {
        self.with(name, Kind::String, |a| a.s = Some(v.as_bytes().to_vec().into()))
    }
    /// A list of strings.
    pub fn strs(self, name: &str, v: &[&str]) -> Attrs {
        self.with(name, Kind::Strings, |a| {
            a.strings = v.iter().map(|s| s.as_bytes().to_vec().into()).collect()
        })
    }
    /// A tensor.
    pub fn tensor(self, name: &str, v: &Tensor) -> Attrs {
        self.with(name, Kind::Tensor, |a| a.t = Some(tensor("", v)))
    }
    /// A graph.
    pub fn graph(self, name: &str, v: GraphProto) -> Attrs {
        self.with(name, Kind::Graph, |a| a.g = Some(v))
    }
    /// A type.
    pub fn ty(self, name: &str, v: &ValueType) -> Attrs {
        self.with(name, Kind::TypeProto, |a| a.tp = Some(value_type(v)))
    }
    /// A reference to an attribute of the function around the node.
    pub fn reference(self, name: &str, kind: Kind, to: &str) -> Attrs {
        self.with(name, kind, |a| a.ref_attr_name = Some(to.into()))
    }
    /// These attributes if `yes`, else the ones so far.
    pub fn when(self, yes: bool, more: impl FnOnce(Attrs) -> Attrs) -> Attrs {
        if yes { more(self) } else { self }
    }
}

/// Every name that a node reads, those of its subgraphs included (names made inside are among them too).
pub fn reads(node: &NodeProto) -> Vec<&str> {
    let mut names: Vec<&str> = node.input.iter().map(String::as_str).filter(|n| !n.is_empty()).collect();
    for graph in node.attribute.iter().filter_map(|a| a.g.as_ref()) {
        names.extend(graph.node.iter().flat_map(reads));
        names.extend(graph.output.iter().map(|o| o.name()));
    }
    names
}
