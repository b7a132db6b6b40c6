//! `post_transform`: what becomes of the scores of one row.
//!
//! ONNX names the transforms and gives no formulas; these are ONNX Runtime's (`ml_common.h`).
use super::real::Real;
use crate::{Error, OpNode, Result};

/// A transform of the scores of one row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PostTransform {
    /// The scores as they are.
    None,
    /// `exp(x - max) / Σ`.
    Softmax,
    /// `1 / (1 + exp(-x))`.
    Logistic,
    /// Softmax over the scores that are not (nearly) zero; the others stay (nearly) zero.
    SoftmaxZero,
    /// The quantile function of the normal distribution, by Winitzki's approximation of the inverse error function.
    Probit,
}

/// How two columns are made of the one score of a classifier of two classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Second {
    /// They are not: there is one column.
    Absent,
    /// `[1 - s, s]`: the score is a probability.
    Complement,
    /// `[-s, s]`: the score is a margin.
    Opposite,
}

/// Scores of this size count as zero for SOFTMAX_ZERO.
const ZERO: f64 = 1e-7_f32 as f64;

impl PostTransform {
    /// The attribute `post_transform` by name, NONE if it is absent.
    pub fn parse(node: &OpNode) -> Result<PostTransform> {
        Ok(match node.attrs.str_or("post_transform", "NONE")? {
            "NONE" => PostTransform::None,
            "SOFTMAX" => PostTransform::Softmax,
            "LOGISTIC" => PostTransform::Logistic,
            "SOFTMAX_ZERO" => PostTransform::SoftmaxZero,
            "PROBIT" => PostTransform::Probit,
            other => {
                let wanted = "NONE, SOFTMAX, LOGISTIC, SOFTMAX_ZERO or PROBIT";
                return Err(Error::mismatch("attribute `post_transform`", other, wanted));
            }
        })
    }
    /// The attribute `post_transform` of `TreeEnsemble`, a number.
    pub fn of_code(code: i64) -> Result<PostTransform> {
        Ok(match code {
            0 => PostTransform::None,
            1 => PostTransform::Softmax,
            2 => PostTransform::Logistic,
            3 => PostTransform::SoftmaxZero,
            4 => PostTransform::Probit,
            other => return Err(Error::mismatch("attribute `post_transform`", other, "0 to 4")),
        })
    }
    /// Transforms the scores of one row in place.
    pub fn apply<T: Real>(self, scores: &mut [T]) {
        let top = || {
            scores.iter().copied().fold(T::from_f64(f64::from(f32::MIN)), |m, v| if v > m { v } else { m })
        };
        match self {
            PostTransform::None => {}
            PostTransform::Logistic => scores.iter_mut().for_each(|s| *s = logistic(*s)),
            PostTransform::Probit => scores.iter_mut().for_each(|s| *s = probit(*s)),
            PostTransform::Softmax => {
                let top = top();
                scores.iter_mut().for_each(|s| *s = (*s - top).exp());
                let sum = scores.iter().fold(T::default(), |sum, s| sum + *s);
                scores.iter_mut().for_each(|s| *s /= sum);
            }
            PostTransform::SoftmaxZero => {
                let (top, mut sum) = (top(), T::default());
                let shrink = (-top).exp();
                for s in scores.iter_mut() {
                    if s.abs() > T::from_f64(ZERO) {
                        *s = (*s - top).exp();
                        sum += *s;
                    } else {
                        *s = *s * shrink;
                    }
                }
                scores.iter_mut().for_each(|s| *s /= sum);
            }
        }
    }
    /// The one or two columns that a classifier gives for its only score, in `out`. Two columns are `[f(-s), f(s)]` with
    /// LOGISTIC and PROBIT (of which ONNX Runtime writes one column only); the other transforms do nothing to them.
    pub fn apply_one<T: Real>(self, score: T, second: Second, out: &mut [T]) {
        let one = T::from_f64(1.0);
        match (second, out) {
            (Second::Absent, out) => {
                out.fill(score);
                self.apply(out);
            }
            // probit(1 - s) = -probit(s)
            (_, [low, high]) if self == PostTransform::Probit => {
                (*low, *high) = (-probit(score), probit(score))
            }
            (_, [low, high]) if self == PostTransform::Logistic => {
                (*low, *high) = (logistic(-score), logistic(score));
            }
            (Second::Complement, [low, high]) => (*low, *high) = (one - score, score),
            (Second::Opposite, [low, high]) => (*low, *high) = (-score, score),
            (_, out) => out.fill(score),
        }
    }
}

/// `1 / (1 + exp(-x))`, without overflow.
pub fn logistic<T: Real>(x: T) -> T {
    let one = T::from_f64(1.0);
    let v = one / (one + (-x.abs()).exp());
    if x < T::default() { one - v } else { v }
}

/// `sqrt(2) * erfinv(2x - 1)` with Winitzki's approximation.
fn probit<T: Real>(x: T) -> T {
    let c = T::from_f64;
    let x = c(2.0) * x - c(1.0);
    let sign = if x < T::default() { c(-1.0) } else { c(1.0) };
    let log = ((c(1.0) - x) * (c(1.0) + x)).ln();
    let v = c(2.0) / (c(f64::from(std::f32::consts::PI)) * c(0.147)) + c(0.5) * log;
    let v2 = c(1.0) / c(0.147) * log;
    c(std::f64::consts::SQRT_2) * (sign * (-v + (v * v - v2).sqrt()).sqrt())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(t: PostTransform, scores: &[f64]) -> Vec<f64> {
        let mut scores = scores.to_vec();
        t.apply(&mut scores);
        scores
    }

    fn close(a: &[f64], b: &[f64]) {
        assert!(a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 2e-3), "{a:?} {b:?}");
    }

    #[test]
    fn each_transform_by_hand() {
        use PostTransform::*;
        assert_eq!(applied(None, &[1.0, -2.0]), [1.0, -2.0]);
        close(&applied(Logistic, &[0.0, 2.0, -2.0, 900.0, -900.0]), &[0.5, 0.8808, 0.1192, 1.0, 0.0]);
        close(&applied(Softmax, &[1.0, 3.0]), &[0.1192, 0.8808]);
        // a zero takes no part in the sum and stays zero
        close(&applied(SoftmaxZero, &[1.0, 0.0, 3.0]), &[0.1192, 0.0, 0.8808]);
        close(&applied(Probit, &[0.5, 0.975, 0.025]), &[0.0, 1.96, -1.96]);
    }

    #[test]
    fn one_score_becomes_two_columns() {
        let two = |t: PostTransform, second, score| {
            let mut out = [f64::NAN; 2];
            t.apply_one(score, second, &mut out);
            out
        };
        assert_eq!(two(PostTransform::None, Second::Complement, 0.25), [0.75, 0.25]);
        assert_eq!(two(PostTransform::Softmax, Second::Complement, 0.25), [0.75, 0.25]);
        close(&two(PostTransform::Logistic, Second::Complement, 2.0), &[0.1192, 0.8808]);
        assert_eq!(two(PostTransform::Softmax, Second::Opposite, 0.25), [-0.25, 0.25]);
        close(&two(PostTransform::Logistic, Second::Opposite, 2.0), &[0.1192, 0.8808]);
        close(&two(PostTransform::Probit, Second::Complement, 0.975), &[-1.96, 1.96]);
        let mut one = [0.0];
        PostTransform::Logistic.apply_one(0.0, Second::Absent, &mut one);
        assert_eq!(one, [0.5]);
    }
}
