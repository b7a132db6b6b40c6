//! `FeatureVectorizer`. <https://onnx.ai/onnx/operators/onnx_aionnxml_FeatureVectorizer.html>
use super::real::reals;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::lists;
use crate::ops::movement::new_elems;
use crate::{DType, Dim, Error, OpNode, Result, Tensor, TensorType, Value};

/// `FeatureVectorizer`: the columns of all inputs side by side, as floats.
pub struct FeatureVectorizer;

/// Errors unless input `i` has the size that `inputdimensions` says, if it says one.
fn check(node: &OpNode, n_inputs: usize, i: usize, features: usize) -> Result<()> {
    let Some(sizes) = node.attrs.ints("inputdimensions")? else { return Ok(()) };
    let sizes = lists::extents("attribute `inputdimensions`", sizes)?;
    super::need_len("inputdimensions", sizes.len(), n_inputs)?;
    match sizes.get(i) {
        Some(size) if *size != features => {
            Err(Error::mismatch(format!("columns of input {i}"), features, size))
        }
        _ => Ok(()),
    }
}

impl Operator for FeatureVectorizer {
    fn schema(&self) -> Schema {
        Schema { inputs: (1, usize::MAX), ..super::schema("FeatureVectorizer", 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let (mut rows, mut columns) = (Dim::Unknown, Dim::Known(0));
        for i in 0..cx.inputs.len() {
            let (n, features) = match cx.shape(i)?.map(Vec::as_slice) {
                None => (Dim::Unknown, Dim::Unknown),
                Some([features]) => (Dim::Known(1), features.clone()),
                Some([rows, features]) => (rows.clone(), features.clone()),
                Some(other) => {
                    return Err(Error::mismatch(format!("rank of input {i}"), other.len(), "1 or 2"));
                }
            };
            if let Some(features) = features.known() {
                check(cx.node, cx.inputs.len(), i, features)?;
            }
            match (&rows, &n) {
                (Dim::Known(a), Dim::Known(b)) if a != b => {
                    return Err(Error::mismatch(format!("rows of input {i}"), b, a));
                }
                (Dim::Known(_), _) => {}
                _ => rows = n,
            }
            columns = columns.add(&features);
        }
        Ok(vec![TensorType::new(DType::F32, [rows, columns]).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let n_inputs = cx.inputs.len();
        let mut parts: Vec<(usize, usize, Vec<f32>)> = vec![];
        for i in 0..n_inputs {
            let x = cx.tensor(i)?;
            let (rows, features) = super::rows(x.shape())?;
            check(cx.node, n_inputs, i, features)?;
            parts.push((rows, features, reals::<f32>(x)?));
        }
        let rows = parts.first().map_or(0, |p| p.0);
        if let Some((i, part)) = parts.iter().enumerate().find(|(_, p)| p.0 != rows) {
            return Err(Error::mismatch(format!("rows of input {i}"), part.0, rows));
        }
        let columns = parts.iter().try_fold(0usize, |sum, p| sum.checked_add(p.1));
        let columns = columns
            .ok_or_else(|| Error::mismatch("columns of all inputs", "too many", "what can be counted"))?;
        let mut y: Vec<f32> = Vec::with_capacity(new_elems(&[rows, columns])?);
        for row in 0..rows {
            parts.iter().for_each(|(_, n, x)| y.extend(&x[row * n..][..*n]));
        }
        Ok(vec![Tensor::new([rows, columns], y)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use crate::Tensor;
    use crate::attr::Attrs;
    use crate::ops::testing::eval_ml;

    #[test]
    fn columns_beyond_all_counting_are_refused() {
        let x = Tensor::new([0, 1 << 26], Vec::<f32>::new()).unwrap();
        assert!(eval_ml("FeatureVectorizer", 1, Attrs::new(), &[x.clone(), x.clone(), x]).is_err());
    }

    #[test]
    fn columns_stand_side_by_side_as_floats() {
        let a = Tensor::new([2, 1], vec![1.0f64, 2.0]).unwrap();
        let b = Tensor::new([2, 2], vec![0.5f64, 1.5, 2.5, 3.5]).unwrap();
        let run = |attrs, inputs: &[Tensor]| eval_ml("FeatureVectorizer", 1, attrs, inputs);
        let sizes = |v: &[i64]| Attrs::new().with("inputdimensions", v);
        let y = run(sizes(&[1, 2]), &[a.clone(), b.clone()]).unwrap();
        let wanted = Tensor::new([2, 3], vec![1.0f32, 0.5, 1.5, 2.0, 2.5, 3.5]).unwrap();
        assert_eq!(y[0].as_tensor().unwrap(), &wanted);
        assert_eq!(run(Attrs::new(), &[a.clone(), b.clone()]).unwrap(), y);
        for bad in [sizes(&[1, 3]), sizes(&[1]), sizes(&[1, -2])] {
            assert!(run(bad, &[a.clone(), b.clone()]).is_err());
        }
        let one = Tensor::new([3], vec![1i32, 2, 3]).unwrap();
        assert_eq!(
            run(Attrs::new(), std::slice::from_ref(&one)).unwrap()[0].as_tensor().unwrap().shape(),
            [1, 3]
        );
        assert!(run(Attrs::new(), &[Tensor::new([3], vec![1.0f64, 2.0, 3.0]).unwrap(), b.clone()]).is_err());
        // ONNX has one element type for all
        let error = run(Attrs::new(), &[one, b]).unwrap_err().to_string();
        assert_eq!(error, "element type of input 1: got double, wanted int32 as of input 0");
    }
}
