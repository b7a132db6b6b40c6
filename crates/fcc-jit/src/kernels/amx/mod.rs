//! Products by AMX tiles: of f32 as sums of bf16 terms, and of bytes.
//!
//! `x = hi + mid + lo`, each the bf16 nearest to what is left: 8 bits each, so that three of them are all of an f32. The
//! product of two such sums has nine terms, and those that matter are made by tiles, whose sums are f32:
//!
//! - [`Terms::Six`]: all but `mid * lo`, `lo * mid` and `lo * lo`, which are less than `2^-24` of the product together,
//!   what rounding it once to f32 may cost, and as a rule a small part of that. The error against exact sums is no larger
//!   than that of plain f32, which rounds after each product; a tile adds sixteen pairs before it rounds to the sum of all.
//! - [`Terms::Three`]: `hi * hi`, `hi * mid` and `mid * hi` of two terms each: at most `2^-15` of each product is lost.
//!
//! A step of its own regroups the activation ([`regroup`]): 32 channels of a pixel (of bytes: 64) beside one another, 64
//! bytes, the row of a tile. The products are those of every other convolution and matrix product, in the same nests.
//!
//! # Where tiles compute otherwise
//! They take denormal numbers as zeros and make none; infinity times a term that is 0 is NaN; the largest floats round up
//! to infinity. So that a result is what plain f32 makes of it:
//!
//! - The weights of an output channel are scaled by a power of two, so that the largest is between 1 and 2; the sums are
//!   scaled back by the epilogue. Weights that are not finite are for plain kernels, which is known when a plan is made.
//! - The step that regroups raises the flag of the run where a magnitude is [`LARGEST`] or more, or no number; and where
//!   of the 32 channels of a pixel all are below [`SMALLEST`] and not all are 0. The run then starts again with plain
//!   kernels.
//!
//! What is left: sums stay below `2^100 * 2 * K`, so none overflows with up to `2^26` terms K. With `a` the largest
//! magnitude of what an output reads and `w` that of its channel's weights, each term that is taken for zero loses at
//! most `2^-125 * w * max(a, 1)`, all together less than `2^-120 * K * w * max(a, 1)`; where `a` is not 0 it is at least
//! `2^-70`, so that this is below `2^-24 * a * w` for every K up to `2^26` ([`MOST_TERMS`]): the rounding of one product.

pub mod conv;
pub mod gemm;
pub mod regroup;
pub(crate) mod tiles;

use crate::Precision;

/// Magnitudes from here on are left to plain kernels.
pub const LARGEST: f32 = f32::from_bits((127 + 100) << 23);
/// Pixels whose channels are all below this, and not all 0, are left to plain kernels.
pub const SMALLEST: f32 = f32::from_bits((127 - 70) << 23);
/// Fewer input channels (or columns of A) than this leave more than half of a tile's rows empty.
pub const LEAST_CHANNELS: usize = 32;
/// Fewer rows of A than this leave half of a tile empty, and B is read for little.
pub const LEAST_ROWS: usize = 8;
/// Terms of a sum, at most.
pub const MOST_TERMS: usize = 1 << 26;
/// Channels of a pixel that lie side by side: a row of a tile.
pub const CHANNELS: usize = 32;
/// The same of bytes.
pub const BYTE_CHANNELS: usize = 64;

/// Which products of bf16 terms stand for one of f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Terms {
    /// Three products of two terms each.
    Three,
    /// Six products of three terms each.
    Six,
}

impl Terms {
    /// The products that a precision needs.
    pub fn for_precision(precision: Precision) -> Terms {
        match precision {
            Precision::F32 => Terms::Six,
            Precision::Fast => Terms::Three,
        }
    }

    /// The bf16 that each f32 is the sum of.
    pub const fn parts(self) -> usize {
        match self {
            Terms::Three => 2,
            Terms::Six => 3,
        }
    }

    /// The products, as `(part of B, part of A)`, in an order in which few tiles are loaded twice.
    pub(crate) const fn products(self) -> &'static [(usize, usize)] {
        match self {
            Terms::Three => &[(0, 1), (0, 0), (1, 0)],
            Terms::Six => &[(0, 2), (0, 0), (0, 1), (1, 1), (1, 0), (2, 0)],
        }
    }

    /// The reason for kernels of these terms, for people.
    pub fn why(self) -> String {
        format!("AMX, as asked for: {} products of bf16 terms for each of f32", self.products().len())
    }
}

/// The nearest bf16, ties to even, of a finite number that does not round to infinity.
fn nearest(x: f32) -> u16 {
    let bits = x.to_bits();
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// The terms of a number.
fn terms(x: f32) -> [u16; 3] {
    let mut rest = x;
    [0; 3].map(|_| {
        let term = nearest(rest);
        rest -= f32::from_bits(u32::from(term) << 16);
        term
    })
}

/// What weights of one output channel are scaled by so that the largest magnitude is between 1 and 2, and what their sums
/// are scaled by in turn.
fn scales(weights: impl Iterator<Item = f32>) -> (f64, f32) {
    let largest = weights.fold(0f32, |a, w| a.max(w.abs()));
    if largest == 0.0 {
        return (1.0, 1.0);
    }
    let exponent = f64::from(largest).log2().floor() as i32;
    // log2 rounds: the largest may be just outside
    let exponent = match f64::from(largest) * 2f64.powi(-exponent) {
        m if m < 1.0 => exponent - 1,
        m if m >= 2.0 => exponent + 1,
        _ => exponent,
    };
    (2f64.powi(-exponent), 2f64.powi(exponent) as f32)
}

/// Packs one matrix of K rows and N columns, `w(k, n)`, in panels of `vectors` of 16 columns: `[panels][K / 32][taps]
/// [parts][16][columns][2]`, K being `[channels][taps]`; each column is scaled. `columns` gets the factor and the bias of
/// each column as [`super::brgemm::Bias::Scaled`] wants them.
pub(crate) fn pack(p: &Panels<'_>, columns: &mut [f32], out: &mut [f32]) {
    let lanes = 16;
    let parts = p.terms.parts();
    let scales: Vec<(f64, f32)> = (0..p.n)
        .map(|n| scales((0..p.channels * p.taps).map(|k| (p.at)(k / p.taps, k % p.taps, n))))
        .collect();
    for (v, record) in columns.chunks_exact_mut(2 * lanes).enumerate() {
        for j in 0..lanes {
            let n = v * lanes + j;
            record[j] = scales.get(n).map_or(1.0, |s| s.1);
            record[lanes + j] = p.bias.and_then(|b| b.get(n)).copied().unwrap_or(0.0);
        }
    }
    let out: &mut [u16] = bytemuck::cast_slice_mut(out);
    let mut panels = out;
    for vectors in p.vectors.ranges() {
        let (first, width) = (vectors.start * lanes, vectors.len() * lanes);
        let steps = p.channels.div_ceil(CHANNELS) * p.taps;
        let (panel, rest) = panels.split_at_mut(steps * parts * CHANNELS * width);
        panels = rest;
        panel.fill(0);
        for (step, step_out) in panel.chunks_exact_mut(parts * CHANNELS * width).enumerate() {
            let (group, tap) = (step / p.taps, step % p.taps);
            let channels = group * CHANNELS..p.channels.min((group + 1) * CHANNELS);
            for (i, c) in channels.enumerate() {
                for n in first..p.n.min(first + width) {
                    // exact: a power of two, and far from both ends of f32 or flushed to what a tile sees as 0
                    let w = (f64::from((p.at)(c, tap, n)) * scales[n].0) as f32;
                    for (part, term) in terms(w).into_iter().enumerate().take(parts) {
                        step_out[((part * CHANNELS + i / 2 * 2) * width) + 2 * (n - first) + i % 2] = term;
                    }
                }
            }
        }
    }
}

/// What [`pack`] packs.
pub(crate) struct Panels<'a> {
    pub terms: Terms,
    pub channels: usize,
    pub taps: usize,
    pub n: usize,
    pub vectors: super::split::Split,
    /// The weight of `(channel, tap, column)`.
    pub at: &'a dyn Fn(usize, usize, usize) -> f32,
    pub bias: Option<&'a [f32]>,
}

impl Panels<'_> {
    /// Floats of the packed panels of `vectors` vectors.
    pub fn elems(terms: Terms, channels: usize, taps: usize, vectors: usize) -> usize {
        channels.div_ceil(CHANNELS) * taps * terms.parts() * CHANNELS * vectors * 16 / 2
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(b: u16) -> f32 {
        f32::from_bits(u32::from(b) << 16)
    }

    #[test]
    fn three_terms_are_all_of_a_float() {
        let mut bits = 1u32;
        for _ in 0..100_000 {
            bits = bits.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let x = f32::from_bits(bits);
            if !(SMALLEST..LARGEST).contains(&x.abs()) {
                continue;
            }
            let terms = terms(x).map(|t| f64::from(value(t)));
            assert_eq!(terms.iter().sum::<f64>(), f64::from(x), "{x:e}: {terms:?}");
            assert!(terms[1].abs() <= terms[0].abs() / 256.0 && terms[2].abs() <= terms[0].abs() / 65536.0);
        }
    }

    #[test]
    fn scales_undo_one_another_at_every_size() {
        for exponent in -149..128 {
            for m in [1.0, 1.5, 1.999_999_9] {
                let w = (2f64.powi(exponent) * m) as f32;
                if w.is_infinite() {
                    continue;
                }
                let (up, down) = scales([w, -w / 3.0].into_iter());
                let scaled = f64::from(w) * up;
                assert!((1.0..2.0).contains(&scaled), "{w:e}: {scaled}");
                assert_eq!(scaled * f64::from(down), f64::from(w));
            }
        }
        assert_eq!(scales([0.0, -0.0].into_iter()), (1.0, 1.0));
    }
}
