//! Attributes of operators, kept as the file gave them.
use crate::{Error, Graph, Result, SparseTensor, StringList, Tensor, ValueType};
use bytes::Bytes;
use std::sync::Arc;

/// A constant as a file holds it: the tensor with what `TensorProto` says besides.
#[derive(Debug, Clone, PartialEq)]
pub struct ConstTensor {
    /// The data.
    pub tensor: Tensor,
    /// `TensorProto.name`; for an initializer the name is the value's.
    pub name: String,
    /// `doc_string`.
    pub doc: String,
    /// `metadata_props`, in file order.
    pub metadata: Vec<(String, String)>,
    /// Whether the file spelt the elements in a typed field (`float_data`, …) instead of `raw_data`.
    pub typed_field: bool,
    /// Whether the data came from a file beside the model, with the location's other entries.
    pub external: Option<Vec<(String, String)>>,
    /// Fields of the file's message that have no place here (such as ones that are present and empty), encoded:
    /// what the exporter starts from. Empty for what fcc made.
    pub extra: Bytes,
}

impl From<Tensor> for ConstTensor {
    fn from(tensor: Tensor) -> Self {
        ConstTensor {
            tensor,
            name: String::new(),
            doc: String::new(),
            metadata: vec![],
            typed_field: false,
            external: None,
            extra: Bytes::new(),
        }
    }
}

/// A sparse constant as a file holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct ConstSparse {
    /// Values `[NNZ]`; its name is the initializer's name.
    pub values: ConstTensor,
    /// Indices `[NNZ]` or `[NNZ, rank]`.
    pub indices: ConstTensor,
    /// The dense extents.
    pub shape: Vec<usize>,
}

impl ConstSparse {
    /// The tensor without its names.
    pub fn tensor(&self) -> SparseTensor {
        SparseTensor {
            values: self.values.tensor.clone(),
            indices: self.indices.tensor.clone(),
            shape: self.shape.clone(),
        }
    }
}

/// The kinds of attribute, numbered as in ONNX `AttributeProto.AttributeType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
#[allow(missing_docs)]
pub enum AttrKind {
    Undefined = 0,
    Float = 1,
    Int = 2,
    String = 3,
    Tensor = 4,
    Graph = 5,
    Floats = 6,
    Ints = 7,
    Strings = 8,
    Tensors = 9,
    Graphs = 10,
    SparseTensor = 11,
    SparseTensors = 12,
    Type = 13,
    Types = 14,
}

/// The value of an attribute. Lists of numbers and strings are shared: a clone of a tree ensemble's node copies none of
/// its millions of elements.
#[derive(Debug, Clone)]
#[allow(missing_docs)]
pub enum AttrValue {
    Float(f32),
    Int(i64),
    String(Bytes),
    Tensor(ConstTensor),
    Graph(Box<Graph>),
    SparseTensor(Box<ConstSparse>),
    Type(ValueType),
    Floats(Arc<[f32]>),
    Ints(Arc<[i64]>),
    Strings(StringList),
    Tensors(Vec<ConstTensor>),
    Graphs(Vec<Graph>),
    SparseTensors(Vec<ConstSparse>),
    Types(Vec<ValueType>),
    /// In a function body: the value is the calling node's attribute of this name.
    Ref(String, AttrKind),
    /// A file gave a name and no value.
    Undefined,
}

impl AttrValue {
    /// Which kind of attribute this is.
    pub fn kind(&self) -> AttrKind {
        use AttrValue as V;
        match self {
            V::Float(_) => AttrKind::Float,
            V::Int(_) => AttrKind::Int,
            V::String(_) => AttrKind::String,
            V::Tensor(_) => AttrKind::Tensor,
            V::Graph(_) => AttrKind::Graph,
            V::SparseTensor(_) => AttrKind::SparseTensor,
            V::Type(_) => AttrKind::Type,
            V::Floats(_) => AttrKind::Floats,
            V::Ints(_) => AttrKind::Ints,
            V::Strings(_) => AttrKind::Strings,
            V::Tensors(_) => AttrKind::Tensors,
            V::Graphs(_) => AttrKind::Graphs,
            V::SparseTensors(_) => AttrKind::SparseTensors,
            V::Types(_) => AttrKind::Types,
            V::Ref(_, kind) => *kind,
            V::Undefined => AttrKind::Undefined,
        }
    }
}

/// A named attribute.
#[derive(Debug, Clone)]
pub struct Attr {
    /// Its name.
    pub name: String,
    /// `doc_string`.
    pub doc: String,
    /// Its value.
    pub value: AttrValue,
    /// Fields of the file's message that have no place here (such as ones that are present and empty), encoded:
    /// what the exporter starts from. Empty for what fcc made.
    pub extra: Bytes,
}

/// The attributes of a node, in file order.
#[derive(Debug, Clone, Default)]
pub struct Attrs(Vec<Attr>);

macro_rules! getter {
    ($(#[$doc:meta])* $name:ident, $variant:ident($pat:ident) => $expr:expr, $ty:ty, $wanted:literal) => {
        $(#[$doc])*
        pub fn $name(&self, name: &str) -> Result<Option<$ty>> {
            match self.get(name) {
                None => Ok(None),
                Some(AttrValue::$variant($pat)) => Ok(Some($expr)),
                Some(other) => Err(Error::mismatch(
                    format!("attribute `{name}`"), format!("{:?}", other.kind()), $wanted)),
            }
        }
    };
}

impl Attrs {
    /// No attributes.
    pub fn new() -> Self {
        Self::default()
    }
    /// All attributes, in order.
    pub fn iter(&self) -> impl Iterator<Item = &Attr> {
        self.0.iter()
    }
    /// All attributes, in order, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Attr> {
        self.0.iter_mut()
    }
    /// Whether all attributes have the same names and values, lists and tensors by their place in memory: quick, however
    /// long they are.
    pub fn shares(&self, other: &Attrs) -> bool {
        let same = |a: &Attr, b: &Attr| {
            a.name == b.name
                && match (&a.value, &b.value) {
                    (AttrValue::Ints(a), AttrValue::Ints(b)) => Arc::ptr_eq(a, b),
                    (AttrValue::Floats(a), AttrValue::Floats(b)) => Arc::ptr_eq(a, b),
                    (AttrValue::Strings(a), AttrValue::Strings(b)) => a.shares(b),
                    (AttrValue::Tensor(a), AttrValue::Tensor(b)) => {
                        let (a, b) = (&a.tensor, &b.tensor);
                        a.tensor_type() == b.tensor_type() && a.bytes().as_ptr() == b.bytes().as_ptr()
                    }
                    (AttrValue::Int(a), AttrValue::Int(b)) => a == b,
                    (AttrValue::Float(a), AttrValue::Float(b)) => a.to_bits() == b.to_bits(),
                    (AttrValue::String(a), AttrValue::String(b)) => a == b,
                    _ => false,
                }
        };
        self.0.len() == other.0.len() && self.0.iter().zip(&other.0).all(|(a, b)| same(a, b))
    }
    /// The value of an attribute.
    pub fn get(&self, name: &str) -> Option<&AttrValue> {
        self.0.iter().find(|a| a.name == name).map(|a| &a.value)
    }
    /// Appends an attribute as read.
    pub fn push(&mut self, attr: Attr) {
        self.0.push(attr);
    }
    /// Sets or replaces an attribute.
    pub fn set(&mut self, name: &str, value: impl Into<AttrValue>) {
        let value = value.into();
        match self.0.iter_mut().find(|a| a.name == name) {
            Some(a) => a.value = value,
            None => self.0.push(Attr { name: name.into(), doc: String::new(), value, extra: Bytes::new() }),
        }
    }
    /// The attributes with one more (builder style).
    pub fn with(mut self, name: &str, value: impl Into<AttrValue>) -> Self {
        self.set(name, value);
        self
    }
    /// Removes an attribute.
    pub fn remove(&mut self, name: &str) {
        self.0.retain(|a| a.name != name);
    }
    getter! {
        /// An integer, if given. Errors if it has another kind.
        int, Int(v) => *v, i64, "an int"
    }
    getter! {
        /// A float, if given. Errors if it has another kind.
        float, Float(v) => *v, f32, "a float"
    }
    getter! {
        /// A list of integers, if given. Errors if it has another kind.
        ints, Ints(v) => &**v, &[i64], "a list of ints"
    }
    getter! {
        /// A list of floats, if given. Errors if it has another kind.
        floats, Floats(v) => &**v, &[f32], "a list of floats"
    }
    getter! {
        /// A tensor, if given. Errors if it has another kind.
        tensor, Tensor(v) => &v.tensor, &Tensor, "a tensor"
    }
    getter! {
        /// A graph, if given. Errors if it has another kind.
        graph, Graph(v) => v.as_ref(), &Graph, "a graph"
    }
    getter! {
        /// A list of byte strings, if given. Errors if it has another kind.
        strings, Strings(v) => v, &StringList, "a list of strings"
    }
    /// A string, if given. Errors if it has another kind or is not UTF-8.
    pub fn str(&self, name: &str) -> Result<Option<&str>> {
        match self.get(name) {
            None => Ok(None),
            Some(AttrValue::String(s)) => std::str::from_utf8(s)
                .map(Some)
                .map_err(|_| Error::mismatch(format!("attribute `{name}`"), format!("{s:?}"), "UTF-8")),
            Some(other) => {
                Err(Error::mismatch(format!("attribute `{name}`"), format!("{:?}", other.kind()), "a string"))
            }
        }
    }
    /// An integer, or its default.
    pub fn int_or(&self, name: &str, default: i64) -> Result<i64> {
        Ok(self.int(name)?.unwrap_or(default))
    }
    /// A float, or its default.
    pub fn float_or(&self, name: &str, default: f32) -> Result<f32> {
        Ok(self.float(name)?.unwrap_or(default))
    }
    /// A string, or its default.
    pub fn str_or<'a>(&'a self, name: &str, default: &'a str) -> Result<&'a str> {
        Ok(self.str(name)?.unwrap_or(default))
    }
    /// A flag: an integer that is 0 or 1 (any other value counts as 1, as elsewhere).
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        Ok(self.int(name)?.map_or(default, |v| v != 0))
    }
    /// A required integer.
    pub fn need_int(&self, name: &str) -> Result<i64> {
        self.int(name)?.ok_or_else(|| missing(name))
    }
    /// A required list of integers.
    pub fn need_ints(&self, name: &str) -> Result<&[i64]> {
        self.ints(name)?.ok_or_else(|| missing(name))
    }
    /// A required graph.
    pub fn need_graph(&self, name: &str) -> Result<&Graph> {
        self.graph(name)?.ok_or_else(|| missing(name))
    }
    /// Every graph among the attributes, in order.
    pub fn graphs(&self) -> impl Iterator<Item = &Graph> {
        self.0.iter().flat_map(|a| match &a.value {
            AttrValue::Graph(g) => std::slice::from_ref(g.as_ref()),
            AttrValue::Graphs(gs) => gs.as_slice(),
            _ => &[],
        })
    }
    /// Every graph among the attributes, in order, to change.
    pub fn graphs_mut(&mut self) -> impl Iterator<Item = &mut Graph> {
        self.0.iter_mut().flat_map(|a| match &mut a.value {
            AttrValue::Graph(g) => std::slice::from_mut(g.as_mut()),
            AttrValue::Graphs(gs) => gs.as_mut_slice(),
            _ => &mut [],
        })
    }
}

fn missing(name: &str) -> Error {
    Error::mismatch(format!("attribute `{name}`"), "none", "a value")
}

macro_rules! from { ($($t:ty => $v:ident($e:expr);)*) => { $(
    impl From<$t> for AttrValue { #[allow(clippy::redundant_closure_call)] fn from(v: $t) -> Self { AttrValue::$v(($e)(v)) } }
)* } }
from! {
    i64 => Int(|v| v);
    f32 => Float(|v| v);
    Vec<i64> => Ints(Arc::from);
    &[i64] => Ints(Arc::from);
    Vec<f32> => Floats(Arc::from);
    Vec<Bytes> => Strings(StringList::from);
    StringList => Strings(|v| v);
    &str => String(|v: &str| Bytes::copy_from_slice(v.as_bytes()));
    Tensor => Tensor(ConstTensor::from);
    Graph => Graph(Box::new);
}
