//! One of two models while one of their shared values is compared: computed in `f64`, with what bounds its error.
use crate::frontier::Shared;
use crate::sizes::{abs_of, sizes, terms, widened};
use crate::verify::{as_f64s, epsilon};
use fcc_ir::interp::{Values, eval_op};
use fcc_ir::random::Random;
use fcc_ir::{
    At, DType, Error, Function, Graph, Model, NodeId, NodeKind, OpNode, Result, Tensor, Value, ValueId,
};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap, HashSet};

/// A value of one side with what bounds its error.
#[derive(Clone)]
pub(crate) struct Known {
    pub value: Value,
    /// For each element the sum of the absolute products it is made of; the elements' own size if there is none.
    size: Option<Vec<f64>>,
    /// Unit roundoff of the coarsest type that some step was computed in; 0 if all were in `f64`.
    pub native: f64,
    /// Whether it is the same in every run.
    constant: bool,
}

/// In which type nodes are computed whose inputs are all constant.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Constants {
    /// In their own: what a rule has folded on one side is then equal in every bit to what the other side computes.
    AsFolded,
    /// In `f64`, as all others: two ways to compute the same constant then meet.
    Wide,
}

/// One model during the comparison of one value.
pub(crate) struct Side<'s> {
    model: &'s Model,
    shared: &'s Shared<'s>,
    /// Shared values that are computed rather than read.
    opened: &'s BTreeSet<String>,
    given: &'s Values,
    run: &'s Values,
    /// See [`inert`].
    inert: &'s HashSet<NodeId>,
    constants: Constants,
    done: HashMap<NodeId, Vec<Known>>,
    /// Terms of all sums so far.
    pub terms: u64,
}

impl<'s> Side<'s> {
    pub(crate) fn new(
        model: &'s Model,
        shared: &'s Shared<'s>,
        opened: &'s BTreeSet<String>,
        given: &'s Values,
        run: &'s Values,
        inert: &'s HashSet<NodeId>,
        constants: Constants,
    ) -> Self {
        Side { model, shared, opened, given, run, inert, constants, done: HashMap::new(), terms: 1 }
    }

    /// Whether a value is read from the run of the original.
    fn is_read(&self, name: &str) -> bool {
        self.shared.contains(name) && !self.opened.contains(name)
    }

    /// A value that a node of the stretch reads.
    fn value(&mut self, value: ValueId) -> Result<Known> {
        let graph = &self.model.graph;
        let name = graph.value_name(value);
        if let Some(t) = graph.constant(value) {
            return Ok(known(t.into(), true));
        }
        if self.is_read(name) || graph.op(value.node).is_none() {
            let found = self.run.get(name).or_else(|| self.given.get(name));
            let found = found.cloned().or_else(|| match &graph.node(value.node).kind {
                // overridable, and not overridden
                NodeKind::Constant(c) => Some(c.tensor.clone().into()),
                NodeKind::SparseConstant(s) => s.tensor().to_dense().ok().map(Value::from),
                NodeKind::Input | NodeKind::Capture(_) | NodeKind::Op(_) => None,
            });
            let found = found.ok_or_else(|| Error::invalid(format!("value `{name}` is not known")))?;
            // what depends on no input is one value under several names, which rules may merge: it stays as it is
            let filled = if self.inert.contains(&value.node) { found } else { lively(name, found) };
            return Ok(known(filled, false));
        }
        self.node(value)
    }

    /// Computes the node that makes a value, and what it reads down to shared values.
    pub(crate) fn node(&mut self, value: ValueId) -> Result<Known> {
        let output = value.output as usize;
        // an explicit stack: stretches may be long
        let mut work = vec![value.node];
        while let Some(&id) = work.last() {
            if self.done.contains_key(&id) {
                work.pop();
                continue;
            }
            let missing: Vec<NodeId> = self
                .feeds(id)
                .into_iter()
                .filter(|v| self.is_inside(*v) && !self.done.contains_key(&v.node))
                .map(|v| v.node)
                .collect();
            if missing.is_empty() {
                let made = self.compute(id).at(|| self.model.graph.place(id))?;
                self.done.insert(id, made);
                work.pop();
            } else {
                work.extend(missing);
            }
        }
        let made = self.done.get(&value.node).and_then(|all| all.get(output));
        made.cloned().ok_or_else(|| {
            Error::invalid(format!("{} has no output {output}", self.model.graph.place(value.node)))
        })
    }

    fn feeds(&self, id: NodeId) -> Vec<ValueId> {
        let graph = &self.model.graph;
        graph.inputs_of(id).into_iter().flatten().chain(graph.captures_of(id)).collect()
    }

    /// Whether a value is made by a node of the stretch.
    fn is_inside(&self, value: ValueId) -> bool {
        let graph = &self.model.graph;
        graph.op(value.node).is_some()
            && graph.constant(value).is_none()
            && !self.is_read(graph.value_name(value))
    }

    fn known_input(&mut self, value: ValueId) -> Result<Known> {
        if self.is_inside(value) {
            let made = self.done.get(&value.node).and_then(|all| all.get(value.output as usize));
            return made.cloned().ok_or_else(|| Error::invalid("a value is read before it is made"));
        }
        self.value(value)
    }

    fn compute(&mut self, id: NodeId) -> Result<Vec<Known>> {
        let graph = &self.model.graph;
        let Some(op) = graph.op(id) else {
            return Err(Error::invalid("not an operator"));
        };
        let inputs: Vec<Option<Known>> = graph
            .inputs_of(id)
            .into_iter()
            .map(|v| v.map(|v| self.known_input(v)).transpose())
            .collect::<Result<_>>()?;
        let captures: Vec<Known> =
            graph.captures_of(id).into_iter().map(|v| self.known_input(v)).collect::<Result<_>>()?;
        let wanted: Vec<bool> = graph.node(id).outputs().iter().map(|o| !o.name.is_empty()).collect();
        let functions = &self.model.functions;
        let plain = |widen: bool| -> Result<Vec<Value>> {
            let take = |k: &Known| if widen { widened_value(&k.value) } else { k.value.clone() };
            let given: Vec<Option<Value>> = inputs.iter().map(|k| k.as_ref().map(take)).collect();
            let outer: Vec<Value> = captures.iter().map(|k| k.value.clone()).collect();
            eval_op(op, functions, &given, &outer, &wanted)
        };
        let constant =
            !inputs.is_empty() && inputs.iter().flatten().all(|k| k.constant) && captures.is_empty();
        let inherited = inputs.iter().flatten().chain(&captures).map(|k| k.native).fold(0.0, f64::max);
        let (values, native) = if constant && self.constants == Constants::AsFolded {
            (plain(false)?, inherited)
        } else {
            // the constants of a subgraph keep their type, so that it runs in that
            let wide = if op.attrs.graphs().next().is_some() { None } else { plain(true).ok() };
            match wide {
                // a Cast to a narrower type rounds, although it was given f64
                Some(values) => {
                    let unit = rounding(&values).max(inherited);
                    (values, unit)
                }
                None => {
                    let narrowed = narrowed(graph, id, &inputs, op, functions, &captures, &wanted)?;
                    let unit = rounding(&narrowed).max(inherited);
                    (narrowed, unit)
                }
            }
        };
        self.terms = self.terms.saturating_add(terms(op, &inputs));
        let sizes = sizes(op, functions, &inputs, &wanted, &values);
        Ok(values
            .into_iter()
            .zip(sizes)
            .map(|(value, size)| Known { value, size: Some(size), native, constant })
            .collect())
    }
}

/// Unit roundoff of the coarsest float type among the values; 0 for `f64`, whose rounding every bound counts.
fn rounding(values: &[Value]) -> f64 {
    let types = values.iter().filter_map(|v| v.as_tensor().ok()).map(Tensor::dtype);
    types.filter(|d| d.is_float() && *d != DType::F64).map(epsilon).fold(0.0, f64::max)
}

fn known(value: Value, constant: bool) -> Known {
    Known { value, size: None, native: 0.0, constant }
}

impl Known {
    /// The sums of absolute products. Those of large constants are made when they are asked for, and not kept.
    pub(crate) fn size(&self) -> Cow<'_, [f64]> {
        match &self.size {
            Some(size) => Cow::Borrowed(size),
            None => Cow::Owned(abs_of(&self.value)),
        }
    }
}

/// The operators whose results depend on nothing that a run computes from its inputs, but for their shapes.
pub(crate) fn inert(model: &Model) -> Result<HashSet<NodeId>> {
    let graph = &model.graph;
    let mut found = HashSet::new();
    for id in graph.ops()? {
        let Some(op) = graph.op(id) else { continue };
        let reads = graph.inputs_of(id).into_iter().flatten().chain(graph.captures_of(id));
        let fixed = |v: ValueId| graph.constant(v).is_some() || found.contains(&v.node);
        let random = op.op.is_random() || op.op == fcc_ir::Op::Opaque;
        let only_shape = matches!(op.onnx_name(), "ConstantOfShape" | "Shape" | "Size");
        if only_shape || (!random && reads.into_iter().all(fixed)) {
            found.insert(id);
        }
    }
    Ok(found)
}

/// The value with seeded numbers in place of its zeros, within the range that it has. Both sides read the same value,
/// so that any will do; behind a Relu half of them would be zero and hide the weights that they are multiplied with.
fn lively(name: &str, value: Value) -> Value {
    let Value::Tensor(t) = &value else { return value };
    if !matches!(t.dtype(), DType::F64 | DType::F32 | DType::F16 | DType::BF16) {
        return value;
    }
    let Some(mut elements) = as_f64s(t).filter(|v| v.contains(&0.0)) else { return value };
    let largest = elements.iter().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()));
    let scale = if largest > 0.0 { largest } else { 1.0 };
    let (negative, positive) = (elements.iter().any(|v| *v < 0.0), elements.iter().any(|v| *v > 0.0));
    let seed =
        name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let mut random = Random::new(seed);
    for v in elements.iter_mut().filter(|v| **v == 0.0) {
        let drawn = (random.unit() * 2.0 - 1.0) * scale;
        *v = match (negative, positive) {
            (false, true) => drawn.abs(),
            (true, false) => -drawn.abs(),
            _ => drawn,
        };
    }
    let filled = Tensor::new(t.shape(), elements).ok().and_then(|wide| match t.dtype() {
        DType::F64 => Some(wide),
        dtype => narrow_tensor(&wide, dtype),
    });
    filled.map_or(value, Value::from)
}

fn widened_value(v: &Value) -> Value {
    match v {
        Value::Tensor(t) => widened(t).into(),
        other => other.clone(),
    }
}

/// The node computed in the types that the graph gives its inputs.
fn narrowed(
    graph: &Graph,
    id: NodeId,
    inputs: &[Option<Known>],
    op: &OpNode,
    functions: &[Function],
    captures: &[Known],
    wanted: &[bool],
) -> Result<Vec<Value>> {
    let narrow = |known: &Known, ty: Option<DType>| -> Value {
        match (&known.value, ty) {
            (Value::Tensor(t), Some(dtype)) if t.dtype() == DType::F64 && dtype != DType::F64 => {
                narrow_tensor(t, dtype).unwrap_or_else(|| t.clone()).into()
            }
            (v, _) => v.clone(),
        }
    };
    let declared = |v: Option<ValueId>| graph.ty(v?).as_tensor().map(|t| t.dtype);
    let given: Vec<Option<Value>> = inputs
        .iter()
        .zip(graph.inputs_of(id))
        .map(|(known, v)| known.as_ref().map(|k| narrow(k, declared(v))))
        .collect();
    let outer: Vec<Value> =
        captures.iter().zip(graph.captures_of(id)).map(|(k, v)| narrow(k, declared(Some(v)))).collect();
    eval_op(op, functions, &given, &outer, wanted)
}

fn narrow_tensor(t: &Tensor, dtype: DType) -> Option<Tensor> {
    use fcc_ir::half::{bf16, f16};
    let v = t.as_slice::<f64>().ok()?;
    match dtype {
        DType::F32 => Tensor::new(t.shape(), v.iter().map(|v| *v as f32).collect()).ok(),
        DType::F16 => Tensor::new(t.shape(), v.iter().map(|v| f16::from_f64(*v)).collect()).ok(),
        DType::BF16 => Tensor::new(t.shape(), v.iter().map(|v| bf16::from_f64(*v)).collect()).ok(),
        _ => None,
    }
}
