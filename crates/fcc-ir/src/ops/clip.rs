//! `Clip`. <https://onnx.ai/onnx/operators/onnx__Clip.html>
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::numeric::{Num, with_num};
use crate::{Error, OpNode, Result, Tensor, Value};

/// `Clip`.
pub struct Clip;

/// The bounds as scalars, from the attributes (before opset 11) or the inputs; `None` where there is no bound.
/// Errors where an input is not one element.
pub fn bounds(
    node: &OpNode,
    min: Option<&Tensor>,
    max: Option<&Tensor>,
) -> Result<(Option<Tensor>, Option<Tensor>)> {
    let one = |name: &str, input: Option<&Tensor>| {
        if node.version < 11 {
            return Ok(node.attrs.float(name)?.map(Tensor::scalar));
        }
        match input {
            Some(t) if t.len() != 1 => {
                Err(Error::mismatch(format!("shape of {name}"), format!("{:?}", t.shape()), "one element"))
            }
            Some(t) => t.reshaped(vec![]).map(Some),
            None => Ok(None),
        }
    };
    Ok((one("min", min)?, one("max", max)?))
}

/// The bounds as floats, infinite where there is none: `(min, max)`. Errors on bounds that are not floats.
pub fn float_bounds(node: &OpNode, min: Option<&Tensor>, max: Option<&Tensor>) -> Result<(f64, f64)> {
    let (min, max) = bounds(node, min, max)?;
    let one = |t: Option<Tensor>, default| t.map_or(Ok(default), |t| Ok(f64::load(&t)?[0]));
    Ok((one(min, f64::NEG_INFINITY)?, one(max, f64::INFINITY)?))
}

impl Operator for Clip {
    fn schema(&self) -> Schema {
        Schema { name: "Clip", domain: "", since: &[1, 6, 11, 12, 13], inputs: (1, 3), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.need_one_element(1)?;
        cx.need_one_element(2)?;
        Ok(vec![cx.ty(0)?.clone().into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let (min, max) = bounds(cx.node, cx.opt_tensor(1)?, cx.opt_tensor(2)?)?;
        with_num!(x.dtype(), T => {
            let one = |t: Option<Tensor>, default| t.map_or(Ok::<T, Error>(default), |t| Ok(T::load(&t)?[0]));
            let (min, max) = (one(min, T::LOWEST)?, one(max, T::HIGHEST)?);
            // max wins where min > max; NaN stays
            let clip = |v: &T| {
                let low = if *v < min { min } else { *v };
                if low > max { max } else { low }
            };
            let y = T::load(x)?.iter().map(clip).collect();
            Ok(vec![T::store(x.dtype(), x.shape(), y)?.into()])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::eval1;

    #[test]
    fn bounds_are_attributes_or_inputs() {
        let x = Some(Tensor::new([4], vec![-2f32, 0.5, 7.0, f32::NAN]).unwrap());
        let clipped = |y: Tensor| y.as_slice::<f32>().unwrap().to_vec();
        let old =
            eval1("Clip", 6, Attrs::new().with("min", 0f32).with("max", 6f32), std::slice::from_ref(&x))
                .unwrap();
        let scalars = [Some(Tensor::scalar(0f32)), Some(Tensor::scalar(6f32))];
        let new =
            eval1("Clip", 13, Attrs::new(), &[x.clone(), scalars[0].clone(), scalars[1].clone()]).unwrap();
        assert_eq!(clipped(old.clone())[..3], [0.0, 0.5, 6.0]);
        assert!(clipped(old.clone())[3].is_nan());
        assert_eq!(old, new);
        let crossed = eval1("Clip", 13, Attrs::new(), &[x, scalars[1].clone(), scalars[0].clone()]).unwrap();
        assert_eq!(clipped(crossed)[..3], [0.0; 3], "the maximum wins");
    }
}
