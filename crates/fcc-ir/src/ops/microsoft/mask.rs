//! Which keys a query may look at, as numbers to add to the scores: masks, attention bias, causality.
use super::wrong_shape;
use crate::ops::broadcast;
use crate::{Error, Result, Tensor, convert};

/// `[batch, heads, queries, keys]` that masks and biases are for, and the keys of the past among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Space {
    pub batch: usize,
    pub heads: usize,
    pub queries: usize,
    pub keys: usize,
    pub past: usize,
}

impl Space {
    /// Elements of a mask of ends and cumulative lengths.
    fn cumulative(self) -> Option<usize> {
        self.batch.checked_mul(3)?.checked_add(2)
    }
}

/// How a mask of integers is to be read, from its shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `[batch]` or `[3 * batch + 2]`: the end of each row of keys.
    Ends,
    /// `[2 * batch]`: the ends, then the begins.
    EndsAndBegins,
    /// `[batch, keys]`: 1 for a key that is seen.
    Keys,
    /// `[batch, queries, keys]`.
    Scores,
    /// `[batch, 1]` or `[1, 1]`: the same for all keys, which changes nothing.
    Nothing,
}

impl Form {
    /// The form of a `mask_index` of `Attention`.
    pub fn of_mask_index(shape: &[usize], s: Space) -> Result<Form> {
        match *shape {
            [n] if Some(n) == s.batch.checked_mul(2) => Ok(Form::EndsAndBegins),
            [b, 1] if (b == s.batch || b == 1) && s.keys != 1 => Ok(Form::Nothing),
            [_, 1, m, n] if m == n => Err(Error::unsupported("a `mask_index` of four axes")),
            _ => Form::of_padding(shape, s)
                .map_err(|_| wrong_shape("mask_index", shape, Form::wanted(s, "[2 * batch], "))),
        }
    }
    /// The form of a `key_padding_mask` of `MultiHeadAttention`.
    pub fn of_padding(shape: &[usize], s: Space) -> Result<Form> {
        match *shape {
            [n] if n == s.batch || Some(n) == s.cumulative() => Ok(Form::Ends),
            [b, k] if (b, k) == (s.batch, s.keys) => Ok(Form::Keys),
            [b, q, k] if (b, q, k) == (s.batch, s.queries, s.keys) => Ok(Form::Scores),
            _ => Err(wrong_shape("key_padding_mask", shape, Form::wanted(s, ""))),
        }
    }
    fn wanted(s: Space, more: &str) -> String {
        let Space { batch, queries, keys, .. } = s;
        format!("[{batch}], {more}[3 * batch + 2], [{batch}, {keys}] or [{batch}, {queries}, {keys}]")
    }
}

/// A mask, a bias and causality together.
pub(super) struct Mask<'a> {
    pub space: Space,
    /// The mask's elements and their form.
    mask: Option<(Vec<i64>, Form)>,
    /// What is added where the mask hides a key.
    filter: f32,
    /// `[batch or 1, heads or 1, queries, keys]`.
    bias: Option<(Vec<f32>, &'a [usize])>,
    /// Keys behind a query are hidden, but from the last one.
    causal: bool,
}

/// Errors unless an attention bias broadcasts over batch and heads alone.
pub(super) fn check_bias(bias: Option<&[usize]>, s: Space) -> Result<()> {
    match bias {
        None => Ok(()),
        Some(&[b, h, q, k])
            if (b == 1 || b == s.batch) && (h == 1 || h == s.heads) && (q, k) == (s.queries, s.keys) =>
        {
            Ok(())
        }
        Some(other) => {
            let Space { batch, heads, queries, keys, .. } = s;
            let wanted = format!("[1 or {batch}, 1 or {heads}, {queries}, {keys}]");
            Err(wrong_shape("attention_bias", other, wanted))
        }
    }
}

impl<'a> Mask<'a> {
    /// `filter` is added where the mask hides a key. Errors on an end that is negative.
    pub fn new(
        space: Space,
        mask: Option<(&Tensor, Form)>,
        filter: f32,
        bias: Option<&'a Tensor>,
        causal: bool,
    ) -> Result<Mask<'a>> {
        let bias = bias.map(|b| Ok::<_, Error>((convert::to_f32s(b)?, b.shape()))).transpose()?;
        let mask = mask.map(|(t, form)| Ok::<_, Error>((t.to_i64s()?, form))).transpose()?;
        if let Some((ends, Form::Ends | Form::EndsAndBegins)) = &mask
            && let Some(end) = ends[..space.batch].iter().find(|e| **e < 0)
        {
            return Err(Error::mismatch("end of a row of keys", end, "0 or more"));
        }
        Ok(Mask { space, mask, filter, bias, causal })
    }
    /// Adds bias, mask and causality to the scores of a query `[batch, head, query]`.
    pub fn add(&self, at: [usize; 3], scores: &mut [f32]) {
        self.add_from(0, at, scores);
    }
    /// As [`Mask::add`], where the scores begin with those of key `first`.
    pub fn add_from(&self, first: usize, [b, h, i]: [usize; 3], scores: &mut [f32]) {
        let s = self.space;
        let bias = self.bias.as_ref().map(|(v, shape)| {
            let at = broadcast::strides(shape, &[s.batch, s.heads, s.queries, s.keys]);
            &v[b * at[0] + h * at[1] + i * s.keys..][..s.keys]
        });
        for (j, score) in (first..).zip(scores) {
            let mut add = if self.sees(b, i, j) { 0.0 } else { self.filter };
            // the last query sees all keys, those beyond its own place included
            if self.causal && i + 1 < s.queries && j > s.past + i {
                add += f32::MIN;
            }
            *score += bias.map_or(0.0, |v| v[j]) + add;
        }
    }
    /// Whether the mask lets query `i` see key `j`.
    fn sees(&self, b: usize, i: usize, j: usize) -> bool {
        let (s, at) = (self.space, j as i64);
        match &self.mask {
            None | Some((_, Form::Nothing)) => true,
            Some((ends, Form::Ends)) => at < ends[b],
            Some((ends, Form::EndsAndBegins)) => at < ends[b] && at >= ends[s.batch + b],
            Some((mask, Form::Keys)) => mask[b * s.keys + j] > 0,
            Some((mask, Form::Scores)) => mask[(b * s.queries + i) * s.keys + j] > 0,
        }
    }
}
