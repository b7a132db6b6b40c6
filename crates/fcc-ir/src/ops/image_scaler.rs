//! `ImageScaler`, an experimental operator of the first opsets that exporters of CoreML and WinML models wrote.
//!
//! ONNX took it back; this is what ONNX Runtime's CPU provider computes: `scale * x + bias[c]` of `x[N,C,H,W]`.
use crate::convert::{Narrowing, from_f64s, to_f64s};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema, unsupported_dtype};
use crate::{DType, Error, OpNode, Result, Tensor, Value};

/// `ImageScaler`.
pub struct ImageScaler;

/// The attribute `bias`, one number for each of `channels`, if they are known.
fn bias(node: &OpNode, channels: Option<usize>) -> Result<&[f32]> {
    let bias = node.attrs.floats("bias")?.unwrap_or(&[]);
    match channels {
        Some(c) if c != bias.len() => {
            Err(Error::mismatch("length of `bias`", bias.len(), format!("{c}, one a channel")))
        }
        _ => Ok(bias),
    }
}

impl Operator for ImageScaler {
    fn schema(&self) -> Schema {
        Schema { name: "ImageScaler", domain: "", since: &[1], inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        match cx.shape(0)?.map(Vec::as_slice) {
            Some([_, channels, _, _]) => drop(bias(cx.node, channels.known())?),
            Some(other) => return Err(Error::mismatch("rank", other.len(), 4)),
            None => {}
        }
        Ok(vec![cx.ty(0)?.clone().into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let &[_, channels, h, w] = x.shape() else { return Err(Error::mismatch("rank", x.rank(), 4)) };
        let (scale, bias) = (cx.node.attrs.float_or("scale", 1.0)?, bias(cx.node, Some(channels))?);
        let channel = |i: usize| bias[i / (h * w) % channels];
        Ok(vec![
            match x.dtype() {
                DType::F32 => {
                    let x32 = x.as_slice::<f32>()?;
                    let y = x32.iter().enumerate().map(|(i, v)| scale * v + channel(i));
                    Tensor::new(x.shape(), y.collect::<Vec<_>>())?
                }
                DType::F64 | DType::F16 => {
                    let y = to_f64s(x)?.into_iter().enumerate();
                    let y = y.map(|(i, v)| f64::from(scale) * v + f64::from(channel(i))).collect();
                    from_f64s(x.dtype(), x.shape(), y, Narrowing::default())?
                }
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
    use crate::ops::testing::eval;

    #[test]
    fn scales_and_adds_the_channel_s_bias() {
        let attrs = || Attrs::new().with("scale", 2.0f32).with("bias", vec![10.0f32, -1.0]);
        let x = || Tensor::new([2, 2, 1, 2], (0..8).map(|v| v as f32).collect()).unwrap();
        let run = |attrs, x| eval("ImageScaler", 1, attrs, &[Some(x)], 1);
        let wanted =
            Tensor::new([2, 2, 1, 2], vec![10.0f32, 12.0, 3.0, 5.0, 18.0, 20.0, 11.0, 13.0]).unwrap();
        assert_eq!(run(attrs(), x()).unwrap()[0].as_tensor().unwrap(), &wanted);
        assert!(run(attrs().with("bias", vec![1.0f32]), x()).is_err());
        assert!(run(attrs(), x().reshaped([2, 2, 2]).unwrap()).is_err());
        let none = Tensor::new([1, 2, 0, 2], Vec::<f32>::new()).unwrap();
        assert!(run(attrs(), none).unwrap()[0].as_tensor().unwrap().is_empty());
    }
}
