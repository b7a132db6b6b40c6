//! `Col2Im`: blocks summed back into an image. <https://onnx.ai/onnx/operators/onnx__Col2Im.html>
use super::lists;
use super::movement::new_elems;
use crate::convert::{Narrowing, from_f64s, to_f64s};
use crate::limits::watched;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{Dim, Error, OpNode, Result, TensorType, Value};

/// `Col2Im`.
pub struct Col2Im;

/// How blocks lie on one axis of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockAxis {
    /// Extent of the image.
    pub image: usize,
    /// Extent of a block.
    pub block: usize,
    /// Distance of neighbouring blocks.
    pub stride: usize,
    /// Distance of neighbouring elements of a block.
    pub dilation: usize,
    /// Padding before the image.
    pub pad_begin: usize,
    /// Number of blocks.
    pub count: usize,
}

/// The axes of a node for these shapes of image and block. Errors on lists of the wrong length and on steps of 0.
pub fn axes(node: &OpNode, image: &[usize], block: &[usize]) -> Result<Vec<BlockAxis>> {
    let r = image.len();
    let list = |name: &str, n: usize, default: usize, least: usize| {
        let Some(v) = node.attrs.ints(name)? else { return Ok(vec![default; n]) };
        let bad = || {
            Error::mismatch(
                format!("attribute `{name}`"),
                format!("{v:?}"),
                format!("{n} numbers from {least}"),
            )
        };
        let v = lists::extents(name, v)?;
        if v.len() == n && v.iter().all(|v| *v >= least) { Ok(v) } else { Err(bad()) }
    };
    if block.len() != r || r == 0 {
        return Err(Error::mismatch("block_shape", format!("{block:?}"), format!("{r} extents")));
    }
    let (strides, dilations) = (list("strides", r, 1, 1)?, list("dilations", r, 1, 1)?);
    let pads = list("pads", 2 * r, 0, 0)?;
    (0..r)
        .map(|i| {
            let span = block[i].checked_sub(1).and_then(|b| b.checked_mul(dilations[i])?.checked_add(1));
            let padded = image[i].checked_add(pads[i]).and_then(|n| n.checked_add(pads[r + i]));
            let room = padded.zip(span).and_then(|(p, s)| p.checked_sub(s)).ok_or_else(|| {
                Error::mismatch(
                    format!("block along axis {i}"),
                    block[i],
                    "1 or more, inside the padded image",
                )
            })?;
            let count = room / strides[i] + 1;
            Ok(BlockAxis {
                image: image[i],
                block: block[i],
                stride: strides[i],
                dilation: dilations[i],
                pad_begin: pads[i],
                count,
            })
        })
        .collect()
}

impl Operator for Col2Im {
    fn schema(&self) -> Schema {
        Schema { name: "Col2Im", domain: "", since: &[18], inputs: (3, 3), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        let Some(image) = cx.dims(1) else { return Ok(vec![TensorType::unranked(dtype).into()]) };
        let (n, columns) = match cx.shape(0)?.map(Vec::as_slice) {
            Some([n, c, _]) => (n.clone(), c.clone()),
            Some(other) => return Err(Error::mismatch("rank", other.len(), 3)),
            None => (Dim::Unknown, Dim::Unknown),
        };
        let block = cx.dims(2).map(|b| b.elems().iter().fold(Dim::Known(1), |p, d| p.mul(d)));
        let c = block.map_or(Dim::Unknown, |b| columns.floor_div(&b));
        Ok(vec![TensorType::new(dtype, [vec![n, c], image.into_elems()].concat()).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let &[n, columns, l] = x.shape() else { return Err(Error::mismatch("rank", x.rank(), 3)) };
        let image = lists::extents("image_shape", &cx.tensor(1)?.to_i64s()?)?;
        let block = lists::extents("block_shape", &cx.tensor(2)?.to_i64s()?)?;
        let axes = axes(cx.node, &image, &block)?;
        let (size, block_size) = (new_elems(&image)?, new_elems(&block)?);
        let blocks = new_elems(&axes.iter().map(|a| a.count).collect::<Vec<_>>())?;
        if blocks != l || columns % block_size.max(1) != 0 {
            let wanted = format!("[N, C * {block_size}, {blocks}]");
            return Err(Error::mismatch("input", x.tensor_type(), wanted));
        }
        let c = columns / block_size;
        let shape = [&[n, c], &image[..]].concat();
        let mut y = vec![0f64; new_elems(&shape)?];
        let data = to_f64s(x)?;
        // where each element of each block lies in the image; `None` in the padding
        let place = |k: usize, b: usize| {
            let (mut k, mut b, mut stride, mut offset) = (k, b, 1, 0);
            for a in axes.iter().rev() {
                let at = b % a.count * a.stride + k % a.block * a.dilation;
                offset += at.checked_sub(a.pad_begin).filter(|at| *at < a.image)? * stride;
                stride *= a.image;
                k /= a.block;
                b /= a.count;
            }
            Some(offset)
        };
        for k in watched(0..block_size) {
            for b in watched(0..blocks) {
                let Some(to) = place(k, b) else { continue };
                for nc in 0..n * c {
                    y[nc * size + to] += data[(nc * block_size + k) * l + b];
                }
            }
        }
        Ok(vec![from_f64s(x.dtype(), shape, y, Narrowing::default())?.into()])
    }
}
