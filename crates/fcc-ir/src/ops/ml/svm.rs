//! `SVMRegressor`, and what it shares with `SVMClassifier`: kernels against support vectors.
//! <https://onnx.ai/onnx/operators/onnx_aionnxml_SVMRegressor.html>
use super::post_transform::PostTransform;
use super::real::reals;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{DType, Dim, Error, OpNode, Result, Tensor, TensorType, Value};

/// `SVMRegressor`.
pub struct SvmRegressor;

/// How a row is compared with a support vector.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kernel {
    /// `x·v`.
    Linear,
    /// `(gamma * x·v + coef0) ^ degree`.
    Poly {
        /// The factor.
        gamma: f32,
        /// What is added.
        coef0: f32,
        /// The exponent.
        degree: f32,
    },
    /// `exp(-gamma * |x - v|²)`.
    Rbf {
        /// The factor.
        gamma: f32,
    },
    /// `tanh(gamma * x·v + coef0)`.
    Sigmoid {
        /// The factor.
        gamma: f32,
        /// What is added.
        coef0: f32,
    },
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).fold(0.0, |sum, (a, b)| sum + a * b)
}

impl Kernel {
    /// The attributes `kernel_type` and `kernel_params`.
    pub fn parse(node: &OpNode) -> Result<Kernel> {
        let [gamma, coef0, degree] = match node.attrs.floats("kernel_params")?.unwrap_or(&[]) {
            [] => [0.0; 3],
            [gamma, coef0, degree] => [*gamma, *coef0, *degree],
            other => return Err(Error::mismatch("length of `kernel_params`", other.len(), 3)),
        };
        Ok(match node.attrs.str_or("kernel_type", "LINEAR")? {
            "LINEAR" => Kernel::Linear,
            "POLY" => Kernel::Poly { gamma, coef0, degree },
            "RBF" => Kernel::Rbf { gamma },
            "SIGMOID" => Kernel::Sigmoid { gamma, coef0 },
            other => {
                return Err(Error::mismatch(
                    "attribute `kernel_type`",
                    other,
                    "LINEAR, POLY, RBF or SIGMOID",
                ));
            }
        })
    }
    /// The kernel of a row and a vector of as many numbers.
    pub fn of(self, x: &[f32], v: &[f32]) -> f32 {
        match self {
            Kernel::Linear => dot(x, v),
            Kernel::Poly { gamma, coef0, degree } => (gamma * dot(x, v) + coef0).powf(degree),
            Kernel::Rbf { gamma } => {
                (-gamma * x.iter().zip(v).fold(0.0, |sum, (x, v)| sum + (x - v) * (x - v))).exp()
            }
            Kernel::Sigmoid { gamma, coef0 } => (gamma * dot(x, v) + coef0).tanh(),
        }
    }
}

/// A required list of floats.
pub(super) fn need_floats<'a>(node: &'a OpNode, name: &str) -> Result<&'a [f32]> {
    node.attrs.floats(name)?.ok_or_else(|| Error::mismatch(format!("attribute `{name}`"), "none", "numbers"))
}

/// Errors unless rows have as many columns as `list` has numbers for each of `vectors`.
pub(super) fn need_columns(what: &str, list: usize, vectors: usize, columns: usize) -> Result<()> {
    if vectors.checked_mul(columns) == Some(list) {
        return Ok(());
    }
    Err(Error::mismatch(format!("length of `{what}`"), list, format!("{vectors} times {columns} columns")))
}

/// The attributes of an `SVMRegressor`.
struct Regressor<'a> {
    /// Of support vectors; `None` where the coefficients are the features' own (liblinear).
    supports: Option<(&'a [f32], usize, Kernel)>,
    coefficients: &'a [f32],
    rho: f32,
    one_class: bool,
    transform: PostTransform,
}

impl Regressor<'_> {
    fn parse(node: &OpNode, columns: Option<usize>) -> Result<Regressor<'_>> {
        let coefficients = need_floats(node, "coefficients")?;
        let n = node.attrs.int_or("n_supports", 0)?;
        let n = usize::try_from(n).map_err(|_| Error::mismatch("attribute `n_supports`", n, "at least 0"))?;
        let kernel = Kernel::parse(node)?;
        let supports = if n > 0 {
            Some((node.attrs.floats("support_vectors")?.unwrap_or(&[]), n, kernel))
        } else {
            None
        };
        match (supports, columns) {
            (Some((vectors, n, _)), columns) => {
                super::need_len("coefficients", coefficients.len(), n)?;
                if let Some(columns) = columns {
                    need_columns("support_vectors", vectors.len(), n, columns)?;
                }
            }
            (None, Some(columns)) => need_columns("coefficients", coefficients.len(), 1, columns)?,
            (None, None) => {}
        }
        let rho = need_floats(node, "rho")?.first().copied();
        Ok(Regressor {
            supports,
            coefficients,
            rho: rho.ok_or_else(|| Error::mismatch("attribute `rho`", "no number", "one"))?,
            one_class: node.attrs.flag("one_class", false)?,
            transform: PostTransform::parse(node)?,
        })
    }
    fn row(&self, x: &[f32]) -> f32 {
        let sum = match self.supports {
            None => dot(x, self.coefficients),
            Some((vectors, n, kernel)) => {
                let kernel = |i: usize| kernel.of(x, &vectors[i * x.len()..][..x.len()]);
                (0..n).fold(0.0, |sum, i| sum + self.coefficients[i] * kernel(i))
            }
        };
        let sum = sum + self.rho;
        let y = if !self.one_class {
            sum
        } else if sum > 0.0 {
            1.0
        } else {
            -1.0
        };
        let mut y = [y];
        self.transform.apply(&mut y);
        y[0]
    }
}

impl Operator for SvmRegressor {
    fn schema(&self) -> Schema {
        super::schema("SVMRegressor", 1)
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let (rows, columns) = super::row_dims(cx)?;
        Regressor::parse(cx.node, columns.known())?;
        Ok(vec![TensorType::new(DType::F32, [rows, Dim::Known(1)]).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let (rows, columns) = super::rows(x.shape())?;
        let svm = Regressor::parse(cx.node, Some(columns))?;
        let x = reals::<f32>(x)?;
        let mut y = vec![];
        for row in 0..rows {
            cx.check()?;
            y.push(svm.row(&x[row * columns..][..columns]));
        }
        Ok(vec![Tensor::new([rows, 1], y)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::eval_ml;

    #[test]
    fn each_kernel_by_hand() {
        let attrs = |kind: &str, params: &[f32]| {
            let attrs = Attrs::new().with("kernel_type", kind).with("kernel_params", params.to_vec());
            let attrs = attrs.with("n_supports", 2i64).with("rho", vec![0.5f32]);
            attrs
                .with("support_vectors", vec![1.0f32, 0.0, 0.0, 2.0])
                .with("coefficients", vec![2.0f32, -1.0])
        };
        let run = |attrs: Attrs, x: &[i64]| {
            let x = Tensor::new([1, x.len()], x.to_vec()).unwrap();
            let y = eval_ml("SVMRegressor", 1, attrs, &[x])?;
            Ok::<f32, Error>(y[0].as_tensor()?.as_slice::<f32>()?[0])
        };
        // dot products 3 and 2
        assert_eq!(run(attrs("LINEAR", &[]), &[3, 1]).unwrap(), 6.0 - 2.0 + 0.5);
        assert_eq!(run(attrs("POLY", &[2.0, 1.0, 2.0]), &[3, 1]).unwrap(), 2.0 * 49.0 - 25.0 + 0.5);
        // squared distances 5 and 10
        let rbf = 2.0 * (-0.5f32).exp() - (-1f32).exp() + 0.5;
        assert!((run(attrs("RBF", &[0.1, 0.0, 0.0]), &[3, 1]).unwrap() - rbf).abs() < 1e-6);
        let sigmoid = 2.0 * 1.6f32.tanh() - 1.1f32.tanh() + 0.5;
        assert!((run(attrs("SIGMOID", &[0.5, 0.1, 0.0]), &[3, 1]).unwrap() - sigmoid).abs() < 1e-6);
        let one = attrs("LINEAR", &[]).with("one_class", 1i64);
        assert_eq!(run(one.clone(), &[3, 1]).unwrap(), 1.0);
        assert_eq!(run(one, &[-3, 1]).unwrap(), -1.0);
        let linear = Attrs::new().with("coefficients", vec![2.0f32, 3.0]).with("rho", vec![1.0f32]);
        assert_eq!(run(linear.clone(), &[3, 1]).unwrap(), 10.0);
        let good = || attrs("LINEAR", &[]);
        for bad in [
            attrs("QUAD", &[]),
            attrs("RBF", &[1.0]),
            good().with("n_supports", 3i64),
            good().with("n_supports", -1i64),
            good().with("coefficients", vec![1.0f32]),
            good().with("rho", Vec::<f32>::new()),
            good().with("support_vectors", vec![1.0f32; 3]),
            linear.with("coefficients", vec![1.0f32]),
        ] {
            assert!(run(bad, &[3, 1]).is_err());
        }
    }
}
