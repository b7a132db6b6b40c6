//! Nodes that only change how elements are indexed: what rules share about them.
use crate::context::Cx;
use fcc_ir::infer::infer_op;
use fcc_ir::op::Fact;
use fcc_ir::{Dim, NodeId, Result, ValueId};

/// Operators that keep the elements in their order and give them another shape.
const RESHAPES: &[&str] = &["Reshape", "Flatten", "Squeeze", "Unsqueeze"];

/// Whether a node keeps the elements of its first input in their order and changes only the shape, to one that is
/// certain: where the target or the axes come with the run, the shape that a file declares is a claim.
pub(crate) fn is_reshape(cx: &Cx<'_>, node: NodeId) -> bool {
    let Some(op) = cx.op_in(node, RESHAPES) else { return false };
    let given = cx.graph().input(node, 1);
    if given.is_none_or(|v| cx.constant(v).is_some()) {
        return true;
    }
    let fact = |v: ValueId| cx.facts.get(v).cloned().unwrap_or_default();
    let inputs: Vec<Option<Fact>> = cx.graph().inputs_of(node).into_iter().map(|v| v.map(fact)).collect();
    let made = infer_op(op, cx.functions, &inputs, &[], 1).ok().and_then(|made| made.into_iter().next());
    let follows = made.as_ref().and_then(|f| f.ty.as_tensor()?.shape.as_ref());
    match (follows, cx.shape(cx.out(node))) {
        (Some(a), Some(b)) => {
            let same = |(a, b): (&Dim, &Dim)| a.same(b) || (*a == Dim::Unknown && *b == Dim::Unknown);
            a.len() == b.len() && a.iter().zip(b).all(same)
        }
        _ => false,
    }
}

/// The node that makes a value, if [`is_reshape`], and its input.
pub(crate) fn reshape_behind(cx: &Cx<'_>, value: ValueId) -> Option<(NodeId, ValueId)> {
    let node = value.node;
    if is_reshape(cx, node) { Some((node, cx.graph().input(node, 0)?)) } else { None }
}

/// The Transpose that makes a value: its input and `perm`.
pub(crate) fn transpose_behind(cx: &Cx<'_>, value: ValueId) -> Option<(ValueId, Vec<usize>)> {
    let x = cx.op(value.node, "Transpose").and_then(|_| cx.graph().input(value.node, 0))?;
    let perm = perm(cx, value.node, cx.shape(value)?.len()).ok()?;
    Some((x, perm))
}

/// `perm` of a Transpose of this rank; reversed axes where it has none. Errors on what is no permutation.
pub(crate) fn perm(cx: &Cx<'_>, node: NodeId, rank: usize) -> Result<Vec<usize>> {
    let bad = |p: &[i64]| fcc_ir::Error::mismatch("perm", format!("{p:?}"), format!("the axes 0..{rank}"));
    let given = cx.graph().op(node).map(|op| op.attrs.ints("perm")).transpose()?.flatten();
    let Some(given) = given else { return Ok((0..rank).rev().collect()) };
    let perm: Option<Vec<usize>> =
        given.iter().map(|&p| usize::try_from(p).ok().filter(|p| *p < rank)).collect();
    perm.filter(|p| p.len() == rank && (0..rank).all(|i| p.contains(&i))).ok_or_else(|| bad(given))
}

/// The permutation that undoes `perm`.
pub(crate) fn inverse(perm: &[usize]) -> Vec<usize> {
    let mut inverse = vec![0; perm.len()];
    for (i, &p) in perm.iter().enumerate() {
        if let Some(slot) = inverse.get_mut(p) {
            *slot = i;
        }
    }
    inverse
}

/// Whether a permutation moves nothing.
pub(crate) fn is_identity(perm: &[usize]) -> bool {
    perm.iter().enumerate().all(|(i, p)| i == *p)
}
