//! Operators that only give their elements another shape.
use super::Cx;
use crate::plan::ir::Kind;

pub(super) fn view(cx: &mut Cx<'_>) -> Option<()> {
    let (x, y) = (cx.input(0)?, cx.only_out()?);
    if cx.op.op_type == "Dropout" {
        // the mode is an input from opset 12 on; before, what runs is the inference
        let training = cx.input(2).is_some_and(|_| {
            cx.constant(2).and_then(|t| t.as_bools().ok()).is_none_or(|b| b.first() == Some(&true))
        });
        if training {
            return None;
        }
    }
    let (from, to) = (cx.program.val(x).dense.clone()?, cx.program.val(y).dense.clone()?);
    let count = |s: &[usize]| s.iter().product::<usize>();
    if from.0 != to.0 || count(&from.1) != count(&to.1) {
        return None;
    }
    cx.push(Kind::View, vec![Some(x)], y);
    Some(())
}

/// A cast to the same type.
pub(super) fn cast(cx: &mut Cx<'_>) -> Option<()> {
    let (x, y) = (cx.input(0)?, cx.only_out()?);
    if cx.program.val(x).dense.as_ref()?.0 != cx.program.val(y).dense.as_ref()?.0 {
        return None;
    }
    cx.push(Kind::View, vec![Some(x)], y);
    Some(())
}
