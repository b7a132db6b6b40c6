//! Consecutive Transposes as one, or none.
use super::layout::{is_identity, transpose_behind};
use crate::builder::Builder;
use crate::context::Cx;
use crate::rule::{Declined, Match, Rule, Traits, rule_type};
use fcc_ir::{NodeId, ValueId};

rule_type! {
    /// `Transpose[q](Transpose[p](x)) => Transpose[p of q](x)`, and `=> x` where they undo each other
    ///
    /// # What
    /// Two Transposes move axes as one does.
    ///
    /// # Why
    /// Layers over tokens that became Convs leave a Transpose before and after each; between layers they cancel.
    ///
    /// # Example
    /// ```text
    /// a = Transpose<perm=[0,2,1]>(x)
    /// y = Transpose<perm=[0,2,1]>(a)
    /// ```
    /// becomes `x` itself.
    ///
    /// # Declines
    /// - the rank is not known.
    pub(crate) struct MergeTransposes = "merge-transposes";
}

impl Rule for MergeTransposes {
    type Found = NodeId;
    type Plan = (ValueId, Vec<usize>);
    fn name(&self) -> &str {
        Self::NAME
    }
    fn doc(&self) -> &str {
        Self::DOC
    }
    fn traits(&self) -> Traits {
        Traits { repeats: true, ..Traits::default() }
    }
    fn pattern(&self, cx: &Cx<'_>, node: NodeId) -> Option<NodeId> {
        cx.op(node, "Transpose")?;
        cx.op(cx.graph().input(node, 0)?.node, "Transpose").map(|_| node)
    }
    fn guard(&self, cx: &Cx<'_>, node: NodeId) -> Result<Match<(ValueId, Vec<usize>)>, Declined> {
        let y = cx.out(node);
        cx.need_shape(y)?;
        let both = transpose_behind(cx, y)
            .and_then(|(middle, q)| transpose_behind(cx, middle).map(|(x, p)| (x, p, q)));
        let Some((x, p, q)) = both else {
            return Err(Declined::new("perm", "none that can be read", "two permutations"));
        };
        let perm: Vec<usize> = q.iter().filter_map(|&i| p.get(i).copied()).collect();
        let nameless =
            cx.graph().is_output(y) && (cx.graph().op(x.node).is_none() || cx.graph().is_output(x));
        if is_identity(&perm) && nameless {
            let what = format!("output `{}` handed on from", cx.graph().value_name(y));
            return Err(Declined::new(what, cx.graph().place(x.node), "an operator's inner value"));
        }
        Ok(Match { replaces: y, sources: vec![x], growth_bytes: 0, plan: (x, perm) })
    }
    fn action(&self, (x, perm): (ValueId, Vec<usize>), b: &mut Builder<'_>) -> Result<ValueId, Declined> {
        b.transpose(x, &perm)
    }
}
