//! `Squeeze` and `Unsqueeze`. <https://onnx.ai/onnx/operators/onnx__Squeeze.html>,
//! <https://onnx.ai/onnx/operators/onnx__Unsqueeze.html>
use super::lists::{self, List};
use crate::op::{DimTensor, EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{Dim, Error, Result, TensorType, Value};

/// `Squeeze`.
pub struct Squeeze;
/// `Unsqueeze`.
pub struct Unsqueeze;

const SINCE: &[i64] = &[1, 11, 13, 21, 23, 24, 25];

/// The axes that `Squeeze` drops: the given ones, else every axis of extent 1. Errors where an extent is not 1.
pub fn squeezed(axes: Option<&[i64]>, x: &[usize]) -> Result<Vec<usize>> {
    let Some(axes) = axes else { return Ok((0..x.len()).filter(|&i| x[i] == 1).collect()) };
    let axes = lists::axes(axes, x.len())?;
    match axes.iter().find(|a| x[**a] != 1) {
        Some(a) => Err(Error::mismatch(format!("extent of axis {a}"), x[*a], 1)),
        None => Ok(axes),
    }
}

/// The axes of the output that `Unsqueeze` adds to an input of this rank, ascending.
pub fn unsqueezed(axes: &[i64], rank: usize) -> Result<Vec<usize>> {
    let mut axes = lists::axes(axes, rank + axes.len())?;
    axes.sort_unstable();
    Ok(axes)
}

fn without<T: Clone>(shape: &[T], axes: &[usize]) -> Vec<T> {
    shape.iter().enumerate().filter(|(i, _)| !axes.contains(i)).map(|(_, d)| d.clone()).collect()
}

fn with<T: Clone>(shape: &[T], axes: &[usize], one: T) -> Vec<T> {
    let mut out = shape.to_vec();
    for &a in axes {
        out.insert(a.min(out.len()), one.clone());
    }
    out
}

/// The fact of the result: a small integer tensor keeps its elements.
fn fact(cx: &InferCtx<'_>, shape: Vec<Dim>) -> Result<Vec<Fact>> {
    let dtype = cx.dtype(0)?;
    let kept = cx.dims(0).filter(|_| shape.len() <= 1);
    Ok(vec![match kept.and_then(|d| DimTensor::of(shape.is_empty(), d.into_elems())) {
        Some(d) => Fact::of_dims(dtype, d),
        None => TensorType::new(dtype, shape).into(),
    }])
}

impl Operator for Squeeze {
    fn schema(&self) -> Schema {
        Schema { name: "Squeeze", domain: "", since: SINCE, inputs: (1, 2), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let unranked = || Ok(vec![TensorType::unranked(cx.dtype(0)?).into()]);
        let Some(x) = cx.shape(0)? else { return unranked() };
        let axes = match lists::inferred(cx, "axes", 1)? {
            List::Unknown => return unranked(),
            List::Known(axes) => lists::axes(&axes, x.len())?,
            List::Absent => {
                let ones = |x: &[Dim]| {
                    let known: Option<Vec<usize>> = x.iter().map(Dim::known).collect();
                    known.map(|x| squeezed(None, &x))
                };
                match ones(x) {
                    Some(axes) => axes?,
                    None => return unranked(),
                }
            }
        };
        if let Some(a) = axes.iter().find(|a| !x[**a].compatible(&Dim::Known(1))) {
            return Err(Error::mismatch(format!("extent of axis {a}"), &x[*a], 1));
        }
        fact(cx, without(x, &axes))
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let axes = squeezed(lists::given(cx, "axes", 1)?.as_deref(), x.shape())?;
        Ok(vec![x.reshaped(without(x.shape(), &axes))?.into()])
    }
}

impl Operator for Unsqueeze {
    fn schema(&self) -> Schema {
        Schema { name: "Unsqueeze", domain: "", since: SINCE, inputs: (1, 2), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let (x, axes) = (cx.shape(0)?, lists::inferred(cx, "axes", 1)?);
        let (Some(x), List::Known(axes)) = (x, axes) else {
            return Ok(vec![TensorType::unranked(cx.dtype(0)?).into()]);
        };
        fact(cx, with(x, &unsqueezed(&axes, x.len())?, Dim::Known(1)))
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let axes = lists::given(cx, "axes", 1)?
            .ok_or_else(|| Error::mismatch("axes", "none", "an attribute or an input"))?;
        let axes = unsqueezed(&axes, x.rank())?;
        Ok(vec![x.reshaped(with(x.shape(), &axes, 1))?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::eval1;
    use crate::{DType, Tensor};

    #[test]
    fn axes_come_as_attribute_or_as_input() {
        let x = Tensor::new(vec![1, 3, 1], vec![1f32, 2., 3.]).unwrap();
        let axes = |v: &[i64]| Attrs::new().with("axes", v.to_vec());
        let shape = |t: Result<Tensor>| t.unwrap().shape().to_vec();
        assert_eq!(shape(eval1("Squeeze", 11, axes(&[-1]), &[Some(x.clone())])), [1, 3]);
        let input = Some(Tensor::from_i64s([0, 2]));
        assert_eq!(shape(eval1("Squeeze", 13, Attrs::new(), &[Some(x.clone()), input])), [3]);
        assert_eq!(shape(eval1("Squeeze", 13, Attrs::new(), &[Some(x.clone())])), [3]);
        assert!(eval1("Squeeze", 11, axes(&[1]), &[Some(x.clone())]).is_err());
        let y = Tensor::new(vec![3], vec![1f32, 2., 3.]).unwrap();
        assert_eq!(shape(eval1("Unsqueeze", 11, axes(&[3, 0, -3]), &[Some(y.clone())])), [1, 1, 3, 1]);
        assert!(eval1("Unsqueeze", 11, axes(&[5]), &[Some(y)]).is_err());
    }

    #[test]
    fn a_symbolic_scalar_stays_one() {
        let n = Fact::of_dims(DType::I64, DimTensor::scalar(Dim::symbol("N")));
        let attrs = Attrs::new().with("axes", vec![0i64]);
        let y = crate::ops::testing::infer("Unsqueeze", 11, attrs, &[Some(n)], 1).unwrap();
        assert_eq!(y[0].dims, DimTensor::vector([Dim::symbol("N")]));
    }
}
