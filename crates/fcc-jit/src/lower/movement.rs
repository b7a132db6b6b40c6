//! Operators that move elements.
use super::Cx;
use crate::plan::ir::Kind;

pub(super) fn concat(cx: &mut Cx<'_>) -> Option<()> {
    let y = cx.only_out()?;
    let (dtype, shape) = cx.program.val(y).dense.clone()?;
    let default = if cx.op.version < 4 { Some(1) } else { None };
    let axis = cx.op.attrs.int("axis").ok()?.or(default)?;
    let axis = fcc_ir::op::axis(axis, shape.len()).ok()?;
    let mut inputs = vec![];
    for v in cx.inputs {
        let (d, s) = cx.program.val((*v)?).dense.clone()?;
        if d != dtype || s.len() != shape.len() {
            return None;
        }
        if s[axis] > 0 {
            inputs.push(*v);
        }
    }
    if dtype.bits() < 8 {
        return None;
    }
    cx.push(Kind::Concat { axis }, inputs, y);
    Some(())
}

pub(super) fn transpose(cx: &mut Cx<'_>) -> Option<()> {
    let (x, y) = (cx.input(0)?, cx.only_out()?);
    let (dtype, shape) = cx.program.val(x).dense.clone()?;
    let rank = shape.len();
    let perm: Vec<usize> = match cx.op.attrs.ints("perm").ok()? {
        Some(p) => p.iter().map(|v| usize::try_from(*v).ok().filter(|v| *v < rank)).collect::<Option<_>>()?,
        None => (0..rank).rev().collect(),
    };
    if dtype.bits() < 8 || perm.len() != rank {
        return None;
    }
    // axes of extent 1 move for free
    let order: Vec<usize> = perm.iter().copied().filter(|a| shape[*a] != 1).collect();
    if order.is_sorted() {
        cx.push(Kind::View, vec![Some(x)], y);
        return Some(());
    }
    let mut steps = vec![1i64; rank];
    for i in (0..rank.saturating_sub(1)).rev() {
        steps[i] = steps[i + 1] * shape[i + 1] as i64;
    }
    let dims = perm.iter().map(|a| (shape[*a], steps[*a])).collect();
    cx.push(Kind::Copy { offset: 0, dims }, vec![Some(x)], y);
    Some(())
}
