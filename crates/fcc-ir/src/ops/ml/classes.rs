//! The labels of classifiers and the keys of maps: strings or int64.
use crate::{DType, Error, OpNode, Result, StringList, Tensor};

/// The classes of a classifier.
#[derive(Debug, Clone, PartialEq)]
pub enum Classes {
    /// `classlabels_int64s`, or `classlabels_ints`.
    Ints(Vec<i64>),
    /// `classlabels_strings`.
    Strings(StringList),
}

impl Classes {
    /// The one list among `classlabels_strings` and the attribute `ints`. Errors on none and on both.
    pub fn parse(node: &OpNode, ints: &str) -> Result<Classes> {
        Classes::of(node, "classlabels_strings", ints)
    }
    /// The one list among two attributes that is there and not empty.
    pub fn of(node: &OpNode, strings: &str, ints: &str) -> Result<Classes> {
        let texts = node.attrs.strings(strings)?.filter(|s| !s.is_empty());
        let numbers = node.attrs.ints(ints)?.filter(|v| !v.is_empty());
        match (texts, numbers) {
            (Some(s), None) => Ok(Classes::Strings(s.clone())),
            (None, Some(v)) => Ok(Classes::Ints(v.to_vec())),
            (s, _) => {
                let got = if s.is_some() { "both" } else { "none" };
                Err(Error::mismatch("labels", got, format!("one of `{strings}` and `{ints}`")))
            }
        }
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        match self {
            Classes::Ints(v) => v.len(),
            Classes::Strings(s) => s.len(),
        }
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The element type of the labels.
    pub fn dtype(&self) -> DType {
        match self {
            Classes::Ints(_) => DType::I64,
            Classes::Strings(_) => DType::String,
        }
    }
    /// The labels of classes by their numbers, `[N]`. Errors on a number without a class.
    pub fn labels(&self, which: &[usize]) -> Result<Tensor> {
        let outside = |i: usize| Error::mismatch("class", i, format!("below {}", self.len()));
        match self {
            Classes::Ints(v) => {
                let label = |i: &usize| v.get(*i).copied().ok_or_else(|| outside(*i));
                Ok(Tensor::from_i64s(which.iter().map(label).collect::<Result<Vec<_>>>()?))
            }
            Classes::Strings(s) => {
                let label = |i: &usize| s.get(*i).cloned().ok_or_else(|| outside(*i));
                Tensor::from_strings([which.len()], which.iter().map(label).collect::<Result<Vec<_>>>()?)
            }
        }
    }
    /// All labels, `[E]`.
    pub fn all(&self) -> Result<Tensor> {
        self.labels(&(0..self.len()).collect::<Vec<_>>())
    }
}

/// The first greatest score; NaN is never greater.
pub fn top<T: PartialOrd>(scores: &[T]) -> usize {
    let better = |best: usize, i: usize| if scores[i] > scores[best] { i } else { best };
    (1..scores.len()).fold(0, better)
}
