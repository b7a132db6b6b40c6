//! Decides whether the rewrite of one linear node is equal to the original, instead of sampling it.
//!
//! The node is cut out with everything between its source and the value that is replaced. Distinct small integers
//! take the place of its weights, everything is `f64`, and the same rule rewrites the cut-out. All sums are then
//! exact, basis vectors read out every coefficient of both linear maps, and the zero vector the constant part.
//! Where there are too many coefficients for that, integer vectors probe the two maps: both are exact, so a
//! coefficient that differs escapes one probe in about a thousand, and none in practice.
use crate::Limits;
use crate::context::known_constant;
use crate::driver::{Options, Site, run};
use crate::passes::{Pass, PassKind};
use crate::report::Outcome;
use fcc_ir::infer::infer;
use fcc_ir::interp::{self, Values};
use fcc_ir::random::Random;
use fcc_ir::{
    At, Bindings, DType, Dim, Error, Graph, Model, NewNode, NodeId, Result, Tensor, TensorType, Value,
    ValueId, ValueInfo, ValueType,
};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// How a proof was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Method {
    /// Every coefficient was read out.
    Basis,
    /// Exact integer vectors, as many as [`PROBES`].
    Probes,
}

/// A rewrite that is equal to the original.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Proof {
    /// The rule.
    pub rule: String,
    /// Path of the graph, empty for the main graph.
    pub graph: String,
    /// The node.
    pub node: String,
    /// How.
    pub method: Method,
    /// Coefficients of the linear map, for a batch of the size used.
    pub coefficients: u64,
}

/// Integer vectors that probe maps with more than [`MAX_COEFFICIENTS`] coefficients.
pub const PROBES: usize = 12;
/// Coefficients up to which every one is read out.
pub const MAX_COEFFICIENTS: u64 = 1 << 21;
/// Proves the rewrite that is about to be made; `None` if the rule is not
/// [linear](crate::Traits::linear), it replaces several values, or a source's rank is not known, as in the body of a
/// function. For [`Options::on_match`]. Errors where both sides differ, naming the coefficient.
pub fn prove(site: &Site<'_>) -> Result<Option<Proof>> {
    let ranked = |v: &ValueId| site.graph.ty(*v).as_tensor().is_some_and(|t| t.shape.is_some());
    let &[replaces] = site.replaces else { return Ok(None) };
    if !site.rule.traits().linear || !site.sources.iter().all(ranked) {
        return Ok(None);
    }
    let node = crate::driver::row_name(site.graph, site.node);
    decide(site, replaces, &node).map(Some).at(|| format!("proof of {} at {node}", site.rule.name()))
}

fn decide(site: &Site<'_>, replaces: ValueId, node: &str) -> Result<Proof> {
    let original = cut_out(site, replaces)?;
    let mut rewritten = original.clone();
    let kind = PassKind::Rules { rules: vec![site.rule.clone()], repeat: false };
    let pass = Pass { name: site.rule.name().into(), kind };
    let limits = Limits { growth_bytes: u64::MAX, runs_elsewhere: false, ..site.limits.clone() };
    let report = run(&mut rewritten, &[pass], Options { limits, ..Default::default() })?;
    if !report.rows.iter().any(|r| r.outcome == Outcome::Rewritten) {
        return Err(Error::invalid(format!("the rule does not apply to the integer model:\n{report}")));
    }
    let both = Both { original, rewritten };
    let bindings = both.bindings()?;
    let shapes = both.shapes(&bindings)?;
    let (Some((source, shape)), rest) = (shapes.first(), shapes.get(1..).unwrap_or_default()) else {
        return Err(Error::invalid("no source"));
    };
    let elems = fcc_ir::elem_count(shape)?;
    let zeros = |shape: &[usize]| {
        Ok::<_, Error>(Value::from(Tensor::new(shape, vec![0f64; fcc_ir::elem_count(shape)?])?))
    };
    // other sources (a bias that is not constant) hold distinct integers
    let mut others = Values::new();
    for (name, shape) in rest {
        let n = fcc_ir::elem_count(shape)?;
        others.insert(
            name.clone(),
            Tensor::new(shape.clone(), (0..n).map(|i| i as f64 + 1.0).collect())?.into(),
        );
    }
    let given = |x: Value| -> Values {
        let mut given = others.clone();
        given.insert(source.clone(), x);
        given
    };
    let outputs = both.same(&given(zeros(shape)?)).at(|| "the zero vector")?;
    let coefficients = (elems as u64).saturating_mul(outputs as u64);
    let method = if coefficients <= MAX_COEFFICIENTS { Method::Basis } else { Method::Probes };
    match method {
        Method::Basis => {
            for i in 0..elems {
                let mut x = vec![0f64; elems];
                if let Some(one) = x.get_mut(i) {
                    *one = 1.0;
                }
                both.same(&given(Tensor::new(shape.clone(), x)?.into()))
                    .at(|| format!("basis vector {i}"))?;
            }
        }
        Method::Probes => {
            let mut random = Random::new(0x5eed);
            let largest = both.exact_probe(elems)?;
            for probe in 0..PROBES {
                let x: Vec<f64> =
                    (0..elems).map(|_| random.below(2 * largest + 1) as f64 - largest as f64).collect();
                both.same(&given(Tensor::new(shape.clone(), x)?.into())).at(|| format!("probe {probe}"))?;
            }
        }
    }
    Ok(Proof {
        rule: site.rule.name().into(),
        graph: site.path.into(),
        node: node.into(),
        method,
        coefficients,
    })
}

/// The nodes between the sources and the value that is replaced, as a model in `f64` with distinct integers as
/// weights.
fn cut_out(site: &Site<'_>, replaces: ValueId) -> Result<Model> {
    let from = site.graph;
    let mut graph = Graph::new("proof", from.opsets.clone());
    let mut copied: BTreeMap<ValueId, ValueId> = BTreeMap::new();
    for &source in site.sources {
        let info = ValueInfo::new(from.value_name(source), as_f64_type(from.ty(source)));
        copied.insert(source, graph.add_input(info)?);
    }
    let mut next = 1u64;
    for id in inside(from, replaces, site.sources)? {
        let Some(op) = from.op(id) else {
            return Err(Error::invalid(format!("{} is not an operator", from.place(id))));
        };
        let mut inputs = vec![];
        for value in from.inputs_of(id) {
            let Some(value) = value else {
                inputs.push(None);
                continue;
            };
            let made = match copied.get(&value) {
                Some(made) => *made,
                None => {
                    let known = known_constant(from, site.captures, value);
                    let t = known
                        .ok_or_else(|| Error::invalid(format!("{} is not known", from.place(value.node))))?;
                    let t = if t.dtype().is_float() { integers(&t, &mut next)? } else { t };
                    graph.add_constant(from.value_name(value), t)?
                }
            };
            copied.insert(value, made);
            inputs.push(Some(made));
        }
        let outputs: Vec<String> = from.node(id).outputs().iter().map(|o| o.name.clone()).collect();
        let new = NewNode {
            op_type: &op.op_type,
            domain: &op.domain,
            name: from.node(id).name.clone(),
            inputs,
            outputs: outputs.clone(),
            attrs: op.attrs.clone(),
        };
        let made = graph.add_op(new)?;
        for output in 0..outputs.len() as u32 {
            copied.insert(ValueId { node: id, output }, ValueId { node: made, output });
        }
    }
    let y = copied.get(&replaces).copied();
    let y = y.ok_or_else(|| Error::invalid("the replaced value is not among the nodes"))?;
    let name = from.value_name(replaces).to_string();
    graph.add_output(y, ValueInfo::new(name, as_f64_type(from.ty(replaces))));
    let mut model = Model::new(graph);
    model.functions = site.functions.to_vec();
    infer(&mut model.graph, &model.functions)?;
    Ok(model)
}

/// The operators that `value` needs down to the sources and constants, producers first.
fn inside(graph: &Graph, value: ValueId, sources: &[ValueId]) -> Result<Vec<NodeId>> {
    let mut found = BTreeSet::new();
    let mut work = vec![value];
    while let Some(v) = work.pop() {
        let stops = sources.contains(&v) || graph.constant(v).is_some() || graph.op(v.node).is_none();
        if !stops && found.insert(v.node) {
            work.extend(graph.inputs_of(v.node).into_iter().flatten());
        }
    }
    Ok(graph.ops()?.into_iter().filter(|id| found.contains(id)).collect())
}

fn as_f64_type(ty: &ValueType) -> ValueType {
    match ty {
        ValueType::Tensor(t) => TensorType { dtype: DType::F64, shape: t.shape.clone() }.into(),
        other => other.clone(),
    }
}

/// Distinct integers, counted on from `next`, in the shape of `t`.
fn integers(t: &Tensor, next: &mut u64) -> Result<Tensor> {
    let first = *next;
    *next = next.saturating_add(t.len() as u64);
    Tensor::new(t.shape(), (first..*next).map(|i| i as f64).collect::<Vec<f64>>())
}

struct Both {
    original: Model,
    rewritten: Model,
}

impl Both {
    /// Extents for the symbols at which both run: the smallest of a few that the original takes.
    fn bindings(&self) -> Result<Bindings> {
        let mut symbols = BTreeSet::new();
        for input in &self.original.graph.inputs {
            let shape = input.info.ty.as_tensor().and_then(|t| t.shape.as_ref());
            for dim in shape.into_iter().flatten() {
                if let Dim::Sym(e) = dim {
                    e.visit_symbols(&mut |s| {
                        symbols.insert(s.to_string());
                    });
                }
            }
        }
        let mut why = Error::invalid("no extents to try");
        for size in [2, 3, 5, 8, 13, 21, 34] {
            let bindings: Bindings = symbols.iter().enumerate().map(|(i, s)| (s.clone(), size + i)).collect();
            let given = crate::verify::inputs(&self.original, &bindings, 1)?;
            match interp::run(&self.original, &given) {
                Ok(_) => return Ok(bindings),
                Err(e) if e.is_stopped() => return Err(e),
                Err(e) => why = e,
            }
        }
        Err(why)
    }

    fn shapes(&self, bindings: &Bindings) -> Result<Vec<(String, Vec<usize>)>> {
        let given = crate::verify::inputs(&self.original, bindings, 1)?;
        self.original
            .graph
            .inputs
            .iter()
            .map(|input| {
                let value = given.get(&input.info.name);
                let value = value.ok_or_else(|| Error::invalid(format!("input `{}`", input.info.name)))?;
                Ok((input.info.name.clone(), value.as_tensor()?.shape().to_vec()))
            })
            .collect()
    }

    /// The largest integer up to 512 that a probe of this many elements may hold, so that every sum stays below 2^53.
    fn exact_probe(&self, elems: usize) -> Result<u64> {
        let graph = &self.original.graph;
        let constants =
            graph.nodes().into_iter().filter_map(|node| graph.constant(ValueId { node, output: 0 }));
        let weight = constants
            .filter_map(|t| crate::verify::as_f64s(&t))
            .flatten()
            .fold(1.0f64, |largest, v| largest.max(v.abs()));
        let largest = (2f64.powi(53) / (weight * (elems as f64 + 1.0))).min(512.0);
        if largest < 1.0 {
            let wanted = "weights times elements below 2^53, so that sums are exact";
            return Err(Error::mismatch("integer model", format!("{weight} times {elems}"), wanted));
        }
        Ok(largest as u64)
    }

    /// Runs both; errors unless the outputs are equal. Answers with how many elements they have.
    fn same(&self, given: &Values) -> Result<usize> {
        let (want, got) = (interp::run(&self.original, given)?, interp::run(&self.rewritten, given)?);
        let mut elements = 0;
        for (name, want) in &want {
            let want = want.as_tensor()?;
            let got = got
                .get(name)
                .ok_or_else(|| Error::invalid(format!("output `{name}` is missing")))?
                .as_tensor()?;
            let (x, y) = (want.as_slice::<f64>()?, got.as_slice::<f64>()?);
            if want.shape() != got.shape() {
                return Err(Error::mismatch(
                    format!("shape of `{name}`"),
                    format!("{:?}", got.shape()),
                    format!("{:?}", want.shape()),
                ));
            }
            if let Some(i) = (0..x.len()).find(|&i| x[i] != y[i]) {
                let index = crate::verify::index_of(i, want.shape());
                return Err(Error::mismatch(format!("`{name}`{index:?}"), y[i], x[i]));
            }
            elements += x.len();
        }
        Ok(elements)
    }
}
