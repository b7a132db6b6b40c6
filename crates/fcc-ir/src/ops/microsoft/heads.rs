//! What the three attentions share: heads apart, the past before the new tokens, scores, weighted sums. All of it in f32,
//! whatever the element type is.
use crate::ops::matmul;
use crate::{Result, limits};

/// An attention of known extents: Q `[batch, heads, queries, size]`, K `[batch, kv_heads, keys, size]`,
/// V `[batch, kv_heads, keys, v_size]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Heads {
    pub batch: usize,
    /// Heads of Q, a multiple of those of K and V.
    pub heads: usize,
    pub kv_heads: usize,
    pub queries: usize,
    pub keys: usize,
    pub size: usize,
    pub v_size: usize,
    /// Factor of the scores.
    pub scale: f32,
}

/// The factor of the scores: the attribute, where it is there and not 0, else `1 / sqrt(size)`.
pub(super) fn scale(given: f32, size: usize) -> f32 {
    if given == 0.0 { 1.0 / (size as f32).sqrt() } else { given }
}

impl Heads {
    /// `[batch, queries, heads * v_size]`: V weighted. `weigh` turns the scores of query `[batch, head, query]` over the
    /// first `keys(batch)` keys into weights. Errors where a limit of the run is reached.
    pub fn attend(
        &self,
        [q, k, v]: [&[f32]; 3],
        keys: impl Fn(usize) -> usize,
        mut weigh: impl FnMut([usize; 3], &mut [f32]),
    ) -> Result<Vec<f32>> {
        let (d, dv) = (self.size, self.v_size);
        if self.queries == 0 {
            return Ok(vec![]);
        }
        let mut y = vec![0f32; self.batch * self.queries * self.heads * dv];
        for b in 0..self.batch {
            let keys = keys(b);
            for h in 0..self.heads {
                let kv = b * self.kv_heads + h / (self.heads / self.kv_heads);
                let (k, v) = (&k[kv * self.keys * d..][..keys * d], &v[kv * self.keys * dv..][..keys * dv]);
                for i in 0..self.queries {
                    limits::check()?;
                    let q = &q[((b * self.heads + h) * self.queries + i) * d..][..d];
                    let mut scores = vec![0f32; keys];
                    matmul::product(q, [d, 1], k, [1, d], (1, d, keys), &mut scores);
                    scores.iter_mut().for_each(|s| *s *= self.scale);
                    weigh([b, h, i], &mut scores);
                    let to = &mut y[((b * self.queries + i) * self.heads + h) * dv..][..dv];
                    matmul::product(&scores, [keys, 1], v, [dv, 1], (1, keys, dv), to);
                }
            }
        }
        Ok(y)
    }
}

/// `exp(s - max) / sum`; with a sink, the sum holds `exp(sink - max)` too.
pub(super) fn softmax(scores: &mut [f32], sink: Option<f32>) {
    let start = sink.unwrap_or(f32::NEG_INFINITY);
    let max = scores.iter().fold(start, |m, s| if *s > m || s.is_nan() { *s } else { m });
    scores.iter_mut().for_each(|s| *s = (*s - max).exp());
    let sum = scores.iter().sum::<f32>() + sink.map_or(0.0, |s| (s - max).exp());
    scores.iter_mut().for_each(|s| *s /= sum);
}

/// `[batch, heads, tokens, size]` of columns `at..at + heads * size` of rows `[batch, tokens, width]`, plus a bias of
/// those columns.
pub(super) fn split(
    x: &[f32],
    (batch, tokens, width): (usize, usize, usize),
    at: usize,
    (heads, size): (usize, usize),
    bias: Option<&[f32]>,
) -> Vec<f32> {
    if x.is_empty() || size == 0 {
        return vec![];
    }
    let mut out = Vec::with_capacity(batch * tokens * heads * size);
    for b in 0..batch {
        for h in 0..heads {
            for t in 0..tokens {
                let head = &x[(b * tokens + t) * width + at + h * size..][..size];
                match bias {
                    Some(bias) => out.extend(head.iter().zip(&bias[h * size..]).map(|(x, b)| x + b)),
                    None => out.extend_from_slice(head),
                }
            }
        }
    }
    out
}

/// `[rows, past + new, size]`: the past of each row before what is new.
pub(super) fn join(past: &[f32], new: Vec<f32>, rows: usize) -> Vec<f32> {
    if past.is_empty() || rows == 0 {
        return new;
    }
    let (old, len) = (past.len() / rows, new.len() / rows);
    (0..rows).flat_map(|r| past[r * old..][..old].iter().chain(&new[r * len..][..len]).copied()).collect()
}
