//! That guard pages find what they are there for: kernels that state less than they touch.
#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod common;

use common::guard::name_faults;
use fcc_jit::asm::Isa;
use fcc_jit::kernels::ew::{Binary, Dim, Elementwise, Expr, Ins};
use fcc_jit::module::{Buffer, Code};
use fcc_jit::pool::Pool;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

/// Says to the test `wrong` which mistake to make.
const MISTAKE: &str = "FCC_TEST_MISTAKE";

/// The sum of two rows of five, guarded, where operands begin at `base` and state `bytes`.
fn sum(base: Vec<i64>, bytes: Vec<usize>) -> Result<Vec<f32>, String> {
    name_faults();
    let code = vec![Ins::Input(0), Ins::Input(1), Ins::Binary(Binary::Add, 0, 1)];
    let dims = vec![Dim { count: 5, steps: vec![4; 3] }];
    let spec = Elementwise { expr: Expr { code }, dims, base, bytes, types: vec![] };
    let mut code = Code::new(Isa::detect()).unwrap();
    let kernel = spec.build(code.emitter(), 1).unwrap();
    code.finalize().unwrap();
    let mut buffers = [vec![1f32; 8], vec![2f32; 8], vec![0f32; 8]];
    let args = buffers.each_mut().map(|b| Buffer { ptr: b.as_mut_ptr().cast(), bytes: 32 });
    // SAFETY: three live buffers of the sizes that they claim, larger than what is read and written.
    unsafe { code.step(&kernel).unwrap().run_guarded(&Pool::new(1), &args) }.map_err(|e| e.to_string())?;
    let [_, _, y] = buffers;
    Ok(y)
}

#[test]
fn what_stays_inside_is_computed() {
    assert_eq!(sum(vec![0; 3], vec![20; 3]), Ok(vec![3.0, 3.0, 3.0, 3.0, 3.0, 0.0, 0.0, 0.0]));
}

#[test]
fn a_write_outside_is_an_error() {
    let why = sum(vec![0; 3], vec![20, 20, 16]).unwrap_err();
    assert!(why.contains("operand y was written outside"), "{why}");
}

#[test]
#[ignore = "ends its process: `reads_outside_end_the_process_and_name_the_operand` runs it"]
fn wrong() {
    match std::env::var(MISTAKE).as_deref() {
        Ok("behind") => drop(sum(vec![0; 3], vec![16, 20, 20])),
        Ok("before") => drop(sum(vec![0, -4, 0], vec![20; 3])),
        _ => {}
    }
}

#[test]
fn reads_outside_end_the_process_and_name_the_operand() {
    for (mistake, place) in [
        ("behind", " behind the 16 bytes of operand x"),
        ("before", "4 bytes before the 20 bytes of operand x"),
    ] {
        let test = std::env::current_exe().unwrap();
        let run = Command::new(test)
            .args(["--exact", "wrong", "--ignored", "--nocapture"])
            .env(MISTAKE, mistake)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&run.stderr);
        assert_eq!(run.status.signal(), Some(libc::SIGSEGV), "{mistake}: {said}");
        assert!(said.contains("machine code reached") && said.contains(place), "{mistake}: {said}");
    }
}
