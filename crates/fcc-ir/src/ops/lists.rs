//! Lists of integers that older versions of an operator hold as an attribute and newer ones as an input.
use crate::op::{DimTensor, EvalCtx, InferCtx, axis};
use crate::{Error, Result};

/// What inference knows of such a list.
#[derive(Debug, Clone, PartialEq)]
pub enum List {
    /// Neither attribute nor input.
    Absent,
    /// Computed by the graph.
    Unknown,
    /// The same in every run.
    Known(Vec<i64>),
}

/// The list as inference knows it.
pub fn inferred(cx: &InferCtx<'_>, attr: &str, slot: usize) -> Result<List> {
    if let Some(v) = cx.node.attrs.ints(attr)? {
        return Ok(List::Known(v.to_vec()));
    }
    if !cx.has(slot) {
        return Ok(List::Absent);
    }
    Ok(cx.dims(slot).and_then(|d| d.ints()).map_or(List::Unknown, List::Known))
}

/// The list at run time.
pub fn given(cx: &EvalCtx<'_>, attr: &str, slot: usize) -> Result<Option<Vec<i64>>> {
    if let Some(v) = cx.node.attrs.ints(attr)? {
        return Ok(Some(v.to_vec()));
    }
    cx.opt_tensor(slot)?.map(|t| t.to_i64s()).transpose()
}

/// The elements of an attribute or input as dimensions; `None` if they are not known or absent.
pub fn dims(cx: &InferCtx<'_>, attr: &str, slot: usize) -> Result<Option<Vec<crate::Dim>>> {
    if let Some(v) = cx.node.attrs.ints(attr)? {
        return Ok(Some(v.iter().copied().map(DimTensor::elem).collect()));
    }
    Ok(cx.dims(slot).map(DimTensor::into_elems))
}

/// Axes made non-negative. Errors outside of the rank and on repetition.
pub fn axes(values: &[i64], rank: usize) -> Result<Vec<usize>> {
    let axes: Vec<usize> = values.iter().map(|&v| axis(v, rank)).collect::<Result<_>>()?;
    let mut sorted = axes.clone();
    sorted.sort_unstable();
    sorted.dedup();
    if sorted.len() != axes.len() {
        return Err(Error::mismatch("axes", format!("{values:?}"), "no axis twice"));
    }
    Ok(axes)
}

/// A list of extents. Errors on negative ones.
pub fn extents(what: &str, values: &[i64]) -> Result<Vec<usize>> {
    let bad = || Error::mismatch(what, format!("{values:?}"), "no negative number");
    values.iter().map(|&v| usize::try_from(v).map_err(|_| bad())).collect()
}
