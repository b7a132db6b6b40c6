//! Operators whose output depends on which elements are true or equal: `NonZero`, `Compress`, `Unique`.
//! <https://onnx.ai/onnx/operators/onnx__NonZero.html>, <https://onnx.ai/onnx/operators/onnx__Compress.html>,
//! <https://onnx.ai/onnx/operators/onnx__Unique.html>
use super::movement;
use crate::convert::{Wide, widen};
use crate::limits::reserve;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema, axis};
use crate::{DType, Dim, Error, Result, Tensor, TensorType, Value};
use std::cmp::Ordering;

/// `NonZero`.
pub struct NonZero;
/// `Compress`.
pub struct Compress;
/// `Unique`.
pub struct Unique;

impl Operator for NonZero {
    fn schema(&self) -> Schema {
        Schema { name: "NonZero", domain: "", since: &[9, 13], inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let rank = cx.shape(0)?.map_or(Dim::Unknown, |s| Dim::Known(s.len()));
        Ok(vec![TensorType::new(DType::I64, [rank, Dim::Unknown]).into()])
    }
    /// Coordinates `[rank, n]` of the elements that are not zero, in row-major order.
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let truth: Vec<bool> = match x.dtype() {
            DType::String => x.as_strings()?.iter().map(|s| !s.is_empty()).collect(),
            _ => match widen(x)? {
                Wide::Float(v) => v.iter().map(|v| *v != 0.0).collect(),
                Wide::Int(v) => v.iter().map(|v| *v != 0).collect(),
                Wide::UInt(v) => v.iter().map(|v| *v != 0).collect(),
            },
        };
        let at: Vec<usize> = (0..truth.len()).filter(|&i| truth[i]).collect();
        let strides = movement::strides(x.shape());
        reserve(at.len().saturating_mul(x.rank()).saturating_mul(size_of::<i64>()))?;
        let mut out = Vec::with_capacity(at.len() * x.rank());
        for (stride, extent) in strides.iter().zip(x.shape()) {
            out.extend(at.iter().map(|i| (i / stride % extent) as i64));
        }
        Ok(vec![Tensor::new([x.rank(), at.len()], out)?.into()])
    }
}

impl Operator for Compress {
    fn schema(&self) -> Schema {
        Schema { name: "Compress", domain: "", since: &[9, 11, 28], inputs: (2, 2), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        let Some(a) = cx.node.attrs.int("axis")? else {
            return Ok(vec![TensorType::new(dtype, [Dim::Unknown]).into()]);
        };
        let Some(x) = cx.shape(0)? else { return Ok(vec![TensorType::unranked(dtype).into()]) };
        let mut out = x.clone();
        out[axis(a, x.len())?] = Dim::Unknown;
        Ok(vec![TensorType::new(dtype, out).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (mut x, condition) = (cx.tensor(0)?.clone(), cx.tensor(1)?.as_bools()?);
        let at = match cx.node.attrs.int("axis")? {
            Some(a) => axis(a, x.rank())?,
            None => {
                x = x.reshaped([x.len()])?;
                0
            }
        };
        if condition.len() > x.shape()[at] {
            let wanted = format!("at most {} as axis {at}", x.shape()[at]);
            return Err(Error::mismatch("length of the condition", condition.len(), wanted));
        }
        let mut axes = movement::whole(x.shape());
        axes[at] = axes[at].iter().zip(condition).filter(|(_, c)| *c).map(|(i, _)| *i).collect();
        Ok(vec![movement::select(&x, &axes)?.into()])
    }
}

/// The elements of each of `n` slices, comparable.
enum Keys<'a> {
    Numbers(Wide),
    Strings(&'a [crate::Bytes]),
}

impl Keys<'_> {
    fn compare(&self, i: usize, j: usize) -> Ordering {
        match self {
            Keys::Numbers(w) => w.compare(i, j),
            Keys::Strings(s) => s[i].cmp(&s[j]),
        }
    }
}

impl Operator for Unique {
    fn schema(&self) -> Schema {
        Schema { name: "Unique", domain: "", since: &[11, 28], inputs: (1, 1), outputs: (1, 4) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        let list = || Fact::from(TensorType::new(DType::I64, [Dim::Unknown]));
        let y = match (cx.node.attrs.int("axis")?, cx.shape(0)?) {
            (None, _) => TensorType::new(dtype, [Dim::Unknown]),
            (Some(_), None) => TensorType::unranked(dtype),
            (Some(a), Some(x)) => {
                let mut out = x.clone();
                out[axis(a, x.len())?] = Dim::Unknown;
                TensorType::new(dtype, out)
            }
        };
        let all = [y.into(), list(), list(), list()];
        Ok(all.into_iter().take(cx.n_outputs).collect())
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let mut x = cx.tensor(0)?.clone();
        let at = match cx.node.attrs.int("axis")? {
            Some(a) => axis(a, x.rank())?,
            None => {
                x = x.reshaped([x.len()])?;
                0
            }
        };
        let keys = match x.dtype() {
            DType::String => Keys::Strings(x.as_strings()?),
            _ => Keys::Numbers(widen(&x)?),
        };
        let whole = movement::whole(x.shape());
        let n = x.shape()[at];
        // offsets of slice 0, to which a slice's own offset is added
        let inner: usize = x.shape()[at + 1..].iter().product();
        let outer: usize = x.shape()[..at].iter().product();
        let slice: Vec<usize> = (0..outer).flat_map(|o| (0..inner).map(move |i| o * n * inner + i)).collect();
        let compare = |a: usize, b: usize| {
            let pairs = slice.iter().map(|s| keys.compare(s + a * inner, s + b * inner));
            pairs.into_iter().find(|c| *c != Ordering::Equal).unwrap_or(Ordering::Equal)
        };
        let mut order: Vec<usize> = (0..n).collect();
        order.sort_by(|&a, &b| compare(a, b));
        // runs of equal slices, each beginning with its first occurrence
        let mut groups: Vec<Vec<usize>> = vec![];
        for i in order {
            match groups.last_mut() {
                Some(g) if compare(g[0], i) == Ordering::Equal => g.push(i),
                _ => groups.push(vec![i]),
            }
        }
        if !cx.node.attrs.flag("sorted", true)? {
            groups.sort_by_key(|g| g[0]);
        }
        let mut inverse = vec![0i64; n];
        for (k, g) in groups.iter().enumerate() {
            g.iter().for_each(|i| inverse[*i] = k as i64);
        }
        let mut axes = whole;
        axes[at] = groups.iter().map(|g| axes[at][g[0]]).collect();
        let first = groups.iter().map(|g| g[0] as i64).collect::<Vec<_>>();
        let counts = groups.iter().map(|g| g.len() as i64).collect::<Vec<_>>();
        let lists = [first, inverse, counts].map(Tensor::from_i64s);
        Ok([movement::select(&x, &axes)?].into_iter().chain(lists).map(Value::from).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::{eval, eval1};

    #[test]
    fn coordinates_of_what_is_not_zero() {
        let x = Tensor::from_bools([2, 2], [true, false, true, true]).unwrap();
        let y = eval1("NonZero", 13, Attrs::new(), &[Some(x)]).unwrap();
        assert_eq!((y.shape(), y.to_i64s().unwrap()), (&[2, 3][..], vec![0, 1, 1, 0, 0, 1]));
        let empty = Tensor::from_bools([0, 2], []).unwrap();
        assert_eq!(eval1("NonZero", 13, Attrs::new(), &[Some(empty)]).unwrap().shape(), [2, 0]);
    }

    #[test]
    fn unique_slices_with_first_places_and_counts() {
        let x = Tensor::new(vec![3, 2], vec![2i32, 1, 0, 5, 2, 1]).unwrap();
        let run = |attrs: Attrs| {
            let y = eval("Unique", 11, attrs, &[Some(x.clone())], 4).unwrap();
            y.iter().map(|v| v.as_tensor().unwrap().to_i64s().unwrap()).collect::<Vec<_>>()
        };
        let want = [vec![0, 5, 2, 1], vec![1, 0], vec![1, 0, 1], vec![1, 2]];
        assert_eq!(run(Attrs::new().with("axis", 0i64)), want);
        let unsorted = run(Attrs::new().with("sorted", 0i64));
        assert_eq!(unsorted[..2], [vec![2, 1, 0, 5], vec![0, 1, 2, 3]]);
    }

    #[test]
    fn a_short_condition_drops_the_rest() {
        let x = Tensor::from_strings([3], ["a", "b", "c"]).unwrap();
        let c = Tensor::from_bools([2], [false, true]).unwrap();
        let y = eval1("Compress", 11, Attrs::new(), &[Some(x), Some(c)]).unwrap();
        assert_eq!(y.as_strings().unwrap(), ["b"]);
    }
}
