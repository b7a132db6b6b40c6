//! The comparison of models and the proof of single nodes: they accept what is right, and find what is wrong.
mod common;
use common::{Net, parse, rewrite};
use fcc_ir::attr::Attrs;
use fcc_ir::interp::{self, Values};
use fcc_ir::{CancelToken, Model, NodeKind, RunLimits, Stopped, Tensor, ValueId};
use fcc_rewrite::verify::{Comparison, Options, compare};
use fcc_rewrite::{AnyRule, Builder, Cx, Declined, Match, Rule, Traits, passes};
use std::sync::Arc;

fn verify(original: &Model, rewritten: &Model) -> Comparison {
    compare(original, rewritten, &Options::default()).unwrap()
}

/// A network of a Conv, a Gemm and a MatMul with weights that are no small integers.
fn network(opset: i64) -> Model {
    let mut net = Net::new(opset, 7);
    let float = |net: &mut Net, name: &str, shape: &[usize]| {
        let n: usize = shape.iter().product();
        let values: Vec<f32> = (0..n).map(|_| net.rng.range(0, 1 << 20) as f32 / 1048576.0 - 0.5).collect();
        net.graph.add_constant(name, Tensor::new(shape, values).unwrap()).unwrap()
    };
    let mut x = net.input("x", &[None, Some(3), Some(9), Some(7)]);
    let (w, b) = (float(&mut net, "w", &[4, 3, 3, 2]), float(&mut net, "b", &[4]));
    x = net.op("Conv", "conv", &[x, w, b], Attrs::new().with("strides", vec![2i64, 1]));
    x = net.op("Relu", "relu", &[x], Attrs::new());
    x = net.op("Flatten", "flat", &[x], Attrs::new());
    let (w1, b1) = (float(&mut net, "w1", &[10, 96]), float(&mut net, "b1", &[10]));
    x = net.op("Gemm", "fc1", &[x, w1, b1], Attrs::new().with("transB", 1i64).with("alpha", 0.3f32));
    x = net.op("Sigmoid", "act", &[x], Attrs::new());
    let (w2, b2) = (float(&mut net, "w2", &[10, 5]), float(&mut net, "b2", &[5]));
    x = net.op("MatMul", "fc2", &[x, w2], Attrs::new());
    x = net.op("Add", "fc2b", &[x, b2], Attrs::new());
    x = net.op("Softmax", "y", &[x], Attrs::new().with("axis", 1i64));
    net.output(x)
}

/// Changes one element of the constants that a node made by a rule reads.
fn spoil(model: &mut Model, constant: &str, element: usize) {
    let value = model.graph.value(constant).unwrap_or_else(|| panic!("no {constant}"));
    let NodeKind::Constant(c) = &mut model.graph.node_mut(value.node).kind else { panic!("not a constant") };
    let mut data = c.tensor.as_slice::<f32>().unwrap().into_owned();
    // one unit in the last place or so
    data[element] += data[element].abs() * 2e-7 + 1e-9;
    c.tensor = Tensor::new(c.tensor.shape().to_vec(), data).unwrap();
}

#[test]
fn accepts_every_rewrite_of_a_network() {
    for opset in [11, 13, 17, 21] {
        let original = network(opset);
        for names in [
            &["clean-up", "linear-to-conv", "clean-up"][..],
            &["linear-to-full-kernel-conv"],
            &["linear-to-pointwise-conv"],
            &["conv-to-im2col-gemm"],
            &["conv-to-toeplitz-gemm"],
            &["conv-to-toeplitz-gemm-per-channel"],
            &["linear-to-conv", "conv-to-toeplitz-gemm", "clean-up"],
            &["linear-to-conv", "pointwise-conv-to-matmul", "clean-up"],
            &["linear-to-conv", "conv-to-im2col-gemm", "clean-up"],
        ] {
            let (rewritten, report) = rewrite(&original, names);
            let found = verify(&original, &rewritten);
            assert!(found.is_same(), "opset {opset} {names:?}: {found}\n{report}");
            assert_eq!(found.trials.len(), 2);
            assert!(found.trials.iter().all(|t| t.values > 0), "nothing was compared: {found}\n{report}");
            assert!(found.trials.iter().all(|t| t.worst < 0.5), "the bound is close: {found}");
        }
    }
}

#[test]
fn finds_one_wrong_weight_in_the_last_place_and_names_it() {
    let original = network(17);
    let (mut rewritten, report) = rewrite(&original, &["linear-to-full-kernel-conv"]);
    spoil(&mut rewritten, "fc1.kernel", 501);
    let found = verify(&original, &rewritten).difference.unwrap_or_else(|| panic!("{report}"));
    // weight 501 is one of output 5
    assert_eq!((found.value.as_str(), found.index.as_slice()), ("fc1", &[0, 5][..]));
    assert!(found.place.contains("fc1"), "{found}");
}

#[test]
fn finds_the_first_of_two_differences() {
    let original = network(17);
    let (mut rewritten, _) = rewrite(&original, &["linear-to-full-kernel-conv", "conv-to-toeplitz-gemm"]);
    spoil(&mut rewritten, "fc1.conv.toeplitz", 0);
    assert_eq!(verify(&original, &rewritten).difference.unwrap().value, "fc1");
    spoil(&mut rewritten, "conv.toeplitz", 0);
    assert_eq!(verify(&original, &rewritten).difference.unwrap().value, "conv");
}

#[test]
fn a_batch_that_the_original_does_not_take_is_left_out() {
    let text = r#"<ir_version: 8, opset_import: ["" : 17]>
        main (float[N,4] x) => (float[1,2] y)
        <int64[2] one = {1, 4}, float[4,2] w = {1,2,3,4,5,6,7,8}> {
            r = Reshape(x, one)
            y = MatMul(r, w)
        }"#;
    let original = parse(text);
    let (rewritten, _) = rewrite(&original, &["linear-to-pointwise-conv"]);
    let found = verify(&original, &rewritten);
    assert!(found.is_same());
    assert_eq!(found.trials.iter().filter(|t| t.skipped.is_some()).count(), 1, "{found}");
}

#[test]
fn the_engine_runs_both_models() {
    let original = network(17);
    let (rewritten, _) = rewrite(&original, &["linear-to-full-kernel-conv"]);
    let calls = std::cell::Cell::new(0);
    let engine = |model: &Model, given: &fcc_ir::interp::Values| {
        calls.set(calls.get() + 1);
        fcc_ir::interp::run(model, given)
    };
    let options = Options { batches: vec![2], engine: Some(&engine), ..Default::default() };
    assert!(compare(&original, &rewritten, &options).unwrap().is_same());
    assert_eq!(calls.get(), 2);
}

/// A rule that forgets to transpose: what a proof must find.
struct Wrong;

impl Rule for Wrong {
    type Found = (ValueId, ValueId);
    type Plan = (ValueId, ValueId);
    fn name(&self) -> &str {
        "linear-to-pointwise-conv"
    }
    fn doc(&self) -> &str {
        "wrong"
    }
    fn traits(&self) -> Traits {
        Traits { linear: true, ..Traits::default() }
    }
    fn pattern(&self, cx: &Cx<'_>, node: fcc_ir::NodeId) -> Option<Self::Found> {
        cx.op(node, "Gemm")?;
        Some((cx.graph().input(node, 0)?, cx.graph().input(node, 1)?))
    }
    fn guard(&self, cx: &Cx<'_>, (x, w): Self::Found) -> Result<Match<Self::Plan>, Declined> {
        let node = cx.graph().users(w)[0].0;
        Ok(Match { replaces: cx.out(node), sources: vec![x], growth_bytes: 0, plan: (x, w) })
    }
    fn action(&self, (x, w): Self::Plan, b: &mut Builder<'_>) -> Result<ValueId, Declined> {
        b.matmul(x, w)
    }
}

#[test]
fn a_wrong_rule_is_found_by_proof_and_by_comparison() {
    let rule: Arc<dyn AnyRule> = Arc::new(Wrong);
    let text = r#"<ir_version: 8, opset_import: ["" : 17]>
        main (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1,2,3,4}> {
            [fc] y = Gemm<transB = 1>(x, w)
        }"#;
    let original = parse(text);
    let pass = passes::Pass {
        name: "wrong".into(),
        kind: passes::PassKind::Rules { rules: vec![rule], repeat: false },
    };
    let mut copy = original.clone();
    let mut prove = |site: &fcc_rewrite::Site<'_>| fcc_rewrite::prove::prove(site).map(|_| ());
    let options = fcc_rewrite::Options { on_match: Some(&mut prove), ..Default::default() };
    let error = fcc_rewrite::run(&mut copy, std::slice::from_ref(&pass), options).unwrap_err().to_string();
    assert!(error.contains("proof") && error.contains("fc") && error.contains("basis vector 0"), "{error}");
    let mut copy = original.clone();
    fcc_rewrite::run(&mut copy, &[pass], fcc_rewrite::Options::default()).unwrap();
    assert_eq!(verify(&original, &copy).difference.unwrap().value, "y");
}

/// Two models in the text form over the same inputs, of this opset.
fn pair(header: &str, original: &str, rewritten: &str) -> (Model, Model) {
    let model =
        |body: &str| parse(&format!(r#"<ir_version: 8, opset_import: ["" : 17]> {header} {{ {body} }}"#));
    (model(original), model(rewritten))
}

const SQUARE: &str =
    "main (float[N,3,4] x) => (float[N,4,3] a, y) <float[3,2] w = {1.5,-0.3,0.7,2.1,-1.1,0.9}>";

#[test]
fn a_side_that_computes_what_the_other_reads_is_no_difference() {
    // y reads `a` in the original and `r` in the rewritten model; both are half zeros
    let text = r#"<ir_version: 8, opset_import: ["" : 17]>
        main (float[N,3,4] x) => (float[N,4,3] a, float[4,N,3] y) {
            r = Relu(x)
            a = Transpose<perm = [0, 2, 1]>(r)
            y = Transpose<perm = [1, 0, 2]>(a)
        }"#;
    let original = parse(text);
    let (rewritten, report) = rewrite(&original, &["merge-transposes"]);
    assert!(common::fired(&report, "merge-transposes"), "{report}");
    let found = verify(&original, &rewritten);
    assert!(found.is_same(), "{found}");
    assert!(found.trials.iter().all(|t| t.values == 1), "{found}");
}

#[test]
fn a_duplicate_that_goes_is_no_difference() {
    let text = r#"<ir_version: 8, opset_import: ["" : 17]>
        main (float[N,4] x) => (float[N,4] p, float[N,4] y) {
            e = Exp(x)
            c = Clip(x)
            r = Relu(c)
            p = Tanh(r)
            q = Tanh(r)
            s = Add(q, e)
            y = Mul(s, p)
        }"#;
    let original = parse(text);
    let (rewritten, report) = rewrite(&original, &["merge-duplicates"]);
    assert!(common::fired(&report, "merge-duplicates"), "{report}");
    let found = verify(&original, &rewritten);
    assert!(found.is_same(), "{found}");
}

#[test]
fn a_value_that_both_sides_read_beside_what_it_is_made_of_is_no_difference() {
    let header = "main (float[N,4] x) => (float[N,4] p, float[N,4] q, float[N,4] y)";
    let shared = "r = Relu(x) p = Tanh(r) q = Tanh(r)";
    let (original, rewritten) =
        pair(header, &format!("{shared} y = Add(p, q)"), &format!("{shared} y = Add(p, p)"));
    let found = verify(&original, &rewritten);
    assert!(found.is_same(), "{found}");
    // q is p, but not its double
    let (original, rewritten) =
        pair(header, &format!("{shared} y = Add(p, q)"), &format!("{shared} t = Add(p, p) y = Add(t, p)"));
    assert_eq!(verify(&original, &rewritten).difference.unwrap().value, "y");
}

#[test]
fn a_duplicate_beside_a_third_value_of_the_same_input_is_no_difference() {
    let header = |w: &str| {
        format!(
            "main (float[N,3] x) => (float[N,2] y) \
             <float[3,2] w = {{1.5,-0.3,0.7,{w},-1.1,0.9}}, float[3,2] v = {{0.1,0.2,0.3,-0.4,0.5,0.6}}>"
        )
    };
    let left = "p = MatMul(x, w) q = MatMul(x, w) t = MatMul(x, v) y = Sum(p, q, t)";
    // both sides read `p` and `x`: the original to compute `q`, the other for the third value alone, which has
    // another name, or once it is computed
    for right in ["k = MatMul(x, v) y = Sum(p, p, k)", "k = MatMul(x, v) t = Identity(k) y = Sum(p, p, t)"] {
        let right = format!("p = MatMul(x, w) {right}");
        let (original, rewritten) = pair(&header("2.1"), left, &right);
        let found = verify(&original, &rewritten);
        assert!(found.is_same(), "{found}");
        let (_, wrong) = pair(&header("2.1"), left, &right.replace("(x, v)", "(x, w)"));
        assert!(verify(&original, &wrong).difference.is_some());
    }
}

#[test]
fn a_constant_computed_another_way_is_no_difference() {
    let header = |a: &str| {
        format!(
            "main (float[N,2] x) => (float[N,2] y) \
             <float[2] a = {{{a}, 1.1}}, float[2] b = {{-0.7, 3.3}}, float[2] c = {{0.30000001, 1e-3}}>"
        )
    };
    let left = "s = Add(a, b) t = Add(s, c) y = Add(x, t)";
    let right = "u = Add(b, c) t = Add(a, u) y = Add(x, t)";
    let (original, rewritten) = pair(&header("0.1"), left, right);
    let found = verify(&original, &rewritten);
    assert!(found.is_same(), "{found}");
    let (_, wrong) = pair(&header("0.1000003"), left, right);
    assert_eq!(verify(&original, &wrong).difference.unwrap().value, "t");
}

#[test]
fn a_value_keeps_its_sign_where_zeros_are_filled() {
    let header = "main (float[N,3] x) => (float[N,2] y) <float[3,2] w = {1.5,-0.3,0.7,2.1,-1.1,0.9}>";
    let (original, rewritten) =
        pair(header, "r = Relu(x) s = Relu(r) y = MatMul(s, w)", "r = Relu(x) y = MatMul(r, w)");
    let found = verify(&original, &rewritten);
    assert!(found.is_same(), "{found}");
    let (original, rewritten) = pair(
        header,
        "n = Neg(x) r = Relu(x) s = Abs(r) y = MatMul(s, w)",
        "n = Neg(x) r = Relu(x) s = Neg(r) y = MatMul(s, w)",
    );
    assert_eq!(verify(&original, &rewritten).difference.unwrap().value, "s");
}

#[test]
fn a_weight_wrong_in_the_last_place_is_found_where_the_sides_read_different_values() {
    let body = "r = Relu(x) a = Transpose<perm = [0, 2, 1]>(r)";
    let through = |w: &str| format!("{body} b = Transpose<perm = [0, 2, 1]>(r) y = MatMul(b, {w})");
    let (original, same) = pair(SQUARE, &format!("{body} y = MatMul(a, w)"), &through("w"));
    let found = verify(&original, &same);
    assert!(found.is_same(), "{found}");
    let spoiled = SQUARE.replace("2.1", "2.1000002");
    let (_, wrong) = pair(&spoiled, &format!("{body} y = MatMul(a, w)"), &through("w"));
    assert_eq!(verify(&original, &wrong).difference.unwrap().value, "y");
}

#[test]
fn extents_that_only_one_side_reads_open_nothing() {
    let header = "main (float[N,3] x) => (float[N,3] r, float[1,M] y)";
    let (original, rewritten) = pair(
        header,
        "e = Exp(x) r = Relu(e) s = Shape(r) n = Size(x) z = Reshape(r, s) t = Flatten<axis = 0>(z) y = Tanh(t)",
        "e = Exp(x) r = Relu(e) t = Flatten<axis = 0>(r) y = Tanh(t)",
    );
    let found = verify(&original, &rewritten);
    assert!(found.is_same(), "{found}");
}

#[test]
fn zeros_that_no_input_makes_stay_zeros() {
    // the states of a recurrent layer: two zeros that are one after merging
    let header = "main (float[2,3] x) => (float[2,3] y) <int64[2] s = {2,3}>";
    let states = "a = ConstantOfShape(s) b = ConstantOfShape(s) e = Exp(x)";
    let original = format!("{states} f = Add(e, a) g = Mul(f, b) y = Add(g, e)");
    let (original, rewritten) = pair(
        header,
        &original,
        "a = ConstantOfShape(s) e = Exp(x) f = Add(e, a) g = Mul(f, a) y = Add(g, e)",
    );
    let found = verify(&original, &rewritten);
    assert!(found.is_same(), "{found}");
    let wrong = "a = ConstantOfShape(s) e = Exp(x) f = Add(e, a) g = Mul(f, e) y = Add(g, e)";
    let (_, wrong) = pair(header, wrong, wrong);
    assert_eq!(verify(&original, &wrong).difference.unwrap().value, "g");
}

/// Limits that the returned token reaches.
fn cancellable() -> (RunLimits, CancelToken) {
    let cancel = CancelToken::new();
    (RunLimits { cancel: Some(cancel.clone()), ..RunLimits::default() }, cancel)
}

#[test]
fn a_verification_that_is_stopped_is_no_verdict() {
    let original = network(17);
    let mut rewritten = original.clone();
    fcc_rewrite::run(&mut rewritten, &passes::named("default").unwrap(), fcc_rewrite::Options::default())
        .unwrap();
    // stopped while the original runs, and in the rewritten model's run: neither is left out, or differs
    for stop_at in [1, 2] {
        let (limits, cancel) = cancellable();
        let runs = std::cell::Cell::new(0);
        let engine = |model: &Model, inputs: &Values| {
            runs.set(runs.get() + 1);
            if runs.get() == stop_at {
                cancel.cancel();
            }
            interp::run(model, inputs)
        };
        let options = Options { engine: Some(&engine), ..Options::default() };
        let error = limits.within(|| compare(&original, &rewritten, &options)).unwrap_err();
        assert_eq!(error.stopped(), Some(Stopped::Cancelled), "{error}");
    }
    assert!(verify(&original, &rewritten).is_same());
}

#[test]
fn rewriting_ends_between_passes() {
    let passes = passes::named("default").unwrap();
    let (limits, cancel) = cancellable();
    let mut seen = 0;
    let mut hook = |_: fcc_rewrite::Moment, _: usize, _: &str, _: &Model| {
        seen += 1;
        cancel.cancel();
    };
    let options = fcc_rewrite::Options { hook: Some(&mut hook), ..Default::default() };
    let error = limits.within(|| fcc_rewrite::run(&mut network(17), &passes, options)).unwrap_err();
    assert!(error.is_stopped(), "{error}");
    assert_eq!(seen, 1, "nothing follows: {error}");
}

#[test]
fn a_constant_that_is_over_the_limit_is_not_declined() {
    // folding asks for 1 MiB
    let mut model = parse(
        r#"<ir_version: 8, opset_import: ["" : 17]>
main (float[512,512] x) => (float[512,512] y) {
  shape = Constant<value = int64[2] {512, 512}>()
  zeros = ConstantOfShape(shape)
  y = Add(x, zeros)
}"#,
    );
    let passes = passes::named("fold-constants").unwrap();
    let limits = RunLimits { memory_bytes: Some(1 << 19), ..RunLimits::default() };
    let options = fcc_rewrite::Options::default();
    let error = limits.within(|| fcc_rewrite::run(&mut model, &passes, options)).unwrap_err();
    assert!(matches!(error.stopped(), Some(Stopped::Memory { asked_bytes: 1_048_576, .. })), "{error}");
}
