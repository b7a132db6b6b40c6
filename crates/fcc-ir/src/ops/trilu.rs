//! `Trilu`, `EyeLike`, `ReverseSequence`. <https://onnx.ai/onnx/operators/onnx__Trilu.html>,
//! <https://onnx.ai/onnx/operators/onnx__EyeLike.html>, <https://onnx.ai/onnx/operators/onnx__ReverseSequence.html>
use super::movement;
use crate::convert::from_i64s;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema, axis};
use crate::{DType, Error, OpNode, Result, Tensor, TensorType, Value};

/// `Trilu`.
pub struct Trilu;
/// `EyeLike`.
pub struct EyeLike;
/// `ReverseSequence`.
pub struct ReverseSequence;

impl Operator for Trilu {
    fn schema(&self) -> Schema {
        Schema { name: "Trilu", domain: "", since: &[14], inputs: (1, 2), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![cx.ty(0)?.clone().into()])
    }
    /// Keeps `column - row >= k` (upper) or `<= k` (lower) of each matrix, zero elsewhere.
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let &[.., rows, columns] = x.shape() else {
            return Err(Error::mismatch("rank", x.rank(), "at least 2"));
        };
        let k = match cx.opt_tensor(1)? {
            None => 0,
            Some(t) => *t.to_i64s()?.first().ok_or_else(|| Error::invalid("k is empty"))?,
        };
        let upper = cx.node.attrs.flag("upper", true)?;
        let zero = match x.dtype() {
            DType::String => Tensor::from_strings([1], [""])?,
            d => from_i64s(d, [1], vec![0])?,
        };
        let (from, zero) = (movement::Elems::of(x), movement::Elems::of(&zero));
        let mut out = movement::Elems::empty(x.dtype(), x.len());
        for i in 0..x.len() {
            // extents fit i64
            let (row, column) = ((i / columns % rows) as i64, (i % columns) as i64);
            let keep = if upper { column - row >= k } else { column - row <= k };
            if keep {
                out.extend(&from, i, 1)?;
            } else {
                out.extend(&zero, 0, 1)?;
            }
        }
        Ok(vec![out.into_tensor(x.dtype(), x.shape())?.into()])
    }
}

/// The output's type: the attribute `dtype`, else the input's.
fn eye_type(node: &OpNode, input: DType) -> Result<DType> {
    let Some(code) = node.attrs.int("dtype")? else { return Ok(input) };
    let dtype = i32::try_from(code).ok().and_then(DType::from_code);
    dtype.ok_or_else(|| Error::mismatch("attribute `dtype`", code, "an element type"))
}

impl Operator for EyeLike {
    fn schema(&self) -> Schema {
        Schema { name: "EyeLike", domain: "", since: &[9, 22], inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = eye_type(cx.node, cx.dtype(0)?)?;
        Ok(vec![TensorType { dtype, shape: cx.shape(0)?.cloned() }.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let &[rows, columns] = x.shape() else { return Err(Error::mismatch("rank", x.rank(), "2")) };
        let k = cx.node.attrs.int_or("k", 0)?;
        let one = |i: usize| i64::from((i % columns) as i64 - (i / columns) as i64 == k);
        let ones = (0..rows * columns).map(one).collect();
        Ok(vec![from_i64s(eye_type(cx.node, x.dtype())?, x.shape(), ones)?.into()])
    }
}

impl Operator for ReverseSequence {
    fn schema(&self) -> Schema {
        Schema { name: "ReverseSequence", domain: "", since: &[10, 28], inputs: (2, 2), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![TensorType { dtype: cx.dtype(0)?, shape: cx.shape(0)?.cloned() }.into()])
    }
    /// Reverses the first `sequence_lens[b]` positions of each batch `b`.
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let time = axis(cx.node.attrs.int_or("time_axis", 0)?, x.rank())?;
        let batch = axis(cx.node.attrs.int_or("batch_axis", 1)?, x.rank())?;
        if time + batch != 1 {
            return Err(Error::mismatch("time and batch axis", format!("{time}, {batch}"), "0 and 1"));
        }
        let lens = super::lists::extents("sequence_lens", &cx.tensor(1)?.to_i64s()?)?;
        let (steps, batches) = (x.shape()[time], x.shape()[batch]);
        if lens.len() != batches || lens.iter().any(|n| *n > steps) {
            let wanted = format!("{batches} numbers of at most {steps}");
            return Err(Error::mismatch("sequence_lens", format!("{lens:?}"), wanted));
        }
        let inner: usize = x.shape()[2..].iter().product();
        let mut at = Vec::with_capacity(x.len());
        for first in 0..x.shape()[0] {
            for second in 0..x.shape()[1] {
                let (t, b) = if time == 0 { (first, second) } else { (second, first) };
                let t = if t < lens[b] { lens[b] - 1 - t } else { t };
                let row = if time == 0 { t * batches + b } else { b * steps + t };
                at.extend(row * inner..(row + 1) * inner);
            }
        }
        Ok(vec![movement::take(x, x.shape(), &at)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::eval1;

    #[test]
    fn triangles_on_either_side_of_a_diagonal() {
        let x = Tensor::new(vec![2, 3], vec![1u8, 2, 3, 4, 5, 6]).unwrap();
        let k = |v: i64| Some(Tensor::scalar(v));
        let y = eval1("Trilu", 14, Attrs::new(), &[Some(x.clone()), k(1)]).unwrap();
        assert_eq!(y.bytes().as_ref(), [0, 2, 3, 0, 0, 6]);
        let lower = Attrs::new().with("upper", 0i64);
        let y = eval1("Trilu", 14, lower, &[Some(x), k(-1)]).unwrap();
        assert_eq!(y.bytes().as_ref(), [0, 0, 0, 4, 0, 0]);
    }

    #[test]
    fn each_batch_is_reversed_by_its_length() {
        let x = Tensor::new(vec![2, 3], vec![1u8, 2, 3, 4, 5, 6]).unwrap();
        let attrs = Attrs::new().with("time_axis", 1i64).with("batch_axis", 0i64);
        let lens = Some(Tensor::from_i64s([2, 3]));
        let y = eval1("ReverseSequence", 10, attrs, &[Some(x), lens]).unwrap();
        assert_eq!(y.bytes().as_ref(), [2, 1, 3, 6, 5, 4]);
    }
}
