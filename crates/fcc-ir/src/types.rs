//! Types of values: tensors with symbolic shapes, sequences, optionals, maps.
use crate::{DType, Dim};
use bytes::Bytes;
use std::fmt;

/// A shape whose rank is known.
pub type Shape = Vec<Dim>;

/// The type of a dense or sparse tensor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TensorType {
    /// Element type; [`DType::Undefined`] if not known.
    pub dtype: DType,
    /// Extents; `None` if not even the rank is known.
    pub shape: Option<Shape>,
}

/// The type of a value, as in ONNX `TypeProto`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum ValueType {
    /// Nothing is known.
    #[default]
    Unknown,
    /// A dense tensor.
    Tensor(TensorType),
    /// A sparse tensor.
    SparseTensor(TensorType),
    /// A list of values of one type.
    Sequence(Box<ValueType>),
    /// A value or nothing.
    Optional(Box<ValueType>),
    /// A map from an integer or string type.
    Map(DType, Box<ValueType>),
    /// A type that only its domain knows: domain and name.
    Opaque(String, String),
}

impl TensorType {
    /// The greatest rank of a tensor, as in NumPy 2: every node that passes one on costs its rank.
    pub const MAX_RANK: usize = 64;

    /// A tensor type with a known rank.
    pub fn new(dtype: DType, shape: impl IntoIterator<Item = impl Into<Dim>>) -> Self {
        TensorType { dtype, shape: Some(shape.into_iter().map(Into::into).collect()) }
    }
    /// A tensor type of unknown rank.
    pub fn unranked(dtype: DType) -> Self {
        TensorType { dtype, shape: None }
    }
    /// The extents, if all are fixed.
    pub fn known_shape(&self) -> Option<Vec<usize>> {
        self.shape.as_ref()?.iter().map(Dim::known).collect()
    }
    /// The rank, if known.
    pub fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(Vec::len)
    }
}

impl ValueType {
    /// A dense tensor type with a known rank.
    pub fn tensor(dtype: DType, shape: impl IntoIterator<Item = impl Into<Dim>>) -> Self {
        ValueType::Tensor(TensorType::new(dtype, shape))
    }
    /// The tensor type, if this is a dense tensor.
    pub fn as_tensor(&self) -> Option<&TensorType> {
        match self {
            ValueType::Tensor(t) => Some(t),
            _ => None,
        }
    }
    /// What both say together, the more precise of each part; `Err` names the first contradiction.
    ///
    /// Two different symbols for one extent do not contradict each other: `self`'s is kept.
    pub fn merge(&self, other: &ValueType) -> Result<ValueType, String> {
        use ValueType::*;
        Ok(match (self, other) {
            (Unknown, t) | (t, Unknown) => t.clone(),
            (Tensor(a), Tensor(b)) => Tensor(a.merge(b)?),
            (SparseTensor(a), SparseTensor(b)) => SparseTensor(a.merge(b)?),
            (Sequence(a), Sequence(b)) => Sequence(Box::new(a.merge(b)?)),
            (Optional(a), Optional(b)) => Optional(Box::new(a.merge(b)?)),
            (Map(k, a), Map(l, b)) if k == l => Map(*k, Box::new(a.merge(b)?)),
            (a, b) if a == b => a.clone(),
            (a, b) => return Err(format!("{a} against {b}")),
        })
    }
    /// Calls `f` with every dimension.
    pub fn for_each_dim(&mut self, f: &mut dyn FnMut(&mut Dim)) {
        match self {
            ValueType::Tensor(t) | ValueType::SparseTensor(t) => t.shape.iter_mut().flatten().for_each(f),
            ValueType::Sequence(t) | ValueType::Optional(t) | ValueType::Map(_, t) => t.for_each_dim(f),
            ValueType::Unknown | ValueType::Opaque(..) => {}
        }
    }
}

impl TensorType {
    fn merge(&self, other: &TensorType) -> Result<TensorType, String> {
        let dtype = match (self.dtype, other.dtype) {
            (DType::Undefined, d) | (d, DType::Undefined) => d,
            (a, b) if a == b => a,
            (a, b) => return Err(format!("element type {a} against {b}")),
        };
        let shape = match (&self.shape, &other.shape) {
            (None, s) | (s, None) => s.clone(),
            (Some(a), Some(b)) if a.len() == b.len() => {
                let dims = a.iter().zip(b).enumerate().map(|(i, (a, b))| match (a, b) {
                    (Dim::Known(x), Dim::Known(y)) if x != y => {
                        Err(format!("dimension {i}: {x} against {y}"))
                    }
                    (Dim::Known(_), _) | (_, Dim::Unknown) => Ok(a.clone()),
                    (_, Dim::Known(_)) | (Dim::Unknown, _) => Ok(b.clone()),
                    (Dim::Sym(_), Dim::Sym(_)) => Ok(a.clone()),
                });
                Some(dims.collect::<Result<_, _>>()?)
            }
            (Some(a), Some(b)) => return Err(format!("rank {} against {}", a.len(), b.len())),
        };
        Ok(TensorType { dtype, shape })
    }
}

impl From<TensorType> for ValueType {
    fn from(t: TensorType) -> Self {
        ValueType::Tensor(t)
    }
}

impl fmt::Display for TensorType {
    /// ONNX text syntax: `float[batch,3,224,?]`, `float[]` of unknown rank, `float` for a scalar.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.dtype)?;
        match &self.shape {
            None => f.write_str("[]"),
            Some(s) if s.is_empty() => Ok(()),
            Some(s) => {
                let dims: Vec<String> = s.iter().map(Dim::to_string).collect();
                write!(f, "[{}]", dims.join(","))
            }
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ValueType::Unknown => f.write_str("?"),
            ValueType::Tensor(t) => write!(f, "{t}"),
            ValueType::SparseTensor(t) => write!(f, "sparse_tensor({t})"),
            ValueType::Sequence(t) => write!(f, "seq({t})"),
            ValueType::Optional(t) => write!(f, "optional({t})"),
            ValueType::Map(k, t) => write!(f, "map({k}, {t})"),
            ValueType::Opaque(d, n) => write!(f, "opaque({d}, {n})"),
        }
    }
}

/// A name with its type and what a file says about it: an input, an output or an entry of `value_info`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ValueInfo {
    /// The value's name.
    pub name: String,
    /// The declared type.
    pub ty: ValueType,
    /// `doc_string`.
    pub doc: String,
    /// `metadata_props`, in file order.
    pub metadata: Vec<(String, String)>,
    /// The type's `denotation`, such as `IMAGE`.
    pub denotation: String,
    /// Each dimension's `denotation`, such as `DATA_BATCH`; empty if none has one.
    pub dim_denotations: Vec<String>,
    /// Fields of the file's message that have no place here (such as ones that are present and empty), encoded:
    /// what the exporter starts from. Empty for what fcc made. A type kept
    /// in it is the file's spelling, and counts only while it still means `ty`.
    pub extra: Bytes,
}

impl ValueInfo {
    /// A name with its type and nothing more.
    pub fn new(name: impl Into<String>, ty: impl Into<ValueType>) -> Self {
        ValueInfo { name: name.into(), ty: ty.into(), ..Default::default() }
    }
}
