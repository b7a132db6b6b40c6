//! `ConstantOfShape`. <https://onnx.ai/onnx/operators/onnx__ConstantOfShape.html>
use super::{expand, lists};
use crate::op::{DimTensor, EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{Dim, Error, OpNode, Result, Tensor, TensorType, Value};

/// `ConstantOfShape`.
pub struct ConstantOfShape;

/// The one element that fills the output: `value`, else 0 in f32.
pub fn fill(node: &OpNode) -> Result<Tensor> {
    match node.attrs.tensor("value")? {
        None => Ok(Tensor::scalar(0f32)),
        Some(t) if t.len() == 1 => t.reshaped([]),
        Some(t) => Err(Error::mismatch("attribute `value`", t.tensor_type(), "one element")),
    }
}

impl Operator for ConstantOfShape {
    fn schema(&self) -> Schema {
        Schema {
            name: "ConstantOfShape",
            domain: "",
            since: &[9, 20, 21, 23, 24, 25],
            inputs: (1, 1),
            outputs: (1, 1),
        }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let fill = fill(cx.node)?;
        let shape = match (cx.dims(0), cx.shape(0)?.map(Vec::as_slice)) {
            (Some(d), _) => {
                if let Some(ints) = d.ints() {
                    lists::extents("shape", &ints)?;
                }
                d.into_elems()
            }
            (None, Some([Dim::Known(rank)])) if *rank <= 64 => vec![Dim::Unknown; *rank],
            _ => return Ok(vec![TensorType::unranked(fill.dtype()).into()]),
        };
        if let ([Dim::Known(n)], Ok(v)) = (&shape[..], fill.to_i64s())
            && let Some(dims) = DimTensor::vector(std::iter::repeat_n(DimTensor::elem(v[0]), *n))
        {
            return Ok(vec![Fact::of_dims(fill.dtype(), dims)]);
        }
        Ok(vec![TensorType::new(fill.dtype(), shape).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let shape = lists::extents("shape", &cx.tensor(0)?.to_i64s()?)?;
        Ok(vec![expand::expand(&fill(cx.node)?, &shape)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use crate::Tensor;
    use crate::attr::Attrs;
    use crate::ops::testing::eval1;

    #[test]
    fn the_value_gives_type_and_element() {
        let run = |attrs, shape: &[i64]| {
            eval1("ConstantOfShape", 9, attrs, &[Some(Tensor::from_i64s(shape.to_vec()))])
        };
        let y = run(Attrs::new(), &[2]).unwrap();
        assert_eq!(*y.as_slice::<f32>().unwrap(), [0., 0.]);
        let seven = Attrs::new().with("value", Tensor::from_i64s([7]));
        assert_eq!(run(seven.clone(), &[1, 2]).unwrap().to_i64s().unwrap(), [7, 7]);
        assert_eq!(run(seven, &[]).unwrap().rank(), 0);
        assert!(run(Attrs::new(), &[-1]).is_err());
    }
}
