//! The models that were trained on real digits: what they know, and that both engines give the same answers.
use fcc::Engine;
use fcc_ir::interp::Values;
use fcc_ir::{Model, Tensor};
use fcc_rewrite::{Outcome, passes};
use fcc_tests::fixtures::{answers, digits, model};

fn answers_of(model: &Model, engine: Engine, image: &Tensor) -> Vec<usize> {
    let runner = engine.prepare(model, &fcc_jit::Options::default()).unwrap();
    let inputs = Values::from([("image".to_string(), image.clone().into())]);
    answers(&runner.run(&inputs).unwrap()["logits"]).unwrap()
}

/// Every `step`th digit.
fn some(image: &Tensor, step: usize) -> Tensor {
    let pixels = image.as_slice::<f32>().unwrap();
    let kept: Vec<f32> = pixels.chunks_exact(784).step_by(step).flatten().copied().collect();
    Tensor::new(vec![kept.len() / 784, 1, 28, 28], kept).unwrap()
}

fn knows(name: &str, at_least: usize) {
    let (model, digits) = (model(name), digits());
    assert_eq!(digits.labels.len(), 500);
    let compiled = answers_of(&model, Engine::Jit, &digits.image);
    let right = compiled.iter().zip(&digits.labels).filter(|(a, b)| a == b).count();
    assert!(right >= at_least, "{name}: {right} of 500 right, wanted {at_least}");
    let every_fifth: Vec<usize> = compiled.into_iter().step_by(5).collect();
    assert_eq!(every_fifth, answers_of(&model, Engine::Interpreter, &some(&digits.image, 5)));
}

/// After each rule the answers stay: to all 500 compiled, to every fiftieth in the interpreter (scripts/check asks
/// both, and ONNX Runtime, all 500). `rewritten` is how many nodes each rule must rewrite.
fn answers_stay(name: &str, rewritten: &[(&str, usize)]) {
    let (before, image) = (model(name), digits().image);
    let few = some(&image, 50);
    let (all_answers, few_answers) =
        (answers_of(&before, Engine::Jit, &image), answers_of(&before, Engine::Interpreter, &few));
    for &(rule, count) in rewritten {
        let mut after = before.clone();
        let passes = passes::named(rule).unwrap();
        let report = fcc_rewrite::run(&mut after, &passes, fcc_rewrite::Options::default()).unwrap();
        let fired = report.rows.iter().filter(|r| r.outcome == Outcome::Rewritten && r.rule == rule).count();
        assert_eq!(fired, count, "{name}: {rule}\n{}", report.to_table());
        assert!(answers_of(&after, Engine::Jit, &image) == all_answers, "{name}: {rule} changed an answer");
        let kept = answers_of(&after, Engine::Interpreter, &few) == few_answers;
        assert!(kept, "{name}: {rule} changed an answer of the interpreter");
    }
}

#[test]
fn the_mlp_knows_94_of_100_digits_it_never_saw() {
    knows("mnist_mlp.onnx", 470);
}

#[test]
fn the_cnn_knows_97_of_100_digits_it_never_saw() {
    knows("mnist_cnn.onnx", 485);
}

#[test]
fn the_mlp_answers_the_same_after_each_rule() {
    answers_stay("mnist_mlp.onnx", &[("linear-to-full-kernel-conv", 1), ("linear-to-pointwise-conv", 2)]);
}

#[test]
fn the_cnn_answers_the_same_after_each_rule() {
    let rules = [
        ("linear-to-full-kernel-conv", 1),
        ("linear-to-pointwise-conv", 1),
        ("conv-to-im2col-gemm", 2),
        ("conv-to-toeplitz-gemm", 2),
    ];
    answers_stay("mnist_cnn.onnx", &rules);
}
