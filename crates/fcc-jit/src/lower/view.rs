//! Operators that only give their elements another shape.
use super::{Cx, Lowered};
use crate::declined::Declined;
use crate::plan::ir::Kind;

pub(super) fn view(cx: &mut Cx<'_>) -> Lowered {
    let (x, y) = (cx.need(0)?, cx.only_out()?);
    if cx.op.op_type == "Dropout" {
        // the mode is an input from opset 12 on; before, what runs is the inference
        let training = cx.input(2).is_some_and(|_| {
            cx.constant(2).and_then(|t| t.as_bools().ok()).is_none_or(|b| b.first() == Some(&true))
        });
        if training {
            return Err(Declined::new("training_mode", "true, or not a constant", "false"));
        }
        // the operator refuses a ratio outside 0..1, though it drops nothing
        if cx.input(1).is_some() {
            cx.fixed(1)?;
        }
    }
    let (from, to) = (cx.dense(x)?, cx.dense(y)?);
    let count = |s: &[usize]| s.iter().product::<usize>();
    if from.0 != to.0 || count(&from.1) != count(&to.1) {
        return Err(Declined::new(
            "output",
            format!("{}{:?} of {}{:?}", to.0, to.1, from.0, from.1),
            "the same elements",
        ));
    }
    cx.push(Kind::View, vec![Some(x)], y);
    Ok(())
}

/// A cast to the same type.
pub(super) fn cast(cx: &mut Cx<'_>) -> Lowered {
    let (x, y) = (cx.need(0)?, cx.only_out()?);
    let (from, to) = (cx.dense(x)?.0, cx.dense(y)?.0);
    if from != to {
        return Err(Declined::new("to", format!("{to} from {from}"), "the type that the input has"));
    }
    cx.push(Kind::View, vec![Some(x)], y);
    Ok(())
}
