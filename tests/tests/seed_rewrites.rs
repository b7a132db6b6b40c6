//! The notebooks' numbers (`fixtures/seeds`) after each rewrite: the numbers stay, and the forms are the textbooks'.
use fcc_ir::interp::{self, Values};
use fcc_ir::{Model, Tensor};
use fcc_rewrite::{Outcome, passes, prove};
use fcc_tests::fixtures;

struct Seed {
    model: Model,
    inputs: Values,
    want: Tensor,
    /// Largest relative and absolute difference: 0 where every number is a small integer.
    tolerance: f64,
}

fn seed(name: &str) -> Seed {
    let folder = fixtures::path("seeds").join(name);
    let model = fcc_onnx::load(folder.join("model.onnx"), &fcc_onnx::LoadOptions::default()).unwrap();
    let read = |file: &str| fcc_onnx::read_tensor_pb(folder.join("test_data_set_0").join(file)).unwrap();
    let x = model.required_inputs().next().unwrap().name.clone();
    let exact = std::fs::read_to_string(folder.join("tol.json")).unwrap().contains("\"rtol\": 0.0");
    let inputs = Values::from([(x, read("input_0.pb").into())]);
    Seed { model, inputs, want: read("output_0.pb"), tolerance: if exact { 0.0 } else { 1e-6 } }
}

/// Rewrites with proof; answers with the model and how many nodes the named rule rewrote.
fn rewrite(model: &Model, name: &str) -> (Model, usize) {
    let mut copy = model.clone();
    let mut prove = |site: &fcc_rewrite::Site<'_>| prove::prove(site).map(|_| ());
    let options = fcc_rewrite::Options { on_match: Some(&mut prove), ..Default::default() };
    let report = fcc_rewrite::run(&mut copy, &passes::named(name).unwrap(), options).unwrap();
    let rewritten = |r: &&fcc_rewrite::Row| r.outcome == Outcome::Rewritten && r.rule == name;
    let fired = report.rows.iter().filter(rewritten).count();
    (copy, fired)
}

fn check(name: &str, seed: &Seed, model: &Model) {
    let made = interp::run(model, &seed.inputs).unwrap();
    let (_, got) = made.iter().next().unwrap();
    let got = got.as_tensor().unwrap();
    assert_eq!(got.shape(), seed.want.shape(), "{name}");
    let (got, want) = (got.as_slice::<f32>().unwrap(), seed.want.as_slice::<f32>().unwrap());
    for (g, w) in got.iter().zip(want.iter()) {
        let bound = seed.tolerance * (1.0 + f64::from(w.abs()));
        assert!((f64::from(*g) - f64::from(*w)).abs() <= bound, "{name}: {g}, wanted {w}");
    }
}

/// The one node of an operator, and an input's shape.
fn input_shape(model: &Model, op: &str, index: usize) -> Vec<usize> {
    let g = &model.graph;
    let node = g.nodes().into_iter().find(|id| g.op(*id).is_some_and(|o| o.op_type == op));
    let node = node.unwrap_or_else(|| panic!("no {op}"));
    g.constant(g.input(node, index).unwrap()).unwrap().shape().to_vec()
}

#[test]
fn every_number_stays_after_every_rewrite() {
    let mut fired = std::collections::BTreeMap::new();
    for entry in std::fs::read_dir(fixtures::path("seeds")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().to_string();
        let seed = seed(&name);
        for pass in passes::names() {
            let (model, count) = rewrite(&seed.model, &pass);
            check(&format!("{name} {pass}"), &seed, &model);
            *fired.entry(pass).or_insert(0) += count;
        }
    }
    let registry = fcc_rewrite::Registry::builtin();
    let linear = registry.rules().filter(|r| r.traits().linear).map(|r| r.name());
    let never: Vec<&str> = linear.filter(|r| fired.get(*r).is_none_or(|n| *n == 0)).collect();
    assert!(never.is_empty(), "{never:?} rewrote no seed: {fired:?}");
}

#[test]
fn the_linear_layer_is_14_9_and_19_in_each_form() {
    for name in ["linear_gemm_2x2", "linear_matmul_2x2"] {
        let seed = seed(name);
        let want = seed.want.as_slice::<f32>().unwrap().to_vec();
        assert!((want[0] - 14.9).abs() < 1e-5 && (want[1] - 19.0).abs() < 1e-5);
        let (full, _) = rewrite(&seed.model, "linear-to-full-kernel-conv");
        assert_eq!(input_shape(&full, "Conv", 1), [2, 1, 2, 2]);
        check(name, &seed, &full);
        let (pointwise, _) = rewrite(&seed.model, "linear-to-pointwise-conv");
        assert_eq!(input_shape(&pointwise, "Conv", 1), [2, 4, 1, 1]);
        check(name, &seed, &pointwise);
    }
}

#[test]
fn a_4x4_input_into_two_features_is_a_4x4_kernel() {
    let seed = seed("linear_gemm_4x4");
    let (full, _) = rewrite(&seed.model, "linear-to-full-kernel-conv");
    assert_eq!(input_shape(&full, "Conv", 1), [2, 1, 4, 4]);
    check("linear_gemm_4x4", &seed, &full);
}

#[test]
fn im2col_of_a_10x12_image_is_one_matrix() {
    let seed = seed("conv_1x3x10x12_k2x3x4x5");
    let (model, fired) = rewrite(&seed.model, "conv-to-im2col-gemm");
    assert_eq!(fired, 1);
    // 3 channels of 4x5 taps, 2 output channels
    assert_eq!(input_shape(&model, "MatMul", 1), [60, 2]);
    check("im2col", &seed, &model);
}

#[test]
fn toeplitz_of_a_7x9_image_in_both_forms() {
    let seed = seed("conv_3x7x9_k4x3x3x3");
    let (whole, fired) = rewrite(&seed.model, "conv-to-toeplitz-gemm");
    assert_eq!(fired, 1);
    let op = if whole.graph.nodes().iter().any(|id| whole.graph.op(*id).is_some_and(|o| o.op_type == "Gemm"))
    {
        "Gemm"
    } else {
        "MatMul"
    };
    // 3 channels of 7x9 places, 4 channels of 5x7 places
    assert_eq!(input_shape(&whole, op, 1), [189, 140]);
    check("toeplitz", &seed, &whole);
    let (pairs, fired) = rewrite(&seed.model, "conv-to-toeplitz-gemm-per-channel");
    assert_eq!(fired, 1);
    let g = &pairs.graph;
    let products = g.nodes().iter().filter(|id| g.op(**id).is_some_and(|o| o.op_type == "MatMul")).count();
    assert_eq!((products, input_shape(&pairs, "MatMul", 1)), (12, vec![63, 35]));
    check("toeplitz by pairs of channels", &seed, &pairs);
}
