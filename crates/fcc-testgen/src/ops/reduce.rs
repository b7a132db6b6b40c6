//! Reductions, running sums, softmax and the normalizations.
use super::elementwise::floats;
use super::linear::image;
use super::movement::{axes, axis};
use super::{FLOATS, Make, NUMBERS};
use crate::build::Build;
use crate::draw::{self, once_in, one, within};
use crate::pb::attrs;
use fcc_ir::{DType, Op, Tensor};

pub(super) const TABLE: &[(Op, Make)] = &[
    (Op::ArgMax, arg),
    (Op::ArgMin, arg),
    (Op::BatchNormalization, batch_normalization),
    (Op::CumProd, cumulative),
    (Op::CumSum, cumulative),
    (Op::Det, det),
    (Op::GroupNormalization, group_normalization),
    (Op::Hardmax, softmax),
    (Op::InstanceNormalization, instance_normalization),
    (Op::LayerNormalization, layer_normalization),
    (Op::LogSoftmax, softmax),
    (Op::LpNormalization, lp_normalization),
    (Op::MeanVarianceNormalization, mean_variance),
    (Op::RMSNormalization, rms_normalization),
    (Op::ReduceL1, reduce),
    (Op::ReduceL2, reduce),
    (Op::ReduceLogSum, reduce),
    (Op::ReduceLogSumExp, reduce),
    (Op::ReduceMax, reduce),
    (Op::ReduceMean, reduce),
    (Op::ReduceMin, reduce),
    (Op::ReduceProd, reduce),
    (Op::ReduceSum, reduce),
    (Op::ReduceSumSquare, reduce),
    (Op::Softmax, softmax),
];

fn reduce(b: &mut Build, op: Op) -> Option<()> {
    let most = matches!(op, Op::ReduceMax | Op::ReduceMin);
    let types = match b.opset {
        20.. if most && once_in(&mut b.r, 8) => &[DType::Bool][..],
        12.. if most => &[DType::F32, DType::F64, DType::F16, DType::I32, DType::I64, DType::I8, DType::U8],
        13.. => &[DType::F32, DType::F64, DType::F16, DType::BF16, DType::I32, DType::I64],
        _ => &[DType::F32, DType::F64, DType::F16, DType::I32, DType::I64],
    };
    let x = b.ranked(types, 0, 6);
    let rank = b.shape(&x).len();
    let over = if rank == 0 || once_in(&mut b.r, 5) { None } else { Some(axes(b, rank, 1)) };
    let keep = b.r.below(2) as i64;
    let a = attrs().when(once_in(&mut b.r, 2) || keep == 0, |a| a.int("keepdims", keep));
    let since = if op == Op::ReduceSum { 13 } else { 18 };
    if b.opset < since {
        let a = match &over {
            Some(over) => a.ints("axes", over),
            None => a,
        };
        return b.node1(op, &[&x], a).map(drop);
    }
    let empty = over.is_none() && once_in(&mut b.r, 2);
    let a = a.when(empty && once_in(&mut b.r, 2), |a| a.int("noop_with_empty_axes", 1));
    let over = match over {
        Some(over) => b.ints(&over),
        None if empty => b.ints(&[]),
        None => String::new(),
    };
    b.node1(op, &[&x, &over], a).map(drop)
}

fn arg(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(NUMBERS, 1, 5);
    let at = axis(b, b.shape(&x).len());
    let keep = b.r.below(2) as i64;
    let a = attrs().int("axis", at).when(once_in(&mut b.r, 2), |a| a.int("keepdims", keep));
    let a = a.when(b.opset >= 12 && once_in(&mut b.r, 3), |a| a.int("select_last_index", 1));
    b.node1(op, &[&x], a).map(drop)
}

fn cumulative(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(&[DType::F32, DType::F64, DType::I32, DType::I64], 1, 4);
    let at = axis(b, b.shape(&x).len());
    let at = if once_in(&mut b.r, 2) { Tensor::scalar(at) } else { Tensor::scalar(at as i32) };
    let at = b.constant(at);
    let a = attrs().when(once_in(&mut b.r, 2), |a| a.int("exclusive", 1));
    let a = a.when(once_in(&mut b.r, 2), |a| a.int("reverse", 1));
    b.node1(op, &[&x, &at], a).map(drop)
}

fn det(b: &mut Build, op: Op) -> Option<()> {
    let n = within(&mut b.r, 1, 4);
    let dtype = b.one_type(FLOATS);
    let mut shape: Vec<usize> = (0..within(&mut b.r, 0, 2)).map(|_| draw::extent(&mut b.r)).collect();
    shape.extend([n, n]);
    let x = b.operand(dtype, &shape);
    b.node1(op, &[&x], attrs()).map(drop)
}

fn softmax(b: &mut Build, op: Op) -> Option<()> {
    let types = floats(b);
    let x = b.ranked(types, 1, 5);
    let at = axis(b, b.shape(&x).len());
    let a = attrs().when(!once_in(&mut b.r, 3), |a| a.int("axis", at));
    b.node1(op, &[&x], a).map(drop)
}

fn batch_normalization(b: &mut Build, op: Op) -> Option<()> {
    let types = &floats(b)[..1 + b.r.below(3) as usize];
    let x = if once_in(&mut b.r, 4) { b.ranked(types, 2, 2) } else { image(b, types) };
    let (dtype, c) = (b.dtype(&x), b.shape(&x)[1]);
    let (scale, bias, mean) = (b.weight_of(dtype, &[c]), b.weight_of(dtype, &[c]), b.weight_of(dtype, &[c]));
    let v: Vec<f64> = (0..c).map(|_| *one(&mut b.r, &[1.0, 4.0, 0.25, 0.5])).collect();
    let var = fcc_ir::convert::from_f64s(dtype, vec![c], v, Default::default()).ok()?;
    let var = b.constant(var);
    let a = attrs().when(once_in(&mut b.r, 2), |a| a.float("epsilon", 1e-3));
    let a = a.when(b.opset < 7, |a| a.int("is_test", 1));
    let trains = b.opset >= 14 && once_in(&mut b.r, 8);
    let a = a.when(trains, |a| a.int("training_mode", 1));
    b.node(op, &[&x, &scale, &bias, &mean, &var], a, if trains { 3 } else { 1 }).map(drop)
}

fn instance_normalization(b: &mut Build, op: Op) -> Option<()> {
    let types = floats(b);
    let x = image(b, types);
    let (dtype, c) = (b.dtype(&x), b.shape(&x)[1]);
    let (scale, bias) = (b.weight_of(dtype, &[c]), b.weight_of(dtype, &[c]));
    let a = attrs().when(once_in(&mut b.r, 2), |a| a.float("epsilon", 1e-3));
    b.node1(op, &[&x, &scale, &bias], a).map(drop)
}

fn group_normalization(b: &mut Build, op: Op) -> Option<()> {
    let x = image(b, FLOATS);
    let (dtype, c) = (b.dtype(&x), b.shape(&x)[1]);
    let g = super::linear::groups(b, c);
    let n = if b.opset < 21 { g } else { c };
    let (scale, bias) = (b.weight_of(dtype, &[n]), b.weight_of(dtype, &[n]));
    b.node1(op, &[&x, &scale, &bias], attrs().int("num_groups", g as i64)).map(drop)
}

fn layer_normalization(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(FLOATS, 1, 4);
    let (dtype, shape) = (b.dtype(&x), b.shape(&x));
    let at = axis(b, shape.len());
    let inner = shape[at.rem_euclid(shape.len() as i64) as usize..].to_vec();
    let small = if once_in(&mut b.r, 4) { draw::broadcast_of(&mut b.r, &inner) } else { inner };
    let scale = b.weight_of(dtype, &small);
    let bias = if once_in(&mut b.r, 2) { b.weight_of(dtype, &small) } else { String::new() };
    let a = attrs().int("axis", at).when(once_in(&mut b.r, 2), |a| a.float("epsilon", 1e-3));
    let wanted = *one(&mut b.r, &[&[true][..], &[true, true, true], &[true, false, true]]);
    b.node_with(op, &[&x, &scale, &bias], a, wanted).map(drop)
}

fn rms_normalization(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(FLOATS, 1, 4);
    let (dtype, shape) = (b.dtype(&x), b.shape(&x));
    let at = axis(b, shape.len());
    let inner = shape[at.rem_euclid(shape.len() as i64) as usize..].to_vec();
    let small = if once_in(&mut b.r, 4) { draw::broadcast_of(&mut b.r, &inner) } else { inner };
    let scale = b.weight_of(dtype, &small);
    b.node1(op, &[&x, &scale], attrs().int("axis", at)).map(drop)
}

fn lp_normalization(b: &mut Build, op: Op) -> Option<()> {
    let types = floats(b);
    let x = b.ranked(types, 1, 4);
    let at = axis(b, b.shape(&x).len());
    let p = *one(&mut b.r, &[1, 2]);
    b.node1(op, &[&x], attrs().int("axis", at).int("p", p)).map(drop)
}

fn mean_variance(b: &mut Build, op: Op) -> Option<()> {
    let types = floats(b);
    let x = b.ranked(types, 4, 4);
    let over = axes(b, 4, 1);
    let a = attrs().when(once_in(&mut b.r, 2), |a| a.ints("axes", &over));
    b.node1(op, &[&x], a).map(drop)
}
