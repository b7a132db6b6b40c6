//! Lists and optional values.
use super::{Make, NUMBERS};
use crate::build::Build;
use crate::draw::{once_in, one, within};
use crate::pb::attrs;
use fcc_ir::{DType, Op, Tensor, Value, ValueType};

pub(super) const TABLE: &[(Op, Make)] = &[
    (Op::ConcatFromSequence, concat),
    (Op::Optional, optional),
    (Op::OptionalGetElement, get),
    (Op::OptionalHasElement, has),
    (Op::SequenceAt, at),
    (Op::SequenceConstruct, construct),
    (Op::SequenceEmpty, empty),
    (Op::SequenceErase, erase),
    (Op::SequenceInsert, insert),
    (Op::SequenceLength, length),
    (Op::SplitToSequence, split),
];

/// A list with elements, made before or now.
pub(super) fn list(b: &mut Build) -> Option<String> {
    let made = b.pick_value(|v| matches!(v, Value::Sequence(_, items) if items.iter().all(|i| i.as_tensor().is_ok()) && !items.is_empty()));
    if made.is_some() && once_in(&mut b.r, 2) {
        return made;
    }
    construct_of(b, Op::SequenceConstruct)
}

fn construct_of(b: &mut Build, op: Op) -> Option<String> {
    let x = b.ranked(NUMBERS, 1, 4);
    let (dtype, shape) = (b.dtype(&x), b.shape(&x));
    let mut inputs = vec![x];
    for _ in 0..within(&mut b.r, 0, 2) {
        let y = match b.r.below(3) {
            0 => b.pick(|t| t.dtype() == dtype && t.rank() == shape.len())?,
            _ => b.operand(dtype, &shape),
        };
        inputs.push(y);
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    b.node1(op, &inputs, attrs())
}

fn construct(b: &mut Build, op: Op) -> Option<()> {
    construct_of(b, op).map(drop)
}

fn len(b: &Build, list: &str) -> usize {
    b.known[list].as_sequence().map_or(0, <[_]>::len)
}

fn position(b: &mut Build, n: usize) -> String {
    let i = b.r.below(n.max(1) as u64) as i64;
    let i = if once_in(&mut b.r, 3) { i - n as i64 } else { i };
    let t = if once_in(&mut b.r, 3) { Tensor::scalar(i as i32) } else { Tensor::scalar(i) };
    b.constant(t)
}

fn at(b: &mut Build, op: Op) -> Option<()> {
    let list = list(b)?;
    let n = len(b, &list);
    let i = position(b, n);
    b.node1(op, &[&list, &i], attrs()).map(drop)
}

fn erase(b: &mut Build, op: Op) -> Option<()> {
    let list = list(b)?;
    let n = len(b, &list);
    let i = position(b, n);
    let i = if once_in(&mut b.r, 3) { String::new() } else { i };
    b.node1(op, &[&list, &i], attrs()).map(drop)
}

fn insert(b: &mut Build, op: Op) -> Option<()> {
    let list = list(b)?;
    let item = b.known[&list].as_sequence().ok()?.first()?.as_tensor().ok()?.clone();
    let x = b.operand(item.dtype(), item.shape());
    let n = len(b, &list);
    let i = position(b, n);
    let i = if once_in(&mut b.r, 3) { String::new() } else { i };
    b.node1(op, &[&list, &x, &i], attrs()).map(drop)
}

fn length(b: &mut Build, op: Op) -> Option<()> {
    let list = list(b)?;
    b.node1(op, &[&list], attrs()).map(drop)
}

fn empty(b: &mut Build, op: Op) -> Option<()> {
    let dtype = b.one_type(NUMBERS);
    let list = b.node1(op, &[], attrs().when(dtype != DType::F32, |a| a.int("dtype", dtype as i64)))?;
    let x = b.operand(dtype, &[2]);
    b.node1(Op::SequenceInsert, &[&list, &x], attrs()).map(drop)
}

fn concat(b: &mut Build, op: Op) -> Option<()> {
    let list = list(b)?;
    let items = b.known[&list].as_sequence().ok()?;
    let rank = items.first()?.as_tensor().ok()?.rank();
    let new = once_in(&mut b.r, 3);
    let axis = within(&mut b.r, 0, rank - usize::from(!new)) as i64;
    b.node1(op, &[&list], attrs().int("axis", axis).when(new, |a| a.int("new_axis", 1))).map(drop)
}

fn split(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(NUMBERS, 1, 3);
    let shape = b.shape(&x);
    let axis = within(&mut b.r, 0, shape.len() - 1);
    let part = within(&mut b.r, 1, shape[axis].max(1)) as i64;
    let left = shape[axis] as i64 - part;
    let parts = match b.r.below(3) {
        0 => String::new(),
        1 => b.constant(Tensor::scalar(part)),
        _ => b.ints(&[part, left]),
    };
    let keep = *one(&mut b.r, &[0, 1]);
    let a = attrs().int("axis", axis as i64).when(once_in(&mut b.r, 2), |a| a.int("keepdims", keep));
    b.node1(op, &[&x, &parts], a).map(drop)
}

fn optional_of(b: &mut Build, op: Op) -> Option<String> {
    let x = if once_in(&mut b.r, 3) { list(b)? } else { b.any_of(NUMBERS) };
    b.node1(op, &[&x], attrs())
}

fn optional(b: &mut Build, op: Op) -> Option<()> {
    if once_in(&mut b.r, 3) {
        let ty = ValueType::tensor(DType::F32, [2usize]);
        let none = b.node1(op, &[], attrs().ty("type", &ty))?;
        return b.node1(Op::OptionalHasElement, &[&none], attrs()).map(drop);
    }
    optional_of(b, op).map(drop)
}

fn get(b: &mut Build, op: Op) -> Option<()> {
    let x =
        if b.opset >= 18 && once_in(&mut b.r, 3) { b.any_of(NUMBERS) } else { optional_of(b, Op::Optional)? };
    b.node1(op, &[&x], attrs()).map(drop)
}

fn has(b: &mut Build, op: Op) -> Option<()> {
    let x = match b.r.below(3) {
        0 if b.opset >= 18 => String::new(),
        1 if b.opset >= 18 => b.any_of(NUMBERS),
        _ => optional_of(b, Op::Optional)?,
    };
    b.node1(op, &[&x], attrs()).map(drop)
}
