//! Choosing the micro-kernel's tile: a model of its cycles for each k.

use super::brgemm::max_rows;
use super::split::Split;
use crate::asm::Isa;

/// How output rows, columns and column vectors are cut.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tiling {
    /// Rows of output pixels.
    pub rows: Split,
    /// Pixels of a row.
    pub cols: Split,
    /// Column vectors.
    pub vectors: Split,
}

/// Cycles of one k of a tile of `r` rows and `nv` vectors: the slower of multiply, load and latency.
fn cycles(isa: Isa, r: usize, nv: usize) -> f64 {
    let fma = (r * nv) as f64 / 2.0;
    let loads = (r + nv) as f64 / 2.0;
    // Issue: every load, and every multiply that does not take its load with it.
    let folded = r == 1 || (nv == 1 && isa == Isa::Avx512);
    let issue = (if folded { r * nv + 1 } else { r * nv + r + nv }) as f64 / 5.5;
    // B comes from L2 for each tile anew, and so do the lines of A for each group of vectors: a part of that is not
    // hidden, so larger tiles are better.
    fma.max(loads).max(issue).max(4.0) + 0.35 * (nv as f64 + r as f64 / 16.0)
}

/// What a tile may be at most, beside what fits in registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most {
    /// Vectors.
    pub vectors: usize,
    /// Rows.
    pub rows: usize,
}

impl Most {
    /// Whatever fits in registers.
    pub const ANY: Most = Most { vectors: usize::MAX, rows: usize::MAX };
}

/// Lines of the first-level cache with the same place in it, at least, and bytes after which places repeat.
const CACHE_WAYS: usize = 8;
const CACHE_PERIOD: usize = 4096;
const CACHE_LINE: usize = 64;

/// How many rows of a matrix, `pitch` bytes apart, the first-level cache holds a line of at the same time. Rows whose
/// distance is a multiple of 4096 bytes fall to the same place, and a tile with more of them than fit there takes each
/// value of A from the second level.
pub fn rows_in_cache(pitch: usize) -> usize {
    let mut lines = [0; CACHE_PERIOD / CACHE_LINE];
    for row in 0..lines.len() {
        let place = &mut lines[row * (pitch % CACHE_PERIOD) % CACHE_PERIOD / CACHE_LINE];
        *place += 1;
        if *place > CACHE_WAYS {
            return row;
        }
    }
    lines.len()
}

/// The cheapest tiling of `rows x cols` pixels and `vectors` column vectors for sums of `k` products.
pub fn choose(isa: Isa, rows: usize, cols: usize, vectors: usize, k: usize, most: Most) -> Tiling {
    let isa = isa.vectors();
    let mut best: Option<(f64, Tiling)> = None;
    for (cost, tiling) in all(isa, rows, cols, vectors, k, most) {
        if best.as_ref().is_none_or(|b| cost < b.0 * 0.999) {
            best = Some((cost, tiling));
        }
    }
    let one = |n| Split::at_most(n, 1);
    best.map_or(Tiling { rows: one(rows), cols: one(cols), vectors: one(vectors) }, |b| b.1)
}

/// The tilings whose cost is below `limit` times the cheapest, cheapest first: what is worth a measurement.
pub fn near_best(
    isa: Isa,
    rows: usize,
    cols: usize,
    vectors: usize,
    k: usize,
    most: Most,
    limit: f64,
) -> Vec<Tiling> {
    let mut list: Vec<(f64, Tiling)> = all(isa.vectors(), rows, cols, vectors, k, most).collect();
    list.sort_by(|a, b| a.0.total_cmp(&b.0));
    let slowest = list.first().map_or(0.0, |l| l.0 * limit);
    let mut out: Vec<Tiling> = vec![];
    for (_, t) in list.into_iter().take_while(|l| l.0 <= slowest) {
        if !out.contains(&t) {
            out.push(t);
        }
    }
    out
}

/// Every tiling that is considered, with its cost; some come twice.
fn all(
    isa: Isa,
    rows: usize,
    cols: usize,
    vectors: usize,
    k: usize,
    most: Most,
) -> impl Iterator<Item = (f64, Tiling)> {
    let widths = [2, 1, 3, 4, 6, 8, 12, 16].into_iter().filter(move |nv| {
        let one_row = rows * cols <= 1;
        max_rows(isa, *nv) > 0 && *nv <= most.vectors && (*nv <= 4 || one_row)
    });
    widths.flat_map(move |nv| {
        let max = max_rows(isa, nv).min(most.rows);
        let vectors = Split::at_most(vectors, nv);
        // Tall tiles only of matrices: a convolution's rows are as wide as they come.
        let tallest = if cols == 1 { max } else { max.min(8) };
        (1..=rows.min(tallest)).flat_map(move |th| {
            let rows = Split::at_most(rows, th);
            [max / th, max / (2 * th)].into_iter().map(move |tw| {
                let tiling = Tiling { rows, cols: Split::at_most(cols, tw.max(1)), vectors };
                (cost(isa, &tiling, k) * [1.003, 1.01, 1.0][if nv > 2 { 0 } else { nv }], tiling)
            })
        })
    })
}

impl Tiling {
    /// The tiling that these largest sizes give.
    pub fn of(rows: usize, cols: usize, vectors: usize, tile: [usize; 3]) -> Tiling {
        let [r, c, v] = tile;
        Tiling {
            rows: Split::at_most(rows, r),
            cols: Split::at_most(cols, c),
            vectors: Split::at_most(vectors, v),
        }
    }
    /// Its largest tile: rows, columns, vectors. [`Tiling::of`] it is this tiling again.
    pub fn tile(&self) -> [usize; 3] {
        [self.rows.size(0), self.cols.size(0), self.vectors.size(0)]
    }
}

fn cost(isa: Isa, t: &Tiling, k: usize) -> f64 {
    let mut sum = 0.0;
    for r in t.rows.runs() {
        for c in t.cols.runs() {
            for v in t.vectors.runs() {
                let calls = ((r.to - r.from) * (c.to - c.from) * (v.to - v.from)) as f64;
                let tile = r.size * c.size;
                // A call and its loads, stores and loop entries beside the products.
                let fixed = 20.0 + (tile * v.size) as f64 * 1.5;
                sum += calls * (k as f64 * cycles(isa, tile, v.size) + fixed);
            }
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_that_fall_to_one_place_are_counted() {
        // 1024, 512 and 1040 floats; 3 * 1024 bytes go round in four places
        for (pitch, rows) in [(4096, 8), (8192, 8), (2048, 16), (4160, 64), (3072, 32), (4096 + 2048, 16)] {
            assert_eq!(rows_in_cache(pitch), rows, "{pitch}");
        }
        assert_eq!(rows_in_cache(0), 8);
    }

    #[test]
    fn a_tile_has_no_more_rows_than_allowed() {
        for isa in [Isa::Baseline, Isa::Avx2, Isa::Avx512] {
            for (rows, vectors) in [(1, 1), (7, 2), (100, 1), (100, 3), (1024, 64)] {
                let t = choose(isa, rows, 1, vectors, 1024, Most { rows: 8, ..Most::ANY });
                assert!(t.rows.size(0) <= 8, "{isa} {t:?}");
                assert!(t.rows.total == rows && t.vectors.total == vectors, "{isa} {t:?}");
            }
        }
    }
}
