//! The interpreter: runs a graph node by node through each operator's reference evaluation. It is the oracle.
use crate::attr::{AttrValue, Attrs};
use crate::graph::{GraphInput, NodeKind};
use crate::infer::infer_body;
use crate::limits;
use crate::op::{EvalCtx, Fact, Operator};
use crate::ops::movement::{Elems, new_elems_of};
use crate::schema::{check, check_results, judge};
use crate::{
    At, DType, Error, Function, Graph, Model, NodeId, Op, OpNode, Result, RunLimits, Value, ValueId,
    ValueType,
};
use std::collections::{BTreeMap, HashMap};

/// Named values, in and out.
pub type Values = BTreeMap<String, Value>;

/// Sees every value that a run makes: the graph's id, its name and the value.
pub type Observer<'a> = dyn FnMut(ValueId, &str, &Value) + 'a;

/// Runs a model. `inputs` by name; overridable initializers may be given too. Errors name the node.
pub fn run(model: &Model, inputs: &Values) -> Result<Values> {
    run_observed(model, inputs, &mut |_, _, _| {})
}

/// As [`run`], within limits: errors with [`Error::Stopped`] at the node where one is reached.
pub fn run_within(model: &Model, inputs: &Values, limits: &RunLimits) -> Result<Values> {
    limits.within(|| run(model, inputs))
}

/// Runs a model and shows every value of the main graph to `observer`.
pub fn run_observed(model: &Model, inputs: &Values, observer: &mut Observer<'_>) -> Result<Values> {
    let graph = &model.graph;
    let given = by_slot(graph, inputs)?;
    let outputs = eval_graph(graph, &model.functions, given, &[], observer)?;
    Ok(graph.outputs.iter().map(|o| o.info.name.clone()).zip(outputs).collect())
}

/// The inputs in the graph's order, `None` for an overridable constant that is not given.
/// Errors on an unknown name, a missing input, or a value that does not fit the declared type.
pub fn by_slot(graph: &Graph, inputs: &Values) -> Result<Vec<Option<Value>>> {
    let names = || graph.inputs.iter().map(|i| format!("`{}`", i.info.name)).collect::<Vec<_>>().join(", ");
    if let Some(name) = inputs.keys().find(|n| !graph.inputs.iter().any(|i| i.info.name == **n)) {
        return Err(Error::mismatch("input name", format!("`{name}`"), format!("one of {}", names())));
    }
    graph
        .inputs
        .iter()
        .map(|GraphInput { node, info }| match inputs.get(&info.name) {
            Some(value) => {
                let ty = value.value_type();
                let fits = info.ty.merge(&ty).is_ok() || matches!(info.ty, ValueType::SparseTensor(_));
                fits.then(|| Some(value.clone()))
                    .ok_or_else(|| Error::mismatch(format!("input `{}`", info.name), &ty, &info.ty))
            }
            None if matches!(graph.node(*node).kind, NodeKind::Input) && !is_optional(&info.ty) => {
                Err(Error::mismatch(format!("input `{}`", info.name), "none", &info.ty))
            }
            None => Ok(None),
        })
        .collect()
}

fn is_optional(ty: &ValueType) -> bool {
    matches!(ty, ValueType::Optional(_))
}

/// Runs a graph: inputs in its order, captures by index. Values are dropped after their last use.
pub fn eval_graph(
    graph: &Graph,
    functions: &[Function],
    inputs: Vec<Option<Value>>,
    captures: &[Value],
    observer: &mut Observer<'_>,
) -> Result<Vec<Value>> {
    let mut env = Env { graph, values: HashMap::new(), uses: HashMap::new() };
    for (input, value) in graph.inputs.iter().zip(inputs) {
        let id = ValueId { node: input.node, output: 0 };
        if let Some(value) = value {
            env.values.insert(id, value);
        } else if let ValueType::Optional(ty) = graph.ty(id) {
            env.values.insert(id, Value::Optional((**ty).clone(), None));
        }
    }
    for id in graph.topological()? {
        let made = match &graph.node(id).kind {
            NodeKind::Op(op) => {
                let inputs: Vec<Option<Value>> = graph
                    .inputs_of(id)
                    .into_iter()
                    .map(|v| v.map(|v| env.take(v)).transpose())
                    .collect::<Result<_>>()?;
                let outer: Vec<Value> =
                    graph.captures_of(id).into_iter().map(|v| env.take(v)).collect::<Result<_>>()?;
                let wanted: Vec<bool> = graph.node(id).outputs().iter().map(|o| !o.name.is_empty()).collect();
                eval_op(op, functions, &inputs, &outer, &wanted).at(|| graph.place(id))?
            }
            NodeKind::Constant(c) if !env.has(id) => vec![c.tensor.clone().into()],
            NodeKind::SparseConstant(s) if !env.has(id) => vec![s.tensor().to_dense()?.into()],
            NodeKind::Capture(i) => {
                let value = captures.get(*i as usize).cloned();
                vec![value.ok_or_else(|| Error::invalid(format!("{} is not given", graph.place(id))))?]
            }
            NodeKind::Input | NodeKind::Constant(_) | NodeKind::SparseConstant(_) => vec![],
        };
        env.store(id, made, observer);
    }
    graph.outputs.iter().map(|o| env.take(o.value).at(|| format!("output `{}`", o.info.name))).collect()
}

/// The values of a run in progress.
struct Env<'g> {
    graph: &'g Graph,
    values: HashMap<ValueId, Value>,
    uses: HashMap<ValueId, usize>,
}

impl Env<'_> {
    fn has(&self, node: NodeId) -> bool {
        self.values.contains_key(&ValueId { node, output: 0 })
    }
    /// One use of a value; the last use drops it.
    fn take(&mut self, id: ValueId) -> Result<Value> {
        let left = self.uses.entry(id).or_insert_with(|| self.graph.use_count(id));
        *left = left.saturating_sub(1);
        let last = *left == 0;
        let value = if last { self.values.remove(&id) } else { self.values.get(&id).cloned() };
        value.ok_or_else(|| Error::invalid(format!("value `{}` is not computed", self.graph.value_name(id))))
    }
    fn store(&mut self, node: NodeId, made: Vec<Value>, observer: &mut Observer<'_>) {
        for (i, value) in made.into_iter().enumerate() {
            let Some(output) = self.graph.node(node).outputs().get(i).filter(|o| !o.name.is_empty()) else {
                continue;
            };
            let id = ValueId { node, output: i as u32 };
            observer(id, &output.name, &value);
            if self.graph.use_count(id) > 0 {
                self.values.insert(id, value);
            }
        }
    }
}

/// Runs one operator, a model's function included. `captures` are what its subgraphs see of the outside.
pub fn eval_op(
    op: &OpNode,
    functions: &[Function],
    inputs: &[Option<Value>],
    captures: &[Value],
    wanted: &[bool],
) -> Result<Vec<Value>> {
    if let Some(f) = call_target(op, functions) {
        let body = called(f, op, wanted.len())?;
        return eval_graph(&body, functions, inputs.to_vec(), &[], &mut |_, _, _| {});
    }
    let Some(operator) = op.op.operator() else {
        return Err(Error::unsupported(format!("operator {}{}", domain_prefix(&op.domain), op.op_type)));
    };
    if let Some(nothing) = judged(operator, op, inputs, wanted.len())? {
        return Ok(nothing);
    }
    let subgraph = |g: &Graph, inputs: Vec<Value>| {
        eval_graph(g, functions, inputs.into_iter().map(Some).collect(), captures, &mut |_, _, _| {})
    };
    let infer = |g: &Graph, given: &[Fact]| infer_body(g, functions, given, &|i| captures.get(i).cloned());
    eval_checked(operator, &EvalCtx { node: op, inputs, wanted, subgraph: &subgraph, infer: &infer })
}

/// Evaluates an operator within the limits that are in force: if one was reached on the way, that is the error, and what
/// the operator made is not used. What a body made is held to the tables of operators, as inference does where it knows
/// its types.
pub fn eval_checked(operator: &dyn Operator, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
    limits::check_now()?;
    let made = operator.eval(cx);
    // one that a subgraph was stopped by says where
    if made.as_ref().is_err_and(Error::is_stopped) {
        return made;
    }
    limits::check_now()?;
    let made = made?;
    if cx.node.attrs.graphs().next().is_some() {
        check_results(cx.node, cx.inputs, &made)?;
    }
    Ok(made)
}

/// The outputs of a node if none of them has an element: no loop runs over the extents around a 0, which may be large.
///
/// Errs on what inference refuses, and where an output is far larger than anything that can be computed: a few bytes
/// of a file can ask for that.
fn judged(
    operator: &dyn Operator,
    op: &OpNode,
    inputs: &[Option<Value>],
    n_outputs: usize,
) -> Result<Option<Vec<Value>>> {
    let facts: Vec<Option<Fact>> = inputs.iter().map(|v| v.as_ref().map(Fact::of_value)).collect();
    // the nodes of a subgraph are seen one by one
    if op.attrs.graphs().next().is_some() {
        return check(op, &facts, n_outputs).map(|()| None);
    }
    let none = |_: &Graph, _: &[Fact]| Ok(vec![]);
    let made = judge(operator, op, &facts, n_outputs, &none)?;
    let known = |f: &Fact| f.ty.as_tensor().and_then(|t| Some((t.dtype, t.known_shape()?)));
    let mut bytes = 0usize;
    for (dtype, shape) in made.iter().filter_map(known) {
        let elems = new_elems_of(dtype, &shape).at(|| "output")?;
        bytes = bytes.saturating_add(dtype.byte_len(elems).unwrap_or(elems));
    }
    limits::reserve(bytes)?;
    let nothing = |f: &Fact| {
        let (dtype, shape) = known(f).filter(|(d, s)| *d != DType::Undefined && s.contains(&0))?;
        Some(Elems::empty(dtype, 0).into_tensor(dtype, shape).map(Value::from))
    };
    let all: Option<Vec<Result<Value>>> = made.iter().map(nothing).collect();
    all.filter(|all| all.len() >= n_outputs).map(|all| all.into_iter().collect()).transpose()
}

fn domain_prefix(domain: &str) -> String {
    if domain.is_empty() { String::new() } else { format!("{domain}.") }
}

/// The function that a node calls: none if it is an operator ([`Op::of`]), though a function bears its name.
pub fn call_target<'f>(op: &OpNode, functions: &'f [Function]) -> Option<&'f Function> {
    if op.op != Op::Opaque {
        return None;
    }
    functions.iter().find(|f| f.domain == op.domain && f.name == op.op_type && f.overload == op.overload)
}

/// The body of the function that a node with this many outputs calls, as [`bind_attributes`] makes it. The node may
/// leave out trailing inputs and outputs. Errors where it has more than the function.
pub fn called(function: &Function, op: &OpNode, n_outputs: usize) -> Result<Graph> {
    let place = |what: &str| format!("number of {what} of a call of function `{}`", function.name);
    let (inputs, outputs) = (function.body.inputs.len(), function.body.outputs.len());
    if op.n_inputs as usize > inputs {
        return Err(Error::mismatch(place("inputs"), op.n_inputs, format!("at most {inputs}")));
    }
    if n_outputs > outputs {
        return Err(Error::mismatch(place("outputs"), n_outputs, format!("at most {outputs}")));
    }
    bind_attributes(function, &op.attrs)
}

/// A function's body with references to the caller's attributes replaced. Errors on a missing attribute.
pub fn bind_attributes(function: &Function, given: &Attrs) -> Result<Graph> {
    let mut body = function.body.clone();
    bind_in(&mut body, &|name| given.get(name).or_else(|| function.defaults.get(name)))
        .at(|| format!("function `{}`", function.name))?;
    Ok(body)
}

fn bind_in<'a>(graph: &mut Graph, lookup: &dyn Fn(&str) -> Option<&'a AttrValue>) -> Result<()> {
    for id in graph.nodes() {
        let Some(op) = graph.node_mut(id).op_mut() else { continue };
        let mut absent = vec![];
        for attr in op.attrs.iter_mut() {
            if let AttrValue::Ref(name, _) = &attr.value {
                match lookup(name) {
                    Some(value) => attr.value = value.clone(),
                    None => absent.push(attr.name.clone()),
                }
            }
        }
        // an attribute that the caller leaves out is as if the body had left it out
        for name in absent {
            op.attrs.remove(&name);
        }
        for g in op.attrs.graphs_mut() {
            bind_in(g, lookup)?;
        }
    }
    Ok(())
}
