//! Operators of `ai.onnx.ml` on features, beside those in [`super::special`].
use super::Named;
use crate::build::Build;
use crate::draw::{once_in, one, within};
use crate::pb::attrs;
use fcc_ir::{DType, Op};

const ML: &str = "ai.onnx.ml";

pub(super) const TABLE: &[Named] = &[
    (ML, "CategoryMapper", category_mapper),
    (ML, "FeatureVectorizer", feature_vectorizer),
    (ML, "Imputer", imputer),
    (ML, "LinearClassifier", linear_classifier),
    (ML, "LinearRegressor", linear_regressor),
    (ML, "Normalizer", normalizer),
    (ML, "OneHotEncoder", one_hot_encoder),
    (ML, "SVMClassifier", svm_classifier),
    (ML, "SVMRegressor", svm_regressor),
    (ML, "Scaler", scaler),
    (ML, "TreeEnsembleClassifier", tree_classifier),
    (ML, "TreeEnsembleRegressor", tree_regressor),
    (ML, "ZipMap", zip_map),
    ("", "ImageScaler", image_scaler),
];

/// A matrix of features: one row a sample.
fn features(b: &mut Build) -> (String, usize) {
    let x =
        b.any(&[DType::F32], |s| s.len() == 2 && s[1] > 0, |r, _| vec![within(r, 1, 5), within(r, 1, 12)]);
    let n = b.shape(&x)[1];
    (x, n)
}

fn numbers(b: &mut Build, n: usize) -> Vec<f32> {
    (0..n).map(|_| *one(&mut b.r, &[1.0, -2.0, 0.5, 3.0, -0.25, 0.1])).collect()
}

fn after(b: &mut Build) -> &'static str {
    one::<&str>(&mut b.r, &["NONE", "NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO"])
}

fn category_mapper(b: &mut Build, op: Op) -> Option<()> {
    let x = b.any_of(&[DType::I64]);
    let a = attrs()
        .ints("cats_int64s", &[0, 1, 2])
        .strs("cats_strings", &["a", "b", "c"])
        .str("default_string", "?");
    b.node1(op, &[&x], a).map(drop)
}

fn feature_vectorizer(b: &mut Build, op: Op) -> Option<()> {
    let (x, n) = features(b);
    let rows = b.shape(&x)[0];
    let m = within(&mut b.r, 1, 4);
    let y = b.operand(DType::F32, &[rows, m]);
    b.node1(op, &[&x, &y], attrs().ints("inputdimensions", &[n as i64, m as i64])).map(drop)
}

fn imputer(b: &mut Build, op: Op) -> Option<()> {
    let (x, n) = features(b);
    let of = if once_in(&mut b.r, 2) { n } else { 1 };
    let values = numbers(b, of);
    let old = *one(&mut b.r, &[f32::NAN, 0.0]);
    b.node1(op, &[&x], attrs().floats("imputed_value_floats", &values).float("replaced_value_float", old))
        .map(drop)
}

fn scaler(b: &mut Build, op: Op) -> Option<()> {
    let (x, n) = features(b);
    let of = if once_in(&mut b.r, 2) { n } else { 1 };
    let (offset, scale) = (numbers(b, of), numbers(b, of));
    b.node1(op, &[&x], attrs().floats("offset", &offset).floats("scale", &scale)).map(drop)
}

fn normalizer(b: &mut Build, op: Op) -> Option<()> {
    let (x, _) = features(b);
    let norm = *one(&mut b.r, &["MAX", "L1", "L2"]);
    b.node1(op, &[&x], attrs().str("norm", norm)).map(drop)
}

fn one_hot_encoder(b: &mut Build, op: Op) -> Option<()> {
    let x = b.any_of(&[DType::I64]);
    let zeros = b.r.below(2) as i64;
    // with zeros = 0 an element that is no category is an error
    let a = attrs().ints("cats_int64s", &[0, 1, 2, 3]).int("zeros", zeros.max(1));
    b.node1(op, &[&x], a).map(drop)
}

fn linear_regressor(b: &mut Build, op: Op) -> Option<()> {
    let (x, n) = features(b);
    let t = within(&mut b.r, 1, 3);
    let (w, c, how) = (numbers(b, n * t), numbers(b, t), after(b));
    let a = attrs().floats("coefficients", &w).floats("intercepts", &c).int("targets", t as i64);
    b.node1(op, &[&x], a.str("post_transform", how)).map(drop)
}

fn linear_classifier(b: &mut Build, op: Op) -> Option<()> {
    let (x, n) = features(b);
    let classes = within(&mut b.r, 2, 3);
    let (w, c, how) = (numbers(b, n * classes), numbers(b, classes), after(b));
    let labels: Vec<i64> = (0..classes as i64).map(|c| c * 3 - 1).collect();
    let a = attrs().floats("coefficients", &w).floats("intercepts", &c).ints("classlabels_ints", &labels);
    b.node(op, &[&x], a.str("post_transform", how), 2).map(drop)
}

fn kernel(b: &mut Build) -> (&'static str, [f32; 3]) {
    *one(
        &mut b.r,
        &[
            ("LINEAR", [0.0; 3]),
            ("RBF", [0.1, 0.0, 0.0]),
            ("POLY", [0.1, 1.0, 2.0]),
            ("SIGMOID", [0.1, 0.5, 0.0]),
        ],
    )
}

fn svm_regressor(b: &mut Build, op: Op) -> Option<()> {
    let (x, n) = features(b);
    let supports = within(&mut b.r, 1, 3);
    let (v, w, (kind, params)) = (numbers(b, n * supports), numbers(b, supports), kernel(b));
    let a = attrs().str("kernel_type", kind).floats("kernel_params", &params).floats("support_vectors", &v);
    let a = a.floats("coefficients", &w).floats("rho", &[0.5]).int("n_supports", supports as i64);
    b.node1(op, &[&x], a).map(drop)
}

fn svm_classifier(b: &mut Build, op: Op) -> Option<()> {
    let (x, n) = features(b);
    let (v, w, (kind, params)) = (numbers(b, n * 3), numbers(b, 3), kernel(b));
    let a = attrs().str("kernel_type", kind).floats("kernel_params", &params).floats("support_vectors", &v);
    let a = a.floats("coefficients", &w).floats("rho", &[0.25]).ints("vectors_per_class", &[2, 1]);
    b.node(op, &[&x], a.ints("classlabels_ints", &[0, 1]), 2).map(drop)
}

/// Two trees of one split each, as the older operators say them.
fn trees(b: &mut Build, n: usize) -> crate::pb::Attrs {
    let (i, j) = (b.r.below(n as u64) as i64, b.r.below(n as u64) as i64);
    let mode = *one(&mut b.r, &["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT"]);
    attrs()
        .ints("nodes_treeids", &[0, 0, 0, 1, 1, 1])
        .ints("nodes_nodeids", &[0, 1, 2, 0, 1, 2])
        .ints("nodes_featureids", &[i, 0, 0, j, 0, 0])
        .floats("nodes_values", &[0.5, 0.0, 0.0, -0.5, 0.0, 0.0])
        .strs("nodes_modes", &[mode, "LEAF", "LEAF", mode, "LEAF", "LEAF"])
        .ints("nodes_truenodeids", &[1, 0, 0, 1, 0, 0])
        .ints("nodes_falsenodeids", &[2, 0, 0, 2, 0, 0])
        .when(once_in(&mut b.r, 2), |a| a.ints("nodes_missing_value_tracks_true", &[1, 0, 0, 0, 0, 0]))
}

fn tree_regressor(b: &mut Build, op: Op) -> Option<()> {
    let (x, n) = features(b);
    let (a, w) = (trees(b, n), numbers(b, 4));
    let how = *one(&mut b.r, &["SUM", "AVERAGE", "MIN", "MAX"]);
    let a = a
        .ints("target_treeids", &[0, 0, 1, 1])
        .ints("target_nodeids", &[1, 2, 1, 2])
        .ints("target_ids", &[0, 1, 0, 1])
        .floats("target_weights", &w)
        .int("n_targets", 2)
        .str("aggregate_function", how);
    b.node1(op, &[&x], a).map(drop)
}

fn tree_classifier(b: &mut Build, op: Op) -> Option<()> {
    let (x, n) = features(b);
    let (a, w, how) = (trees(b, n), numbers(b, 4), after(b));
    let a = a
        .ints("class_treeids", &[0, 0, 1, 1])
        .ints("class_nodeids", &[1, 2, 1, 2])
        .ints("class_ids", &[0, 1, 2, 1])
        .floats("class_weights", &w)
        .ints("classlabels_int64s", &[5, 6, 7])
        .str("post_transform", how);
    b.node(op, &[&x], a, 2).map(drop)
}

fn zip_map(b: &mut Build, op: Op) -> Option<()> {
    let (x, n) = features(b);
    let labels: Vec<i64> = (0..n as i64).collect();
    b.node1(op, &[&x], attrs().ints("classlabels_int64s", &labels)).map(drop)
}

fn image_scaler(b: &mut Build, op: Op) -> Option<()> {
    let x = b.ranked(&[DType::F32], 4, 4);
    let c = b.shape(&x)[1];
    let bias = numbers(b, c);
    b.node1(op, &[&x], attrs().float("scale", 0.5).floats("bias", &bias)).map(drop)
}
