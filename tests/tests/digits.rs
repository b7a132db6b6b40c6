//! The models that were trained on real digits: what they know, and that both engines give the same answers.
use fcc::Engine;
use fcc_ir::interp::Values;
use fcc_tests::fixtures::{answers, digits, model};

fn answers_of(name: &str, engine: Engine) -> Vec<usize> {
    let model = model(name);
    let runner = engine.prepare(&model, &fcc_jit::Options::default()).unwrap();
    let inputs = Values::from([("image".to_string(), digits().image.into())]);
    answers(&runner.run(&inputs).unwrap()["logits"]).unwrap()
}

fn knows(name: &str, at_least: usize) {
    let labels = digits().labels;
    assert_eq!(labels.len(), 500);
    let compiled = answers_of(name, Engine::Jit);
    let right = compiled.iter().zip(&labels).filter(|(a, b)| a == b).count();
    assert!(right >= at_least, "{name}: {right} of 500 right, wanted {at_least}");
    assert_eq!(compiled, answers_of(name, Engine::Interpreter));
}

#[test]
fn the_mlp_knows_94_of_100_digits_it_never_saw() {
    knows("mnist_mlp.onnx", 470);
}

#[test]
fn the_cnn_knows_97_of_100_digits_it_never_saw() {
    knows("mnist_cnn.onnx", 485);
}
