//! `Concat`. <https://onnx.ai/onnx/operators/onnx__Concat.html>
use super::movement;
use crate::op::{DimTensor, EvalCtx, Fact, InferCtx, Operator, Schema, axis};
use crate::{DType, Dim, Error, OpNode, Result, Tensor, TensorType, Value};

/// `Concat`.
pub struct Concat;

/// The axis: required since version 4, 1 by default before.
pub fn concat_axis(node: &OpNode, rank: usize) -> Result<usize> {
    let given = if node.version < 4 { node.attrs.int_or("axis", 1)? } else { node.attrs.need_int("axis")? };
    axis(given, rank)
}

impl Operator for Concat {
    fn schema(&self) -> Schema {
        Schema {
            name: "Concat",
            domain: "",
            since: &[1, 4, 11, 13],
            inputs: (1, usize::MAX),
            outputs: (1, 1),
        }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let n = cx.inputs.len();
        let mut dtype = DType::Undefined;
        for i in 0..n {
            let d = cx.dtype(i)?;
            if dtype == DType::Undefined {
                dtype = d;
            } else if d != DType::Undefined && d != dtype {
                return Err(Error::mismatch(format!("element type of input {i}"), d, dtype));
            }
        }
        let shapes: Vec<_> = (0..n).map(|i| cx.shape(i)).collect::<Result<_>>()?;
        let Some(rank) = shapes.iter().flatten().map(|s| s.len()).next() else {
            return Ok(vec![TensorType::unranked(dtype).into()]);
        };
        let at = concat_axis(cx.node, rank)?;
        if rank == 1 {
            let mut elems = vec![];
            let followed = (0..n).all(|i| match cx.dims(i) {
                Some(d) if elems.len() <= DimTensor::MAX_ELEMS => {
                    elems.extend(d.into_elems());
                    true
                }
                _ => false,
            });
            if let Some(dims) = DimTensor::vector(elems).filter(|_| followed) {
                return Ok(vec![Fact::of_dims(dtype, dims)]);
            }
        }
        let mut out = vec![Dim::Unknown; rank];
        out[at] = Dim::Known(0);
        for (i, shape) in shapes.iter().enumerate() {
            let Some(shape) = shape else {
                out[at] = Dim::Unknown;
                continue;
            };
            if shape.len() != rank {
                return Err(Error::mismatch(format!("rank of input {i}"), shape.len(), rank));
            }
            for (k, (o, d)) in out.iter_mut().zip(shape.iter()).enumerate() {
                if k == at {
                    *o = o.add(d);
                } else if !o.compatible(d) {
                    return Err(Error::mismatch(format!("extent {k} of input {i}"), d, o));
                } else if matches!((&*o, d), (Dim::Unknown, _) | (Dim::Sym(_), Dim::Known(_))) {
                    *o = d.clone();
                }
            }
        }
        Ok(vec![TensorType::new(dtype, out).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let parts: Vec<&Tensor> = (0..cx.inputs.len()).map(|i| cx.tensor(i)).collect::<Result<_>>()?;
        let rank = parts.first().map_or(0, |p| p.rank());
        Ok(vec![movement::concat(&parts, concat_axis(cx.node, rank)?)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::infer;
    use crate::{DType, ValueType};

    #[test]
    fn extents_add_up_and_shapes_join() {
        let n = Dim::symbol("N");
        let t = |d: Dim| Some(Fact::from(ValueType::tensor(DType::F32, [Dim::Known(2), d])));
        let attrs = Attrs::new().with("axis", 1i64);
        let y = infer("Concat", 13, attrs.clone(), &[t(n.clone()), t(Dim::Known(3))], 1).unwrap();
        assert_eq!(y[0].ty, ValueType::tensor(DType::F32, [Dim::Known(2), n.offset(3)]));
        let a = Fact::of_dims(DType::I64, DimTensor::vector([n.clone()]).unwrap());
        let b = Fact::constant(Tensor::from_i64s([-1, 4]));
        let y = infer("Concat", 13, Attrs::new().with("axis", 0i64), &[Some(a), Some(b)], 1).unwrap();
        let d = y[0].dims.clone().unwrap();
        assert_eq!((d.elems()[0].clone(), d.int(1), d.int(2)), (n, Some(-1), Some(4)));
        let clash = [t(Dim::Known(1)), Some(ValueType::tensor(DType::F32, [3usize, 1]).into())];
        assert!(infer("Concat", 13, attrs, &clash, 1).is_err());
    }
}
