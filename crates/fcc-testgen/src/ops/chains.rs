//! Chains of operators that fcc computes as one, written out as exporters write them.
use super::control::function;
use super::linear::{conv_of, image};
use crate::build::Build;
use crate::draw::{once_in, one};
use crate::pb::attrs;
use fcc_ir::convert::from_f64s;
use fcc_ir::{DType, Op, Tensor};

/// A chain.
pub(super) type Chain = fn(&mut Build) -> Option<()>;

/// Every chain.
pub(super) const CHAINS: &[Chain] = &[
    gelu_erf,
    gelu_tanh,
    hard_swish,
    silu,
    layer_norm,
    rms_norm,
    conv_bn_relu,
    linear,
    qdq,
    bottleneck,
    softmax_chain,
    shapes,
    function,
    attention,
    scale_and_bias,
];

fn number(b: &mut Build, dtype: DType, v: f64) -> Option<String> {
    let shape = if once_in(&mut b.r, 3) { vec![1] } else { vec![] };
    from_f64s(dtype, shape, vec![v], Default::default()).ok().map(|t| b.constant(t))
}

/// A binary operator with its operands in either order.
fn either(b: &mut Build, op: Op, x: &str, y: &str) -> Option<String> {
    if once_in(&mut b.r, 2) { b.node1(op, &[x, y], attrs()) } else { b.node1(op, &[y, x], attrs()) }
}

fn start(b: &mut Build) -> String {
    if once_in(&mut b.r, 8) { b.any_of(&[DType::F64, DType::F16]) } else { b.ranked(&[DType::F32], 1, 4) }
}

fn gelu_erf(b: &mut Build) -> Option<()> {
    let x = start(b);
    let d = b.dtype(&x);
    let (root, one, half) = (number(b, d, 2f64.sqrt())?, number(b, d, 1.0)?, number(b, d, 0.5)?);
    let y = b.node1(Op::Div, &[&x, &root], attrs())?;
    let y = b.node1(Op::Erf, &[&y], attrs())?;
    let y = either(b, Op::Add, &y, &one)?;
    let y = either(b, Op::Mul, &x, &y)?;
    either(b, Op::Mul, &y, &half).map(drop)
}

fn gelu_tanh(b: &mut Build) -> Option<()> {
    let x = start(b);
    let d = b.dtype(&x);
    let three = number(b, d, 3.0)?;
    let cube = b.node1(Op::Pow, &[&x, &three], attrs())?;
    let k = number(b, d, 0.044715)?;
    let y = either(b, Op::Mul, &cube, &k)?;
    let y = either(b, Op::Add, &x, &y)?;
    let k = number(b, d, (2.0 / std::f64::consts::PI).sqrt())?;
    let y = either(b, Op::Mul, &y, &k)?;
    let y = b.node1(Op::Tanh, &[&y], attrs())?;
    let one = number(b, d, 1.0)?;
    let y = either(b, Op::Add, &y, &one)?;
    let half = number(b, d, 0.5)?;
    let h = either(b, Op::Mul, &x, &half)?;
    either(b, Op::Mul, &h, &y).map(drop)
}

fn hard_swish(b: &mut Build) -> Option<()> {
    let x = start(b);
    let d = b.dtype(&x);
    let (three, zero, six) =
        (number(b, d, 3.0)?, from_f64s(d, vec![], vec![0.0], Default::default()).ok()?, number(b, d, 6.0)?);
    let y = either(b, Op::Add, &x, &three)?;
    let y = match b.opset {
        ..11 => b.node1(Op::Clip, &[&y], attrs().float("min", 0.0).float("max", 6.0))?,
        _ => {
            let top = from_f64s(d, vec![], vec![6.0], Default::default()).ok()?;
            let (zero, top) = (b.constant(zero), b.constant(top));
            b.node1(Op::Clip, &[&y, &zero, &top], attrs())?
        }
    };
    let y = either(b, Op::Mul, &x, &y)?;
    b.node1(Op::Div, &[&y, &six], attrs()).map(drop)
}

fn silu(b: &mut Build) -> Option<()> {
    let x = start(b);
    let y = b.node1(Op::Sigmoid, &[&x], attrs())?;
    either(b, Op::Mul, &x, &y).map(drop)
}

fn mean(b: &mut Build, x: &str) -> Option<String> {
    if b.opset < 18 {
        return b.node1(Op::ReduceMean, &[x], attrs().ints("axes", &[-1]).int("keepdims", 1));
    }
    let axes = b.ints(&[-1]);
    b.node1(Op::ReduceMean, &[x, &axes], attrs())
}

fn layer_norm(b: &mut Build) -> Option<()> {
    if b.opset < 11 {
        return None;
    }
    let x = start(b);
    let (d, n) = (b.dtype(&x), *b.shape(&x).last()?);
    let mu = mean(b, &x)?;
    let c = b.node1(Op::Sub, &[&x, &mu], attrs())?;
    let two = number(b, d, 2.0)?;
    let square = if once_in(&mut b.r, 2) {
        b.node1(Op::Pow, &[&c, &two], attrs())?
    } else {
        b.node1(Op::Mul, &[&c, &c], attrs())?
    };
    let var = mean(b, &square)?;
    let eps = number(b, d, 1e-5)?;
    let y = either(b, Op::Add, &var, &eps)?;
    let y = b.node1(Op::Sqrt, &[&y], attrs())?;
    let y = b.node1(Op::Div, &[&c, &y], attrs())?;
    let of = if once_in(&mut b.r, 3) { vec![] } else { vec![n] };
    let (gamma, beta) = (b.weight_of(d, &of), b.weight_of(d, &[n]));
    let y = either(b, Op::Mul, &y, &gamma)?;
    either(b, Op::Add, &y, &beta).map(drop)
}

fn rms_norm(b: &mut Build) -> Option<()> {
    if b.opset < 11 {
        return None;
    }
    let x = start(b);
    let (d, n) = (b.dtype(&x), *b.shape(&x).last()?);
    let square = b.node1(Op::Mul, &[&x, &x], attrs())?;
    let y = mean(b, &square)?;
    let eps = number(b, d, 1e-6)?;
    let y = either(b, Op::Add, &y, &eps)?;
    let y = b.node1(Op::Sqrt, &[&y], attrs())?;
    let y = b.node1(Op::Reciprocal, &[&y], attrs())?;
    let y = either(b, Op::Mul, &x, &y)?;
    let of = if once_in(&mut b.r, 2) { vec![] } else { vec![n] };
    let gamma = b.weight_of(d, &of);
    either(b, Op::Mul, &y, &gamma).map(drop)
}

/// What stands behind a layer: a function of each number.
fn activation(b: &mut Build, x: &str) -> Option<String> {
    match b.r.below(6) {
        0 => b.node1(Op::Sigmoid, &[x], attrs()),
        1 => b.node1(Op::LeakyRelu, &[x], attrs().float("alpha", 0.1)),
        2 => b.node1(Op::Tanh, &[x], attrs()),
        3 => b.node1(Op::HardSwish, &[x], attrs()),
        _ => b.node1(Op::Relu, &[x], attrs()),
    }
}

fn conv_bn_relu(b: &mut Build) -> Option<()> {
    let x = image(b, &[DType::F32]);
    let y = conv_of(b, Op::Conv, &x)?;
    let m = b.shape(&y)[1];
    let mut y = y;
    if once_in(&mut b.r, 2) {
        let (scale, bias, mean) =
            (b.weight_of(DType::F32, &[m]), b.weight_of(DType::F32, &[m]), b.weight_of(DType::F32, &[m]));
        let v = (0..m).map(|_| *one(&mut b.r, &[1.0f32, 4.0, 0.25])).collect();
        let var = b.constant(Tensor::new(vec![m], v).ok()?);
        let a = attrs().when(b.opset < 7, |a| a.int("is_test", 1));
        y = b.node1(Op::BatchNormalization, &[&y, &scale, &bias, &mean, &var], a)?;
    }
    if once_in(&mut b.r, 2) {
        let shape = b.shape(&y);
        let other = b.operand(DType::F32, &shape);
        y = either(b, Op::Add, &y, &other)?;
    }
    activation(b, &y).map(drop)
}

fn linear(b: &mut Build) -> Option<()> {
    let x = b.ranked(&[DType::F32], 2, 4);
    let k = *b.shape(&x).last()?;
    let n = crate::draw::row(&mut b.r);
    let w = b.weight_of(DType::F32, &[k, n]);
    let y = b.node1(Op::MatMul, &[&x, &w], attrs())?;
    let of = *one(&mut b.r, &[0, 1, 2]);
    let of = [vec![n], vec![], vec![1, n]][of].clone();
    let bias = b.weight_of(DType::F32, &of);
    let mut y = if b.opset < 7 { y } else { either(b, Op::Add, &y, &bias)? };
    if once_in(&mut b.r, 2) {
        let shape = b.shape(&y);
        let other = b.operand(DType::F32, &shape);
        y = either(b, Op::Add, &y, &other)?;
    }
    activation(b, &y).map(drop)
}

fn qdq_of(b: &mut Build, x: &str, dtype: DType) -> Option<String> {
    let scale = b.constant(Tensor::scalar(0.125f32));
    let zero =
        from_f64s(dtype, vec![], vec![if dtype == DType::U8 { 128.0 } else { 0.0 }], Default::default())
            .ok()?;
    let zero = b.constant(zero);
    let q = b.node1(Op::QuantizeLinear, &[x, &scale, &zero], attrs())?;
    b.node1(Op::DequantizeLinear, &[&q, &scale, &zero], attrs())
}

fn qdq(b: &mut Build) -> Option<()> {
    let conv = once_in(&mut b.r, 2);
    let x = if conv { image(b, &[DType::F32]) } else { b.ranked(&[DType::F32], 2, 3) };
    let byte = *one(&mut b.r, &[DType::U8, DType::I8]);
    let x = qdq_of(b, &x, byte)?;
    let y = if conv {
        let (c, m) = (b.shape(&x)[1], *one(&mut b.r, &[1, 2, 4, 8]));
        let kernel = vec![1; b.shape(&x).len() - 2];
        let q = b.weight_of(DType::I8, &[vec![m, c], kernel].concat());
        let scale = b.constant(Tensor::scalar(0.0625f32));
        let w = b.node1(Op::DequantizeLinear, &[&q, &scale], attrs())?;
        b.node1(Op::Conv, &[&x, &w], attrs())?
    } else {
        let k = *b.shape(&x).last()?;
        let q = b.weight_of(DType::I8, &[k, 5]);
        let scale = b.constant(Tensor::scalar(0.0625f32));
        let w = b.node1(Op::DequantizeLinear, &[&q, &scale], attrs())?;
        b.node1(Op::MatMul, &[&x, &w], attrs())?
    };
    let y = if once_in(&mut b.r, 2) { b.node1(Op::Relu, &[&y], attrs())? } else { y };
    qdq_of(b, &y, byte).map(drop)
}

/// A value that is moved about and comes back into a product.
fn bottleneck(b: &mut Build) -> Option<()> {
    let x = image(b, &[DType::F32]);
    let shape = b.shape(&x);
    let rank = shape.len() as i64;
    let last: Vec<i64> = [0].into_iter().chain(2..rank).chain([1]).collect();
    let back: Vec<i64> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
    let y = b.node1(Op::Transpose, &[&x], attrs().ints("perm", &last))?;
    let w = b.weight_of(DType::F32, &[shape[1], shape[1]]);
    let y = b.node1(Op::MatMul, &[&y, &w], attrs())?;
    let y = activation(b, &y)?;
    let y = b.node1(Op::Transpose, &[&y], attrs().ints("perm", &back))?;
    let y = b.node1(Op::Add, &[&x, &y], attrs())?;
    b.node1(Op::Flatten, &[&y], attrs()).map(drop)
}

fn softmax_chain(b: &mut Build) -> Option<()> {
    let x = b.ranked(&[DType::F32], 2, 4);
    let k = number(b, DType::F32, 0.125)?;
    let y = either(b, Op::Mul, &x, &k)?;
    let shape = b.shape(&x);
    let mask = b.operand(DType::F32, &shape[1..]);
    let y = if b.opset < 7 { y } else { either(b, Op::Add, &y, &mask)? };
    let last = b.shape(&x).len() as i64 - 1;
    let y = b.node1(Op::Softmax, &[&y], attrs().int("axis", last))?;
    activation(b, &y).map(drop)
}

fn attention(b: &mut Build) -> Option<()> {
    let shape = [2, *one(&mut b.r, &[1, 3]), *one(&mut b.r, &[4, 5, 8]), *one(&mut b.r, &[4, 8, 9])];
    let [q, k, v] = [0; 3].map(|_| b.operand(DType::F32, &shape));
    let k = b.node1(Op::Transpose, &[&k], attrs().ints("perm", &[0, 1, 3, 2]))?;
    let y = b.node1(Op::MatMul, &[&q, &k], attrs())?;
    let scale = number(b, DType::F32, 2.0)?;
    let y = b.node1(Op::Div, &[&y, &scale], attrs().when(b.opset < 7, |a| a.int("broadcast", 1)))?;
    let y = b.node1(Op::Softmax, &[&y], attrs().int("axis", 3))?;
    let y = b.node1(Op::MatMul, &[&y, &v], attrs())?;
    let y = b.node1(Op::Transpose, &[&y], attrs().ints("perm", &[0, 2, 1, 3]))?;
    let target = b.ints(&[0, 0, -1]);
    b.node1(Op::Reshape, &[&y, &target], attrs()).map(drop)
}

/// A shape that is taken, computed with and given to Reshape.
fn shapes(b: &mut Build) -> Option<()> {
    let x = b.ranked(&[DType::F32], 2, 4);
    let shape = b.node1(Op::Shape, &[&x], attrs())?;
    let zero = if once_in(&mut b.r, 2) { b.constant(Tensor::scalar(0i64)) } else { b.ints(&[0]) };
    let n = b.node1(Op::Gather, &[&shape, &zero], attrs().int("axis", 0))?;
    let n = match b.shape(&n).len() {
        1 => n,
        _ if b.opset < 13 => b.node1(Op::Unsqueeze, &[&n], attrs().ints("axes", &[0]))?,
        _ => {
            let axes = b.ints(&[0]);
            b.node1(Op::Unsqueeze, &[&n, &axes], attrs())?
        }
    };
    let rest = b.ints(&[-1]);
    let target = b.node1(Op::Concat, &[&n, &rest], attrs().int("axis", 0))?;
    b.node1(Op::Reshape, &[&x, &target], attrs()).map(drop)
}

/// `(x - mean) * gamma + beta` with operands of every form of broadcasting.
fn scale_and_bias(b: &mut Build) -> Option<()> {
    if b.opset < 7 {
        return None;
    }
    let mut y = b.ranked(&[DType::F32], 1, 5);
    for _ in 0..3 {
        let op = *one(&mut b.r, &[Op::Add, Op::Sub, Op::Mul, Op::Div, Op::Max, Op::Min]);
        let shape = b.shape(&y);
        let small = crate::draw::broadcast_of(&mut b.r, &shape);
        let other = if once_in(&mut b.r, 2) {
            b.weight_of(DType::F32, &small)
        } else {
            b.operand(DType::F32, &small)
        };
        y = either(b, op, &y, &other)?;
        if once_in(&mut b.r, 3) {
            y = activation(b, &y)?;
        }
    }
    Some(())
}
