//! Fusion around products of 8-bit integers.
//!
//! 1. `Conv((x - zx) * sx, (w - zw) * sw, b) => f32(Σ (x - zx) * (w - zw)) * (sx * sw) + b`, the product with a constant
//!    matrix likewise. The sums are exact, where those of floats round at each term.
//! 2. `Ew(f, Product) => Product with f` where all other inputs are of one element, constants of one value a column, or
//!    (one of them) shaped like the result; small values that are made of such are made again inside.
use super::fuse::{along_axis, compact};
use super::ir::{IntGemm, IntProduct, Kind, Node, Program, Vx};
use crate::kernels::ew::{Binary, Expr, Ins};
use crate::kernels::int8::Zero;
use fcc_ir::{DType, Tensor};

/// Law 1.
pub(super) fn products(program: &mut Program) {
    let makers = program.makers();
    for n in 0..program.nodes.len() {
        if let Some(node) = product(program, n, &makers) {
            program.nodes[n] = node;
        }
    }
}

/// `(value, zero, scale)` of a value that was dequantised from bytes by numbers.
fn dequantised(program: &Program, v: Vx, makers: &[Option<usize>]) -> Option<(Vx, i32, f32)> {
    let node = &program.nodes[makers.get(v.at()).copied().flatten()?];
    let (Kind::Ew(expr), [Some(x)]) = (&node.kind, &node.inputs[..]) else { return None };
    if !matches!(program.val(*x).dense.as_ref()?.0, DType::U8 | DType::I8) {
        return None;
    }
    let number = |i: usize| if let Ins::Const(c) = expr.code[i] { Some(c) } else { None };
    let Ins::Binary(Binary::Mul, a, b) = *expr.code.last()? else { return None };
    let scale = number(b)?;
    match expr.code[a] {
        Ins::Input(0) => Some((*x, 0, scale)),
        Ins::Binary(Binary::Sub, x0, z) if expr.code[x0] == Ins::Input(0) => {
            Some((*x, number(z)? as i32, scale))
        }
        _ => None,
    }
}

fn product(program: &mut Program, n: usize, makers: &[Option<usize>]) -> Option<Node> {
    let node = program.nodes[n].clone();
    let (out, w) = (node.out()?, node.input(1)?);
    let (x, zero, x_scale) = dequantised(program, node.input(0)?, makers)?;
    let from = program.val(w).dequantised.clone()?;
    let shape = program.shape(out).to_vec();
    // where the columns of the result lie in w, and whether this kind of node can be had
    let (axis, column_axis, has_bias) = match &node.kind {
        Kind::Conv(c) if !c.transposed && !c.residual && c.activation.is_none() && c.scale.is_none() => {
            (1, 0, c.bias)
        }
        Kind::Gemm(g) if !g.trans_a && g.alpha == 1.0 && g.residual.is_none() && g.activation.is_none() => {
            let rank = from.tensor.rank();
            if rank != 2 || program.shape(x).len() < 2 {
                return None;
            }
            (shape.len().checked_sub(1)?, if g.trans_b { 0 } else { 1 }, g.bias)
        }
        _ => return None,
    };
    let columns = shape[axis];
    let fits = from.axis.is_none_or(|a| a == column_axis) && [1, columns].contains(&from.scale.len());
    // sums of so few terms stay within 32 bits
    let terms = from.tensor.len() / columns.max(1);
    if !fits || terms > i32::MAX as usize / (255 * 255) {
        return None;
    }
    let scales: Vec<f32> = from.scale.iter().map(|s| x_scale * s).collect();
    if scales.iter().any(|s| !s.is_finite()) {
        return None;
    }
    let bias = match (has_bias, node.input(2)) {
        (true, Some(b)) => Some(program.constant_of(b)?.as_slice::<f32>().ok()?.into_owned()),
        _ => None,
    };
    let name = program.val(w).name.clone();
    let weights = program.constant(format!("{name}.bytes"), from.tensor.clone());
    let mut inputs = vec![Some(x), Some(weights)];
    let mut expr = Expr { code: vec![Ins::Input(0)] };
    let mut number = |program: &mut Program, expr: &mut Expr, what: &str, values: &[f32]| -> Option<usize> {
        let first = *values.first()?;
        if values.iter().all(|v| *v == first) {
            return Some(expr.push(Ins::Const(first)));
        }
        let mut along = vec![1; shape.len() - axis];
        along[0] = values.len();
        let t = Tensor::new(along, values.to_vec()).ok()?;
        inputs.push(Some(program.constant(format!("{name}.{what}"), t)));
        Some(expr.push(Ins::Input(inputs.len() - 2)))
    };
    let s = number(program, &mut expr, "scale", &scales)?;
    expr.code.push(Ins::Binary(Binary::Mul, 0, s));
    let scaled = expr.code.len() - 1;
    if let Some(bias) = &bias {
        let b = number(program, &mut expr, "bias", bias)?;
        expr.code.push(Ins::Binary(Binary::Add, scaled, b));
    }
    let p = IntProduct { zero: Zero::Const(zero), w_zero: from.zero, bias: None, expr: Some(expr) };
    let kind = match node.kind {
        Kind::Conv(conv) => Kind::IntConv(super::ir::ConvNode { bias: false, ..conv }, p),
        Kind::Gemm(g) => Kind::IntGemm(IntGemm { trans_b: g.trans_b }, p),
        _ => return None,
    };
    Some(Node { kind, inputs, ..node })
}

/// Law 2. Nodes stand in order, so one pass from the front reaches the whole of each chain.
pub(super) fn epilogues(program: &mut Program) {
    let (uses, mut makers) = (program.uses(), program.makers());
    for n in 0..program.nodes.len() {
        // the latest producer goes first: what else the expression reads is there by then
        let mut candidates: Vec<(usize, usize)> = (0..program.nodes[n].inputs.len())
            .filter_map(|at| Some((makers.get(program.nodes[n].input(at)?.at()).copied().flatten()?, at)))
            .collect();
        candidates.sort_unstable_by(|a, b| b.cmp(a));
        for (maker, at) in candidates {
            if let Some(node) = with_epilogue(program, n, at, maker, &uses, &makers) {
                for v in node.outputs.iter().flatten() {
                    makers[v.at()] = Some(n);
                }
                program.nodes[n] = node;
                break;
            }
        }
    }
}

/// What an input of an expression is to a product with these columns.
#[derive(Clone, Copy, PartialEq)]
enum Role {
    One,
    Column,
    Whole,
}

fn role(program: &Program, v: Vx, shape: &[usize], axis: usize) -> Option<Role> {
    let val = program.val(v);
    val.elem()?;
    let own = program.shape(v);
    if own.iter().product::<usize>() == 1 {
        return Some(Role::One);
    }
    if let Some(t) = &val.constant {
        return along_axis(t, shape, axis).map(|_| Role::Column);
    }
    (own == shape).then_some(Role::Whole)
}

/// Node `n` as the end of the product that makes its input `at`.
fn with_epilogue(
    program: &Program,
    n: usize,
    at: usize,
    maker: usize,
    uses: &[usize],
    makers: &[Option<usize>],
) -> Option<Node> {
    let (outer, inner) = (&program.nodes[n], &program.nodes[maker]);
    let Kind::Ew(f) = &outer.kind else { return None };
    let (p, axis_from_front) = match &inner.kind {
        Kind::IntConv(_, p) => (p, true),
        Kind::IntGemm(_, p) => (p, false),
        _ => return None,
    };
    let (v, out) = (outer.input(at)?, outer.out()?);
    let shape = program.shape(out).to_vec();
    let axis = if axis_from_front { 1 } else { shape.len().checked_sub(1)? };
    let here = outer.inputs.iter().filter(|i| **i == Some(v)).count();
    if uses.get(v.at()) != Some(&here) || program.shape(v) != shape {
        return None;
    }
    let mut expr = f.clone();
    let mut inputs: Vec<Vx> = outer.inputs.iter().flatten().copied().collect();
    // small values that are made of numbers and columns are made again here
    let mut i = 0;
    while i < inputs.len() {
        if inputs[i] == v || role(program, inputs[i], &shape, axis).is_some() {
            i += 1;
            continue;
        }
        let small = &program.nodes[makers.get(inputs[i].at()).copied().flatten()?];
        let Kind::Ew(g) = &small.kind else { return None };
        let parts: Vec<Vx> = small.inputs.iter().flatten().copied().collect();
        let made_again =
            parts.iter().all(|v| matches!(role(program, *v, &shape, axis), Some(Role::One | Role::Column)));
        // it lies along the columns as its parts do
        let own = program.val(inputs[i]).f32_shape()?;
        let along = (own.len() + axis).checked_sub(shape.len()).is_some_and(|at| own[at] == shape[axis]);
        if !made_again || !along || own.iter().product::<usize>() != shape[axis] {
            return None;
        }
        let first = inputs.len();
        inputs.extend(&parts);
        let map: Vec<usize> = (first..inputs.len()).collect();
        let own: Vec<usize> = (0..first).collect();
        expr = expr.inline(i, g, &map, &own);
        (expr, inputs) = compact(&expr, &inputs);
        i = 0;
    }
    let at = inputs.iter().position(|i| *i == v)?;
    // the sum is input 0, then what the product has, then what is new
    let mut all: Vec<Vx> = vec![v];
    all.extend(inner.inputs.iter().skip(p.first_extra()).flatten());
    let own_expr = p.expr.clone().unwrap_or(Expr { code: vec![Ins::Input(0)] });
    let mut place = |x: Vx| {
        all.iter().skip(1).position(|i| *i == x).map_or_else(
            || {
                all.push(x);
                all.len() - 1
            },
            |i| i + 1,
        )
    };
    let own: Vec<usize> =
        inputs.iter().enumerate().map(|(i, x)| if i == at { 0 } else { place(*x) }).collect();
    let inner_map: Vec<usize> = (0..own_expr.inputs().max(1)).collect();
    let expr = expr.inline(at, &own_expr, &inner_map, &own);
    let whole = all[1..].iter().filter(|x| role(program, **x, &shape, axis) == Some(Role::Whole)).count();
    if whole > 1 || all.len() > 7 || expr.code.len() > 40 {
        return None;
    }
    let mut node = inner.clone();
    let first = p.first_extra();
    if let Kind::IntConv(_, p) | Kind::IntGemm(_, p) = &mut node.kind {
        p.expr = Some(expr);
    }
    node.inputs.truncate(first);
    node.inputs.extend(all[1..].iter().map(|v| Some(*v)));
    node.outputs = outer.outputs.clone();
    node.origins.extend(outer.origins.clone());
    node.place = outer.place.clone();
    Some(node)
}
