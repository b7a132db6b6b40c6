//! `Expand` and `Tile`. <https://onnx.ai/onnx/operators/onnx__Expand.html>, <https://onnx.ai/onnx/operators/onnx__Tile.html>
use super::{broadcast, lists, movement};
use crate::op::{DimTensor, EvalCtx, Fact, InferCtx, Operator, Schema, axis};
use crate::{Dim, Error, Result, Tensor, TensorType, Value};

/// `Expand`.
pub struct Expand;
/// `Tile`.
pub struct Tile;

/// `x` read as if it had the shape `out`, to which its own broadcasts.
pub fn expand(x: &Tensor, out: &[usize]) -> Result<Tensor> {
    movement::new_elems(out)?;
    if broadcast::shape(&[x.shape(), out])? != out {
        return Err(Error::mismatch("expand", format!("{:?}", x.shape()), format!("{out:?}")));
    }
    let strides = broadcast::strides(x.shape(), out);
    let axes: Vec<Vec<usize>> =
        out.iter().zip(strides).map(|(&n, s)| (0..n).map(|i| i * s).collect()).collect();
    movement::select(x, &axes)
}

impl Operator for Expand {
    fn schema(&self) -> Schema {
        Schema { name: "Expand", domain: "", since: &[8, 13], inputs: (2, 2), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        let given = match (cx.dims(1), cx.shape(1)?.map(Vec::as_slice)) {
            (Some(d), _) => d.into_elems(),
            (None, Some([Dim::Known(rank)])) if *rank <= 64 => vec![Dim::Unknown; *rank],
            _ => return Ok(vec![TensorType::unranked(dtype).into()]),
        };
        let Some(x) = cx.shape(0)? else { return Ok(vec![TensorType::unranked(dtype).into()]) };
        let out = broadcast::dims(&[x, &given])?;
        if let (Some(d), [Dim::Known(n)]) = (cx.dims(0).filter(|d| d.elems().len() == 1), &out[..])
            && let Some(dims) = DimTensor::vector(std::iter::repeat_n(d.first(), *n))
        {
            return Ok(vec![Fact::of_dims(dtype, dims)]);
        }
        Ok(vec![TensorType::new(dtype, out).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let given = lists::extents("shape to expand to", &cx.tensor(1)?.to_i64s()?)?;
        Ok(vec![expand(x, &broadcast::shape(&[x.shape(), &given])?)?.into()])
    }
}

/// How often each axis is repeated, from the inputs of any version (1: one count for one axis). Errors on a list
/// of the wrong length and on negative counts.
fn repeats(version: i64, first: &[i64], second: Option<&[i64]>, rank: usize) -> Result<Vec<usize>> {
    if version < 6 {
        let (&[tiles], Some(&[at])) = (first, second) else {
            return Err(Error::mismatch(
                "tiles and axis",
                format!("{first:?}, {second:?}"),
                "one number each",
            ));
        };
        let mut out = vec![1; rank];
        out[axis(at, rank)?] = lists::extents("tiles", &[tiles])?[0];
        return Ok(out);
    }
    if first.len() != rank {
        return Err(Error::mismatch("repeats", format!("{first:?}"), format!("{rank} numbers")));
    }
    lists::extents("repeats", first)
}

impl Operator for Tile {
    fn schema(&self) -> Schema {
        Schema { name: "Tile", domain: "", since: &[1, 6, 13], inputs: (2, 3), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        let Some(x) = cx.shape(0)? else { return Ok(vec![TensorType::unranked(dtype).into()]) };
        let second = cx.dims(2).and_then(|d| d.ints());
        let out = match cx.dims(1) {
            Some(d) if cx.version() >= 6 && d.ints().is_none() && d.elems().len() == x.len() => {
                x.iter().zip(d.elems()).map(|(x, r)| x.mul(r)).collect()
            }
            d => match d.and_then(|d| d.ints()) {
                Some(first) if cx.version() >= 6 || second.is_some() => {
                    let repeats = repeats(cx.version(), &first, second.as_deref(), x.len())?;
                    x.iter().zip(repeats).map(|(d, r)| d.mul(&Dim::Known(r))).collect()
                }
                _ => vec![Dim::Unknown; x.len()],
            },
        };
        Ok(vec![TensorType::new(dtype, out).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        // version 1 allowed counts of any element type
        let read = |t: &Tensor| match t.to_i64s() {
            Ok(v) => Ok(v),
            Err(_) => Ok(crate::convert::to_f64s(t)?.into_iter().map(|v| v as i64).collect()),
        };
        let second = cx.opt_tensor(2)?.map(read).transpose()?;
        let repeats = repeats(cx.version(), &read(cx.tensor(1)?)?, second.as_deref(), x.rank())?;
        let out: Option<Vec<usize>> =
            x.shape().iter().zip(&repeats).map(|(n, r)| n.checked_mul(*r)).collect();
        movement::new_elems(&out.ok_or_else(|| Error::invalid("tiled extent overflows"))?)?;
        let axes: Vec<Vec<usize>> =
            movement::whole(x.shape()).into_iter().zip(repeats).map(|(a, r)| a.repeat(r)).collect();
        Ok(vec![movement::select(x, &axes)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::{eval1, infer};
    use crate::{DType, ValueType};

    #[test]
    fn both_shapes_stretch() {
        let x = Tensor::new(vec![2, 1], vec![1u8, 2]).unwrap();
        let y = eval1("Expand", 13, Attrs::new(), &[Some(x.clone()), Some(Tensor::from_i64s([3, 1, 2]))]);
        assert_eq!(y.unwrap().bytes().as_ref(), [1, 1, 2, 2, 1, 1, 2, 2, 1, 1, 2, 2]);
        assert!(eval1("Expand", 13, Attrs::new(), &[Some(x), Some(Tensor::from_i64s([3, 2]))]).is_err());
    }

    #[test]
    fn a_symbolic_batch_is_reached() {
        let n = Dim::symbol("N");
        let x = ValueType::tensor(DType::F32, [1usize, 1, 8]).into();
        let to = DimTensor::vector([n.clone(), DimTensor::elem(1), DimTensor::elem(1)]);
        let to = Fact::of_dims(DType::I64, to.unwrap());
        let y = infer("Expand", 13, Attrs::new(), &[Some(x), Some(to)], 1).unwrap();
        assert_eq!(y[0].ty, ValueType::tensor(DType::F32, [n, Dim::Known(1), Dim::Known(8)]));
    }

    #[test]
    fn tiles_of_versions_1_and_6() {
        let x = Tensor::new(vec![1, 2], vec![1u8, 2]).unwrap();
        let y = eval1("Tile", 13, Attrs::new(), &[Some(x.clone()), Some(Tensor::from_i64s([2, 2]))]).unwrap();
        assert_eq!(y.bytes().as_ref(), [1, 2, 1, 2, 1, 2, 1, 2]);
        // version 1 took the number and the axis in the type of the data
        let x = Some(Tensor::new(vec![1, 2], vec![1f32, 2.0]).unwrap());
        let one = |v: f32| Some(Tensor::new([1], vec![v]).unwrap());
        assert_eq!(eval1("Tile", 1, Attrs::new(), &[x, one(3.0), one(1.0)]).unwrap().shape(), [1, 6]);
    }
}
