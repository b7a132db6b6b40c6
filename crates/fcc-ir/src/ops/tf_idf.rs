//! `TfIdfVectorizer`: counts of n-grams. <https://onnx.ai/onnx/operators/onnx__TfIdfVectorizer.html>
use crate::limits::watched;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{Bytes, DType, Dim, Error, OpNode, Result, Tensor, TensorType, Value};
use std::collections::HashMap;

/// `TfIdfVectorizer`.
pub struct TfIdfVectorizer;

/// What an n-gram is made of.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Token {
    Int(i64),
    Text(Bytes),
}

/// What a count becomes.
enum Mode {
    /// The count.
    Tf,
    /// The weight, where the n-gram occurs at all.
    Idf,
    /// Count times weight.
    TfIdf,
}

struct Vocabulary {
    /// n-gram -> its number.
    grams: HashMap<Vec<Token>, usize>,
    /// Place in the output of each n-gram.
    indexes: Vec<usize>,
    weights: Option<Vec<f32>>,
    mode: Mode,
    gram_lengths: std::ops::RangeInclusive<usize>,
    max_skip: usize,
}

fn size(node: &OpNode, name: &str) -> Result<usize> {
    let v = node.attrs.need_int(name)?;
    usize::try_from(v).map_err(|_| Error::mismatch(format!("attribute `{name}`"), v, "at least 0"))
}

/// Extent of the output: one more than the greatest place.
fn out_extent(node: &OpNode) -> Result<usize> {
    let places = super::lists::extents("attribute `ngram_indexes`", node.attrs.need_ints("ngram_indexes")?)?;
    Ok(places.into_iter().max().map_or(0, |m| m.saturating_add(1)))
}

impl Vocabulary {
    fn parse(node: &OpNode) -> Result<Vocabulary> {
        let pool: Vec<Token> = match (node.attrs.ints("pool_int64s")?, node.attrs.strings("pool_strings")?) {
            (Some(v), None) => v.iter().copied().map(Token::Int).collect(),
            (None, Some(v)) => v.iter().cloned().map(Token::Text).collect(),
            _ => return Err(Error::mismatch("pools", "none or both", "pool_int64s or pool_strings")),
        };
        let counts =
            super::lists::extents("attribute `ngram_counts`", node.attrs.need_ints("ngram_counts")?)?;
        let indexes =
            super::lists::extents("attribute `ngram_indexes`", node.attrs.need_ints("ngram_indexes")?)?;
        let mut grams = HashMap::new();
        // counts[n] is where the (n + 1)-grams begin in the pool
        for (n, &start) in counts.iter().enumerate() {
            let end = counts.get(n + 1).copied().unwrap_or(pool.len());
            let part = pool.get(start..end).filter(|p| p.len() % (n + 1) == 0).ok_or_else(|| {
                Error::mismatch(
                    "attribute `ngram_counts`",
                    format!("{counts:?}"),
                    "ascending places in the pool",
                )
            })?;
            for gram in part.chunks(n + 1) {
                let number = grams.len();
                grams.entry(gram.to_vec()).or_insert(number);
            }
        }
        let weights = node.attrs.floats("weights")?.map(<[f32]>::to_vec);
        if indexes.len() < grams.len() || weights.as_ref().is_some_and(|w| w.len() < grams.len()) {
            let wanted = format!("one for each of {} n-grams", grams.len());
            return Err(Error::mismatch("ngram_indexes and weights", indexes.len(), wanted));
        }
        let mode = match node.attrs.str_or("mode", "TF")? {
            "TF" => Mode::Tf,
            "IDF" => Mode::Idf,
            "TFIDF" => Mode::TfIdf,
            other => return Err(Error::mismatch("attribute `mode`", other, "TF, IDF or TFIDF")),
        };
        let gram_lengths = size(node, "min_gram_length")?.max(1)..=size(node, "max_gram_length")?;
        Ok(Vocabulary {
            grams,
            indexes,
            weights,
            mode,
            gram_lengths,
            max_skip: size(node, "max_skip_count")?,
        })
    }

    fn count(&self, row: &[Token], extent: usize) -> Vec<f32> {
        let mut counts = vec![0u32; self.grams.len()];
        for n in self.gram_lengths.clone().filter(|n| *n <= row.len()) {
            // skips make no difference to single tokens
            let skips = if n == 1 { 0 } else { self.max_skip.min(row.len()) };
            for step in watched(1..=skips + 1) {
                let reach = (n - 1) * step;
                for start in watched(0..row.len().saturating_sub(reach)) {
                    let gram: Vec<Token> = (0..n).map(|k| row[start + k * step].clone()).collect();
                    if let Some(&number) = self.grams.get(&gram) {
                        counts[number] += 1;
                    }
                }
            }
        }
        let mut out = vec![0f32; extent];
        for (number, count) in counts.into_iter().enumerate().filter(|(_, c)| *c > 0) {
            let weight = self.weights.as_ref().map_or(1.0, |w| w[number]);
            out[self.indexes[number]] = match self.mode {
                Mode::Tf => count as f32,
                Mode::Idf => weight,
                Mode::TfIdf => count as f32 * weight,
            };
        }
        out
    }
}

impl Operator for TfIdfVectorizer {
    fn schema(&self) -> Schema {
        Schema { name: "TfIdfVectorizer", domain: "", since: &[9], inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let last = Dim::Known(out_extent(cx.node)?);
        let shape = match cx.shape(0)?.map(Vec::as_slice) {
            Some([_]) => Some(vec![last]),
            Some([n, _]) => Some(vec![n.clone(), last]),
            Some(other) => return Err(Error::mismatch("rank", other.len(), "1 or 2")),
            None => None,
        };
        Ok(vec![TensorType { dtype: DType::F32, shape }.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let (rows, length) = match *x.shape() {
            [c] => (1, c),
            [n, c] => (n, c),
            _ => return Err(Error::mismatch("rank", x.rank(), "1 or 2")),
        };
        let tokens: Vec<Token> = match x.dtype() {
            DType::String => x.as_strings()?.iter().cloned().map(Token::Text).collect(),
            _ => x.to_i64s()?.into_iter().map(Token::Int).collect(),
        };
        let (vocabulary, extent) = (Vocabulary::parse(cx.node)?, out_extent(cx.node)?);
        let out = (0..rows).flat_map(|r| vocabulary.count(&tokens[r * length..][..length], extent));
        let shape = if x.rank() == 1 { vec![extent] } else { vec![rows, extent] };
        Ok(vec![Tensor::new(shape, out.collect::<Vec<_>>())?.into()])
    }
}
