//! `FastGelu`, `BiasGelu`, `QuickGelu`: activations of `x + bias`.
use super::{DOMAIN, wrong_shape};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::activation::{gelu, swish};
use crate::ops::numeric::{Num, with_real};
use crate::{Error, Result, Value};

/// An activation of `x + bias`; the bias lies along the last axis.
pub struct BiasActivation {
    name: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Fast,
    Bias,
    Quick,
}

/// `FastGelu`: `Gelu` by its approximation with tanh; the bias may be absent.
pub static FAST_GELU: BiasActivation = BiasActivation { name: "FastGelu", kind: Kind::Fast };
/// `BiasGelu`: `Gelu` of `A + B`.
pub static BIAS_GELU: BiasActivation = BiasActivation { name: "BiasGelu", kind: Kind::Bias };
/// `QuickGelu`: `x * sigmoid(alpha * x)`.
pub static QUICK_GELU: BiasActivation = BiasActivation { name: "QuickGelu", kind: Kind::Quick };

impl Operator for BiasActivation {
    fn schema(&self) -> Schema {
        let inputs = match self.kind {
            Kind::Fast => (1, 2),
            Kind::Bias => (2, 2),
            Kind::Quick => (1, 1),
        };
        Schema { name: self.name, domain: DOMAIN, since: &[1], inputs, outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.need_one_dtype(2)?;
        if self.kind == Kind::Bias {
            cx.fact(1)?;
        }
        if cx.has(1)
            && let (Some(x), Some(b)) = (cx.shape(0)?, cx.shape(1)?)
        {
            match (x.last(), &b[..]) {
                (Some(last), [n]) if n.compatible(last) => {}
                _ => return Err(Error::mismatch("type of the bias", cx.ty(1)?, "the last extent of X")),
            }
        }
        Ok(vec![cx.ty(0)?.clone().into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (x, bias) = (cx.tensor(0)?, cx.opt_tensor(1)?);
        if let Some(b) = bias.filter(|b| b.rank() != 1 || b.shape().last() != x.shape().last()) {
            return Err(wrong_shape("bias", b.shape(), "the last extent of X"));
        }
        let alpha = cx.node.attrs.float_or("alpha", 1.702)?;
        with_real!(x.dtype(), T => {
            let mut y = T::load(x)?.into_owned();
            if let Some(b) = bias {
                let b = T::load(b)?;
                y.chunks_mut(b.len().max(1)).for_each(|row| row.iter_mut().zip(&*b).for_each(|(v, b)| *v += *b));
            }
            let f = |v: T| match self.kind {
                Kind::Fast => gelu(v, [T::ONE, T::ZERO]),
                Kind::Bias => gelu(v, [T::ZERO; 2]),
                Kind::Quick => swish(v, [T::from_f64(f64::from(alpha)), T::ZERO]),
            };
            y.iter_mut().for_each(|v| *v = f(*v));
            Ok(vec![T::store(x.dtype(), x.shape(), y)?.into()])
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::Tensor;
    use crate::attr::Attrs;
    use crate::ops::testing::eval_in;

    #[test]
    fn the_bias_lies_along_the_last_axis() {
        let x = Some(Tensor::new([2, 2], vec![0.5f32, -2.0, 1.0, 0.0]).unwrap());
        let b = Some(Tensor::new([2], vec![0.5f32, 1.0]).unwrap());
        let run = |op: &str, inputs: &[Option<Tensor>]| {
            let y = eval_in("com.microsoft", op, Attrs::new(), inputs, 1).unwrap();
            y[0].as_tensor().unwrap().as_slice::<f32>().unwrap().to_vec()
        };
        let near = |got: Vec<f32>, want: [f32; 4]| {
            assert!(got.iter().zip(want).all(|(g, w)| (g - w).abs() < 1e-6), "{got:?} {want:?}");
        };
        // Gelu of 1, -1, 1.5, 1
        near(run("BiasGelu", &[x.clone(), b.clone()]), [0.841_344_7, -0.158_655_3, 1.399_789_2, 0.841_344_7]);
        near(run("FastGelu", &[x.clone(), b]), [0.841_192, -0.158_808, 1.399_571_7, 0.841_192]);
        near(run("QuickGelu", std::slice::from_ref(&x)), [0.350_388_68, -0.064_341_38, 0.845_796_2, 0.0]);
        let wide = Some(Tensor::new([1], vec![1f32]).unwrap());
        assert!(eval_in("com.microsoft", "BiasGelu", Attrs::new(), &[x, wide], 1).is_err());
    }
}
