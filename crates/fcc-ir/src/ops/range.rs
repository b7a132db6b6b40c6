//! `Range`. <https://onnx.ai/onnx/operators/onnx__Range.html>
use crate::convert::{Narrowing, from_f64s, from_i64s, to_f64s};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{DType, Dim, Error, Result, Tensor, TensorType, Value};

/// `Range`.
pub struct Range;

/// Number of elements: `max(ceil((limit - start) / delta), 0)`. Errors on a delta of 0 and on too many.
fn count(start: &Tensor, limit: &Tensor, delta: &Tensor) -> Result<usize> {
    for t in [start, limit, delta] {
        if t.len() != 1 {
            return Err(Error::mismatch("input of Range", t.tensor_type(), "one element"));
        }
    }
    if let (Ok(s), Ok(l), Ok(d)) = (start.to_i64s(), limit.to_i64s(), delta.to_i64s()) {
        let (s, l, d) = (i128::from(s[0]), i128::from(l[0]), i128::from(d[0]));
        if d == 0 {
            return Err(Error::mismatch("delta", 0, "not 0"));
        }
        let n = if d > 0 { (l - s + d - 1).div_euclid(d) } else { (s - l - d - 1).div_euclid(-d) };
        return usize::try_from(n.max(0)).map_err(|_| Error::mismatch("length of Range", n, "a size"));
    }
    let one = |t: &Tensor| Ok::<f64, Error>(to_f64s(t)?[0]);
    let n = ((one(limit)? - one(start)?) / one(delta)?).ceil();
    if n.is_nan() || n > 1e15 {
        return Err(Error::mismatch("length of Range", n, "a size"));
    }
    Ok(n.max(0.0) as usize)
}

impl Operator for Range {
    fn schema(&self) -> Schema {
        Schema { name: "Range", domain: "", since: &[11, 27], inputs: (3, 3), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        let len = match (cx.value(0), cx.value(1), cx.value(2)) {
            (Some(s), Some(l), Some(d)) => Dim::Known(count(s, l, d)?),
            _ => symbolic_count(cx),
        };
        Ok(vec![TensorType::new(dtype, [len]).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (start, limit, delta) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        let n = super::movement::new_elems(&[count(start, limit, delta)?])?;
        let dtype = start.dtype();
        let stash = cx.node.attrs.int_or("stash_type", 1)?;
        if matches!(dtype, DType::F16 | DType::BF16) && stash != 1 {
            return Err(Error::unsupported(format!("stash_type {stash}; 1 (float) is computed")));
        }
        Ok(vec![
            match (start.to_i64s(), delta.to_i64s()) {
                (Ok(s), Ok(d)) => {
                    let at = |i: usize| s[0].wrapping_add((i as i64).wrapping_mul(d[0]));
                    from_i64s(dtype, [n], (0..n).map(at).collect())?
                }
                _ => {
                    let (s, d) = (to_f64s(start)?[0], to_f64s(delta)?[0]);
                    let at = |i: usize| match dtype {
                        DType::F64 => s + i as f64 * d,
                        _ => f64::from(s as f32 + i as f32 * d as f32),
                    };
                    from_f64s(dtype, [n], (0..n).map(at).collect(), Narrowing::default())?
                }
            }
            .into(),
        ])
    }
}

/// `ceil((limit - start) / delta)` for a positive constant delta.
fn symbolic_count(cx: &InferCtx<'_>) -> Dim {
    let (Some(start), Some(limit), Some(delta)) = (cx.dims(0), cx.dims(1), cx.dims(2)) else {
        return Dim::Unknown;
    };
    match (start.elems().first(), limit.elems().first(), delta.int(0).map(usize::try_from)) {
        (Some(start), Some(limit), Some(Ok(delta))) if delta > 0 => limit.sub(start).ceil_div(delta),
        _ => Dim::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::{eval1, infer};

    #[test]
    fn lengths_round_up_and_may_be_zero() {
        let ints = |s: i64, l: i64, d: i64| {
            let t = |v| Some(Tensor::scalar(v));
            eval1("Range", 11, Attrs::new(), &[t(s), t(l), t(d)]).map(|t| t.to_i64s().unwrap())
        };
        assert_eq!(ints(1, 6, 2).unwrap(), [1, 3, 5]);
        assert_eq!(ints(10, 4, -2).unwrap(), [10, 8, 6]);
        assert_eq!(ints(i64::MAX - 1, i64::MAX, 5).unwrap(), [i64::MAX - 1]);
        assert!(ints(3, 3, 1).unwrap().is_empty() && ints(3, 1, 1).unwrap().is_empty());
        assert!(ints(0, 1, 0).is_err());
        let t = |v: f32| Some(Tensor::scalar(v));
        let y = eval1("Range", 11, Attrs::new(), &[t(0.), t(1.), t(0.4)]).unwrap();
        assert_eq!(*y.as_slice::<f32>().unwrap(), [0., 0.4, 0.8]);
    }

    #[test]
    fn a_symbolic_limit_is_the_length() {
        let n = Dim::symbol("N");
        let limit = crate::op::DimTensor::scalar(n.clone());
        let c = |v: i64| Some(Fact::constant(Tensor::scalar(v)));
        let y = infer("Range", 11, Attrs::new(), &[c(0), Some(Fact::of_dims(DType::I64, limit)), c(1)], 1);
        assert_eq!(y.unwrap()[0].ty, crate::ValueType::tensor(DType::I64, [n]));
    }
}
