//! Properties of the assembled code itself.

use fcc_jit::asm::{Asm, Isa};
use fcc_jit::kernels::gemm::{BStorage, Gemm};
use fcc_jit::module::{Buffer, Code};
use fcc_jit::pool::Pool;

/// `vzeroupper; ret`
const END: [u8; 4] = [0xc5, 0xf8, 0x77, 0xc3];

#[test]
fn every_wide_kernel_ends_in_vzeroupper() {
    for isa in [Isa::Avx2, Isa::Avx512] {
        let mut w = Asm::new(isa).expect("assembler");
        w.zero(0).expect("zero");
        w.add(0, 0, 1.0).expect("add");
        let code = w.finish().expect("finish");
        let ends: Vec<usize> = (0..code.len() - 3).filter(|&i| code[i..i + 4] == END).collect();
        assert_eq!(ends.len(), 1, "{isa}");
        // Only the constant, one word or one vector of it, is behind the end.
        let constant = if isa == Isa::Avx512 { 4 } else { 32 };
        assert_eq!(code.len(), ends[0] + 4 + constant, "{isa}");
    }
}

#[test]
fn the_assembler_needs_a_wide_level() {
    assert!(Asm::new(Isa::Baseline).is_err());
}

#[test]
fn small_or_missing_buffers_are_refused() {
    let mut code = Code::new(Isa::detect()).expect("code");
    let gemm = Gemm::new(3, 20, 4, BStorage::InPlace { row: 20 });
    let kernel = match gemm.build(code.emitter(), 1) {
        Ok(kernel) => kernel,
        Err(e) => return assert_eq!(code.isa(), Isa::Baseline, "{e}"),
    };
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
        if code.isa() == Isa::Baseline {
            return;
        }
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
