//! `FCC_MAX_ISA` limits what is detected, and is an error where it names no level.
mod common;
use common::{Answer, answer, fixture};
use fcc_jit::Isa;
use std::process::Command;

/// `fcc COMMAND mnist_cnn.onnx` with the variable.
fn limited(limit: &str, command: &[&str]) -> Answer {
    let output = Command::new(env!("CARGO_BIN_EXE_fcc"))
        .args(command)
        .arg(fixture("mnist_cnn.onnx"))
        .args(["--set", "batch=1"])
        .env(fcc_jit::MAX_ISA, limit)
        .output()
        .expect("fcc starts");
    answer(&output, limit)
}

#[test]
fn plans_are_held_to_the_level() {
    for isa in [Isa::Baseline, Isa::Avx2] {
        let plan = limited(isa.name(), &["explain", "--random", "1", "--json"]).ok().json();
        assert_eq!(plan["isa"], Isa::within(isa).name());
    }
}

#[test]
fn a_name_that_is_no_level_is_an_error() {
    for name in ["", "avx", "AVX2", "avx512 "] {
        let message = limited(name, &["run", "--random", "1"]).refusal();
        assert!(message.contains("FCC_MAX_ISA") && message.contains(&format!("{name:?}")), "{message}");
    }
}

#[test]
fn amx_beyond_the_limit_is_an_error() {
    let message = limited("avx2", &["run", "--random", "1", "--isa", "amx"]).refusal();
    assert!(message.contains("FCC_MAX_ISA=avx2") && message.contains("AMX"), "{message}");
}
