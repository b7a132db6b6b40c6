//! Recurrent layers, attention, and what stands beside them in sequence models.
use super::Make;
use super::elementwise::floats;
use crate::build::Build;
use crate::draw::{once_in, one, within};
use crate::pb::attrs;
use fcc_ir::{DType, Op, Tensor};

pub(super) const TABLE: &[(Op, Make)] = &[
    (Op::Attention, attention),
    (Op::CausalConvWithState, causal_conv),
    (Op::DynamicQuantizeLSTM, dynamic_lstm),
    (Op::FlexAttention, flex_attention),
    (Op::GRU, recurrent),
    (Op::LSTM, recurrent),
    (Op::LinearAttention, linear_attention),
    (Op::RNN, recurrent),
    (Op::RotaryEmbedding, rotary),
    (Op::SwiGLU, swiglu),
];

fn recurrent(b: &mut Build, op: Op) -> Option<()> {
    let gates = match op {
        Op::RNN => 1,
        Op::GRU => 3,
        _ => 4,
    };
    let types = if once_in(&mut b.r, 4) { floats(b) } else { &[DType::F32] };
    let dtype = b.one_type(types);
    let direction = *one(&mut b.r, &["forward", "forward", "reverse", "bidirectional"]);
    let d = if direction == "bidirectional" { 2 } else { 1 };
    let (steps, batch, size) = (within(&mut b.r, 1, 4), within(&mut b.r, 1, 3), within(&mut b.r, 1, 9));
    let hidden = *one(&mut b.r, &[1, 2, 3, 4, 5, 8, 9, 16, 17]);
    let turned = b.opset >= 14 && once_in(&mut b.r, 4);
    let x = b.operand(dtype, &if turned { [batch, steps, size] } else { [steps, batch, size] });
    let w = b.weight_of(dtype, &[d, gates * hidden, size]);
    let r = b.weight_of(dtype, &[d, gates * hidden, hidden]);
    let bias =
        if once_in(&mut b.r, 2) { b.weight_of(dtype, &[d, 2 * gates * hidden]) } else { String::new() };
    let lens: Vec<i32> = (0..batch).map(|_| within(&mut b.r, 1, steps) as i32).collect();
    let lens =
        if once_in(&mut b.r, 3) { b.constant(Tensor::new(vec![batch], lens).ok()?) } else { String::new() };
    let state = if turned { [batch, d, hidden] } else { [d, batch, hidden] };
    let first = if once_in(&mut b.r, 2) { b.operand(dtype, &state) } else { String::new() };
    let mut inputs = vec![x, w, r, bias, lens, first];
    if op == Op::LSTM {
        inputs.push(if once_in(&mut b.r, 2) { b.operand(dtype, &state) } else { String::new() });
        inputs.push(if once_in(&mut b.r, 4) { b.weight_of(dtype, &[d, 3 * hidden]) } else { String::new() });
    }
    let functions: Vec<&str> = match op {
        Op::RNN => vec![*one(&mut b.r, &["Tanh", "Relu", "Sigmoid"]); d],
        Op::GRU => [*one(&mut b.r, &["Sigmoid", "HardSigmoid"]), "Tanh"].repeat(d),
        _ => ["Sigmoid", "Tanh", *one(&mut b.r, &["Tanh", "Relu"])].repeat(d),
    };
    let a = attrs().int("hidden_size", hidden as i64);
    let a = a.when(direction != "forward", |a| a.str("direction", direction));
    let a = a.when(turned, |a| a.int("layout", 1));
    let a = a.when(once_in(&mut b.r, 3), |a| a.strs("activations", &functions));
    let a = a.when(once_in(&mut b.r, 6), |a| a.float("clip", 0.5));
    let a =
        a.when(op == Op::GRU && b.opset >= 3 && once_in(&mut b.r, 2), |a| a.int("linear_before_reset", 1));
    let a = a.when(op == Op::LSTM && once_in(&mut b.r, 6), |a| a.int("input_forget", 1));
    let mut wanted = match op {
        Op::LSTM => one(
            &mut b.r,
            &[[true, true, true], [true, false, false], [false, true, false], [false, false, true]],
        )
        .to_vec(),
        _ => one(&mut b.r, &[[true, true], [true, false], [false, true]]).to_vec(),
    };
    while wanted.last() == Some(&false) {
        wanted.pop();
    }
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    b.node_with(op, &inputs, a, &wanted).map(drop)
}

fn dynamic_lstm(b: &mut Build, op: Op) -> Option<()> {
    let (steps, batch, size, hidden) =
        (within(&mut b.r, 1, 3), within(&mut b.r, 1, 2), within(&mut b.r, 1, 5), within(&mut b.r, 1, 9));
    let x = b.operand(DType::F32, &[steps, batch, size]);
    let w = b.weight_of(DType::I8, &[1, size, 4 * hidden]);
    let r = b.weight_of(DType::I8, &[1, hidden, 4 * hidden]);
    let (sw, sr) = (super::quant::scales(b, &[1]), super::quant::scales(b, &[1]));
    let zero = b.constant(Tensor::new(vec![1], vec![0i8]).ok()?);
    let inputs = [&x, &w, &r, "", "", "", "", "", &sw, &zero, &sr, &zero];
    b.node(op, &inputs, attrs().int("hidden_size", hidden as i64), 3).map(drop)
}

fn attention(b: &mut Build, op: Op) -> Option<()> {
    let types = if once_in(&mut b.r, 3) { floats(b) } else { &[DType::F32] };
    let dtype = b.one_type(types);
    let [n, kv, s, t] = [0; 4].map(|_| within(&mut b.r, 1, 4));
    let (group, d, dv) =
        (within(&mut b.r, 1, 2), *one(&mut b.r, &[1, 2, 4, 8, 9]), *one(&mut b.r, &[1, 3, 8]));
    let h = kv * group;
    let packed = once_in(&mut b.r, 3);
    let of = |heads: usize, len: usize, size: usize| match packed {
        true => vec![n, len, heads * size],
        false => vec![n, heads, len, size],
    };
    let (q, k, v) =
        (b.operand(dtype, &of(h, s, d)), b.operand(dtype, &of(kv, t, d)), b.operand(dtype, &of(kv, t, dv)));
    let mask = match b.r.below(4) {
        0 => b.operand(DType::Bool, &[s, t]),
        1 => b.operand(dtype, &[n, 1, s, t]),
        _ => String::new(),
    };
    let past = mask.is_empty() && once_in(&mut b.r, 4);
    let (pk, pv) = match past {
        true => (b.operand(dtype, &[n, kv, 2, d]), b.operand(dtype, &[n, kv, 2, dv])),
        false => (String::new(), String::new()),
    };
    let a = attrs().when(packed, |a| a.int("q_num_heads", h as i64).int("kv_num_heads", kv as i64));
    let a = a.when(once_in(&mut b.r, 3), |a| a.int("is_causal", 1));
    let a = a.when(once_in(&mut b.r, 4), |a| a.float("scale", 0.5));
    let a = a.when(once_in(&mut b.r, 6), |a| a.float("softcap", 3.0));
    let mode = b.r.below(4) as i64;
    let (a, outputs) = match b.r.below(4) {
        0 if past => (a, 3),
        1 if past => (a.int("qk_matmul_output_mode", mode), 4),
        _ => (a, 1),
    };
    b.node(op, &[&q, &k, &v, &mask, &pk, &pv], a, outputs).map(drop)
}

fn flex_attention(b: &mut Build, op: Op) -> Option<()> {
    let [n, kv, s, t, d] = [0; 5].map(|_| within(&mut b.r, 1, 4));
    let h = kv * within(&mut b.r, 1, 2);
    let q = b.operand(DType::F32, &[n, h, s, d]);
    let (k, v) = (b.operand(DType::F32, &[n, kv, t, d]), b.operand(DType::F32, &[n, kv, t, d]));
    b.node1(op, &[&q, &k, &v], attrs()).map(drop)
}

fn linear_attention(b: &mut Build, op: Op) -> Option<()> {
    let [n, kv, t, dk, dv] = [0; 5].map(|_| within(&mut b.r, 1, 3));
    let h = kv * within(&mut b.r, 1, 2);
    let q = b.operand(DType::F32, &[n, t, h * dk]);
    let (k, v) = (b.operand(DType::F32, &[n, t, kv * dk]), b.operand(DType::F32, &[n, t, kv * dv]));
    let past = if once_in(&mut b.r, 2) { b.operand(DType::F32, &[n, kv, dk, dv]) } else { String::new() };
    let rule = *one(&mut b.r, &["linear", "gated", "delta", "gated_delta"]);
    let decay = if rule.starts_with("gated") { b.operand(DType::F32, &[n, t, kv]) } else { String::new() };
    let beta = if rule.ends_with("delta") { b.operand(DType::F32, &[n, t, kv]) } else { String::new() };
    let a = attrs().int("q_num_heads", h as i64).int("kv_num_heads", kv as i64).str("update_rule", rule);
    b.node(op, &[&q, &k, &v, &past, &decay, &beta], a, 2).map(drop)
}

fn causal_conv(b: &mut Build, op: Op) -> Option<()> {
    let [n, c, t, k] = [0; 4].map(|_| within(&mut b.r, 1, 4));
    let (x, w) = (b.operand(DType::F32, &[n, c, t]), b.weight_of(DType::F32, &[c, 1, k]));
    let bias = if once_in(&mut b.r, 2) { b.weight_of(DType::F32, &[c]) } else { String::new() };
    let past = if once_in(&mut b.r, 2) { b.operand(DType::F32, &[n, c, k - 1]) } else { String::new() };
    let how = *one(&mut b.r, &["none", "silu"]);
    b.node(op, &[&x, &w, &bias, &past], attrs().str("activation", how), 2).map(drop)
}

fn rotary(b: &mut Build, op: Op) -> Option<()> {
    let [n, h, s, half] = [0; 4].map(|_| within(&mut b.r, 1, 4));
    let dtype = b.one_type(&[DType::F32, DType::F16]);
    let packed = once_in(&mut b.r, 2);
    let x = b.operand(dtype, &if packed { vec![n, s, h * 2 * half] } else { vec![n, h, s, 2 * half] });
    let a = attrs().when(packed, |a| a.int("num_heads", h as i64));
    let a = a.when(once_in(&mut b.r, 2), |a| a.int("interleaved", 1));
    if once_in(&mut b.r, 2) {
        let (cos, sin) = (b.weight_of(dtype, &[n, s, half]), b.weight_of(dtype, &[n, s, half]));
        return b.node1(op, &[&x, &cos, &sin], a).map(drop);
    }
    let (cos, sin) = (b.weight_of(dtype, &[8, half]), b.weight_of(dtype, &[8, half]));
    let at: Vec<i64> = (0..n * s).map(|_| b.r.below(8) as i64).collect();
    let at = b.constant(Tensor::new(vec![n, s], at).ok()?);
    b.node1(op, &[&x, &cos, &sin, &at], a).map(drop)
}

fn swiglu(b: &mut Build, op: Op) -> Option<()> {
    let types = floats(b);
    let x = b.any_of(types);
    let (dtype, shape) = (b.dtype(&x), b.shape(&x));
    let y = b.operand(dtype, &shape);
    let a = attrs().when(once_in(&mut b.r, 2), |a| a.float("alpha", 1.5));
    b.node1(op, &[&x, &y], a).map(drop)
}
