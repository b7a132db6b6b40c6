//! Pooling: windows, and whole planes.
use super::{Cx, Lowered, three};
use crate::declined::Declined;
use crate::plan::ir::{Kind, PoolKind, PoolNode};
use fcc_ir::ops::pool::{PoolProblem, count_include_pad};

pub(super) fn pool(cx: &mut Cx<'_>) -> Lowered {
    let (x, y) = (cx.f32(0)?, cx.only_out()?);
    let p = PoolProblem::new(cx.op, &x)?;
    if p.out_shape() != cx.shape(y) {
        return Err(cx.other_shape(y));
    }
    let kind = match cx.op.op_type.as_str() {
        "MaxPool" => PoolKind::Max,
        _ => PoolKind::Average { include_pad: count_include_pad(cx.op)? },
    };
    let begins: Vec<usize> = p.axes.iter().map(|a| a.pad_begin).collect();
    let ends: Vec<usize> = p.axes.iter().map(|a| a.pad_end).collect();
    let node = PoolNode {
        kind,
        kernel: three(&p.window.kernel_shape, 1)?,
        strides: three(&p.window.strides, 1)?,
        dilations: three(&p.window.dilations, 1)?,
        pads_begin: three(&begins, 0)?,
        pads_end: three(&ends, 0)?,
    };
    let x = cx.input(0);
    cx.push(Kind::Pool(node), vec![x], y);
    Ok(())
}

pub(super) fn global(cx: &mut Cx<'_>) -> Lowered {
    let (x, y) = (cx.f32(0)?, cx.only_out()?);
    let kind = match cx.op.op_type.as_str() {
        "GlobalMaxPool" => PoolKind::Max,
        _ => PoolKind::Average { include_pad: false },
    };
    if !(3..=5).contains(&x.len()) {
        return Err(Declined::new("rank", x.len(), "3 to 5"));
    }
    let x = cx.input(0);
    cx.push(Kind::GlobalPool(kind), vec![x], y);
    Ok(())
}
