//! Convolutions of few output channels against plain loops: exact on small integers, at every level.

mod common;
use common::{ConvCase, Rng, levels, run};
use fcc_jit::asm::Isa;
use fcc_jit::kernels::activation::Activation;
use fcc_jit::kernels::layout::BlockedLayout;
use fcc_jit::kernels::narrow::NarrowConv;
use fcc_jit::module::Code;
use fcc_jit::pool::Pool;

/// Computes one case; `None` where it has no output.
fn compute(isa: Isa, case: &ConvCase, rng: &mut Rng, x: &[f32], w: &[f32], threads: usize) -> Option<()> {
    let out = case.out()?;
    let halo = [0, 1, 2].map(|d| (case.begin[d], case.end[d] + rng.below(1 + d)));
    let conv = NarrowConv {
        x: BlockedLayout::plain(case.n, case.c, case.input).with_halo(halo),
        y: BlockedLayout::plain(case.n, case.m, out),
        kernel: [case.kernel[1], case.kernel[2]],
        strides: [case.strides[1], case.strides[2]],
        dilations: [case.dilations[1], case.dilations[2]],
        pads_begin: [case.begin[1], case.begin[2]],
        bias: rng.below(2) == 0,
        residual: rng.below(2) == 0,
        activation: (rng.below(2) == 0).then_some(Activation::Relu),
    };
    let bias = rng.ints(case.m);
    let mut want = case.reference(x, w, if conv.bias { &bias } else { &[] });
    let residual = rng.ints(want.len());
    for (v, r) in want.iter_mut().zip(&residual) {
        *v += if conv.residual { *r } else { 0.0 };
        *v = if conv.activation.is_some() && !v.is_nan() { v.max(0.0) } else { *v };
    }
    let pool = Pool::new(threads);
    let mut code = Code::new(isa).expect("code");
    let mut input = common::to_layout(&conv.x, x);
    if let Some(split) = conv.split() {
        let kernel = split.build(code.emitter(), threads).expect("split");
        code.finalize().expect("finalize");
        // what the copy leaves out must not matter
        let mut buffers = vec![input, vec![f32::NAN; conv.input_elems()]];
        run(&code, &kernel, &pool, &mut buffers);
        input = buffers.remove(1);
    }
    let kernel = conv.build(code.emitter(), threads).unwrap_or_else(|e| panic!("{case:?}: {e}"));
    code.finalize().expect("finalize");
    let mut packed = vec![f32::NAN; conv.packed_elems()];
    conv.pack_weights(w, &mut packed).expect("pack");
    let mut buffers = vec![input, packed];
    if conv.bias {
        buffers.push(bias);
    }
    if conv.residual {
        buffers.push(residual);
    }
    buffers.push(vec![f32::NAN; want.len()]);
    run(&code, &kernel, &pool, &mut buffers);
    let got = buffers.pop().expect("y");
    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
        assert!(g == w || g.is_nan() && w.is_nan(), "{} {case:?}: element {i} is {g}, not {w}", kernel.name);
    }
    Some(())
}

fn random(rng: &mut Rng, isa: Isa) -> ConvCase {
    ConvCase {
        n: [1, 1, 3][rng.below(3)],
        c: rng.range(1, 9),
        m: rng.range(1, isa.lanes() / 2),
        input: [1, rng.range(1, 12), rng.range(1, 70)],
        kernel: [1, rng.range(1, 4), if rng.below(4) == 0 { rng.range(13, 40) } else { rng.range(1, 6) }],
        strides: [1, rng.range(1, 2), rng.range(1, 3)],
        dilations: [1, rng.range(1, 2), rng.range(1, 3)],
        begin: [0, rng.below(3), rng.below(8)],
        end: [0, rng.below(3), rng.below(8)],
        group: 1,
    }
}

#[test]
fn random_convolutions() {
    let mut rng = Rng(31);
    for isa in levels() {
        let mut done = 0;
        while done < 80 {
            let case = random(&mut rng, isa);
            let x = rng.ints(case.n * case.c * case.input.iter().product::<usize>());
            let w = rng.ints(case.m * case.c * case.kernel.iter().product::<usize>());
            let threads = rng.range(1, 2);
            done += usize::from(compute(isa, &case, &mut rng, &x, &w, threads).is_some());
        }
    }
}

/// One row has only its pixels to deal out to threads.
#[test]
fn single_rows_are_cut_across() {
    let mut rng = Rng(33);
    for isa in levels() {
        for (w, kernel, stride) in [(700, 5, 1), (1501, 40, 2), (97, 3, 1), (33, 1, 3), (5, 2, 1)] {
            for threads in 1..=3 {
                let case = ConvCase {
                    n: 1,
                    input: [1, 1, w],
                    kernel: [1, 1, kernel],
                    strides: [1, 1, stride],
                    dilations: [1; 3],
                    begin: [0; 3],
                    end: [0; 3],
                    ..random(&mut rng, isa)
                };
                let x = rng.ints(case.c * w);
                let weights = rng.ints(case.m * case.c * kernel);
                assert!(compute(isa, &case, &mut rng, &x, &weights, threads).is_some());
            }
        }
    }
}

/// NaN and infinity reach the outputs whose windows hold them, and no others.
#[test]
fn what_is_not_finite_stays_in_its_window() {
    let mut rng = Rng(32);
    for isa in levels() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut done = 0;
            while done < 10 {
                let case = random(&mut rng, isa);
                let mut x = rng.ints(case.n * case.c * case.input.iter().product::<usize>());
                let at = rng.below(x.len());
                x[at] = bad;
                let mut w = rng.ints(case.m * case.c * case.kernel.iter().product::<usize>());
                w.iter_mut().for_each(|v| *v += 10.0);
                done += usize::from(compute(isa, &case, &mut rng, &x, &w, 1).is_some());
            }
        }
    }
}
