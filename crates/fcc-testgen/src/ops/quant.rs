//! Quantised numbers: QDQ pairs, integer products, the operators of quantised models.
use super::Make;
use super::linear::{groups, image, window};
use crate::build::Build;
use crate::draw::{self, once_in, one, within};
use crate::pb::attrs;
use fcc_ir::{DType, Op, Tensor};

pub(super) const TABLE: &[(Op, Make)] = &[
    (Op::ConvInteger, conv_integer),
    (Op::DequantizeLinear, dequantize),
    (Op::DynamicQuantizeLinear, dynamic),
    (Op::DynamicQuantizeMatMul, dynamic_matmul),
    (Op::MatMulInteger, matmul_integer),
    (Op::MatMulIntegerToFloat, matmul_to_float),
    (Op::QGemm, q_gemm),
    (Op::QLinearAdd, q_pair),
    (Op::QLinearAveragePool, q_pool),
    (Op::QLinearConcat, q_concat),
    (Op::QLinearConv, q_conv),
    (Op::QLinearGlobalAveragePool, q_global),
    (Op::QLinearLeakyRelu, q_unary),
    (Op::QLinearMatMul, q_matmul),
    (Op::QLinearMul, q_pair),
    (Op::QLinearSigmoid, q_unary),
    (Op::QuantizeLinear, quantize),
];

const BYTES: &[DType] = &[DType::U8, DType::I8];

/// Scales that are powers of two, or not.
pub(super) fn scales(b: &mut Build, shape: &[usize]) -> String {
    let round = once_in(&mut b.r, 2);
    let n: usize = shape.iter().product();
    let v: Vec<f32> = (0..n)
        .map(|_| *one(&mut b.r, if round { &[0.5, 1.0, 0.25, 0.125] } else { &[0.1f32, 0.037, 0.02, 1.3] }))
        .collect();
    let t = Tensor::new(shape, v).expect("as many elements");
    b.constant(t)
}

fn scale(b: &mut Build) -> String {
    scales(b, &[])
}

/// A zero point near the middle or at the edge.
fn zero(b: &mut Build, dtype: DType, shape: &[usize]) -> String {
    let n: usize = shape.iter().product();
    let v = (0..n)
        .map(|_| *one(&mut b.r, if dtype == DType::U8 { &[128, 0, 3, 255] } else { &[0i64, 1, -3, -128] }))
        .collect();
    let t = fcc_ir::convert::from_i64s(dtype, shape, v).expect("as many elements");
    b.constant(t)
}

/// One quantised form: a scale a tensor, or along an axis.
fn parameters(b: &mut Build, shape: &[usize]) -> (Vec<usize>, Option<i64>) {
    if b.opset >= 13 && !shape.is_empty() && once_in(&mut b.r, 3) {
        let at = within(&mut b.r, 0, shape.len() - 1);
        return (vec![shape[at]], Some(at as i64));
    }
    (if once_in(&mut b.r, 4) { vec![1] } else { vec![] }, None)
}

fn quantize(b: &mut Build, op: Op) -> Option<()> {
    let x = b.any_of(&[DType::F32]);
    let shape = b.shape(&x);
    let (of, axis) = parameters(b, &shape);
    let to = if b.opset >= 21 {
        *one(&mut b.r, &[DType::U8, DType::I8, DType::I16, DType::U16, DType::I4, DType::U4])
    } else {
        *one(&mut b.r, BYTES)
    };
    let (s, z) = (scales(b, &of), zero(b, to, &of));
    let z = if to == DType::U8 && once_in(&mut b.r, 3) { String::new() } else { z };
    let a = attrs().when(axis.is_some(), |a| a.int("axis", axis.unwrap_or(0)));
    let q = b.node1(op, &[&x, &s, &z], a.clone())?;
    if once_in(&mut b.r, 2) {
        return b.node1(Op::DequantizeLinear, &[&q, &s, &z], a).map(drop);
    }
    Some(())
}

fn dequantize(b: &mut Build, op: Op) -> Option<()> {
    let types: &[DType] = if b.opset >= 21 {
        &[DType::U8, DType::I8, DType::I16, DType::U16, DType::I4, DType::I32]
    } else {
        &[DType::U8, DType::I8, DType::I32]
    };
    let x = b.any_of(types);
    let shape = b.shape(&x);
    let (of, axis) = parameters(b, &shape);
    let dtype = b.dtype(&x);
    let (s, z) = (scales(b, &of), zero(b, dtype, &of));
    let z = if dtype == DType::I32 || once_in(&mut b.r, 3) { String::new() } else { z };
    b.node1(op, &[&x, &s, &z], attrs().when(axis.is_some(), |a| a.int("axis", axis.unwrap_or(0)))).map(drop)
}

fn dynamic(b: &mut Build, op: Op) -> Option<()> {
    let x = b.any_of(&[DType::F32]);
    b.node(op, &[&x], attrs(), 3).map(drop)
}

/// Two matrices of bytes: the left one, the right one, and the columns of that.
fn matrices(b: &mut Build) -> Option<(String, String, usize)> {
    let x = b.ranked(BYTES, 2, 3);
    let k = *b.shape(&x).last()?;
    let n = if once_in(&mut b.r, 2) { draw::row(&mut b.r) } else { draw::extent(&mut b.r) };
    let dtype = *one(&mut b.r, BYTES);
    let w = b.weight_of(dtype, &[k, n]);
    Some((x, w, n))
}

fn matmul_integer(b: &mut Build, op: Op) -> Option<()> {
    let (x, w, n) = matrices(b)?;
    let (dx, dw) = (b.dtype(&x), b.dtype(&w));
    let zx = if once_in(&mut b.r, 2) { zero(b, dx, &[]) } else { String::new() };
    let of = if once_in(&mut b.r, 3) { vec![n] } else { vec![] };
    let zw = if once_in(&mut b.r, 2) { zero(b, dw, &of) } else { String::new() };
    b.node1(op, &[&x, &w, &zx, &zw], attrs()).map(drop)
}

fn conv_integer(b: &mut Build, op: Op) -> Option<()> {
    let x = image(b, &[DType::U8]);
    let shape = b.shape(&x);
    let w = window(b, &shape[2..], true);
    let (g, m) = (groups(b, shape[1]), within(&mut b.r, 1, 3));
    let weight: Vec<usize> = [m * g, shape[1] / g].into_iter().chain(w.kernel).collect();
    let dtype = *one(&mut b.r, BYTES);
    let weight = b.weight_of(dtype, &weight);
    let zx = if once_in(&mut b.r, 2) { zero(b, DType::U8, &[]) } else { String::new() };
    let a = w.attrs.when(g != 1, |a| a.int("group", g as i64));
    b.node1(op, &[&x, &weight, &zx], a).map(drop)
}

fn q_conv(b: &mut Build, op: Op) -> Option<()> {
    let dtype = *one(&mut b.r, BYTES);
    let x = image(b, &[dtype]);
    let shape = b.shape(&x);
    let w = window(b, &shape[2..], true);
    let (g, per) = (groups(b, shape[1]), within(&mut b.r, 1, 4));
    let m = g * per;
    let weight: Vec<usize> = [m, shape[1] / g].into_iter().chain(w.kernel).collect();
    let wide = if dtype == DType::U8 { *one(&mut b.r, BYTES) } else { DType::I8 };
    let weight = b.weight_of(wide, &weight);
    let of = if once_in(&mut b.r, 2) { vec![m] } else { vec![] };
    let (sx, zx, sw) = (scale(b), zero(b, dtype, &[]), scales(b, &of));
    let none = fcc_ir::convert::from_i64s(wide, of.clone(), vec![0; of.iter().product()]).ok()?;
    let zw = if once_in(&mut b.r, 2) { b.constant(none) } else { zero(b, wide, &of) };
    let (sy, zy) = (scale(b), zero(b, dtype, &[]));
    let bias = if once_in(&mut b.r, 2) { b.weight_of(DType::I32, &[m]) } else { String::new() };
    let a = w.attrs.when(g != 1, |a| a.int("group", g as i64));
    b.node1(op, &[&x, &sx, &zx, &weight, &sw, &zw, &sy, &zy, &bias], a).map(drop)
}

fn q_matmul(b: &mut Build, op: Op) -> Option<()> {
    let (x, w, n) = matrices(b)?;
    let (dx, dw) = (b.dtype(&x), b.dtype(&w));
    let of = if once_in(&mut b.r, 3) { vec![n] } else { vec![] };
    let (sx, zx, sw, zw) = (scale(b), zero(b, dx, &[]), scales(b, &of), zero(b, dw, &of));
    let (sy, zy) = (scale(b), zero(b, dx, &[]));
    b.node1(op, &[&x, &sx, &zx, &w, &sw, &zw, &sy, &zy], attrs()).map(drop)
}

fn matmul_to_float(b: &mut Build, op: Op) -> Option<()> {
    let (x, w, n) = matrices(b)?;
    let (dx, dw) = (b.dtype(&x), b.dtype(&w));
    let of = if once_in(&mut b.r, 2) { vec![n] } else { vec![] };
    let (sx, sw) = (scale(b), scales(b, &of));
    let zx = if once_in(&mut b.r, 2) { zero(b, dx, &[]) } else { String::new() };
    let zw = if once_in(&mut b.r, 2) { zero(b, dw, &of) } else { String::new() };
    let bias = if once_in(&mut b.r, 2) { b.weight_of(DType::F32, &[n]) } else { String::new() };
    b.node1(op, &[&x, &w, &sx, &sw, &zx, &zw, &bias], attrs()).map(drop)
}

fn dynamic_matmul(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(&[DType::F32], 2, 3);
    let k = *b.shape(&x).last()?;
    let n = draw::row(&mut b.r);
    let dtype = *one(&mut b.r, BYTES);
    let w = b.weight_of(dtype, &[k, n]);
    let of = if once_in(&mut b.r, 2) { vec![n] } else { vec![] };
    let (s, z) = (scales(b, &of), zero(b, dtype, &of));
    let z = if once_in(&mut b.r, 2) { z } else { String::new() };
    let bias = if once_in(&mut b.r, 2) { b.weight_of(DType::F32, &[n]) } else { String::new() };
    b.node1(op, &[&x, &w, &s, &z, &bias], attrs()).map(drop)
}

fn q_gemm(b: &mut Build, op: Op) -> Option<()> {
    let dtype = *one(&mut b.r, BYTES);
    let x = b.ranked(&[dtype], 2, 2);
    let k = b.shape(&x)[1];
    let n = draw::row(&mut b.r);
    let trans = once_in(&mut b.r, 2);
    let w = b.weight_of(dtype, &if trans { [n, k] } else { [k, n] });
    let (sx, zx, sw, zw) = (scale(b), zero(b, dtype, &[]), scale(b), zero(b, dtype, &[]));
    let bias = if once_in(&mut b.r, 2) { b.weight_of(DType::I32, &[n]) } else { String::new() };
    let float = once_in(&mut b.r, 3);
    let (sy, zy) = if float { (String::new(), String::new()) } else { (scale(b), zero(b, dtype, &[])) };
    let a = attrs().when(trans, |a| a.int("transB", 1));
    b.node1(op, &[&x, &sx, &zx, &w, &sw, &zw, &bias, &sy, &zy], a).map(drop)
}

fn q_pair(b: &mut Build, op: Op) -> Option<()> {
    let dtype = *one(&mut b.r, BYTES);
    let (x, y) = super::elementwise::pair(b, &[dtype]);
    let [sx, sy, sz] = [0; 3].map(|_| scale(b));
    let [zx, zy, zz] = [0; 3].map(|_| zero(b, dtype, &[]));
    b.node1(op, &[&x, &sx, &zx, &y, &sy, &zy, &sz, &zz], attrs()).map(drop)
}

fn q_unary(b: &mut Build, op: Op) -> Option<()> {
    let dtype = *one(&mut b.r, BYTES);
    let x = b.any_of(&[dtype]);
    let (sx, zx, sy, zy) = (scale(b), zero(b, dtype, &[]), scale(b), zero(b, dtype, &[]));
    let a = attrs().when(op == Op::QLinearLeakyRelu && once_in(&mut b.r, 2), |a| a.float("alpha", 0.1));
    b.node1(op, &[&x, &sx, &zx, &sy, &zy], a).map(drop)
}

fn q_pool(b: &mut Build, op: Op) -> Option<()> {
    let dtype = *one(&mut b.r, BYTES);
    let x = image(b, &[dtype]);
    let shape = b.shape(&x);
    let w = window(b, &shape[2..], false);
    let (sx, zx, sy, zy) = (scale(b), zero(b, dtype, &[]), scale(b), zero(b, dtype, &[]));
    b.node1(op, &[&x, &sx, &zx, &sy, &zy], w.attrs).map(drop)
}

fn q_global(b: &mut Build, op: Op) -> Option<()> {
    let dtype = *one(&mut b.r, BYTES);
    let x = image(b, &[dtype]);
    let (sx, zx, sy, zy) = (scale(b), zero(b, dtype, &[]), scale(b), zero(b, dtype, &[]));
    b.node1(op, &[&x, &sx, &zx, &sy, &zy], attrs().int("channels_last", 0)).map(drop)
}

fn q_concat(b: &mut Build, op: Op) -> Option<()> {
    let dtype = *one(&mut b.r, BYTES);
    let x = b.ranked(&[dtype], 1, 4);
    let shape = b.shape(&x);
    let at = within(&mut b.r, 0, shape.len() - 1);
    let mut inputs = vec![scale(b), zero(b, dtype, &[]), x, scale(b), zero(b, dtype, &[])];
    if once_in(&mut b.r, 2) {
        let y = b.operand(dtype, &shape);
        inputs.extend([y, scale(b), zero(b, dtype, &[])]);
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    b.node1(op, &inputs, attrs().int("axis", at as i64)).map(drop)
}
