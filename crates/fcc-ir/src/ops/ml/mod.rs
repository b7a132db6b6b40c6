//! The operators of the domain `ai.onnx.ml`: one module for each operator or family.
//! <https://onnx.ai/onnx/operators/index.html#ai-onnx-ml>
//!
//! Where the ONNX text says nothing (a classifier of two classes with one score, `PROBIT`, ties), the operators do what
//! ONNX Runtime's CPU provider does; `docs/decisions.md` lists where the text and ONNX Runtime differ.
pub mod array_feature_extractor;
pub mod binarizer;
pub mod cast_map;
pub mod category_mapper;
pub mod classes;
pub mod dict_vectorizer;
pub mod feature_vectorizer;
pub mod imputer;
pub mod label_encoder;
pub mod linear;
pub mod normalizer;
pub mod one_hot_encoder;
pub mod post_transform;
pub mod real;
pub mod scaler;
pub mod svm;
pub mod svm_classifier;
pub mod tree;
pub mod zip_map;

use crate::op::{InferCtx, Schema};
use crate::{Dim, Error, Result};

/// The domain.
pub const DOMAIN: &str = "ai.onnx.ml";

/// The facts of an operator that the first version of the domain brought: one input, `outputs` outputs.
fn schema(name: &'static str, outputs: usize) -> Schema {
    Schema { name, domain: DOMAIN, since: &[1], inputs: (1, 1), outputs: (outputs, outputs) }
}

/// `[N, F]` of an input: a vector is one row.
pub fn rows(shape: &[usize]) -> Result<(usize, usize)> {
    match *shape {
        [features] => Ok((1, features)),
        [rows, features] => Ok((rows, features)),
        _ => Err(Error::mismatch("rank of X", shape.len(), "1 or 2")),
    }
}

/// As [`rows`], of what inference knows of input 0.
fn row_dims(cx: &InferCtx<'_>) -> Result<(Dim, Dim)> {
    Ok(match cx.shape(0)?.map(Vec::as_slice) {
        None => (Dim::Unknown, Dim::Unknown),
        Some([features]) => (Dim::Known(1), features.clone()),
        Some([rows, features]) => (rows.clone(), features.clone()),
        Some(other) => return Err(Error::mismatch("rank of X", other.len(), "1 or 2")),
    })
}

/// Errors unless a list has `n` elements.
fn need_len(what: &str, got: usize, n: usize) -> Result<()> {
    if got == n { Ok(()) } else { Err(Error::mismatch(format!("length of `{what}`"), got, n)) }
}
