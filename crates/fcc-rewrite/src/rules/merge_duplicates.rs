//! Nodes that compute the same as another.
use crate::builder::Builder;
use crate::context::Cx;
use crate::rule::{Declined, Match, Rule, Traits, rule_type};
use crate::same::same_attrs;
use fcc_ir::{NodeId, Op, Slot, ValueId};

rule_type! {
    /// `a = f(x); b = f(x) => a = f(x); b = a`
    ///
    /// # What
    /// Of two nodes with the same operator, attributes and inputs (small constants count as the same where their
    /// elements are), the second one goes and its users read the first.
    ///
    /// # Why
    /// Three layers over the same tokens that become Convs would each transpose them.
    ///
    /// # Example
    /// ```text
    /// a = Transpose<perm=[0,2,1]>(x)
    /// b = Transpose<perm=[0,2,1]>(x)
    /// y = Concat<axis=1>(a, b)
    /// ```
    /// becomes
    /// ```text
    /// a = Transpose<perm=[0,2,1]>(x)
    /// y = Concat<axis=1>(a, a)
    /// ```
    ///
    /// # Declines
    /// - both values are outputs of the graph: each keeps its name;
    /// - random operators, operators with subgraphs and operators that fcc does not know are never the same.
    pub(crate) struct MergeDuplicates = "merge-duplicates";
}

/// Uses of a value that are compared with each other: work with the square of their number.
const COMPARED: usize = 256;
/// Elements up to which two constants are compared.
const SMALL: usize = 64;

impl Rule for MergeDuplicates {
    type Found = (NodeId, NodeId);
    type Plan = ValueId;
    fn name(&self) -> &str {
        Self::NAME
    }
    fn doc(&self) -> &str {
        Self::DOC
    }
    fn traits(&self) -> Traits {
        Traits { repeats: true, ..Traits::default() }
    }
    fn pattern(&self, cx: &Cx<'_>, node: NodeId) -> Option<(NodeId, NodeId)> {
        let op = cx.graph().op(node)?;
        let single = cx.graph().node(node).outputs().len() == 1;
        let pure = op.op != Op::Opaque && !op.op.is_random() && op.attrs.graphs().next().is_none();
        let first = cx.graph().input(node, 0).filter(|_| single && pure)?;
        if cx.graph().use_count(first) > COMPARED {
            return None;
        }
        // users come in the order of the file, so that the first of two stays
        let others = cx.graph().users(first).into_iter().take_while(|(user, _)| *user != node);
        others
            .filter(|(user, slot)| *slot == Slot::Input(0) && same(cx, *user, node))
            .map(|(user, _)| (node, user))
            .next()
    }
    fn guard(&self, cx: &Cx<'_>, (node, other): (NodeId, NodeId)) -> Result<Match<ValueId>, Declined> {
        let (y, kept) = (cx.out(node), cx.out(other));
        if cx.graph().is_output(y) && cx.graph().is_output(kept) {
            let what = format!("`{}` and `{}`", cx.graph().value_name(kept), cx.graph().value_name(y));
            return Err(Declined::new(what, "two outputs of the graph", "one"));
        }
        Ok(Match { replaces: y, sources: vec![kept], growth_bytes: 0, plan: kept })
    }
    fn action(&self, kept: ValueId, _: &mut Builder<'_>) -> Result<ValueId, Declined> {
        Ok(kept)
    }
}

fn same(cx: &Cx<'_>, a: NodeId, b: NodeId) -> bool {
    let (Some(p), Some(q)) = (cx.graph().op(a), cx.graph().op(b)) else { return false };
    let same_input = |(a, b): (&Option<ValueId>, &Option<ValueId>)| match (a, b) {
        (Some(a), Some(b)) if a != b => match (cx.constant(*a), cx.constant(*b)) {
            (Some(a), Some(b)) => a.len() <= SMALL && a == b,
            _ => false,
        },
        (a, b) => a == b,
    };
    let (x, y) = (cx.graph().inputs_of(a), cx.graph().inputs_of(b));
    p.op == q.op
        && p.version == q.version
        && cx.graph().node(a).outputs().len() == 1
        && x.len() == y.len()
        && x.iter().zip(&y).all(same_input)
        && same_attrs(&p.attrs, &q.attrs)
}
