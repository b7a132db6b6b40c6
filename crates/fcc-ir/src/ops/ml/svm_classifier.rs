//! `SVMClassifier`. <https://onnx.ai/onnx/operators/onnx_aionnxml_SVMClassifier.html>
//!
//! ONNX says little of how votes and probabilities arise; this is libsvm's way, as ONNX Runtime has it.
use super::classes::{Classes, top};
use super::post_transform::{PostTransform, Second, logistic};
use super::real::reals;
use super::svm::{Kernel, need_columns, need_floats};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::lists;
use crate::{DType, Error, OpNode, Result, Tensor, TensorType, Value};

/// `SVMClassifier`.
pub struct SvmClassifier;

/// Pairs of classes as libsvm has them: one decision for each, from the support vectors of both.
struct Pairs<'a> {
    kernel: Kernel,
    vectors: &'a [f32],
    /// Support vectors of each class.
    counts: Vec<usize>,
    /// `prob_a` and `prob_b` of each pair; empty without probabilities.
    probabilities: (&'a [f32], &'a [f32]),
}

/// The attributes.
struct Svm<'a> {
    /// `None`: one row of coefficients for each class (liblinear).
    pairs: Option<Pairs<'a>>,
    classes: Classes,
    coefficients: &'a [f32],
    rho: &'a [f32],
    transform: PostTransform,
}

impl Svm<'_> {
    fn parse(node: &OpNode, columns: Option<usize>) -> Result<Svm<'_>> {
        let classes = Classes::parse(node, "classlabels_ints")?;
        let n = classes.len();
        let (coefficients, rho) = (need_floats(node, "coefficients")?, need_floats(node, "rho")?);
        let list = |name: &str| Ok::<_, Error>(node.attrs.floats(name)?.unwrap_or(&[]));
        let counts = node.attrs.ints("vectors_per_class")?.unwrap_or(&[]);
        let counts = lists::extents("attribute `vectors_per_class`", counts)?;
        let kernel = Kernel::parse(node)?;
        let too_many = || Error::mismatch("vectors_per_class", "too many", "what memory can hold");
        let total = counts.iter().try_fold(0usize, |sum, c| sum.checked_add(*c)).ok_or_else(too_many)?;
        let pairs = if total > 0 {
            super::need_len("vectors_per_class", counts.len(), n)?;
            let vectors = list("support_vectors")?;
            if let Some(columns) = columns {
                need_columns("support_vectors", vectors.len(), total, columns)?;
            }
            need_columns("coefficients", coefficients.len(), n - 1, total)?;
            let probabilities = (list("prob_a")?, list("prob_b")?);
            super::need_len("rho", rho.len(), n * (n - 1) / 2)?;
            super::need_len("prob_b", probabilities.1.len(), probabilities.0.len())?;
            if !probabilities.0.is_empty() {
                super::need_len("prob_a", probabilities.0.len(), n * (n - 1) / 2)?;
            }
            Some(Pairs { kernel, vectors, counts, probabilities })
        } else {
            if let Some(columns) = columns {
                need_columns("coefficients", coefficients.len(), n, columns)?;
            }
            if rho.is_empty() {
                return Err(Error::mismatch("attribute `rho`", "no number", "one"));
            }
            None
        };
        Ok(Svm { pairs, classes, coefficients, rho, transform: PostTransform::parse(node)? })
    }

    /// The number of columns of the scores.
    fn columns(&self) -> usize {
        let n = self.classes.len();
        match &self.pairs {
            Some(p) if p.probabilities.0.is_empty() && n > 2 => n * (n - 1) / 2,
            Some(p) if p.probabilities.0.is_empty() => 2,
            _ => n,
        }
    }

    /// The class of a row and its scores.
    fn row(&self, x: &[f32]) -> (usize, Vec<f32>) {
        let n = self.classes.len();
        let positive = self.coefficients.iter().all(|c| *c >= 0.0);
        let Some(pairs) = &self.pairs else {
            let score =
                |c: usize| Kernel::Linear.of(x, &self.coefficients[c * x.len()..][..x.len()]) + self.rho[0];
            let mut scores: Vec<f32> = (0..n).map(score).collect();
            let best = top(&scores);
            let greatest = scores[best];
            self.transform.apply(&mut scores);
            let second = (positive && greatest >= 0.5) || (!positive && greatest > 0.0);
            return (if n == 2 && second { 1 } else { best }, scores);
        };
        let (mut decisions, votes) = pairs.decide(x, self.coefficients, self.rho);
        // the first class with the most votes
        let class = top(&votes);
        if !pairs.probabilities.0.is_empty() {
            let mut scores = pairs.probabilities(&decisions);
            self.transform.apply(&mut scores);
            return (class, scores);
        }
        if let [decision] = decisions[..] {
            let second =
                if self.transform == PostTransform::None { Second::Opposite } else { Second::Complement };
            let mut scores = vec![0.0; 2];
            self.transform.apply_one(decision, second, &mut scores);
            return (class, scores);
        }
        self.transform.apply(&mut decisions);
        decisions.resize(self.columns(), 0.0);
        (class, decisions)
    }
}

impl Pairs<'_> {
    /// The decision value of each pair of classes and the votes for each class.
    fn decide(&self, x: &[f32], coefficients: &[f32], rho: &[f32]) -> (Vec<f32>, Vec<usize>) {
        let n = self.counts.len();
        let total: usize = self.counts.iter().sum();
        let kernels: Vec<f32> =
            (0..total).map(|v| self.kernel.of(x, &self.vectors[v * x.len()..][..x.len()])).collect();
        let mut starts = vec![0];
        self.counts.iter().for_each(|c| starts.push(starts[starts.len() - 1] + c));
        let (mut decisions, mut votes) = (vec![], vec![0; n]);
        for i in 0..n {
            for j in i + 1..n {
                // row j - 1 holds the coefficients of class i against j, row i those of class j against i
                let part = |row: usize, class: usize, sum: f64| {
                    (starts[class]..starts[class + 1])
                        .fold(sum, |sum, v| sum + f64::from(coefficients[row * total + v] * kernels[v]))
                };
                let sum = part(i, j, part(j - 1, i, 0.0)) + f64::from(rho[decisions.len()]);
                decisions.push(sum as f32);
                votes[if sum > 0.0 { i } else { j }] += 1;
            }
        }
        (decisions, votes)
    }

    /// The probability of each class, coupled from those of the pairs (Wu, Lin and Weng, 2004, method 2).
    fn probabilities(&self, decisions: &[f32]) -> Vec<f32> {
        let n = self.counts.len();
        let mut r = vec![0.0f32; n * n];
        let mut pair = 0;
        for i in 0..n {
            for j in i + 1..n {
                let (a, b) = (self.probabilities.0[pair], self.probabilities.1[pair]);
                let p = (1.0 - logistic(decisions[pair] * a + b)).clamp(1e-7, 1.0 - 1e-7);
                (r[i * n + j], r[j * n + i]) = (p, 1.0 - p);
                pair += 1;
            }
        }
        coupled(&r, n)
    }
}

/// Probabilities `p` of `n` classes that fit those of the pairs best: `r[i][j]` is that of `i` where it is `i` or `j`.
fn coupled(r: &[f32], n: usize) -> Vec<f32> {
    const TURNS: usize = 100;
    let at = |i: usize, j: usize| r[i * n + j];
    let mut q = vec![0.0f32; n * n];
    for i in 0..n {
        for j in (0..n).filter(|j| *j != i) {
            q[i * n + i] += at(j, i) * at(j, i);
            q[i * n + j] = -at(j, i) * at(i, j);
        }
    }
    let mut p = vec![1.0 / n as f32; n];
    let enough = 0.005 / n as f32;
    for _ in 0..TURNS {
        let mut qp: Vec<f32> = (0..n).map(|i| (0..n).fold(0.0, |sum, j| sum + q[i * n + j] * p[j])).collect();
        let mut pqp = (0..n).fold(0.0, |sum, i| sum + p[i] * qp[i]);
        if qp.iter().all(|v| (v - pqp).abs() < enough) {
            break;
        }
        for i in 0..n {
            let diff = (pqp - qp[i]) / q[i * n + i];
            p[i] += diff;
            pqp = (pqp + diff * (diff * q[i * n + i] + 2.0 * qp[i])) / (1.0 + diff) / (1.0 + diff);
            for j in 0..n {
                qp[j] = (qp[j] + diff * q[i * n + j]) / (1.0 + diff);
                p[j] /= 1.0 + diff;
            }
        }
    }
    p
}

impl Operator for SvmClassifier {
    fn schema(&self) -> Schema {
        super::schema("SVMClassifier", 2)
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let (rows, columns) = super::row_dims(cx)?;
        let svm = Svm::parse(cx.node, columns.known())?;
        let labels = TensorType::new(svm.classes.dtype(), [rows.clone()]);
        Ok(vec![labels.into(), TensorType::new(DType::F32, [rows, svm.columns().into()]).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let (rows, columns) = super::rows(x.shape())?;
        let svm = Svm::parse(cx.node, Some(columns))?;
        let x = reals::<f32>(x)?;
        let (mut which, mut scores) = (vec![], vec![]);
        for row in 0..rows {
            cx.check()?;
            let (class, row) = svm.row(&x[row * columns..][..columns]);
            which.push(class);
            scores.extend(row);
        }
        let scores = Tensor::new([rows, svm.columns()], scores)?;
        Ok(vec![svm.classes.labels(&which)?.into(), scores.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StringList;
    use crate::attr::Attrs;
    use crate::ops::testing::eval_ml;

    fn run(attrs: Attrs, x: &[f32], columns: usize) -> Result<(Tensor, Vec<f32>)> {
        let x = Tensor::new([x.len() / columns, columns], x.to_vec())?;
        let y = eval_ml("SVMClassifier", 1, attrs, &[x])?;
        Ok((y[0].as_tensor()?.clone(), y[1].as_tensor()?.as_slice::<f32>()?.into_owned()))
    }

    /// Two classes with one support vector each, at 1 and -1; the decision is x + rho.
    fn two() -> Attrs {
        Attrs::new()
            .with("classlabels_ints", vec![4i64, 6])
            .with("vectors_per_class", vec![1i64, 1])
            .with("support_vectors", vec![1.0f32, -1.0])
            .with("coefficients", vec![0.5f32, -0.5])
            .with("rho", vec![0.25f32])
    }

    #[test]
    fn two_classes_have_one_decision_and_two_columns() {
        let (labels, scores) = run(two(), &[1.0, -1.0], 1).unwrap();
        assert_eq!(labels, Tensor::from_i64s(vec![4, 6]));
        assert_eq!(scores, [-1.25, 1.25, 0.75, -0.75]);
        let (_, scores) = run(two().with("post_transform", "SOFTMAX"), &[1.0], 1).unwrap();
        assert_eq!(scores, [-0.25, 1.25]);
    }

    #[test]
    fn three_classes_vote_in_pairs() {
        let labels: StringList = ["a", "b", "c"].into_iter().collect();
        let attrs = Attrs::new()
            .with("classlabels_strings", labels)
            .with("vectors_per_class", vec![1i64, 1, 1])
            .with("support_vectors", vec![1.0f32, 2.0, 3.0])
            // rows: against the earlier class, against the later
            .with("coefficients", vec![1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0])
            .with("rho", vec![-10.0f32, 0.0, 1.0]);
        // kernels of x = 1: 1, 2, 3; ab = 1*1 + 2*2 - 10, ac = 4*1 + 3*3, bc = 5*2 + 6*3 + 1
        let (labels, scores) = run(attrs.clone(), &[1.0], 1).unwrap();
        assert_eq!(scores, [-5.0, 13.0, 29.0]);
        assert_eq!(labels, Tensor::from_strings([1], ["b"]).unwrap());
        for bad in [
            attrs.clone().with("rho", vec![0.0f32; 2]),
            attrs.clone().with("coefficients", vec![0.0f32; 5]),
            attrs.clone().with("vectors_per_class", vec![1i64, 2]),
            attrs.clone().with("vectors_per_class", vec![1i64, 1, -1]),
            attrs.clone().with("prob_a", vec![0.0f32; 3]),
            attrs.with("support_vectors", vec![0.0f32; 4]),
        ] {
            assert!(run(bad, &[1.0], 1).is_err());
        }
    }

    #[test]
    fn probabilities_of_pairs_are_coupled() {
        // two classes: the probability of the pair itself; decision 1.25
        let attrs = two().with("prob_a", vec![-2.0f32]).with("prob_b", vec![0.5f32]);
        let (labels, scores) = run(attrs, &[1.0], 1).unwrap();
        let p = 1.0 / (1.0 + (-2.0f32).exp());
        assert_eq!(labels, Tensor::from_i64s(vec![4]));
        assert!((scores[0] - p).abs() < 5e-3 && (scores[0] + scores[1] - 1.0).abs() < 1e-5, "{scores:?}");
        // pairs that come from p = [1/2, 1/3, 1/6] give it back
        let p = [3.0f32, 2.0, 1.0];
        let r: Vec<f32> = (0..9).map(|k| p[k / 3] / (p[k / 3] + p[k % 3])).collect();
        let made = coupled(&r, 3);
        assert!(made.iter().zip(p).all(|(m, p)| (m - p / 6.0).abs() < 5e-3), "{made:?}");
    }

    #[test]
    fn without_vectors_each_class_has_its_row() {
        let attrs = Attrs::new()
            .with("classlabels_ints", vec![1i64, 2, 3])
            .with("coefficients", vec![1.0f32, 0.0, 0.0, 1.0, -1.0, -1.0])
            .with("rho", vec![0.5f32]);
        let (labels, scores) = run(attrs.clone(), &[1.0, 3.0, -1.0, -1.0], 2).unwrap();
        assert_eq!(labels, Tensor::from_i64s(vec![2, 3]));
        assert_eq!(scores, [1.5, 3.5, -3.5, -0.5, -0.5, 2.5]);
        let one = Attrs::new()
            .with("classlabels_ints", vec![8i64])
            .with("coefficients", vec![2.0f32, 1.0])
            .with("rho", vec![0.0f32]);
        assert_eq!(run(one, &[1.0, 1.0], 2).unwrap(), (Tensor::from_i64s(vec![8]), vec![3.0]));
        assert!(run(attrs, &[1.0, 2.0, 3.0], 3).is_err());
    }
}
