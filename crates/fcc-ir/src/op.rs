//! What every operator gives: its schema, shape inference and reference evaluation.
use crate::graph::OpNode;
use crate::{DType, Dim, Error, Graph, Result, Shape, Tensor, TensorType, Value, ValueType};
use std::sync::Arc;

/// The fixed facts of an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schema {
    /// ONNX name.
    pub name: &'static str,
    /// Domain, `""` for `ai.onnx`.
    pub domain: &'static str,
    /// Every opset version that changed the operator, ascending.
    pub since: &'static [i64],
    /// Least and greatest number of inputs over all versions (`usize::MAX`: any number).
    pub inputs: (usize, usize),
    /// Least and greatest number of outputs over all versions.
    pub outputs: (usize, usize),
}

/// An operator. One value of an implementing type stands for it; nothing has a default.
///
/// Attributes stay on the node as the file gave them. Each operator reads every since-version of itself into one
/// meaning, by functions of its module that inference, evaluation, rules and the code generator share.
pub trait Operator: Sync {
    /// Name, domain, versions, arity.
    fn schema(&self) -> Schema;
    /// The types of all outputs. Input types may be unknown in part: answer with what is certain, and err only on
    /// what the ONNX text forbids.
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>>;
    /// The outputs, computed plainly in the order of the ONNX text. Errors on input the text forbids.
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>>;
}

/// What inference knows of a value.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fact {
    /// The type.
    pub ty: ValueType,
    /// The elements of a small integer tensor (a shape, axes, an extent), as dimensions.
    pub dims: Option<DimTensor>,
    /// The whole value, if it is the same in every run.
    pub value: Option<Tensor>,
}

/// The elements of an integer scalar or vector, symbolic where they come from symbolic shapes.
///
/// A vector is at most [`DimTensor::MAX_ELEMS`] long: shapes, axes and pads are short, and what is followed for each
/// node of a model must not grow from node to node.
#[derive(Debug, Clone, PartialEq)]
pub struct DimTensor {
    scalar: bool,
    elems: Vec<Dim>,
}

impl DimTensor {
    /// The longest vector whose elements are followed.
    pub const MAX_ELEMS: usize = 1024;

    /// A scalar.
    pub fn scalar(elem: Dim) -> Self {
        DimTensor { scalar: true, elems: vec![elem] }
    }
    /// A vector; `None` where it is longer than [`DimTensor::MAX_ELEMS`]. No more than that are asked of `elems`.
    pub fn vector(elems: impl IntoIterator<Item = Dim>) -> Option<Self> {
        let elems: Vec<Dim> = elems.into_iter().take(Self::MAX_ELEMS + 1).collect();
        (elems.len() <= Self::MAX_ELEMS).then_some(DimTensor { scalar: false, elems })
    }
    /// A scalar or a vector of one element, or a longer vector; `None` as [`DimTensor::vector`], or where a scalar
    /// would not have one element.
    pub fn of(scalar: bool, elems: impl IntoIterator<Item = Dim>) -> Option<Self> {
        let DimTensor { elems, .. } = Self::vector(elems)?;
        (!scalar || elems.len() == 1).then_some(DimTensor { scalar, elems })
    }
    /// Whether it is a scalar (one element) rather than a vector.
    pub fn is_scalar(&self) -> bool {
        self.scalar
    }
    /// The elements. A negative constant (the -1 of a Reshape) stands as a constant expression.
    pub fn elems(&self) -> &[Dim] {
        &self.elems
    }
    /// The elements.
    pub fn into_elems(self) -> Vec<Dim> {
        self.elems
    }
    /// The first element, unknown if there is none.
    pub fn first(self) -> Dim {
        self.elems.into_iter().next().unwrap_or_default()
    }
    /// Element `i`, if it is a constant, negative ones included.
    pub fn int(&self, i: usize) -> Option<i64> {
        match self.elems.get(i)? {
            Dim::Known(n) => i64::try_from(*n).ok(),
            Dim::Sym(e) => e.as_constant(),
            Dim::Unknown => None,
        }
    }
    /// All elements, if all are constant.
    pub fn ints(&self) -> Option<Vec<i64>> {
        (0..self.elems.len()).map(|i| self.int(i)).collect()
    }
    /// The element that stands for an integer.
    pub fn elem(value: i64) -> Dim {
        usize::try_from(value).map_or_else(|_| Dim::Sym(crate::DimExpr::constant(value)), Dim::Known)
    }
}

impl From<ValueType> for Fact {
    fn from(ty: ValueType) -> Self {
        Fact { ty, ..Default::default() }
    }
}
impl From<TensorType> for Fact {
    fn from(ty: TensorType) -> Self {
        ValueType::Tensor(ty).into()
    }
}
impl Fact {
    /// A fact of a tensor whose value is known.
    pub fn constant(value: Tensor) -> Fact {
        Fact { ty: value.tensor_type().into(), dims: None, value: Some(value) }
    }
    /// What a run knows of a value: its type, and its elements where they are few enough to be shapes, pads and the
    /// like, on which the size of an output depends.
    pub fn of_value(value: &Value) -> Fact {
        match value {
            Value::Tensor(t) if t.len() <= 64 => Fact::constant(t.clone()),
            other => other.value_type().into(),
        }
    }
    /// The elements as dimensions, from `dims` or from a constant `int64`/`int32` of rank 0 or 1.
    pub fn dim_tensor(&self) -> Option<DimTensor> {
        if let Some(d) = &self.dims {
            return Some(d.clone());
        }
        let t = self.value.as_ref().filter(|t| t.rank() <= 1 && t.len() <= DimTensor::MAX_ELEMS)?;
        DimTensor::of(t.rank() == 0, t.to_i64s().ok()?.into_iter().map(DimTensor::elem))
    }
    /// A fact of an integer scalar or vector given by its elements: a constant if they all are.
    pub fn of_dims(dtype: DType, dims: DimTensor) -> Fact {
        let shape = if dims.scalar { vec![] } else { vec![dims.elems.len()] };
        if let Some(ints) = dims.ints()
            && let Ok(value) = crate::convert::from_i64s(dtype, shape.clone(), ints)
        {
            return Fact::constant(value);
        }
        Fact { ty: ValueType::tensor(dtype, shape), dims: Some(dims), value: None }
    }
}

/// Infers a subgraph: facts of its inputs -> facts of its outputs.
pub type InferSubgraph<'a> = dyn Fn(&Graph, &[Fact]) -> Result<Vec<Fact>> + 'a;
/// Runs a subgraph: its inputs -> its outputs.
pub type RunSubgraph<'a> = dyn Fn(&Graph, Vec<Value>) -> Result<Vec<Value>> + 'a;

/// What inference of one node sees.
pub struct InferCtx<'a> {
    /// The node.
    pub node: &'a OpNode,
    /// Facts of the inputs by slot; `None` for an absent optional input.
    pub inputs: &'a [Option<Fact>],
    /// Number of outputs the node lists (absent ones included).
    pub n_outputs: usize,
    /// Infers a subgraph of the node.
    pub subgraph: &'a InferSubgraph<'a>,
}

impl<'a> InferCtx<'a> {
    /// Opset version of the node's domain.
    pub fn version(&self) -> i64 {
        self.node.version
    }
    /// Whether an optional input is there.
    pub fn has(&self, i: usize) -> bool {
        self.inputs.get(i).is_some_and(Option::is_some)
    }
    /// The fact of a required input. Errors if it is absent.
    pub fn fact(&self, i: usize) -> Result<&'a Fact> {
        self.inputs.get(i).and_then(Option::as_ref).ok_or_else(|| missing_input(i))
    }
    /// The type of a required input.
    pub fn ty(&self, i: usize) -> Result<&'a ValueType> {
        Ok(&self.fact(i)?.ty)
    }
    /// The tensor type of a required input: `Ok(None)` if its type is unknown; errors if it is not a tensor.
    pub fn tensor(&self, i: usize) -> Result<Option<&'a TensorType>> {
        match self.ty(i)? {
            ValueType::Unknown => Ok(None),
            ValueType::Tensor(t) => Ok(Some(t)),
            other => Err(Error::mismatch(format!("input {i}"), other, "a tensor")),
        }
    }
    /// The element type of a required input, [`DType::Undefined`] if unknown.
    pub fn dtype(&self, i: usize) -> Result<DType> {
        Ok(self.tensor(i)?.map_or(DType::Undefined, |t| t.dtype))
    }
    /// Errors unless the first `n` inputs, where they are there and known, have one element type.
    pub fn need_one_dtype(&self, n: usize) -> Result<()> {
        let dtypes = (0..n).map(|i| self.ty(i).ok()?.as_tensor().map(|t| t.dtype));
        one_dtype(dtypes)
    }
    /// The shape of a required input, `None` if its rank is unknown.
    pub fn shape(&self, i: usize) -> Result<Option<&'a Shape>> {
        Ok(self.tensor(i)?.and_then(|t| t.shape.as_ref()))
    }
    /// Errors unless an input can have this shape, as far as it is there and its shape is known.
    pub fn need_shape(&self, i: usize, wanted: &[Dim]) -> Result<()> {
        let Some(shape) = self.known_shape(i) else { return Ok(()) };
        let fits = shape.len() == wanted.len() && shape.iter().zip(wanted).all(|(a, b)| a.compatible(b));
        if fits { Ok(()) } else { Err(shape_error(i, shape, &dims_text(wanted))) }
    }
    /// Errors unless an input can be broadcast to this shape (which stays as it is), as far as it is there and its
    /// shape is known.
    pub fn need_stretch(&self, i: usize, to: &[Dim]) -> Result<()> {
        let Some(shape) = self.known_shape(i) else { return Ok(()) };
        let fits = |(a, b): (&Dim, &Dim)| *a == Dim::Known(1) || a.compatible(b);
        if shape.len() <= to.len() && shape.iter().rev().zip(to.iter().rev()).all(fits) {
            return Ok(());
        }
        Err(shape_error(i, shape, &format!("one that stretches to {}", dims_text(to))))
    }
    /// Errors unless an input can have one element, as far as it is there and its shape is known.
    pub fn need_one_element(&self, i: usize) -> Result<()> {
        match self.known_shape(i) {
            Some(shape) if !shape.iter().all(|d| d.compatible(&Dim::Known(1))) => {
                Err(shape_error(i, shape, "one element"))
            }
            _ => Ok(()),
        }
    }
    fn known_shape(&self, i: usize) -> Option<&'a Shape> {
        self.inputs.get(i)?.as_ref()?.ty.as_tensor()?.shape.as_ref()
    }
    /// The value of an input, if it is there and the same in every run.
    pub fn value(&self, i: usize) -> Option<&'a Tensor> {
        self.inputs.get(i)?.as_ref()?.value.as_ref()
    }
    /// The elements of an integer input as dimensions, if they are known.
    pub fn dims(&self, i: usize) -> Option<DimTensor> {
        self.inputs.get(i)?.as_ref()?.dim_tensor()
    }
}

/// What evaluation of one node sees.
pub struct EvalCtx<'a> {
    /// The node.
    pub node: &'a OpNode,
    /// Inputs by slot; `None` for an absent optional input.
    pub inputs: &'a [Option<Value>],
    /// Which outputs the node lists (absent optional ones are `false`).
    pub wanted: &'a [bool],
    /// Runs a subgraph of the node.
    pub subgraph: &'a RunSubgraph<'a>,
    /// Infers a subgraph of the node, of which no values are made; what it captures has the types of this run.
    pub infer: &'a InferSubgraph<'a>,
}

impl<'a> EvalCtx<'a> {
    /// Opset version of the node's domain.
    pub fn version(&self) -> i64 {
        self.node.version
    }
    /// Errors if the run is to stop: for loops that may take long. Code without a context calls
    /// [`limits::check`](crate::limits::check) itself, or loops over [`limits::watched`](crate::limits::watched).
    pub fn check(&self) -> Result<()> {
        crate::limits::check()
    }
    /// Whether an optional input is there.
    pub fn has(&self, i: usize) -> bool {
        self.inputs.get(i).is_some_and(Option::is_some)
    }
    /// Whether the node lists this output.
    pub fn wants(&self, i: usize) -> bool {
        self.wanted.get(i).copied().unwrap_or(false)
    }
    /// A required input. Errors if it is absent.
    pub fn value(&self, i: usize) -> Result<&'a Value> {
        self.inputs.get(i).and_then(Option::as_ref).ok_or_else(|| missing_input(i))
    }
    /// A required tensor. Errors if it is absent or not a tensor.
    pub fn tensor(&self, i: usize) -> Result<&'a Tensor> {
        self.value(i)?.as_tensor()
    }
    /// An optional tensor. Errors if it is there and not a tensor.
    pub fn opt_tensor(&self, i: usize) -> Result<Option<&'a Tensor>> {
        self.inputs.get(i).and_then(Option::as_ref).map(Value::as_tensor).transpose()
    }
    /// Errors unless the first `n` inputs, where they are there, have one element type.
    pub fn need_one_dtype(&self, n: usize) -> Result<()> {
        one_dtype((0..n).map(|i| self.opt_tensor(i).ok().flatten().map(Tensor::dtype)))
    }
}

fn shape_error(i: usize, got: &[Dim], wanted: &str) -> Error {
    Error::mismatch(format!("shape of input {i}"), dims_text(got), wanted)
}

/// Extents as messages show them: `[N,3,?]`.
fn dims_text(dims: &[Dim]) -> String {
    format!("[{}]", dims.iter().map(Dim::to_string).collect::<Vec<_>>().join(","))
}

fn one_dtype(dtypes: impl Iterator<Item = Option<DType>>) -> Result<()> {
    let mut known = dtypes.enumerate().filter_map(|(i, t)| Some((i, t.filter(|t| *t != DType::Undefined)?)));
    let Some((first, wanted)) = known.next() else { return Ok(()) };
    match known.find(|(_, t)| *t != wanted) {
        Some((i, got)) => {
            let wanted = format!("{wanted} as of input {first}");
            Err(Error::mismatch(format!("element type of input {i}"), got, wanted))
        }
        None => Ok(()),
    }
}

fn missing_input(i: usize) -> Error {
    Error::mismatch(format!("input {i}"), "none", "a value")
}

/// Errors unless a node lists as many outputs as its subgraph (or the function that it calls) makes for it.
pub fn need_outputs(listed: usize, made: usize) -> Result<()> {
    if listed == made {
        return Ok(());
    }
    Err(Error::mismatch("number of outputs", listed, format!("{made}, as many as the subgraph makes")))
}

/// The error of an operator that does not compute this element type.
pub fn unsupported_dtype(dtype: DType) -> Error {
    Error::unsupported(format!("element type {dtype}"))
}

/// An axis in `-rank..rank` made non-negative. Errors outside.
pub fn axis(value: i64, rank: usize) -> Result<usize> {
    let r = i64::try_from(rank).map_err(|_| Error::invalid("rank too large"))?;
    let v = if value < 0 { value + r } else { value };
    if (0..r).contains(&v) {
        Ok(v as usize)
    } else {
        Err(Error::mismatch("axis", value, format!("-{r}..{r}")))
    }
}

/// The opsets of a graph that tests and rules build by hand: `ai.onnx` at `version`.
pub fn default_opsets(version: i64) -> Arc<crate::Opsets> {
    Arc::new(crate::Opsets::from([(String::new(), version)]))
}
