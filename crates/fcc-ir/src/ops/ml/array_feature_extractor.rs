//! `ArrayFeatureExtractor`. <https://onnx.ai/onnx/operators/onnx_aionnxml_ArrayFeatureExtractor.html>
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::movement;
use crate::{Dim, Error, Result, TensorType, Value};

/// `ArrayFeatureExtractor`: elements of the last axis by their places.
pub struct ArrayFeatureExtractor;

impl Operator for ArrayFeatureExtractor {
    fn schema(&self) -> Schema {
        Schema { inputs: (2, 2), ..super::schema("ArrayFeatureExtractor", 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        let Some(x) = cx.shape(0)? else { return Ok(vec![TensorType::unranked(dtype).into()]) };
        let count = cx.shape(1)?.map(|s| s.iter().fold(Dim::Known(1), |p, d| p.mul(d))).unwrap_or_default();
        let out = match &x[..] {
            [] => return Err(Error::mismatch("rank", 0, "at least 1")),
            // a vector counts as one row
            [_] => vec![Dim::Known(1), count],
            [lead @ .., _] => [lead, &[count]].concat(),
        };
        Ok(vec![TensorType::new(dtype, out).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let mut axes = movement::whole(x.shape());
        let Some(last) = axes.last_mut() else { return Err(Error::mismatch("rank", 0, "at least 1")) };
        let pick = |i: i64| {
            let place = usize::try_from(i).ok().and_then(|i| last.get(i).copied());
            place.ok_or_else(|| Error::mismatch("index", i, format!("0..{}", last.len())))
        };
        *last = cx.tensor(1)?.to_i64s()?.into_iter().map(pick).collect::<Result<_>>()?;
        let y = movement::select(x, &axes)?;
        let y = if x.rank() == 1 { y.reshaped([1, y.len()])? } else { y };
        Ok(vec![y.into()])
    }
}

#[cfg(test)]
mod tests {
    use crate::Tensor;
    use crate::attr::Attrs;
    use crate::ops::testing::eval_ml;

    #[test]
    fn picks_columns_in_the_order_of_the_places() {
        let x = Tensor::new([2, 3], vec![1i32, 2, 3, 4, 5, 6]).unwrap();
        let at = Tensor::from_i64s(vec![2, 0, 2, 1]);
        let y = eval_ml("ArrayFeatureExtractor", 1, Attrs::new(), &[x.clone(), at.clone()]).unwrap();
        assert_eq!(y[0].as_tensor().unwrap(), &Tensor::new([2, 4], vec![3i32, 1, 3, 2, 6, 4, 6, 5]).unwrap());
        // a vector counts as one row
        let y = eval_ml("ArrayFeatureExtractor", 1, Attrs::new(), &[x.reshaped([6]).unwrap(), at]).unwrap();
        assert_eq!(y[0].as_tensor().unwrap(), &Tensor::new([1, 4], vec![3i32, 1, 3, 2]).unwrap());
        let outside = Tensor::from_i64s(vec![3]);
        assert!(eval_ml("ArrayFeatureExtractor", 1, Attrs::new(), &[x, outside]).is_err());
    }
}
