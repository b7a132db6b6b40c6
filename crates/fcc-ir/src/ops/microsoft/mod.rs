//! The domain `com.microsoft`: ONNX Runtime's own operators, as its CPU provider computes them. An operator of this
//! domain may share its name with one of `ai.onnx`; nodes are looked up by domain and name.
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>
use crate::op::{EvalCtx, InferCtx};
use crate::{Dim, Error, OpNode, Result, Tensor};

pub mod activation;
pub mod attention;
pub mod dynamic_quantize;
pub mod embed_layer_normalization;
pub mod fused;
pub mod group_query_attention;
mod heads;
pub mod inverse;
mod mask;
pub mod matmul_nbits;
pub mod movement;
pub mod multi_head_attention;
pub mod normalization;
pub mod qlinear;
pub mod renamed;
pub mod rotary_embedding;

/// The domain's name.
pub(crate) const DOMAIN: &str = "com.microsoft";

/// The shapes of a node's inputs by slot; `None` for an absent one.
struct Shapes(Vec<Option<Vec<usize>>>);

impl Shapes {
    /// The shapes of the values at hand.
    fn of(cx: &EvalCtx<'_>) -> Result<Shapes> {
        let shape = |i| Ok(cx.opt_tensor(i)?.map(|t| t.shape().to_vec()));
        Ok(Shapes((0..cx.inputs.len()).map(shape).collect::<Result<_>>()?))
    }
    /// The shapes as far as inference knows them: `None` where one of them is not fixed.
    fn fixed(cx: &InferCtx<'_>) -> Result<Option<Shapes>> {
        let mut shapes = vec![];
        for i in 0..cx.inputs.len() {
            if !cx.has(i) {
                shapes.push(None);
                continue;
            }
            let Some(shape) = cx.tensor(i)?.and_then(|t| t.known_shape()) else { return Ok(None) };
            shapes.push(Some(shape));
        }
        Ok(Some(Shapes(shapes)))
    }
    fn get(&self, i: usize) -> Option<&[usize]> {
        self.0.get(i)?.as_deref()
    }
    /// The shape of an input that must be there. Errors if it is absent.
    fn need(&self, i: usize, name: &str) -> Result<&[usize]> {
        self.get(i).ok_or_else(|| Error::mismatch(format!("input `{name}`"), "none", "a value"))
    }
    /// Errors unless an input is absent or has this shape.
    fn fit(&self, i: usize, name: &str, wanted: &[usize]) -> Result<()> {
        match self.get(i) {
            Some(got) if got != wanted => Err(wrong_shape(name, got, format!("{wanted:?}"))),
            _ => Ok(()),
        }
    }
}

/// The error of an input whose shape does not fit.
fn wrong_shape(name: &str, got: &[usize], wanted: impl ToString) -> Error {
    Error::mismatch(format!("shape of `{name}`"), format!("{got:?}"), wanted)
}

/// An attribute that counts something. Errors if it is absent or less than 1.
fn count(node: &OpNode, name: &str) -> Result<usize> {
    let v = node.attrs.need_int(name)?;
    usize::try_from(v)
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| Error::mismatch(format!("attribute `{name}`"), v, "at least 1"))
}

/// `extent / parts`. Errors if it leaves a rest.
fn share(what: &str, extent: usize, parts: usize) -> Result<usize> {
    if extent.is_multiple_of(parts) {
        Ok(extent / parts)
    } else {
        Err(Error::mismatch(what, extent, format!("a multiple of {parts}")))
    }
}

/// An extent of an input's shape, unknown where the shape is.
fn extent(cx: &InferCtx<'_>, i: usize, axis: usize) -> Result<Dim> {
    if !cx.has(i) {
        return Ok(Dim::Unknown);
    }
    Ok(cx.shape(i)?.and_then(|s| s.get(axis).cloned()).unwrap_or_default())
}

/// The one element of an integer tensor. Errors on another number of elements.
fn one_int(t: &Tensor, name: &str) -> Result<i64> {
    match t.to_i64s()?[..] {
        [v] => Ok(v),
        _ => Err(wrong_shape(name, t.shape(), "one element")),
    }
}

/// Rows of a table that integers name. Errors where one lies outside.
fn rows_of(name: &str, ids: &[i64], rows: usize) -> Result<Vec<usize>> {
    let row = |&id: &i64| {
        let row = usize::try_from(id).ok().filter(|r| *r < rows);
        row.ok_or_else(|| Error::mismatch(format!("element of `{name}`"), id, format!("0..{rows}")))
    };
    ids.iter().map(row).collect()
}
