//! A rule from outside: the example's, in the place of fcc's own.
#[path = "../examples/custom_rule.rs"]
#[allow(dead_code)]
mod custom_rule;

use fcc::{Op, Registry};

const TEXT: &str = r#"<ir_version: 9, opset_import: ["" : 20]>
main (float[N,5] x) => (float[N,5] y) <float half = {0.5}, float one = {1}, float root = {1.4142135}> {
    d = Div(x, root)
    e = Erf(d)
    s = Add(one, e)
    p = Mul(s, half)
    y = Mul(x, p)
}"#;

#[test]
fn the_example_finds_gelu_in_another_order_reports_it_and_keeps_the_values() {
    let original = fcc_ir::text::parse(TEXT).unwrap();
    let mut registry = Registry::builtin();
    registry.add_rule(custom_rule::gelu()).unwrap();
    let mut model = original.clone();
    let report = fcc::rewrite_with(&mut model, &registry, &["my-gelu", "clean-up"]).unwrap();
    assert_eq!(report.rewritten("my-gelu").count(), 1, "{report}");
    let ops: Vec<Op> = model.graph.ops().unwrap().iter().map(|id| model.graph.op(*id).unwrap().op).collect();
    assert_eq!(ops, [Op::Gelu]);
    let x = fcc::Tensor::new([3, 5], (0..15).map(|i| i as f32 / 4.0 - 2.0).collect::<Vec<_>>()).unwrap();
    let inputs = fcc::Values::from([("x".to_string(), x.into())]);
    let run =
        |m| fcc::interpret(m, &inputs).unwrap()["y"].as_tensor().unwrap().as_slice::<f32>().unwrap().to_vec();
    for (want, got) in run(&original).iter().zip(run(&model)) {
        assert!((want - got).abs() <= 1e-6, "{want} {got}");
    }
}
