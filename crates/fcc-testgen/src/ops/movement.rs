//! Operators that move elements and compute none.
use super::{Make, NUMBERS, movable};
use crate::build::Build;
use crate::draw::{self, once_in, one, within};
use crate::pb::attrs;
use fcc_ir::{DType, Op, Tensor};

pub(super) const TABLE: &[(Op, Make)] = &[
    (Op::Cast, cast),
    (Op::CastLike, cast_like),
    (Op::Concat, concat),
    (Op::Constant, constant),
    (Op::ConstantOfShape, constant_of_shape),
    (Op::DepthToSpace, depth_to_space),
    (Op::Expand, expand),
    (Op::EyeLike, eye_like),
    (Op::Flatten, flatten),
    (Op::Identity, identity),
    (Op::Pad, pad),
    (Op::Range, range),
    (Op::Reshape, reshape),
    (Op::Shape, shape_of),
    (Op::Size, size_of),
    (Op::Slice, slice),
    (Op::SpaceToDepth, space_to_depth),
    (Op::Split, split),
    (Op::Squeeze, squeeze),
    (Op::Tile, tile),
    (Op::Transpose, transpose),
    (Op::Trilu, trilu),
    (Op::Unsqueeze, unsqueeze),
];

/// An axis of a rank, counted from the end sometimes, where the opset has that.
pub(super) fn axis(b: &mut Build, rank: usize) -> i64 {
    let axis = within(&mut b.r, 0, rank - 1) as i64;
    if b.opset >= 11 && once_in(&mut b.r, 3) { axis - rank as i64 } else { axis }
}

/// Some axes of a rank, in any order, each once.
pub(super) fn axes(b: &mut Build, rank: usize, least: usize) -> Vec<i64> {
    let mut all: Vec<i64> = (0..rank as i64).collect();
    for i in (1..rank).rev() {
        let j = within(&mut b.r, 0, i);
        if once_in(&mut b.r, 2) {
            all.swap(i, j);
        }
    }
    let n = within(&mut b.r, least.min(rank), rank);
    let from = within(&mut b.r, 0, rank - n);
    let mut picked = all[from..from + n].to_vec();
    for a in &mut picked {
        if b.opset >= 11 && once_in(&mut b.r, 5) {
            *a -= rank as i64;
        }
    }
    picked
}

fn some(b: &mut Build, least: usize, most: usize) -> String {
    let types = movable(b);
    b.ranked(types, least, most)
}

fn identity(b: &mut Build, op: Op) -> Option<()> {
    let x = some(b, 0, 6);
    b.node1(op, &[&x], attrs()).map(drop)
}

fn cast(b: &mut Build, op: Op) -> Option<()> {
    let narrow = b.opset >= 21 && once_in(&mut b.r, 4);
    let types = if narrow { super::NARROW } else { NUMBERS };
    let x = match b.r.below(4) {
        0 => b.any_of(&[DType::Bool]),
        1 => b.any_of(types),
        _ => b.any_of(NUMBERS),
    };
    let to = if once_in(&mut b.r, 6) { DType::Bool } else { *one(&mut b.r, types) };
    if b.opset < 6 {
        return b.node1(op, &[&x], attrs().str("to", &to.name().to_uppercase())).map(drop);
    }
    let a =
        attrs().int("to", to as i64).when(b.opset >= 19 && once_in(&mut b.r, 4), |a| a.int("saturate", 0));
    b.node1(op, &[&x], a).map(drop)
}

fn cast_like(b: &mut Build, op: Op) -> Option<()> {
    let (x, y) = (b.any_of(NUMBERS), b.any_of(NUMBERS));
    b.node1(op, &[&x, &y], attrs()).map(drop)
}

fn concat(b: &mut Build, op: Op) -> Option<()> {
    let x = some(b, 1, 6);
    let (dtype, shape) = (b.dtype(&x), b.shape(&x));
    let at = within(&mut b.r, 0, shape.len() - 1);
    let mut inputs = vec![x];
    for _ in 0..within(&mut b.r, 0, 3) {
        let mut other = shape.clone();
        other[at] = if once_in(&mut b.r, 2) { other[at] } else { draw::extent(&mut b.r) };
        let y = b.operand(dtype, &other);
        let place = within(&mut b.r, 0, inputs.len());
        inputs.insert(place, y);
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let at = if b.opset >= 11 && once_in(&mut b.r, 3) { at as i64 - shape.len() as i64 } else { at as i64 };
    let a = attrs().when(!(b.opset < 4 && at == 1), |a| a.int("axis", at));
    b.node1(op, &inputs, a).map(drop)
}

fn constant(b: &mut Build, op: Op) -> Option<()> {
    let a = match b.r.below(if b.opset >= 12 { 5 } else { 1 }) {
        0 => {
            let types: &[DType] = if b.opset < 9 { &[DType::F32, DType::F64, DType::F16] } else { NUMBERS };
            let (rank, dtype) = (draw::rank(&mut b.r), b.one_type(types));
            let shape = draw::shape(&mut b.r, rank, false);
            let t = draw::tensor(&mut b.r, b.values, dtype, shape);
            attrs().tensor("value", &t)
        }
        1 => attrs().float("value_float", 1.5),
        2 => attrs().floats("value_floats", &[-1.0, 0.5, 3.0]),
        3 => attrs().int("value_int", -3),
        _ => attrs().ints("value_ints", &[1, -2]),
    };
    b.node1(op, &[], a).map(drop)
}

fn constant_of_shape(b: &mut Build, op: Op) -> Option<()> {
    let rank = within(&mut b.r, 0, 4);
    let shape: Vec<i64> = draw::shape(&mut b.r, rank, b.zeros).iter().map(|n| *n as i64).collect();
    let shape = b.ints(&shape);
    let dtype = b.one_type(NUMBERS);
    let t = draw::tensor(&mut b.r, b.values, dtype, vec![1]);
    let a = attrs().when(!once_in(&mut b.r, 3), |a| a.tensor("value", &t));
    b.node1(op, &[&shape], a).map(drop)
}

fn blocks(b: &mut Build, deep: bool) -> (String, i64) {
    let block = within(&mut b.r, 1, 3);
    let types = movable(b);
    let dtype = b.one_type(types);
    let [n, c, h, w] = [0; 4].map(|_| within(&mut b.r, 1, 4));
    let shape = if deep { [n, c * block * block, h, w] } else { [n, c, h * block, w * block] };
    (b.operand(dtype, &shape), block as i64)
}

fn depth_to_space(b: &mut Build, op: Op) -> Option<()> {
    let (x, block) = blocks(b, true);
    let mode = *one(&mut b.r, &["DCR", "CRD"]);
    let a =
        attrs().int("blocksize", block).when(b.opset >= 11 && once_in(&mut b.r, 2), |a| a.str("mode", mode));
    b.node1(op, &[&x], a).map(drop)
}

fn space_to_depth(b: &mut Build, op: Op) -> Option<()> {
    let (x, block) = blocks(b, false);
    b.node1(op, &[&x], attrs().int("blocksize", block)).map(drop)
}

fn expand(b: &mut Build, op: Op) -> Option<()> {
    let types = movable(b);
    let (rank, dtype) = (draw::rank(&mut b.r), b.one_type(types));
    let shape = draw::shape(&mut b.r, rank, b.zeros);
    let small = draw::broadcast_of(&mut b.r, &shape);
    let x = b.operand(dtype, &small);
    // a target of fewer dimensions, or with ones, leaves the operand's extents
    let target: Vec<i64> = draw::broadcast_of(&mut b.r, &shape).iter().map(|n| *n as i64).collect();
    let full: Vec<i64> = shape.iter().map(|n| *n as i64).collect();
    let target = if once_in(&mut b.r, 3) { target } else { full };
    let target = b.ints(&target);
    b.node1(op, &[&x, &target], attrs()).map(drop)
}

fn eye_like(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(NUMBERS, 2, 2);
    let k = b.r.below(5) as i64 - 2;
    let to = b.one_type(&[DType::F32, DType::I64, DType::F64, DType::I32]);
    let a = attrs().when(once_in(&mut b.r, 2), |a| a.int("k", k));
    let a = a.when(once_in(&mut b.r, 2), |a| a.int("dtype", to as i64));
    b.node1(op, &[&x], a).map(drop)
}

fn flatten(b: &mut Build, op: Op) -> Option<()> {
    let x = some(b, 1, 6);
    let rank = b.shape(&x).len();
    let at = within(&mut b.r, 0, rank) as i64;
    let at = if b.opset >= 11 && at > 0 && once_in(&mut b.r, 4) { at - rank as i64 - 1 } else { at };
    let a =
        attrs().when(!once_in(&mut b.r, 3), |a| a.int("axis", if at == -(rank as i64) - 1 { 0 } else { at }));
    b.node1(op, &[&x], a).map(drop)
}

fn pad(b: &mut Build, op: Op) -> Option<()> {
    let types = match b.opset {
        ..11 => &[DType::F32, DType::F64, DType::F16][..],
        11..13 => NUMBERS,
        _ => movable(b),
    };
    let x = b.ranked(types, 1, 5);
    let (dtype, shape) = (b.dtype(&x), b.shape(&x));
    let modes: &[&str] = if b.opset >= 19 {
        &["constant", "reflect", "edge", "wrap"]
    } else {
        &["constant", "reflect", "edge"]
    };
    let mode = if once_in(&mut b.r, 2) { "constant" } else { *one(&mut b.r, modes) };
    let picked = (b.opset >= 18 && once_in(&mut b.r, 3)).then(|| axes(b, shape.len(), 1));
    let extents: Vec<usize> = match &picked {
        Some(axes) => axes.iter().map(|a| shape[a.rem_euclid(shape.len() as i64) as usize]).collect(),
        None => shape.clone(),
    };
    let amount = |b: &mut Build, n: usize| -> i64 {
        if once_in(&mut b.r, 2) {
            return 0;
        }
        match mode {
            "reflect" => b.r.below((n as u64).clamp(1, 4)) as i64,
            "wrap" => b.r.below((n as u64 + 1).min(4)) as i64,
            _ if n > 1 && once_in(&mut b.r, 5) => -1,
            _ => b.r.below(4) as i64,
        }
    };
    let begins: Vec<i64> = extents.iter().map(|n| amount(b, *n)).collect();
    let ends: Vec<i64> = extents.iter().map(|n| amount(b, *n)).collect();
    let pads = [begins, ends].concat();
    let a = attrs().when(mode != "constant" || once_in(&mut b.r, 2), |a| a.str("mode", mode));
    if b.opset < 11 {
        let value = *one(&mut b.r, &[0.0f32, 0.0, 1.5]);
        let name = if b.opset < 2 { "paddings" } else { "pads" };
        return b.node1(op, &[&x], a.ints(name, &pads).float("value", value)).map(drop);
    }
    let pads = b.ints(&pads);
    let value =
        if mode == "constant" && once_in(&mut b.r, 2) { b.weight_of(dtype, &[]) } else { String::new() };
    let over = picked.map(|p| b.ints(&p)).unwrap_or_default();
    b.node1(op, &[&x, &pads, &value, &over], a).map(drop)
}

fn range(b: &mut Build, op: Op) -> Option<()> {
    let dtype = b.one_type(&[DType::F32, DType::I64, DType::I32, DType::F64, DType::I16]);
    let (start, n, step) = (b.r.below(5) as i64 - 2, b.r.below(20) as i64, *one(&mut b.r, &[1i64, 2, -1, 3]));
    let mut number = |v: i64| fcc_ir::convert::from_i64s(dtype, vec![], vec![v]).map(|t| b.constant(t)).ok();
    let (start, limit, step) = (number(start)?, number(start + n * step)?, number(step)?);
    b.node1(op, &[&start, &limit, &step], attrs()).map(drop)
}

/// Another shape of as many elements.
pub(super) fn regrouped(b: &mut Build, shape: &[usize]) -> Vec<usize> {
    let n: usize = shape.iter().product();
    if n == 0 {
        return shape.to_vec();
    }
    let mut left = n;
    let mut new = vec![];
    for _ in 0..within(&mut b.r, 0, 4) {
        let divisors: Vec<usize> = (1..=left.min(64)).filter(|d| left.is_multiple_of(*d)).collect();
        let d = *one(&mut b.r, &divisors);
        new.push(d);
        left /= d;
    }
    if left > 1 || once_in(&mut b.r, 3) {
        let at = within(&mut b.r, 0, new.len());
        new.insert(at, left);
    }
    new
}

fn reshape(b: &mut Build, op: Op) -> Option<()> {
    let x = some(b, 0, 6);
    let shape = b.shape(&x);
    let new = regrouped(b, &shape);
    let mut target: Vec<i64> = new.iter().map(|n| *n as i64).collect();
    let zeros = shape.contains(&0);
    for i in 0..target.len() {
        // 0 takes the extent at its place
        if !zeros && shape.get(i) == Some(&new[i]) && once_in(&mut b.r, 3) {
            target[i] = 0;
        }
    }
    if !zeros && !target.is_empty() && once_in(&mut b.r, 2) {
        let at = within(&mut b.r, 0, target.len() - 1);
        target[at] = -1;
    }
    let allow = b.opset >= 14 && zeros;
    let a = attrs().when(allow, |a| a.int("allowzero", 1));
    if b.opset < 5 {
        return b.node1(op, &[&x], a.ints("shape", &target)).map(drop);
    }
    let target = b.ints(&target);
    b.node1(op, &[&x, &target], a).map(drop)
}

fn shape_of(b: &mut Build, op: Op) -> Option<()> {
    let x = some(b, 0, 6);
    let rank = b.shape(&x).len() as u64;
    let (start, end) = (b.r.below(rank + 2) as i64 - 1, b.r.below(rank + 2) as i64 - 1);
    let ranged = b.opset >= 15 && once_in(&mut b.r, 2);
    let a =
        attrs().when(ranged, |a| a.int("start", start)).when(ranged && start < end, |a| a.int("end", end));
    b.node1(op, &[&x], a).map(drop)
}

fn size_of(b: &mut Build, op: Op) -> Option<()> {
    let x = some(b, 0, 6);
    b.node1(op, &[&x], attrs()).map(drop)
}

fn slice(b: &mut Build, op: Op) -> Option<()> {
    let x = some(b, 1, 6);
    let shape = b.shape(&x);
    let picked = axes(b, shape.len(), 1);
    let (mut starts, mut ends, mut steps) = (vec![], vec![], vec![]);
    let old = b.opset < 10;
    for a in &picked {
        let n = shape[a.rem_euclid(shape.len() as i64) as usize] as i64;
        let step = if old { 1 } else { *one(&mut b.r, &[1, 1, 1, 2, 3, -1, -2]) };
        let (i, j) = (b.r.below(n as u64 + 1) as i64, b.r.below(n as u64 + 1) as i64);
        let (mut from, mut to) = (i.min(j), i.max(j));
        if to == from && n > 0 && !b.zeros {
            (from, to) = (0, n);
        }
        if step < 0 {
            (from, to) = (to - 1, from - 1);
            to = if to < 0 { i64::MIN } else { to };
        } else if once_in(&mut b.r, 4) && to == n {
            to = *one(&mut b.r, &[i64::MAX, n + 5, i64::from(i32::MAX)]);
        } else if once_in(&mut b.r, 4) {
            from -= if from < n { n } else { 0 };
        }
        starts.push(from);
        ends.push(to);
        steps.push(step);
    }
    if old {
        let a = attrs().ints("starts", &starts).ints("ends", &ends);
        let whole = picked.iter().copied().eq(0..picked.len() as i64);
        let a = a.when(!whole || once_in(&mut b.r, 2), |a| a.ints("axes", &picked));
        return b.node1(op, &[&x], a).map(drop);
    }
    let narrow = once_in(&mut b.r, 4) && ends.iter().all(|e| i32::try_from(*e).is_ok());
    let dtype = if narrow { DType::I32 } else { DType::I64 };
    let list = |b: &mut Build, v: &[i64]| {
        fcc_ir::convert::from_i64s(dtype, vec![v.len()], v.to_vec())
            .map(|t| b.constant(t))
            .unwrap_or_default()
    };
    let plain = steps.iter().all(|s| *s == 1) && once_in(&mut b.r, 2);
    let whole = picked.iter().copied().eq(0..picked.len() as i64) && once_in(&mut b.r, 2);
    let (starts, ends) = (list(b, &starts), list(b, &ends));
    let over = if whole { String::new() } else { list(b, &picked) };
    let steps = if plain { String::new() } else { list(b, &steps) };
    b.node1(op, &[&x, &starts, &ends, &over, &steps], attrs()).map(drop)
}

fn split(b: &mut Build, op: Op) -> Option<()> {
    let x = some(b, 1, 5);
    let shape = b.shape(&x);
    let at = axis(b, shape.len());
    let n = shape[at.rem_euclid(shape.len() as i64) as usize];
    let parts = within(&mut b.r, 1, n.clamp(1, 4));
    let mut sizes = vec![0i64; parts];
    (0..n).for_each(|_| sizes[within(&mut b.r, 0, parts - 1)] += 1);
    let equal = n.is_multiple_of(parts) && once_in(&mut b.r, 2);
    let a = attrs().when(!once_in(&mut b.r, 4) || at != 0, |a| a.int("axis", at));
    match b.opset {
        // opset 1 takes the sizes as an attribute too
        ..13 => b.node(op, &[&x], a.when(!equal, |a| a.ints("split", &sizes)), parts).map(drop),
        13..18 if equal => b.node(op, &[&x], a, parts).map(drop),
        18.. if once_in(&mut b.r, 2) => {
            // the last part takes what is left
            let chunk = n.div_ceil(parts.max(1)).max(1);
            let fits = chunk * (parts - 1) < n.max(1);
            b.node(op, &[&x], a.int("num_outputs", parts as i64), if fits { parts } else { return None })
                .map(drop)
        }
        _ => {
            let sizes = b.ints(&sizes);
            b.node(op, &[&x, &sizes], a, parts).map(drop)
        }
    }
}

fn squeeze(b: &mut Build, op: Op) -> Option<()> {
    let types = movable(b);
    let dtype = b.one_type(types);
    let rank = within(&mut b.r, 1, 4);
    let mut shape = draw::shape(&mut b.r, rank, b.zeros);
    let at = axes(b, rank, 1);
    at.iter().for_each(|a| shape[a.rem_euclid(rank as i64) as usize] = 1);
    let x = b.operand(dtype, &shape);
    if once_in(&mut b.r, 4) {
        return b.node1(op, &[&x], attrs()).map(drop);
    }
    if b.opset < 13 {
        return b.node1(op, &[&x], attrs().ints("axes", &at)).map(drop);
    }
    let at = b.ints(&at);
    b.node1(op, &[&x, &at], attrs()).map(drop)
}

fn unsqueeze(b: &mut Build, op: Op) -> Option<()> {
    let x = some(b, 0, 4);
    let rank = b.shape(&x).len();
    let more = within(&mut b.r, 1, 2);
    let mut at = axes(b, rank + more, more);
    at.truncate(more);
    if b.opset < 13 {
        return b.node1(op, &[&x], attrs().ints("axes", &at)).map(drop);
    }
    let at = b.ints(&at);
    b.node1(op, &[&x, &at], attrs()).map(drop)
}

fn tile(b: &mut Build, op: Op) -> Option<()> {
    let x = some(b, 1, 4);
    let rank = b.shape(&x).len();
    if b.opset < 6 {
        let (dtype, at) = (b.dtype(&x), within(&mut b.r, 0, rank - 1));
        let number = |b: &mut Build, v: usize| {
            fcc_ir::convert::from_i64s(dtype, vec![1], vec![v as i64]).ok().map(|t| b.constant(t))
        };
        let (tiles, at) = (number(b, 2)?, number(b, at)?);
        return b.node1(op, &[&x, &tiles, &at], attrs()).map(drop);
    }
    let least = u64::from(!b.zeros);
    let repeats: Vec<i64> = (0..rank).map(|_| (b.r.below(3) + least) as i64).collect();
    let repeats = b.ints(&repeats);
    b.node1(op, &[&x, &repeats], attrs()).map(drop)
}

fn transpose(b: &mut Build, op: Op) -> Option<()> {
    let x = some(b, 0, 6);
    let rank = b.shape(&x).len();
    let mut perm: Vec<i64> = (0..rank as i64).collect();
    for i in (1..rank).rev() {
        let j = within(&mut b.r, 0, i);
        perm.swap(i, j);
    }
    let a = attrs().when(!once_in(&mut b.r, 4), |a| a.ints("perm", &perm));
    b.node1(op, &[&x], a).map(drop)
}

fn trilu(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(NUMBERS, 2, 4);
    let k = b.r.below(7) as i64 - 3;
    let k = if once_in(&mut b.r, 2) { b.constant(Tensor::scalar(k)) } else { String::new() };
    let upper = b.r.below(2) as i64;
    let a = attrs().when(once_in(&mut b.r, 2), |a| a.int("upper", upper));
    b.node1(op, &[&x, &k], a).map(drop)
}
