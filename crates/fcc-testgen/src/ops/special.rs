//! Signals, strings, training, features: operators that few models have.
use super::{Make, NUMBERS};
use crate::build::Build;
use crate::draw::{once_in, one, within};
use crate::pb::attrs;
use fcc_ir::{DType, Op, Tensor};

pub(super) const TABLE: &[(Op, Make)] = &[
    (Op::Adagrad, optimizer),
    (Op::Adam, optimizer),
    (Op::ArrayFeatureExtractor, extract),
    (Op::Binarizer, binarize),
    (Op::BitCast, bit_cast),
    (Op::BlackmanWindow, window),
    (Op::DFT, dft),
    (Op::HammingWindow, window),
    (Op::HannWindow, window),
    (Op::LabelEncoder, label),
    (Op::MelWeightMatrix, mel),
    (Op::Momentum, optimizer),
    (Op::NegativeLogLikelihoodLoss, loss),
    (Op::RegexFullMatch, regex),
    (Op::STFT, stft),
    (Op::SoftmaxCrossEntropyLoss, loss),
    (Op::StringConcat, string_concat),
    (Op::StringNormalizer, string_normalize),
    (Op::StringSplit, string_split),
    (Op::TfIdfVectorizer, tf_idf),
    (Op::TreeEnsemble, trees),
];

fn optimizer(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(&[DType::F32, DType::F64], 1, 3);
    let (dtype, shape) = (b.dtype(&x), b.shape(&x));
    let (rate, step) = (b.constant(Tensor::scalar(0.1f32)), b.constant(Tensor::scalar(3i64)));
    let states = if op == Op::Adam { 2 } else { 1 };
    let mut inputs = vec![rate, step, x];
    inputs.extend((0..1 + states).map(|_| b.operand(dtype, &shape)));
    let inputs: Vec<&str> = inputs.iter().map(String::as_str).collect();
    let a = match op {
        Op::Momentum => attrs()
            .float("alpha", 0.9)
            .float("beta", 1.0)
            .str("mode", "nesterov")
            .float("norm_coefficient", 0.01),
        Op::Adam => attrs().float("alpha", 0.9).float("beta", 0.99),
        _ => attrs().float("decay_factor", 0.1),
    };
    b.node(op, &inputs, a, 1 + states).map(drop)
}

fn extract(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(&[DType::F32, DType::F64, DType::I64, DType::I32, DType::String], 2, 2);
    let n = b.shape(&x)[1].max(1);
    let at: Vec<i64> = (0..within(&mut b.r, 1, 3)).map(|_| b.r.below(n as u64) as i64).collect();
    let at = b.ints(&at);
    b.node1(op, &[&x, &at], attrs()).map(drop)
}

fn binarize(b: &mut Build, op: Op) -> Option<()> {
    let x = b.any_of(&[DType::F32, DType::F64, DType::I64, DType::I32]);
    let a = attrs().when(once_in(&mut b.r, 2), |a| a.float("threshold", 0.5));
    b.node1(op, &[&x], a).map(drop)
}

fn label(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(&[DType::I64], 1, 2);
    let a = match b.domains.get("ai.onnx.ml") {
        Some(2..) => {
            attrs().ints("keys_int64s", &[0, 1, 2, -1]).floats("values_floats", &[0.5, 1.5, -2.0, 7.0])
        }
        _ => attrs().strs("classes_strings", &["a", "b", "c"]),
    };
    b.node1(op, &[&x], a).map(drop)
}

fn bit_cast(b: &mut Build, op: Op) -> Option<()> {
    let x = b.any_of(NUMBERS);
    let to = match b.dtype(&x).bits() {
        8 => [DType::U8, DType::I8],
        16 => [DType::BF16, DType::U16],
        32 => [DType::F32, DType::I32],
        _ => [DType::F64, DType::U64],
    };
    let to = *one(&mut b.r, &to);
    b.node1(op, &[&x], attrs().int("to", to as i64)).map(drop)
}

fn window(b: &mut Build, op: Op) -> Option<()> {
    let n = within(&mut b.r, 1, 20) as i64;
    let n = b.constant(Tensor::scalar(n));
    let periodic = b.r.below(2) as i64;
    b.node1(op, &[&n], attrs().int("periodic", periodic)).map(drop)
}

fn dft(b: &mut Build, op: Op) -> Option<()> {
    let [n, t, c] = [within(&mut b.r, 1, 3), within(&mut b.r, 1, 9), within(&mut b.r, 1, 2)];
    let dtype = b.one_type(&[DType::F32, DType::F64]);
    let x = b.operand(dtype, &[n, t, c]);
    let onesided = c == 1 && once_in(&mut b.r, 2);
    let a = attrs().when(onesided, |a| a.int("onesided", 1));
    let a = a.when(!onesided && once_in(&mut b.r, 3), |a| a.int("inverse", 1));
    if b.opset < 20 {
        return b.node1(op, &[&x], a.int("axis", 1)).map(drop);
    }
    let axis = b.constant(Tensor::scalar(1i64));
    b.node1(op, &[&x, "", &axis], a).map(drop)
}

fn stft(b: &mut Build, op: Op) -> Option<()> {
    let (frame, step) = (within(&mut b.r, 2, 6), within(&mut b.r, 1, 4));
    let n = within(&mut b.r, frame, frame + 12);
    let x = b.operand(DType::F32, &[2, n, 1]);
    let (step, length) = (b.constant(Tensor::scalar(step as i64)), b.constant(Tensor::scalar(frame as i64)));
    let window = if once_in(&mut b.r, 2) { b.weight_of(DType::F32, &[frame]) } else { String::new() };
    let onesided = b.r.below(2) as i64;
    b.node1(op, &[&x, &step, &window, &length], attrs().int("onesided", onesided)).map(drop)
}

fn mel(b: &mut Build, op: Op) -> Option<()> {
    let bins = within(&mut b.r, 1, 6) as i64;
    let (bins, length, rate) = (
        b.constant(Tensor::scalar(bins)),
        b.constant(Tensor::scalar(32i64)),
        b.constant(Tensor::scalar(8000i64)),
    );
    let (low, high) = (b.constant(Tensor::scalar(0f32)), b.constant(Tensor::scalar(4000f32)));
    b.node1(op, &[&bins, &length, &rate, &low, &high], attrs()).map(drop)
}

fn loss(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(&[DType::F32, DType::F64], 2, 4);
    let (dtype, shape) = (b.dtype(&x), b.shape(&x));
    let c = shape[1];
    let of: Vec<usize> = [shape[0]].into_iter().chain(shape[2..].iter().copied()).collect();
    let n: usize = of.iter().product();
    if c == 0 {
        return None;
    }
    let labels: Vec<i64> = (0..n).map(|_| b.r.below(c as u64) as i64).collect();
    let labels = b.fresh(Tensor::new(of, labels).ok()?);
    let weight = if once_in(&mut b.r, 2) { b.weight_of(dtype, &[c]) } else { String::new() };
    let how = *one(&mut b.r, &["mean", "sum", "none"]);
    let a = attrs().str("reduction", how).when(once_in(&mut b.r, 3), |a| a.int("ignore_index", 0));
    let outputs = if op == Op::SoftmaxCrossEntropyLoss { within(&mut b.r, 1, 2) } else { 1 };
    b.node(op, &[&x, &labels, &weight], a, outputs).map(drop)
}

fn string_concat(b: &mut Build, op: Op) -> Option<()> {
    let (x, y) = super::elementwise::pair(b, &[DType::String]);
    b.node1(op, &[&x, &y], attrs()).map(drop)
}

fn string_split(b: &mut Build, op: Op) -> Option<()> {
    let x = b.any_of(&[DType::String]);
    let by = *one(&mut b.r, &["", "a", " "]);
    let a = attrs().str("delimiter", by).when(once_in(&mut b.r, 2), |a| a.int("maxsplit", 1));
    b.node(op, &[&x], a, 2).map(drop)
}

fn string_normalize(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(&[DType::String], 1, 1);
    let how = *one(&mut b.r, &["LOWER", "UPPER", "NONE"]);
    let a = attrs()
        .str("case_change_action", how)
        .when(once_in(&mut b.r, 2), |a| a.strs("stopwords", &["a", "b"]));
    b.node1(op, &[&x], a.int("is_case_sensitive", 1)).map(drop)
}

fn regex(b: &mut Build, op: Op) -> Option<()> {
    let x = b.any_of(&[DType::String]);
    b.node1(op, &[&x], attrs().str("pattern", "[a-m]+")).map(drop)
}

fn tf_idf(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(&[DType::I64, DType::I32], 1, 2);
    let mode = *one(&mut b.r, &["TF", "IDF", "TFIDF"]);
    let a = attrs()
        .str("mode", mode)
        .int("min_gram_length", 1)
        .int("max_gram_length", 2)
        .int("max_skip_count", 1)
        .ints("ngram_counts", &[0, 3])
        .ints("ngram_indexes", &[0, 1, 2, 3])
        .ints("pool_int64s", &[0, 1, 2, 1, 2])
        .when(mode != "TF", |a| a.floats("weights", &[1.0, 0.5, 2.0, 0.25]));
    b.node1(op, &[&x], a).map(drop)
}

/// Two trees of one split each.
fn trees(b: &mut Build, op: Op) -> Option<()> {
    b.domains.entry("ai.onnx.ml".into()).or_insert(5);
    if b.domains["ai.onnx.ml"] < 5 {
        return None;
    }
    let x = b.ranked(&[DType::F32], 2, 2);
    let n = b.shape(&x)[1].max(1) as u64;
    let (i, j) = (b.r.below(n) as i64, b.r.below(n) as i64);
    let floats = |v: Vec<f32>| Tensor::new(vec![v.len()], v).ok();
    let modes = Tensor::new(vec![2], vec![0u8, 1]).ok()?;
    let a = attrs()
        .int("n_targets", 2)
        .int("aggregate_function", 1)
        .int("post_transform", 0)
        .ints("tree_roots", &[0, 1])
        .ints("nodes_featureids", &[i, j])
        .ints("nodes_truenodeids", &[0, 2])
        .ints("nodes_falsenodeids", &[1, 3])
        .ints("nodes_trueleafs", &[1, 1])
        .ints("nodes_falseleafs", &[1, 1])
        .ints("leaf_targetids", &[0, 1, 0, 1])
        .tensor("nodes_modes", &modes)
        .tensor("nodes_splits", &floats(vec![0.5, -0.5])?)
        .tensor("leaf_weights", &floats(vec![1.0, 2.0, -1.0, 0.5])?);
    b.node1(op, &[&x], a).map(drop)
}
