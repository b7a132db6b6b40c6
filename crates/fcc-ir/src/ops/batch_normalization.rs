//! `BatchNormalization`. <https://onnx.ai/onnx/operators/onnx__BatchNormalization.html>
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::numeric::{Num, Real, with_real};
use crate::{Error, OpNode, Result, Tensor, TensorType, Value};

/// `BatchNormalization`.
pub struct BatchNormalization;

/// The attributes of a `BatchNormalization`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatchNormParams {
    /// Added to the variance.
    pub epsilon: f32,
    /// Share of the old statistics in the running ones.
    pub momentum: f32,
    /// Statistics come from the batch, not from the inputs.
    pub training: bool,
    /// One set of parameters for each channel; otherwise (before opset 9) for each element of `[C, spatial…]`.
    pub spatial: bool,
}

/// Reads the attributes. `n_outputs` decides about training before opset 14: only training has more than one.
pub fn params(node: &OpNode, n_outputs: usize) -> Result<BatchNormParams> {
    let training = if node.version >= 14 {
        node.attrs.flag("training_mode", false)?
    } else {
        n_outputs > 1 && !(node.version < 7 && node.attrs.flag("is_test", false)?)
    };
    Ok(BatchNormParams {
        epsilon: node.attrs.float_or("epsilon", 1e-5)?,
        momentum: node.attrs.float_or("momentum", 0.9)?,
        training,
        spatial: node.version >= 9 || node.attrs.flag("spatial", true)?,
    })
}

/// x seen as `[n, features, inner]`: the parameters have one element for each feature.
fn view(p: BatchNormParams, x: &[usize]) -> (usize, usize, usize) {
    match x {
        [] => (1, 1, 1),
        // a vector is a batch of one channel
        [n] => (*n, 1, 1),
        [n, rest @ ..] if !p.spatial => (*n, rest.iter().product(), 1),
        [n, c, inner @ ..] => (*n, *c, inner.iter().product()),
    }
}

/// Mean and population variance of each feature.
fn statistics<T: Real>(x: &[T], (n, features, inner): (usize, usize, usize)) -> (Vec<T>, Vec<T>) {
    let count = T::from_f64((n * inner) as f64);
    let elems = |f: usize| {
        (0..n).flat_map(move |b| (0..inner).map(move |i| (b * features + f) * inner + i)).map(|i| x[i])
    };
    let mean: Vec<T> = (0..features).map(|f| elems(f).fold(T::ZERO, |s, v| s + v) / count).collect();
    let variance = (0..features)
        .map(|f| elems(f).fold(T::ZERO, |s, v| s + (v - mean[f]) * (v - mean[f])) / count)
        .collect();
    (mean, variance)
}

impl Operator for BatchNormalization {
    fn schema(&self) -> Schema {
        let since = &[1, 6, 7, 9, 14, 15];
        Schema { name: "BatchNormalization", domain: "", since, inputs: (5, 5), outputs: (1, 5) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let p = params(cx.node, cx.n_outputs)?;
        if let Some([_, c, ..]) = cx.shape(0)?.map(Vec::as_slice).filter(|_| p.spatial) {
            (1..5).try_for_each(|i| cx.need_shape(i, std::slice::from_ref(c)))?;
        }
        let mut facts = vec![cx.ty(0)?.clone().into()];
        for input in [3, 4, 3, 4].into_iter().take(cx.n_outputs.saturating_sub(1)) {
            facts.push(TensorType { dtype: cx.dtype(input)?, shape: cx.shape(input)?.cloned() }.into());
        }
        Ok(facts)
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let p = params(cx.node, cx.wanted.len())?;
        let view = view(p, x.shape());
        let features = view.1;
        let params: Vec<&Tensor> = (1..5).map(|i| cx.tensor(i)).collect::<Result<_>>()?;
        for (t, name) in params.iter().zip(["scale", "B", "mean", "var"]) {
            if t.len() != features {
                return Err(Error::mismatch(format!("elements of {name}"), t.len(), features));
            }
        }
        with_real!(x.dtype(), T => {
            let values = T::load(x)?;
            let (scale, bias) = (T::load(params[0])?, T::load(params[1])?);
            let (mean, var) = (T::load(params[2])?, T::load(params[3])?);
            let epsilon = T::of(p.epsilon);
            let normalise = |mean: &[T], var: &[T]| {
                let of = |(i, v): (usize, &T)| {
                    let f = i / view.2 % features;
                    (*v - mean[f]) / (var[f] + epsilon).sqrt() * scale[f] + bias[f]
                };
                T::store(x.dtype(), x.shape(), values.iter().enumerate().map(of).collect())
            };
            if !p.training {
                return Ok(vec![normalise(&mean, &var)?.into()]);
            }
            let (batch_mean, batch_var) = statistics(&values, view);
            let momentum = T::of(p.momentum);
            let running = |old: &[T], new: &[T], like: &Tensor| {
                let of = |(o, n): (&T, &T)| *o * momentum + *n * (T::ONE - momentum);
                T::store(like.dtype(), like.shape(), old.iter().zip(new).map(of).collect())
            };
            let saved = |v: &[T], like: &Tensor| T::store(like.dtype(), like.shape(), v.to_vec());
            let outputs = [
                normalise(&batch_mean, &batch_var)?,
                running(&mean, &batch_mean, params[2])?,
                running(&var, &batch_var, params[3])?,
                saved(&batch_mean, params[2])?,
                saved(&batch_var, params[3])?,
            ];
            Ok(outputs.into_iter().take(cx.wanted.len()).map(Value::from).collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::Tensor;
    use crate::attr::Attrs;
    use crate::ops::testing::eval;

    fn run(version: i64, attrs: Attrs, features: usize, n: usize) -> Vec<Vec<f32>> {
        let x = Tensor::new([2, 1, 2], vec![1f32, 2.0, 3.0, 6.0]).unwrap();
        let per_feature = |v: f32| Some(Tensor::new([features], vec![v; features]).unwrap());
        let inputs = [Some(x), per_feature(2.0), per_feature(1.0), per_feature(1.0), per_feature(4.0)];
        let outputs = eval("BatchNormalization", version, attrs.with("epsilon", 0f32), &inputs, n).unwrap();
        outputs.iter().map(|o| o.as_tensor().unwrap().as_slice::<f32>().unwrap().to_vec()).collect()
    }

    #[test]
    fn statistics_come_from_the_inputs_unless_training() {
        assert_eq!(run(15, Attrs::new(), 1, 1), [[1.0, 2.0, 3.0, 6.0]]);
        assert_eq!(run(7, Attrs::new().with("spatial", 0i64), 2, 1), [[1.0, 2.0, 3.0, 6.0]]);
    }

    #[test]
    fn training_gives_running_statistics() {
        // mean 3, variance 3.5; momentum 0.9
        for (version, n) in [(15, 3), (9, 5)] {
            // before opset 14 more than one output says so
            let mode = Attrs::new().with("training_mode", 1i64);
            let attrs = if version >= 14 { mode } else { Attrs::new() };
            let outputs = run(version, attrs, 1, n);
            assert_eq!(outputs.len(), n);
            assert!((outputs[0][0] - (1.0 + 2.0 * -2.0 / 3.5f32.sqrt())).abs() < 1e-6);
            assert!((outputs[1][0] - 1.2).abs() < 1e-6 && (outputs[2][0] - 3.95).abs() < 1e-6);
        }
    }
}
