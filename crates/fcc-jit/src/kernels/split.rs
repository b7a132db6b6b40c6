//! Cutting a length into nearly equal pieces.

/// `total` things in `pieces` pieces: the first `big` have `base + 1`, the others `base`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Split {
    /// Things.
    pub total: usize,
    /// Pieces.
    pub pieces: usize,
    /// Size of the smaller pieces.
    pub base: usize,
    /// Number of pieces with one more.
    pub big: usize,
}

/// Neighbouring pieces of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// Index of the first piece.
    pub from: usize,
    /// Index behind the last piece.
    pub to: usize,
    /// Things in each.
    pub size: usize,
    /// Things before the first.
    pub start: usize,
}

impl Split {
    /// The fewest pieces of at most `max` things (at least 1).
    pub fn at_most(total: usize, max: usize) -> Split {
        Split::into(total, total.div_ceil(max.max(1)))
    }

    /// Exactly `pieces` pieces (at least 1, at most `total`).
    pub fn into(total: usize, pieces: usize) -> Split {
        let pieces = pieces.clamp(1, total.max(1));
        Split { total, pieces, base: total / pieces, big: total % pieces }
    }

    /// Things before piece `i`.
    pub fn start(&self, i: usize) -> usize {
        i * self.base + i.min(self.big)
    }

    /// Things in piece `i`.
    pub fn size(&self, i: usize) -> usize {
        self.base + usize::from(i < self.big)
    }

    /// Where each piece begins and ends.
    pub fn ranges(&self) -> impl Iterator<Item = std::ops::Range<usize>> + use<> {
        let me = *self;
        (0..me.pieces).map(move |i| me.start(i)..me.start(i) + me.size(i))
    }

    /// The one or two runs of equal pieces.
    pub fn runs(&self) -> Vec<Run> {
        let all = [(0, self.big, self.base + 1), (self.big, self.pieces, self.base)];
        all.into_iter()
            .filter(|r| r.0 < r.1 && r.2 > 0)
            .map(|(from, to, size)| Run { from, to, size, start: self.start(from) })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_the_total_once() {
        for total in 0..100 {
            for max in 1..20 {
                let s = Split::at_most(total, max);
                let sizes: Vec<usize> = (0..s.pieces).map(|i| s.size(i)).collect();
                assert_eq!(sizes.iter().sum::<usize>(), total);
                assert!(sizes.iter().all(|&n| n <= max));
                let mut next = 0;
                for run in s.runs() {
                    assert_eq!((run.start, run.size), (s.start(run.from), s.size(run.from)));
                    assert_eq!(run.start, next);
                    next += (run.to - run.from) * run.size;
                }
                assert_eq!(next, total);
            }
        }
    }
}
