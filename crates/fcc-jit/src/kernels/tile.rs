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
    // B comes from L2 for each tile anew: a part of that is not hidden, so taller tiles are better.
    fma.max(loads).max(issue).max(4.0) + 0.35 * nv as f64
}

/// The cheapest tiling of `rows x cols` pixels and `vectors` column vectors for sums of `k` products.
pub fn choose(isa: Isa, rows: usize, cols: usize, vectors: usize, k: usize) -> Tiling {
    choose_within(isa, rows, cols, vectors, k, usize::MAX)
}

/// The same with at most `widest` vectors in a tile.
pub fn choose_within(isa: Isa, rows: usize, cols: usize, vectors: usize, k: usize, widest: usize) -> Tiling {
    let mut best: Option<(f64, Tiling)> = None;
    for (cost, tiling) in all(isa, rows, cols, vectors, k, widest) {
        if best.as_ref().is_none_or(|b| cost < b.0 * 0.999) {
            best = Some((cost, tiling));
        }
    }
    let one = |n| Split::at_most(n, 1);
    best.map_or(Tiling { rows: one(rows), cols: one(cols), vectors: one(vectors) }, |b| b.1)
}

/// The tilings whose cost is below `limit` times the cheapest, cheapest first: what is worth a measurement.
pub fn near_best(isa: Isa, rows: usize, cols: usize, vectors: usize, k: usize, limit: f64) -> Vec<Tiling> {
    let mut list: Vec<(f64, Tiling)> = all(isa, rows, cols, vectors, k, usize::MAX).collect();
    list.sort_by(|a, b| a.0.total_cmp(&b.0));
    let most = list.first().map_or(0.0, |l| l.0 * limit);
    let mut out: Vec<Tiling> = vec![];
    for (_, t) in list.into_iter().take_while(|l| l.0 <= most) {
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
    widest: usize,
) -> impl Iterator<Item = (f64, Tiling)> {
    let widths = [2, 1, 3, 4, 6, 8, 12, 16].into_iter().filter(move |nv| {
        let one_row = rows * cols <= 1;
        max_rows(isa, *nv) > 0 && *nv <= widest && (*nv <= 4 || one_row)
    });
    widths.flat_map(move |nv| {
        let max = max_rows(isa, nv);
        let vectors = Split::at_most(vectors, nv);
        // Tall tiles only of matrices: a convolution's rows are as wide as they come.
        let tallest = if cols == 1 { max } else { max.min(8) };
        (1..=rows.min(tallest)).flat_map(move |th| {
            let rows = Split::at_most(rows, th);
            [max / th, max / (2 * th)].into_iter().map(move |tw| {
                let tiling = Tiling { rows, cols: Split::at_most(cols, tw.max(1)), vectors };
                (cost(isa, &tiling, k) * if nv == 2 { 1.0 } else { 1.01 }, tiling)
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
