//! The kernels of elementwise chains, copies, softmax, reductions and resizing at unreadable pages: nothing outside
//! the declared operands is written, at every tail length.
mod common;

use common::{Rng, levels, run};
use fcc_jit::asm::Isa;
use fcc_jit::kernels::copy::{Copy, CopyDim, CopyPart};
use fcc_jit::kernels::ew::{Binary, Dim, Elementwise, Expr, Ins};
use fcc_jit::kernels::layout::BlockedLayout;
use fcc_jit::kernels::resize::Resize;
use fcc_jit::kernels::rows::{Fold, Normalise, Reduce};
use fcc_jit::kernels::softmax::Softmax;
use fcc_jit::kernels::zero::ZeroHalo;
use fcc_jit::module::{Code, Kernel};
use fcc_jit::pool::Pool;

type Build<'a> = &'a dyn Fn(
    &mut fcc_jit::module::Emitter<cranelift_jit::JITModule>,
    usize,
) -> Result<Kernel, fcc_jit::error::Error>;

/// Builds and runs a kernel on buffers of exactly its sizes; gives them back.
fn execute(isa: Isa, threads: usize, build: Build<'_>, inputs: &[Vec<f32>]) -> Vec<Vec<f32>> {
    let mut code = Code::new(isa).unwrap();
    let kernel = build(code.emitter(), threads).unwrap();
    code.finalize().unwrap();
    let mut buffers = inputs.to_vec();
    for o in &kernel.operands[inputs.len()..] {
        buffers.push(vec![0.0; o.bytes / 4]);
    }
    run(&code, &kernel, &Pool::new(threads), &mut buffers);
    buffers
}

#[test]
fn elementwise_tails_of_every_length() {
    let code =
        vec![Ins::Input(0), Ins::Input(1), Ins::Binary(Binary::Sub, 0, 1), Ins::Binary(Binary::Mul, 2, 0)];
    for isa in levels() {
        for threads in [1, 2, 3] {
            for n in (1..70).chain([8193, 20000]) {
                for rows in [1, 3] {
                    let mut rng = Rng(n as u64 + 1);
                    let (x, y) = (rng.ints(rows * n), rng.ints(n));
                    let (n4, full) = (4 * n as i64, 4 * rows * n);
                    let spec = Elementwise {
                        expr: Expr { code: code.clone() },
                        dims: vec![
                            Dim { count: rows, steps: vec![n4, 0, n4] },
                            Dim { count: n, steps: vec![4, 4, 4] },
                        ],
                        base: vec![0; 3],
                        bytes: vec![full, 4 * n, full],
                        types: vec![],
                    };
                    let out = execute(isa, threads, &|e, t| spec.build(e, t), &[x.clone(), y.clone()]);
                    let want = |i: usize| (x[i] - y[i % n]) * x[i];
                    assert!((0..rows * n).all(|i| out[2][i] == want(i)), "{isa} {threads} {rows}x{n}");
                }
            }
        }
    }
}

#[test]
fn random_copies_move_every_element() {
    for seed in 1..120 {
        let mut rng = Rng(seed);
        let shape: Vec<usize> = (0..rng.range(1, 4)).map(|_| rng.range(1, 19)).collect();
        let mut perm: Vec<usize> = (0..shape.len()).collect();
        for i in (1..perm.len()).rev() {
            perm.swap(i, rng.below(i + 1));
        }
        let strides =
            |s: &[usize]| -> Vec<usize> { (0..s.len()).map(|i| s[i + 1..].iter().product()).collect() };
        let to: Vec<usize> = perm.iter().map(|p| shape[*p]).collect();
        let (src, dst) = (strides(&shape), strides(&to));
        let n: usize = shape.iter().product();
        let dims = (0..to.len())
            .map(|i| CopyDim { count: to[i], src: 4 * src[perm[i]] as i64, dst: 4 * dst[i] as i64 })
            .collect();
        let part = CopyPart { source: 0, src: 0, dst: 0, dims };
        let spec = Copy { width: 4, parts: vec![part], src_bytes: vec![4 * n], dst_bytes: 4 * n };
        let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
        for threads in [1, 2] {
            let out = execute(Isa::Avx2, threads, &|e, t| spec.build(e, t), std::slice::from_ref(&x));
            for (i, got) in out[1].iter().enumerate() {
                let at: usize = (0..to.len()).map(|d| i / dst[d] % to[d] * src[perm[d]]).sum();
                assert_eq!(*got, x[at], "{shape:?} {perm:?} element {i}");
            }
        }
    }
}

/// Long runs and large matrices are cut for threads, whatever is left over.
#[test]
fn copies_of_few_long_dims_move_every_element() {
    for (rows, cols) in
        [(1, 20_011), (1, 16_384), (131, 257), (3, 7_001), (8_191, 3), (17, 1_025), (2, 9_000)]
    {
        let n = rows * cols;
        let x: Vec<f32> = (0..n).map(|i| i as f32).collect();
        for transposed in [false, true] {
            let (src, dst) = if transposed { ([cols, 1], [1, rows]) } else { ([cols, 1], [cols, 1]) };
            let dim = |d: usize, count| CopyDim { count, src: 4 * src[d] as i64, dst: 4 * dst[d] as i64 };
            let part = CopyPart { source: 0, src: 0, dst: 0, dims: vec![dim(0, rows), dim(1, cols)] };
            let spec = Copy { width: 4, parts: vec![part], src_bytes: vec![4 * n], dst_bytes: 4 * n };
            for threads in [1, 2, 3] {
                let out = execute(Isa::Avx2, threads, &|e, t| spec.build(e, t), std::slice::from_ref(&x));
                for (i, got) in out[1].iter().enumerate() {
                    let at = if transposed { i % rows * cols + i / rows } else { i };
                    assert_eq!(*got, x[at], "{rows}x{cols} transposed {transposed}: element {i}");
                }
            }
        }
    }
}

#[test]
fn rows_of_every_length_stay_inside() {
    for isa in levels() {
        for n in 1..70 {
            let mut rng = Rng(n as u64 + 5);
            for inner in [1, 5, 17] {
                let x = rng.floats(3 * n * inner);
                let softmax = Softmax { outer: 3, n, inner, log: false };
                let out = execute(isa, 2, &|e, t| softmax.build(e, t), std::slice::from_ref(&x));
                let line = |o: usize, i: usize| (0..n).map(move |k| (o * n + k) * inner + i);
                for o in 0..3 {
                    for i in 0..inner {
                        let sum: f32 = line(o, i).map(|at| out[1][at]).sum();
                        assert!((sum - 1.0).abs() < 1e-5, "{isa} softmax {n} {inner}: {sum}");
                    }
                }
                let reduce = Reduce { fold: Fold::Max, outer: 3, n, inner };
                let out = execute(isa, 2, &|e, t| reduce.build(e, t), std::slice::from_ref(&x));
                for o in 0..3 {
                    for i in 0..inner {
                        let want = line(o, i).map(|at| x[at]).fold(f32::NEG_INFINITY, f32::max);
                        assert_eq!(out[1][o * inner + i], want, "{isa} max {n} {inner}");
                    }
                }
            }
            let x = rng.floats(4 * n);
            let normalise = Normalise { rows: 4, n, epsilon: 1e-3, per_row: false };
            let params = [rng.floats(n), rng.floats(n)];
            let [s, b] = params;
            let out = execute(isa, 2, &|e, t| normalise.build(e, t), &[x.clone(), s.clone(), b.clone()]);
            for r in 0..4 {
                let row: Vec<f64> = x[r * n..][..n].iter().map(|v| f64::from(*v)).collect();
                let mean = row.iter().sum::<f64>() / n as f64;
                let var = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n as f64;
                for c in 0..n {
                    let want = (row[c] - mean) / (var + 1e-3).sqrt() * f64::from(s[c]) + f64::from(b[c]);
                    let got = f64::from(out[3][r * n + c]);
                    assert!(
                        (got - want).abs() < 1e-4 * want.abs().max(1.0),
                        "{isa} row {r} of {n}: {got} {want}"
                    );
                }
            }
        }
    }
}

#[test]
fn resizing_and_halos_stay_inside() {
    levels().into_iter().for_each(resize_inside);
}

fn resize_inside(isa: Isa) {
    let cb = isa.lanes();
    let x = BlockedLayout::blocked(2, 11, [1, 3, 4], cb).with_halo([(0, 0), (1, 0), (0, 2)]);
    let y = BlockedLayout::blocked(2, 11, [1, 6, 4], cb).with_halo([(0, 0), (1, 1), (2, 0)]);
    let one =
        |n: usize, by: usize| -> Vec<Vec<(usize, f32)>> { (0..n).map(|i| vec![(i / by, 1.0)]).collect() };
    let spec = Resize { x, y, taps: [one(1, 1), one(6, 2), one(4, 1)] };
    let data: Vec<f32> = (0..x.bytes() / 4).map(|i| i as f32).collect();
    for threads in [1, 2] {
        let out = execute(isa, threads, &|e, t| spec.build(e, t), &[data.clone(), spec.table()]);
        let at = |l: &BlockedLayout, n: usize, c: usize, h: usize, w: usize| {
            (l.origin_bytes()
                + n * l.batch_bytes()
                + c / cb * l.block_bytes()
                + h * l.row_bytes()
                + w * l.pixel_bytes())
                / 4
                + c % cb
        };
        for n in 0..2 {
            for c in 0..11 {
                for (h, w) in (0..6).flat_map(|h| (0..4).map(move |w| (h, w))) {
                    assert_eq!(out[2][at(&y, n, c, h, w)], data[at(&x, n, c, h / 2, w)]);
                }
            }
        }
    }
    let mut code = Code::new(isa).unwrap();
    let kernel = ZeroHalo { layout: y }.build(code.emitter(), 2).unwrap();
    code.finalize().unwrap();
    let mut buffers = vec![vec![7.0; y.bytes() / 4]];
    run(&code, &kernel, &Pool::new(2), &mut buffers);
    let inside = 2 * y.blocks() * 6 * 4 * cb;
    assert_eq!(buffers[0].iter().filter(|v| **v == 7.0).count(), inside);
    assert_eq!(buffers[0].iter().filter(|v| **v == 0.0).count(), y.bytes() / 4 - inside);
}
