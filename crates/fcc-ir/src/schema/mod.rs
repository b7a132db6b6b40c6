//! What is fixed of each operator: attributes, arity, types. One function, [`check`], holds a node to it, and
//! [`judge`] adds what the operator's own inference says; the interpreter and inference (so lowering too) call them,
//! so that none computes what another refuses.
//!
//! The tables, looked up by [`Op`], are generated from the pinned packages by `scripts/schemas.py`:
//! - `onnx.rs`: ONNX's own operators, every version;
//! - `runtime.rs`: what only ONNX Runtime has: all of `com.microsoft`, and versions in ONNX's domain, such as
//!   `LayerNormalization` before opset 17. A new operator of theirs needs no row by hand.
//!
//! `beyond.rs` lists the element types that fcc computes beyond ONNX's text.
mod beyond;
mod facts;
mod onnx;
mod runtime;

use crate::attr::AttrKind;
use crate::graph::OpNode;
use crate::op::{Fact, InferCtx, InferSubgraph, Operator};
use crate::{DType, Error, Op, Result, Value, ValueType};
use facts::{OpFacts, Param, Times};
use std::sync::LazyLock;

/// The versions of each operator that fcc knows, ascending, by `Op as usize`.
static BY_OP: LazyLock<Vec<Vec<&'static OpFacts>>> = LazyLock::new(|| {
    let mut all = vec![vec![]; Op::ALL.len()];
    // where both have a version, ONNX calls it deprecated and ONNX Runtime does not
    for facts in [onnx::ONNX, runtime::RUNTIME].into_iter().flatten() {
        if let Some(versions) = all.get_mut(Op::lookup(facts.domain, facts.name) as usize) {
            versions.push(facts);
        }
    }
    all.iter_mut().for_each(|versions| versions.sort_by_key(|facts| facts.since));
    all
});

/// The facts of the version in force at a node; `None` where no table has the operator.
fn facts_of(node: &OpNode) -> Option<&'static OpFacts> {
    BY_OP.get(node.op as usize)?.iter().rev().find(|f| f.since <= node.version).copied()
}

/// Everything that can be said of a node before it is computed: [`check`], and the operator's own inference, whose
/// facts of the outputs are returned. Errors name what is wrong: what was got and what is wanted.
pub fn judge(
    operator: &dyn Operator,
    node: &OpNode,
    inputs: &[Option<Fact>],
    n_outputs: usize,
    subgraph: &InferSubgraph<'_>,
) -> Result<Vec<Fact>> {
    check(node, inputs, n_outputs)?;
    let made = operator.infer(&InferCtx { node, inputs, n_outputs, subgraph })?;
    if let Some(facts) = facts_of(node) {
        check_made(facts, inputs, &made)?;
    }
    Ok(made)
}

/// Holds a node to the tables: its attributes, the number of its inputs and outputs, the types of its inputs as far
/// as they are known.
pub fn check(node: &OpNode, inputs: &[Option<Fact>], n_outputs: usize) -> Result<()> {
    let Some(facts) = facts_of(node) else {
        let Some(schema) = node.op.schema() else { return Ok(()) };
        arity("inputs", inputs.len(), schema.inputs)?;
        return arity("outputs", n_outputs, schema.outputs);
    };
    if facts.deprecated {
        let got = format!("one that opset {} took away", facts.since);
        return Err(Error::mismatch(format!("operator {}", facts.name), got, "an operator of this opset"));
    }
    check_attrs(node, facts)?;
    arity("inputs", inputs.len(), facts.inputs)?;
    arity("outputs", n_outputs, facts.outputs)?;
    for (i, param) in facts.takes.iter().enumerate() {
        if param.times == Times::One && inputs.get(i).is_none_or(Option::is_none) {
            return Err(Error::mismatch(
                format!("input {i}"),
                "none",
                format!("a value for `{}`", param.name),
            ));
        }
    }
    let mut bound = Bound::default();
    for (i, fact) in inputs.iter().enumerate() {
        if let (Some(fact), Some(param)) = (fact, param(facts.takes, i)) {
            fits(facts, param, "input", i, &fact.ty)?;
            bound.bind(param, "input", i, &fact.ty)?;
        }
    }
    Ok(())
}

fn check_attrs(node: &OpNode, facts: &OpFacts) -> Result<()> {
    for attr in node.attrs.iter() {
        let place = || format!("attribute `{}`", attr.name);
        match facts.attrs.iter().find(|a| a.name == attr.name) {
            Some(known) if known.kind == attr.value.kind() => {}
            Some(known) => {
                let got = format!("{:?}", attr.value.kind());
                return Err(Error::mismatch(place(), got, kind_text(known.kind)));
            }
            // names of runtimes' own, as ONNX's checker has it
            None if attr.name.starts_with("__") => {}
            None => {
                let names: Vec<&str> = facts.attrs.iter().map(|a| a.name).collect();
                let wanted = if names.is_empty() { "no attributes".into() } else { names.join(", ") };
                let got = format!("one that {} of opset {} does not have", facts.name, node.version);
                return Err(Error::mismatch(place(), got, wanted));
            }
        }
    }
    match facts.attrs.iter().find(|a| a.required && node.attrs.get(a.name).is_none()) {
        Some(absent) => Err(Error::mismatch(format!("attribute `{}`", absent.name), "none", "a value")),
        None => Ok(()),
    }
}

/// Holds the values that a node made to the tables, for operators whose outputs' types follow from what a body computes.
pub fn check_results(node: &OpNode, inputs: &[Option<Value>], made: &[Value]) -> Result<()> {
    let Some(facts) = facts_of(node) else { return Ok(()) };
    let fact = |v: &Value| Fact::from(v.value_type());
    let inputs: Vec<Option<Fact>> = inputs.iter().map(|v| v.as_ref().map(fact)).collect();
    check_made(facts, &inputs, &made.iter().map(fact).collect::<Vec<_>>())
}

/// Holds what inference found of the outputs to the tables.
fn check_made(facts: &OpFacts, inputs: &[Option<Fact>], made: &[Fact]) -> Result<()> {
    let mut bound = Bound::default();
    for (i, fact) in inputs.iter().enumerate() {
        if let (Some(fact), Some(param)) = (fact, param(facts.takes, i)) {
            bound.bind(param, "input", i, &fact.ty)?;
        }
    }
    for (i, fact) in made.iter().enumerate() {
        if let Some(param) = param(facts.makes, i) {
            fits(facts, param, "output", i, &fact.ty)?;
            bound.bind(param, "output", i, &fact.ty)?;
        }
    }
    Ok(())
}

/// The parameter of an index: the last one stands for all that follow if it is variadic.
fn param(params: &'static [Param], i: usize) -> Option<&'static Param> {
    params.get(i).or_else(|| params.last().filter(|p| p.times == Times::Variadic))
}

fn fits(facts: &OpFacts, param: &Param, side: &str, i: usize, ty: &ValueType) -> Result<()> {
    if param.types.has(ty) {
        return Ok(());
    }
    let wider = beyond::types(facts, param.name);
    if wider.has(ty) {
        return Ok(());
    }
    let what = if matches!(ty, ValueType::Tensor(_)) { "element type" } else { "type" };
    let wanted = param.types.and(wider).to_string();
    Err(Error::mismatch(format!("{what} of {side} {i}"), kind_of(ty), wanted))
}

/// A type as messages show it: its element type, if it is a tensor.
fn kind_of(ty: &ValueType) -> String {
    ty.as_tensor().map_or_else(|| ty.to_string(), |t| t.dtype.to_string())
}

/// The types that the letters of a node's parameters stand for, with the place that said so.
#[derive(Default)]
struct Bound<'t>(Vec<(u8, &'static str, usize, &'t ValueType)>);

impl<'t> Bound<'t> {
    fn bind(&mut self, param: &Param, side: &'static str, i: usize, ty: &'t ValueType) -> Result<()> {
        let known = match ty {
            ValueType::Unknown => false,
            ValueType::Tensor(t) => t.dtype != DType::Undefined,
            _ => true,
        };
        if param.letter == 0 || !known {
            return Ok(());
        }
        match self.0.iter().find(|(letter, ..)| *letter == param.letter) {
            None => self.0.push((param.letter, side, i, ty)),
            Some((_, of, first, other)) if !alike(ty, other) => {
                let what = if matches!(ty, ValueType::Tensor(_)) { "element type" } else { "type" };
                let wanted = format!("{} as of {of} {first}", kind_of(other));
                return Err(Error::mismatch(format!("{what} of {side} {i}"), kind_of(ty), wanted));
            }
            Some(_) => {}
        }
        Ok(())
    }
}

/// Whether two types are the same but for their shapes, as far as they are known.
fn alike(a: &ValueType, b: &ValueType) -> bool {
    use ValueType::*;
    match (a, b) {
        (Unknown, _) | (_, Unknown) => true,
        (Tensor(a), Tensor(b)) | (SparseTensor(a), SparseTensor(b)) => {
            a.dtype == b.dtype || a.dtype == DType::Undefined || b.dtype == DType::Undefined
        }
        (Sequence(a), Sequence(b)) | (Optional(a), Optional(b)) => alike(a, b),
        (Map(k, a), Map(l, b)) => k == l && alike(a, b),
        (a, b) => a == b,
    }
}

/// Errors unless a number of inputs or outputs is within its limits.
pub(crate) fn arity(what: &str, got: usize, (least, most): (usize, usize)) -> Result<()> {
    if (least..=most).contains(&got) {
        return Ok(());
    }
    let wanted = match (least, most) {
        (l, usize::MAX) => format!("at least {l}"),
        (l, m) if l == m => l.to_string(),
        (l, m) => format!("{l} to {m}"),
    };
    Err(Error::mismatch(format!("number of {what}"), got, wanted))
}

fn kind_text(kind: AttrKind) -> &'static str {
    match kind {
        AttrKind::Undefined => "nothing",
        AttrKind::Float => "a float",
        AttrKind::Int => "an int",
        AttrKind::String => "a string",
        AttrKind::Tensor => "a tensor",
        AttrKind::Graph => "a graph",
        AttrKind::Floats => "a list of floats",
        AttrKind::Ints => "a list of ints",
        AttrKind::Strings => "a list of strings",
        AttrKind::Tensors => "a list of tensors",
        AttrKind::Graphs => "a list of graphs",
        AttrKind::SparseTensor => "a sparse tensor",
        AttrKind::SparseTensors => "a list of sparse tensors",
        AttrKind::Type => "a type",
        AttrKind::Types => "a list of types",
    }
}

#[cfg(test)]
mod tests;
