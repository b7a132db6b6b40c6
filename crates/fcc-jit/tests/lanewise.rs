//! Grouped convolutions and pools against plain loops, at every level.

mod common;
use common::{ConvCase, Rng, from_layout, levels, run, to_layout};
use fcc_jit::asm::Isa;
use fcc_jit::kernels::activation::Activation;
use fcc_jit::kernels::global_pool::GlobalPool;
use fcc_jit::kernels::lanewise::{GroupConv, Pool as PoolProblem, PoolKind};
use fcc_jit::kernels::layout::BlockedLayout;
use fcc_jit::module::Code;
use fcc_jit::pool::Pool;

fn check_group(isa: Isa, case: &ConvCase, rng: &mut Rng, threads: usize) -> bool {
    let Some(out) = case.out() else { return false };
    let cb = isa.lanes();
    let halo = if rng.below(2) == 0 {
        [0, 1, 2].map(|d| (rng.below(2 + case.begin[d]), rng.below(3)))
    } else {
        Default::default()
    };
    let xl = BlockedLayout::blocked(case.n, case.c, case.input, cb).with_halo(halo);
    let yl = BlockedLayout::blocked(case.n, case.m, out, cb).with_halo([
        (0, 0),
        (rng.below(2), rng.below(2)),
        (rng.below(2), rng.below(2)),
    ]);
    let residual = (rng.below(3) == 0).then_some(BlockedLayout { halo: [(0, 0), (0, 1), (1, 0)], ..yl });
    let conv = GroupConv {
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
    let x = rng.ints(case.n * case.c * case.input.iter().product::<usize>());
    let w = rng.ints(case.m * case.c / case.group * case.kernel.iter().product::<usize>());
    let mut bias = if conv.bias { rng.ints(case.m) } else { vec![] };
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
        bias.resize(conv.bias_elems(isa), f32::NAN);
        buffers.push(bias);
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

fn window(rng: &mut Rng, rank: usize) -> ConvCase {
    let mut case = ConvCase {
        n: [1, 3][rng.below(2)],
        c: 1,
        m: 1,
        input: [1; 3],
        kernel: [1; 3],
        strides: [1; 3],
        dilations: [1; 3],
        begin: [0; 3],
        end: [0; 3],
        group: 1,
    };
    for d in 3 - rank..3 {
        case.input[d] = rng.range(1, if rank == 3 { 7 } else { 23 });
        case.kernel[d] = rng.range(1, 5);
        case.strides[d] = rng.range(1, 3);
        case.dilations[d] = rng.range(1, 2);
        case.begin[d] = rng.below(case.kernel[d]);
        case.end[d] = rng.below(case.kernel[d]);
    }
    case
}

#[test]
fn depthwise_with_any_window() {
    let mut rng = Rng(21);
    for isa in levels() {
        let mut done = 0;
        while done < 80 {
            let rank = rng.range(1, 3);
            let c = rng.range(1, 40);
            let case = ConvCase { c, m: c, group: c, ..window(&mut rng, rank) };
            done += usize::from(check_group(isa, &case, &mut rng, 1 + done % 3));
        }
    }
}

#[test]
fn groups_of_any_size() {
    let mut rng = Rng(22);
    for isa in levels() {
        for (group, icg, ocg) in [
            (8, 4, 4),
            (4, 8, 8),
            (3, 5, 7),
            (2, 3, 40),
            (5, 1, 2),
            (6, 2, 1),
            (2, 20, 3),
            (16, 2, 4),
            (1, 3, 20),
        ] {
            let mut done = 0;
            while done < 4 {
                let case = ConvCase { c: group * icg, m: group * ocg, group, ..window(&mut rng, 2) };
                done += usize::from(check_group(isa, &case, &mut rng, 1 + done % 2));
            }
        }
    }
}

#[test]
fn a_large_window_becomes_a_loop() {
    let mut rng = Rng(23);
    for isa in levels() {
        let case = ConvCase {
            c: 18,
            m: 18,
            group: 18,
            input: [1, 30, 29],
            kernel: [1, 17, 19],
            begin: [0, 8, 9],
            end: [0, 8, 9],
            ..window(&mut rng, 1)
        };
        let case = ConvCase { strides: [1; 3], dilations: [1; 3], ..case };
        assert!(check_group(isa, &case, &mut rng, 2));
    }
}

/// The value of a pool by plain loops; `None` where a window holds nothing.
fn pool_reference(p: &PoolProblem, x: &[f32]) -> Option<Vec<f32>> {
    let (i, o) = (p.x.spatial, p.y.spatial);
    let mut out = Vec::new();
    for plane in x.chunks_exact(i.iter().product()) {
        for at in 0..o.iter().product::<usize>() {
            let at = [at / (o[1] * o[2]), at / o[2] % o[1], at % o[2]];
            let (mut values, mut counted) = (Vec::new(), 0usize);
            for t in 0..p.kernel.iter().product::<usize>() {
                let k = [t / (p.kernel[1] * p.kernel[2]), t / p.kernel[2] % p.kernel[1], t % p.kernel[2]];
                let q = [0, 1, 2]
                    .map(|d| (at[d] * p.strides[d] + k[d] * p.dilations[d]) as i64 - p.pads_begin[d] as i64);
                let inside = (0..3).all(|d| q[d] >= 0 && q[d] < i[d] as i64);
                counted += usize::from((0..3).all(|d| q[d] < (i[d] + p.pads_end[d]) as i64));
                if inside {
                    values.push(x_at(plane, i, q));
                }
            }
            if values.is_empty() {
                return None;
            }
            let sum: f64 = values.iter().map(|&v| f64::from(v)).sum();
            out.push(match p.kind {
                PoolKind::Max => {
                    values.iter().fold(f32::NEG_INFINITY, |m, &v| if v > m || v.is_nan() { v } else { m })
                }
                PoolKind::Average => (sum as f32) / values.len() as f32,
                PoolKind::AverageCountingPads => (sum as f32) / counted as f32,
            });
        }
    }
    Some(out)
}

fn x_at(plane: &[f32], i: [usize; 3], q: [i64; 3]) -> f32 {
    plane[(q[0] as usize * i[1] + q[1] as usize) * i[2] + q[2] as usize]
}

#[test]
fn pools_with_any_window() {
    let mut rng = Rng(24);
    for isa in levels() {
        let (mut done, mut tries) = (0, 0);
        while done < 120 {
            tries += 1;
            assert!(tries < 5000);
            let rank = rng.range(1, 3);
            let case = window(&mut rng, rank);
            let Some(mut out) = case.out() else { continue };
            let (c, cb) = (rng.range(1, 40), isa.lanes());
            // ceil_mode: one more window that begins inside the input or its padding.
            for (d, out) in out.iter_mut().enumerate().skip(3 - rank) {
                let begins_inside = *out * case.strides[d] < case.input[d] + case.begin[d];
                *out += usize::from(rng.below(4) == 0 && begins_inside);
            }
            let layout = |spatial| BlockedLayout::blocked(case.n, c, spatial, cb);
            let pool = PoolProblem {
                x: layout(case.input).with_halo([(0, 0), (rng.below(2), 0), (rng.below(2), rng.below(2))]),
                y: layout(out).with_halo([(0, 0), (rng.below(2), 1), (rng.below(2), rng.below(2))]),
                kernel: case.kernel,
                strides: case.strides,
                dilations: case.dilations,
                pads_begin: case.begin,
                pads_end: case.end,
                kind: [PoolKind::Max, PoolKind::Average, PoolKind::AverageCountingPads][rng.below(3)],
            };
            let mut x = rng.ints(case.n * c * case.input.iter().product::<usize>());
            if pool.kind == PoolKind::Max {
                let at = rng.below(x.len());
                x[at] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY][rng.below(3)];
            }
            let Some(want) = pool_reference(&pool, &x) else { continue };
            done += 1;
            let mut code = Code::new(isa).expect("code");
            let kernel = pool.build(code.emitter(), 2).expect("build");
            code.finalize().expect("finalize");
            let mut buffers = vec![to_layout(&pool.x, &x), vec![f32::NAN; pool.y.bytes() / 4]];
            run(&code, &kernel, &Pool::new(2), &mut buffers);
            let got = from_layout(&pool.y, &buffers[1]);
            for (i, (g, w)) in got.iter().zip(&want).enumerate() {
                assert!(
                    g == w || (g.is_nan() && w.is_nan()),
                    "{} {pool:?}: element {i} is {g}, not {w}",
                    kernel.name
                );
            }
        }
    }
}

#[test]
fn global_pools_of_any_size() {
    let mut rng = Rng(25);
    for isa in levels() {
        for _ in 0..60 {
            let (n, c) = (rng.range(1, 3), rng.range(1, 40));
            let spatial = [rng.range(1, 2), rng.range(1, 9), rng.range(1, 20)];
            let halo = if rng.below(2) == 0 { [(0, 0), (1, 0), (1, 2)] } else { Default::default() };
            let pool = GlobalPool {
                x: BlockedLayout::blocked(n, c, spatial, isa.lanes()).with_halo(halo),
                max: rng.below(2) == 0,
            };
            let size: usize = spatial.iter().product();
            let mut x = rng.ints(n * c * size);
            if rng.below(3) == 0 {
                let at = rng.below(x.len());
                x[at] = f32::NAN;
            }
            let mut code = Code::new(isa).expect("code");
            let kernel = pool.build(code.emitter(), 2).expect("build");
            code.finalize().expect("finalize");
            let mut buffers = vec![to_layout(&pool.x, &x), vec![f32::NAN; n * c]];
            run(&code, &kernel, &Pool::new(2), &mut buffers);
            for (i, plane) in x.chunks_exact(size).enumerate() {
                let want = if pool.max {
                    plane.iter().fold(f32::NEG_INFINITY, |m, &v| if v > m || v.is_nan() { v } else { m })
                } else {
                    plane.iter().sum::<f32>() / size as f32
                };
                let got = buffers[1][i];
                assert!(
                    got == want || (got.is_nan() && want.is_nan()),
                    "{} {pool:?}: {i} is {got}, not {want}",
                    kernel.name
                );
            }
        }
    }
}

#[test]
fn reorders_between_any_layouts() {
    use fcc_jit::kernels::reorder::Reorder;
    let mut rng = Rng(26);
    for isa in levels() {
        for i in 0..200 {
            let (n, c, threads) = (rng.range(1, 3), rng.range(1, 40), rng.range(1, 2));
            let spatial = [rng.range(1, 2), rng.range(1, 9), rng.range(1, 40)];
            let mut layout = |cb| {
                let halo = if rng.below(2) == 0 {
                    [(rng.below(2), 0), (rng.below(2), 1), (rng.below(3), 2)]
                } else {
                    Default::default()
                };
                BlockedLayout::blocked(n, c, spatial, cb).with_halo(halo)
            };
            let cbs = [1, isa.lanes()];
            let reorder = Reorder { x: layout(cbs[i & 1]), y: layout(cbs[i >> 1 & 1]) };
            let x = rng.ints(n * c * spatial.iter().product::<usize>());
            let mut code = Code::new(isa).expect("code");
            let kernel = reorder.build(code.emitter(), threads).expect("build");
            code.finalize().expect("finalize");
            let mut buffers = vec![to_layout(&reorder.x, &x), vec![f32::NAN; reorder.y.bytes() / 4]];
            run(&code, &kernel, &Pool::new(threads), &mut buffers);
            assert!(from_layout(&reorder.y, &buffers[1]) == x, "{reorder:?}");
        }
    }
}
