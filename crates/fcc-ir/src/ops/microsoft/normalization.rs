//! `SimplifiedLayerNormalization`, `SkipLayerNormalization`, `SkipSimplifiedLayerNormalization`. Rows are normalised in
//! f32 (f64 where x is) and rounded once.
use super::{DOMAIN, Shapes, epsilon, wrong_shape};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::broadcast;
use crate::ops::layer_normalization::{params, reduced};
use crate::ops::numeric::{Num, Real, with_real};
use crate::{DType, Dim, Error, Result, Tensor, TensorType, Value};

/// `SimplifiedLayerNormalization`: `x / sqrt(mean(x * x) + epsilon) * scale`. ONNX Runtime registers it in `ai.onnx`.
pub struct SimplifiedLayerNormalization {
    domain: &'static str,
}
/// Of `ai.onnx`, where ONNX Runtime has it.
pub static SIMPLIFIED: SimplifiedLayerNormalization = SimplifiedLayerNormalization { domain: "" };
/// Of `com.microsoft`, where some exporters write it.
pub static SIMPLIFIED_OF_MICROSOFT: SimplifiedLayerNormalization =
    SimplifiedLayerNormalization { domain: DOMAIN };

/// A normalisation of `x + skip + bias`.
pub struct SkipNormalization {
    name: &'static str,
    /// Whether the mean is taken off, and there is a beta.
    centred: bool,
}
/// `SkipLayerNormalization`: inputs x, skip, gamma, beta, bias.
pub static SKIP_LAYER: SkipNormalization =
    SkipNormalization { name: "SkipLayerNormalization", centred: true };
/// `SkipSimplifiedLayerNormalization`: inputs x, skip, gamma, bias.
pub static SKIP_SIMPLIFIED: SkipNormalization =
    SkipNormalization { name: "SkipSimplifiedLayerNormalization", centred: false };

/// Normalises a row in place; its mean (0 if it is not taken off) and `1 / sqrt(variance + epsilon)`.
pub(super) fn normalize<T: Real>(row: &mut [T], centred: bool, epsilon: f32) -> (T, T) {
    let n = T::from_f64(row.len() as f64);
    let mean = if centred { row.iter().fold(T::ZERO, |s, v| s + *v) / n } else { T::ZERO };
    let variance = row.iter().fold(T::ZERO, |s, v| s + (*v - mean) * (*v - mean)) / n;
    let inverse = T::ONE / (variance + T::of(epsilon)).sqrt();
    row.iter_mut().for_each(|v| *v = (*v - mean) * inverse);
    (mean, inverse)
}

impl Operator for SimplifiedLayerNormalization {
    fn schema(&self) -> Schema {
        Schema {
            name: "SimplifiedLayerNormalization",
            domain: self.domain,
            since: &[1],
            inputs: (2, 2),
            outputs: (1, 2),
        }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let y = TensorType { dtype: cx.dtype(1)?, shape: cx.shape(0)?.cloned() };
        let statistic = match cx.shape(0)? {
            Some(x) => {
                let p = params(cx.node, x.len())?;
                if let (Some(x), Some(scale)) =
                    (cx.tensor(0)?.and_then(TensorType::known_shape), cx.shape(1)?)
                    && let Some(scale) = scale.iter().map(Dim::known).collect::<Option<Vec<usize>>>()
                {
                    fits(&scale, &x)?;
                }
                TensorType::new(DType::F32, reduced(x, p.axis, Dim::Known(1)))
            }
            None => TensorType::unranked(DType::F32),
        };
        Ok([y, statistic].into_iter().take(cx.n_outputs).map(Fact::from).collect())
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (x, scale) = (cx.tensor(0)?, cx.tensor(1)?);
        let p = params(cx.node, x.rank())?;
        fits(scale.shape(), x.shape())?;
        let len: usize = x.shape()[p.axis..].iter().product();
        with_real!(x.dtype(), T => {
            let mut y = T::load(x)?.into_owned();
            let mut inverses = vec![];
            for row in y.chunks_mut(len.max(1)) {
                inverses.push(normalize(row, false, p.epsilon).1);
            }
            let y = broadcast::map2((&y, x.shape()), (&T::load(scale)?, scale.shape()), x.shape(), |v, s| v * s);
            let y = T::store(scale.dtype(), x.shape(), y)?;
            let mut outputs = vec![y.into()];
            if cx.wants(1) {
                outputs.push(statistic(reduced(x.shape(), p.axis, 1), inverses)?);
            }
            Ok(outputs)
        })
    }
}

/// One number for each row; zeros where rows have no elements.
fn statistic<T: Real>(shape: Vec<usize>, mut values: Vec<T>) -> Result<Value> {
    values.resize(crate::tensor::elem_count(&shape)?, T::ZERO);
    Ok(T::store(DType::F32, shape, values)?.into())
}

/// Errors unless a scale broadcasts to x.
fn fits(scale: &[usize], x: &[usize]) -> Result<()> {
    match broadcast::shape(&[x, scale]) {
        Ok(shape) if shape == x => Ok(()),
        _ => Err(wrong_shape("scale", scale, format!("one that broadcasts to {x:?}"))),
    }
}

impl SkipNormalization {
    /// The slots of beta and bias.
    fn slots(&self) -> (Option<usize>, usize) {
        if self.centred { (Some(3), 4) } else { (None, 3) }
    }
    /// Errors where shapes do not fit.
    fn check(&self, shapes: &Shapes) -> Result<()> {
        let (x, skip) = (shapes.need(0, "input")?, shapes.need(1, "skip")?);
        let hidden = match *x {
            [.., hidden] if matches!(x.len(), 2 | 3) => hidden,
            _ => return Err(Error::mismatch("rank of `input`", x.len(), "2 or 3")),
        };
        let rows = &x[x.len() - 2..];
        // one skip for the whole batch may come with or without its axis
        if !(skip == x || skip == rows || matches!(skip, [1, tail @ ..] if tail == rows && x.len() == 3)) {
            return Err(wrong_shape("skip", skip, format!("{x:?}, or {rows:?} for each of the batch")));
        }
        shapes.need(2, "gamma")?;
        let (beta, bias) = self.slots();
        for (i, name) in [(Some(2), "gamma"), (beta, "beta"), (Some(bias), "bias")] {
            i.map_or(Ok(()), |i| shapes.fit(i, name, &[hidden]))?;
        }
        Ok(())
    }
}

impl Operator for SkipNormalization {
    fn schema(&self) -> Schema {
        let inputs = (3, if self.centred { 5 } else { 4 });
        Schema { name: self.name, domain: DOMAIN, since: &[1], inputs, outputs: (1, 4) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.need_one_dtype(5)?;
        epsilon(cx.node, 1e-12)?;
        if let Some(shapes) = Shapes::fixed(cx)? {
            self.check(&shapes)?;
        }
        let x = cx.ty(0)?.clone();
        let statistic = match cx.shape(0)? {
            Some(s) => TensorType::new(DType::F32, reduced(s, s.len().saturating_sub(1), Dim::Known(1))),
            None => TensorType::unranked(DType::F32),
        };
        let facts = [x.clone().into(), Fact::from(statistic.clone()), statistic.into(), x.into()];
        Ok(facts.into_iter().take(cx.n_outputs).collect())
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        cx.need_one_dtype(5)?;
        self.check(&Shapes::of(cx)?)?;
        let (x, skip, gamma) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        let (beta, bias) = self.slots();
        let epsilon = epsilon(cx.node, 1e-12)?;
        with_real!(x.dtype(), T => {
            let load = |t: Option<&Tensor>| t.map(|t| Ok::<_, Error>(T::load(t)?.into_owned())).transpose();
            let beta = load(beta.map_or(Ok(None), |i| cx.opt_tensor(i))?)?;
            let bias = load(cx.opt_tensor(bias)?)?;
            let (skip, gamma) = (T::load(skip)?, T::load(gamma)?);
            let mut sum = T::load(x)?.into_owned();
            for (v, s) in sum.iter_mut().zip(skip.iter().cycle()) {
                *v += *s;
            }
            if let Some(bias) = &bias {
                sum.iter_mut().zip(bias.iter().cycle()).for_each(|(v, b)| *v += *b);
            }
            let mut y = sum.clone();
            let (mut means, mut inverses) = (vec![], vec![]);
            for row in y.chunks_mut(gamma.len().max(1)) {
                let (mean, inverse) = normalize(row, self.centred, epsilon);
                means.push(mean);
                inverses.push(inverse);
                row.iter_mut().zip(&*gamma).for_each(|(v, g)| *v *= *g);
                if let Some(beta) = &beta {
                    row.iter_mut().zip(beta).for_each(|(v, b)| *v += *b);
                }
            }
            let mut outputs = vec![T::store(x.dtype(), x.shape(), y)?.into()];
            if cx.wanted.len() > 1 {
                let shape = reduced(x.shape(), x.rank() - 1, 1);
                outputs.push(statistic(shape.clone(), means)?);
                outputs.push(statistic(shape, inverses)?);
                outputs.push(T::store(x.dtype(), x.shape(), sum)?.into());
            }
            outputs.truncate(cx.wanted.len());
            Ok(outputs)
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::attr::Attrs;
    use crate::ops::testing::{eval_in, infer_in};
    use crate::{DType, Tensor, ValueType};

    fn t(shape: &[usize], v: &[f32]) -> Option<Tensor> {
        Some(Tensor::new(shape, v.to_vec()).unwrap())
    }
    fn values(op: &str, domain: &str, inputs: &[Option<Tensor>], n: usize) -> Vec<Vec<f32>> {
        let attrs = Attrs::new().with("epsilon", 0f32);
        let outputs = eval_in(domain, op, attrs, inputs, n).unwrap();
        outputs.iter().map(|o| o.as_tensor().unwrap().as_slice::<f32>().unwrap().to_vec()).collect()
    }

    #[test]
    fn the_sum_of_input_skip_and_bias_is_normalised_and_given() {
        let x = t(&[2, 1, 2], &[1.0, 2.0, 0.0, 4.0]);
        let (skip, gamma, beta, bias) =
            (t(&[1, 2], &[-1.0, 1.0]), t(&[2], &[2.0, 3.0]), t(&[2], &[10.0, 20.0]), t(&[2], &[1.0, 0.0]));
        // sums [1, 3] and [0, 5]: means 2 and 2.5, deviations 1 and 2.5
        let got = values(
            "SkipLayerNormalization",
            "com.microsoft",
            &[x.clone(), skip, gamma.clone(), beta, bias],
            4,
        );
        let want: [&[f32]; 4] = [&[8.0, 23.0, 8.0, 23.0], &[2.0, 2.5], &[1.0, 0.4], &[1.0, 3.0, 0.0, 5.0]];
        assert_eq!(got, want);
        // [3, 4]: mean square 12.5
        let (x, skip) = (t(&[1, 2], &[1.0, 4.0]), t(&[1, 2], &[2.0, 0.0]));
        let got = values("SkipSimplifiedLayerNormalization", "com.microsoft", &[x, skip, gamma], 1);
        let root = 12.5f32.sqrt();
        assert!((got[0][0] - 6.0 / root).abs() < 1e-6 && (got[0][1] - 12.0 / root).abs() < 1e-6, "{got:?}");
    }

    #[test]
    fn the_simplified_form_is_in_both_domains() {
        let inputs = [t(&[2, 2], &[2.0, 2.0, -4.0, 4.0]), t(&[2], &[1.0, 3.0])];
        for domain in ["", "com.microsoft"] {
            let got = values("SimplifiedLayerNormalization", domain, &inputs, 2);
            assert_eq!(got, [vec![1.0, 3.0, -1.0, 3.0], vec![0.5, 0.25]]);
        }
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused_before_and_in_the_run() {
        let gamma = t(&[2], &[1.0; 2]);
        let x = t(&[2, 3, 2], &[0.0; 12]);
        let bad = [
            [x.clone(), t(&[2], &[0.0; 2]), gamma.clone()],
            [x.clone(), t(&[2, 1, 2], &[0.0; 4]), gamma.clone()],
            [x.clone(), x.clone(), t(&[3], &[1.0; 3])],
            [t(&[1, 2, 3, 2], &[0.0; 12]), x.clone(), gamma.clone()],
        ];
        for inputs in bad {
            let facts: Vec<_> =
                inputs.iter().map(|t| t.as_ref().map(|t| ValueType::from(t.tensor_type()).into())).collect();
            let run = |op: &str| {
                (
                    eval_in("com.microsoft", op, Attrs::new(), &inputs, 1),
                    infer_in("com.microsoft", op, Attrs::new(), &facts, 1),
                )
            };
            for op in ["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"] {
                let (ran, inferred) = run(op);
                assert!(ran.is_err() && inferred.is_err(), "{inputs:?}");
            }
        }
        let half = x.as_ref().map(|x| crate::convert::cast(x, DType::F16, Default::default()).unwrap());
        let mixed = [x, half, gamma];
        assert!(eval_in("com.microsoft", "SkipLayerNormalization", Attrs::new(), &mixed, 1).is_err());
    }
}
