//! Tree ensembles and the dense operators of `ai.onnx.ml` against the interpreter: equal in every bit.
mod common;

use common::net::{Net, Within, attrs};
use fcc_ir::attr::Attrs;
use fcc_ir::{Bytes, DType, StringList, Tensor, ValueId, interp};
use fcc_jit::{Options, compile};
use std::sync::Arc;

const MODES: [&str; 6] = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ"];

/// How an ensemble is drawn.
#[derive(Clone, Copy)]
struct Forest {
    trees: usize,
    /// Branches of each tree, up to.
    branches: usize,
    features: usize,
    targets: usize,
    /// Only this mode, or each in turn.
    mode: Option<&'static str>,
    tracks: bool,
    /// Weights of each leaf.
    weights: usize,
}

const FOREST: Forest = Forest {
    trees: 37,
    branches: 20,
    features: 5,
    targets: 1,
    mode: Some("BRANCH_LEQ"),
    tracks: false,
    weights: 1,
};

/// The attributes of versions 1 and 3; `prefix` is `target` or `class`. Trees are as deep as chance makes them, a lone
/// leaf among them; thresholds are halves, so that rows meet them exactly.
fn forest(net: &mut Net, f: Forest, prefix: &str) -> Attrs {
    let mut lists: [Vec<i64>; 6] = Default::default();
    let (mut modes, mut values) = (vec![], vec![]);
    let mut weights: ([Vec<i64>; 3], Vec<f32>) = Default::default();
    for tree in 0..f.trees {
        let mut children: Vec<Option<[usize; 2]>> = vec![None];
        let mut leaves = vec![0];
        for _ in 0..net.next() as usize % (f.branches + 1) {
            let leaf = leaves.swap_remove(net.next() as usize % leaves.len());
            children[leaf] = Some([children.len(), children.len() + 1]);
            leaves.extend([children.len(), children.len() + 1]);
            children.extend([None, None]);
        }
        for (id, pair) in children.iter().enumerate() {
            let [t, b] = pair.unwrap_or([0, 0]);
            let track = i64::from(f.tracks && net.next().is_multiple_of(2));
            let feature = net.next() as usize % f.features;
            for (list, v) in lists.iter_mut().zip([tree, id, feature, t, b]) {
                list.push(v as i64);
            }
            lists[5].push(track);
            let mode = f.mode.unwrap_or(MODES[net.next() as usize % MODES.len()]);
            modes.push(if pair.is_some() { mode } else { "LEAF" });
            values.push((net.next() % 13) as f32 / 2.0 - 3.0);
            if pair.is_none() {
                for _ in 0..f.weights {
                    let target = net.next() as usize % f.targets;
                    for (list, v) in weights.0.iter_mut().zip([tree, id, target]) {
                        list.push(v as i64);
                    }
                    // no sum of these is exact: another order would show
                    weights.1.push((net.next() % 20_011) as f32 / 7_001.0 - 1.0);
                }
            }
        }
    }
    let [trees, ids, features, if_true, if_false, tracks] = lists;
    let modes: StringList = modes.into_iter().map(|m| Bytes::from_static(m.as_bytes())).collect();
    let [weight_trees, weight_nodes, weight_ids] = weights.0;
    let attrs = attrs([
        ("nodes_treeids", trees.into()),
        ("nodes_nodeids", ids.into()),
        ("nodes_featureids", features.into()),
        ("nodes_truenodeids", if_true.into()),
        ("nodes_falsenodeids", if_false.into()),
        ("nodes_modes", modes.into()),
        ("nodes_values", values.into()),
    ]);
    let attrs = attrs
        .with(&format!("{prefix}_treeids"), weight_trees)
        .with(&format!("{prefix}_nodeids"), weight_nodes)
        .with(&format!("{prefix}_ids"), weight_ids)
        .with(&format!("{prefix}_weights"), weights.1);
    if f.tracks { attrs.with("nodes_missing_value_tracks_true", tracks) } else { attrs }
}

/// Rows of halves from -4 to 4, NaN among them.
fn rows(net: &mut Net, rows: usize, features: usize, dtype: DType) -> ValueId {
    let n = rows * features;
    let halves: Vec<f64> = (0..n).map(|_| (net.next() % 17) as f64 / 2.0 - 4.0).collect();
    let nan = |i: usize, v: f64| if i % 11 == 3 { f64::NAN } else { v };
    let float = || halves.iter().enumerate().map(|(i, v)| nan(i, *v));
    let shape = [rows, features];
    let t = match dtype {
        DType::F32 => Tensor::new(shape, float().map(|v| v as f32).collect::<Vec<_>>()),
        DType::F64 => Tensor::new(shape, float().collect::<Vec<f64>>()),
        DType::I32 => Tensor::new(shape, halves.iter().map(|v| *v as i32).collect::<Vec<_>>()),
        _ => Tensor::new(shape, halves.iter().map(|v| *v as i64).collect::<Vec<_>>()),
    };
    net.given(t.unwrap())
}

fn net() -> Net {
    net_of(3)
}

/// Of this version of the domain.
fn net_of(version: i64) -> Net {
    let mut net = Net::new();
    net.domain = "ai.onnx.ml";
    Arc::make_mut(&mut net.graph.opsets).insert(net.domain.into(), version);
    net
}

fn check_regressor(f: Forest, n: usize, dtype: DType, change: impl FnOnce(Attrs) -> Attrs) {
    let mut net = net();
    let attrs = forest(&mut net, f, "target").with("n_targets", f.targets as i64);
    let x = rows(&mut net, n, f.features, dtype);
    let y = net.node("TreeEnsembleRegressor", &[x], change(attrs));
    net.check(&[y], Within::Exact);
}

#[test]
fn forests_of_each_mode_and_number_of_rows() {
    for n in [1, 3, 7, 8, 65, 200] {
        for mode in MODES.map(Some).into_iter().chain([None]) {
            for tracks in [false, true] {
                check_regressor(Forest { mode, tracks, ..FOREST }, n, DType::F32, |a| a);
            }
        }
    }
}

#[test]
fn forests_of_each_type_aggregate_and_number_of_targets() {
    for dtype in [DType::F32, DType::F64, DType::I32, DType::I64] {
        for how in ["SUM", "AVERAGE", "MIN", "MAX"] {
            for (targets, weights) in [(1, 1), (1, 2), (3, 1), (3, 4)] {
                let f = Forest { targets, weights, ..FOREST };
                let base: Vec<f32> = (0..targets).map(|t| t as f32 / 3.0).collect();
                check_regressor(f, 19, dtype, |a| {
                    a.with("aggregate_function", how).with("base_values", base)
                });
            }
        }
    }
}

#[test]
fn many_trees_of_one_row_are_shared_by_threads() {
    check_regressor(Forest { trees: 2500, branches: 6, ..FOREST }, 1, DType::F32, |a| a);
    check_regressor(Forest { trees: 2500, branches: 6, targets: 2, ..FOREST }, 2, DType::F32, |a| a);
}

#[test]
fn classifiers_with_each_transform_and_kind_of_label() {
    for transform in ["NONE", "SOFTMAX", "LOGISTIC", "SOFTMAX_ZERO", "PROBIT"] {
        for (classes, targets) in [(2, 1), (2, 2), (3, 3)] {
            for strings in [false, true] {
                let mut net = net();
                let f = Forest { targets, weights: 2, trees: 9, ..FOREST };
                let attrs = forest(&mut net, f, "class").with("post_transform", transform);
                let names: StringList = ["a", "b", "c"][..classes].iter().copied().collect();
                let attrs = if strings {
                    attrs.with("classlabels_strings", names)
                } else {
                    attrs.with("classlabels_int64s", (0..classes as i64).map(|c| 7 - c).collect::<Vec<_>>())
                };
                let x = rows(&mut net, 21, f.features, DType::F32);
                let y = net.nodes("TreeEnsembleClassifier", &[x], attrs, 2);
                // strings are looked up by the interpreter
                if strings { net.agrees(&y, Within::Exact) } else { net.check(&y, Within::Exact) }
            }
        }
    }
}

#[test]
fn version_5_with_sets_in_floats_and_doubles() {
    for dtype in [DType::F32, DType::F64] {
        let mut net = net_of(5);
        let t = |v: &[f64]| match dtype {
            DType::F32 => Tensor::new([v.len()], v.iter().map(|v| *v as f32).collect::<Vec<_>>()).unwrap(),
            _ => Tensor::new([v.len()], v.to_vec()).unwrap(),
        };
        let attrs = attrs([
            ("n_targets", 2i64.into()),
            ("tree_roots", vec![0i64, 2].into()),
            ("nodes_featureids", vec![0i64, 2, 1].into()),
            ("nodes_modes", Tensor::new([3], vec![0u8, 6, 6]).unwrap().into()),
            ("nodes_splits", t(&[0.5, 0.0, 0.0]).into()),
            ("nodes_truenodeids", vec![1i64, 0, 2].into()),
            ("nodes_trueleafs", vec![0i64, 1, 1].into()),
            ("nodes_falsenodeids", vec![1i64, 2, 3].into()),
            ("nodes_falseleafs", vec![1i64, 1, 1].into()),
            ("leaf_weights", t(&[1.1, 2.3, 3.7, 0.9]).into()),
            ("leaf_targetids", vec![0i64, 1, 1, 0].into()),
            ("membership_values", t(&[1.0, -0.5, f64::NAN, 2.0, f64::NAN]).into()),
            ("post_transform", 2i64.into()),
        ]);
        let x = rows(&mut net, 30, 3, dtype);
        let y = net.node("TreeEnsemble", &[x], attrs);
        net.check(&[y], Within::Exact);
    }
}

#[test]
fn one_compiled_model_takes_any_number_of_rows() {
    let mut net = net();
    let attrs = forest(&mut net, FOREST, "target").with("n_targets", 1i64);
    let x = rows(&mut net, 3, 5, DType::F32);
    let y = net.node("TreeEnsembleRegressor", &[x], attrs);
    let (mut model, inputs) = net.model(&[y]);
    let free = |mut input: fcc_ir::GraphInput| {
        input.info.ty = fcc_ir::ValueType::Tensor(fcc_ir::TensorType::unranked(DType::F32));
        input
    };
    model.graph.inputs = std::mem::take(&mut model.graph.inputs).into_iter().map(free).collect();
    let compiled = compile(&model, &Options::with_threads(1)).unwrap();
    let (name, value) = inputs.iter().next().unwrap();
    let all = value.as_tensor().unwrap().as_slice::<f32>().unwrap().into_owned();
    for rows in [1, 2, 3] {
        let x = Tensor::new([rows, 5], all[..rows * 5].to_vec()).unwrap();
        let inputs = interp::Values::from([(name.clone(), x.into())]);
        assert_eq!(compiled.run(&inputs).unwrap(), interp::run(&model, &inputs).unwrap());
    }
}

#[test]
fn a_feature_that_rows_lack_is_an_error_in_both() {
    let mut net = net();
    let attrs = forest(&mut net, FOREST, "target").with("n_targets", 1i64);
    let x = rows(&mut net, 3, 4, DType::F32);
    let y = net.node("TreeEnsembleRegressor", &[x], attrs);
    let (model, inputs) = net.model(&[y]);
    let wanted = interp::run(&model, &inputs).unwrap_err().to_string();
    assert!(wanted.contains("feature of a node: got 4, wanted below 4"), "{wanted}");
    let got =
        compile(&model, &Options::with_threads(1)).and_then(|c| c.run(&inputs)).unwrap_err().to_string();
    assert!(got.contains("feature of a node: got 4, wanted below 4"), "{got}");
}

#[test]
fn dense_operators() {
    for dtype in [DType::F32, DType::F64, DType::I32, DType::I64] {
        let mut net = net();
        let x = rows(&mut net, 9, 4, dtype);
        let list = |net: &mut Net, n: usize| {
            (0..n).map(|_| (net.next() % 9) as f32 / 3.0 - 1.0).collect::<Vec<f32>>()
        };
        let (offset, scale) = (list(&mut net, 4), list(&mut net, 1));
        let mut made =
            vec![net.node("Scaler", &[x], Attrs::new().with("offset", offset).with("scale", scale))];
        for norm in ["MAX", "L1", "L2"] {
            made.push(net.node("Normalizer", &[x], Attrs::new().with("norm", norm)));
        }
        for (targets, transform) in [(1, "NONE"), (3, "SOFTMAX"), (2, "LOGISTIC")] {
            let attrs = Attrs::new().with("coefficients", list(&mut net, targets * 4));
            let attrs = attrs.with("intercepts", list(&mut net, targets)).with("post_transform", transform);
            made.push(net.node("LinearRegressor", &[x], attrs.clone().with("targets", targets as i64)));
            let labels: Vec<i64> = (0..targets.max(2) as i64).rev().collect();
            made.extend(net.nodes("LinearClassifier", &[x], attrs.with("classlabels_ints", labels), 2));
        }
        net.check(&made, Within::Exact);
    }
}
