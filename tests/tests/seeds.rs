//! The numbers of the notebooks (`fixtures/seeds`, written and explained by `fixtures/make_seeds.py`).
use fcc::Engine;
use fcc::cases::{Status, find, run};
use fcc_tests::fixtures;

fn every_seed_passes(engine: Engine) {
    let folders = find(&[fixtures::path("seeds")]).unwrap();
    assert_eq!(folders.len(), 16);
    for folder in folders {
        let outcome = run(&folder, engine, &fcc_jit::Options::with_threads(1));
        assert_eq!(outcome.status, Status::Passed, "{}: {}", outcome.name, outcome.reason);
    }
}

#[test]
fn every_seed_passes_in_the_interpreter() {
    every_seed_passes(Engine::Interpreter);
}

#[test]
fn every_seed_passes_compiled() {
    every_seed_passes(Engine::Jit);
}
