//! Properties of the assembled code itself.

mod common;
use common::{Rng, run};
use fcc_jit::asm::{Asm, Isa};
use fcc_jit::error::Error;
use fcc_jit::kernels::activation::Activation;
use fcc_jit::kernels::gemm::{BStorage, Gemm};
use fcc_jit::module::{Buffer, Code, flags};
use fcc_jit::pool::Pool;

/// `vzeroupper; ret`
const END: [u8; 4] = [0xc5, 0xf8, 0x77, 0xc3];

#[test]
fn wide_code_ends_in_vzeroupper() {
    for isa in [Isa::Avx2, Isa::Avx512] {
        let mut w = Asm::new(isa).expect("assembler");
        w.zero(0).expect("zero");
        w.add(0, 0, 1.0).expect("add");
        let code = w.finish().expect("finish");
        let code = code.bytes().expect("machine code");
        let ends: Vec<usize> = (0..code.len() - 3).filter(|&i| code[i..i + 4] == END).collect();
        assert_eq!(ends.len(), 1, "{isa}");
        // Only the constant, one word or one vector of it, is behind the end.
        let constant = if isa == Isa::Avx512 { 4 } else { 32 };
        assert_eq!(code.len(), ends[0] + 4 + constant, "{isa}");
    }
}

#[test]
fn instructions_of_one_machine_have_no_baseline() {
    let mut w = Asm::new(Isa::Baseline).expect("assembler");
    w.zero(0).expect("zero");
    w.a.nop().expect("nop");
    let why = w.finish().expect_err("refused");
    assert!(matches!(why, Error::Unsupported { .. }), "{why}");
}

/// A module for x86-64 with these features and no others.
#[cfg(target_arch = "x86_64")]
fn older(features: &[&str]) -> Code {
    use cranelift_codegen::settings::Configurable;
    let mut target = cranelift_native::builder_with_options(false).expect("target");
    for feature in features {
        target.enable(feature).expect("feature");
    }
    let target = target.finish(flags(false, Isa::Baseline).expect("flags")).expect("target");
    Code::for_target(target, Isa::Baseline).expect("code")
}

#[cfg(target_arch = "x86_64")]
#[test]
fn cpus_without_fused_products_compute_too() {
    let mut code = older(&["has_sse3", "has_ssse3", "has_sse41"]);
    let mut gemm = Gemm::new(5, 19, 33, BStorage::InPlace { row: 19 });
    gemm.activation = Some(Activation::Tanh);
    let kernel = gemm.build(code.emitter(), 1).expect("build");
    code.finalize().expect("finalize");
    let mut rng = Rng(9);
    let (a, b) = (rng.floats(5 * 33), rng.floats(33 * 19));
    let mut buffers = vec![a.clone(), b.clone(), vec![f32::NAN; 5 * 19]];
    run(&code, &kernel, &Pool::new(1), &mut buffers);
    for (i, &got) in buffers[2].iter().enumerate() {
        let product = |k: usize| f64::from(a[i / 19 * 33 + k]) * f64::from(b[k * 19 + i % 19]);
        let want = (0..33).map(product).sum::<f64>().tanh();
        assert!((f64::from(got) - want).abs() < 5e-6, "element {i} is {got}, not {want}");
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn cpus_without_sse41_are_left_to_the_interpreter() {
    let mut code = older(&[]);
    let why = Gemm::new(2, 3, 4, BStorage::InPlace { row: 3 }).build(code.emitter(), 1).expect_err("refused");
    assert!(matches!(why, Error::Unsupported { .. }), "{why}");
}

#[test]
fn small_or_missing_buffers_are_refused() {
    let mut code = Code::new(Isa::detect()).expect("code");
    let gemm = Gemm::new(3, 20, 4, BStorage::InPlace { row: 20 });
    let kernel = gemm.build(code.emitter(), 1).expect("build");
    code.finalize().expect("finalize");
    let step = code.step(&kernel).expect("step");
    let mut data = vec![0f32; 80];
    let ptr = data.as_mut_ptr().cast();
    let pool = Pool::new(1);
    let buffer = |bytes| Buffer { ptr, bytes };
    for args in [
        &[][..],
        &[buffer(48), buffer(320)],
        &[buffer(48), buffer(316), buffer(240)],
        &[buffer(48), buffer(320), buffer(0)],
    ] {
        // SAFETY: the call is refused before any code runs.
        assert!(unsafe { step.run(&pool, args) }.is_err());
    }
}

#[test]
fn code_is_sent_between_threads_and_freed() {
    for _ in 0..20 {
        let mut code = Code::new(Isa::detect()).expect("code");
        let kernel =
            Gemm::new(2, 3, 4, BStorage::InPlace { row: 3 }).build(code.emitter(), 1).expect("build");
        code.finalize().expect("finalize");
        let step = code.step(&kernel).expect("step");
        let code = std::thread::spawn(move || {
            let (mut a, mut b, mut y) = ([1f32; 8], [2f32; 12], [0f32; 6]);
            let args = [(&mut a[..]), &mut b, &mut y]
                .map(|v| Buffer { ptr: v.as_mut_ptr().cast(), bytes: v.len() * 4 });
            // SAFETY: three live arrays of the sizes they claim; `code` lives in this thread.
            unsafe { step.run(&Pool::new(1), &args) }.expect("run");
            assert_eq!(y, [8.0; 6]);
            code
        });
        drop(code.join().expect("thread"));
    }
}
