//! `ZipMap`. <https://onnx.ai/onnx/operators/onnx_aionnxml_ZipMap.html>
use super::classes::Classes;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{DType, Dim, Error, Result, Tensor, TensorType, Value, ValueType};

/// `ZipMap`: each row of scores becomes a map from the classes.
pub struct ZipMap;

fn map_type(keys: DType) -> ValueType {
    ValueType::Map(keys, Box::new(TensorType::new(DType::F32, Vec::<Dim>::new()).into()))
}

impl Operator for ZipMap {
    fn schema(&self) -> Schema {
        super::schema("ZipMap", 1)
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let classes = Classes::parse(cx.node, "classlabels_int64s")?;
        if let Some(columns) = super::row_dims(cx)?.1.known().filter(|n| *n != classes.len()) {
            return Err(Error::mismatch("columns of X", columns, format!("{}, one a class", classes.len())));
        }
        Ok(vec![ValueType::Sequence(Box::new(map_type(classes.dtype()))).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (x, classes) = (cx.tensor(0)?, Classes::parse(cx.node, "classlabels_int64s")?);
        let (_, columns) = super::rows(x.shape())?;
        if columns != classes.len() {
            return Err(Error::mismatch("columns of X", columns, format!("{}, one a class", classes.len())));
        }
        let keys = classes.all()?;
        let row =
            |row: &[f32]| Value::Map(keys.clone(), row.iter().map(|v| Tensor::scalar(*v).into()).collect());
        let rows = x.as_slice::<f32>()?.chunks_exact(columns).map(row).collect();
        Ok(vec![Value::Sequence(map_type(classes.dtype()), rows)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StringList;
    use crate::attr::Attrs;
    use crate::ops::testing::eval_ml;

    #[test]
    fn each_row_is_a_map() {
        let x = Tensor::new([2, 2], vec![0.25f32, 0.75, 1.0, 0.0]).unwrap();
        let labels: StringList = ["no", "yes"].into_iter().collect();
        let attrs = Attrs::new().with("classlabels_strings", labels);
        let y = eval_ml("ZipMap", 1, attrs.clone(), std::slice::from_ref(&x)).unwrap();
        let keys = Tensor::from_strings([2], ["no", "yes"]).unwrap();
        let map = |a: f32, b: f32| {
            Value::Map(keys.clone(), vec![Tensor::scalar(a).into(), Tensor::scalar(b).into()])
        };
        assert_eq!(y[0].as_sequence().unwrap(), [map(0.25, 0.75), map(1.0, 0.0)]);
        assert_eq!(y[0].value_type().to_string(), "seq(map(string, float))");
        // a vector is one row; no rows are an empty sequence
        let ints = Attrs::new().with("classlabels_int64s", vec![5i64, -6, 7, 8]);
        let y = eval_ml("ZipMap", 1, ints.clone(), &[x.reshaped([4]).unwrap()]).unwrap();
        assert_eq!(y[0].as_sequence().unwrap().len(), 1);
        let none = Tensor::new([0, 2], Vec::<f32>::new()).unwrap();
        let y = eval_ml("ZipMap", 1, attrs.clone(), &[none]).unwrap();
        assert!(y[0].as_sequence().unwrap().is_empty());
        for bad in [Attrs::new(), ints, attrs.with("classlabels_int64s", vec![1i64, 2])] {
            assert!(eval_ml("ZipMap", 1, bad, std::slice::from_ref(&x)).is_err());
        }
    }
}
