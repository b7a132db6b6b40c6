//! Convolutions against plain loops: exact on small integers, at every level.

mod common;
use common::{ConvCase, Rng, from_layout, levels, run, to_layout};
use fcc_jit::asm::Isa;
use fcc_jit::kernels::activation::Activation;
use fcc_jit::kernels::conv::Conv;
use fcc_jit::kernels::layout::BlockedLayout;
use fcc_jit::module::Code;
use fcc_jit::pool::Pool;

/// Runs one case; returns false when the kernel declines it.
fn check(isa: Isa, case: &ConvCase, rng: &mut Rng, x_cb: usize, threads: usize) -> bool {
    let Some(out) = case.out() else { return false };
    let cb = isa.lanes();
    let extra = rng.below(2);
    let halo = [0, 1, 2].map(|d| (case.begin[d] + extra, case.end[d] + extra));
    let y_halo = [(0, 0), (rng.below(2), rng.below(3)), (rng.below(3), rng.below(2))];
    let xl = BlockedLayout::blocked(case.n, case.c, case.input, x_cb).with_halo(halo);
    let yl = BlockedLayout::blocked(case.n, case.m, out, cb).with_halo(if rng.below(3) == 0 {
        Default::default()
    } else {
        y_halo
    });
    let residual = (rng.below(3) == 0).then_some(BlockedLayout { halo: [(0, 0), (0, 1), (1, 0)], ..yl });
    let conv = Conv {
        x: xl,
        y: yl,
        kernel: case.kernel,
        strides: case.strides,
        dilations: case.dilations,
        pads_begin: case.begin,
        group: case.group,
        bias: rng.below(2) == 0,
        residual,
        activation: (rng.below(2) == 0).then_some(Activation::Relu),
    };
    if !conv.handles_group(isa) {
        return false;
    }
    let x = rng.ints(case.n * case.c * case.input.iter().product::<usize>());
    let w = rng.ints(case.m * case.c / case.group * case.kernel.iter().product::<usize>());
    let bias = if conv.bias { rng.ints(case.m) } else { vec![] };
    let mut want = case.reference(&x, &w, &bias);
    let r = rng.ints(want.len());
    for (v, r) in want.iter_mut().zip(&r) {
        *v += if residual.is_some() { *r } else { 0.0 };
        *v = if conv.activation.is_some() { v.max(0.0) } else { *v };
    }
    let mut code = Code::new(isa).expect("code");
    let kernel = conv.build(code.emitter(), threads).unwrap_or_else(|e| panic!("{case:?}: {e}"));
    code.finalize().expect("finalize");
    let mut packed = vec![f32::NAN; conv.packed_elems(isa)];
    conv.pack_weights(isa, &w, &mut packed).expect("pack");
    let mut buffers = vec![to_layout(&xl, &x), packed];
    if conv.bias {
        let (per, lanes) = (case.m / case.group, conv.bias_elems(isa) / case.group);
        let mut padded = vec![f32::NAN; conv.bias_elems(isa)];
        for g in 0..case.group {
            padded[g * lanes..g * lanes + per].copy_from_slice(&bias[g * per..(g + 1) * per]);
        }
        buffers.push(padded);
    }
    buffers.extend(residual.map(|l| to_layout(&l, &r)));
    buffers.push(vec![f32::NAN; yl.bytes() / 4]);
    run(&code, &kernel, &Pool::new(threads), &mut buffers);
    let got = from_layout(&yl, &buffers.pop().expect("y"));
    for (i, (g, w)) in got.iter().zip(&want).enumerate() {
        assert!(g == w, "{} {case:?} {conv:?}: element {i} is {g}, not {w}", kernel.name);
    }
    true
}

fn random_case(rng: &mut Rng) -> ConvCase {
    let rank = rng.range(1, 3);
    let mut case = ConvCase {
        n: [1, 1, 3][rng.below(3)],
        c: rng.range(1, 40),
        m: rng.range(1, 40),
        input: [1; 3],
        kernel: [1; 3],
        strides: [1; 3],
        dilations: [1; 3],
        begin: [0; 3],
        end: [0; 3],
        group: 1,
    };
    for d in 3 - rank..3 {
        case.input[d] = rng.range(1, if rank == 3 { 7 } else { 19 });
        case.kernel[d] = rng.range(1, 5);
        case.strides[d] = rng.range(1, 3);
        case.dilations[d] = rng.range(1, 2);
        case.begin[d] = rng.below(4);
        case.end[d] = rng.below(4);
    }
    case
}

#[test]
fn random_dense_convolutions() {
    let mut rng = Rng(11);
    for isa in levels() {
        let mut done = 0;
        while done < 60 {
            let case = random_case(&mut rng);
            let x_cb = if rng.below(4) == 0 { 1 } else { isa.lanes() };
            let threads = rng.range(1, 3);
            done += usize::from(check(isa, &case, &mut rng, x_cb, threads));
        }
    }
}

#[test]
fn channels_1_to_40() {
    let mut rng = Rng(12);
    for isa in levels() {
        for c in 1..=40 {
            for (c, m) in [(c, 5), (7, c)] {
                let case = ConvCase {
                    n: 1,
                    c,
                    m,
                    input: [1, 5, 6],
                    kernel: [1, 3, 2],
                    begin: [0, 1, 0],
                    end: [0, 1, 1],
                    ..random_case(&mut rng)
                };
                let case = ConvCase { strides: [1; 3], dilations: [1; 3], ..case };
                assert!(check(isa, &case, &mut rng, isa.lanes(), 1));
            }
        }
    }
}

#[test]
fn groups_of_whole_blocks() {
    let mut rng = Rng(13);
    for isa in levels() {
        let cb = isa.lanes();
        for (group, ic, oc) in [(2, cb, cb), (3, cb, 2 * cb), (2, 2 * cb, cb)] {
            let case = ConvCase {
                n: 2,
                c: group * ic,
                m: group * oc,
                input: [1, 6, 9],
                kernel: [1, 3, 3],
                group,
                ..random_case(&mut rng)
            };
            let case =
                ConvCase { strides: [1, 2, 1], dilations: [1; 3], begin: [0, 1, 1], end: [0, 1, 1], ..case };
            assert!(check(isa, &case, &mut rng, cb, 2));
        }
    }
}

#[test]
fn kernel_larger_than_the_input() {
    let mut rng = Rng(14);
    for isa in levels() {
        let case = ConvCase {
            n: 1,
            c: 20,
            m: 18,
            input: [1, 2, 3],
            kernel: [1, 7, 5],
            begin: [0, 3, 2],
            end: [0, 4, 2],
            ..random_case(&mut rng)
        };
        let case = ConvCase { strides: [1; 3], dilations: [1; 3], ..case };
        assert!(check(isa, &case, &mut rng, isa.lanes(), 1));
    }
}

#[test]
fn many_channels_are_cut_into_chunks() {
    let mut rng = Rng(15);
    for isa in levels() {
        let case = ConvCase {
            n: 1,
            c: 70 * isa.lanes() + 3,
            m: 40,
            input: [1, 7, 7],
            kernel: [1, 3, 3],
            begin: [0, 1, 1],
            end: [0, 1, 1],
            ..random_case(&mut rng)
        };
        let case = ConvCase { strides: [1; 3], dilations: [1; 3], ..case };
        assert!(check(isa, &case, &mut rng, isa.lanes(), 2));
    }
}

#[test]
fn winograd_of_any_size() {
    use fcc_jit::kernels::winograd::Winograd;
    let mut rng = Rng(16);
    for isa in levels() {
        for i in 0..40 {
            let (c, m) = (rng.range(1, 70), rng.range(1, 70));
            let case = ConvCase {
                n: rng.range(1, 2),
                c,
                m,
                input: [1, rng.range(1, 20), rng.range(1, 20)],
                kernel: [1, 3, 3],
                ..random_case(&mut rng)
            };
            let pads = [0, rng.below(3), rng.below(3)];
            let mut case = ConvCase {
                strides: [1; 3],
                dilations: [1; 3],
                begin: pads,
                end: [0, rng.below(3), rng.below(3)],
                group: 1,
                ..case
            };
            if i % 20 == 0 {
                case.input = [1, 5, 150];
            }
            let Some(out) = case.out() else { continue };
            if out.contains(&0) {
                continue;
            }
            let cb = isa.lanes();
            let halo = [0, 1, 2].map(|d| (case.begin[d] + i % 2, case.end[d]));
            let yl = BlockedLayout::blocked(case.n, m, out, cb).with_halo([
                (0, 0),
                (rng.below(2), 1),
                (1, rng.below(2)),
            ]);
            let conv = Conv {
                x: BlockedLayout::blocked(case.n, c, case.input, cb).with_halo(halo),
                y: yl,
                kernel: case.kernel,
                strides: case.strides,
                dilations: case.dilations,
                pads_begin: case.begin,
                group: 1,
                bias: rng.below(2) == 0,
                residual: (rng.below(3) == 0)
                    .then_some(BlockedLayout { halo: [(0, 0), (0, 1), (1, 0)], ..yl }),
                activation: (rng.below(2) == 0).then_some(Activation::Relu),
            };
            let threads = rng.range(1, 2);
            let wino = Winograd { conv: conv.clone() };
            let mut code = Code::new(isa).expect("code");
            let kernel = wino.build(code.emitter(), threads).unwrap_or_else(|e| panic!("{case:?}: {e}"));
            code.finalize().expect("finalize");
            // Weights in quarters' multiples keep every step exact.
            let x = rng.ints(case.n * c * case.input.iter().product::<usize>());
            let w: Vec<f32> = rng.ints(m * c * 9).iter().map(|v| v * 4.0).collect();
            let mut bias = rng.ints(if conv.bias { m } else { 0 });
            let mut want = case.reference(&x, &w, &bias);
            let r = rng.ints(want.len());
            for (v, r) in want.iter_mut().zip(&r) {
                *v += if conv.residual.is_some() { *r } else { 0.0 };
                *v = if conv.activation.is_some() { v.max(0.0) } else { *v };
            }
            let mut packed = vec![f32::NAN; wino.packed_elems(isa)];
            wino.pack_weights(isa, threads, &w, &mut packed).expect("pack");
            let mut buffers = vec![to_layout(&conv.x, &x), packed];
            if conv.bias {
                bias.resize(wino.bias_elems(isa), f32::NAN);
                buffers.push(bias);
            }
            buffers.extend(conv.residual.map(|l| to_layout(&l, &r)));
            buffers.push(vec![f32::NAN; yl.bytes() / 4]);
            let scratch = kernel.operands.last().expect("scratch").bytes / 4;
            buffers.push(vec![f32::NAN; scratch]);
            run(&code, &kernel, &Pool::new(threads), &mut buffers);
            buffers.pop();
            let got = from_layout(&yl, &buffers.pop().expect("y"));
            for (i, (g, w)) in got.iter().zip(&want).enumerate() {
                assert!(g == w, "{} {case:?} {conv:?}: element {i} is {g}, not {w}", kernel.name);
            }
        }
    }
}
