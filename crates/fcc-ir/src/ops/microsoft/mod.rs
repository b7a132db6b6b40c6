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
pub mod gather_block_quantized;
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

/// An attribute that counts something. Errors if it is absent, less than 1 or more than a tensor has elements.
fn count(node: &OpNode, name: &str) -> Result<usize> {
    let v = node.attrs.need_int(name)?;
    usize::try_from(v)
        .ok()
        .filter(|n| (1..=1 << 31).contains(n))
        .ok_or_else(|| Error::mismatch(format!("attribute `{name}`"), v, "1 to 2^31"))
}

/// A flag of the attentions: ONNX Runtime takes 1 for yes, and any other number for no.
fn is_one(node: &OpNode, name: &str, default: bool) -> Result<bool> {
    Ok(node.attrs.int(name)?.map_or(default, |v| v == 1))
}

/// The attribute `epsilon`. Errors where it is negative.
fn epsilon(node: &OpNode, default: f32) -> Result<f32> {
    let v = node.attrs.float_or("epsilon", default)?;
    if v >= 0.0 { Ok(v) } else { Err(Error::mismatch("attribute `epsilon`", v, "0 or more")) }
}

/// The sum of two extents. Errors on overflow: a tensor without elements may have any extents.
fn sum(a: usize, b: usize) -> Result<usize> {
    a.checked_add(b).ok_or_else(|| Error::mismatch("sum of extents", format!("{a} + {b}"), "one that fits"))
}

/// Elements of a head: those of an extent over the heads. Errors if it leaves a rest, or none.
fn head_size(what: &str, extent: usize, heads: usize) -> Result<usize> {
    match share(what, extent, heads)? {
        0 => Err(Error::mismatch(what, 0, "at least one element of each head")),
        size => Ok(size),
    }
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

#[cfg(test)]
mod tests {
    use crate::attr::Attrs;
    use crate::ops::testing::eval_in;
    use crate::{DType, Tensor};

    #[test]
    fn extents_of_tensors_without_elements_do_not_overflow() {
        let none = |dtype: DType, shape: &[usize]| {
            Some(Tensor::from_bytes(dtype, shape, Default::default()).unwrap())
        };
        let f = |shape: &[usize]| none(DType::F32, shape);
        // the largest extent that a tensor without elements may have
        let huge = 1 << 26;
        let heads = || Attrs::new().with("num_heads", 2i64);
        let weights = Some(Tensor::new([2, 6], vec![0f32; 12]).unwrap());
        let ends = none(DType::I32, &[0]);
        let cases = [
            ("Attention", heads(), vec![f(&[huge, 0, 2]), weights.clone(), None, ends.clone()]),
            ("Attention", heads(), vec![f(&[0, huge, 2]), weights, None, None, f(&[2, 0, 2, huge >> 1, 1])]),
            ("MultiHeadAttention", heads(), vec![f(&[1, huge, 0]), f(&[1, huge, 0]), f(&[1, huge, 0])]),
            (
                "MultiHeadAttention",
                heads(),
                vec![f(&[huge, 0, 2]), f(&[huge, 0, 2]), f(&[huge, 0, 2]), None, ends],
            ),
            (
                "SkipLayerNormalization",
                Attrs::new(),
                vec![f(&[1 << 13, 1 << 13, 0]), f(&[1 << 13, 1 << 13, 0]), f(&[0])],
            ),
            (
                "RotaryEmbedding",
                Attrs::new(),
                vec![f(&[0, huge, 2]), none(DType::I64, &[0, huge]), f(&[0, huge]), f(&[0, huge])],
            ),
        ];
        for (op, attrs, inputs) in cases {
            // an error, or an empty result: no panic, no endless loop
            if let Ok(made) = eval_in("com.microsoft", op, attrs, &inputs, 1) {
                assert!(made[0].as_tensor().unwrap().is_empty(), "{op}");
            }
        }
        let huge = i64::MAX;
        for (name, value) in [("N", huge), ("K", huge), ("block_size", 1 << 62)] {
            let attrs =
                Attrs::new().with("N", 1i64).with("K", 16i64).with("block_size", 16i64).with(name, value);
            let inputs = [f(&[0, 16]), none(DType::U8, &[0]), f(&[0])];
            assert!(eval_in("com.microsoft", "MatMulNBits", attrs, &inputs, 1).is_err(), "{name}");
        }
    }
}
