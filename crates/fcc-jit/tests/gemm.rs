//! Matrix products against plain loops: exact on small integers, at every level.

mod common;
use common::{Rng, levels, run};
use fcc_jit::asm::Isa;
use fcc_jit::kernels::activation::Activation;
use fcc_jit::kernels::gemm::{BStorage, BatchDim, Gemm, GemmBias, GemmResidual};
use fcc_jit::module::Code;
use fcc_jit::pool::Pool;

struct Case {
    gemm: Gemm,
    threads: usize,
}

/// Runs one case on integers and compares bit by bit. `b` of the case says packed or in place; A may be transposed.
fn check(isa: Isa, case: &Case, rng: &mut Rng) {
    let g = &case.gemm;
    let batch: usize = g.batch.iter().map(|d| d.count).product();
    assert!(g.batch.len() <= 1);
    let step = g.batch.first().copied().unwrap_or_default();
    let a_elems = (g.m - 1) * g.a_row + (g.k - 1) * g.a_col + 1;
    let a = rng.ints(step.a * (batch - 1) + a_elems);
    let b_row = if let BStorage::InPlace { row } = g.b { row } else { g.n };
    let b_elems = (g.k - 1) * b_row + g.n;
    let b_count = if step.b == 0 { 1 } else { batch };
    let b = rng.ints(b_count * b_elems);
    let bias_len = match g.bias {
        GemmBias::None => 0,
        GemmBias::Columns => g.n,
        GemmBias::Rows => g.m,
        GemmBias::Scalar => 1,
    };
    let mut bias = rng.ints(bias_len);
    let residual = rng.ints(g.residual.map_or(0, |r| step.residual * (batch - 1) + (g.m - 1) * r.row + g.n));
    let y_elems = step.y * (batch - 1) + (g.m - 1) * g.y_row + g.n;
    let mut want = vec![-77.0f32; y_elems];
    for i in 0..batch {
        for m in 0..g.m {
            for n in 0..g.n {
                let bb = if step.b == 0 { 0 } else { i * b_elems };
                let sum: i64 = (0..g.k)
                    .map(|k| a[i * step.a + m * g.a_row + k * g.a_col] as i64 * b[bb + k * b_row + n] as i64)
                    .sum();
                let mut v = sum as f32 * g.alpha;
                v += match g.bias {
                    GemmBias::None => 0.0,
                    GemmBias::Columns => bias[n],
                    GemmBias::Rows => bias[m],
                    GemmBias::Scalar => bias[0],
                };
                if let Some(r) = g.residual {
                    v += r.scale * residual[i * step.residual + m * r.row + n];
                }
                if g.activation == Some(Activation::Relu) {
                    v = v.max(0.0);
                }
                want[i * step.y + m * g.y_row + n] = v;
            }
        }
    }
    let mut code = Code::new(isa).expect("code");
    let kernel = g.build(code.emitter(), case.threads).expect("build");
    code.finalize().expect("finalize");
    let b = match g.b {
        BStorage::InPlace { .. } => b,
        BStorage::Packed => {
            let mut packed = Vec::new();
            for one in b.chunks(b_elems) {
                let mut out = vec![f32::NAN; g.packed_elems(isa)];
                g.pack_b(isa, one, (g.n, 1), 1.0, &mut out, |_| {}).expect("pack");
                packed.extend(out);
            }
            packed
        }
    };
    bias.resize(g.bias_elems(isa), f32::NAN);
    let mut buffers = vec![a, b];
    if g.bias != GemmBias::None {
        buffers.push(bias);
    }
    if g.residual.is_some() {
        buffers.push(residual);
    }
    buffers.push(vec![-77.0; y_elems]);
    run(&code, &kernel, &Pool::new(case.threads), &mut buffers);
    let got = buffers.pop().expect("y");
    for (i, (g_, w)) in got.iter().zip(&want).enumerate() {
        assert!(
            g_.to_bits() == w.to_bits() || g_ == w,
            "{} {g:?}: element {i} is {g_}, not {w}",
            kernel.name
        );
    }
}

#[test]
fn every_size_up_to_70_in_each_dim() {
    let mut rng = Rng(1);
    for isa in levels() {
        for size in 1..=70 {
            for dim in 0..3 {
                let mut s = [rng.range(1, 70), rng.range(1, 70), rng.range(1, 70)];
                s[dim] = size;
                let packed = rng.below(2) == 0;
                let b =
                    if packed { BStorage::Packed } else { BStorage::InPlace { row: s[1] + rng.below(3) } };
                let mut gemm = Gemm::new(s[0], s[1], s[2], b);
                gemm.bias =
                    [GemmBias::None, GemmBias::Columns, GemmBias::Rows, GemmBias::Scalar][rng.below(4)];
                if rng.below(3) == 0 {
                    (gemm.a_row, gemm.a_col) = (1, s[0] + rng.below(2));
                }
                if rng.below(3) == 0 {
                    gemm.residual =
                        Some(GemmResidual { row: s[1] * rng.below(2), scale: [1.0, -2.0][rng.below(2)] });
                }
                if rng.below(2) == 0 {
                    gemm.activation = Some(Activation::Relu);
                }
                gemm.alpha = [1.0, 1.0, 2.0][rng.below(3)];
                gemm.y_row += rng.below(3);
                check(isa, &Case { gemm, threads: rng.range(1, 2) }, &mut rng);
            }
        }
    }
}

/// Rows of A at distances that put them into the same place of the cache: tiles have fewer of them.
#[test]
fn pitches_of_powers_of_two() {
    let mut rng = Rng(5);
    for isa in levels() {
        for (m, n, k, a_row) in [
            (37, 70, 19, 1024),
            (9, 36, 1024, 1024),
            (29, 33, 40, 2048),
            (31, 16, 50, 512),
            (30, 90, 7, 4096),
        ] {
            for threads in [1, 2] {
                for packed in [true, false] {
                    let b = if packed { BStorage::Packed } else { BStorage::InPlace { row: 1024 } };
                    let mut gemm = Gemm { a_row, y_row: 2048, ..Gemm::new(m, n, k, b) };
                    gemm.bias = GemmBias::Columns;
                    gemm.activation = Some(Activation::Relu);
                    check(isa, &Case { gemm, threads }, &mut rng);
                }
            }
        }
        let mut code = Code::new(isa).expect("code");
        let mut rows = |k: usize| {
            let kernel = Gemm::new(200, 200, k, BStorage::Packed).build(code.emitter(), 1).expect("build");
            let tile = kernel.name.rsplit(' ').next().and_then(|t| t.split('x').next());
            tile.and_then(|r| r.parse::<usize>().ok()).expect("the tile is in the name")
        };
        assert!(rows(1024) <= 8 && rows(4096) <= 8, "{isa}");
        assert_eq!(rows(1040) > 8, isa == Isa::Avx512, "{isa}");
    }
}

#[test]
fn batches_share_or_own_their_matrices() {
    let mut rng = Rng(2);
    for isa in levels() {
        for (m, n, k) in [(5, 17, 9), (40, 33, 20), (1, 100, 64)] {
            for (packed, own_b) in [(true, true), (true, false), (false, true), (false, false)] {
                let b = if packed { BStorage::Packed } else { BStorage::InPlace { row: n } };
                let mut gemm = Gemm::new(m, n, k, b);
                let b_step = if !own_b {
                    0
                } else if packed {
                    1
                } else {
                    (k - 1) * n + n
                };
                gemm.batch = vec![BatchDim { count: 3, a: m * k, b: b_step, bias: 0, residual: 0, y: m * n }];
                gemm.bias = GemmBias::Columns;
                check(isa, &Case { gemm, threads: 2 }, &mut rng);
            }
        }
    }
}

#[test]
fn long_sums_are_cut_into_chunks() {
    let mut rng = Rng(3);
    for isa in levels() {
        for (m, n, k) in [(33, 40, 2500), (1, 70, 3000), (100, 130, 1025)] {
            for packed in [true, false] {
                let b = if packed { BStorage::Packed } else { BStorage::InPlace { row: n } };
                let mut gemm = Gemm::new(m, n, k, b);
                gemm.bias = GemmBias::Columns;
                gemm.alpha = if packed { 1.0 } else { 2.0 };
                gemm.residual = Some(GemmResidual { row: n, scale: 1.0 });
                gemm.activation = Some(Activation::Relu);
                check(isa, &Case { gemm, threads: 2 }, &mut rng);
            }
        }
    }
}

#[test]
fn computed_b_is_packed_at_run_time() {
    use fcc_jit::kernels::pack::PackB;
    let mut rng = Rng(4);
    for isa in levels() {
        for (m, n, k) in [(5, 17, 9), (40, 33, 20), (1, 100, 64), (30, 1, 31), (20, 64, 16), (197, 197, 64)] {
            for transposed in [false, true] {
                let (heads, images) = (3, 2);
                let mut gemm = Gemm::new(m, n, k, BStorage::Packed);
                gemm.batch =
                    vec![BatchDim { count: heads * images, a: m * k, b: 1, bias: 0, residual: 0, y: m * n }];
                let (rows, cols) = if transposed { (n, k) } else { (k, n) };
                // Heads side by side in each row: [image][row][head][col].
                let pack = PackB {
                    gemm: gemm.clone(),
                    transposed,
                    row: heads * cols,
                    batch: vec![(images, rows * heads * cols), (heads, cols)],
                };
                let mut code = Code::new(isa).expect("code");
                let kernels = [
                    pack.build(code.emitter(), 2).expect("pack"),
                    gemm.build(code.emitter(), 2).expect("gemm"),
                ];
                code.finalize().expect("finalize");
                let (a, b) = (rng.ints(images * heads * m * k), rng.ints(images * heads * n * k));
                let mut buffers = vec![b.clone(), vec![f32::NAN; kernels[0].operands[1].bytes / 4]];
                run(&code, &kernels[0], &Pool::new(2), &mut buffers);
                let mut buffers = vec![a.clone(), buffers.remove(1), vec![0.0; images * heads * m * n]];
                run(&code, &kernels[1], &Pool::new(2), &mut buffers);
                for (i, &got) in buffers[2].iter().enumerate() {
                    let (matrix, r, c) = (i / (m * n), i / n % m, i % n);
                    let (image, head) = (matrix / heads, matrix % heads);
                    let want: i64 = (0..k)
                        .map(|q| {
                            let (row, col) = if transposed { (c, q) } else { (q, c) };
                            a[(matrix * m + r) * k + q] as i64
                                * b[((image * rows + row) * heads + head) * cols + col] as i64
                        })
                        .sum();
                    assert_eq!(
                        got, want as f32,
                        "{} {m}x{n}x{k} transposed {transposed}: element {i}",
                        kernels[1].name
                    );
                }
            }
        }
    }
}
