//! `Split`. <https://onnx.ai/onnx/operators/onnx__Split.html>
use super::lists::{self, List};
use super::movement;
use crate::op::{DimTensor, EvalCtx, Fact, InferCtx, Operator, Schema, axis};
use crate::{Dim, Error, OpNode, Result, TensorType, Value};

/// `Split`.
pub struct Split;

/// The extents of the parts: as given, else equal ones; with `num_outputs` (version 18) the last may be smaller.
pub fn sizes(node: &OpNode, given: Option<&[i64]>, extent: usize, n_outputs: usize) -> Result<Vec<usize>> {
    let sizes = match (given, node.attrs.int("num_outputs")?) {
        (Some(_), Some(n)) => return Err(Error::mismatch("num_outputs beside split", n, "one of them")),
        (Some(given), None) => lists::extents("split", given)?,
        (None, num_outputs) => {
            let n = match num_outputs {
                Some(n) => usize::try_from(n).ok().filter(|n| *n > 0),
                None => Some(n_outputs),
            };
            let n = n.ok_or_else(|| Error::mismatch("num_outputs", "less than 1", "at least 1"))?;
            if n > 1 << 20 {
                return Err(Error::mismatch("number of outputs", n, "a number of outputs of a node"));
            }
            let part = extent.div_ceil(n.max(1));
            if node.version < 18 && part * n != extent {
                return Err(Error::mismatch("extent to split", extent, format!("a multiple of {n}")));
            }
            (0..n).map(|i| extent.saturating_sub(i * part).min(part)).collect()
        }
    };
    if sizes.len() != n_outputs {
        return Err(Error::mismatch("parts of Split", sizes.len(), format!("{n_outputs} outputs")));
    }
    let sum = sizes.iter().try_fold(0usize, |s, &n| s.checked_add(n));
    if sum != Some(extent) {
        return Err(Error::mismatch("split", format!("{sizes:?}"), format!("a sum of {extent}")));
    }
    Ok(sizes)
}

/// The axis, 0 by default.
pub fn split_axis(node: &OpNode, rank: usize) -> Result<usize> {
    axis(node.attrs.int_or("axis", 0)?, rank)
}

impl Operator for Split {
    fn schema(&self) -> Schema {
        Schema {
            name: "Split",
            domain: "",
            since: &[1, 2, 11, 13, 18],
            inputs: (1, 2),
            outputs: (1, usize::MAX),
        }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let (dtype, n) = (cx.dtype(0)?, cx.n_outputs);
        let Some(x) = cx.shape(0)? else { return Ok(vec![TensorType::unranked(dtype).into(); n]) };
        let at = split_axis(cx.node, x.len())?;
        let part = |d: Dim| {
            let mut shape = x.clone();
            shape[at] = d;
            Fact::from(TensorType::new(dtype, shape))
        };
        let given = match lists::inferred(cx, "split", 1)? {
            List::Unknown => return Ok(vec![part(Dim::Unknown); n]),
            List::Known(v) => Some(v),
            List::Absent => None,
        };
        let Some(extent) = x[at].known() else {
            return match given {
                Some(v) if v.len() == n => {
                    Ok(lists::extents("split", &v)?.into_iter().map(|d| part(Dim::Known(d))).collect())
                }
                Some(v) => Err(Error::mismatch("parts of Split", v.len(), format!("{n} outputs"))),
                None if n == 1 || cx.node.version < 18 => Ok(vec![part(x[at].floor_div(&Dim::Known(n))); n]),
                None => Ok(vec![part(Dim::Unknown); n]),
            };
        };
        let sizes = sizes(cx.node, given.as_deref(), extent, n)?;
        if let Some(d) = cx.dims(0).filter(|d| !d.is_scalar() && d.elems().len() == extent) {
            let mut rest = d.into_elems().into_iter();
            let dims = sizes.iter().map(|n| DimTensor::vector(rest.by_ref().take(*n)));
            let facts: Option<Vec<Fact>> = dims.map(|d| Some(Fact::of_dims(dtype, d?))).collect();
            if let Some(facts) = facts {
                return Ok(facts);
            }
        }
        Ok(sizes.into_iter().map(|n| part(Dim::Known(n))).collect())
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let at = split_axis(cx.node, x.rank())?;
        let given = lists::given(cx, "split", 1)?;
        let sizes = sizes(cx.node, given.as_deref(), x.shape()[at], cx.wanted.len())?;
        let whole = movement::whole(x.shape());
        let mut start = 0;
        sizes
            .into_iter()
            .map(|n| {
                let mut axes = whole.clone();
                axes[at] = whole[at][start..start + n].to_vec();
                start += n;
                Ok(movement::select(x, &axes)?.into())
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use crate::Tensor;
    use crate::attr::Attrs;
    use crate::ops::testing::eval;

    #[test]
    fn equal_and_unequal_parts() {
        let x = Tensor::new(vec![7], (0..7u8).collect()).unwrap();
        let lens = |version, attrs, split: Option<Vec<i64>>, n| {
            let parts = eval("Split", version, attrs, &[Some(x.clone()), split.map(Tensor::from_i64s)], n);
            parts.map(|p| p.iter().map(|v| v.as_tensor().unwrap().len()).collect::<Vec<_>>())
        };
        assert_eq!(lens(18, Attrs::new().with("num_outputs", 3i64), None, 3).unwrap(), [3, 3, 1]);
        assert_eq!(lens(13, Attrs::new(), Some(vec![2, 5]), 2).unwrap(), [2, 5]);
        assert!(lens(13, Attrs::new(), None, 3).is_err());
        assert!(lens(13, Attrs::new(), Some(vec![2, 4]), 2).is_err());
        assert!(lens(13, Attrs::new(), Some(vec![-1, 8]), 2).is_err());
    }
}
