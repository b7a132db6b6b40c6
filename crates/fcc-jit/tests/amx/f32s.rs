//! Products and convolutions of f32 by bf16 terms: exact on small integers, as near to exact sums as plain f32 on others,
//! and flagged where tiles would compute otherwise.

use crate::common::amx::{amx, assert_released};
use crate::common::{ConvCase, Rng, from_layout, run, to_layout};
use fcc_jit::asm::Isa;
use fcc_jit::kernels::activation::Activation;
use fcc_jit::kernels::amx::conv::AmxConv;
use fcc_jit::kernels::amx::gemm::AmxGemm;
use fcc_jit::kernels::amx::regroup::Regroup;
use fcc_jit::kernels::amx::{LARGEST, SMALLEST, Terms};
use fcc_jit::kernels::conv::Conv;
use fcc_jit::kernels::gemm::{BStorage, BatchDim, Gemm, GemmBias, GemmResidual};
use fcc_jit::kernels::layout::BlockedLayout;
use fcc_jit::module::Code;
use fcc_jit::pool::Pool;

const TERMS: [Terms; 2] = [Terms::Three, Terms::Six];

struct Made {
    y: Vec<f32>,
    flag: bool,
}

/// Runs the step that regroups; its result, and whether it raised the flag.
fn regroup(code: &mut Code, how: &Regroup, x: Vec<f32>, pool: &Pool) -> (Vec<f32>, bool) {
    let kernel = how.build(code.emitter(), pool.threads()).expect("regroup");
    code.finalize().expect("finalize");
    let mut buffers = vec![x, vec![f32::NAN; how.bytes() / 4], vec![0.0]];
    run(code, &kernel, pool, &mut buffers);
    (buffers.swap_remove(1), buffers[1].to_bits() != 0)
}

trait ToBits {
    fn to_bits(&self) -> u32;
}
impl ToBits for Vec<f32> {
    fn to_bits(&self) -> u32 {
        self[0].to_bits()
    }
}

/// That every thread of the pool has given its tiles up.
fn all_released(pool: &Pool) {
    pool.run(pool.threads(), &|_| assert_released());
}

fn convolve(conv: &Conv, terms: Terms, data: [&[f32]; 4], threads: usize) -> Made {
    let amx = AmxConv::new(conv, terms).unwrap_or_else(|why| panic!("{why}: {conv:?}"));
    let [x, w, bias, residual] = data;
    let (mut code, pool) = (Code::new(Isa::Amx).expect("code"), Pool::new(threads));
    let (x, flag) = regroup(&mut code, &amx.regroup(), to_layout(&conv.x, x), &pool);
    let kernel = amx.build(code.emitter(), threads).unwrap_or_else(|e| panic!("{conv:?}: {e}"));
    code.finalize().expect("finalize");
    assert!(kernel.name.contains("amx"), "{}", kernel.name);
    let mut packed = vec![f32::NAN; amx.packed_elems()];
    amx.pack(w, conv.bias.then_some(bias), &mut packed).expect("pack");
    let mut buffers = vec![x, packed];
    buffers.extend(conv.residual.map(|l| to_layout(&l, residual)));
    buffers.push(vec![f32::NAN; conv.y.bytes() / 4]);
    run(&code, &kernel, &pool, &mut buffers);
    all_released(&pool);
    Made { y: from_layout(&conv.y, &buffers.pop().expect("y")), flag }
}

/// A random convolution with its layouts, of 1 to 40 channels or in groups of whole tiles.
fn random(rng: &mut Rng) -> Option<(ConvCase, Conv)> {
    let cb = 16;
    let (group, c, m) = match rng.below(5) {
        0 => (2, 64, 32 * rng.range(1, 2)),
        _ => (1, rng.range(1, 40), rng.range(1, 40)),
    };
    let size = |rng: &mut Rng| if rng.below(6) == 0 { rng.range(17, 36) } else { rng.range(1, 8) };
    let case = ConvCase {
        n: [1, 1, 3][rng.below(3)],
        c,
        m,
        input: [[1, 1, 2][rng.below(3)], rng.range(1, 6), size(rng)],
        kernel: [1, rng.range(1, 3), rng.range(1, 3)],
        strides: [1, rng.range(1, 2), rng.range(1, 2)],
        dilations: [1, rng.range(1, 2), rng.range(1, 2)],
        begin: [0, rng.below(3), rng.below(3)],
        end: [0, rng.below(3), rng.below(3)],
        group,
    };
    let out = case.out()?;
    let extra = rng.below(2);
    let yl =
        BlockedLayout::blocked(case.n, m, out, cb).with_halo([(0, 0), (rng.below(2), 1), (1, rng.below(2))]);
    let tight = rng.below(2) == 0 && case.begin == [0; 3] && case.end == [0; 3];
    let halo = [0, 1, 2].map(|d| (case.begin[d] + extra, case.end[d]));
    let xl = BlockedLayout::blocked(case.n, c, case.input, cb);
    let conv = Conv {
        x: if tight { xl } else { xl.with_halo(halo) },
        y: if tight { BlockedLayout { halo: [(0, 0); 3], ..yl } } else { yl },
        kernel: case.kernel,
        strides: case.strides,
        dilations: case.dilations,
        pads_begin: case.begin,
        group,
        bias: rng.below(2) == 0,
        residual: (rng.below(3) == 0).then_some(BlockedLayout { halo: [(0, 0), (0, 1), (1, 0)], ..yl }),
        activation: [None, Some(Activation::Relu), Some(Activation::Clip { low: -9.0, high: 20.0 })]
            [rng.below(3)],
        cut: None,
    };
    (!out.contains(&0)).then_some((case, conv))
}

/// What plain loops make of it, residual and activation included.
fn reference(case: &ConvCase, conv: &Conv, [x, w, bias, residual]: [&[f32]; 4]) -> Vec<f32> {
    let mut want = case.reference(x, w, if conv.bias { bias } else { &[] });
    for (v, r) in want.iter_mut().zip(residual) {
        *v += if conv.residual.is_some() { *r } else { 0.0 };
        *v = match conv.activation {
            None => *v,
            Some(Activation::Relu) => v.max(0.0),
            _ => v.clamp(-9.0, 20.0),
        };
    }
    want
}

fn numbers(case: &ConvCase, conv: &Conv, make: &mut dyn FnMut(usize) -> Vec<f32>) -> [Vec<f32>; 4] {
    let taps: usize = case.kernel.iter().product();
    [
        make(case.n * case.c * case.input.iter().product::<usize>()),
        make(case.m * case.c / case.group * taps),
        make(case.m),
        make(case.n * case.m * conv.y.spatial.iter().product::<usize>()),
    ]
}

#[test]
fn convolutions_are_exact_on_integers() {
    if amx().is_none() {
        return;
    }
    let mut rng = Rng(43);
    let mut done = 0;
    while done < 60 {
        let Some((case, conv)) = random(&mut rng) else { continue };
        let data = numbers(&case, &conv, &mut |n| rng.ints(n));
        let data = [&data[0][..], &data[1], &data[2], &data[3]];
        let want = reference(&case, &conv, data);
        for terms in TERMS {
            let got = convolve(&conv, terms, data, 1 + done % 2);
            assert!(!got.flag, "{conv:?}");
            for (i, (g, w)) in got.y.iter().zip(&want).enumerate() {
                assert!(g == w, "{terms:?} {conv:?}: element {i} is {g}, not {w}");
            }
        }
        done += 1;
    }
}

/// Every count of channels up to 40, with odd rows and columns.
#[test]
fn every_count_of_channels_is_exact() {
    if amx().is_none() {
        return;
    }
    let mut rng = Rng(44);
    for c in 1..=40 {
        let (m, input) = (41 - c, [1, 3, 5 + c % 14]);
        let case = ConvCase {
            n: 1,
            c,
            m,
            input,
            kernel: [1, 1 + c % 3, 1 + c % 2],
            strides: [1; 3],
            dilations: [1; 3],
            begin: [0, c % 2, 0],
            end: [0, 1, c % 2],
            group: 1,
        };
        let Some(out) = case.out() else { continue };
        let conv = Conv {
            x: BlockedLayout::blocked(1, c, input, 16).with_halo([(0, 0), (case.begin[1], 1), (0, c % 2)]),
            y: BlockedLayout::blocked(1, m, out, 16),
            kernel: case.kernel,
            strides: case.strides,
            dilations: case.dilations,
            pads_begin: case.begin,
            group: 1,
            bias: true,
            residual: None,
            activation: None,
            cut: None,
        };
        let data = numbers(&case, &conv, &mut |n| rng.ints(n));
        let data = [&data[0][..], &data[1], &data[2], &data[3]];
        let (want, got) = (reference(&case, &conv, data), convolve(&conv, Terms::Six, data, 2));
        assert_eq!((got.y, got.flag), (want, false), "{c}: {conv:?}");
    }
}

fn multiply(gemm: &Gemm, terms: Terms, [a, b, bias, residual]: [&[f32]; 4], threads: usize) -> Made {
    let amx = AmxGemm::new(gemm, terms).unwrap_or_else(|why| panic!("{why}: {gemm:?}"));
    let (mut code, pool) = (Code::new(Isa::Amx).expect("code"), Pool::new(threads));
    let (a, flag) = regroup(&mut code, &amx.regroup(), a.to_vec(), &pool);
    let kernel = amx.build(code.emitter(), threads).unwrap_or_else(|e| panic!("{gemm:?}: {e}"));
    code.finalize().expect("finalize");
    let bias = (gemm.bias == GemmBias::Columns).then_some(bias);
    let matrices = b.len() / (gemm.k * gemm.n);
    let mut packed = vec![f32::NAN; matrices * amx.packed_elems()];
    for (b, out) in b.chunks_exact(gemm.k * gemm.n).zip(packed.chunks_exact_mut(amx.packed_elems())) {
        amx.pack(b, (gemm.n, 1), 1.0, bias, out).expect("pack");
    }
    let mut buffers = vec![a, packed];
    buffers.extend(gemm.residual.map(|_| residual.to_vec()));
    let last = kernel.operands.last().expect("y").bytes / 4;
    buffers.push(vec![f32::NAN; last]);
    run(&code, &kernel, &pool, &mut buffers);
    all_released(&pool);
    Made { y: buffers.pop().expect("y"), flag }
}

/// Plain loops in f64, for each matrix.
fn product(gemm: &Gemm, [a, b, bias, residual]: [&[f32]; 4]) -> Vec<f32> {
    let (m, n, k) = (gemm.m, gemm.n, gemm.k);
    let matrices = gemm.batch.first().map_or(1, |d| d.count);
    let of = |i: usize, step: fn(&BatchDim) -> usize| gemm.batch.first().map_or(0, |d| i * step(d));
    let mut y = vec![];
    for (i, r, c) in (0..matrices * m * n).map(|e| (e / (m * n), e / n % m, e % n)) {
        let mut sum = if gemm.bias == GemmBias::Columns { f64::from(bias[c]) } else { 0.0 };
        for t in 0..k {
            let (a, b) = (a[of(i, |d| d.a) + r * gemm.a_row + t], b[of(i, |d| d.b) * k * n + t * n + c]);
            sum += f64::from(a) * f64::from(b);
        }
        if let Some(s) = gemm.residual {
            sum += f64::from(s.scale) * f64::from(residual[of(i, |d| d.residual) + r * s.row + c]);
        }
        y.push(match gemm.activation {
            Some(Activation::Relu) => sum.max(0.0) as f32,
            _ => sum as f32,
        });
    }
    y
}

#[test]
fn products_are_exact_on_integers() {
    if amx().is_none() {
        return;
    }
    let mut rng = Rng(45);
    for round in 0..60 {
        let (m, n, k) =
            (rng.range(1, 70), rng.range(1, 50), rng.range(1, if round == 7 { 1100 } else { 70 }));
        let mut gemm = Gemm::new(m, n, k, BStorage::Packed);
        gemm.a_row = k + rng.below(3);
        let mut matrices = (1, 1, 1);
        if round % 4 == 0 {
            // one A for all, or each its own; the same of B
            let (own_a, own_b) = (rng.below(2), rng.below(2));
            let a = own_a * m * gemm.a_row;
            gemm.batch = vec![BatchDim { count: 3, a, b: own_b, bias: 0, residual: m * n, y: m * n }];
            matrices = (1 + 2 * own_a, 1 + 2 * own_b, 3);
        }
        gemm.bias = [GemmBias::None, GemmBias::Columns][rng.below(2)];
        gemm.residual = (rng.below(3) == 0).then_some(GemmResidual { row: n, scale: 2.0 });
        gemm.activation = (rng.below(2) == 0).then_some(Activation::Relu);
        let data = [matrices.0 * m * gemm.a_row, matrices.1 * k * n, n, matrices.2 * m * n];
        let data = data.map(|n| rng.ints(n));
        let data = [&data[0][..], &data[1], &data[2], &data[3]];
        let want = product(&gemm, data);
        for terms in TERMS {
            let got = multiply(&gemm, terms, data, 1 + round % 2);
            assert!(!got.flag, "{gemm:?}");
            for (i, (g, w)) in got.y.iter().zip(&want).enumerate() {
                assert!(g == w, "{terms:?} {gemm:?}: element {i} is {g}, not {w}");
            }
        }
    }
}

/// Reductions in several calls, each adding to what the last one stored.
#[test]
fn long_sums_in_chunks_are_exact() {
    if amx().is_none() {
        return;
    }
    let mut rng = Rng(50);
    let mut gemm = Gemm::new(41, 19, 2100, BStorage::Packed);
    (gemm.bias, gemm.activation) = (GemmBias::Columns, Some(Activation::Relu));
    gemm.residual = Some(GemmResidual { row: 19, scale: -1.0 });
    let data = [41 * 2100, 2100 * 19, 19, 41 * 19].map(|n| rng.ints(n));
    let data = [&data[0][..], &data[1], &data[2], &data[3]];
    assert_eq!(multiply(&gemm, Terms::Six, data, 2).y, product(&gemm, data));
    let case = ConvCase {
        n: 1,
        c: 330,
        m: 40,
        input: [1, 3, 18],
        kernel: [1, 3, 3],
        strides: [1; 3],
        dilations: [1; 3],
        begin: [0, 1, 1],
        end: [0, 1, 1],
        group: 1,
    };
    let y = BlockedLayout::blocked(1, 40, case.input, 16).with_halo([(0, 0), (1, 1), (1, 1)]);
    let conv = Conv {
        x: BlockedLayout::blocked(1, 330, case.input, 16).with_halo([(0, 0), (1, 1), (1, 1)]),
        y,
        kernel: case.kernel,
        strides: case.strides,
        dilations: case.dilations,
        pads_begin: case.begin,
        group: 1,
        bias: true,
        residual: Some(y),
        activation: Some(Activation::Relu),
        cut: None,
    };
    let data = numbers(&case, &conv, &mut |n| rng.ints(n));
    let data = [&data[0][..], &data[1], &data[2], &data[3]];
    assert_eq!(convolve(&conv, Terms::Six, data, 2).y, reference(&case, &conv, data));
}

/// Root mean square of the error against exact sums, as a share of that of the results.
fn error(got: &[f32], want: &[f64]) -> f64 {
    let square = |v: f64| v * v;
    let errors: f64 = got.iter().zip(want).map(|(g, w)| square(f64::from(*g) - w)).sum();
    (errors / want.iter().map(|w| square(*w)).sum::<f64>()).sqrt()
}

/// What lets six products into plain f32, and how far three are from it.
#[test]
fn six_products_are_as_accurate_as_plain_sums() {
    if amx().is_none() {
        return;
    }
    // positive values too: there sums grow, and so does what each rounding costs
    for (m, n, k, positive) in [
        (16, 32, 64, false),
        (32, 16, 256, false),
        (9, 16, 1000, false),
        (16, 32, 256, true),
        (16, 16, 2048, true),
    ] {
        let mut rng = Rng(46);
        let mut floats = |n: usize| -> Vec<f32> {
            rng.floats(n).into_iter().map(|v| if positive { v.abs() } else { v }).collect()
        };
        let (a, b) = (floats(m * k), floats(k * n));
        let exact: Vec<f64> = (0..m * n)
            .map(|e| (0..k).map(|t| f64::from(a[e / n * k + t]) * f64::from(b[t * n + e % n])).sum())
            .collect();
        let gemm = Gemm::new(m, n, k, BStorage::Packed);
        let isa = Isa::Avx512;
        let mut code = Code::new(isa).expect("code");
        let kernel = gemm.build(code.emitter(), 1).expect("plain");
        code.finalize().expect("finalize");
        let mut packed = vec![0.0; gemm.packed_elems(isa)];
        gemm.pack_b(isa, &b, (n, 1), 1.0, &mut packed, |_| ()).expect("pack");
        let mut buffers = vec![a.clone(), packed, vec![0.0; m * n]];
        run(&code, &kernel, &Pool::new(1), &mut buffers);
        let plain = error(&buffers[2], &exact);
        let [three, six] = TERMS.map(|terms| error(&multiply(&gemm, terms, [&a, &b, &[], &[]], 1).y, &exact));
        println!("{m}x{n}x{k}, positive {positive}: plain {plain:.2e}, six {six:.2e}, three {three:.2e}");
        assert!(six <= plain, "{m}x{n}x{k}: six products {six:e}, plain sums {plain:e}");
        assert!(three <= 2f64.powi(-15) && three > six, "{m}x{n}x{k}: three products {three:e}");
    }
}

/// The same of a convolution of 3x3.
#[test]
fn six_products_of_a_convolution_are_as_accurate_as_plain_sums() {
    if amx().is_none() {
        return;
    }
    for channels in [32, 96] {
        let case = ConvCase {
            n: 1,
            c: channels,
            m: 16,
            input: [1, 5, 7],
            kernel: [1, 3, 3],
            strides: [1; 3],
            dilations: [1; 3],
            begin: [0, 1, 1],
            end: [0, 1, 1],
            group: 1,
        };
        let conv = Conv {
            x: BlockedLayout::blocked(1, channels, case.input, 16).with_halo([(0, 0), (1, 1), (1, 1)]),
            y: BlockedLayout::blocked(1, 16, case.input, 16),
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
        let mut rng = Rng(47);
        let data = numbers(&case, &conv, &mut |n| rng.floats(n));
        let data = [&data[0][..], &data[1], &data[2], &data[3]];
        let mut code = Code::new(Isa::Avx512).expect("code");
        let kernel = conv.build(code.emitter(), 1).expect("direct");
        code.finalize().expect("finalize");
        let mut packed = vec![0.0; conv.packed_elems(Isa::Avx512)];
        conv.pack_weights(Isa::Avx512, data[1], &mut packed).expect("pack");
        let mut buffers = vec![to_layout(&conv.x, data[0]), packed, vec![0.0; conv.y.bytes() / 4]];
        run(&code, &kernel, &Pool::new(1), &mut buffers);
        // what plain loops give is rounded from f64 once, so half a unit is in every error
        let want: Vec<f64> = case.reference(data[0], data[1], &[]).into_iter().map(f64::from).collect();
        let plain = error(&from_layout(&conv.y, &buffers[2]), &want);
        let six = error(&convolve(&conv, Terms::Six, data, 1).y, &want);
        println!("3x3 of {channels} channels: plain {plain:.2e}, six {six:.2e}");
        assert!(six <= plain, "{channels}: six products {six:e}, plain sums {plain:e}");
    }
}

/// One pixel of each kind of trouble in an activation without any.
#[test]
fn what_tiles_would_compute_otherwise_raises_the_flag() {
    if amx().is_none() {
        return;
    }
    let mut rng = Rng(48);
    let gemm = |m, k| Gemm::new(m, 5, k, BStorage::Packed);
    for (m, k) in [(3, 40), (40, 64), (17, 33)] {
        let below = |v: f32| f32::from_bits(v.to_bits() - 1);
        let cases = [
            (f32::INFINITY, true),
            (f32::NEG_INFINITY, true),
            (f32::NAN, true),
            (f32::MAX, true),
            (LARGEST, true),
            (-LARGEST, true),
            (below(LARGEST), false),
            (SMALLEST, false),
            (1e-40, false),
        ];
        let b: Vec<f32> = rng.floats(k * 5);
        for (value, want) in cases {
            let mut a = rng.floats(m * k);
            a[rng.below(m) * k + rng.below(32)] = value;
            assert_eq!(multiply(&gemm(m, k), Terms::Six, [&a, &b, &[], &[]], 1).flag, want, "{value:e}");
        }
        // a row of which 32 columns are tiny, or 0, or tiny but one
        for (fill, one, want) in [
            (0.0, 0.0, false),
            (-0.0, 0.0, false),
            (0.0, below(SMALLEST), true),
            (1e-42, 1e-42, true),
            (1e-30, 1e-30, true),
            (1e-30, SMALLEST, false),
            (-1e-30, -SMALLEST, false),
        ] {
            let mut a = rng.floats(m * k);
            let row = rng.below(m);
            a[row * k..][..32].fill(fill);
            a[row * k + rng.below(32)] = one;
            assert_eq!(
                multiply(&gemm(m, k), Terms::Six, [&a, &b, &[], &[]], 2).flag,
                want,
                "{fill:e} {one:e}"
            );
        }
    }
}

/// Weights and activations of any size inside the bounds: as near as plain f32, whatever their exponents.
#[test]
fn sizes_between_the_bounds_lose_nothing() {
    if amx().is_none() {
        return;
    }
    let mut rng = Rng(49);
    let (m, n, k) = (8, 16, 64);
    for (a_exponent, b_exponent) in [(-70, -130), (-69, 20), (99, -126), (60, 20), (-20, -149), (-69, 100)] {
        let scaled = |v: Vec<f32>, e: i32| -> Vec<f32> {
            v.into_iter().map(|v| (f64::from(v) * 2f64.powi(e)) as f32).collect()
        };
        let a = scaled(
            rng.floats(m * k).iter().map(|v| v.signum() * (v.abs() * 0.5 + 1.0)).collect(),
            a_exponent,
        );
        // columns of very different sizes
        let mut b = scaled(rng.floats(k * n), b_exponent);
        (0..k).for_each(|t| b[t * n + 3] *= 0.5f32.powi(10));
        let exact: Vec<f64> = (0..m * n)
            .map(|e| (0..k).map(|t| f64::from(a[e / n * k + t]) * f64::from(b[t * n + e % n])).sum())
            .collect();
        let size: Vec<f64> = (0..m * n)
            .map(|e| (0..k).map(|t| (f64::from(a[e / n * k + t]) * f64::from(b[t * n + e % n])).abs()).sum())
            .collect();
        let got = multiply(&Gemm::new(m, n, k, BStorage::Packed), Terms::Six, [&a, &b, &[], &[]], 1);
        assert!(!got.flag);
        for ((g, w), s) in got.y.iter().zip(&exact).zip(&size) {
            // half of the least denormal: what any f32 may be off
            let bound = 64.0 * 2f64.powi(-24) * s + 2f64.powi(-150);
            assert!((f64::from(*g) - w).abs() <= bound, "2^{a_exponent}, 2^{b_exponent}: {g:e}, not {w:e}");
        }
    }
}
