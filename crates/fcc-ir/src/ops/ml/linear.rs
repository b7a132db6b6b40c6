//! `LinearClassifier` and `LinearRegressor`.
//! <https://onnx.ai/onnx/operators/onnx_aionnxml_LinearClassifier.html>,
//! <https://onnx.ai/onnx/operators/onnx_aionnxml_LinearRegressor.html>
use super::classes::{Classes, top};
use super::post_transform::{PostTransform, Second};
use super::real::reals;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::movement::new_elems;
use crate::{DType, Dim, Error, OpNode, Result, Tensor, TensorType, Value};

/// `LinearClassifier`.
pub struct LinearClassifier;
/// `LinearRegressor`.
pub struct LinearRegressor;

/// `x * coefficients^T + intercepts`, transformed, and which class has the greatest score.
#[derive(Debug, Clone, PartialEq)]
pub struct Linear {
    /// `[E, F]`.
    coefficients: Vec<f32>,
    /// `[E]`, or none.
    intercepts: Vec<f32>,
    /// How many scores a row has, `E`.
    scores: usize,
    transform: PostTransform,
    /// Whether the only score becomes two columns.
    second: Second,
    /// How many classes there are labels for; `None` of a regressor.
    classes: Option<usize>,
}

impl Linear {
    /// Of a `LinearClassifier` with `features` columns. Errors on lists that do not fit.
    pub fn classifier(node: &OpNode, features: usize) -> Result<Linear> {
        let classes = Classes::parse(node, "classlabels_ints")?.len();
        let coefficients = node.attrs.floats("coefficients")?;
        let coefficients =
            coefficients.ok_or_else(|| Error::mismatch("attribute `coefficients`", "none", "numbers"))?;
        let scores = match node.attrs.floats("intercepts")? {
            Some(v) => v.len(),
            None => coefficients.len() / features.max(1),
        };
        if scores == 0 || (scores != 1 && scores != classes) {
            return Err(Error::mismatch("number of scores", scores, format!("1 or {classes}, one a class")));
        }
        let second = if scores == 1 && classes == 2 { Second::Complement } else { Second::Absent };
        Linear::of(node, coefficients, scores, features, second, Some(classes))
    }
    /// Of a `LinearRegressor` with `features` columns. Errors on lists that do not fit.
    pub fn regressor(node: &OpNode, features: usize) -> Result<Linear> {
        let coefficients = node.attrs.floats("coefficients")?.unwrap_or(&[]);
        Linear::of(node, coefficients, targets(node)?, features, Second::Absent, None)
    }
    fn of(
        node: &OpNode,
        coefficients: &[f32],
        scores: usize,
        features: usize,
        second: Second,
        classes: Option<usize>,
    ) -> Result<Linear> {
        let wanted = scores.checked_mul(features);
        if wanted != Some(coefficients.len()) {
            let wanted = format!("{scores} times {features} columns");
            return Err(Error::mismatch("length of `coefficients`", coefficients.len(), wanted));
        }
        let intercepts = match node.attrs.floats("intercepts")? {
            None | Some([]) => vec![],
            Some(v) if v.len() == scores => v.to_vec(),
            Some(v) => return Err(Error::mismatch("length of `intercepts`", v.len(), scores)),
        };
        let transform = PostTransform::parse(node)?;
        Ok(Linear { coefficients: coefficients.to_vec(), intercepts, scores, transform, second, classes })
    }
    /// The number of columns of the scores.
    pub fn columns(&self) -> usize {
        if self.second == Second::Absent { self.scores } else { 2 }
    }
    /// The scores of one row before the transform. A sum is taken in the order of the features, as float.
    fn raw(&self, x: &[f32]) -> Vec<f32> {
        let row = |c: &[f32]| c.iter().zip(x).fold(0.0, |sum, (c, x)| sum + c * x);
        let intercept = |e: usize| self.intercepts.get(e).copied().unwrap_or(0.0);
        (0..self.scores).map(|e| row(&self.coefficients[e * x.len()..][..x.len()]) + intercept(e)).collect()
    }
    /// Computes one row: its scores to `out`; returns the number of its class, 0 for a regressor.
    pub fn row(&self, x: &[f32], out: &mut [f32]) -> usize {
        let mut scores = self.raw(x);
        let class = match (&scores[..], self.classes) {
            // the class before the transform: a score above 0 means the second
            ([score], Some(2)) => usize::from(*score > 0.0),
            (scores, _) => top(scores),
        };
        match scores[..] {
            [score] => self.transform.apply_one(score, self.second, out),
            _ => {
                self.transform.apply(&mut scores);
                out.copy_from_slice(&scores);
            }
        }
        class
    }
    /// All rows: scores, and the number of each row's class.
    pub fn rows(&self, x: &[f32], rows: usize, features: usize) -> Result<(Vec<f32>, Vec<usize>)> {
        let mut scores = vec![0.0; new_elems(&[rows, self.columns()])?];
        let mut classes = vec![];
        for (r, out) in scores.chunks_exact_mut(self.columns().max(1)).enumerate() {
            crate::limits::check()?;
            classes.push(self.row(&x[r * features..][..features], out));
        }
        Ok((scores, classes))
    }
}

/// The attribute `targets`, 1 if it is absent.
fn targets(node: &OpNode) -> Result<usize> {
    let targets = node.attrs.int_or("targets", 1)?;
    usize::try_from(targets)
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| Error::mismatch("attribute `targets`", targets, "at least 1"))
}

impl Operator for LinearClassifier {
    fn schema(&self) -> Schema {
        super::schema("LinearClassifier", 2)
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let classes = Classes::parse(cx.node, "classlabels_ints")?;
        let (rows, features) = super::row_dims(cx)?;
        let columns = match (features.known(), cx.node.attrs.floats("intercepts")?) {
            (Some(features), _) => Dim::Known(Linear::classifier(cx.node, features)?.columns()),
            (None, Some([_])) if classes.len() != 2 => Dim::Known(1),
            (None, Some(_)) => Dim::Known(classes.len()),
            (None, None) => Dim::Unknown,
        };
        let labels = TensorType::new(classes.dtype(), [rows.clone()]);
        Ok(vec![labels.into(), TensorType::new(DType::F32, [rows, columns]).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let (rows, features) = super::rows(x.shape())?;
        let linear = Linear::classifier(cx.node, features)?;
        let (scores, which) = linear.rows(&reals::<f32>(x)?, rows, features)?;
        let labels = Classes::parse(cx.node, "classlabels_ints")?.labels(&which)?;
        Ok(vec![labels.into(), Tensor::new([rows, linear.columns()], scores)?.into()])
    }
}

impl Operator for LinearRegressor {
    fn schema(&self) -> Schema {
        super::schema("LinearRegressor", 1)
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let (rows, features) = super::row_dims(cx)?;
        if let Some(features) = features.known() {
            Linear::regressor(cx.node, features)?;
        }
        Ok(vec![TensorType::new(DType::F32, [rows, Dim::Known(targets(cx.node)?)]).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let (rows, features) = super::rows(x.shape())?;
        let linear = Linear::regressor(cx.node, features)?;
        let (y, _) = linear.rows(&reals::<f32>(x)?, rows, features)?;
        Ok(vec![Tensor::new([rows, linear.columns()], y)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StringList;
    use crate::attr::Attrs;
    use crate::ops::testing::eval_ml;

    fn tensors(made: Result<Vec<Value>>) -> Vec<Tensor> {
        made.unwrap().iter().map(|v| v.as_tensor().unwrap().clone()).collect()
    }

    #[test]
    fn a_regressor_has_one_row_of_coefficients_for_each_target() {
        let attrs = Attrs::new()
            .with("targets", 2i64)
            .with("coefficients", vec![1.0f32, 2.0, 3.0, -1.0, 0.0, 1.0])
            .with("intercepts", vec![10.0f32, 20.0]);
        let x = Tensor::new([2, 3], vec![1i64, 1, 1, 0, 1, 2]).unwrap();
        let y = tensors(eval_ml("LinearRegressor", 1, attrs.clone(), std::slice::from_ref(&x)));
        assert_eq!(y[0], Tensor::new([2, 2], vec![16.0f32, 20.0, 18.0, 22.0]).unwrap());
        // a vector is one row; the transform holds for one target too
        let one = Attrs::new().with("coefficients", vec![1.0f32, -1.0]).with("post_transform", "LOGISTIC");
        let y = tensors(eval_ml("LinearRegressor", 1, one, &[Tensor::new([2], vec![3.0f32, 3.0]).unwrap()]));
        assert_eq!(y[0], Tensor::new([1, 1], vec![0.5f32]).unwrap());
        for bad in [
            attrs.clone().with("targets", 3i64),
            attrs.clone().with("targets", 0i64),
            attrs.clone().with("targets", i64::MAX),
            attrs.clone().with("intercepts", vec![1.0f32]),
            attrs.with("post_transform", "EXP"),
        ] {
            assert!(eval_ml("LinearRegressor", 1, bad, std::slice::from_ref(&x)).is_err());
        }
    }

    #[test]
    fn rows_without_columns_and_targets_without_end_are_refused() {
        let attrs = Attrs::new().with("targets", i64::MAX).with("coefficients", Vec::<f32>::new());
        let x = Tensor::new([3, 0], Vec::<f32>::new()).unwrap();
        assert!(eval_ml("LinearRegressor", 1, attrs, &[x]).is_err());
    }

    #[test]
    fn one_score_chooses_between_two_classes() {
        let attrs = Attrs::new()
            .with("coefficients", vec![1.0f32, -1.0])
            .with("intercepts", vec![0.0f32])
            .with("classlabels_ints", vec![7i64, 9]);
        let x = || Tensor::new([3, 2], vec![2.0f32, 1.0, 1.0, 2.0, 1.0, 1.0]).unwrap();
        let y = tensors(eval_ml("LinearClassifier", 1, attrs.clone(), &[x()]));
        assert_eq!(y[0], Tensor::from_i64s(vec![9, 7, 7]));
        assert_eq!(y[1], Tensor::new([3, 2], vec![0.0f32, 1.0, 2.0, -1.0, 1.0, 0.0]).unwrap());
        let labels: StringList = ["a", "b"].into_iter().collect();
        let mut texts = attrs.with("classlabels_strings", labels);
        assert!(eval_ml("LinearClassifier", 1, texts.clone(), &[x()]).is_err());
        texts.remove("classlabels_ints");
        let y = tensors(eval_ml("LinearClassifier", 1, texts, &[x()]));
        assert_eq!(y[0], Tensor::from_strings([3], ["b", "a", "a"]).unwrap());
    }

    #[test]
    fn the_first_greatest_of_several_scores_wins() {
        let attrs = Attrs::new()
            .with("coefficients", vec![1.0f32, 2.0, 2.0])
            .with("intercepts", vec![0.0f32, 0.0, 0.0])
            .with("post_transform", "SOFTMAX")
            .with("classlabels_ints", vec![5i64, 6, 7]);
        let x = Tensor::new([2, 1], vec![1i32, -1]).unwrap();
        let y = tensors(eval_ml("LinearClassifier", 1, attrs.clone(), std::slice::from_ref(&x)));
        assert_eq!(y[0], Tensor::from_i64s(vec![6, 5]));
        let scores = y[1].as_slice::<f32>().unwrap().into_owned();
        assert!((scores[0] - 0.155_362).abs() < 1e-5 && (scores[..3].iter().sum::<f32>() - 1.0).abs() < 1e-6);
        let mut plain = attrs.clone();
        plain.remove("intercepts");
        plain.remove("post_transform");
        let y = tensors(eval_ml("LinearClassifier", 1, plain, std::slice::from_ref(&x)));
        assert_eq!(y[1], Tensor::new([2, 3], vec![1.0f32, 2.0, 2.0, -1.0, -2.0, -2.0]).unwrap());
        for bad in [
            attrs.clone().with("intercepts", vec![0.0f32; 2]),
            attrs.clone().with("coefficients", vec![1.0f32; 4]),
            attrs.with("classlabels_ints", vec![1i64, 2]),
        ] {
            assert!(eval_ml("LinearClassifier", 1, bad, std::slice::from_ref(&x)).is_err());
        }
    }
}
