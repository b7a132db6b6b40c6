//! Sums of products against the interpreter, at every level: every size with its odd tails, long sums, real values
//! within a bound. `special.rs` holds what else may come in: no elements, numbers at the ends, shapes that do not fit.
mod common;

use common::Rng;
use common::net::attrs;
use common::sums::{Bound, Sum, check_integers};
use fcc_ir::attr::Attrs;
use fcc_jit::Precision;

/// Of direct kernels: sums of real values of both signs stay this near, in `eps * sum |x*w|`.
const DIRECT: Bound = Bound::Elementwise(4.0);

fn matmul(m: usize, n: usize, k: usize) -> Sum {
    Sum::new("MatMul", Attrs::new(), &[&[m, k], &[k, n]])
}

/// Sizes with each number from 1 to 70 in each of M, N and K, the others drawn.
fn sizes(rng: &mut Rng) -> Vec<[usize; 3]> {
    let one = |rng: &mut Rng, dim: usize, size: usize| {
        let mut s = [0; 3].map(|_| rng.range(1, 70));
        s[dim] = size;
        s
    };
    (0..3).flat_map(|dim| (1..=70).map(move |size| (dim, size))).map(|(d, s)| one(rng, d, s)).collect()
}

#[test]
fn products_of_every_size_from_1_to_70() {
    let mut rng = Rng(41);
    let sums: Vec<Sum> = sizes(&mut rng)
        .into_iter()
        .enumerate()
        .map(|(i, [m, n, k])| match i % 3 {
            0 => matmul(m, n, k),
            1 => matmul(m, n, k).computed(),
            _ => Sum::new("Gemm", attrs([("transB", 1.into())]), &[&[m, k], &[n, k], &[n]]),
        })
        .collect();
    sums.chunks(30).for_each(check_integers);
}

#[test]
fn products_of_real_values() {
    let mut rng = Rng(42);
    for [m, n, k] in sizes(&mut rng).into_iter().step_by(7) {
        matmul(m, n, k).check_reals(&mut rng, Precision::F32, DIRECT, false);
    }
}

/// Every pair of tails: M and N around whole tiles of every level.
#[test]
fn pairs_of_tails() {
    let edges = [1, 3, 4, 5, 8, 13, 15, 16, 17, 31, 33, 48, 49, 65];
    let mut sums = vec![];
    for m in edges {
        for n in edges {
            sums.push(matmul(m, n, 1 + (m * 7 + n) % 19));
        }
    }
    sums.chunks(40).for_each(check_integers);
}

fn conv(n: usize, c: usize, m: usize, size: [usize; 2], kernel: [usize; 2], group: usize) -> Sum {
    let pads: Vec<i64> = [kernel[0] / 2, kernel[1] / 2, (kernel[0] - 1) / 2, (kernel[1] - 1) / 2]
        .iter()
        .map(|p| *p as i64)
        .collect();
    let list = attrs([("pads", pads.into()), ("group", (group as i64).into())]);
    Sum::new("Conv", list, &[&[n, c, size[0], size[1]], &[m, c / group, kernel[0], kernel[1]], &[m]])
}

fn strided(mut sum: Sum, strides: [i64; 2]) -> Sum {
    sum.attrs.set("strides", strides.to_vec());
    sum
}

#[test]
fn convolutions_of_1_to_40_channels() {
    let mut sums = vec![];
    for c in 1..=40 {
        let one = if c % 2 == 0 { [3, 2] } else { [1, 3] };
        sums.push(conv(1, c, 1 + c * 7 % 23, [5, 6], one, 1));
        sums.push(strided(conv(1, 1 + c * 5 % 37, c, [6, 5], [3, 3], 1), [1, 2]));
        sums.push(conv(3, c, c, [4, 7], [3, 3], c));
    }
    sums.chunks(20).for_each(check_integers);
}

#[test]
fn transposed_convolutions_of_1_to_40_channels() {
    let mut sums = vec![];
    for c in 1..=40 {
        let list = || attrs([("strides", vec![2, 1].into()), ("pads", vec![1, 0, 0, 1].into())]);
        let other = 1 + c * 7 % 23;
        sums.push(Sum::new("ConvTranspose", list(), &[&[1, c, 3, 4], &[c, other, 3, 2], &[other]]));
        sums.push(Sum::new("ConvTranspose", list(), &[&[1, other, 3, 4], &[other, c, 3, 2], &[c]]));
    }
    sums.chunks(20).for_each(check_integers);
}

/// Of both signs, in every class of direct kernel.
#[test]
fn convolutions_of_real_values() {
    let mut rng = Rng(43);
    for sum in [
        conv(1, 3, 20, [11, 13], [3, 3], 1),
        strided(conv(2, 24, 37, [9, 10], [7, 3], 1), [3, 3]),
        conv(1, 70, 33, [5, 7], [1, 1], 1),
        conv(1, 6, 4, [9, 40], [5, 7], 1),
        conv(3, 21, 21, [7, 9], [3, 3], 21),
        conv(1, 40, 40, [7, 9], [3, 2], 2),
        conv(1, 12, 24, [7, 9], [3, 3], 4),
        Sum::new(
            "ConvTranspose",
            attrs([("strides", vec![2, 2].into())]),
            &[&[1, 19, 5, 6], &[19, 21, 3, 3], &[21]],
        ),
    ] {
        sum.check_reals(&mut rng, Precision::F32, DIRECT, false);
    }
}

/// What Winograd's transforms keep: the norm-wise form, of two outputs a tile and of four.
#[test]
fn winograd_convolutions_of_real_values() {
    let mut rng = Rng(44);
    for (c, m, size) in [(64, 64, [14, 15]), (128, 70, [7, 9]), (65, 96, [16, 11])] {
        let sum = conv(1, c, m, size, [3, 3], 1);
        sum.check_reals(&mut rng, Precision::F32, Bound::Normwise(1.0), true);
        sum.check_reals(&mut rng, Precision::Fast, Bound::Normwise(4.0), true);
    }
}

#[test]
fn huge_sums_are_exact_on_integers() {
    let dense = |k: usize| Sum::new("Gemm", Attrs::new(), &[&[3, k], &[k, 5], &[5]]);
    check_integers(&[
        dense(100_003),
        matmul(1, 17, 65_537),
        matmul(17, 1, 65_536).computed(),
        matmul(2, 3, 200_001).computed(),
        conv(1, 2051, 9, [3, 2], [3, 3], 1),
        conv(1, 20, 20, [36, 37], [33, 35], 20),
        conv(1, 3, 2, [40, 43], [39, 41], 1),
    ]);
}

#[test]
fn huge_sums_of_real_values() {
    let mut rng = Rng(45);
    for sum in [
        matmul(2, 3, 100_003),
        matmul(3, 2, 65_537).computed(),
        Sum::new("Gemm", attrs([("transB", 1.into())]), &[&[1, 30_011], &[6, 30_011], &[6]]),
        conv(1, 2051, 9, [3, 2], [3, 3], 1),
        conv(1, 3, 2, [40, 43], [39, 41], 1),
        conv(1, 20, 20, [36, 37], [33, 35], 20),
    ] {
        sum.check_reals(&mut rng, Precision::F32, DIRECT, false);
    }
}
