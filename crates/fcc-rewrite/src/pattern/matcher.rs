//! Finds out whether a pattern describes a value, by trying.
//!
//! The search keeps a list of goals, a value and the pattern that should describe it. A goal that can be met in several
//! ways (an alternative, an order of operands, a grouping of a chain) is tried in each, the rest of the goals behind it.
use super::{AttrTest, Kind, Matched, NodePat, Pat, Which};
use crate::context::Cx;
use crate::rule::Declined;
use crate::same::same_attr;
use fcc_ir::{DType, NodeId, Op, Tensor, ValueId};

/// Goals that one search may look at: patterns have few nodes, graphs may have many equal ones.
const MAX_GOALS: usize = 20_000;

/// A part of the pattern that is still to be matched.
#[derive(Clone)]
enum Goal<'p> {
    Value(Option<ValueId>, &'p Pat),
    /// The operands of a chain of one associative operator, in any order and grouping.
    Terms(Op, Vec<ValueId>, Vec<&'p Pat>),
}

/// The outcome of a search.
pub(super) enum Found {
    /// The root is no candidate.
    Nothing,
    /// The operators are there, and a condition on a value does not hold.
    Near(Declined),
    Match(Matched),
}

/// Matches the roots of a pattern, the first at this node.
pub(super) fn find(cx: &Cx<'_>, roots: &[Pat], node: NodeId) -> Found {
    let Some((first, rest)) = roots.split_first() else { return Found::Nothing };
    let Some(output) = root_output(cx, first, node) else { return Found::Nothing };
    let mut search = Search { cx, left: MAX_GOALS, near: None, near_from: first.nodes().div_ceil(2).max(2) };
    let value = ValueId { node, output };
    let start = Matched { roots: vec![value], ..Matched::default() };
    let matched = search.solve(vec![Goal::Value(Some(value), first)], start);
    match (matched.and_then(|m| search.roots(rest, m)), search.near) {
        (Some(matched), _) => Found::Match(matched),
        (None, Some((_, declined))) => Found::Near(declined),
        (None, None) => Found::Nothing,
    }
}

/// Which output of the node the root of a pattern is, if the node is its operator.
fn root_output(cx: &Cx<'_>, root: &Pat, node: NodeId) -> Option<u32> {
    match &*root.0 {
        Kind::Node(n) => is(cx, node, &n.which).then_some(n.output),
        Kind::Or(all) => all.iter().find_map(|pat| root_output(cx, pat, node)),
        Kind::Any(_) | Kind::Constant(_) | Kind::Number(_) | Kind::Absent => None,
    }
}

/// Whether a node is the operator that a pattern asks for, and no call of a function of that name.
fn is(cx: &Cx<'_>, node: NodeId, which: &Which) -> bool {
    let Some(op) = cx.graph().op(node) else { return false };
    match which {
        // a call is `Op::Opaque`
        Which::Known(ops) => op.op != Op::Opaque && ops.contains(&op.op),
        Which::Named(domain, name) => {
            let called = || fcc_ir::interp::call_target(op, cx.functions).is_some();
            op.domain == *domain && op.op_type == *name && !called()
        }
    }
}

struct Search<'a, 'c> {
    cx: &'a Cx<'c>,
    left: usize,
    /// The condition that failed behind the most nodes, and how many.
    near: Option<(usize, Declined)>,
    near_from: usize,
}

impl<'a> Search<'a, '_> {
    /// Finds the other roots among the users of what is matched already.
    fn roots(&mut self, roots: &[Pat], m: Matched) -> Option<Matched> {
        let Some((root, rest)) = roots.split_first() else { return Some(m) };
        let Kind::Node(wanted) = &*root.0 else { return None };
        let names = wanted.inputs.iter().filter_map(|i| match &*i.0 {
            Kind::Any(name) | Kind::Constant(name) => Some(name),
            Kind::Node(n) => n.name.as_ref(),
            Kind::Number(_) | Kind::Absent | Kind::Or(_) => None,
        });
        let shared: Vec<ValueId> = names.filter_map(|name| m.values.get(name).copied()).collect();
        for (user, _) in shared.iter().flat_map(|v| self.cx.graph().users(*v)) {
            let value = ValueId { node: user, output: wanted.output };
            if m.roots.contains(&value) {
                continue;
            }
            let mut start = m.clone();
            start.roots.push(value);
            let next = self.solve(vec![Goal::Value(Some(value), root)], start);
            if let Some(all) = next.and_then(|m| self.roots(rest, m)) {
                return Some(all);
            }
        }
        None
    }

    fn solve<'p>(&mut self, mut goals: Vec<Goal<'p>>, mut m: Matched) -> Option<Matched> {
        while let Some(goal) = goals.pop() {
            self.left = self.left.checked_sub(1)?;
            match goal {
                Goal::Terms(op, terms, pats) => return self.terms(op, &terms, &pats, &goals, &m),
                Goal::Value(value, pat) => match &*pat.0 {
                    Kind::Absent => value.is_none().then_some(())?,
                    Kind::Any(name) => self.bind(name, value?, &mut m)?,
                    Kind::Constant(name) => self.constant(name, value?, &mut m)?,
                    Kind::Number(wanted) => self.number(*wanted, value?, &m)?,
                    Kind::Or(all) => {
                        return all.iter().find_map(|pat| {
                            let mut goals = goals.clone();
                            goals.push(Goal::Value(value, pat));
                            self.solve(goals, m.clone())
                        });
                    }
                    Kind::Node(n) => return self.node(n, value?, goals, m),
                },
            }
        }
        Some(m)
    }

    fn node<'p>(
        &mut self,
        pat: &'p NodePat,
        value: ValueId,
        mut goals: Vec<Goal<'p>>,
        mut m: Matched,
    ) -> Option<Matched> {
        let cx = self.cx;
        let op = cx.graph().op(value.node).filter(|_| value.output == pat.output)?;
        if !is(cx, value.node, &pat.which) {
            return None;
        }
        if !m.nodes.contains(&value.node) {
            m.nodes.push(value.node);
        }
        for test in &pat.attrs {
            self.attribute(test, value.node, &m)?;
        }
        if pat.once && !m.roots.contains(&value) && cx.graph().use_count(value) != 1 {
            let got = format!("{} times", cx.graph().use_count(value));
            self.misses(&m, Declined::new(format!("use of `{}`", cx.graph().value_name(value)), got, "once"));
            return None;
        }
        if let Some(name) = &pat.name {
            self.same_value(name, value, &mut m)?;
        }
        let inputs = cx.graph().inputs_of(value.node);
        if let (true, Some(terms)) = (is_chain(cx, value.node, op.op), all(&inputs)) {
            let mut pats = vec![];
            flatten(op.op, &pat.inputs, &mut pats);
            goals.push(Goal::Terms(op.op, terms, pats));
            return self.solve(goals, m);
        }
        if inputs.iter().skip(pat.inputs.len()).any(Option::is_some) {
            return None;
        }
        let at = |i: usize| inputs.get(i).copied().flatten();
        let push = |goals: &mut Vec<Goal<'p>>, order: &[usize]| {
            let pairs = pat.inputs.iter().zip(order).rev();
            goals.extend(pairs.map(|(pat, i)| Goal::Value(at(*i), pat)));
        };
        if op.op.is_commutative() && pat.inputs.len() == 2 {
            let mut swapped = goals.clone();
            push(&mut goals, &[0, 1]);
            push(&mut swapped, &[1, 0]);
            return self.solve(goals, m.clone()).or_else(|| self.solve(swapped, m));
        }
        push(&mut goals, &(0..pat.inputs.len()).collect::<Vec<_>>());
        self.solve(goals, m)
    }

    /// Gives each pattern one of the terms; with fewer terms than patterns, a term of the same operator is opened.
    fn terms<'p>(
        &mut self,
        op: Op,
        terms: &[ValueId],
        pats: &[&'p Pat],
        goals: &[Goal<'p>],
        m: &Matched,
    ) -> Option<Matched> {
        let cx = self.cx;
        if terms.len() > pats.len() {
            return None;
        }
        if terms.len() < pats.len() {
            return (0..terms.len()).find_map(|i| {
                let node = terms[i].node;
                let inner = all(&cx.graph().inputs_of(node)).filter(|_| is_chain(cx, node, op))?;
                let mut opened = terms.to_vec();
                opened.splice(i..=i, inner);
                let mut m = m.clone();
                m.nodes.push(node);
                let mut goals = goals.to_vec();
                goals.push(Goal::Terms(op, opened, pats.to_vec()));
                self.solve(goals, m)
            });
        }
        // what says more is decided first: operators, then constants, then variables
        let hardest = (0..pats.len()).min_by_key(|i| ease(pats[*i]))?;
        let mut rest = pats.to_vec();
        let pat = rest.remove(hardest);
        (0..terms.len()).find_map(|i| {
            let mut left = terms.to_vec();
            let term = left.remove(i);
            let mut goals = goals.to_vec();
            if !rest.is_empty() {
                goals.push(Goal::Terms(op, left, rest.clone()));
            }
            goals.push(Goal::Value(Some(term), pat));
            self.solve(goals, m.clone())
        })
    }

    fn bind(&mut self, name: &str, value: ValueId, m: &mut Matched) -> Option<()> {
        self.same_value(name, value, m)?;
        if self.cx.constant(value).is_none() && !m.sources.contains(&value) {
            m.sources.push(value);
        }
        Some(())
    }
    /// A name stands for one value in a match, or for constants that are equal.
    fn same_value(&mut self, name: &str, value: ValueId, m: &mut Matched) -> Option<()> {
        let cx = self.cx;
        match m.values.get(name) {
            None => {
                m.values.insert(name.into(), value);
            }
            Some(known) if *known == value => {}
            Some(known) => {
                let (a, b) = (cx.constant(*known), cx.constant(value));
                if a.is_none() || a != b {
                    let (got, need) = (cx.graph().value_name(value), cx.graph().value_name(*known));
                    self.misses(m, Declined::new(name, format!("`{got}`"), format!("`{need}` as elsewhere")));
                    return None;
                }
            }
        }
        Some(())
    }
    fn constant(&mut self, name: &str, value: ValueId, m: &mut Matched) -> Option<()> {
        match self.cx.need_constant(value, name) {
            Ok(tensor) => {
                self.same_value(name, value, m)?;
                m.tensors.insert(name.into(), tensor);
                Some(())
            }
            Err(declined) => {
                self.misses(m, declined);
                None
            }
        }
    }
    fn number(&mut self, wanted: f64, value: ValueId, m: &Matched) -> Option<()> {
        let got = self.cx.constant(value)?;
        let number = element(&got)?;
        if (number - wanted).abs() <= tolerance(got.dtype()) * wanted.abs() {
            return Some(());
        }
        let what = format!("constant `{}`", self.cx.graph().value_name(value));
        self.misses(m, Declined::new(what, number, wanted));
        None
    }
    fn attribute(&mut self, test: &AttrTest, node: NodeId, m: &Matched) -> Option<()> {
        let got = self.cx.graph().op(node)?.attrs.get(&test.name);
        if got.map_or(test.or_absent, |got| same_attr(got, &test.value)) {
            return Some(());
        }
        let got = got.map_or("none".into(), |got| format!("{got:?}"));
        let what = format!("{} of {}", test.name, self.cx.graph().place(node));
        self.misses(m, Declined::new(what, got, format!("{:?}", test.value)));
        None
    }
    /// Remembers a condition that does not hold where enough operators are there to call it a near miss.
    fn misses(&mut self, m: &Matched, declined: Declined) {
        let nodes = m.nodes.len();
        if nodes >= self.near_from && self.near.as_ref().is_none_or(|(n, _)| nodes > *n) {
            self.near = Some((nodes, declined));
        }
    }
}

/// All values, if none is left out.
fn all(inputs: &[Option<ValueId>]) -> Option<Vec<ValueId>> {
    inputs.iter().copied().collect()
}

/// Whether a node is a link of a chain of an associative operator. Before opset 7 an attribute said how operands
/// broadcast, so that order and grouping were not free.
fn is_chain(cx: &Cx<'_>, node: NodeId, op: Op) -> bool {
    let fits = cx.graph().op(node).is_some_and(|o| o.op == op && o.version >= 7);
    fits && op.is_associative() && is(cx, node, &Which::Known(vec![op]))
}

/// The operands of a chain in a pattern: inner nodes of the same operator are opened where nothing else is said of them.
fn flatten<'p>(op: Op, inputs: &'p [Pat], out: &mut Vec<&'p Pat>) {
    for pat in inputs {
        match &*pat.0 {
            Kind::Node(n)
                if matches!(&n.which, Which::Known(ops) if *ops == [op])
                    && n.name.is_none()
                    && !n.once
                    && n.attrs.is_empty() =>
            {
                flatten(op, &n.inputs, out);
            }
            _ => out.push(pat),
        }
    }
}

/// How little a pattern says: the least is decided last.
fn ease(pat: &Pat) -> u8 {
    match &*pat.0 {
        Kind::Node(_) | Kind::Absent => 0,
        Kind::Or(_) | Kind::Number(_) => 1,
        Kind::Constant(_) => 2,
        Kind::Any(_) => 3,
    }
}

/// The only element of a floating or integer tensor.
fn element(t: &Tensor) -> Option<f64> {
    if t.len() != 1 {
        return None;
    }
    match crate::verify::as_f64s(t) {
        Some(values) => values.first().copied(),
        None => t.to_i64s().ok()?.first().map(|v| *v as f64),
    }
}

/// By how much a constant may differ from the number that it stands for, as a part of it: a few units in its last
/// place, as exporters compute it.
fn tolerance(dtype: DType) -> f64 {
    match dtype {
        DType::F64 | DType::F32 | DType::F16 | DType::BF16 => 4.0 * crate::verify::epsilon(dtype),
        _ => 0.0,
    }
}
