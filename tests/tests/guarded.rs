//! Whole models whose steps run on operands between unreadable pages (`fcc_jit::guard`): a kernel that reaches outside
//! one ends the process. At every level that the machine has, AMX included.
use fcc::Engine;
use fcc::cases::{Status, find, run};
use fcc_ir::convert::to_f32s;
use fcc_ir::interp::{self, Values};
use fcc_ir::{Model, Tensor};
use fcc_jit::{Isa, Options};
use fcc_tests::fixtures;
use std::path::{Path, PathBuf};

/// Options for one and two threads of each level.
fn options() -> Vec<Options> {
    let levels = Isa::ALL.into_iter().filter(|isa| isa.check().is_ok() && Isa::within(*isa) == *isa);
    let both = levels.flat_map(|isa| [(isa, 1), (isa, 2)]);
    let options = both.map(|(isa, threads)| {
        let mut options = Options::with_threads(threads);
        options.isa = isa;
        options
    });
    options.collect()
}

fn logits(outputs: &Values) -> Vec<f32> {
    to_f32s(outputs["logits"].as_tensor().unwrap()).unwrap()
}

fn is_near(model: &Model, image: &Tensor) {
    fcc_jit::guard::every_step(true);
    let inputs = Values::from([("image".to_string(), image.clone().into())]);
    let want = logits(&interp::run(model, &inputs).unwrap());
    for options in options() {
        let got = fcc_jit::compile(model, &options).unwrap().run(&inputs).unwrap();
        let got = logits(&got);
        assert_eq!(got.len(), want.len());
        let worst = got.iter().zip(&want).fold(0f32, |m, (a, b)| m.max((a - b).abs()));
        assert!(worst < 1e-3, "{}: off by {worst}", options.isa);
    }
}

fn few_digits() -> Tensor {
    let image = fixtures::digits().image;
    let pixels = image.as_slice::<f32>().unwrap()[..3 * 784].to_vec();
    Tensor::new(vec![3, 1, 28, 28], pixels).unwrap()
}

#[test]
fn the_mlp_stays_inside_its_operands() {
    is_near(&fixtures::model("mnist_mlp.onnx"), &few_digits());
}

#[test]
fn the_cnn_stays_inside_its_operands() {
    is_near(&fixtures::model("mnist_cnn.onnx"), &few_digits());
}

/// Every case of a folder passes guarded where it passes without.
fn stay_inside(folders: &[PathBuf], options: &[Options]) -> usize {
    let mut passed = 0;
    for options in options {
        for folder in folders {
            fcc_jit::guard::every_step(false);
            if run(folder, Engine::Jit, options).status != Status::Passed {
                continue;
            }
            fcc_jit::guard::every_step(true);
            let outcome = run(folder, Engine::Jit, options);
            let place = format!("{} at {}, {} threads", outcome.name, options.isa, options.threads);
            assert_eq!(outcome.status, Status::Passed, "{place}: {}", outcome.reason);
            passed += 1;
        }
    }
    passed
}

#[test]
fn every_seed_stays_inside_its_operands() {
    let folders = find(&[fixtures::path("seeds")]).unwrap();
    let options = options();
    assert_eq!(stay_inside(&folders, &options), folders.len() * options.len());
}

#[test]
#[ignore = "needs the cases that scripts/backend_cases.py writes"]
fn every_node_case_stays_inside_its_operands() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let cache = std::env::var_os("FCC_CACHE").map_or(root.join(".cache"), PathBuf::from);
    let folders =
        fcc_tests::cases::list(&cache.join("node")).expect("cases written by scripts/backend_cases.py");
    let split: Vec<Options> = options().into_iter().filter(|o| o.threads == 2).collect();
    let passed = stay_inside(&folders, &split);
    println!("{passed} runs of {} cases", folders.len());
    assert!(passed > 0);
}
