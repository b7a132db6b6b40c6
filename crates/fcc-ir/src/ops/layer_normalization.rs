//! `LayerNormalization` and `RMSNormalization`: over the last axes.
//! <https://onnx.ai/onnx/operators/onnx__LayerNormalization.html>
use crate::limits::watched;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema, unsupported_dtype};
use crate::ops::broadcast;
use crate::ops::numeric::{Num, Real, with_real};
use crate::{DType, Dim, Error, OpNode, Result, Tensor, TensorType, Value};

/// `LayerNormalization`.
pub struct LayerNormalization;
/// `RMSNormalization`.
pub struct RmsNormalization;

/// The attributes of both.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayerNormParams {
    /// First normalised axis.
    pub axis: usize,
    /// Added to the variance or the mean square.
    pub epsilon: f32,
    /// The type that the normalisation computes in, and of `Mean` and `InvStdDev`.
    pub stash: DType,
}

/// Reads the attributes for an input of this rank.
pub fn params(node: &OpNode, rank: usize) -> Result<LayerNormParams> {
    let stash = node.attrs.int_or("stash_type", 1)?;
    let stash = i32::try_from(stash).ok().and_then(DType::from_code).filter(|d| d.is_float());
    Ok(LayerNormParams {
        axis: crate::op::axis(node.attrs.int_or("axis", -1)?, rank)?,
        epsilon: node.attrs.float_or("epsilon", 1e-5)?,
        stash: stash
            .ok_or_else(|| Error::mismatch("attribute `stash_type`", "no float type", "a float type"))?,
    })
}

/// Shape of the statistics: ones from `axis` on.
pub(crate) fn reduced<T: Clone>(shape: &[T], axis: usize, one: T) -> Vec<T> {
    shape.iter().take(axis).cloned().chain(shape.iter().skip(axis).map(|_| one.clone())).collect()
}

/// The values of a tensor, passed through `dtype`.
fn load_as<T: Real>(t: &Tensor, dtype: DType) -> Result<Vec<T>> {
    let values = T::load(t)?.into_owned();
    if t.dtype() == dtype {
        Ok(values)
    } else {
        Ok(T::load(&T::store(dtype, t.shape(), values)?)?.into_owned())
    }
}

/// Second stage: `normalized * scale + b`, both broadcast to x.
fn scale_and_shift<T: Real>(
    normalized: Vec<T>,
    shape: &[usize],
    scale: &Tensor,
    b: Option<&Tensor>,
) -> Result<Vec<T>> {
    let mut y = normalized;
    for (t, multiply) in [(Some(scale), true), (b, false)] {
        let Some(t) = t else { continue };
        if broadcast::shape(&[shape, t.shape()]).ok().as_deref() != Some(shape) {
            let wanted = format!("broadcastable to {shape:?}");
            return Err(Error::mismatch("shape of scale or bias", format!("{:?}", t.shape()), wanted));
        }
        let f = |v: T, s: T| if multiply { v * s } else { v + s };
        y = broadcast::map2((&y, shape), (&T::load(t)?[..], t.shape()), shape, f);
    }
    Ok(y)
}

impl Operator for LayerNormalization {
    fn schema(&self) -> Schema {
        Schema { name: "LayerNormalization", domain: "", since: &[1, 17], inputs: (2, 3), outputs: (1, 3) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let Some(shape) = cx.shape(0)? else {
            return Ok(vec![Fact::from(cx.ty(0)?.clone()); 1]
                .into_iter()
                .chain((1..cx.n_outputs).map(|_| Fact::default()))
                .collect());
        };
        let p = params(cx.node, shape.len())?;
        cx.need_stretch(1, shape)?;
        cx.need_stretch(2, shape)?;
        let statistic = TensorType::new(p.stash, reduced(shape, p.axis, Dim::Known(1)));
        let facts = [cx.ty(0)?.clone(), statistic.clone().into(), statistic.into()];
        Ok(facts.into_iter().take(cx.n_outputs).map(Fact::from).collect())
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (x, scale, b) = (cx.tensor(0)?, cx.tensor(1)?, cx.opt_tensor(2)?);
        let p = params(cx.node, x.rank())?;
        let len: usize = x.shape()[p.axis..].iter().product();
        with_real!(p.stash, T => {
            let mut data = load_as::<T>(x, p.stash)?;
            let (mut means, mut inverses) = (vec![], vec![]);
            for row in watched(data.chunks_mut(len.max(1))) {
                let n = T::from_f64(row.len() as f64);
                let mean = row.iter().fold(T::ZERO, |s, v| s + *v) / n;
                let variance = row.iter().fold(T::ZERO, |s, v| s + (*v - mean) * (*v - mean)) / n;
                let inverse = T::ONE / (variance + T::of(p.epsilon)).sqrt();
                row.iter_mut().for_each(|v| *v = (*v - mean) * inverse);
                means.push(mean);
                inverses.push(inverse);
            }
            let statistics = reduced(x.shape(), p.axis, 1);
            let (means, inverses) =
                (T::store(p.stash, statistics.clone(), means)?, T::store(p.stash, statistics, inverses)?);
            let y = second_stage(data, x.dtype(), x.shape(), x.dtype(), scale, b)?;
            Ok([y, means, inverses].into_iter().take(cx.wanted.len()).map(Value::from).collect())
        })
    }
}

/// Casts the normalised values to `normalized` as the text says, then scales and shifts to `out`.
fn second_stage<T: Real>(
    data: Vec<T>,
    normalized: DType,
    shape: &[usize],
    out: DType,
    scale: &Tensor,
    b: Option<&Tensor>,
) -> Result<Tensor> {
    let data = T::store(normalized, shape, data)?;
    if normalized == DType::F64 || out == DType::F64 {
        let y = scale_and_shift(f64::load(&data)?.into_owned(), shape, scale, b)?;
        return f64::store(out, shape, y);
    }
    match out {
        DType::F32 | DType::F16 | DType::BF16 => {
            f32::store(out, shape, scale_and_shift(f32::load(&data)?.into_owned(), shape, scale, b)?)
        }
        other => Err(unsupported_dtype(other)),
    }
}

impl Operator for RmsNormalization {
    fn schema(&self) -> Schema {
        Schema { name: "RMSNormalization", domain: "", since: &[23], inputs: (2, 2), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        if let Some(shape) = cx.shape(0)? {
            params(cx.node, shape.len())?;
            cx.need_stretch(1, shape)?;
        }
        Ok(vec![TensorType { dtype: cx.dtype(1)?, shape: cx.shape(0)?.cloned() }.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (x, scale) = (cx.tensor(0)?, cx.tensor(1)?);
        let p = params(cx.node, x.rank())?;
        let len: usize = x.shape()[p.axis..].iter().product();
        with_real!(p.stash, T => {
            let mut data = load_as::<T>(x, p.stash)?;
            for row in watched(data.chunks_mut(len.max(1))) {
                let squares = row.iter().fold(T::ZERO, |s, v| s + *v * *v);
                let rms = (squares / T::from_f64(row.len() as f64) + T::of(p.epsilon)).sqrt();
                row.iter_mut().for_each(|v| *v /= rms);
            }
            let y = second_stage(data, x.dtype(), x.shape(), scale.dtype(), scale, None)?;
            Ok(vec![y.into()])
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::Tensor;
    use crate::attr::Attrs;
    use crate::ops::testing::eval;

    #[test]
    fn statistics_keep_the_outer_axes() {
        let x = Tensor::new([2, 2], vec![1f32, 3.0, 5.0, 9.0]).unwrap();
        let scale = Tensor::new([2], vec![1f32, 10.0]).unwrap();
        let attrs = Attrs::new().with("epsilon", 0f32);
        let outputs = eval("LayerNormalization", 17, attrs, &[Some(x), Some(scale), None], 3).unwrap();
        let values: Vec<_> =
            outputs.iter().map(|o| o.as_tensor().unwrap().as_slice::<f32>().unwrap().to_vec()).collect();
        assert_eq!(values, [vec![-1.0, 10.0, -1.0, 10.0], vec![2.0, 7.0], vec![1.0, 0.5]]);
        assert_eq!(outputs[1].as_tensor().unwrap().shape(), [2, 1]);
    }
}
