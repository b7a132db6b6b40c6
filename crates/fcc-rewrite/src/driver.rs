//! Runs passes over a model: every graph in it, every candidate, and the report.
use crate::apply::{Done, apply};
use crate::builder::SharedConstants;
use crate::context::{Cx, FactMap, Limits};
use crate::count::{constants, constants_of, totals};
use crate::passes::{Pass, PassKind};
use crate::report::{Attempt, Outcome, PassSummary, Report, Row, Size};
use crate::rule::{AnyRule, Declined, Prepared};
use fcc_ir::infer::infer;
use fcc_ir::limits;
use fcc_ir::op::Fact;
use fcc_ir::{At, Effects, Error, Function, Graph, Model, NodeId, NodeKind, Result, Slot, ValueId, verify};
use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// When a hook is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Before the pass.
    Before,
    /// After it, the model verified.
    After,
}

/// Sees the model before and after each pass: its number from 0, its name.
pub type Hook<'h> = dyn FnMut(Moment, usize, &str, &Model) + 'h;

/// Options of a run.
#[derive(Default)]
pub struct Options<'h> {
    /// Limits that rules keep.
    pub limits: Limits,
    /// Stop rewriting after this many rewrites: what bisection turns.
    pub stop_after: Option<u64>,
    /// Called before and after each pass, to dump the model.
    pub hook: Option<&'h mut Hook<'h>>,
    /// Sees each match before it is applied; an error stops the run. Proofs are made here.
    pub on_match: Option<&'h mut OnMatch<'h>>,
}

/// Sees a rule's match in a graph before it is applied.
pub type OnMatch<'h> = dyn FnMut(&Site<'_>) -> Result<()> + 'h;

/// A match: where a rule is about to be applied.
pub struct Site<'a> {
    /// The graph.
    pub graph: &'a Graph,
    /// The model's functions.
    pub functions: &'a [Function],
    /// Facts of what the graph captures, by index.
    pub captures: &'a [Fact],
    /// The rule.
    pub rule: &'a Arc<dyn AnyRule>,
    /// The candidate.
    pub node: NodeId,
    /// The values that will be replaced.
    pub replaces: &'a [ValueId],
    /// The values that are not constant and that the replacement reads.
    pub sources: &'a [ValueId],
    /// Limits in force.
    pub limits: &'a Limits,
    /// Path of the graph, as in [`Row::graph`].
    pub path: &'a str,
}

/// Rounds of one repeated pass; each round changes something, so this ends runs that a faulty rule keeps going.
const MAX_ROUNDS: usize = 10_000;

/// Runs the passes in order. The model is verified after each; an error names the pass and leaves the model
/// in the state that the pass left it in. Limits in force ([`fcc_ir::RunLimits`]) are asked before each pass and at each
/// node: one that is reached is an error like any other.
pub fn run(model: &mut Model, passes: &[Pass], options: Options<'_>) -> Result<Report> {
    refuse_values_named_by_attribute(&model.graph)?;
    infer(&mut model.graph, &model.functions)?;
    let mut driver =
        Driver { options, report: Report::default(), rewrites: 0, growth_bytes: 0, declines: vec![] };
    // no new value takes a name that the model had: a name that both models know means the same value
    let reserved: BTreeSet<String> = model.graph.names().map(String::from).collect();
    let outer = std::mem::replace(&mut model.graph.outer_names, Arc::new(reserved));
    let done = passes.iter().enumerate().try_for_each(|(number, pass)| {
        limits::check_now().at(|| format!("before pass {}", pass.name))?;
        driver.tell(Moment::Before, number, pass, model);
        driver.pass(model, pass).at(|| format!("pass {}", pass.name))?;
        driver.tell(Moment::After, number, pass, model);
        Ok(())
    });
    model.graph.outer_names = outer;
    done.map(|()| driver.report)
}

/// `Gradient` names the values that it differentiates in attributes, where neither uses nor renaming are seen.
fn refuse_values_named_by_attribute(graph: &Graph) -> Result<()> {
    for id in graph.nodes() {
        let Some(op) = graph.op(id) else { continue };
        if op.domain == "ai.onnx.preview.training" && op.op_type == "Gradient" {
            let what = "Gradient names values in its attributes, which a rewrite could take away";
            return Err(Error::unsupported(what).at(graph.place(id)));
        }
        op.attrs.graphs().try_for_each(refuse_values_named_by_attribute)?;
    }
    Ok(())
}

struct Driver<'h> {
    options: Options<'h>,
    report: Report,
    rewrites: u64,
    growth_bytes: u64,
    /// Declined candidates of the current round; only the last round's are reported.
    declines: Vec<Row>,
}

/// One graph of the model during a pass.
pub(crate) struct Scope<'a> {
    pub path: &'a str,
    pub functions: &'a [Function],
    /// Facts of what the graph captures, by index.
    pub captures: &'a [Fact],
    /// In the body of a function, which has no initializers.
    pub constants_as_nodes: bool,
    /// Which operators unused outputs do not make dead code.
    pub effects: &'a Effects,
}

impl Driver<'_> {
    fn tell(&mut self, moment: Moment, number: usize, pass: &Pass, model: &Model) {
        if let Some(hook) = &mut self.options.hook {
            hook(moment, number, &pass.name, model);
        }
    }

    fn pass(&mut self, model: &mut Model, pass: &Pass) -> Result<()> {
        let (nodes_before, constants_before) = totals(model);
        let first_row = self.report.rows.len();
        let functions = model.functions.clone();
        let effects = &Effects::new(&functions);
        let main =
            Scope { path: "", functions: &functions, captures: &[], constants_as_nodes: false, effects };
        self.graph(&mut model.graph, pass, &main)?;
        for i in 0..model.functions.len() {
            let Some(f) = model.functions.get_mut(i) else { continue };
            let path = format!("function {}", f.name);
            let scope = Scope { path: &path, constants_as_nodes: true, ..main };
            self.graph(&mut f.body, pass, &scope)?;
        }
        verify::verify(model)?;
        infer(&mut model.graph, &model.functions)?;
        let rows = self.report.rows.get(first_row..).unwrap_or_default();
        let rewritten = rows.iter().filter(|r| r.outcome == Outcome::Rewritten).count();
        let declined = rows.len() - rewritten;
        let (nodes_after, constants_after) = totals(model);
        self.report.passes.push(PassSummary {
            pass: pass.name.clone(),
            rewritten,
            declined,
            nodes_before,
            nodes_after,
            constants_before,
            constants_after,
        });
        Ok(())
    }

    /// Rewrites a graph, then the subgraphs in it.
    fn graph(&mut self, graph: &mut Graph, pass: &Pass, scope: &Scope<'_>) -> Result<()> {
        match &pass.kind {
            PassKind::Rules { rules, repeat } => self.rules(graph, pass, rules, *repeat, scope)?,
            PassKind::RemoveUnused => {
                self.remove_unused(graph, pass, scope);
                return Ok(());
            }
        }
        let owners: Vec<NodeId> = graph.ops()?.into_iter().filter(|id| has_graphs(graph, *id)).collect();
        if owners.is_empty() {
            return Ok(());
        }
        let facts = FactMap::new(graph, scope.functions, scope.captures)?;
        let mut outer: BTreeSet<String> = (*graph.outer_names).clone();
        outer.extend(graph.names().map(String::from));
        let outer = Arc::new(outer);
        for owner in owners {
            merge_captures(graph, owner)?;
            let captured: Vec<(String, Fact)> = graph
                .captures_of(owner)
                .into_iter()
                .map(|v| (graph.value_name(v).to_string(), facts.get(v).cloned().unwrap_or_default()))
                .collect();
            let path = path_of(scope.path, &row_name(graph, owner));
            let Some(op) = graph.node_mut(owner).op_mut() else { continue };
            let labels: Vec<String> = graph_labels(&op.attrs);
            for (sub, label) in op.attrs.graphs_mut().zip(labels) {
                sub.outer_names = outer.clone();
                name_captures(sub, &captured)?;
                let facts: Vec<Fact> = captured.iter().map(|(_, f)| f.clone()).collect();
                let path = format!("{path}.{label}");
                let inner = Scope { path: &path, captures: &facts, constants_as_nodes: false, ..*scope };
                self.graph(sub, pass, &inner)?;
            }
        }
        Ok(())
    }

    /// Removes what no output needs, in subgraphs first: what only they captured is not needed outside either.
    fn remove_unused(&mut self, graph: &mut Graph, pass: &Pass, scope: &Scope<'_>) {
        for owner in graph.nodes() {
            if !has_graphs(graph, owner) {
                continue;
            }
            let path = path_of(scope.path, &row_name(graph, owner));
            let Some(op) = graph.node_mut(owner).op_mut() else { continue };
            let labels = graph_labels(&op.attrs);
            for (sub, label) in op.attrs.graphs_mut().zip(&labels) {
                let path = format!("{path}.{label}");
                self.remove_unused(sub, pass, &Scope { path: &path, ..*scope });
            }
            if !labels.is_empty() {
                drop_unused_captures(graph, owner);
            }
        }
        let before = constants(graph);
        let unused: Vec<(String, String)> = unused(graph, scope.effects);
        graph.sweep(|op| scope.effects.has(op));
        let after = constants(graph);
        for (i, (node, op)) in unused.into_iter().enumerate() {
            self.report.rows.push(Row {
                pass: pass.name.clone(),
                rule: pass.name.clone(),
                graph: scope.path.into(),
                node,
                op,
                outcome: Outcome::Rewritten,
                number: None,
                reason: None,
                tried: vec![],
                // what the graph holds altogether is told once
                before: if i == 0 { before } else { Size::default() },
                after: Some(if i == 0 { after } else { Size::default() }),
                made: vec![],
            });
        }
    }

    fn rules(
        &mut self,
        graph: &mut Graph,
        pass: &Pass,
        rules: &[Arc<dyn AnyRule>],
        repeat: bool,
        scope: &Scope<'_>,
    ) -> Result<()> {
        let mut facts = FactMap::new(graph, scope.functions, scope.captures)?;
        let mut shared = SharedConstants::default();
        for _ in 0..MAX_ROUNDS {
            self.declines.clear();
            let mut made: HashSet<NodeId> = HashSet::new();
            let mut changed = false;
            for node in graph.ops()? {
                // a node made in this round is for the next one (its id may be that of a removed node)
                if !graph.contains(node) || made.contains(&node) {
                    continue;
                }
                if let Some(new) = self.candidate(graph, &mut facts, &mut shared, pass, rules, node, scope)? {
                    made.extend(new);
                    changed = true;
                }
            }
            if !(repeat && changed) {
                self.report.rows.append(&mut self.declines);
                return Ok(());
            }
        }
        Err(Error::invalid(format!("no end after {MAX_ROUNDS} rounds")))
    }

    /// Tries the rules at a node until one rewrites it. Answers with the nodes made.
    fn candidate(
        &mut self,
        graph: &mut Graph,
        facts: &mut FactMap,
        shared: &mut SharedConstants,
        pass: &Pass,
        rules: &[Arc<dyn AnyRule>],
        node: NodeId,
        scope: &Scope<'_>,
    ) -> Result<Option<Vec<NodeId>>> {
        if self.options.stop_after.is_some_and(|limit| self.rewrites >= limit) {
            return Ok(None);
        }
        let mut row = new_row(graph, pass, node, scope);
        limits::check_now().at(|| graph.place(node))?;
        for rule in rules {
            let Some(outcome) = self.attempt(graph, facts, shared, rule, node, scope)? else { continue };
            row.tried.extend(previous(&mut row.rule, &mut row.reason));
            row.rule = rule.name().into();
            // what a rule declined because a limit was reached is not its answer
            limits::check_now().at(|| format!("rule {} at {}", rule.name(), row.node))?;
            match outcome {
                Err(declined) => row.reason = Some(declined),
                Ok(done) => {
                    row.outcome = Outcome::Rewritten;
                    row.number = Some(self.rewrites);
                    (row.before, row.after, row.made) = (done.before, Some(done.after), done.names);
                    self.report.rows.push(row);
                    return Ok(Some(done.made));
                }
            }
        }
        if row.reason.is_some() {
            self.declines.push(row);
        }
        Ok(None)
    }

    /// Tries one rule at a node; `None` if the node is no candidate of it.
    fn attempt(
        &mut self,
        graph: &mut Graph,
        facts: &mut FactMap,
        shared: &mut SharedConstants,
        rule: &Arc<dyn AnyRule>,
        node: NodeId,
        scope: &Scope<'_>,
    ) -> Result<Option<Result<Done, Declined>>> {
        let (functions, captures) = (scope.functions, scope.captures);
        let cx = Cx { graph, facts, functions, captures, limits: &self.options.limits };
        let prepared = match rule.prepare(&cx, node) {
            None => return Ok(None),
            Some(Err(declined)) => return Ok(Some(Err(declined))),
            Some(Ok(prepared)) => prepared,
        };
        if let Err(declined) = self.admit(&prepared) {
            return Ok(Some(Err(declined)));
        }
        if let Some(on_match) = &mut self.options.on_match {
            let limits = &self.options.limits;
            let (replaces, sources, path) = (&prepared.replaces, &prepared.sources, scope.path);
            on_match(&Site { graph, functions, captures, rule, node, replaces, sources, limits, path })?;
        }
        let growth = prepared.growth_bytes;
        let place = format!("rule {} at {}", rule.name(), row_name(graph, node));
        let done = apply(graph, facts, shared, scope, &self.options.limits, node, prepared).at(|| place)?;
        if done.is_ok() {
            self.rewrites += 1;
            self.growth_bytes = self.growth_bytes.saturating_add(growth);
        }
        Ok(Some(done))
    }

    /// Holds a match to the budget.
    fn admit(&self, prepared: &Prepared<'_>) -> Result<(), Declined> {
        let (used, limit) = (self.growth_bytes, self.options.limits.growth_bytes);
        let total = used.saturating_add(prepared.growth_bytes);
        if prepared.growth_bytes == 0 || total <= limit {
            return Ok(());
        }
        let got = match used {
            0 => format!("{total} bytes"),
            _ => format!("{} bytes beside {used} bytes of earlier rewrites", prepared.growth_bytes),
        };
        Err(Declined::new("growth of the model's constants", got, format!("at most {limit} bytes")))
    }
}

/// The row of a candidate that no rule has seen.
fn new_row(graph: &Graph, pass: &Pass, node: NodeId, scope: &Scope<'_>) -> Row {
    Row {
        pass: pass.name.clone(),
        rule: String::new(),
        graph: scope.path.into(),
        node: row_name(graph, node),
        op: graph.op(node).map(|o| o.op_type.clone()).unwrap_or_default(),
        outcome: Outcome::Declined,
        number: None,
        reason: None,
        tried: vec![],
        before: constants_of(graph, scope.captures, &[node]),
        after: None,
        made: vec![],
    }
}

/// The last decline, before another rule's outcome takes its place.
fn previous(rule: &mut String, reason: &mut Option<Declined>) -> Option<Attempt> {
    reason.take().map(|reason| Attempt { rule: std::mem::take(rule), reason })
}

/// A node's name in reports: its own, or that of its first output.
pub(crate) fn row_name(graph: &Graph, id: NodeId) -> String {
    let node = graph.node(id);
    if node.name.is_empty() {
        node.outputs().first().map(|o| o.name.clone()).unwrap_or_default()
    } else {
        node.name.clone()
    }
}

/// The path of a node's subgraphs, without their label.
fn path_of(outer: &str, owner: &str) -> String {
    if outer.is_empty() { owner.into() } else { format!("{outer}/{owner}") }
}

/// Leaves out what the subgraphs of a node capture and do not use, and numbers the rest from 0.
fn drop_unused_captures(graph: &mut Graph, owner: NodeId) {
    let captured = graph.captures_of(owner);
    let Some(op) = graph.op(owner) else { return };
    let used: BTreeSet<u32> = op.attrs.graphs().flat_map(capture_indices).collect();
    if used.len() == captured.len() {
        return;
    }
    let new: HashMap<u32, u32> = used.iter().copied().zip(0..).collect();
    // what is not used has no place
    let index = |i: &u32| new.get(i).copied().unwrap_or(u32::MAX);
    if let Some(op) = graph.node_mut(owner).op_mut() {
        for sub in op.attrs.graphs_mut() {
            for id in sub.nodes() {
                if let NodeKind::Capture(i) = &mut sub.node_mut(id).kind {
                    *i = index(i);
                }
            }
        }
    }
    for (i, value) in (0u32..).zip(captured) {
        graph.disconnect(owner, Slot::Capture(i));
        if used.contains(&i) {
            graph.connect(value, owner, Slot::Capture(index(&i)));
        }
    }
}

fn capture_indices(sub: &Graph) -> Vec<u32> {
    let kinds = sub.nodes().into_iter().map(|id| sub.node(id).kind.clone());
    kinds.filter_map(|k| if let NodeKind::Capture(i) = k { Some(i) } else { None }).collect()
}

fn has_graphs(graph: &Graph, id: NodeId) -> bool {
    graph.op(id).is_some_and(|op| op.attrs.graphs().next().is_some())
}

/// One label for each graph of `attrs.graphs()`: the attribute's name, numbered in a list.
fn graph_labels(attrs: &fcc_ir::attr::Attrs) -> Vec<String> {
    use fcc_ir::attr::AttrValue;
    attrs
        .iter()
        .flat_map(|a| match &a.value {
            AttrValue::Graph(_) => vec![a.name.clone()],
            AttrValue::Graphs(list) => (0..list.len()).map(|i| format!("{}[{i}]", a.name)).collect(),
            _ => vec![],
        })
        .collect()
}

/// Where rules made one value of several that the subgraphs of a node capture, they capture it once.
fn merge_captures(graph: &mut Graph, owner: NodeId) -> Result<()> {
    let mut first: HashMap<ValueId, u32> = HashMap::new();
    let kept: Vec<u32> =
        (0..).zip(graph.captures_of(owner)).map(|(i, value)| *first.entry(value).or_insert(i)).collect();
    if first.len() == kept.len() {
        return Ok(());
    }
    if let Some(op) = graph.node_mut(owner).op_mut() {
        op.attrs.graphs_mut().try_for_each(|sub| capture_once(sub, &kept))?;
    }
    drop_unused_captures(graph, owner);
    Ok(())
}

/// Has each capture stand for the index that `kept` has in its place, one node for each.
fn capture_once(sub: &mut Graph, kept: &[u32]) -> Result<()> {
    let mut made: HashMap<u32, ValueId> = HashMap::new();
    for id in sub.nodes() {
        let NodeKind::Capture(i) = &mut sub.node_mut(id).kind else { continue };
        *i = kept.get(*i as usize).copied().unwrap_or(*i);
        let (index, value) = (*i, ValueId { node: id, output: 0 });
        if let Some(other) = made.insert(index, value) {
            // an output of the subgraph keeps its node
            let (old, new) = if sub.is_output(other) { (value, other) } else { (other, value) };
            made.insert(index, new);
            sub.replace_uses(old, new)?;
            sub.remove(old.node)?;
        }
    }
    Ok(())
}

/// Gives the captures of a subgraph the names that the values have outside.
fn name_captures(sub: &mut Graph, captured: &[(String, Fact)]) -> Result<()> {
    for id in sub.nodes() {
        if let NodeKind::Capture(i) = sub.node(id).kind
            && let Some((name, _)) = captured.get(i as usize)
        {
            sub.rename(ValueId { node: id, output: 0 }, name)?;
        }
    }
    Ok(())
}

/// Nodes that no output needs: name and operator.
fn unused(graph: &Graph, effects: &Effects) -> Vec<(String, String)> {
    let mut swept = graph.clone();
    swept.sweep(|op| effects.has(op));
    graph
        .nodes()
        .into_iter()
        .filter(|id| !swept.contains(*id))
        .map(|id| {
            let kind = match &graph.node(id).kind {
                NodeKind::Op(op) => op.op_type.clone(),
                NodeKind::Constant(_) | NodeKind::SparseConstant(_) => "initializer".into(),
                NodeKind::Input | NodeKind::Capture(_) => "outer value".into(),
            };
            (row_name(graph, id), kind)
        })
        .collect()
}
