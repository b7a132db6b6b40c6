//! Integers, truth values, mixed types, and indices known only in the run: steps in Rust.
use super::Cx;
use super::elementwise::broadcasts;
use crate::host::{Arg, Arith, Cast, Compare, Gather, Host, Logic, Not, Space, Zip, ZipOp, select};
use crate::plan::ir::{Kind, Vx};
use fcc_ir::{DType, ops};
use std::sync::Arc;

fn push(cx: &mut Cx<'_>, host: Host, inputs: Vec<Vx>, y: Vx) -> Option<()> {
    cx.push(Kind::Host(host), inputs.into_iter().map(Some).collect(), y);
    Some(())
}

/// Inputs of one element type, which stretch to the output, and the space of both.
fn operands(cx: &Cx<'_>, first: usize, count: usize) -> Option<(DType, Vec<Vx>, Vec<Vec<usize>>)> {
    let out = cx.shape(cx.only_out().ok()?);
    let (mut inputs, mut shapes, mut dtype) = (vec![], vec![], None);
    for i in first..first + count {
        let v = cx.input(i)?;
        let (d, shape) = cx.program.val(v).dense.clone()?;
        if *dtype.get_or_insert(d) != d || !broadcasts(&shape, &out) {
            return None;
        }
        inputs.push(v);
        shapes.push(shape);
    }
    Some((dtype?, inputs, shapes))
}

fn space(cx: &Cx<'_>, shapes: &[Vec<usize>], y: Vx) -> Space {
    let shapes: Vec<&[usize]> = shapes.iter().map(Vec::as_slice).collect();
    Space::new(&shapes, &cx.shape(y))
}

/// Operators of two inputs on integers and truth values.
pub(super) fn zip(cx: &mut Cx<'_>) -> Option<()> {
    let y = cx.only_out().ok()?;
    if cx.inputs.len() != 2 || (cx.op.version < 7 && cx.op.attrs.get("axis").is_some()) {
        return None;
    }
    let (dtype, inputs, shapes) = operands(cx, 0, 2)?;
    let made = cx.program.val(y).dense.as_ref()?.0;
    let space = space(cx, &shapes, y);
    let arith = |f: Arith| (Arith::takes(dtype) && made == dtype).then_some(f);
    let fmod = || cx.op.attrs.flag("fmod", false).ok();
    let host = match cx.op.op_type.as_str() {
        "Add" => zipped(arith(Arith::Add)?, dtype, space),
        "Sub" => zipped(arith(Arith::Sub)?, dtype, space),
        "Mul" => zipped(arith(Arith::Mul)?, dtype, space),
        "Div" => zipped(arith(Arith::Div)?, dtype, space),
        "Mod" => zipped(arith(Arith::Mod { fmod: fmod()? })?, dtype, space),
        "Min" => zipped(arith(Arith::Min)?, dtype, space),
        "Max" => zipped(arith(Arith::Max)?, dtype, space),
        op @ ("And" | "Or" | "Xor") if dtype == DType::Bool => {
            let f = match op {
                "And" => Logic::And,
                "Or" => Logic::Or,
                _ => Logic::Xor,
            };
            zipped(f, dtype, space)
        }
        op @ ("Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual") if Compare::takes(dtype) => {
            let f = match op {
                "Equal" => Compare::Equal,
                "Less" => Compare::Less,
                "LessOrEqual" => Compare::LessOrEqual,
                "Greater" => Compare::Greater,
                _ => Compare::GreaterOrEqual,
            };
            zipped(f, dtype, space)
        }
        _ => return None,
    };
    push(cx, host, inputs, y)
}

fn zipped<F: ZipOp>(f: F, dtype: DType, space: Space) -> Host {
    Arc::new(Zip { f, dtype, space })
}

pub(super) fn not(cx: &mut Cx<'_>) -> Option<()> {
    let (y, x) = (cx.only_out().ok()?, cx.input(0)?);
    push(cx, Arc::new(Not), vec![x], y)
}

/// A cast to another type.
pub(super) fn cast(cx: &mut Cx<'_>) -> Option<()> {
    let (y, x) = (cx.only_out().ok()?, cx.input(0)?);
    let (from, to) = (cx.program.val(x).dense.as_ref()?.0, cx.program.val(y).dense.as_ref()?.0);
    if !Cast::takes(from) || !Cast::takes(to) {
        return None;
    }
    push(cx, Arc::new(Cast { from, to }), vec![x], y)
}

pub(super) fn choose(cx: &mut Cx<'_>) -> Option<()> {
    let y = cx.only_out().ok()?;
    let (condition, c, c_shape) = operands(cx, 0, 1)?;
    let (dtype, inputs, shapes) = operands(cx, 1, 2)?;
    if condition != DType::Bool || dtype.bits() < 8 || cx.program.val(y).dense.as_ref()?.0 != dtype {
        return None;
    }
    let host = select(dtype.bits() / 8, space(cx, &[c_shape, shapes].concat(), y))?;
    push(cx, host, [c, inputs].concat(), y)
}

/// Indices that are known only in the run; they are checked there.
pub(super) fn gather(cx: &mut Cx<'_>) -> Option<()> {
    let (x, indices, y) = (cx.input(0)?, cx.input(1)?, cx.only_out().ok()?);
    let (dtype, shape) = cx.program.val(x).dense.clone()?;
    let index = cx.program.val(indices).dense.as_ref()?.0;
    if dtype.bits() < 8 || !matches!(index, DType::I32 | DType::I64) {
        return None;
    }
    let axis = ops::gather::gather_axis(cx.op, shape.len()).ok()?;
    let product = |s: &[usize]| s.iter().product::<usize>();
    let host = Gather {
        outer: product(&shape[..axis]),
        extent: shape[axis],
        inner_bytes: product(&shape[axis + 1..]) * dtype.bits() / 8,
        dtype: index,
    };
    push(cx, Arc::new(host), vec![x, indices], y)
}

pub(super) fn arg(cx: &mut Cx<'_>) -> Option<()> {
    let (x, y) = (cx.input(0)?, cx.only_out().ok()?);
    let (dtype, shape) = cx.program.val(x).dense.clone()?;
    let p = ops::arg::params(cx.op, shape.len()).ok()?;
    if !Arg::takes(dtype) || shape[p.axis] == 0 {
        return None;
    }
    let host = Arg {
        max: cx.op.op_type == "ArgMax",
        select_last: p.select_last,
        outer: shape[..p.axis].iter().product(),
        n: shape[p.axis],
        inner: shape[p.axis + 1..].iter().product(),
        dtype,
    };
    push(cx, Arc::new(host), vec![x], y)
}
