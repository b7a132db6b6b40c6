//! `Shape` and `Size`. <https://onnx.ai/onnx/operators/onnx__Shape.html>, <https://onnx.ai/onnx/operators/onnx__Size.html>
use crate::op::{DimTensor, EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{DType, Dim, Error, OpNode, Result, Tensor, TensorType, Value};

/// `Shape`.
pub struct Shape;
/// `Size`.
pub struct Size;

/// Which axes `start` and `end` (version 15) keep.
pub fn range(node: &OpNode, rank: usize) -> Result<std::ops::Range<usize>> {
    let r = i64::try_from(rank).map_err(|_| Error::invalid("rank too large"))?;
    let clamp = |v: i64| if v < 0 { v.saturating_add(r).max(0) } else { v.min(r) };
    let start = clamp(node.attrs.int_or("start", 0)?);
    let end = clamp(node.attrs.int_or("end", r)?).max(start);
    // both lie in 0..=rank
    Ok(start as usize..end as usize)
}

impl Operator for Shape {
    fn schema(&self) -> Schema {
        Schema {
            name: "Shape",
            domain: "",
            since: &[1, 13, 15, 19, 21, 23, 24, 25],
            inputs: (1, 1),
            outputs: (1, 1),
        }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let Some(x) = cx.shape(0)? else {
            return Ok(vec![TensorType::new(DType::I64, [Dim::Unknown]).into()]);
        };
        let part = &x[range(cx.node, x.len())?];
        Ok(vec![match DimTensor::vector(part.iter().cloned()) {
            Some(dims) => Fact::of_dims(DType::I64, dims),
            None => TensorType::new(DType::I64, [part.len()]).into(),
        }])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?.shape();
        // extents fit i64: the element count was checked when the tensor was made
        let extents: Vec<i64> = x[range(cx.node, x.len())?].iter().map(|&d| d as i64).collect();
        Ok(vec![Tensor::from_i64s(extents).into()])
    }
}

impl Operator for Size {
    fn schema(&self) -> Schema {
        Schema {
            name: "Size",
            domain: "",
            since: &[1, 13, 19, 21, 23, 24, 25],
            inputs: (1, 1),
            outputs: (1, 1),
        }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let product = |x: &Vec<Dim>| x.iter().fold(Dim::Known(1), |p, d| p.mul(d));
        let elems = cx.shape(0)?.map_or(Dim::Unknown, product);
        Ok(vec![Fact::of_dims(DType::I64, DimTensor::scalar(elems))])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        Ok(vec![Tensor::scalar(cx.tensor(0)?.len() as i64).into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::{eval1, infer};

    #[test]
    fn start_and_end_are_clamped() {
        let x = Tensor::new(vec![2, 3, 4], vec![0u8; 24]).unwrap();
        let shape = |start: i64, end: i64| {
            let attrs = Attrs::new().with("start", start).with("end", end);
            eval1("Shape", 15, attrs, &[Some(x.clone())]).unwrap().to_i64s().unwrap()
        };
        assert_eq!(shape(-2, 100), [3, 4]);
        assert_eq!(shape(-9, -1), [2, 3]);
        assert!(shape(2, 1).is_empty());
    }

    #[test]
    fn symbols_are_kept() {
        let n = Dim::symbol("N");
        let x = Fact::from(TensorType::new(DType::F32, [n.clone(), Dim::Known(3)]));
        let y = infer("Shape", 13, Attrs::new(), &[Some(x.clone())], 1).unwrap();
        assert_eq!(y[0].dims.as_ref().unwrap().elems(), [n.clone(), Dim::Known(3)]);
        let y = infer("Size", 13, Attrs::new(), &[Some(x)], 1).unwrap();
        assert_eq!(y[0].dims.as_ref().unwrap().elems(), [n.mul(&Dim::Known(3))]);
    }
}
