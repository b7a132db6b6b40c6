//! Operators with indices: gather, scatter, one-hot, sorting, choosing.
use super::movement::axis;
use super::{Make, NUMBERS, movable};
use crate::build::Build;
use crate::draw::{self, once_in, one, within};
use crate::pb::attrs;
use fcc_ir::convert::from_i64s;
use fcc_ir::{DType, Op, Tensor};

pub(super) const TABLE: &[(Op, Make)] = &[
    (Op::Compress, compress),
    (Op::Gather, gather),
    (Op::GatherElements, gather_elements),
    (Op::GatherND, gather_nd),
    (Op::NonZero, non_zero),
    (Op::OneHot, one_hot),
    (Op::ReverseSequence, reverse_sequence),
    (Op::Scatter, scatter_elements),
    (Op::ScatterElements, scatter_elements),
    (Op::ScatterND, scatter_nd),
    (Op::TensorScatter, tensor_scatter),
    (Op::TopK, top_k),
    (Op::Unique, unique),
];

/// Indices below `n` of this shape, some counted from the end.
fn indices(b: &mut Build, n: usize, shape: &[usize]) -> Option<String> {
    let back = b.opset >= 11;
    let count: usize = shape.iter().product();
    if n == 0 && count > 0 {
        return None;
    }
    let v = (0..count)
        .map(|_| {
            let i = b.r.below(n as u64) as i64;
            if back && once_in(&mut b.r, 5) { i - n as i64 } else { i }
        })
        .collect();
    let dtype = if once_in(&mut b.r, 3) { DType::I32 } else { DType::I64 };
    let t = from_i64s(dtype, shape, v).ok()?;
    Some(if once_in(&mut b.r, 2) { b.constant(t) } else { b.fresh(t) })
}

fn gather(b: &mut Build, op: Op) -> Option<()> {
    let types = movable(b);
    let x = b.ranked(types, 1, 4);
    let shape = b.shape(&x);
    let at = axis(b, shape.len());
    let rank = within(&mut b.r, 0, 3);
    let of: Vec<usize> = (0..rank).map(|_| within(&mut b.r, 1, 4)).collect();
    let i = indices(b, shape[at.rem_euclid(shape.len() as i64) as usize], &of)?;
    let a = attrs().when(at != 0 || once_in(&mut b.r, 2), |a| a.int("axis", at));
    b.node1(op, &[&x, &i], a).map(drop)
}

fn gather_elements(b: &mut Build, op: Op) -> Option<()> {
    let types = movable(b);
    let x = b.ranked(types, 1, 4);
    let shape = b.shape(&x);
    let at = axis(b, shape.len());
    let along = at.rem_euclid(shape.len() as i64) as usize;
    let mut of: Vec<usize> = shape.iter().map(|n| within(&mut b.r, 1.min(*n), *n)).collect();
    of[along] = within(&mut b.r, 1, 6);
    let i = indices(b, shape[along], &of)?;
    b.node1(op, &[&x, &i], attrs().int("axis", at)).map(drop)
}

fn tuples(b: &mut Build, shape: &[usize], outer: &[usize], n: usize, distinct: bool) -> Option<String> {
    let count: usize = outer.iter().product();
    let all: usize = shape[..n].iter().product();
    if all == 0 && count > 0 {
        return None;
    }
    let mut used = std::collections::BTreeSet::new();
    let mut v = vec![];
    for _ in 0..count {
        let mut flat = b.r.below(all as u64) as usize;
        while distinct && !used.insert(flat) {
            flat = (flat + 1) % all;
            if used.len() >= all {
                return None;
            }
        }
        let mut tuple = vec![0i64; n];
        for (slot, d) in tuple.iter_mut().zip(&shape[..n]).rev() {
            *slot = (flat % d) as i64;
            flat /= d;
        }
        v.extend(tuple);
    }
    let of = [outer, &[n]].concat();
    let t = from_i64s(DType::I64, of, v).ok()?;
    Some(if once_in(&mut b.r, 2) { b.constant(t) } else { b.fresh(t) })
}

fn gather_nd(b: &mut Build, op: Op) -> Option<()> {
    let types = movable(b);
    let x = b.ranked(types, 1, 4);
    let shape = b.shape(&x);
    let batch = if b.opset >= 12 && shape.len() > 1 && once_in(&mut b.r, 3) { 1 } else { 0 };
    let n = within(&mut b.r, 1, shape.len() - batch);
    let mut outer: Vec<usize> = shape[..batch].to_vec();
    outer.extend((0..within(&mut b.r, 0, 2)).map(|_| within(&mut b.r, 1, 4)));
    let i = tuples(b, &shape[batch..], &outer, n, false)?;
    b.node1(op, &[&x, &i], attrs().when(batch > 0, |a| a.int("batch_dims", batch as i64))).map(drop)
}

fn scatter_elements(b: &mut Build, op: Op) -> Option<()> {
    if op == Op::Scatter && b.opset >= 11 {
        return None;
    }
    let reduces = op == Op::ScatterElements && b.opset >= 16 && once_in(&mut b.r, 2);
    let types = if reduces { NUMBERS } else { movable(b) };
    let x = b.ranked(types, 1, 4);
    let (dtype, shape) = (b.dtype(&x), b.shape(&x));
    let at = axis(b, shape.len());
    let along = at.rem_euclid(shape.len() as i64) as usize;
    let mut of: Vec<usize> = shape.iter().map(|n| within(&mut b.r, 1.min(*n), *n)).collect();
    // an index twice has no defined winner without a reduction
    of[along] = if reduces { within(&mut b.r, 1, 5) } else { 1 };
    let i = indices(b, shape[along], &of)?;
    let updates = b.operand(dtype, &of);
    let hows: &[&str] = if b.opset >= 18 { &["add", "mul", "max", "min"] } else { &["add", "mul"] };
    let how = *one(&mut b.r, hows);
    b.node1(op, &[&x, &i, &updates], attrs().int("axis", at).when(reduces, |a| a.str("reduction", how)))
        .map(drop)
}

fn scatter_nd(b: &mut Build, op: Op) -> Option<()> {
    let reduces = b.opset >= 16 && once_in(&mut b.r, 2);
    let types = if reduces { NUMBERS } else { movable(b) };
    let x = b.ranked(types, 1, 4);
    let (dtype, shape) = (b.dtype(&x), b.shape(&x));
    let n = within(&mut b.r, 1, shape.len());
    let outer = vec![within(&mut b.r, 1, 3)];
    let i = tuples(b, &shape, &outer, n, !reduces)?;
    let updates = b.operand(dtype, &[&outer, &shape[n..]].concat());
    let hows: &[&str] = if b.opset >= 18 { &["add", "mul", "max", "min"] } else { &["add", "mul"] };
    let how = *one(&mut b.r, hows);
    b.node1(op, &[&x, &i, &updates], attrs().when(reduces, |a| a.str("reduction", how))).map(drop)
}

fn tensor_scatter(b: &mut Build, op: Op) -> Option<()> {
    let dtype = b.one_type(NUMBERS);
    let [n, h, d] = [0; 3].map(|_| within(&mut b.r, 1, 3));
    let (most, new) = (within(&mut b.r, 3, 8), within(&mut b.r, 1, 3));
    let (past, update) = (b.operand(dtype, &[n, h, most, d]), b.operand(dtype, &[n, h, new, d]));
    let at: Vec<i64> = (0..n).map(|_| b.r.below((most - new + 1) as u64) as i64).collect();
    let at = if once_in(&mut b.r, 2) { b.ints(&at) } else { String::new() };
    let mode = *one(&mut b.r, &["linear", "circular"]);
    let a = attrs().when(once_in(&mut b.r, 2), |a| a.str("mode", mode));
    b.node1(op, &[&past, &update, &at], a).map(drop)
}

fn one_hot(b: &mut Build, op: Op) -> Option<()> {
    let i = b.ranked(&[DType::I64, DType::I32, DType::F32], 0, 3);
    let depth = within(&mut b.r, 1, 6) as i64;
    let depth = b.constant(Tensor::scalar(depth));
    let dtype = b.one_type(NUMBERS);
    let values = b.weight_of(dtype, &[2]);
    let at = b.r.below(b.shape(&i).len() as u64 + 1) as i64;
    let at = if once_in(&mut b.r, 2) { -1 } else { at };
    let a = attrs().when(once_in(&mut b.r, 2), |a| a.int("axis", at));
    b.node1(op, &[&i, &depth, &values], a).map(drop)
}

fn reverse_sequence(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(NUMBERS, 2, 4);
    let shape = b.shape(&x);
    let time = b.r.below(2) as usize;
    let lens: Vec<i64> =
        (0..shape[1 - time]).map(|_| within(&mut b.r, 1.min(shape[time]), shape[time]) as i64).collect();
    let lens = b.ints(&lens);
    let a = attrs().int("time_axis", time as i64).int("batch_axis", 1 - time as i64);
    b.node1(op, &[&x, &lens], a).map(drop)
}

fn top_k(b: &mut Build, op: Op) -> Option<()> {
    let types: &[DType] = if b.opset >= 11 {
        &[DType::F32, DType::F64, DType::I64, DType::I32, DType::F16]
    } else {
        &[DType::F32, DType::F64, DType::F16]
    };
    let x = b.ranked(types, 1, 4);
    let shape = b.shape(&x);
    let at = axis(b, shape.len());
    let n = shape[at.rem_euclid(shape.len() as i64) as usize];
    let k = within(&mut b.r, 1.min(n), n) as i64;
    let a = attrs().int("axis", at);
    if b.opset < 10 {
        return b.node(op, &[&x], a.int("k", k), 2).map(drop);
    }
    let k = b.ints(&[k]);
    let a = a.when(b.opset >= 11 && once_in(&mut b.r, 2), |a| a.int("largest", 0));
    let wanted = *one(&mut b.r, &[[true, true], [true, true], [true, false], [false, true]]);
    b.node_with(op, &[&x, &k], a, &wanted).map(drop)
}

fn unique(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(&[DType::F32, DType::I64, DType::I8, DType::F64, DType::String], 1, 3);
    let at = axis(b, b.shape(&x).len());
    let sorted = b.r.below(2) as i64;
    let a = attrs().when(once_in(&mut b.r, 2), |a| a.int("axis", at)).int("sorted", sorted);
    let outputs = within(&mut b.r, 1, 4);
    b.node(op, &[&x], a, outputs).map(drop)
}

fn non_zero(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(NUMBERS, 0, 4);
    b.node1(op, &[&x], attrs()).map(drop)
}

fn compress(b: &mut Build, op: Op) -> Option<()> {
    let types = movable(b);
    let x = b.ranked(types, 1, 4);
    let shape = b.shape(&x);
    let at = axis(b, shape.len());
    let over = once_in(&mut b.r, 2);
    let n = if over { shape[at.rem_euclid(shape.len() as i64) as usize] } else { shape.iter().product() };
    let n = within(&mut b.r, 0, n.min(40));
    let t = draw::tensor(&mut b.r, b.values, DType::Bool, vec![n]);
    let condition = b.fresh(t);
    b.node1(op, &[&x, &condition], attrs().when(over, |a| a.int("axis", at))).map(drop)
}
