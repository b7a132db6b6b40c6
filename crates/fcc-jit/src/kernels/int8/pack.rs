//! Packing weights: `[pieces of vectors][parts][steps of four k][columns][4]` as signed bytes (sixteen steps are the rows
//! of a tile), or as words for [`Dot::Words`], whose steps are `[k 0 and 2, then 1 and 3][columns][2]`; and what the
//! columns have beside.

use super::micro::Micro;
use super::{Epilogue, Zero};
use crate::asm::{Dot, Isa};
use crate::error::{Error, Result};
use crate::kernels::split::Split;

/// Weights of one matrix less their zero points, in any storage.
pub(super) struct Weights<'a> {
    /// Columns that there are.
    pub n: usize,
    /// Steps of four k in the order of the reduction.
    pub steps: usize,
    /// Weight of `(step, 0..4, column)`; 0 where there is none.
    pub at: &'a dyn Fn(usize, usize, usize) -> i32,
}

/// How many signed bytes a weight is the sum of, at most.
pub fn parts(dot: Dot, weights: impl Iterator<Item = i32>) -> usize {
    if dot == Dot::Words {
        return 1;
    }
    let of = |w: i32| match w {
        -128..=127 => 1,
        -256..=254 => 2,
        _ => 3,
    };
    weights.map(of).max().unwrap_or(1)
}

/// Part `i` of a weight.
fn part(w: i32, i: usize) -> i32 {
    let mut rest = w;
    for _ in 0..i {
        rest -= rest.clamp(-128, 127);
    }
    rest.clamp(-128, 127)
}

/// Packs into `out`, of `vectors.total * parts * steps * dot.step_bytes(lanes)` bytes.
pub(super) fn pack(
    isa: Isa,
    dot: Dot,
    vectors: &Split,
    parts: usize,
    w: &Weights<'_>,
    out: &mut [u8],
) -> Result<()> {
    let (lanes, bytes) = (isa.lanes(), dot.step_bytes(isa.lanes()));
    if out.len() != vectors.total * parts * w.steps * bytes {
        return Err(Error::invalid("int8", format!("packing into {} bytes", out.len())));
    }
    let mut rest = out;
    for piece in 0..vectors.pieces {
        let (first, width) = (vectors.start(piece) * lanes, vectors.size(piece) * lanes);
        for p in 0..parts {
            for step in 0..w.steps {
                let (line, more) = rest.split_at_mut(width * bytes / lanes);
                rest = more;
                for j in 0..width.min(w.n.saturating_sub(first)) {
                    for i in 0..4 {
                        let v = part((w.at)(step, i, first + j), p);
                        match dot {
                            Dot::Bytes | Dot::Tiles => line[4 * j + i] = v as i8 as u8,
                            Dot::Words => {
                                let word = (w.at)(step, i, first + j) as i16;
                                // k 1 and 3 stand behind all of k 0 and 2
                                let at = (i % 2 * width + j) * 4 + i / 2 * 2;
                                line[at..at + 2].copy_from_slice(&word.to_le_bytes());
                            }
                        }
                    }
                }
            }
        }
    }
    Ok(())
}

/// What the columns start from, and the constants of the epilogue (one list of `n` for each).
pub(super) struct Columns<'a> {
    pub zero: Zero,
    /// Whether x is int8.
    pub signed: bool,
    pub bias: Option<&'a [i32]>,
    pub constants: &'a [Vec<f32>],
}

/// Packs the columns of one matrix into `out`.
pub(super) fn pack_columns(
    isa: Isa,
    dot: Dot,
    epilogue: &Epilogue,
    w: &Weights<'_>,
    c: &Columns<'_>,
    out: &mut [f32],
) -> Result<()> {
    let lanes = isa.lanes();
    let record = Micro::column_bytes(isa, c.zero, epilogue) / 4;
    if c.constants.len() != epilogue.columns() || c.constants.iter().any(|v| v.len() != w.n) {
        return Err(Error::invalid("int8", format!("{} constants for the columns", c.constants.len())));
    }
    // x goes into products of bytes as x + 128 where it is signed
    let shift = if c.signed && dot == Dot::Bytes { 128 } else { 0 };
    for (v, record) in out.chunks_exact_mut(record).enumerate() {
        for (j, n) in (v * lanes..w.n.min((v + 1) * lanes)).enumerate() {
            let sum = (0..4 * w.steps).fold(0i32, |s, k| s.wrapping_add((w.at)(k / 4, k % 4, n)));
            let bias = c.bias.map_or(0, |b| b[n]);
            let (init, mut next) = match c.zero {
                Zero::Const(z) => (bias.wrapping_sub(sum.wrapping_mul(z + shift)), 1),
                Zero::Operand => (bias, 2),
            };
            record[j] = f32::from_bits(init as u32);
            if c.zero == Zero::Operand {
                record[lanes + j] = f32::from_bits(sum as u32);
            }
            for constant in c.constants {
                record[next * lanes + j] = constant[n];
                next += 1;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_bytes_and_add_up() {
        for w in -255..=255 {
            let n = parts(Dot::Bytes, std::iter::once(w));
            let split: Vec<i32> = (0..n).map(|i| part(w, i)).collect();
            assert_eq!(split.iter().sum::<i32>(), w, "{split:?}");
            assert!(split.iter().all(|p| (-128..=127).contains(p)));
            assert_eq!(part(w, n), 0);
        }
    }
}
