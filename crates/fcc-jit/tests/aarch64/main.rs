//! Kernels compiled for aarch64, linked with a small C driver and run by an emulator, against plain loops: exact on small
//! integers, within a bound where the function is not.
//!
//! Needs `aarch64-linux-gnu-gcc` and `qemu-aarch64-static`; `scripts/aarch64` installs them and runs this test with
//! `FCC_AARCH64=1`, which makes their absence a failure. Otherwise the test says that it is skipped.

#[path = "../common/mod.rs"]
mod common;
mod problems;
mod run;

use problems::cases;
use run::{Machine, tools};

#[test]
fn kernels_are_right_on_aarch64() {
    let Some(tools) = tools() else {
        assert!(std::env::var_os("FCC_AARCH64").is_none(), "the cross compiler or the emulator is missing");
        eprintln!(
            "skipped: aarch64-linux-gnu-gcc or qemu-aarch64-static is not installed; see scripts/aarch64"
        );
        return;
    };
    let mut machine = Machine::new();
    let cases = cases();
    for case in &cases {
        machine.add(&case.problem, &case.buffers);
    }
    let outputs = machine.run(&tools);
    assert_eq!(outputs.len(), cases.len());
    for (case, y) in cases.iter().zip(&outputs) {
        case.check(y);
    }
}
