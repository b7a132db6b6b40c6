//! `Conv`.
use super::{Cx, Lowered, three};
use crate::declined::Declined;
use crate::floats::Floats;
use crate::plan::ir::{ConvNode, Kind};
use fcc_ir::ops::conv::ConvProblem;
use fcc_ir::ops::conv_transpose::ConvTransposeProblem;

/// Weights must be constant: they are packed when the plan is made.
pub(super) fn conv(cx: &mut Cx<'_>) -> Lowered {
    let (x, w, y) = (cx.f32(0)?, cx.f32(1)?, cx.only_out()?);
    cx.fixed(1)?;
    let bias = cx.input(2).is_some();
    if bias {
        cx.fixed(2)?;
    }
    let b = if bias { Some(cx.f32(2)?) } else { None };
    let p = ConvProblem::new(cx.op, &x, &w, b.as_deref())?;
    if p.out_shape() != cx.shape(y) {
        return Err(cx.other_shape(y));
    }
    let begins: Vec<usize> = p.axes.iter().map(|a| a.pad_begin).collect();
    let ends: Vec<usize> = p.axes.iter().map(|a| a.pad_end).collect();
    if begins.iter().chain(&ends).any(|p| *p > 0) {
        finite_weights(cx)?;
    }
    let node = ConvNode {
        kernel: three(&p.window.kernel_shape, 1)?,
        strides: three(&p.window.strides, 1)?,
        dilations: three(&p.window.dilations, 1)?,
        pads_begin: three(&begins, 0)?,
        pads_end: three(&ends, 0)?,
        group: p.group,
        bias,
        residual: false,
        activation: None,
        transposed: false,
        scale: None,
    };
    let inputs = vec![cx.input(0), cx.input(1), cx.input(2)];
    cx.push(Kind::Conv(node), inputs.into_iter().filter(Option::is_some).collect(), y);
    Ok(())
}

/// Kernels multiply the weights with the zeros around the input, which the operator leaves out: where a weight is NaN
/// or infinite, the product is NaN instead of nothing.
fn finite_weights(cx: &Cx<'_>) -> Result<(), Declined> {
    // f32, as the caller has seen
    let weights = Floats::of_bytes(cx.fixed(1)?.bytes());
    match weights.iter().find(|w| !w.is_finite()) {
        None => Ok(()),
        Some(w) => Err(Declined::new("a weight beside padding", w, "a finite number")),
    }
}

/// `ConvTranspose`, with constant weights.
pub(super) fn conv_transpose(cx: &mut Cx<'_>) -> Lowered {
    let (x, w, y) = (cx.f32(0)?, cx.f32(1)?, cx.only_out()?);
    cx.fixed(1)?;
    let bias = cx.input(2).is_some();
    if bias {
        cx.fixed(2)?;
    }
    let b = if bias { Some(cx.f32(2)?) } else { None };
    finite_weights(cx)?;
    let p = ConvTransposeProblem::new(cx.op, &x, &w, b.as_deref())?;
    let begins: Option<Vec<usize>> = p.pad_begin.iter().map(|v| usize::try_from(*v).ok()).collect();
    let begins = begins
        .ok_or_else(|| Declined::new("pads", format!("{:?}", p.pad_begin), "0 or more at each begin"))?;
    if p.out_shape() != cx.shape(y) {
        return Err(cx.other_shape(y));
    }
    let node = ConvNode {
        kernel: three(&p.window.kernel_shape, 1)?,
        strides: three(&p.window.strides, 1)?,
        dilations: three(&p.window.dilations, 1)?,
        pads_begin: three(&begins, 0)?,
        pads_end: [0; 3],
        group: p.group,
        bias,
        residual: false,
        activation: None,
        transposed: true,
        scale: None,
    };
    let inputs = vec![cx.input(0), cx.input(1), cx.input(2)];
    cx.push(Kind::Conv(node), inputs.into_iter().filter(Option::is_some).collect(), y);
    Ok(())
}
