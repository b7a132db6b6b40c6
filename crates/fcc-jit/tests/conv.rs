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
    let r_halo = [[(0, 0), (0, 1), (1, 0)], yl.halo][rng.below(2)];
    let residual = (rng.below(3) == 0).then_some(BlockedLayout { halo: r_halo, ..yl });
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
        cut: None,
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
        let runs = conv.bias_runs(isa);
        let (per, lanes) = (case.m / runs, conv.bias_elems(isa) / runs);
        let mut padded = vec![f32::NAN; conv.bias_elems(isa)];
        for g in 0..runs {
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

/// Kernels of one pixel whose layouts may have no halo, and outputs of one row: their pixels are dealt out to threads.
#[test]
fn lines_of_pixels_are_dealt_out() {
    let mut rng = Rng(21);
    for isa in levels() {
        let mut done = 0;
        while done < 40 {
            let one_row = rng.below(2) == 0;
            let mut case = random_case(&mut rng);
            case.m = rng.range(1, 70);
            case.input = [rng.range(1, 2), if one_row { 1 } else { rng.range(1, 11) }, rng.range(1, 50)];
            case.kernel = if one_row { [1, 1, rng.range(1, 9)] } else { [1; 3] };
            case.strides = if one_row { [1, 1, rng.range(1, 3)] } else { [1; 3] };
            (case.begin, case.end) = ([0, 0, 0], [0, 0, if one_row { rng.below(3) } else { 0 }]);
            let threads = rng.range(1, 3);
            done += usize::from(check(isa, &case, &mut rng, isa.lanes(), threads));
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

/// Groups that begin inside channel blocks, in the input, the output or both.
#[test]
fn groups_that_are_not_whole_blocks() {
    let mut rng = Rng(19);
    // vectors of four have no masks for them
    for isa in levels().into_iter().filter(|l| *l != Isa::Baseline) {
        let cb = isa.lanes();
        let half = cb / 2;
        let mut done = 0;
        while done < 40 {
            let size = |rng: &mut Rng| match rng.below(3) {
                0 => half + rng.below(half),
                1 => cb,
                _ => rng.range(half, 4 * cb),
            };
            let (group, ic, oc) = (rng.range(2, 5), size(&mut rng), size(&mut rng));
            let case = random_case(&mut rng);
            let case = ConvCase { c: group * ic, m: group * oc, group, ..case };
            let threads = rng.range(1, 3);
            done += usize::from(check(isa, &case, &mut rng, cb, threads));
        }
    }
}

/// A group's NaN stays in the group.
#[test]
fn groups_do_not_leak() {
    let mut rng = Rng(20);
    // vectors of four have no masks for them
    for isa in levels().into_iter().filter(|l| *l != Isa::Baseline) {
        let cb = isa.lanes();
        let (group, ic, oc) = (3, cb + 3, cb + 5);
        let plane = 4 * 5;
        let layout = |c| BlockedLayout::blocked(1, c, [1, 4, 5], cb);
        let conv = Conv {
            x: layout(group * ic),
            y: layout(group * oc),
            kernel: [1; 3],
            strides: [1; 3],
            dilations: [1; 3],
            pads_begin: [0; 3],
            group,
            bias: false,
            residual: None,
            activation: None,
            cut: None,
        };
        let mut x = rng.ints(group * ic * plane);
        x[ic * plane..2 * ic * plane].fill(f32::NAN);
        let w = rng.ints(group * oc * ic);
        let mut code = Code::new(isa).expect("code");
        let kernel = conv.build(code.emitter(), 1).expect("build");
        code.finalize().expect("finalize");
        let mut packed = vec![f32::NAN; conv.packed_elems(isa)];
        conv.pack_weights(isa, &w, &mut packed).expect("pack");
        let mut buffers = vec![to_layout(&conv.x, &x), packed, vec![f32::NAN; conv.y.bytes() / 4]];
        run(&code, &kernel, &Pool::new(1), &mut buffers);
        let y = from_layout(&conv.y, &buffers[2]);
        for (i, v) in y.iter().enumerate() {
            assert_eq!(v.is_nan(), i / (oc * plane) == 1, "element {i} is {v}");
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
