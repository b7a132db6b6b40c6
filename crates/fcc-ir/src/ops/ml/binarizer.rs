//! `Binarizer`. <https://onnx.ai/onnx/operators/onnx_aionnxml_Binarizer.html>
use crate::convert::{Narrowing, Wide, narrow, widen};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{Result, Value};

/// `Binarizer`: 1 where an element is above the threshold, else 0.
pub struct Binarizer;

impl Operator for Binarizer {
    fn schema(&self) -> Schema {
        super::schema("Binarizer", 1)
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![cx.ty(0)?.clone().into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let threshold = f64::from(cx.node.attrs.float_or("threshold", 0.0)?);
        let above: Vec<bool> = match widen(x)? {
            Wide::Float(v) => v.into_iter().map(|v| v > threshold).collect(),
            Wide::Int(v) => v.into_iter().map(|v| v as f64 > threshold).collect(),
            Wide::UInt(v) => v.into_iter().map(|v| v as f64 > threshold).collect(),
        };
        let ones = Wide::UInt(above.into_iter().map(u64::from).collect());
        Ok(vec![narrow(ones, x.dtype(), x.shape().to_vec(), Narrowing::default())?.into()])
    }
}

#[cfg(test)]
mod tests {
    use crate::Tensor;
    use crate::attr::Attrs;
    use crate::ops::testing::eval_ml;

    #[test]
    fn above_the_threshold_is_one() {
        let x = Tensor::new([4], vec![0.5f32, 0.25, -1.0, f32::NAN]).unwrap();
        let y = eval_ml("Binarizer", 1, Attrs::new().with("threshold", 0.25f32), &[x]).unwrap();
        assert_eq!(y[0].as_tensor().unwrap(), &Tensor::new([4], vec![1.0f32, 0.0, 0.0, 0.0]).unwrap());
        let x = Tensor::new([2], vec![0i64, 1]).unwrap();
        let y = eval_ml("Binarizer", 1, Attrs::new(), &[x]).unwrap();
        assert_eq!(y[0].as_tensor().unwrap(), &Tensor::new([2], vec![0i64, 1]).unwrap());
    }
}
