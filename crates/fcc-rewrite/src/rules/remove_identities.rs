//! Nodes that hand on their input.
use super::layout::{is_identity, is_reshape, perm};
use crate::builder::Builder;
use crate::context::{Cx, is_onnx, same_elements_shape};
use crate::rule::{Declined, Match, Rule, Traits, rule_type};
use fcc_ir::{NodeId, OpNode, ValueId};

rule_type! {
    /// `f(x) => x` where f hands on its input
    ///
    /// # What
    /// Removes `Identity`; `Dropout` in inference; `Cast` to the type the value has; `Reshape`, `Flatten`, `Squeeze`,
    /// `Unsqueeze` and `Expand` to the shape the value has; `Transpose` that moves nothing; `Pad` by nothing; `Slice`
    /// of everything; `Tile` by 1; `Concat`, `Sum`, `Mean`, `Max` and `Min` of one value; `Mul` and `Div` by 1.
    ///
    /// # Why
    /// Exporters leave them, rewrites make them, and other rules do not see through them.
    ///
    /// # Example
    /// ```text
    /// d = Dropout(x)
    /// y = Relu(d)
    /// ```
    /// becomes
    /// ```text
    /// y = Relu(x)
    /// ```
    ///
    /// # Declines
    /// - an output of the graph that comes straight from an input, a constant or another output: it keeps its name,
    ///   so a node must make it;
    /// - a `Dropout` whose mask is used or that may train.
    pub(crate) struct RemoveIdentities = "remove-identities";
}

impl Rule for RemoveIdentities {
    type Found = (NodeId, ValueId);
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
    fn pattern(&self, cx: &Cx<'_>, node: NodeId) -> Option<(NodeId, ValueId)> {
        let op = cx.graph().op(node).filter(|op| is_onnx(op))?;
        hands_on(cx, node, op).map(|x| (node, x))
    }
    fn guard(&self, cx: &Cx<'_>, (node, x): (NodeId, ValueId)) -> Result<Match<ValueId>, Declined> {
        let y = cx.out(node);
        if cx.graph().is_output(y) && (cx.graph().op(x.node).is_none() || cx.graph().is_output(x)) {
            let what = format!("output `{}` handed on from", cx.graph().value_name(y));
            return Err(Declined::new(what, cx.graph().place(x.node), "an operator's inner value"));
        }
        Ok(Match { replaces: y, sources: vec![x], growth_bytes: 0, plan: x })
    }
    fn action(&self, x: ValueId, _: &mut Builder<'_>) -> Result<ValueId, Declined> {
        Ok(x)
    }
}

/// The input that a node hands on, if it does.
fn hands_on(cx: &Cx<'_>, node: NodeId, op: &OpNode) -> Option<ValueId> {
    let (x, y) = (cx.graph().input(node, 0)?, cx.out(node));
    let all_ones = |i: usize| {
        let t = cx.graph().input(node, i).and_then(|v| cx.constant(v))?;
        t.to_i64s().ok().map(|v| v.iter().all(|v| *v == 1))
    };
    let same_shape = || Some(same_elements_shape(cx.shape(x)?, cx.shape(y)?));
    let certain_shape = || Some(crate::context::same_shape(cx.shape(x)?, cx.shape(y)?));
    let is = match op.op_type.as_str() {
        "Identity" => true,
        "Dropout" => dropout_is_off(cx, node, op)?,
        "Cast" => {
            cx.dtype(x) != fcc_ir::DType::Undefined && op.attrs.int("to").ok()? == Some(cx.dtype(x) as i64)
        }
        "Transpose" => is_identity(&perm(cx, node, cx.shape(x)?.len()).ok()?),
        "Expand" => certain_shape()?,
        "Pad" => {
            let given = match cx.graph().input(node, 1) {
                Some(v) => cx.constant(v)?.to_i64s().ok()?,
                None => op.attrs.ints(if op.version < 2 { "paddings" } else { "pads" }).ok()??.to_vec(),
            };
            given.iter().all(|p| *p == 0)
        }
        "Slice" => (cx.graph().input(node, 4).is_none() || all_ones(4)?) && certain_shape()?,
        "Tile" => op.version >= 6 && all_ones(1)?,
        "Concat" | "Sum" | "Mean" | "Max" | "Min" => cx.graph().inputs_of(node).len() == 1,
        "Mul" | "Div" => {
            let one = cx.graph().input(node, 1).and_then(|v| cx.constant(v))?;
            one.rank() <= cx.shape(x)?.len() && is_one(&one)
        }
        _ if is_reshape(cx, node) => same_shape()?,
        _ => false,
    };
    is.then_some(x)
}

/// Whether a Dropout hands on its input and nobody asks for its mask.
fn dropout_is_off(cx: &Cx<'_>, node: NodeId, op: &OpNode) -> Option<bool> {
    if cx.graph().values_of(node).skip(1).any(|mask| cx.graph().use_count(mask) > 0) {
        return Some(false);
    }
    Some(match op.version {
        ..7 => op.attrs.flag("is_test", false).ok()?,
        7..12 => true,
        _ => match cx.graph().input(node, 2) {
            None => true,
            Some(training) => cx.constant(training)?.as_bools().ok()?.iter().all(|t| !t),
        },
    })
}

/// Whether a tensor is a single 1.
fn is_one(t: &fcc_ir::Tensor) -> bool {
    t.len() == 1
        && fcc_ir::dispatch_numeric!(t.dtype(), T => {
            t.as_slice::<T>().is_ok_and(|v| v.iter().all(One::is_one))
        }, else false)
}

/// One as each element type spells it.
trait One {
    fn is_one(&self) -> bool;
}
macro_rules! ones { ($($t:ty => $one:expr),*) => { $(impl One for $t { fn is_one(&self) -> bool { *self == $one } })* } }
ones! { f32 => 1.0, f64 => 1.0, fcc_ir::half::f16 => fcc_ir::half::f16::ONE, fcc_ir::half::bf16 => fcc_ir::half::bf16::ONE,
u8 => 1, i8 => 1, u16 => 1, i16 => 1, u32 => 1, i32 => 1, u64 => 1, i64 => 1 }
