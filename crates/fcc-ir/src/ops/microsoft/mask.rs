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
            [n] if n == 2 * s.batch => Ok(Form::EndsAndBegins),
            [b, 1] if (b == s.batch || b == 1) && s.keys != 1 => Ok(Form::Nothing),
            [_, 1, m, n] if m == n => Err(Error::unsupported("a `mask_index` of four axes")),
            _ => Form::of_padding(shape, s)
                .map_err(|_| wrong_shape("mask_index", shape, Form::wanted(s, "[2 * batch], "))),
        }
    }
    /// The form of a `key_padding_mask` of `MultiHeadAttention`.
    pub fn of_padding(shape: &[usize], s: Space) -> Result<Form> {
        match *shape {
            [n] if n == s.batch || n == 3 * s.batch + 2 => Ok(Form::Ends),
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
    /// `[batch, queries, keys]` to add.
    values: Option<Vec<f32>>,
    /// `[batch or 1, heads or 1, queries, keys]`.
    bias: Option<(Vec<f32>, &'a [usize])>,
    /// Keys behind the query are hidden.
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
        let values = match mask {
            None | Some((_, Form::Nothing)) => None,
            Some((t, form)) => Some(values(&t.to_i64s()?, form, space, filter)?),
        };
        Ok(Mask { space, values, bias, causal })
    }
    /// Adds bias, mask and causality to the scores of a query `[batch, head, query]`.
    pub fn add(&self, at: [usize; 3], scores: &mut [f32]) {
        self.add_from(0, at, scores);
    }
    /// As [`Mask::add`], where the scores begin with those of key `first`.
    pub fn add_from(&self, first: usize, [b, h, i]: [usize; 3], scores: &mut [f32]) {
        let s = self.space;
        let values = self.values.as_ref().map(|v| &v[(b * s.queries + i) * s.keys..][..s.keys]);
        let bias = self.bias.as_ref().map(|(v, shape)| {
            let at = broadcast::strides(shape, &[s.batch, s.heads, s.queries, s.keys]);
            &v[b * at[0] + h * at[1] + i * s.keys..][..s.keys]
        });
        for (j, score) in (first..).zip(scores) {
            let mut add = values.map_or(0.0, |v| v[j]);
            if self.causal && j > s.past + i {
                add += f32::MIN;
            }
            *score += bias.map_or(0.0, |v| v[j]) + add;
        }
    }
}

/// The mask as `[batch, queries, keys]` numbers: 0 or `filter`.
fn values(mask: &[i64], form: Form, s: Space, filter: f32) -> Result<Vec<f32>> {
    let end = |b: usize| {
        usize::try_from(mask[b]).map_err(|_| Error::mismatch("end of a row of keys", mask[b], "0 or more"))
    };
    let ends = match form {
        Form::Ends | Form::EndsAndBegins => (0..s.batch).map(end).collect::<Result<Vec<_>>>()?,
        _ => vec![],
    };
    let mut out = Vec::with_capacity(s.batch * s.queries * s.keys);
    for b in 0..s.batch {
        for i in 0..s.queries {
            let seen = |j: usize| match form {
                Form::Ends => j < ends[b],
                Form::EndsAndBegins => j < ends[b] && j as i64 >= mask[s.batch + b],
                Form::Keys => mask[b * s.keys + j] > 0,
                Form::Scores => mask[(b * s.queries + i) * s.keys + j] > 0,
                Form::Nothing => true,
            };
            out.extend((0..s.keys).map(|j| if seen(j) { 0.0 } else { filter }));
        }
    }
    Ok(out)
}
