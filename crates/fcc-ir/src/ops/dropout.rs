//! `Dropout`. <https://onnx.ai/onnx/operators/onnx__Dropout.html>
use crate::convert;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::numeric::{Num, with_real};
use crate::random::Random;
use crate::{DType, Error, OpNode, Result, Tensor, TensorType, Value};

/// `Dropout`.
pub struct Dropout;

/// What a `Dropout` does.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DropoutParams {
    /// Share of elements that become zero in training.
    pub ratio: f64,
    /// Whether it drops anything; otherwise it is the identity.
    pub training: bool,
}

/// From the attributes (before opset 12) or the inputs `ratio` and `training_mode`.
pub fn params(node: &OpNode, ratio: Option<&Tensor>, training: Option<&Tensor>) -> Result<DropoutParams> {
    if node.version < 12 {
        // until version 6 `is_test` said which; later ones have no training mode
        let training = node.version < 7 && !node.attrs.flag("is_test", false)?;
        return Ok(DropoutParams { ratio: f64::from(node.attrs.float_or("ratio", 0.5)?), training });
    }
    let one = |t: &Tensor| -> Result<f64> {
        match convert::to_f64s(t)?[..] {
            [v] => Ok(v),
            _ => Err(Error::mismatch("shape of an input", format!("{:?}", t.shape()), "a scalar")),
        }
    };
    let ratio = ratio.map(one).transpose()?.unwrap_or(0.5);
    if !(0.0..1.0).contains(&ratio) {
        return Err(Error::mismatch("ratio", ratio, "0 up to but not 1"));
    }
    Ok(DropoutParams { ratio, training: training.map(one).transpose()?.unwrap_or(0.0) != 0.0 })
}

/// Zeroes elements with probability `ratio` and scales the others by `1 / (1 - ratio)`. ONNX leaves the generator
/// open: fcc's is seeded with the attribute `seed`, or with 0, so that runs repeat.
fn drop_elements(cx: &EvalCtx<'_>, x: &Tensor, ratio: f64) -> Result<Vec<Value>> {
    let mut random = Random::new(cx.node.attrs.int_or("seed", 0)? as u64);
    let kept: Vec<bool> = (0..x.len()).map(|_| random.unit() >= ratio).collect();
    with_real!(x.dtype(), T => {
        let scale = T::from_f64(1.0 / (1.0 - ratio));
        let y = T::load(x)?.iter().zip(&kept).map(|(v, k)| if *k { *v * scale } else { T::ZERO }).collect();
        let mask = if cx.version() < 10 {
            T::store(x.dtype(), x.shape(), kept.iter().map(|k| if *k { T::ONE } else { T::ZERO }).collect())?
        } else {
            Tensor::from_bools(x.shape(), kept.iter().copied())?
        };
        let outputs = [T::store(x.dtype(), x.shape(), y)?, mask];
        Ok(outputs.into_iter().take(cx.wanted.len()).map(Value::from).collect())
    })
}

impl Operator for Dropout {
    fn schema(&self) -> Schema {
        let since = &[1, 6, 7, 10, 12, 13, 22];
        Schema { name: "Dropout", domain: "", since, inputs: (1, 3), outputs: (1, 2) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.need_shape(1, &[])?;
        cx.need_shape(2, &[])?;
        // what comes with the run is looked at there
        params(cx.node, cx.value(1), cx.value(2))?;
        // the mask has the data's type before opset 10
        let dtype = if cx.version() < 10 { cx.dtype(0)? } else { DType::Bool };
        let mask = TensorType { dtype, shape: cx.shape(0)?.cloned() };
        Ok([cx.ty(0)?.clone(), mask.into()].into_iter().take(cx.n_outputs).map(Fact::from).collect())
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let p = params(cx.node, cx.opt_tensor(1)?, cx.opt_tensor(2)?)?;
        if p.training && p.ratio != 0.0 {
            return drop_elements(cx, x, p.ratio);
        }
        let mut outputs = vec![x.clone().into()];
        if cx.wanted.len() > 1 {
            let mask = if cx.version() < 10 {
                with_real!(x.dtype(), T => T::store(x.dtype(), x.shape(), vec![T::ONE; x.len()])?)
            } else {
                Tensor::from_bools(x.shape(), std::iter::repeat_n(true, x.len()))?
            };
            outputs.push(mask.into());
        }
        Ok(outputs)
    }
}

#[cfg(test)]
mod tests {
    use crate::Tensor;
    use crate::attr::Attrs;
    use crate::ops::testing::eval;

    fn run(version: i64, attrs: Attrs, more: &[Option<Tensor>]) -> Vec<f32> {
        let x = Some(Tensor::new([1000], vec![1f32; 1000]).unwrap());
        let inputs = [&[x], more].concat();
        let outputs = eval("Dropout", version, attrs, &inputs, 2).unwrap();
        outputs[0].as_tensor().unwrap().as_slice::<f32>().unwrap().to_vec()
    }

    #[test]
    fn only_training_drops() {
        let ratio = Some(Tensor::scalar(0.75f32));
        let training = Tensor::from_bools(vec![], [true]).unwrap();
        assert_eq!(run(13, Attrs::new(), std::slice::from_ref(&ratio)), [1.0; 1000]);
        assert_eq!(run(7, Attrs::new(), &[]), [1.0; 1000]);
        assert_eq!(run(6, Attrs::new().with("is_test", 1i64), &[]), [1.0; 1000]);
        let y = run(13, Attrs::new().with("seed", 7i64), &[ratio, Some(training)]);
        let kept = y.iter().filter(|v| **v == 4.0).count();
        assert!((200..300).contains(&kept) && y.iter().all(|v| [0.0, 4.0].contains(v)), "{kept} kept");
    }
}
