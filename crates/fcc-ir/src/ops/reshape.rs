//! `Reshape`. <https://onnx.ai/onnx/operators/onnx__Reshape.html>
use super::lists;
use crate::op::{DimTensor, EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{Dim, Error, Result, TensorType, Value, elem_count};

/// `Reshape`.
pub struct Reshape;

/// The shape that a request means for an input of shape `x`: 0 copies the extent there (unless `allowzero`), one -1
/// takes what is left. Errors where element counts differ.
pub fn target(given: &[i64], x: &[usize], allowzero: bool) -> Result<Vec<usize>> {
    let bad = |wanted: &str| Error::mismatch("target shape", format!("{given:?} for {x:?}"), wanted);
    let mut free = None;
    let mut out = Vec::with_capacity(given.len());
    for (i, &d) in given.iter().enumerate() {
        out.push(match d {
            0 if !allowzero => *x.get(i).ok_or_else(|| bad("0 only at axes of the input"))?,
            -1 if free.replace(i).is_some() => return Err(bad("at most one -1")),
            -1 => 1,
            _ => usize::try_from(d).map_err(|_| bad("extents, 0 or one -1"))?,
        });
    }
    let (have, rest) = (elem_count(x)?, elem_count(&out)?);
    match free {
        Some(i) if rest > 0 && have % rest == 0 => out[i] = have / rest,
        Some(_) => return Err(bad("a product that divides the number of elements")),
        None if have != rest => return Err(bad("as many elements")),
        None => {}
    }
    Ok(out)
}

/// The shape that follows from what is known of the request and of the input's extents.
///
/// One element of the request that is -1 or unknown is the quotient of the element counts, for a reshape keeps them.
pub fn target_dims(given: &[Dim], x: Option<&[Dim]>, allowzero: bool) -> Result<Vec<Dim>> {
    let Some(x) = x else {
        let fixed = |d: &Dim| match d {
            Dim::Known(0) if !allowzero => Dim::Unknown,
            Dim::Sym(e) if e.as_constant().is_some() => Dim::Unknown,
            d => d.clone(),
        };
        return Ok(given.iter().map(fixed).collect());
    };
    let known: Option<Vec<usize>> = x.iter().map(Dim::known).collect();
    let ints = DimTensor::vector(given.iter().cloned()).and_then(|d| d.ints());
    if let (Some(x), Some(given)) = (known, ints) {
        return Ok(target(&given, &x, allowzero)?.into_iter().map(Dim::Known).collect());
    }
    let mut out = Vec::with_capacity(given.len());
    let mut free = vec![];
    // extents that stand on both sides cancel, whatever they are
    let mut have: Vec<Dim> = x.to_vec();
    let mut rest: Vec<Dim> = vec![];
    for (i, d) in given.iter().enumerate() {
        match d {
            Dim::Known(0) if !allowzero => {
                let copied = x.get(i).ok_or_else(|| {
                    Error::mismatch("target shape", format!("0 at axis {i}"), "0 only at axes of the input")
                })?;
                out.push(copied.clone());
                have[i] = Dim::Known(1);
            }
            Dim::Unknown => {
                free.push(i);
                out.push(Dim::Unknown);
            }
            Dim::Sym(e) if e.as_constant().is_some() => {
                free.push(i);
                out.push(Dim::Unknown);
            }
            d => {
                out.push(d.clone());
                rest.push(d.clone());
            }
        }
    }
    if let [i] = free[..] {
        rest.retain(|d| match have.iter().position(|h| h.same(d)) {
            Some(p) => {
                have[p] = Dim::Known(1);
                false
            }
            None => true,
        });
        let product = |dims: &[Dim]| dims.iter().fold(Dim::Known(1), |p, d| p.mul(d));
        let rest = product(&rest);
        if rest != Dim::Known(0) {
            out[i] = product(&have).floor_div(&rest);
        }
    }
    Ok(out)
}

impl Operator for Reshape {
    fn schema(&self) -> Schema {
        Schema {
            name: "Reshape",
            domain: "",
            since: &[1, 5, 13, 14, 19, 21, 23, 24, 25],
            inputs: (1, 2),
            outputs: (1, 1),
        }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        let allowzero = cx.node.attrs.flag("allowzero", false)?;
        let given = match lists::dims(cx, "shape", 1)? {
            Some(given) => given,
            // the number of elements of the request is the rank
            None if cx.has(1) => match cx.shape(1)?.map(Vec::as_slice) {
                Some([Dim::Known(rank)]) if *rank <= 64 => vec![Dim::Unknown; *rank],
                _ => return Ok(vec![TensorType::unranked(dtype).into()]),
            },
            None => return Err(Error::mismatch("target shape", "none", "an attribute or an input")),
        };
        let shape = target_dims(&given, cx.shape(0)?.map(Vec::as_slice), allowzero)?;
        let kept = cx.dims(0).filter(|_| shape.len() <= 1);
        if let Some(d) = kept.and_then(|d| DimTensor::of(shape.is_empty(), d.into_elems())) {
            return Ok(vec![Fact::of_dims(dtype, d)]);
        }
        Ok(vec![TensorType::new(dtype, shape).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let given = lists::given(cx, "shape", 1)?
            .ok_or_else(|| Error::mismatch("target shape", "none", "an attribute or an input"))?;
        let shape = target(&given, x.shape(), cx.node.attrs.flag("allowzero", false)?)?;
        Ok(vec![x.reshaped(shape)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing;
    use crate::{DType, Tensor, ValueType};

    #[test]
    fn zero_copies_and_minus_one_takes_the_rest() {
        assert_eq!(target(&[0, -1], &[2, 3, 4], false).unwrap(), [2, 12]);
        assert_eq!(target(&[0, 4], &[0, 3], true).unwrap(), [0, 4]);
        assert!(target(&[5, -1], &[2, 3], false).is_err());
        assert!(target(&[-1, -1], &[4], false).is_err());
        assert!(target(&[0, 0, 0], &[2, 3], false).is_err());
    }

    #[test]
    fn symbolic_extents_cancel() {
        let n = Dim::symbol("N");
        let x = [n.clone(), Dim::Known(3), Dim::Known(4)];
        let d = |v: i64| DimTensor::elem(v);
        assert_eq!(target_dims(&[d(0), d(-1)], Some(&x), false).unwrap(), [n.clone(), Dim::Known(12)]);
        assert_eq!(target_dims(&[n.clone(), d(-1)], Some(&x), false).unwrap(), [n.clone(), Dim::Known(12)]);
        assert_eq!(target_dims(&[d(-1), d(6)], Some(&x), false).unwrap(), [n.mul(&d(2)), d(6)]);
        let unknown = [Dim::Unknown, Dim::Known(8)];
        let y = target_dims(&[d(0), d(2), d(-1)], Some(&unknown), false).unwrap();
        assert_eq!(y, [Dim::Unknown, d(2), d(4)]);
    }

    #[test]
    fn a_request_out_of_a_shape_keeps_the_symbol() {
        let n = Dim::symbol("N");
        let x = ValueType::tensor(DType::F32, [n.clone(), Dim::Known(6)]).into();
        let given = DimTensor::vector([n.clone(), Dim::Known(2), DimTensor::elem(-1)]);
        let given = Fact::of_dims(DType::I64, given.unwrap());
        let y = testing::infer("Reshape", 13, Attrs::new(), &[Some(x), Some(given)], 1).unwrap();
        assert_eq!(y[0].ty, ValueType::tensor(DType::F32, [n, Dim::Known(2), Dim::Known(3)]));
    }

    #[test]
    fn the_attribute_of_version_1_is_read() {
        let x = Tensor::new(vec![4], vec![1f32, 2., 3., 4.]).unwrap();
        let attrs = Attrs::new().with("shape", vec![2i64, -1]);
        assert_eq!(testing::eval1("Reshape", 1, attrs, &[Some(x)]).unwrap().shape(), [2, 2]);
    }
}
