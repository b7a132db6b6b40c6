//! `Flatten`: a matrix, the axes before `axis` and those from it on. <https://onnx.ai/onnx/operators/onnx__Flatten.html>
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{Dim, Error, OpNode, Result, TensorType, Value};

/// `Flatten`.
pub struct Flatten;

/// How many leading axes make the rows: 0 to the rank inclusive, negative from the end since version 11.
pub fn split_axis(node: &OpNode, rank: usize) -> Result<usize> {
    let given = node.attrs.int_or("axis", 1)?;
    let r = i64::try_from(rank).map_err(|_| Error::invalid("rank too large"))?;
    let axis = if given < 0 { given + r } else { given };
    usize::try_from(axis)
        .ok()
        .filter(|a| *a <= rank)
        .ok_or_else(|| Error::mismatch("attribute `axis`", given, format!("-{r} to {r}")))
}

impl Operator for Flatten {
    fn schema(&self) -> Schema {
        Schema {
            name: "Flatten",
            domain: "",
            since: &[1, 9, 11, 13, 21, 23, 24, 25],
            inputs: (1, 1),
            outputs: (1, 1),
        }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        let Some(x) = cx.shape(0)? else {
            return Ok(vec![TensorType::new(dtype, [Dim::Unknown, Dim::Unknown]).into()]);
        };
        let (rows, columns) = x.split_at(split_axis(cx.node, x.len())?);
        let product = |dims: &[Dim]| dims.iter().fold(Dim::Known(1), |p, d| p.mul(d));
        Ok(vec![TensorType::new(dtype, [product(rows), product(columns)]).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let (rows, columns) = x.shape().split_at(split_axis(cx.node, x.rank())?);
        Ok(vec![x.reshaped([rows.iter().product(), columns.iter().product()])?.into()])
    }
}

#[cfg(test)]
mod tests {
    use crate::Tensor;
    use crate::attr::Attrs;
    use crate::ops::testing::eval1;

    #[test]
    fn every_axis_from_0_to_the_rank() {
        let x = Tensor::new(vec![2, 3, 4], vec![0f32; 24]).unwrap();
        let shape = |axis: i64| {
            let attrs = Attrs::new().with("axis", axis);
            eval1("Flatten", 13, attrs, &[Some(x.clone())]).map(|t| t.shape().to_vec())
        };
        assert_eq!(shape(0).unwrap(), [1, 24]);
        assert_eq!(shape(3).unwrap(), [24, 1]);
        assert_eq!(shape(-1).unwrap(), [6, 4]);
        assert!(shape(4).is_err() && shape(-4).is_err());
    }
}
