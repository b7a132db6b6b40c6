//! `Imputer`. <https://onnx.ai/onnx/operators/onnx_aionnxml_Imputer.html>
use super::real::Real;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema, unsupported_dtype};
use crate::{DType, Elem, Error, OpNode, Result, Tensor, Value};

/// `Imputer`: what stands for a missing value is replaced.
pub struct Imputer;

fn missing(name: &str) -> Error {
    Error::mismatch(format!("attribute `{name}`"), "none", "values")
}

/// `imputed` holds one value for all columns or one for each.
fn impute<T: Elem + Copy>(x: &Tensor, imputed: &[T], is_missing: impl Fn(T) -> bool) -> Result<Tensor> {
    let columns = x.shape().last().copied().unwrap_or(1);
    if imputed.len() != 1 && imputed.len() != columns {
        return Err(Error::mismatch("number of imputed values", imputed.len(), format!("1 or {columns}")));
    }
    let data = x.as_slice::<T>()?;
    let value = |(i, v): (usize, &T)| if is_missing(*v) { imputed[i % imputed.len()] } else { *v };
    Tensor::new(x.shape(), data.iter().enumerate().map(value).collect::<Vec<_>>())
}

fn floats<T: Real>(node: &OpNode, x: &Tensor) -> Result<Tensor> {
    let imputed =
        node.attrs.floats("imputed_value_floats")?.ok_or_else(|| missing("imputed_value_floats"))?;
    let imputed: Vec<T> = imputed.iter().map(|v| T::from_f64(f64::from(*v))).collect();
    let replaced = T::from_f64(f64::from(node.attrs.float_or("replaced_value_float", 0.0)?));
    impute(x, &imputed, |v| v == replaced || (v.is_nan() && replaced.is_nan()))
}

fn ints<T: Elem + Copy + TryFrom<i64>>(node: &OpNode, x: &Tensor) -> Result<Tensor> {
    let imputed = node.attrs.ints("imputed_value_int64s")?.ok_or_else(|| missing("imputed_value_int64s"))?;
    let narrow = |v: &i64| T::try_from(*v).map_err(|_| Error::mismatch("imputed value", v, T::DTYPE));
    let imputed: Vec<T> = imputed.iter().map(narrow).collect::<Result<_>>()?;
    // a value that the type cannot hold is nowhere
    let replaced = T::try_from(node.attrs.int_or("replaced_value_int64", 0)?).ok();
    impute(x, &imputed, |v| Some(v) == replaced)
}

impl Operator for Imputer {
    fn schema(&self) -> Schema {
        super::schema("Imputer", 1)
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let name = match cx.dtype(0)? {
            DType::F32 | DType::F64 => "imputed_value_floats",
            DType::I64 | DType::I32 => "imputed_value_int64s",
            _ => return Ok(vec![cx.ty(0)?.clone().into()]),
        };
        cx.node.attrs.get(name).ok_or_else(|| missing(name))?;
        Ok(vec![cx.ty(0)?.clone().into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        Ok(vec![
            match x.dtype() {
                DType::F32 => floats::<f32>(cx.node, x)?,
                DType::F64 => floats::<f64>(cx.node, x)?,
                DType::I64 => ints::<i64>(cx.node, x)?,
                DType::I32 => ints::<i32>(cx.node, x)?,
                other => return Err(unsupported_dtype(other)),
            }
            .into(),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::eval_ml;

    fn imputed(attrs: Attrs, x: Tensor) -> Result<Tensor> {
        Ok(eval_ml("Imputer", 1, attrs, &[x])?[0].as_tensor()?.clone())
    }

    #[test]
    fn nan_is_replaced_by_the_value_of_its_column() {
        let x = Tensor::new([2, 2], vec![f32::NAN, 1.0, 2.0, f32::NAN]).unwrap();
        let attrs = Attrs::new().with("replaced_value_float", f32::NAN);
        let two = attrs.clone().with("imputed_value_floats", vec![8.0f32, 9.0]);
        assert_eq!(
            imputed(two, x.clone()).unwrap(),
            Tensor::new([2, 2], vec![8.0f32, 1.0, 2.0, 9.0]).unwrap()
        );
        let one = attrs.clone().with("imputed_value_floats", vec![7.0f32]);
        assert_eq!(
            imputed(one, x.clone()).unwrap(),
            Tensor::new([2, 2], vec![7.0f32, 1.0, 2.0, 7.0]).unwrap()
        );
        let three = attrs.clone().with("imputed_value_floats", vec![7.0f32; 3]);
        assert!(imputed(three, x.clone()).is_err());
        assert!(imputed(attrs.with("imputed_value_int64s", vec![7i64]), x).is_err());
    }

    #[test]
    fn doubles_and_integers_too() {
        let x = Tensor::new([3], vec![0.0f64, -1.0, 0.1]).unwrap();
        let attrs =
            Attrs::new().with("imputed_value_floats", vec![0.5f32]).with("replaced_value_float", -1.0f32);
        assert_eq!(imputed(attrs, x).unwrap(), Tensor::new([3], vec![0.0f64, 0.5, 0.1]).unwrap());
        let attrs =
            Attrs::new().with("imputed_value_int64s", vec![4i64, 5]).with("replaced_value_int64", 1i64);
        let x = Tensor::new([1, 2], vec![1i32, 1]).unwrap();
        assert_eq!(imputed(attrs.clone(), x).unwrap(), Tensor::new([1, 2], vec![4i32, 5]).unwrap());
        let x = Tensor::new([1, 2], vec![0i64, 1]).unwrap();
        assert_eq!(imputed(attrs, x).unwrap(), Tensor::new([1, 2], vec![0i64, 5]).unwrap());
    }
}
