//! Consecutive changes of shape as one, or none.
use super::layout::reshape_behind;
use crate::builder::Builder;
use crate::context::{Cx, dims_text, same_elements_shape};
use crate::rule::{Declined, Match, Rule, Traits, rule_type};
use fcc_ir::{NodeId, Shape, ValueId};

rule_type! {
    /// `reshape2(reshape1(x)) => reshape(x)`, and `=> x` where the shapes are the same
    ///
    /// # What
    /// `Reshape`, `Flatten`, `Squeeze` and `Unsqueeze` keep the elements in their order, so two of them do what one
    /// does. Where the last shape is the first one, nothing is left.
    ///
    /// # Why
    /// Each layer that becomes a Conv leaves a shape change before and after it; between layers they cancel.
    ///
    /// # Example
    /// ```text
    /// f = Flatten(x)                 # x float[N,64,1,1]
    /// y = Unsqueeze<axes=[2,3]>(f)
    /// ```
    /// becomes `x` itself.
    ///
    /// # Declines
    /// - the shapes are not known well enough to write one Reshape: more than one extent that is not fixed.
    ///
    /// A change of shape whose target or axes come with the run is no candidate where its shape does not follow from
    /// them: what a file declares of it may be wrong.
    pub(crate) struct MergeReshapes = "merge-reshapes";
}

/// What the action needs.
pub(crate) enum Plan {
    /// Nothing is left of both.
    Same(ValueId),
    /// One Flatten at axis 1.
    Flatten(ValueId),
    /// One Reshape.
    Reshape(ValueId, Shape),
}

impl Rule for MergeReshapes {
    type Found = (NodeId, ValueId);
    type Plan = Plan;
    fn name(&self) -> &str {
        Self::NAME
    }
    fn doc(&self) -> &str {
        Self::DOC
    }
    fn traits(&self) -> Traits {
        Traits { repeats: true, ..Traits::default() }
    }
    fn pattern(&self, cx: &Cx<'_>, node: NodeId) -> Option<(NodeId, ValueId)> {
        let (_, middle) = reshape_behind(cx, cx.out(node))?;
        let (_, x) = reshape_behind(cx, middle)?;
        Some((node, x))
    }
    fn guard(&self, cx: &Cx<'_>, (node, x): (NodeId, ValueId)) -> Result<Match<Plan>, Declined> {
        let y = cx.out(node);
        let (from, to) = (cx.need_shape(x)?, cx.need_shape(y)?);
        let nameless =
            cx.graph().is_output(y) && (cx.graph().op(x.node).is_none() || cx.graph().is_output(x));
        let plan = if same_elements_shape(from, to) && !nameless {
            Plan::Same(x)
        } else {
            let middle = cx.input(node, 0)?;
            if cx.graph().use_count(middle) != 1 {
                let got = format!("{} times", cx.graph().use_count(middle));
                return Err(Declined::new(
                    format!("use of `{}`", cx.graph().value_name(middle)),
                    got,
                    "once",
                ));
            }
            let first_kept = from.first().zip(to.first()).is_some_and(|(a, b)| a.same(b));
            if cx.op(node, "Flatten").is_some() && first_kept && to.len() == 2 {
                Plan::Flatten(x)
            } else {
                let open = to.iter().enumerate().filter(|(i, d)| {
                    !matches!(d, fcc_ir::Dim::Known(n) if *n > 0) && !from.get(*i).is_some_and(|f| f.same(d))
                });
                let kept = to
                    .iter()
                    .enumerate()
                    .any(|(i, d)| d.known().is_none() && from.get(i).is_some_and(|f| f.same(d)));
                let open = open.count();
                if open > 1 || (open == 1 && kept) {
                    return Err(Declined::new("target shape", dims_text(to), "one extent that is not fixed"));
                }
                Plan::Reshape(x, to.clone())
            }
        };
        Ok(Match { replaces: y, sources: vec![x], growth_bytes: 0, plan })
    }
    fn action(&self, plan: Plan, b: &mut Builder<'_>) -> Result<ValueId, Declined> {
        match plan {
            Plan::Same(x) => Ok(x),
            Plan::Flatten(x) => b.flatten(x, 1),
            Plan::Reshape(x, to) => b.reshape_to(x, &to),
        }
    }
}
