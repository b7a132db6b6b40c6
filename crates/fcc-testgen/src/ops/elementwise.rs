//! Operators that go element by element, with broadcasting.
use super::{FLOATS, INTS, Make, NUMBERS, OLD_FLOATS};
use crate::build::Build;
use crate::draw::{self, once_in, one, within};
use crate::pb::attrs;
use fcc_ir::{DType, Op, Tensor};

pub(super) const TABLE: &[(Op, Make)] = &[
    (Op::Abs, unary_any),
    (Op::Acos, unary),
    (Op::Acosh, unary),
    (Op::Add, arithmetic),
    (Op::And, logic),
    (Op::Asin, unary),
    (Op::Asinh, unary),
    (Op::Atan, unary),
    (Op::Atanh, unary),
    (Op::BitShift, bit_shift),
    (Op::BitwiseAnd, bits),
    (Op::BitwiseNot, bitwise_not),
    (Op::BitwiseOr, bits),
    (Op::BitwiseXor, bits),
    (Op::Ceil, unary),
    (Op::Celu, alpha),
    (Op::Clip, clip),
    (Op::Cos, unary),
    (Op::Cosh, unary),
    (Op::Div, arithmetic),
    (Op::Dropout, dropout),
    (Op::Elu, alpha),
    (Op::Equal, compare),
    (Op::Erf, unary),
    (Op::Exp, unary),
    (Op::Floor, unary),
    (Op::Gelu, gelu),
    (Op::Greater, compare),
    (Op::GreaterOrEqual, compare),
    (Op::HardSigmoid, hard_sigmoid),
    (Op::HardSwish, unary),
    (Op::IsInf, is_inf),
    (Op::IsNaN, unary),
    (Op::LeakyRelu, alpha),
    (Op::Less, compare),
    (Op::LessOrEqual, compare),
    (Op::Log, unary),
    (Op::Max, variadic),
    (Op::Mean, variadic),
    (Op::Min, variadic),
    (Op::Mish, unary),
    (Op::Mod, modulo),
    (Op::Mul, arithmetic),
    (Op::Neg, unary_any),
    (Op::Not, not),
    (Op::Or, logic),
    (Op::PRelu, prelu),
    (Op::Pow, pow),
    (Op::Reciprocal, unary),
    (Op::Relu, unary_any),
    (Op::Round, unary),
    (Op::Selu, selu),
    (Op::Shrink, shrink),
    (Op::Sigmoid, unary),
    (Op::Sign, unary_any),
    (Op::Sin, unary),
    (Op::Sinh, unary),
    (Op::Softplus, unary),
    (Op::Softsign, unary),
    (Op::Sqrt, unary),
    (Op::Sub, arithmetic),
    (Op::Sum, variadic),
    (Op::Swish, alpha),
    (Op::Tan, unary),
    (Op::Tanh, unary),
    (Op::ThresholdedRelu, alpha),
    (Op::Where, select),
    (Op::Xor, logic),
];

/// Floats, bfloat16 from the opset on that brought it almost everywhere.
pub(super) fn floats(b: &Build) -> &'static [DType] {
    if b.opset >= 13 { FLOATS } else { OLD_FLOATS }
}

fn unary(b: &mut Build, op: Op) -> Option<()> {
    let types = floats(b);
    let x = b.any_of(types);
    b.node1(op, &[&x], attrs()).map(drop)
}

fn unary_any(b: &mut Build, op: Op) -> Option<()> {
    let types = match op {
        Op::Relu if b.opset < 14 => floats(b),
        Op::Relu | Op::Neg => {
            &[DType::F32, DType::F64, DType::F16, DType::I32, DType::I64, DType::I8, DType::I16]
        }
        _ if b.opset < 6 => floats(b),
        _ => NUMBERS,
    };
    let x = b.any_of(types);
    b.node1(op, &[&x], attrs()).map(drop)
}

fn alpha(b: &mut Build, op: Op) -> Option<()> {
    let types = floats(b);
    let x = b.any_of(types);
    let v = *one(&mut b.r, &[1.0f32, 0.5, 0.01, 2.0, -0.25, 0.0]);
    let v = if op == Op::Celu && v <= 0.0 { 0.7 } else { v };
    let a = attrs().when(!once_in(&mut b.r, 3), |a| a.float("alpha", v));
    b.node1(op, &[&x], a).map(drop)
}

fn gelu(b: &mut Build, op: Op) -> Option<()> {
    let x = b.any_of(FLOATS);
    let how = *one(&mut b.r, &["none", "tanh"]);
    let a = attrs().when(!once_in(&mut b.r, 3), |a| a.str("approximate", how));
    b.node1(op, &[&x], a).map(drop)
}

fn hard_sigmoid(b: &mut Build, op: Op) -> Option<()> {
    let types = floats(b);
    let x = b.any_of(types);
    let v = *one(&mut b.r, &[(0.2f32, 0.5f32), (0.25, 0.5), (1.0, 0.0), (0.166_666_67, 0.5)]);
    let a = attrs().when(!once_in(&mut b.r, 3), |a| a.float("alpha", v.0).float("beta", v.1));
    b.node1(op, &[&x], a).map(drop)
}

fn selu(b: &mut Build, op: Op) -> Option<()> {
    let types = floats(b);
    let x = b.any_of(types);
    let a = attrs().when(once_in(&mut b.r, 2), |a| a.float("alpha", 1.5).float("gamma", 0.75));
    b.node1(op, &[&x], a).map(drop)
}

fn shrink(b: &mut Build, op: Op) -> Option<()> {
    let x = b.any_of(NUMBERS);
    let v = *one(&mut b.r, &[0.0f32, 0.5, 1.0]);
    let a = attrs().when(!once_in(&mut b.r, 3), |a| a.float("bias", v).float("lambd", 1.0));
    b.node1(op, &[&x], a).map(drop)
}

fn is_inf(b: &mut Build, op: Op) -> Option<()> {
    let types: &[DType] = if b.opset >= 20 { FLOATS } else { &[DType::F32, DType::F64] };
    let x = b.any_of(types);
    let v = b.r.below(2) as i64;
    let a = attrs().when(once_in(&mut b.r, 2), |a| a.int("detect_negative", v));
    let a = a.when(once_in(&mut b.r, 2), |a| a.int("detect_positive", 1 - v));
    b.node1(op, &[&x], a).map(drop)
}

fn not(b: &mut Build, op: Op) -> Option<()> {
    let x = b.any_of(&[DType::Bool]);
    b.node1(op, &[&x], attrs()).map(drop)
}

fn bitwise_not(b: &mut Build, op: Op) -> Option<()> {
    let x = b.any_of(INTS);
    b.node1(op, &[&x], attrs()).map(drop)
}

/// Two operands of one type that broadcast: either may be the smaller one, or each in some dimensions.
pub(super) fn pair(b: &mut Build, types: &[DType]) -> (String, String) {
    let x = b.any_of(types);
    let (dtype, shape) = (b.dtype(&x), b.shape(&x));
    if once_in(&mut b.r, 4)
        && let Some(y) = b.pick(|t| t.dtype() == dtype && broadcasts(t.shape(), &shape))
    {
        return if once_in(&mut b.r, 2) { (x, y) } else { (y, x) };
    }
    let mut small = draw::broadcast_of(&mut b.r, &shape);
    // a dimension of one that the other operand widens
    for n in small.iter_mut().filter(|n| **n == 1) {
        if once_in(&mut b.r, 10) {
            *n = draw::extent(&mut b.r);
        }
    }
    if !broadcasts(&small, &shape) {
        small = draw::broadcast_of(&mut b.r, &shape);
    }
    let y = if once_in(&mut b.r, 2) { b.weight_of(dtype, &small) } else { b.operand(dtype, &small) };
    if once_in(&mut b.r, 2) { (x, y) } else { (y, x) }
}

/// Whether two shapes broadcast, to something that is not large.
fn broadcasts(a: &[usize], b: &[usize]) -> bool {
    let (mut elems, fits) =
        (1usize, a.iter().rev().zip(b.iter().rev()).all(|(a, b)| a == b || *a == 1 || *b == 1));
    for i in 0..a.len().max(b.len()) {
        let at = |s: &[usize]| s.len().checked_sub(i + 1).map_or(1, |i| s[i]);
        elems = elems.saturating_mul(at(a).max(at(b)));
    }
    fits && elems <= 4096
}

fn arithmetic(b: &mut Build, op: Op) -> Option<()> {
    if b.opset < 7 {
        return old_broadcast(b, op);
    }
    let types = match b.opset {
        ..13 => &[DType::F32, DType::F64, DType::F16, DType::I32, DType::I64, DType::U32, DType::U64][..],
        13 => {
            &[DType::F32, DType::F64, DType::F16, DType::I32, DType::I64, DType::U32, DType::U64, DType::BF16]
        }
        _ => NUMBERS,
    };
    let (x, y) = pair(b, types);
    b.node1(op, &[&x, &y], attrs()).map(drop)
}

/// Before opset 7 the second operand is stretched along dimensions that start at `axis`.
fn old_broadcast(b: &mut Build, op: Op) -> Option<()> {
    let types = match op {
        Op::And | Op::Or | Op::Xor | Op::Equal if op != Op::Equal => &[DType::Bool][..],
        Op::Equal => &[DType::I32, DType::I64, DType::Bool],
        _ => &[DType::F32, DType::F64, DType::F16],
    };
    let x = b.any_of(types);
    let (dtype, shape) = (b.dtype(&x), b.shape(&x));
    if shape.is_empty() || once_in(&mut b.r, 3) {
        let y = b.operand(dtype, &shape);
        return b.node1(op, &[&x, &y], attrs()).map(drop);
    }
    let axis = within(&mut b.r, 0, shape.len() - 1);
    let end = within(&mut b.r, axis + 1, shape.len());
    let y = b.operand(dtype, &shape[axis..end]);
    let suffix = end == shape.len();
    let a = attrs().int("broadcast", 1).when(!suffix || once_in(&mut b.r, 2), |a| a.int("axis", axis as i64));
    b.node1(op, &[&x, &y], a).map(drop)
}

fn logic(b: &mut Build, op: Op) -> Option<()> {
    if b.opset < 7 {
        return old_broadcast(b, op);
    }
    let (x, y) = pair(b, &[DType::Bool]);
    b.node1(op, &[&x, &y], attrs()).map(drop)
}

fn bits(b: &mut Build, op: Op) -> Option<()> {
    let (x, y) = pair(b, INTS);
    b.node1(op, &[&x, &y], attrs()).map(drop)
}

fn bit_shift(b: &mut Build, op: Op) -> Option<()> {
    let (x, y) = pair(b, &[DType::U8, DType::U16, DType::U32, DType::U64]);
    let direction = *one(&mut b.r, &["LEFT", "RIGHT"]);
    b.node1(op, &[&x, &y], attrs().str("direction", direction)).map(drop)
}

fn compare(b: &mut Build, op: Op) -> Option<()> {
    if b.opset < 7 && !matches!(op, Op::GreaterOrEqual | Op::LessOrEqual) {
        return old_broadcast(b, op);
    }
    let types = match (op, b.opset) {
        (Op::Equal, ..11) => &[DType::I32, DType::I64, DType::Bool][..],
        (Op::Equal, 19..) if once_in(&mut b.r, 8) => &[DType::String],
        (_, ..9) => &[DType::F32, DType::F64, DType::F16],
        _ => NUMBERS,
    };
    let (x, y) = pair(b, types);
    b.node1(op, &[&x, &y], attrs()).map(drop)
}

fn modulo(b: &mut Build, op: Op) -> Option<()> {
    let fmod = once_in(&mut b.r, 2);
    let (x, y) = pair(b, if fmod { NUMBERS } else { INTS });
    let a = attrs().when(fmod, |a| a.int("fmod", 1));
    b.node1(op, &[&x, &y], a).map(drop)
}

fn pow(b: &mut Build, op: Op) -> Option<()> {
    let types = floats(b);
    let x = b.any_of(types);
    let (dtype, shape) = (b.dtype(&x), b.shape(&x));
    if b.opset < 7 {
        let y = b.operand(dtype, &shape);
        return b.node1(op, &[&x, &y], attrs()).map(drop);
    }
    let small = draw::broadcast_of(&mut b.r, &shape);
    let y = match b.r.below(3) {
        0 => {
            let v = *one(&mut b.r, &[2.0, 0.5, 1.0, 3.0, -1.0, 0.0, 2.5]);
            let t = fcc_ir::convert::from_f64s(dtype, vec![], vec![v], Default::default()).ok()?;
            b.constant(t)
        }
        1 if b.opset >= 12 => b.operand(DType::I64, &small),
        _ => b.operand(dtype, &small),
    };
    b.node1(op, &[&x, &y], attrs()).map(drop)
}

fn prelu(b: &mut Build, op: Op) -> Option<()> {
    let types = floats(b);
    let x = b.any_of(types);
    let (dtype, shape) = (b.dtype(&x), b.shape(&x));
    let slope = match b.opset {
        ..7 => vec![if shape.len() > 1 && once_in(&mut b.r, 2) { shape[1] } else { 1 }],
        _ => draw::broadcast_of(&mut b.r, &shape),
    };
    let slope = b.weight_of(dtype, &slope);
    b.node1(op, &[&x, &slope], attrs()).map(drop)
}

fn variadic(b: &mut Build, op: Op) -> Option<()> {
    let types = match op {
        Op::Max | Op::Min if b.opset >= 12 => NUMBERS,
        _ => floats(b),
    };
    let x = b.any_of(types);
    let (dtype, shape) = (b.dtype(&x), b.shape(&x));
    let mut inputs = vec![x];
    for _ in 0..within(&mut b.r, 0, 3) {
        let small = if b.opset < 8 { shape.clone() } else { draw::broadcast_of(&mut b.r, &shape) };
        let y = b.operand(dtype, &small);
        let at = within(&mut b.r, 0, inputs.len());
        inputs.insert(at, y);
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    b.node1(op, &inputs, attrs()).map(drop)
}

fn clip(b: &mut Build, op: Op) -> Option<()> {
    let types = if b.opset >= 12 { NUMBERS } else { OLD_FLOATS };
    let x = b.any_of(types);
    let dtype = b.dtype(&x);
    let (low, high) = *one(&mut b.r, &[(-1.0, 1.0), (0.0, 6.0), (0.0, 1.0), (1.0, 2.0), (2.0, 1.0)]);
    let (has_low, has_high) = (!once_in(&mut b.r, 3), !once_in(&mut b.r, 3));
    if b.opset < 11 {
        let a = attrs().when(has_low, |a| a.float("min", low)).when(has_high, |a| a.float("max", high));
        return b.node1(op, &[&x], a).map(drop);
    }
    let bound = |b: &mut Build, has: bool, v: f32| {
        let t = fcc_ir::convert::from_f32s(dtype, vec![], vec![v]).ok().filter(|_| has)?;
        Some(b.constant(t))
    };
    let low = bound(b, has_low, low).unwrap_or_default();
    let high = bound(b, has_high, high).unwrap_or_default();
    b.node1(op, &[&x, &low, &high], attrs()).map(drop)
}

fn dropout(b: &mut Build, op: Op) -> Option<()> {
    let types = floats(b);
    let x = b.any_of(types);
    let outputs = within(&mut b.r, 1, 2);
    if b.opset < 12 {
        let a = attrs().when(once_in(&mut b.r, 2), |a| a.float("ratio", 0.25));
        let a = a.when(b.opset < 7, |a| a.int("is_test", 1));
        return b.node(op, &[&x], a, outputs).map(drop);
    }
    let ratio = if once_in(&mut b.r, 2) { b.constant(Tensor::scalar(0.25f32)) } else { String::new() };
    let mode = Tensor::from_bools(vec![], [false]).ok()?;
    let mode = if once_in(&mut b.r, 2) { b.constant(mode) } else { String::new() };
    b.node(op, &[&x, &ratio, &mode], attrs(), outputs).map(drop)
}

fn select(b: &mut Build, op: Op) -> Option<()> {
    let (x, y) = pair(b, super::ANY);
    let (a, c) = (b.shape(&x), b.shape(&y));
    let shape = if a.len() >= c.len() { a } else { c };
    let small = draw::broadcast_of(&mut b.r, &shape);
    let condition = b.operand(DType::Bool, &small);
    b.node1(op, &[&condition, &x, &y], attrs()).map(drop)
}
