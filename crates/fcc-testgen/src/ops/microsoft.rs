//! Operators of `com.microsoft` (and the one that ONNX Runtime has in `ai.onnx`), beside the quantised ones.
use super::elementwise::floats;
use super::linear::{groups, image, window};
use super::quant::scales;
use super::{FLOATS, NUMBERS, Named};
use crate::build::Build;
use crate::draw::{self, once_in, one, within};
use crate::pb::attrs;
use fcc_ir::{DType, Op, Tensor};

const MS: &str = "com.microsoft";

pub(super) const TABLE: &[Named] = &[
    (MS, "Attention", attention),
    (MS, "BiasGelu", bias_gelu),
    (MS, "DequantizeLinear", dequantize),
    (MS, "EmbedLayerNormalization", embed),
    (MS, "ExpandDims", expand_dims),
    (MS, "FastGelu", fast_gelu),
    (MS, "FusedConv", fused_conv),
    (MS, "FusedGemm", fused_gemm),
    (MS, "FusedMatMul", fused_matmul),
    (MS, "GatherND", gather_nd),
    (MS, "Gelu", quick_gelu),
    (MS, "GridSample", grid_sample),
    (MS, "GroupQueryAttention", group_query),
    (MS, "Inverse", inverse),
    (MS, "MatMulNBits", matmul_nbits),
    (MS, "MultiHeadAttention", multi_head),
    (MS, "NhwcConv", nhwc_conv),
    (MS, "Pad", pad),
    (MS, "QLinearConv", q_conv),
    (MS, "QLinearSoftmax", q_softmax),
    (MS, "QLinearWhere", q_where),
    (MS, "QuantizeLinear", quantize),
    (MS, "QuickGelu", quick_gelu),
    (MS, "Range", range),
    (MS, "RotaryEmbedding", rotary),
    (MS, "SimplifiedLayerNormalization", simplified),
    (MS, "SkipLayerNormalization", skip),
    (MS, "SkipSimplifiedLayerNormalization", skip),
    (MS, "TransposeMatMul", fused_matmul),
    (MS, "Trilu", trilu),
    (MS, "UnfoldTensor", unfold),
    (MS, "Unique", unique),
    ("", "SimplifiedLayerNormalization", simplified),
];

fn last(b: &Build, x: &str) -> usize {
    b.shape(x).last().copied().unwrap_or(1)
}

fn bias_gelu(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(&[DType::F32], 1, 4);
    let bias = {
        let n = last(b, &x);
        b.weight_of(DType::F32, &[n])
    };
    b.node1(op, &[&x, &bias], attrs()).map(drop)
}

fn fast_gelu(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(&[DType::F32], 1, 4);
    let bias = if once_in(&mut b.r, 2) {
        {
            let n = last(b, &x);
            b.weight_of(DType::F32, &[n])
        }
    } else {
        String::new()
    };
    b.node1(op, &[&x, &bias], attrs()).map(drop)
}

fn quick_gelu(b: &mut Build, op: Op) -> Option<()> {
    let x = b.any_of(&[DType::F32]);
    let quick = op.schema()?.name == "QuickGelu";
    let a = attrs().when(quick && once_in(&mut b.r, 2), |a| a.float("alpha", 1.0));
    b.node1(op, &[&x], a).map(drop)
}

fn simplified(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(&FLOATS[..2], 1, 4);
    let (dtype, n) = (b.dtype(&x), last(b, &x));
    let scale = b.weight_of(dtype, &[n]);
    b.node1(op, &[&x, &scale], attrs().int("axis", -1).float("epsilon", 1e-5)).map(drop)
}

fn skip(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(&[DType::F32], 3, 3);
    let n = last(b, &x);
    let shape = b.shape(&x);
    let other = b.operand(DType::F32, &shape);
    let gamma = b.weight_of(DType::F32, &[n]);
    let beta = if once_in(&mut b.r, 2) { b.weight_of(DType::F32, &[n]) } else { String::new() };
    b.node1(op, &[&x, &other, &gamma, &beta], attrs().float("epsilon", 1e-5)).map(drop)
}

fn fused_matmul(b: &mut Build, op: Op) -> Option<()> {
    let [m, k, n] = [draw::extent(&mut b.r), draw::extent(&mut b.r), draw::row(&mut b.r)];
    let (ta, tb) = (once_in(&mut b.r, 2), once_in(&mut b.r, 2));
    let batch: Vec<usize> = (0..within(&mut b.r, 0, 1)).map(|_| 2).collect();
    let of = |t: bool, i: usize, j: usize| [batch.clone(), if t { vec![j, i] } else { vec![i, j] }].concat();
    let (x, y) = (b.operand(DType::F32, &of(ta, m, k)), b.weight_of(DType::F32, &of(tb, k, n)));
    let a = attrs().when(ta, |a| a.int("transA", 1)).when(tb, |a| a.int("transB", 1));
    let a = a.when(once_in(&mut b.r, 2), |a| a.float("alpha", 0.5));
    b.node1(op, &[&x, &y], a).map(drop)
}

fn fused_gemm(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(&[DType::F32], 2, 2);
    let (k, n) = (last(b, &x), draw::row(&mut b.r));
    let (w, c) = (b.weight_of(DType::F32, &[k, n]), b.weight_of(DType::F32, &[n]));
    let how = *one(&mut b.r, &["Relu", "Sigmoid", "Tanh"]);
    b.node1(op, &[&x, &w, &c], attrs().str("activation", how)).map(drop)
}

fn fused_conv(b: &mut Build, op: Op) -> Option<()> {
    let x = image(b, &[DType::F32]);
    let shape = b.shape(&x);
    let w = window(b, &shape[2..], true);
    let g = groups(b, shape[1]);
    let weight = b.weight_of(DType::F32, &[vec![2 * g, shape[1] / g], w.kernel].concat());
    let bias = b.weight_of(DType::F32, &[2 * g]);
    let how = *one(&mut b.r, &["Relu", "Sigmoid", "Tanh"]);
    b.node1(op, &[&x, &weight, &bias], w.attrs.int("group", g as i64).str("activation", how)).map(drop)
}

fn nhwc_conv(b: &mut Build, op: Op) -> Option<()> {
    let [n, h, w, c, m] = [0; 5].map(|_| within(&mut b.r, 1, 5));
    let x = b.operand(DType::F32, &[n, h, w, c]);
    let window = window(b, &[h, w], true);
    let weight = b.weight_of(DType::F32, &[vec![m, c], window.kernel].concat());
    b.node1(op, &[&x, &weight], window.attrs).map(drop)
}

fn expand_dims(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(&[DType::F32, DType::I64], 0, 4);
    let rank = b.shape(&x).len();
    let axis = within(&mut b.r, 0, rank) as i32;
    let axis = b.constant(Tensor::scalar(axis));
    b.node1(op, &[&x, &axis], attrs()).map(drop)
}

fn inverse(b: &mut Build, op: Op) -> Option<()> {
    let n = within(&mut b.r, 1, 4);
    // far from singular: a large diagonal
    let v: Vec<f32> =
        (0..n * n).map(|i| b.r.unit() as f32 + if i % (n + 1) == 0 { 2.0 * n as f32 } else { 0.0 }).collect();
    let x = b.fresh(Tensor::new(vec![n, n], v).ok()?);
    b.node1(op, &[&x], attrs()).map(drop)
}

fn matmul_nbits(b: &mut Build, op: Op) -> Option<()> {
    let (bits, block) = (*one(&mut b.r, &[4, 8]), *one(&mut b.r, &[16, 32]));
    let (k, n) = (within(&mut b.r, 1, 40), within(&mut b.r, 1, 9));
    let blocks = k.div_ceil(block);
    let m = within(&mut b.r, 1, 3);
    let x = b.operand(DType::F32, &[m, k]);
    let q = b.weight_of(DType::U8, &[n, blocks, block * bits / 8]);
    let s = scales(b, &[n, blocks]);
    let a = attrs()
        .int("K", k as i64)
        .int("N", n as i64)
        .int("bits", bits as i64)
        .int("block_size", block as i64);
    b.node1(op, &[&x, &q, &s], a).map(drop)
}

fn quantize(b: &mut Build, op: Op) -> Option<()> {
    let x = b.any_of(&[DType::F32]);
    let s = scales(b, &[]);
    let z = b.constant(Tensor::scalar(3u8));
    b.node1(op, &[&x, &s, &z], attrs()).map(drop)
}

fn dequantize(b: &mut Build, op: Op) -> Option<()> {
    let x = b.any_of(&[DType::U8, DType::I8, DType::I32]);
    let s = scales(b, &[]);
    b.node1(op, &[&x, &s], attrs()).map(drop)
}

fn q_softmax(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(&[DType::U8], 1, 3);
    let (s, t) = (scales(b, &[]), scales(b, &[]));
    let z = b.constant(Tensor::scalar(0u8));
    b.node1(op, &[&x, &s, &z, &t, &z], attrs().int("opset", 13).int("axis", -1)).map(drop)
}

fn q_where(b: &mut Build, op: Op) -> Option<()> {
    let (x, y) = super::elementwise::pair(b, &[DType::U8]);
    let condition = b.operand(DType::Bool, &[1]);
    let [sx, sy, sz] = [0; 3].map(|_| scales(b, &[]));
    let z = b.constant(Tensor::scalar(2u8));
    b.node1(op, &[&condition, &x, &sx, &z, &y, &sy, &z, &sz, &z], attrs()).map(drop)
}

fn q_conv(b: &mut Build, op: Op) -> Option<()> {
    let x = image(b, &[DType::U8]);
    let shape = b.shape(&x);
    let w = window(b, &shape[2..], false);
    let weight = b.weight_of(DType::I8, &[vec![2, shape[1]], w.kernel].concat());
    let [sx, sw, sy] = [0; 3].map(|_| scales(b, &[]));
    let (z, zw) = (b.constant(Tensor::scalar(2u8)), b.constant(Tensor::scalar(0i8)));
    b.node1(op, &[&x, &sx, &z, &weight, &sw, &zw, &sy, &z], w.attrs).map(drop)
}

fn gather_nd(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(NUMBERS, 1, 3);
    if b.tensor_of(&x).is_empty() {
        return None;
    }
    let shape = b.shape(&x);
    let at: Vec<i64> = shape.iter().map(|n| b.r.below(*n as u64) as i64).collect();
    let at = b.constant(Tensor::new(vec![1, at.len()], at).ok()?);
    b.node1(op, &[&x, &at], attrs()).map(drop)
}

fn grid_sample(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(&[DType::F32], 4, 4);
    let n = b.shape(&x)[0];
    let grid = b.operand(DType::F32, &[n, 2, 3, 2]);
    b.node1(op, &[&x, &grid], attrs().str("mode", "bilinear")).map(drop)
}

fn pad(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(&[DType::F32], 1, 4);
    let rank = b.shape(&x).len();
    let pads: Vec<i64> = (0..2 * rank).map(|_| b.r.below(3) as i64).collect();
    let pads = b.ints(&pads);
    b.node1(op, &[&x, &pads], attrs()).map(drop)
}

fn range(b: &mut Build, op: Op) -> Option<()> {
    let (start, limit) = (b.constant(Tensor::scalar(2i64)), b.constant(Tensor::scalar(9i64)));
    b.node1(op, &[&start, &limit], attrs()).map(drop)
}

fn trilu(b: &mut Build, op: Op) -> Option<()> {
    let types = floats(b);
    let x = b.ranked(types, 2, 4);
    let a = attrs().when(once_in(&mut b.r, 2), |a| a.int("upper", 0));
    b.node1(op, &[&x], a).map(drop)
}

fn unfold(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(&[DType::F32, DType::I64], 1, 3);
    let most = last(b, &x).clamp(1, 4);
    let size = within(&mut b.r, 1, most) as i64;
    let step = within(&mut b.r, 1, 3) as i64;
    b.node1(op, &[&x], attrs().int("dim", -1).int("size", size).int("step", step)).map(drop)
}

fn unique(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(&[DType::F32], 1, 1);
    b.node(op, &[&x], attrs(), 3).map(drop)
}

fn multi_head(b: &mut Build, op: Op) -> Option<()> {
    let [n, s, t, h, d] = [0; 5].map(|_| within(&mut b.r, 1, 4));
    let q = b.operand(DType::F32, &[n, s, h * d]);
    let (k, v) = (b.operand(DType::F32, &[n, t, h * d]), b.operand(DType::F32, &[n, t, h * d]));
    let bias = if once_in(&mut b.r, 2) { b.weight_of(DType::F32, &[3 * h * d]) } else { String::new() };
    b.node1(op, &[&q, &k, &v, &bias], attrs().int("num_heads", h as i64)).map(drop)
}

fn attention(b: &mut Build, op: Op) -> Option<()> {
    let [n, s, h, d] = [0; 4].map(|_| within(&mut b.r, 1, 4));
    let size = within(&mut b.r, 1, 5);
    let x = b.operand(DType::F32, &[n, s, size]);
    let (w, bias) = (b.weight_of(DType::F32, &[size, 3 * h * d]), b.weight_of(DType::F32, &[3 * h * d]));
    let a = attrs().int("num_heads", h as i64).when(once_in(&mut b.r, 2), |a| a.int("unidirectional", 1));
    b.node1(op, &[&x, &w, &bias], a).map(drop)
}

fn group_query(b: &mut Build, op: Op) -> Option<()> {
    let [n, s, kv] = [0; 3].map(|_| within(&mut b.r, 1, 3));
    let (h, d) = (kv * within(&mut b.r, 1, 2), 8);
    let q = b.operand(DType::F32, &[n, s, h * d]);
    let (k, v) = (b.operand(DType::F32, &[n, s, kv * d]), b.operand(DType::F32, &[n, s, kv * d]));
    let lens = b.constant(Tensor::new(vec![n], vec![s as i32 - 1; n]).ok()?);
    let total = b.constant(Tensor::scalar(s as i32));
    let a = attrs().int("num_heads", h as i64).int("kv_num_heads", kv as i64);
    b.node(op, &[&q, &k, &v, "", "", &lens, &total], a, 3).map(drop)
}

fn rotary(b: &mut Build, op: Op) -> Option<()> {
    let [n, s, h, half] = [0; 4].map(|_| within(&mut b.r, 1, 3));
    let x = b.operand(DType::F32, &[n, h, s, 2 * half]);
    let (cos, sin) = (b.weight_of(DType::F32, &[8, half]), b.weight_of(DType::F32, &[8, half]));
    let at = b.constant(Tensor::from_i64s(vec![2]));
    let a = attrs().when(once_in(&mut b.r, 2), |a| a.int("interleaved", 1));
    b.node1(op, &[&x, &at, &cos, &sin], a).map(drop)
}

fn embed(b: &mut Build, op: Op) -> Option<()> {
    let [n, s, size] = [0; 3].map(|_| within(&mut b.r, 1, 4));
    let ids: Vec<i32> = (0..n * s).map(|_| b.r.below(5) as i32).collect();
    let ids = b.fresh(Tensor::new(vec![n, s], ids).ok()?);
    let (words, places) = (b.weight_of(DType::F32, &[5, size]), b.weight_of(DType::F32, &[s, size]));
    let (gamma, beta) = (b.weight_of(DType::F32, &[size]), b.weight_of(DType::F32, &[size]));
    b.node(op, &[&ids, "", &words, &places, "", &gamma, &beta], attrs(), 1).map(drop)
}
