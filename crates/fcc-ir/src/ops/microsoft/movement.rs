//! Small operators of `com.microsoft` beside those of `ai.onnx`: `ExpandDims`, `NGramRepeatBlock`, `Range`,
//! `UnfoldTensor`, `Unique`.
use super::{DOMAIN, count, one_int, rows_of, wrong_shape};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema, axis};
use crate::ops::{movement, range, select};
use crate::{DType, Dim, Error, Result, TensorType, Value, convert};

/// `ExpandDims`: an axis of extent 1 more.
pub struct ExpandDims;
/// `NGramRepeatBlock`: no token that would repeat an n-gram of the sequence keeps its score.
pub struct NGramRepeatBlock;
/// `Range`, whose delta may be absent: 1.
pub struct Range;
/// `UnfoldTensor`: windows of `size` elements along an axis, `step` apart, as a last axis.
pub struct UnfoldTensor;
/// `Unique` of a vector, in the order of the first occurrences: the elements, where each input element is among them, and
/// how often each occurs.
pub struct Unique;

fn schema(name: &'static str, inputs: (usize, usize), outputs: (usize, usize)) -> Schema {
    Schema { name, domain: DOMAIN, since: &[1], inputs, outputs }
}

/// Where the new axis goes; a negative axis counts in the result.
fn place(given: i64, rank: usize) -> Result<usize> {
    axis(given, rank + 1)
}

impl Operator for ExpandDims {
    fn schema(&self) -> Schema {
        schema("ExpandDims", (2, 2), (1, 1))
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        let (Some(x), Some(axis)) = (cx.shape(0)?, cx.value(1)) else {
            return Ok(vec![TensorType::unranked(dtype).into()]);
        };
        let mut shape = x.clone();
        shape.insert(place(one_int(axis, "axis")?, x.len())?, Dim::Known(1));
        Ok(vec![TensorType::new(dtype, shape).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let mut shape = x.shape().to_vec();
        shape.insert(place(one_int(cx.tensor(1)?, "axis")?, x.rank())?, 1);
        Ok(vec![x.reshaped(shape)?.into()])
    }
}

impl Operator for NGramRepeatBlock {
    fn schema(&self) -> Schema {
        schema("NGramRepeatBlock", (2, 2), (1, 1))
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        count(cx.node, "ngram_size")?;
        Ok(vec![cx.ty(1)?.clone().into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (ids, scores) = (cx.tensor(0)?, cx.tensor(1)?);
        let n = count(cx.node, "ngram_size")?;
        let (&[batch, len], &[rows, vocabulary]) = (ids.shape(), scores.shape()) else {
            let got = format!("{} and {}", ids.rank(), scores.rank());
            return Err(Error::mismatch("ranks of `input_ids` and `scores`", got, "2"));
        };
        if rows != batch {
            return Err(wrong_shape("scores", scores.shape(), format!("[{batch}, vocabulary]")));
        }
        let (ids, mut out) = (ids.to_i64s()?, scores.as_slice::<f32>()?.into_owned());
        for b in (0..batch).filter(|_| len >= n) {
            let row = &ids[b * len..][..len];
            let last = &row[len - (n - 1)..];
            // an earlier n-gram that begins as the sequence ends
            let repeated: Vec<i64> =
                row.windows(n).filter(|w| w[..n - 1] == *last).map(|w| w[n - 1]).collect();
            for token in rows_of("input_ids", &repeated, vocabulary)? {
                out[b * vocabulary + token] = f32::NEG_INFINITY;
            }
        }
        Ok(vec![crate::Tensor::new(scores.shape(), out)?.into()])
    }
}

impl Operator for Range {
    fn schema(&self) -> Schema {
        schema("Range", (2, 3), (1, 1))
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        let mut inputs = cx.inputs.to_vec();
        inputs.resize(3, None);
        if inputs[2].is_none() && dtype != DType::Undefined {
            inputs[2] = Some(Fact::constant(convert::from_i64s(dtype, [], vec![1])?));
        }
        if inputs[2].is_none() {
            return Ok(vec![TensorType::new(dtype, [Dim::Unknown]).into()]);
        }
        range::Range.infer(&InferCtx { inputs: &inputs, ..*cx })
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        cx.need_one_dtype(3)?;
        let mut inputs = cx.inputs.to_vec();
        inputs.resize(3, None);
        if inputs[2].is_none() {
            inputs[2] = Some(convert::from_i64s(cx.tensor(0)?.dtype(), [], vec![1])?.into());
        }
        range::Range.eval(&EvalCtx { inputs: &inputs, ..*cx })
    }
}

impl Operator for UnfoldTensor {
    fn schema(&self) -> Schema {
        schema("UnfoldTensor", (1, 1), (1, 1))
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        let Some(x) = cx.shape(0)? else { return Ok(vec![TensorType::unranked(dtype).into()]) };
        let (at, size, step) = windows(cx.node, x.len())?;
        let mut shape = x.clone();
        shape[at] = match x[at].known() {
            Some(n) => Dim::Known(number(n, size, step)?),
            None => Dim::Unknown,
        };
        shape.push(Dim::Known(size));
        Ok(vec![TensorType::new(dtype, shape).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let (at, size, step) = windows(cx.node, x.rank())?;
        let mut axes = movement::whole(x.shape());
        let n = number(x.shape()[at], size, step)?;
        let offsets = axes[at].clone();
        axes[at] = (0..n).map(|i| offsets[i * step]).collect();
        axes.push(offsets[..size].to_vec());
        Ok(vec![movement::select(x, &axes)?.into()])
    }
}

/// The axis, the size and the step of the windows.
fn windows(node: &crate::OpNode, rank: usize) -> Result<(usize, usize, usize)> {
    let step = node.attrs.int_or("step", 1)?;
    let positive = usize::try_from(step).ok().filter(|s| *s > 0);
    let step = positive.ok_or_else(|| Error::mismatch("attribute `step`", step, "at least 1"))?;
    Ok((axis(node.attrs.int_or("dim", -1)?, rank)?, count(node, "size")?, step))
}

/// How many windows there are. Errors where one does not fit.
fn number(extent: usize, size: usize, step: usize) -> Result<usize> {
    let room = extent.checked_sub(size);
    room.map(|r| r / step + 1)
        .ok_or_else(|| Error::mismatch("attribute `size`", size, format!("at most {extent}")))
}

impl Operator for Unique {
    fn schema(&self) -> Schema {
        schema("Unique", (1, 1), (3, 3))
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let x = cx.shape(0)?;
        if let Some(x) = x.filter(|x| x.len() != 1) {
            return Err(Error::mismatch("rank of x", x.len(), 1));
        }
        let all = x.map_or(Dim::Unknown, |x| x[0].clone());
        let types = [(cx.dtype(0)?, Dim::Unknown), (DType::I64, all), (DType::I64, Dim::Unknown)];
        Ok(types.into_iter().take(cx.n_outputs).map(|(d, n)| TensorType::new(d, [n]).into()).collect())
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        if x.rank() != 1 {
            return Err(Error::mismatch("rank of x", x.rank(), 1));
        }
        let mut node = cx.node.clone();
        node.attrs.set("sorted", 0i64);
        let made = select::Unique.eval(&EvalCtx { node: &node, wanted: &[true; 4], ..*cx })?;
        let [y, _, inverse, counts] =
            <[Value; 4]>::try_from(made).map_err(|_| Error::invalid("four outputs"))?;
        Ok(vec![y, inverse, counts])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;
    use crate::attr::Attrs;
    use crate::ops::testing::eval_in;

    fn f(shape: &[usize], v: &[f32]) -> Option<Tensor> {
        Some(Tensor::new(shape, v.to_vec()).unwrap())
    }
    fn run(op: &str, attrs: Attrs, inputs: &[Option<Tensor>], n: usize) -> Result<Vec<Tensor>> {
        eval_in(DOMAIN, op, attrs, inputs, n)?.iter().map(|v| v.as_tensor().cloned()).collect()
    }

    #[test]
    fn an_axis_is_added_anywhere() {
        let shape = |axis: i32| {
            let axis = Some(Tensor::scalar(axis));
            run("ExpandDims", Attrs::new(), &[f(&[2, 3], &[0.0; 6]), axis], 1).map(|y| y[0].shape().to_vec())
        };
        assert_eq!(shape(-1).unwrap(), [2, 3, 1]);
        assert_eq!(shape(-3).unwrap(), [1, 2, 3]);
        assert_eq!(shape(1).unwrap(), [2, 1, 3]);
        assert!(shape(3).is_err() && shape(-4).is_err());
    }

    #[test]
    fn a_token_that_repeats_an_n_gram_is_blocked() {
        let block = |ids: &[i64], n: i64| {
            let ids = Some(Tensor::new([1, ids.len()], ids.to_vec()).unwrap());
            let attrs = Attrs::new().with("ngram_size", n);
            run("NGramRepeatBlock", attrs, &[ids, f(&[1, 4], &[1.0; 4])], 1)
                .map(|y| y[0].as_slice::<f32>().unwrap().iter().map(|v| v.is_finite()).collect::<Vec<_>>())
        };
        assert_eq!(block(&[1, 2, 3, 1, 2], 3).unwrap(), [true, true, true, false]);
        assert_eq!(block(&[1, 2], 1).unwrap(), [true, false, false, true]);
        assert_eq!(block(&[1, 2], 3).unwrap(), [true; 4]);
        assert!(block(&[1, 9, 1], 2).is_err() && block(&[1], 0).is_err());
    }

    #[test]
    fn ranges_windows_and_unique_elements() {
        let one = |v: f32| Some(Tensor::scalar(v));
        let y = run("Range", Attrs::new(), &[one(1.0), one(4.0)], 1).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap()[..], [1.0, 2.0, 3.0]);
        let attrs = || Attrs::new().with("dim", 0i64).with("step", 2i64);
        let x = f(&[5, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]);
        let y = run("UnfoldTensor", attrs().with("size", 3i64), std::slice::from_ref(&x), 1).unwrap();
        assert_eq!(y[0].shape(), [2, 2, 3]);
        let want = [0.0, 2.0, 4.0, 1.0, 3.0, 5.0, 4.0, 6.0, 8.0, 5.0, 7.0, 9.0];
        assert_eq!(y[0].as_slice::<f32>().unwrap()[..], want);
        assert!(run("UnfoldTensor", attrs().with("size", 6i64), &[x], 1).is_err());
        let y = run("Unique", Attrs::new(), &[f(&[5], &[3.0, 1.0, 3.0, 2.0, 1.0])], 3).unwrap();
        assert_eq!(y[0].as_slice::<f32>().unwrap()[..], [3.0, 1.0, 2.0]);
        assert_eq!(y[1].to_i64s().unwrap(), [0, 1, 0, 2, 1]);
        assert_eq!(y[2].to_i64s().unwrap(), [2, 2, 1]);
        assert!(run("Unique", Attrs::new(), &[f(&[1, 1], &[1.0])], 3).is_err());
    }
}
