//! Operators that draw: `RandomNormal`, `RandomUniform`, their `Like` forms, `Bernoulli`, `Multinomial`.
//! <https://onnx.ai/onnx/operators/onnx__RandomNormal.html>
//!
//! ONNX leaves the generator open. fcc's is seeded with the attribute `seed`, or with 0, so that runs repeat.
use super::movement::new_elems;
use crate::convert::{Narrowing, from_f64s, to_f64s};
use crate::limits::watched;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::random::Random;
use crate::{DType, Dim, Error, OpNode, Result, TensorType, Value};

/// One of the four operators that draw a whole tensor.
pub struct Draw {
    name: &'static str,
    /// Normal (`mean`, `scale`) rather than uniform (`low`, `high`).
    normal: bool,
    /// Shape and type come from an input rather than from attributes.
    like: bool,
}
/// `RandomNormal`.
pub static NORMAL: Draw = Draw { name: "RandomNormal", normal: true, like: false };
/// `RandomNormalLike`.
pub static NORMAL_LIKE: Draw = Draw { name: "RandomNormalLike", normal: true, like: true };
/// `RandomUniform`.
pub static UNIFORM: Draw = Draw { name: "RandomUniform", normal: false, like: false };
/// `RandomUniformLike`.
pub static UNIFORM_LIKE: Draw = Draw { name: "RandomUniformLike", normal: false, like: true };
/// `Bernoulli`.
pub struct Bernoulli;
/// `Multinomial`.
pub struct Multinomial;

fn generator(node: &OpNode) -> Result<Random> {
    Ok(Random::new(node.attrs.float("seed")?.map_or(0, |s| u64::from(s.to_bits()))))
}

/// The attribute `dtype`, if given.
fn dtype(node: &OpNode) -> Result<Option<DType>> {
    let Some(code) = node.attrs.int("dtype")? else { return Ok(None) };
    let dtype = i32::try_from(code).ok().and_then(DType::from_code).filter(|d| *d != DType::Undefined);
    dtype.map(Some).ok_or_else(|| Error::mismatch("attribute `dtype`", code, "an element type"))
}

/// Normal with mean 0 and variance 1, by Box and Muller's method.
fn normal(r: &mut Random) -> f64 {
    let (u, v) = (1.0 - r.unit(), r.unit());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

impl Operator for Draw {
    fn schema(&self) -> Schema {
        let n = usize::from(self.like);
        Schema { name: self.name, domain: "", since: &[1, 22], inputs: (n, n), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        if self.like {
            let dtype = dtype(cx.node)?.map_or_else(|| cx.dtype(0), Ok)?;
            return Ok(vec![TensorType { dtype, shape: cx.shape(0)?.cloned() }.into()]);
        }
        let shape = super::lists::extents("attribute `shape`", cx.node.attrs.need_ints("shape")?)?;
        Ok(vec![TensorType::new(dtype(cx.node)?.unwrap_or(DType::F32), shape).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (shape, default) = if self.like {
            let x = cx.value(0)?.as_tensor()?;
            (x.shape().to_vec(), x.dtype())
        } else {
            (super::lists::extents("attribute `shape`", cx.node.attrs.need_ints("shape")?)?, DType::F32)
        };
        let attrs = &cx.node.attrs;
        let number = |name: &str, default: f32| attrs.float_or(name, default).map(f64::from);
        let mut r = generator(cx.node)?;
        let n = new_elems(&shape)?;
        let values = if self.normal {
            let (mean, scale) = (number("mean", 0.0)?, number("scale", 1.0)?);
            (0..n).map(|_| mean + scale * normal(&mut r)).collect()
        } else {
            let (low, high) = (number("low", 0.0)?, number("high", 1.0)?);
            (0..n).map(|_| low + (high - low) * r.unit()).collect()
        };
        let dtype = dtype(cx.node)?.unwrap_or(default);
        Ok(vec![from_f64s(dtype, shape, values, Narrowing::default())?.into()])
    }
}

impl Operator for Bernoulli {
    fn schema(&self) -> Schema {
        Schema { name: "Bernoulli", domain: "", since: &[15, 22], inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = dtype(cx.node)?.map_or_else(|| cx.dtype(0), Ok)?;
        Ok(vec![TensorType { dtype, shape: cx.shape(0)?.cloned() }.into()])
    }
    /// 1 with the probability that the input gives, else 0.
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let mut r = generator(cx.node)?;
        let draws = to_f64s(x)?.into_iter().map(|p| f64::from(u8::from(r.unit() < p))).collect();
        let dtype = dtype(cx.node)?.unwrap_or(x.dtype());
        Ok(vec![from_f64s(dtype, x.shape(), draws, Narrowing::default())?.into()])
    }
}

impl Operator for Multinomial {
    fn schema(&self) -> Schema {
        Schema { name: "Multinomial", domain: "", since: &[7, 22], inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let n = samples(cx.node)?;
        let batch = match cx.shape(0)?.map(Vec::as_slice) {
            Some([b, _]) => b.clone(),
            Some(other) => return Err(Error::mismatch("rank", other.len(), 2)),
            None => Dim::Unknown,
        };
        let dtype = dtype(cx.node)?.unwrap_or(DType::I32);
        Ok(vec![TensorType::new(dtype, [batch, Dim::Known(n)]).into()])
    }
    /// Classes drawn with the probabilities `softmax(x)`: the input holds logarithms, not normalised.
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let &[batch, classes] = x.shape() else { return Err(Error::mismatch("rank", x.rank(), 2)) };
        let n = samples(cx.node)?;
        if classes == 0 {
            return Err(Error::mismatch("classes", 0, "at least 1"));
        }
        let mut r = generator(cx.node)?;
        let mut out = Vec::with_capacity(new_elems(&[batch, n])?);
        for row in watched(to_f64s(x)?.chunks(classes)) {
            let top = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = row.iter().map(|v| (v - top).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for _ in watched(0..n) {
                let mut left = r.unit() * sum;
                let class = weights.iter().position(|w| {
                    left -= w;
                    left < 0.0
                });
                out.push(class.unwrap_or(classes - 1) as f64);
            }
        }
        let dtype = dtype(cx.node)?.unwrap_or(DType::I32);
        Ok(vec![from_f64s(dtype, [batch, n], out, Narrowing::default())?.into()])
    }
}

/// `sample_size`, 1 by default.
fn samples(node: &OpNode) -> Result<usize> {
    let n = node.attrs.int_or("sample_size", 1)?;
    usize::try_from(n).map_err(|_| Error::mismatch("attribute `sample_size`", n, "at least 0"))
}

#[cfg(test)]
mod tests {
    use crate::attr::Attrs;
    use crate::ops::testing::eval1;
    use crate::{Op, Tensor};

    #[test]
    fn draws_have_the_moments_and_repeat() {
        let attrs = Attrs::new().with("shape", vec![4000i64]).with("mean", 2f32).with("seed", 3f32);
        let x = eval1("RandomNormal", 22, attrs.clone(), &[]).unwrap();
        let v = x.as_slice::<f32>().unwrap().into_owned();
        let mean = v.iter().sum::<f32>() / 4000.0;
        let variance = v.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / 4000.0;
        assert!((mean - 2.0).abs() < 0.1 && (variance - 1.0).abs() < 0.1, "{mean} {variance}");
        assert_eq!(eval1("RandomNormal", 22, attrs, &[]).unwrap(), x);
    }

    #[test]
    fn certain_events_happen() {
        let p = Tensor::new([3], vec![0f32, 1., 0.]).unwrap();
        let y = eval1("Bernoulli", 22, Attrs::new(), &[Some(p)]).unwrap();
        assert_eq!(*y.as_slice::<f32>().unwrap(), [0., 1., 0.]);
        let logits = Tensor::new([1, 2], vec![-1000f32, 5.]).unwrap();
        let y = eval1("Multinomial", 22, Attrs::new().with("sample_size", 2i64), &[Some(logits)]).unwrap();
        assert_eq!(y.to_i64s().unwrap(), [1, 1]);
    }

    #[test]
    fn every_operator_that_draws_is_known_as_such() {
        for op in [Op::RandomNormal, Op::RandomUniformLike, Op::Bernoulli, Op::Multinomial] {
            assert!(op.is_random());
        }
    }
}
