//! `Scaler`. <https://onnx.ai/onnx/operators/onnx_aionnxml_Scaler.html>
use super::real::{Real, reals};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{DType, Error, OpNode, Result, Tensor, TensorType, Value};

/// `Scaler`: `(x - offset) * scale`, as floats.
pub struct Scaler;

/// `(x - offset) * scale`; each list has one value for all columns or one for each.
#[derive(Debug, Clone, PartialEq)]
pub struct Affine {
    /// What is taken off first.
    pub offset: Vec<f32>,
    /// What the rest is multiplied with.
    pub scale: Vec<f32>,
}

impl Affine {
    /// The attributes `offset` (0 if absent) and `scale` (1 if absent).
    pub fn parse(node: &OpNode) -> Result<Affine> {
        let list = |name: &str, default: f32| -> Result<Vec<f32>> {
            match node.attrs.floats(name)? {
                None => Ok(vec![default]),
                Some([]) => Err(Error::mismatch(format!("attribute `{name}`"), "no number", "at least one")),
                Some(v) => Ok(v.to_vec()),
            }
        };
        Ok(Affine { offset: list("offset", 0.0)?, scale: list("scale", 1.0)? })
    }
    /// Errors unless the lists fit rows of `columns`.
    pub fn check(&self, columns: usize) -> Result<()> {
        for (name, list) in [("offset", &self.offset), ("scale", &self.scale)] {
            if list.len() != 1 && list.len() != columns {
                return Err(Error::mismatch(
                    format!("length of `{name}`"),
                    list.len(),
                    format!("1 or {columns}"),
                ));
            }
        }
        Ok(())
    }
    /// Element `i` of rows of whole length.
    pub fn apply<T: Real>(&self, i: usize, x: T) -> f32 {
        let at = |list: &[f32]| T::from_f64(f64::from(list[i % list.len()]));
        ((x - at(&self.offset)) * at(&self.scale)).to_f32()
    }
}

impl Operator for Scaler {
    fn schema(&self) -> Schema {
        super::schema("Scaler", 1)
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let affine = Affine::parse(cx.node)?;
        if let Some(columns) = cx.shape(0)?.and_then(|s| s.last()).and_then(|d| d.known()) {
            affine.check(columns)?;
        }
        Ok(vec![TensorType { dtype: DType::F32, shape: cx.shape(0)?.cloned() }.into()])
    }
    /// Doubles are scaled as doubles, everything else as floats.
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (x, affine) = (cx.tensor(0)?, Affine::parse(cx.node)?);
        affine.check(x.shape().last().copied().unwrap_or(1))?;
        fn all<T: Real>(affine: &Affine, x: &Tensor) -> Result<Vec<f32>> {
            Ok(reals::<T>(x)?.into_iter().enumerate().map(|(i, v)| affine.apply(i, v)).collect())
        }
        let y = if x.dtype() == DType::F64 { all::<f64>(&affine, x)? } else { all::<f32>(&affine, x)? };
        Ok(vec![Tensor::new(x.shape(), y)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::eval_ml;

    #[test]
    fn one_value_for_all_columns_or_one_for_each() {
        let run = |attrs, x: Tensor| eval_ml("Scaler", 1, attrs, &[x]);
        let attrs = Attrs::new().with("offset", vec![1.0f32, 2.0]).with("scale", vec![10.0f32]);
        let x = || Tensor::new([2, 2], vec![1i64, 1, 3, -4]).unwrap();
        let y = run(attrs.clone(), x()).unwrap();
        assert_eq!(
            y[0].as_tensor().unwrap(),
            &Tensor::new([2, 2], vec![0.0f32, -10.0, 20.0, -60.0]).unwrap()
        );
        // as doubles: 1 + 2^-30 minus 1 is not 0
        let small = Tensor::new([1, 1], vec![1.0 + 2f64.powi(-30)]).unwrap();
        let y = run(Attrs::new().with("offset", vec![1.0f32]), small).unwrap();
        assert_eq!(y[0].as_tensor().unwrap(), &Tensor::new([1, 1], vec![2f32.powi(-30)]).unwrap());
        for bad in [attrs.clone().with("scale", vec![1.0f32; 3]), attrs.with("offset", Vec::<f32>::new())] {
            assert!(run(bad, x()).is_err());
        }
    }
}
