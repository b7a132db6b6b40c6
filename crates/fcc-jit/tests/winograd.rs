//! Winograd's convolutions against plain loops: exact on small integers with two outputs a tile, at every level.

mod common;
use common::{ConvCase, Rng, from_layout, levels, run, to_layout};
use fcc_jit::asm::Isa;
use fcc_jit::kernels::activation::Activation;
use fcc_jit::kernels::conv::Conv;
use fcc_jit::kernels::layout::BlockedLayout;
use fcc_jit::kernels::winograd::{Winograd, bilinear::Scheme};
use fcc_jit::module::Code;
use fcc_jit::pool::Pool;

struct Made {
    y: Vec<f32>,
    flag: bool,
}

/// Runs a convolution by these schemes on plain values.
fn compute(isa: Isa, conv: &Conv, schemes: [Scheme; 2], data: [&[f32]; 4], threads: usize) -> Option<Made> {
    let wino = Winograd::new(conv, isa, schemes)?;
    let [x, w, bias, residual] = data;
    let mut code = Code::new(isa).expect("code");
    let kernel = wino.build(code.emitter(), threads).unwrap_or_else(|e| panic!("{conv:?}: {e}"));
    code.finalize().expect("finalize");
    let mut packed = vec![f32::NAN; wino.packed_elems(isa)];
    wino.pack_weights(isa, threads, w, &mut packed).expect("pack");
    let mut buffers = vec![to_layout(&conv.x, x), packed];
    if conv.bias {
        let mut bias = bias.to_vec();
        bias.resize(wino.bias_elems(isa), f32::NAN);
        buffers.push(bias);
    }
    buffers.extend(conv.residual.map(|l| to_layout(&l, residual)));
    buffers.push(vec![f32::NAN; conv.y.bytes() / 4]);
    let scratch = kernel.operands[kernel.operands.len() - 2].bytes / 4;
    buffers.push(vec![f32::NAN; scratch]);
    buffers.push(vec![0.0]);
    run(&code, &kernel, &Pool::new(threads), &mut buffers);
    let flag = buffers.pop().expect("flag")[0].to_bits() != 0;
    buffers.pop();
    Some(Made { y: from_layout(&conv.y, &buffers.pop().expect("y")), flag })
}

/// A random convolution that has the form, with its layouts.
fn random(isa: Isa, rng: &mut Rng) -> Option<(ConvCase, Conv)> {
    let cb = isa.lanes();
    let (group, c, m) = match rng.below(4) {
        0 => (2, 2 * cb * rng.range(1, 2), 2 * cb * rng.range(1, 2)),
        _ => (1, rng.range(1, 70), rng.range(1, 70)),
    };
    let case = ConvCase {
        n: [1, 1, 3][rng.below(3)],
        c,
        m,
        input: [1, rng.range(1, 20), if rng.below(12) == 0 { 130 } else { rng.range(1, 20) }],
        kernel: [1, rng.range(1, 5), rng.range(1, 5)],
        strides: [1, rng.range(1, 2), rng.range(1, 2)],
        dilations: [1; 3],
        begin: [0, rng.below(3), rng.below(3)],
        end: [0, rng.below(3), rng.below(3)],
        group,
    };
    let out = case.out()?;
    let extra = rng.below(2);
    let yl =
        BlockedLayout::blocked(case.n, m, out, cb).with_halo([(0, 0), (rng.below(2), 1), (1, rng.below(2))]);
    let conv = Conv {
        x: BlockedLayout::blocked(case.n, c, case.input, cb)
            .with_halo([0, 1, 2].map(|d| (case.begin[d] + extra, case.end[d]))),
        y: yl,
        kernel: case.kernel,
        strides: case.strides,
        dilations: case.dilations,
        pads_begin: case.begin,
        group,
        bias: rng.below(2) == 0,
        residual: (rng.below(3) == 0).then_some(BlockedLayout { halo: [(0, 0), (0, 1), (1, 0)], ..yl }),
        activation: (rng.below(2) == 0).then_some(Activation::Relu),
        cut: None,
    };
    (!out.contains(&0)).then_some((case, conv))
}

/// What plain loops make of it, residual and activation included.
fn reference(case: &ConvCase, conv: &Conv, [x, w, bias, residual]: [&[f32]; 4]) -> Vec<f32> {
    let mut want = case.reference(x, w, if conv.bias { bias } else { &[] });
    for (v, r) in want.iter_mut().zip(residual) {
        *v += if conv.residual.is_some() { *r } else { 0.0 };
        *v = if conv.activation.is_some() { v.max(0.0) } else { *v };
    }
    want
}

fn schemes(rng: &mut Rng, wide: bool) -> [Scheme; 2] {
    let all = [Scheme::Direct, Scheme::Two, Scheme::Four];
    [0, 1].map(|_| all[rng.below(if wide { 3 } else { 2 })])
}

#[test]
fn two_outputs_are_exact_on_integers() {
    let mut rng = Rng(16);
    for isa in levels() {
        let mut done = 0;
        while done < 30 {
            let Some((case, conv)) = random(isa, &mut rng) else { continue };
            let schemes = schemes(&mut rng, false);
            let x = rng.ints(case.n * case.c * case.input.iter().product::<usize>());
            // halves of halves stay exact
            let w: Vec<f32> = rng
                .ints(case.m * case.c / case.group * case.kernel.iter().product::<usize>())
                .iter()
                .map(|v| v * 4.0)
                .collect();
            let bias = rng.ints(case.m);
            let residual = rng.ints(case.n * case.m * conv.y.spatial.iter().product::<usize>());
            let data = [&x[..], &w, &bias, &residual];
            let threads = rng.range(1, 2);
            let Some(got) = compute(isa, &conv, schemes, data, threads) else { continue };
            assert!(!got.flag, "{schemes:?} {conv:?}");
            for (i, (g, w)) in got.y.iter().zip(&reference(&case, &conv, data)).enumerate() {
                assert!(g == w, "{schemes:?} {case:?} {conv:?}: element {i} is {g}, not {w}");
            }
            done += 1;
        }
    }
}

#[test]
fn four_outputs_stay_near() {
    let mut rng = Rng(17);
    for isa in levels() {
        let mut done = 0;
        while done < 20 {
            let Some((case, conv)) = random(isa, &mut rng) else { continue };
            let schemes = schemes(&mut rng, true);
            if !schemes.contains(&Scheme::Four) {
                continue;
            }
            let x = rng.floats(case.n * case.c * case.input.iter().product::<usize>());
            let k = case.c / case.group * case.kernel.iter().product::<usize>();
            let w = rng.floats(case.m * k);
            let bias = rng.floats(case.m);
            let residual = rng.floats(case.n * case.m * conv.y.spatial.iter().product::<usize>());
            let data = [&x[..], &w, &bias, &residual];
            let Some(got) = compute(isa, &conv, schemes, data, 1) else { continue };
            // sums of k products of values below 1 in magnitude
            let bound = 1e-5 * (k as f32).sqrt() + 1e-6;
            for (i, (g, w)) in got.y.iter().zip(&reference(&case, &conv, data)).enumerate() {
                assert!((g - w).abs() <= bound, "{schemes:?} {case:?}: element {i} is {g}, not {w}");
            }
            done += 1;
        }
    }
}

/// The error against exact sums of values around 1, as a share of the results' root mean square.
fn error(
    isa: Isa,
    kernel: usize,
    stride: usize,
    channels: usize,
    schemes: Option<[Scheme; 2]>,
) -> Option<f64> {
    let case = ConvCase {
        n: 1,
        c: channels,
        m: 16,
        input: [1, 8, 9],
        kernel: [1, kernel, kernel],
        strides: [1, stride, stride],
        dilations: [1; 3],
        begin: [0, kernel / 2, kernel / 2],
        end: [0, kernel / 2, kernel / 2],
        group: 1,
    };
    let pads = [(0, 0), (kernel / 2, kernel / 2), (kernel / 2, kernel / 2)];
    let conv = Conv {
        x: BlockedLayout::blocked(1, case.c, case.input, isa.lanes()).with_halo(pads),
        y: BlockedLayout::blocked(1, case.m, case.out().expect("out"), isa.lanes()),
        kernel: case.kernel,
        strides: case.strides,
        dilations: case.dilations,
        pads_begin: case.begin,
        group: 1,
        bias: false,
        residual: None,
        activation: None,
        cut: None,
    };
    let mut rng = Rng(5);
    let x = rng.floats(case.c * 8 * 9);
    let w = rng.floats(case.m * case.c * kernel * kernel);
    let want = case.reference(&x, &w, &[]);
    let got = match schemes {
        Some(s) => compute(isa, &conv, s, [&x, &w, &[], &[]], 1)?.y,
        None => {
            let mut code = Code::new(isa).expect("code");
            let kernel = conv.build(code.emitter(), 1).expect("direct");
            code.finalize().expect("finalize");
            let mut packed = vec![0.0; conv.packed_elems(isa)];
            conv.pack_weights(isa, &w, &mut packed).expect("pack");
            let mut buffers = vec![to_layout(&conv.x, &x), packed, vec![0.0; conv.y.bytes() / 4]];
            run(&code, &kernel, &Pool::new(1), &mut buffers);
            from_layout(&conv.y, &buffers[2])
        }
    };
    let square = |v: f64| v * v;
    let errors: f64 = got.iter().zip(&want).map(|(g, w)| square(f64::from(g - w))).sum();
    let all: f64 = want.iter().map(|w| square(f64::from(*w))).sum();
    Some((errors / all).sqrt())
}

/// What lets two outputs a tile into plain f32: `want` here is rounded from f64 once, so half a unit is in every error.
#[test]
fn two_outputs_are_as_accurate_as_plain_sums() {
    for isa in levels() {
        for (kernel, stride, channels) in [(3, 1, 64), (3, 1, 256), (3, 2, 64), (5, 1, 64), (5, 2, 32)] {
            let plain = error(isa, kernel, stride, channels, None).expect("direct");
            for schemes in [[Scheme::Two; 2], [Scheme::Two, Scheme::Direct], [Scheme::Direct, Scheme::Two]] {
                let wino = error(isa, kernel, stride, channels, Some(schemes)).expect("fits");
                assert!(wino <= 1.02 * plain, "{kernel}/{stride} {channels} {schemes:?}: {wino:e} {plain:e}");
            }
            // some need more registers than AVX2 has
            let Some(wide) = error(isa, kernel, stride, channels, Some([Scheme::Four; 2])) else { continue };
            assert!(wide <= 6.0 * plain, "{kernel}/{stride} {channels}: {wide:e} {plain:e}");
        }
    }
}

/// Numbers that are not finite raise the flag, and so do sums that overflow on the way.
#[test]
fn what_is_not_finite_raises_the_flag() {
    let mut rng = Rng(18);
    for isa in levels() {
        for bad in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 3e38] {
            let mut done = 0;
            while done < 3 {
                let Some((case, conv)) = random(isa, &mut rng) else { continue };
                let size = case.n * case.c * case.input.iter().product::<usize>();
                let mut x = rng.ints(size);
                // all inputs of one image: some window reads one of them, some tile two of them
                x.iter_mut().for_each(|v| *v = bad);
                let w = vec![4.0; case.m * case.c / case.group * case.kernel.iter().product::<usize>()];
                let bias = rng.ints(case.m);
                let residual = rng.ints(case.n * case.m * conv.y.spatial.iter().product::<usize>());
                let schemes = schemes(&mut rng, true);
                let Some(got) = compute(isa, &conv, schemes, [&x, &w, &bias, &residual], 1) else { continue };
                // a window of padding alone reads nothing
                let reads = reference(
                    &case,
                    &Conv { activation: None, ..conv.clone() },
                    [&vec![1.0; size], &w, &vec![0.0; case.m], &vec![0.0; residual.len()]],
                );
                assert!(got.flag || reads.iter().all(|v| *v == 0.0), "{bad} {schemes:?} {case:?}");
                done += 1;
            }
        }
    }
}
