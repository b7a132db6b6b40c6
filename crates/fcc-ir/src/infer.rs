//! Shape inference over a graph: types, symbolic extents, and constants small enough to follow shape arithmetic.
//!
//! Time and memory grow with the number of nodes and nothing else: what a node may add is bounded
//! (`DimTensor::MAX_ELEMS`, `DimExpr::MAX_SIZE`, `TensorType::MAX_RANK`), and what all nodes may add beyond a little
//! each, and how often bodies are looked at, by one budget. Past a bound a fact says less, which is no error.
mod budget;

use self::budget::Budget;
use crate::graph::NodeKind;
use crate::interp::{call_target, called, eval_op};
use crate::op::Fact;
use crate::schema::judge;
use crate::{At, Bindings, DType, Function, Graph, NodeId, Op, OpNode, Result, Value, ValueId, ValueType};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Constants above this many elements are not computed during inference.
const MAX_FOLDED_ELEMS: usize = 4096;

/// What inference found for each value of one graph.
#[derive(Debug, Default)]
pub struct Facts {
    facts: HashMap<ValueId, Fact>,
    /// Where the file's declared type contradicts what follows from the operators (the latter is used).
    pub conflicts: Vec<String>,
}

impl Facts {
    /// What is known of a value; nothing for an unknown one.
    pub fn get(&self, value: ValueId) -> Fact {
        self.facts.get(&value).cloned().unwrap_or_default()
    }
}

/// Infers the types of all values of a graph and of its subgraphs and stores them in the graph.
///
/// Types that the file declares are merged in; where they contradict what follows from the operators, the latter
/// stands and the place is listed in [`Facts::conflicts`]. Errors on what ONNX forbids, naming the node.
pub fn infer(graph: &mut Graph, functions: &[Function]) -> Result<Facts> {
    infer_within(graph, &Inference { functions, budget: &Budget::default() })
}

/// The model's functions and what may be spent on a graph and all inside of it.
#[derive(Clone, Copy)]
struct Inference<'a> {
    functions: &'a [Function],
    budget: &'a Budget,
}

fn infer_within(graph: &mut Graph, all: &Inference<'_>) -> Result<Facts> {
    let mut facts = all.facts(graph, None, &[])?;
    for id in graph.topological()? {
        for value in graph.values_of(id).collect::<Vec<_>>() {
            let declared = graph.ty(value);
            let fact = facts.facts.entry(value).or_default();
            let ty = match fact.ty.merge(declared) {
                Ok(merged) => merged,
                Err(why) => {
                    facts
                        .conflicts
                        .push(format!("`{}`: inferred and declared differ: {why}", graph.value_name(value)));
                    fact.ty.clone()
                }
            };
            fact.ty = ty.clone();
            graph.set_ty(value, ty);
        }
        infer_subgraphs(graph, id, all)?;
    }
    Ok(facts)
}

/// Gives subgraphs the types of what they capture, and infers them.
fn infer_subgraphs(graph: &mut Graph, id: NodeId, all: &Inference<'_>) -> Result<()> {
    if graph.op(id).is_none_or(|op| op.attrs.graphs().next().is_none()) {
        return Ok(());
    }
    let captured: Vec<ValueType> = graph.captures_of(id).into_iter().map(|v| graph.ty(v).clone()).collect();
    let place = graph.place(id);
    let Some(op) = graph.node_mut(id).op_mut() else { return Ok(()) };
    for sub in op.attrs.graphs_mut() {
        for node in sub.nodes() {
            if let NodeKind::Capture(i) = sub.node(node).kind
                && let Some(ty) = captured.get(i as usize)
            {
                sub.set_ty(ValueId { node, output: 0 }, ty.clone());
            }
        }
        infer_within(sub, all).at(|| place.clone())?;
    }
    Ok(())
}

/// Infers without storing. `inputs`: facts of the inputs, in place of the declared types; `captures` by index.
pub fn infer_facts(
    graph: &Graph,
    functions: &[Function],
    inputs: Option<&[Fact]>,
    captures: &[Fact],
) -> Result<Facts> {
    Inference { functions, budget: &Budget::default() }.facts(graph, inputs, captures)
}

/// Infers in a run what a subgraph makes, of inputs of which this is known. `captured`: the captured value of an index,
/// where it is at hand; else the subgraph says its type.
pub fn infer_body(
    graph: &Graph,
    functions: &[Function],
    inputs: &[Fact],
    captured: &dyn Fn(usize) -> Option<Value>,
) -> Result<Vec<Fact>> {
    let mut outer = vec![];
    for node in graph.nodes() {
        let NodeKind::Capture(i) = graph.node(node).kind else { continue };
        let i = i as usize;
        outer.resize(outer.len().max(i + 1), Fact::default());
        let declared = || graph.ty(ValueId { node, output: 0 }).clone().into();
        outer[i] = captured(i).as_ref().map_or_else(declared, Fact::of_value);
    }
    let facts = infer_facts(graph, functions, Some(inputs), &outer)?;
    Ok(graph.outputs.iter().map(|o| facts.get(o.value)).collect())
}

/// Infers one operator, a model's function included.
pub fn infer_op(
    op: &OpNode,
    functions: &[Function],
    inputs: &[Option<Fact>],
    captures: &[Fact],
    n_outputs: usize,
) -> Result<Vec<Fact>> {
    Inference { functions, budget: &Budget::default() }.op(op, inputs, captures, n_outputs)
}

impl Inference<'_> {
    fn facts(&self, graph: &Graph, inputs: Option<&[Fact]>, captures: &[Fact]) -> Result<Facts> {
        let mut facts = Facts::default();
        if let Some(given) = inputs {
            for (input, fact) in graph.inputs.iter().zip(given) {
                let value = ValueId { node: input.node, output: 0 };
                let ty = fact.ty.merge(&input.info.ty).unwrap_or_else(|_| fact.ty.clone());
                facts.facts.insert(value, Fact { ty, ..fact.clone() });
            }
        }
        // looked up once for all: there may be as many as there are initializers
        let listed: HashSet<NodeId> = graph.inputs.iter().map(|i| i.node).collect();
        for id in graph.topological()? {
            crate::limits::check()?;
            let value = ValueId { node: id, output: 0 };
            match &graph.node(id).kind {
                NodeKind::Input => {
                    facts.facts.entry(value).or_insert_with(|| graph.ty(value).clone().into());
                }
                NodeKind::Constant(c) => {
                    if graph.overridable_inputs && listed.contains(&id) {
                        facts.facts.entry(value).or_insert_with(|| graph.ty(value).clone().into());
                    } else {
                        facts.facts.insert(value, Fact::constant(c.tensor.clone()));
                    }
                }
                NodeKind::SparseConstant(_) => {
                    facts.facts.insert(value, graph.ty(value).clone().into());
                }
                NodeKind::Capture(i) => {
                    let fact = captures.get(*i as usize).cloned();
                    facts.facts.insert(value, fact.unwrap_or_else(|| graph.ty(value).clone().into()));
                }
                NodeKind::Op(op) => {
                    let made = self.node(graph, id, op, &facts).at(|| graph.place(id))?;
                    for (i, mut fact) in made.into_iter().enumerate() {
                        let value = ValueId { node: id, output: i as u32 };
                        // what the file declares helps behind operators that fcc does not know
                        if inputs.is_none()
                            && let Ok(merged) = fact.ty.merge(graph.ty(value))
                        {
                            fact.ty = merged;
                        }
                        facts.facts.insert(value, fact);
                    }
                }
            }
        }
        Ok(facts)
    }

    fn node(&self, graph: &Graph, id: NodeId, op: &OpNode, facts: &Facts) -> Result<Vec<Fact>> {
        let read = |v: ValueId| self.budget.fact(facts.get(v));
        let inputs: Vec<Option<Fact>> = graph.inputs_of(id).into_iter().map(|v| v.map(read)).collect();
        let outer: Vec<Fact> = graph.captures_of(id).into_iter().map(read).collect();
        let outputs = graph.node(id).outputs();
        let wanted: Vec<bool> = outputs.iter().map(|o| !o.name.is_empty()).collect();
        let made = self.op(op, &inputs, &outer, outputs.len())?;
        let mut made: Vec<Fact> = made.into_iter().map(|f| self.budget.fact(f)).collect();
        if let Some(values) = fold(op, self.functions, &inputs, &wanted, &made) {
            for (fact, value) in made.iter_mut().zip(values) {
                if let Value::Tensor(t) = value
                    && self.budget.folded(t.byte_len())
                {
                    *fact = Fact::constant(t);
                }
            }
        }
        Ok(made)
    }

    fn op(
        &self,
        op: &OpNode,
        inputs: &[Option<Fact>],
        captures: &[Fact],
        n_outputs: usize,
    ) -> Result<Vec<Fact>> {
        if let Some(f) = call_target(op, self.functions) {
            if !self.budget.body(&f.body) {
                return Ok(vec![Fact::default(); n_outputs]);
            }
            let body = called(f, op, n_outputs)?;
            let given: Vec<Fact> = inputs.iter().map(|f| f.clone().unwrap_or_default()).collect();
            let facts = self.facts(&body, Some(&given), &[])?;
            return Ok(body.outputs.iter().take(n_outputs).map(|o| facts.get(o.value)).collect());
        }
        let Some(operator) = op.op.operator() else { return Ok(vec![Fact::default(); n_outputs]) };
        let subgraph = |g: &Graph, given: &[Fact]| {
            if !self.budget.body(g) {
                return Ok(vec![Fact::default(); g.outputs.len()]);
            }
            let facts = self.facts(g, Some(given), captures)?;
            Ok(g.outputs.iter().map(|o| facts.get(o.value)).collect())
        };
        judge(operator, op, inputs, n_outputs, &subgraph)
    }
}

/// Computes a small node whose inputs are all constant, so that shape arithmetic is followed.
fn fold(
    op: &OpNode,
    functions: &[Function],
    inputs: &[Option<Fact>],
    wanted: &[bool],
    made: &[Fact],
) -> Option<Vec<Value>> {
    let small = |f: &Fact| {
        let elems = f.ty.as_tensor().and_then(|t| t.known_shape()).and_then(|s| crate::elem_count(&s).ok());
        elems.is_some_and(|n| n <= MAX_FOLDED_ELEMS)
    };
    let pure = op.op != Op::Opaque && !op.op.is_random() && op.attrs.graphs().next().is_none();
    // no shape comes out of strings, whose bytes no type bounds
    let text = |f: &Fact| f.ty.as_tensor().is_some_and(|t| t.dtype == DType::String);
    let pure = pure && !inputs.iter().flatten().chain(made).any(text);
    if !pure || inputs.is_empty() || made.iter().all(|f| f.value.is_some()) || !made.iter().all(small) {
        return None;
    }
    let values: Option<Vec<Option<Value>>> = inputs
        .iter()
        .map(|f| match f {
            None => Some(None),
            Some(f) if small(f) => Some(Some(f.value.clone()?.into())),
            Some(_) => None,
        })
        .collect();
    eval_op(op, functions, &values?, &[], wanted).ok()
}

/// Replaces symbols in the declared types of a graph's inputs and clears what was inferred from them, so that a
/// following [`infer`] finds fixed shapes. Entries of `value_info` and outputs are bound too.
pub fn bind_symbols(graph: &mut Graph, bindings: &Bindings) {
    for info in graph.inputs.infos_mut() {
        info.ty.for_each_dim(&mut |d| *d = d.bind(bindings));
    }
    for info in graph.outputs.infos_mut() {
        info.ty.for_each_dim(&mut |d| *d = d.bind(bindings));
    }
    for info in &mut graph.value_info {
        info.ty.for_each_dim(&mut |d| *d = d.bind(bindings));
    }
    for id in graph.nodes() {
        for value in graph.values_of(id).collect::<Vec<_>>() {
            let mut ty = graph.ty(value).clone();
            ty.for_each_dim(&mut |d| *d = d.bind(bindings));
            graph.set_ty(value, ty);
        }
        if graph.op(id).is_some_and(|op| op.attrs.graphs().next().is_some())
            && let Some(op) = graph.node_mut(id).op_mut()
        {
            op.attrs.graphs_mut().for_each(|g| bind_symbols(g, bindings));
        }
    }
}

/// What actual inputs say against the names that a file gives to their dimensions: a note for each name that would have
/// two extents. A name is the file's claim and no law: whether shapes fit is for the operators to say.
pub fn contradicted_names<'a>(
    given: impl IntoIterator<Item = (&'a crate::ValueInfo, &'a [usize])>,
) -> Vec<String> {
    let mut first: BTreeMap<String, (usize, &str)> = BTreeMap::new();
    let mut notes: BTreeMap<String, String> = BTreeMap::new();
    for (info, shape) in given {
        let declared = info.ty.as_tensor().and_then(|t| t.shape.as_deref()).unwrap_or_default();
        for (dim, &extent) in declared.iter().zip(shape) {
            let crate::Dim::Sym(e) = dim else { continue };
            let Some(name) = e.as_symbol() else { continue };
            let (bound, input) = *first.entry(name.to_string()).or_insert((extent, &info.name));
            if bound != extent {
                notes.entry(name.to_string()).or_insert_with(|| {
                    format!(
                        "dimension `{name}` is {bound} in input `{input}` and {extent} in `{}`",
                        info.name
                    )
                });
            }
        }
    }
    notes.into_values().collect()
}
