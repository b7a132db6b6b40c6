//! A match applied: built, checked, redirected, and what nothing uses any more removed.
use crate::builder::{Builder, SharedConstants};
use crate::context::{FactMap, known_constant};
use crate::count::{constants_of, size_of};
use crate::driver::{Scope, row_name};
use crate::report::Size;
use crate::rule::{Declined, Prepared};
use fcc_ir::op::Fact;
use fcc_ir::{Graph, NodeId, NodeKind, Result, ValueId, ValueType};
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
    max_nodes: usize,
    at: NodeId,
    prepared: Prepared<'_>,
) -> Result<Result<Done, Declined>> {
    let old = prepared.replaces;
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
        max_nodes,
        constants_as_nodes: scope.constants_as_nodes,
    };
    let built = (prepared.action)(&mut builder);
    let after = constants_of(builder.graph, scope.captures, &builder.made);
    let made = std::mem::take(&mut builder.made);
    let checked = built.and_then(|new| {
        let (was, is) = (builder.ty(old), builder.ty(new));
        let kept = keeps_type(&was, &is)?;
        Ok((new, kept))
    });
    let (new, ty) = match checked {
        Ok(found) => found,
        Err(declined) => {
            remove_dead(graph, &[], made.into_iter().rev().collect());
            return Ok(Err(declined));
        }
    };
    if let Err(why) = redirect(graph, old, new, made.contains(&new.node)) {
        remove_dead(graph, &[], made.into_iter().rev().collect());
        return Ok(Err(why.into()));
    }
    graph.set_ty(new, ty.clone());
    let mut fact = facts.get(new).cloned().unwrap_or_default();
    fact.ty = ty;
    facts.set(new, fact);
    let before = remove_dead(graph, scope.captures, vec![old.node]);
    remove_dead(graph, &[], made.iter().rev().copied().collect());
    let made: Vec<NodeId> = made.into_iter().filter(|id| graph.contains(*id)).collect();
    let names = made.iter().filter(|id| graph.op(**id).is_some()).map(|id| row_name(graph, *id)).collect();
    Ok(Ok(Done { made, names, before, after }))
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

/// Removes these nodes if nothing uses them, then what only they used. Answers with the constants they read.
fn remove_dead(graph: &mut Graph, captures: &[Fact], mut work: Vec<NodeId>) -> Size {
    let mut removed = Size::default();
    let mut counted = BTreeSet::new();
    work.reverse();
    while let Some(id) = work.pop() {
        if !graph.contains(id) || matches!(graph.node(id).kind, NodeKind::Input) {
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
