//! A match applied: built, checked, redirected, and what nothing uses any more removed.
use crate::builder::{Builder, SharedConstants};
use crate::context::{FactMap, Limits, known_constant};
use crate::count::{constants_of, size_of};
use crate::driver::{Scope, row_name};
use crate::report::Size;
use crate::rule::{Declined, Prepared};
use fcc_ir::op::Fact;
use fcc_ir::{Effects, Graph, NodeId, NodeKind, Result, ValueId, ValueType};
use std::collections::{BTreeSet, HashMap};

/// What came of a match.
pub(crate) struct Done {
    /// The new nodes.
    pub made: Vec<NodeId>,
    /// Names of the new operators.
    pub names: Vec<String>,
    /// Constants that the replaced nodes read.
    pub before: Size,
    /// Constants that the new ones read.
    pub after: Size,
}

/// Builds the replacement, checks its type, redirects the uses and removes what nothing uses any more.
pub(crate) fn apply(
    graph: &mut Graph,
    facts: &mut FactMap,
    shared: &mut SharedConstants,
    scope: &Scope<'_>,
    limits: &Limits,
    at: NodeId,
    prepared: Prepared<'_>,
) -> Result<Result<Done, Declined>> {
    let Prepared { replaces, sources, action, .. } = prepared;
    let effects = scope.effects;
    let root = row_name(graph, at);
    let mut builder = Builder {
        graph,
        facts,
        shared,
        functions: scope.functions,
        at,
        root,
        made: vec![],
        asked: HashMap::new(),
        limits,
        constants_as_nodes: scope.constants_as_nodes,
    };
    let built = action(&mut builder);
    let after = constants_of(builder.graph, scope.captures, &builder.made);
    let made = std::mem::take(&mut builder.made);
    let checked = built.and_then(|news| {
        if news.len() != replaces.len() {
            return Err(Declined::new("number of replacements", news.len(), replaces.len()));
        }
        let kept = |(old, new): (&ValueId, ValueId)| {
            let ty = keeps_type(&builder.ty(*old), &builder.ty(new))?;
            Ok(Pair { old: *old, new, ty })
        };
        replaces.iter().zip(news).map(kept).collect::<Result<Vec<Pair>, Declined>>()
    });
    let checked = checked.and_then(|pairs| can_redirect(graph, &pairs, &sources).map(|()| pairs));
    let pairs = match checked {
        Ok(pairs) => pairs,
        Err(declined) => {
            remove_dead(graph, effects, &[], made.into_iter().rev().collect());
            return Ok(Err(declined));
        }
    };
    for Pair { old, new, ty } in pairs {
        redirect(graph, old, new, made.contains(&new.node))?;
        graph.set_ty(new, ty.clone());
        let mut fact = facts.get(new).cloned().unwrap_or_default();
        fact.ty = ty;
        facts.set(new, fact);
    }
    let before = remove_dead(graph, effects, scope.captures, replaces.iter().map(|old| old.node).collect());
    remove_dead(graph, effects, &[], made.iter().rev().copied().collect());
    let made: Vec<NodeId> = made.into_iter().filter(|id| graph.contains(*id)).collect();
    let names = made.iter().filter(|id| graph.op(**id).is_some()).map(|id| row_name(graph, *id)).collect();
    Ok(Ok(Done { made, names, before, after }))
}

/// A value, what takes its place, and the type of both.
struct Pair {
    old: ValueId,
    new: ValueId,
    ty: ValueType,
}

/// Whether all uses can be redirected, so that a match is applied whole or not at all.
fn can_redirect(graph: &Graph, pairs: &[Pair], sources: &[ValueId]) -> Result<(), Declined> {
    let mut outputs: BTreeSet<ValueId> = BTreeSet::new();
    for Pair { old, new, .. } in pairs {
        graph.may_replace(*old, *new)?;
        if graph.is_output(*old) && !outputs.insert(*new) {
            let what = format!("replacement of output `{}`", graph.value_name(*old));
            return Err(Declined::new(what, "that of another output too", "a value of its own"));
        }
    }
    let replaced: BTreeSet<NodeId> = pairs.iter().map(|p| p.old.node).collect();
    if replaced.len() < 2 {
        return Ok(());
    }
    // what is computed in one place must not read what it replaces in another
    match sources.iter().find(|s| depends_on(graph, s.node, &replaced)) {
        None => Ok(()),
        Some(source) => {
            let what = format!("source `{}`", graph.value_name(*source));
            Err(Declined::new(what, "one that a replaced value leads to", "one that none of them leads to"))
        }
    }
}

/// Whether a node is one of these or reads one of them, at any distance.
fn depends_on(graph: &Graph, node: NodeId, targets: &BTreeSet<NodeId>) -> bool {
    let mut seen = BTreeSet::new();
    let mut work = vec![node];
    while let Some(id) = work.pop() {
        if targets.contains(&id) {
            return true;
        }
        if seen.insert(id) {
            let feeds = graph.inputs_of(id).into_iter().flatten().chain(graph.captures_of(id));
            work.extend(feeds.map(|v| v.node));
        }
    }
    false
}

/// The type that the value has from now on: what is known of both. Errs where they contradict each other.
fn keeps_type(was: &ValueType, is: &ValueType) -> Result<ValueType, Declined> {
    let differs = |why: String| Declined::new("type of the replacement", is, format!("{was}: {why}"));
    if let (Some(a), Some(b)) = (was.as_tensor(), is.as_tensor())
        && a.shape.is_some()
        && b.shape.is_none()
    {
        return Err(differs("its rank is not known".into()));
    }
    was.merge(is).map_err(differs)
}

/// Redirects the uses of `old` to `new`. A new node takes the old value's name, so that the name keeps its value.
fn redirect(graph: &mut Graph, old: ValueId, new: ValueId, is_new: bool) -> Result<()> {
    let was_output = graph.is_output(old);
    let name = graph.value_name(old).to_string();
    graph.replace_uses(old, new)?;
    if is_new && !was_output && old != new {
        let parked = graph.fresh_name(&format!("{name}.replaced"));
        graph.rename(old, &parked)?;
        graph.rename(new, &name)?;
    }
    Ok(())
}

/// Removes these nodes if nothing uses them and they have no effects, then what only they used. Answers with the constants they read.
fn remove_dead(graph: &mut Graph, effects: &Effects, captures: &[Fact], mut work: Vec<NodeId>) -> Size {
    let mut removed = Size::default();
    let mut counted = BTreeSet::new();
    work.reverse();
    while let Some(id) = work.pop() {
        if !graph.contains(id)
            || matches!(graph.node(id).kind, NodeKind::Input)
            || graph.op(id).is_some_and(|op| effects.has(op))
        {
            continue;
        }
        let feeds: Vec<ValueId> =
            graph.inputs_of(id).into_iter().flatten().chain(graph.captures_of(id)).collect();
        let constants: Vec<(ValueId, Size)> =
            feeds.iter().filter_map(|v| Some((*v, size_of(&known_constant(graph, captures, *v)?)))).collect();
        if graph.remove(id).is_ok() {
            for (value, size) in constants {
                if counted.insert(value) {
                    removed.bytes += size.bytes;
                    removed.elements += size.elements;
                }
            }
            work.extend(feeds.into_iter().map(|v| v.node));
        }
    }
    removed
}
