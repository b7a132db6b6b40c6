use super::*;
use crate::attr::Attrs;
use crate::ops::testing::eval_ml;
use crate::{Bytes, StringList};

fn strings(list: &[&str]) -> StringList {
    list.iter().map(|s| Bytes::copy_from_slice(s.as_bytes())).collect()
}

/// Trees as `(mode, feature, value, true, false)` in the order of their ids; a leaf has children 0.
type Node = (&'static str, i64, f32, i64, i64);

fn nodes(trees: &[&[Node]]) -> Attrs {
    let all = || {
        trees.iter().enumerate().flat_map(|(t, nodes)| nodes.iter().enumerate().map(move |(i, n)| (t, i, n)))
    };
    let ints = |f: &dyn Fn((usize, usize, &Node)) -> i64| all().map(f).collect::<Vec<_>>();
    Attrs::new()
        .with("nodes_treeids", ints(&|(t, ..)| t as i64))
        .with("nodes_nodeids", ints(&|(_, i, _)| i as i64))
        .with("nodes_featureids", ints(&|(.., n)| n.1))
        .with("nodes_truenodeids", ints(&|(.., n)| n.3))
        .with("nodes_falsenodeids", ints(&|(.., n)| n.4))
        .with("nodes_modes", all().map(|(.., n)| Bytes::from_static(n.0.as_bytes())).collect::<StringList>())
        .with("nodes_values", all().map(|(.., n)| n.2).collect::<Vec<f32>>())
}

/// Weights as `(tree, node, target, weight)`.
fn weighted(attrs: Attrs, prefix: &str, weights: &[(i64, i64, i64, f32)]) -> Attrs {
    let ints = |f: fn(&(i64, i64, i64, f32)) -> i64| weights.iter().map(f).collect::<Vec<_>>();
    attrs
        .with(&format!("{prefix}_treeids"), ints(|w| w.0))
        .with(&format!("{prefix}_nodeids"), ints(|w| w.1))
        .with(&format!("{prefix}_ids"), ints(|w| w.2))
        .with(&format!("{prefix}_weights"), weights.iter().map(|w| w.3).collect::<Vec<_>>())
}

const LEAF: Node = ("LEAF", 0, 0.0, 0, 0);

/// One branch over two leaves.
fn stump(mode: &'static str, feature: i64, value: f32) -> [Node; 3] {
    [(mode, feature, value, 1, 2), LEAF, LEAF]
}

fn regress(attrs: Attrs, x: &Tensor) -> Result<Vec<f32>> {
    let y = eval_ml("TreeEnsembleRegressor", 3, attrs, std::slice::from_ref(x))?;
    Ok(y[0].as_tensor()?.as_slice::<f32>()?.into_owned())
}

fn classify(attrs: Attrs, x: &Tensor) -> Result<(Vec<i64>, Vec<f32>)> {
    let y = eval_ml("TreeEnsembleClassifier", 3, attrs, std::slice::from_ref(x))?;
    Ok((y[0].as_tensor()?.to_i64s()?, y[1].as_tensor()?.as_slice::<f32>()?.into_owned()))
}

fn column(v: &[f32]) -> Tensor {
    Tensor::new([v.len(), 1], v.to_vec()).unwrap()
}

/// 1 where the branch is true, 0 where it is false.
fn truth(mode: &'static str) -> Attrs {
    weighted(nodes(&[&stump(mode, 0, 2.0)]), "target", &[(0, 1, 0, 1.0), (0, 2, 0, 0.0)])
        .with("n_targets", 1i64)
}

#[test]
fn each_mode_compares_as_its_name_says() {
    let x = column(&[1.0, 2.0, 3.0, f32::NAN]);
    for (mode, wanted) in [
        ("BRANCH_LEQ", [1.0, 1.0, 0.0, 0.0]),
        ("BRANCH_LT", [1.0, 0.0, 0.0, 0.0]),
        ("BRANCH_GTE", [0.0, 1.0, 1.0, 0.0]),
        ("BRANCH_GT", [0.0, 0.0, 1.0, 0.0]),
        ("BRANCH_EQ", [0.0, 1.0, 0.0, 0.0]),
        ("BRANCH_NEQ", [1.0, 0.0, 1.0, 0.0]),
    ] {
        assert_eq!(regress(truth(mode), &x).unwrap(), wanted, "{mode}");
        // a missing value takes the branch that the node says
        let tracks = truth(mode).with("nodes_missing_value_tracks_true", vec![1i64, 0, 0]);
        let mut wanted = wanted;
        wanted[3] = 1.0;
        assert_eq!(regress(tracks, &x).unwrap(), wanted, "{mode}");
    }
}

/// Three stumps of features 0, 1, 1 with two targets.
fn two_targets() -> Attrs {
    let (a, b) = (stump("BRANCH_LEQ", 0, 0.0), stump("BRANCH_GT", 1, 1.0));
    let weights = [
        (0, 1, 0, 1.0),
        (0, 2, 1, 2.0),
        (1, 1, 0, -4.0),
        (1, 1, 1, 8.0),
        (1, 2, 0, 16.0),
        (2, 1, 1, 32.0),
        (2, 2, 1, -64.0),
    ];
    weighted(nodes(&[&a, &b, &b]), "target", &weights).with("n_targets", 2i64)
}

#[test]
fn weights_are_aggregated_by_target() {
    let x = Tensor::new([2, 2], vec![-1.0f32, 2.0, 1.0, 0.0]).unwrap();
    // row 0 reaches 1 | (-4, 8) | 32; row 1 reaches 2 | 16 | -64
    for (how, wanted) in [
        ("SUM", [-3.0, 40.0, 16.0, -62.0]),
        ("AVERAGE", [-1.0, 40.0 / 3.0, 16.0 / 3.0, -62.0 / 3.0]),
        ("MIN", [-4.0, 8.0, 16.0, -64.0]),
        ("MAX", [1.0, 32.0, 16.0, 2.0]),
    ] {
        let attrs = two_targets().with("aggregate_function", how);
        assert_eq!(regress(attrs.clone(), &x).unwrap(), wanted, "{how}");
        // base values come after the aggregate
        let based = regress(attrs.with("base_values", vec![100.0f32, 0.5]), &x).unwrap();
        assert_eq!(based, [wanted[0] + 100.0, wanted[1] + 0.5, wanted[2] + 100.0, wanted[3] + 0.5], "{how}");
    }
    let soft = regress(two_targets().with("post_transform", "SOFTMAX"), &x).unwrap();
    assert!(soft.iter().zip([0.0, 1.0, 1.0, 0.0]).all(|(a, b)| (a - b).abs() < 1e-6), "{soft:?}");
    let one = truth("BRANCH_LEQ").with("post_transform", "LOGISTIC");
    assert_eq!(regress(one, &column(&[9.0])).unwrap(), [0.5]);
    assert!(regress(two_targets().with("base_values", vec![1.0f32]), &x).is_err());
    assert!(regress(two_targets().with("aggregate_function", "PRODUCT"), &x).is_err());
    assert!(regress(two_targets().with("post_transform", "EXP"), &x).is_err());
}

#[test]
fn integers_and_doubles_are_inputs_too() {
    let run = |x: Tensor| regress(truth("BRANCH_LEQ"), &x).unwrap();
    assert_eq!(run(Tensor::new([2, 1], vec![2i64, 3]).unwrap()), [1.0, 0.0]);
    assert_eq!(run(Tensor::new([2, 1], vec![2i32, 3]).unwrap()), [1.0, 0.0]);
    // a vector is one row; doubles are not rounded to floats
    let above = 2.0 + 2f64.powi(-40);
    assert_eq!(run(Tensor::new([1], vec![above]).unwrap()), [0.0]);
    assert_eq!(run(Tensor::new([0, 1], Vec::<f32>::new()).unwrap()), [0.0f32; 0]);
    // a threshold in a tensor of doubles, and floats as input
    let mut attrs = truth("BRANCH_LEQ");
    attrs.remove("nodes_values");
    let attrs =
        attrs.with("nodes_values_as_tensor", Tensor::new([3], vec![2.0 - 2f64.powi(-40), 0.0, 0.0]).unwrap());
    assert_eq!(regress(attrs.clone(), &column(&[2.0, 1.5])).unwrap(), [0.0, 1.0]);
    assert!(regress(attrs.with("nodes_values", vec![1.0f32; 3]), &column(&[2.0])).is_err());
}

#[test]
fn ids_may_be_any_numbers_in_any_order() {
    // tree 7 is listed first, its root in front of its other nodes; ids are not in order
    let attrs = Attrs::new()
        .with("nodes_treeids", vec![7i64, -2, 7, -2, 7, -2])
        .with("nodes_nodeids", vec![50i64, 3, -9, 90, 20, 1])
        .with("nodes_featureids", vec![0i64, 0, 0, 0, 0, 0])
        .with("nodes_truenodeids", vec![-9i64, 1, 0, 0, 0, 0])
        .with("nodes_falsenodeids", vec![20i64, 90, 0, 0, 0, 0])
        .with("nodes_modes", strings(&["BRANCH_LEQ", "BRANCH_LT", "LEAF", "LEAF", "LEAF", "LEAF"]))
        .with("nodes_values", vec![1.0f32, 5.0, 0.0, 0.0, 0.0, 0.0]);
    let weights = [(-2, 90, 0, 100.0), (7, 20, 0, 1.0), (-2, 1, 0, 1000.0), (7, -9, 0, 10.0)];
    let attrs = weighted(attrs, "target", &weights).with("n_targets", 1i64);
    assert_eq!(regress(attrs, &column(&[0.0, 2.0, 9.0])).unwrap(), [1010.0, 1001.0, 101.0]);
}

#[test]
fn two_classes_and_one_weight_each_have_a_limit() {
    let attrs = |low: f32| {
        weighted(nodes(&[&stump("BRANCH_LEQ", 0, 0.0)]), "class", &[(0, 1, 0, low), (0, 2, 0, 0.75)])
            .with("classlabels_int64s", vec![5i64, 9])
    };
    let x = column(&[-1.0, 1.0]);
    // no weight is negative: a probability
    let (labels, scores) = classify(attrs(0.25), &x).unwrap();
    assert_eq!((labels, scores), (vec![5, 9], vec![0.75, 0.25, 0.25, 0.75]));
    // else a margin
    let (labels, scores) = classify(attrs(-0.5), &x).unwrap();
    assert_eq!((labels, scores), (vec![5, 9], vec![0.5, -0.5, -0.75, 0.75]));
    let (_, scores) = classify(attrs(-0.5).with("post_transform", "LOGISTIC"), &x).unwrap();
    assert!((scores[1] - 0.377_54).abs() < 1e-4 && (scores[0] + scores[1] - 1.0).abs() < 1e-6);
    let (labels, scores) = classify(attrs(-0.5).with("base_values", vec![1.0f32]), &x).unwrap();
    assert_eq!((labels, scores), (vec![9, 9], vec![-0.5, 0.5, -1.75, 1.75]));
    let (_, scores) = classify(attrs(0.25).with("base_values", vec![1.0f32, 4.0]), &x).unwrap();
    assert_eq!(scores, [1.25, 4.0, 1.75, 4.0]);
}

#[test]
fn the_first_greatest_class_wins() {
    let tree = stump("BRANCH_LEQ", 0, 0.0);
    let weights = [(0, 1, 0, 1.0), (0, 1, 1, 3.0), (0, 1, 2, 3.0), (0, 2, 1, -1.0), (0, 2, 0, -2.0)];
    let attrs = weighted(nodes(&[&tree]), "class", &weights);
    let x = column(&[-1.0, 1.0]);
    let three = attrs.clone().with("classlabels_int64s", vec![10i64, 11, 12]);
    // the second row has no weight for class 2: it takes no part
    let (labels, scores) = classify(three.clone(), &x).unwrap();
    assert_eq!((labels, scores), (vec![11, 11], vec![1.0, 3.0, 3.0, -2.0, -1.0, 0.0]));
    // with base values every class takes part
    let (labels, _) = classify(three.clone().with("base_values", vec![0.0f32; 3]), &x).unwrap();
    assert_eq!(labels, [11, 12]);
    let names = attrs.clone().with("classlabels_strings", strings(&["a", "b", "c"]));
    let y = eval_ml("TreeEnsembleClassifier", 1, names, std::slice::from_ref(&x)).unwrap();
    assert_eq!(y[0].as_tensor().unwrap(), &Tensor::from_strings([2], ["b", "b"]).unwrap());
    // weights for both of two classes
    let two =
        weighted(nodes(&[&tree]), "class", &[(0, 1, 0, 2.0), (0, 1, 1, 1.0), (0, 2, 0, 1.0), (0, 2, 1, 2.0)]);
    let (labels, scores) = classify(two.with("classlabels_int64s", vec![3i64, 4]), &x).unwrap();
    assert_eq!((labels, scores), (vec![3, 4], vec![2.0, 1.0, 1.0, 2.0]));
    for bad in [
        attrs.clone(),
        attrs.with("classlabels_int64s", vec![10i64, 11]),
        three.with("base_values", vec![1.0f32]),
    ] {
        assert!(classify(bad, &x).is_err());
    }
}

#[test]
fn broken_trees_are_errors() {
    let good = || truth("BRANCH_LEQ");
    let x = column(&[1.0]);
    assert!(regress(good(), &x).is_ok());
    let set = |name: &str, list: Vec<i64>| good().with(name, list);
    for (what, bad) in [
        ("a list is short", set("nodes_featureids", vec![0, 0])),
        ("a list is long", set("nodes_falsenodeids", vec![2, 0, 0, 0])),
        ("tracks are short", set("nodes_missing_value_tracks_true", vec![1])),
        ("a node is its own child", set("nodes_truenodeids", vec![0, 0, 0])),
        ("a child is not there", set("nodes_truenodeids", vec![77, 0, 0])),
        ("a child is negative", set("nodes_falsenodeids", vec![i64::MIN, 0, 0])),
        ("two nodes of one id", set("nodes_nodeids", vec![0, 1, 1])),
        ("a feature is negative", set("nodes_featureids", vec![-1, 0, 0])),
        ("a feature is not there", set("nodes_featureids", vec![1, 0, 0])),
        ("a feature is far away", set("nodes_featureids", vec![1 << 40, 0, 0])),
        ("a target is not there", set("target_ids", vec![0, 1])),
        ("a target is negative", set("target_ids", vec![0, -1])),
        ("a weight has no node", set("target_nodeids", vec![1, 5])),
        ("a weight has no tree", set("target_treeids", vec![0, 5])),
        ("no targets", good().with("n_targets", 0i64)),
        ("too many targets", good().with("n_targets", i64::MAX)),
        ("an unknown mode", good().with("nodes_modes", strings(&["BRANCH_IN", "LEAF", "LEAF"]))),
        ("modes are short", good().with("nodes_modes", strings(&["BRANCH_LEQ", "LEAF"]))),
        ("values are short", good().with("nodes_values", vec![0.0f32; 2])),
    ] {
        assert!(regress(bad, &x).is_err(), "{what}");
    }
    // a cycle of two nodes behind the root
    let cycle: [Node; 4] =
        [("BRANCH_LEQ", 0, 0.0, 1, 2), ("BRANCH_LT", 0, 0.0, 3, 2), LEAF, ("BRANCH_LT", 0, 0.0, 1, 2)];
    let attrs = weighted(nodes(&[&cycle]), "target", &[(0, 2, 0, 1.0)]).with("n_targets", 1i64);
    let error = regress(attrs, &x).unwrap_err().to_string();
    assert!(error.contains("reached twice"), "{error}");
}

#[test]
fn a_tree_may_be_a_leaf_and_an_ensemble_empty() {
    let attrs = weighted(nodes(&[&[LEAF], &[LEAF]]), "target", &[(0, 0, 0, 2.0), (1, 0, 0, 3.0)]);
    let attrs = attrs.with("n_targets", 1i64);
    assert_eq!(regress(attrs, &column(&[f32::NAN])).unwrap(), [5.0]);
    let none = Attrs::new().with("n_targets", 2i64).with("base_values", vec![1.0f32, 2.0]);
    assert_eq!(regress(none, &column(&[0.0])).unwrap(), [1.0, 2.0]);
    // leaves without weights add nothing, and the class of none is the first
    let none = weighted(nodes(&[&stump("BRANCH_LEQ", 0, 0.0)]), "class", &[]);
    let (labels, scores) = classify(none.with("classlabels_int64s", vec![4i64]), &column(&[1.0])).unwrap();
    assert_eq!((labels, scores), (vec![4], vec![0.0]));
    // one with two adds both
    let attrs = weighted(nodes(&[&stump("BRANCH_LEQ", 0, 0.0)]), "target", &[(0, 1, 0, 2.0), (0, 1, 0, 3.0)]);
    assert_eq!(regress(attrs.with("n_targets", 1i64), &column(&[0.0, 1.0])).unwrap(), [5.0, 0.0]);
}

/// A node of version 5 over leaves 10, 20 (and the set {2, 4} behind it).
fn version5() -> Attrs {
    let t = |v: &[f32]| Tensor::new([v.len()], v.to_vec()).unwrap();
    Attrs::new()
        .with("n_targets", 1i64)
        .with("tree_roots", vec![0i64])
        .with("nodes_featureids", vec![0i64, 0])
        .with("nodes_modes", Tensor::new([2], vec![0u8, 6]).unwrap())
        .with("nodes_splits", t(&[3.0, 0.0]))
        .with("nodes_truenodeids", vec![1i64, 1])
        .with("nodes_trueleafs", vec![0i64, 1])
        .with("nodes_falsenodeids", vec![2i64, 0])
        .with("nodes_falseleafs", vec![1i64, 1])
        .with("leaf_weights", t(&[10.0, 20.0, 30.0]))
        .with("leaf_targetids", vec![0i64, 0, 0])
        .with("membership_values", t(&[2.0, 1.5, f32::NAN]))
}

#[test]
fn version_5_has_sets_and_lists_of_leaves() {
    let run = |attrs: Attrs, x: Tensor| eval_ml("TreeEnsemble", 5, attrs, &[x]);
    let x = || column(&[1.0, 2.0, 4.0, 1.5]);
    let y = run(version5(), x()).unwrap();
    assert_eq!(y[0].as_tensor().unwrap(), &column(&[10.0, 20.0, 30.0, 20.0]));
    // doubles and halves give what they get
    let double = Tensor::new([1, 1], vec![2.0f64]).unwrap();
    assert_eq!(
        run(version5(), double).unwrap()[0].as_tensor().unwrap(),
        &Tensor::new([1, 1], vec![20.0f64]).unwrap()
    );
    let half = Tensor::new([1, 1], vec![half::f16::from_f32(2.0)]).unwrap();
    assert_eq!(run(version5(), half).unwrap()[0].as_tensor().unwrap().dtype(), DType::F16);
    let set = |name: &str, list: Vec<i64>| version5().with(name, list);
    for (what, bad) in [
        ("a root is not there", set("tree_roots", vec![2])),
        ("a root is negative", set("tree_roots", vec![-1])),
        ("a child is not there", set("nodes_truenodeids", vec![2, 1])),
        ("a leaf is not there", set("nodes_falsenodeids", vec![3, 0])),
        ("a cycle", set("nodes_truenodeids", vec![0, 1])),
        ("a list is short", set("nodes_trueleafs", vec![0])),
        ("targets are short", set("leaf_targetids", vec![0, 0])),
        ("a target is not there", set("leaf_targetids", vec![0, 0, 1])),
        ("tracks are short", set("nodes_missing_value_tracks_true", vec![1])),
        ("an unknown mode", version5().with("nodes_modes", Tensor::new([2], vec![0u8, 7]).unwrap())),
        ("modes of another type", version5().with("nodes_modes", Tensor::new([2], vec![0i64, 6]).unwrap())),
        ("no aggregate", version5().with("aggregate_function", 4i64)),
        ("no transform", version5().with("post_transform", 5i64)),
        ("no targets", version5().with("n_targets", 0i64)),
    ] {
        assert!(run(bad, x()).is_err(), "{what}");
    }
    let mut without = version5();
    without.remove("membership_values");
    assert!(run(without.with("nodes_modes", Tensor::new([2], vec![6u8, 6]).unwrap()), x()).is_err());
}

#[test]
fn an_ensemble_takes_twelve_bytes_a_node_and_nothing_else() {
    assert_eq!((size_of::<ensemble::Node<f32>>(), size_of::<ensemble::Node<f64>>()), (12, 16));
    let tree = stump("BRANCH_LEQ", 0, 0.0);
    let trees = vec![&tree[..]; 5000];
    let weights: Vec<_> = (0..5000).flat_map(|t| [(t, 1, 0, 1.0), (t, 2, 0, 2.0)]).collect();
    let attrs = weighted(nodes(&trees), "target", &weights).with("n_targets", 1i64);
    // the names of modes are held once
    assert_eq!(attrs.strings("nodes_modes").unwrap().unwrap().parts().0.len(), 2);
    let node = crate::ops::testing::node_in("ai.onnx.ml", "TreeEnsembleRegressor", 3, attrs, 1);
    let Prepared::F32(trees) = Prepared::of(&node, DType::F32).unwrap() else { panic!("floats") };
    assert_eq!((trees.ensemble.nodes().len(), trees.ensemble.bytes()), (15_000, 15_000 * 12));
}
