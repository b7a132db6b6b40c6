//! Stretches of changed nodes between the values that two models share by name, computed on both sides in `f64`.
use crate::verify::{Random, as_f64s, epsilon, index_of};
use fcc_ir::attr::{AttrValue, Attrs};
use fcc_ir::interp::{Values, eval_op};
use fcc_ir::text::{PrintOptions, print_graph};
use fcc_ir::{
    At, DType, Error, Function, Graph, Model, NodeId, NodeKind, OpNode, Result, Tensor, Value, ValueId,
    ValueInfo,
};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What both models share and where they differ.
pub(crate) struct Stretches<'m> {
    original: &'m Model,
    rewritten: &'m Model,
    /// Names of values of both graphs that are not constant in either.
    shared: BTreeSet<String>,
    /// Shared values whose node differs, in the order of the rewritten graph: there both sides are compared.
    targets: Vec<ValueId>,
}

/// One value compared.
pub(crate) struct Compared {
    pub value: String,
    pub place: String,
    pub elements: usize,
    /// The largest error in parts of its bound.
    pub worst: f64,
    pub differs: Option<ElementDiffers>,
}

pub(crate) struct ElementDiffers {
    pub index: Vec<usize>,
    pub original: String,
    pub rewritten: String,
    pub bound: f64,
}

impl<'m> Stretches<'m> {
    pub(crate) fn new(original: &'m Model, rewritten: &'m Model) -> Result<Stretches<'m>> {
        let (a, b) = (&original.graph, &rewritten.graph);
        let varies = |g: &Graph, v: ValueId| g.constant(v).is_none();
        let shared: BTreeSet<String> = a
            .names()
            .filter(|name| {
                a.value(name)
                    .zip(b.value(name))
                    .is_some_and(|(u, v)| varies(a, u) && varies(b, v) && a.ty(u).merge(b.ty(v)).is_ok())
            })
            .map(String::from)
            .collect();
        for o in &a.outputs {
            if !b.outputs.iter().any(|p| p.info.name == o.info.name) {
                return Err(Error::mismatch(
                    "outputs of the rewritten model",
                    "none",
                    format!("`{}`", o.info.name),
                ));
            }
        }
        let mut targets = vec![];
        for id in b.ops()? {
            for value in b.values_of(id).filter(|v| shared.contains(b.value_name(*v))) {
                if !same_producer(original, rewritten, value) {
                    targets.push(value);
                }
            }
        }
        Ok(Stretches { original, rewritten, shared, targets })
    }

    /// The original with every value that the comparison reads as an output.
    pub(crate) fn observed_model(&self) -> Model {
        let mut model = self.original.clone();
        let mut names: BTreeSet<String> = BTreeSet::new();
        for target in &self.targets {
            let name = self.rewritten.graph.value_name(*target);
            for graph in [&self.original.graph, &self.rewritten.graph] {
                if let Some(value) = graph.value(name) {
                    self.frontier(graph, value, &mut names, &mut BTreeSet::new());
                }
            }
        }
        for name in names {
            if let Some(value) = model.graph.value(&name)
                && !model.graph.is_output(value)
                && model.graph.op(value.node).is_some()
            {
                let info = ValueInfo::new(name, model.graph.ty(value).clone());
                model.graph.add_output(value, info);
            }
        }
        model
    }

    /// Names of the shared values that a stretch ending in `value` reads.
    fn frontier(
        &self,
        graph: &Graph,
        value: ValueId,
        names: &mut BTreeSet<String>,
        seen: &mut BTreeSet<NodeId>,
    ) {
        let mut work = vec![value.node];
        while let Some(node) = work.pop() {
            if !seen.insert(node) {
                continue;
            }
            let feeds = graph.inputs_of(node).into_iter().flatten().chain(graph.captures_of(node));
            for feed in feeds {
                if self.shared.contains(graph.value_name(feed)) {
                    names.insert(graph.value_name(feed).to_string());
                } else {
                    work.push(feed.node);
                }
            }
        }
    }

    /// Compares every target. `run`: the outputs of [`Stretches::observed_model`].
    pub(crate) fn compare<'s>(
        &'s self,
        given: &'s Values,
        run: &'s Values,
    ) -> impl Iterator<Item = Result<Compared>> + 's {
        self.targets.iter().map(move |target| self.compare_value(*target, given, run))
    }

    fn compare_value(&self, target: ValueId, given: &Values, run: &Values) -> Result<Compared> {
        let name = self.rewritten.graph.value_name(target).to_string();
        let place = self.rewritten.graph.place(target.node);
        let side = |model: &'m Model| Side {
            model,
            shared: &self.shared,
            given,
            run,
            done: HashMap::new(),
            read: BTreeMap::new(),
            terms: 1,
        };
        let (mut was, mut is) = (side(self.original), side(self.rewritten));
        let Some(source) = self.original.graph.value(&name) else {
            return Err(Error::invalid(format!("value `{name}` is not in the original")));
        };
        let a = was.node(source).at(|| "the original")?;
        let b = is.node(target).at(|| "the rewritten model")?;
        let terms = was.terms.saturating_add(is.terms) as f64;
        // a shared value that only one side reads is rounded there and computed in f64 on the other
        let one_sided = was.read.iter().filter(|(name, _)| !is.read.contains_key(*name));
        let one_sided = one_sided.chain(is.read.iter().filter(|(name, _)| !was.read.contains_key(*name)));
        let frontier = one_sided.map(|(_, unit)| *unit).fold(0.0, f64::max);
        let native = a.native.max(b.native).max(frontier);
        let mut compared = Compared { value: name, place, elements: 0, worst: 0.0, differs: None };
        let (Value::Tensor(x), Value::Tensor(y)) = (&a.value, &b.value) else {
            if a.value != b.value {
                compared.differs = Some(ElementDiffers {
                    index: vec![],
                    original: a.value.value_type().to_string(),
                    rewritten: b.value.value_type().to_string(),
                    bound: 0.0,
                });
            }
            return Ok(compared);
        };
        compared.elements = x.len();
        let types_differ = x.shape() != y.shape() || (widened(x).dtype() != widened(y).dtype());
        let (x, y) = match (types_differ, as_f64s(x), as_f64s(y)) {
            (false, Some(xs), Some(ys)) => (xs, ys),
            (false, _, _) if x.bytes() == y.bytes() => return Ok(compared),
            _ => {
                compared.differs = Some(ElementDiffers {
                    index: vec![],
                    original: format!("{x:?}"),
                    rewritten: format!("{y:?}"),
                    bound: 0.0,
                });
                return Ok(compared);
            }
        };
        let shape = b.value.as_tensor()?.shape().to_vec();
        let unit = native.max(f64::EPSILON);
        let (of_a, of_b) = (a.size(), b.size());
        for (i, (x, y)) in x.iter().zip(&y).enumerate() {
            if x == y || (x.is_nan() && y.is_nan()) {
                continue;
            }
            let size = of_a.get(i).copied().unwrap_or(0.0).max(of_b.get(i).copied().unwrap_or(0.0));
            let (error, bound) = ((x - y).abs(), 2.0 * unit * terms * size);
            let explained = error <= bound;
            if !explained {
                compared.worst = f64::INFINITY;
                compared.differs = Some(ElementDiffers {
                    index: index_of(i, &shape),
                    original: x.to_string(),
                    rewritten: y.to_string(),
                    bound,
                });
                return Ok(compared);
            }
            compared.worst = compared.worst.max(error / bound);
        }
        Ok(compared)
    }
}

/// Whether the node that makes a value is the same in both models, fed by values of the same names.
fn same_producer(original: &Model, rewritten: &Model, value: ValueId) -> bool {
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

fn same_attr(a: &AttrValue, b: &AttrValue) -> bool {
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
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
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

/// A value of one side with what bounds its error.
#[derive(Clone)]
struct Known {
    value: Value,
    /// For each element the sum of the absolute products it is made of; the elements' own size if there is none.
    size: Option<Vec<f64>>,
    /// Unit roundoff of the coarsest type that some step was computed in; 0 if all were in `f64`.
    native: f64,
    /// Whether it is the same in every run.
    constant: bool,
}

/// One model during the comparison of one value.
struct Side<'s> {
    model: &'s Model,
    shared: &'s BTreeSet<String>,
    given: &'s Values,
    run: &'s Values,
    done: HashMap<NodeId, Vec<Known>>,
    /// Shared values read so far, with the unit roundoff of their type.
    read: BTreeMap<String, f64>,
    /// Terms of all sums so far.
    terms: u64,
}

impl Side<'_> {
    /// A value that a node of the stretch reads.
    fn value(&mut self, value: ValueId) -> Result<Known> {
        let graph = &self.model.graph;
        let name = graph.value_name(value);
        if let Some(t) = graph.constant(value) {
            return Ok(known(t.into(), true));
        }
        if self.shared.contains(name) || graph.op(value.node).is_none() {
            let found = self.run.get(name).or_else(|| self.given.get(name));
            let found = found.cloned().or_else(|| match &graph.node(value.node).kind {
                // overridable, and not overridden
                NodeKind::Constant(c) => Some(c.tensor.clone().into()),
                NodeKind::SparseConstant(s) => s.tensor().to_dense().ok().map(Value::from),
                NodeKind::Input | NodeKind::Capture(_) | NodeKind::Op(_) => None,
            });
            let found = found.ok_or_else(|| Error::invalid(format!("value `{name}` is not known")))?;
            self.read.insert(name.to_string(), rounding(std::slice::from_ref(&found)));
            return Ok(known(lively(name, found), false));
        }
        self.node(value)
    }

    /// Computes the node that makes a value, and what it reads down to shared values.
    fn node(&mut self, value: ValueId) -> Result<Known> {
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
            && !self.shared.contains(graph.value_name(value))
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
        // what is constant is computed as it is folded: in its own type
        let (values, native) = if constant {
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
    fn size(&self) -> Cow<'_, [f64]> {
        match &self.size {
            Some(size) => Cow::Borrowed(size),
            None => Cow::Owned(abs_of(&self.value)),
        }
    }
}

/// The value with seeded numbers in place of its zeros. Both sides read the same value, so that any will do; behind
/// a Relu half of them would be zero and hide the weights that they are multiplied with.
fn lively(name: &str, value: Value) -> Value {
    let Value::Tensor(t) = &value else { return value };
    if !matches!(t.dtype(), DType::F64 | DType::F32 | DType::F16 | DType::BF16) {
        return value;
    }
    let Some(mut elements) = as_f64s(t).filter(|v| v.contains(&0.0)) else { return value };
    let largest = elements.iter().filter(|v| v.is_finite()).fold(0.0f64, |m, v| m.max(v.abs()));
    let scale = if largest > 0.0 { largest } else { 1.0 };
    let seed =
        name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
    let mut random = Random(seed | 1);
    for v in elements.iter_mut().filter(|v| **v == 0.0) {
        *v = random.signed() * scale;
    }
    let filled = Tensor::new(t.shape(), elements).ok().and_then(|wide| match t.dtype() {
        DType::F64 => Some(wide),
        dtype => narrow_tensor(&wide, dtype),
    });
    filled.map_or(value, Value::from)
}

fn abs_of(value: &Value) -> Vec<f64> {
    let Value::Tensor(t) = value else { return vec![] };
    as_f64s(t).map(|v| v.into_iter().map(f64::abs).collect()).unwrap_or_default()
}

/// The tensor with its floats as `f64`; other tensors as they are.
fn widened(t: &Tensor) -> Tensor {
    match as_f64s(t) {
        Some(v) if t.dtype() != DType::F64 => Tensor::new(t.shape(), v).unwrap_or_else(|_| t.clone()),
        _ => t.clone(),
    }
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

/// How many products a sum of this node has.
fn terms(op: &OpNode, inputs: &[Option<Known>]) -> u64 {
    let shape = |i: usize| -> Vec<usize> {
        let value = inputs.get(i).and_then(Option::as_ref).map(|k| &k.value);
        value.and_then(|v| v.as_tensor().ok()).map(|t| t.shape().to_vec()).unwrap_or_default()
    };
    let n = match op.op_type.as_str() {
        "Gemm" if op.attrs.flag("transA", false).unwrap_or(false) => shape(0).first().copied().unwrap_or(1),
        "MatMul" | "Gemm" => shape(0).last().copied().unwrap_or(1),
        "Conv" => shape(1).iter().skip(1).product(),
        "Sum" | "Mean" | "Concat" => inputs.len(),
        _ if op.attrs.graphs().next().is_some() => 1 << 14,
        _ => 4,
    };
    n as u64 + 1
}

/// Operators that give the sum of absolute products when they are given absolute values.
const HOMOGENEOUS: &[&str] = &[
    "Add",
    "AveragePool",
    "Concat",
    "Conv",
    "Dropout",
    "Expand",
    "Flatten",
    "Gather",
    "Gemm",
    "GlobalAveragePool",
    "Identity",
    "MatMul",
    "Max",
    "MaxPool",
    "Mean",
    "Mul",
    "Pad",
    "Relu",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Sub",
    "Sum",
    "Tile",
    "Transpose",
    "Unsqueeze",
];

/// For each element of each output the sum of absolute products behind it.
fn sizes(
    op: &OpNode,
    functions: &[Function],
    inputs: &[Option<Known>],
    wanted: &[bool],
    values: &[Value],
) -> Vec<Vec<f64>> {
    if HOMOGENEOUS.contains(&op.op_type.as_str())
        && let Some(sizes) = homogeneous(op, functions, inputs, wanted)
    {
        return sizes;
    }
    // other functions: at most 4 times the error of what they read, on elements of the same place where the shapes
    // are the same, else of the largest
    let largest = inputs.iter().flatten().flat_map(|k| k.size().into_owned()).fold(0.0f64, f64::max);
    values
        .iter()
        .map(|value| {
            let own = abs_of(value);
            let only = inputs.first().and_then(Option::as_ref).filter(|_| inputs.len() == 1);
            let alike = only.map(Known::size).filter(|size| size.len() == own.len());
            let of = |i: usize| alike.as_ref().and_then(|size| size.get(i).copied()).unwrap_or(largest);
            own.iter().enumerate().map(|(i, v)| v.max(4.0 * of(i))).collect()
        })
        .collect()
}

fn homogeneous(
    op: &OpNode,
    functions: &[Function],
    inputs: &[Option<Known>],
    wanted: &[bool],
) -> Option<Vec<Vec<f64>>> {
    let mut op = op.clone();
    if op.op_type == "Sub" {
        op.op = fcc_ir::Op::lookup("", "Add");
        op.op_type = "Add".into();
    }
    for name in ["alpha", "beta"] {
        if let Ok(Some(v)) = op.attrs.float(name) {
            op.attrs.set(name, v.abs());
        }
    }
    let given: Option<Vec<Option<Value>>> = inputs
        .iter()
        .map(|k| match k {
            None => Some(None),
            Some(k) => match &k.value {
                Value::Tensor(t) if as_f64s(t).is_some() => {
                    Tensor::new(t.shape(), k.size().into_owned()).ok().map(|t| Some(t.into()))
                }
                other => Some(Some(other.clone())),
            },
        })
        .collect();
    let made = eval_op(&op, functions, &given?, &[], wanted).ok()?;
    made.iter().map(|v| v.as_tensor().ok().and_then(as_f64s)).collect()
}
