//! Operators of `com.microsoft` that compute what one of `ai.onnx` does.
use super::DOMAIN;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::{Op, activation, gather, grid_sample, integer, pad, quantize, trilu};
use crate::{Error, OpNode, Result, Value};

/// An operator that is one of `ai.onnx` under this domain.
pub struct Renamed {
    name: &'static str,
    /// The operator of `ai.onnx`, and the opset version whose text holds.
    inner: (Op, &'static dyn Operator, i64),
    inputs: (usize, usize),
}

/// `DequantizeLinear`: of 4, 8, 16 and 32 bits, with a scale for the tensor or for each index of `axis`.
pub static DEQUANTIZE_LINEAR: Renamed = Renamed {
    name: "DequantizeLinear",
    inner: (Op::DequantizeLinear, &quantize::DequantizeLinear, 13),
    inputs: (2, 3),
};
/// `QuantizeLinear`: to 4, 8 and 16 bits, with a scale for the tensor or for each index of `axis`.
pub static QUANTIZE_LINEAR: Renamed = Renamed {
    name: "QuantizeLinear",
    inner: (Op::QuantizeLinear, &quantize::QuantizeLinear, 13),
    inputs: (2, 3),
};
/// `GatherND` without `batch_dims`.
pub static GATHER_ND: Renamed =
    Renamed { name: "GatherND", inner: (Op::GatherND, &gather::GatherND, 11), inputs: (2, 2) };
/// `Gelu`: `x * Phi(x)`.
pub static GELU: Renamed = Renamed { name: "Gelu", inner: (Op::Gelu, &activation::GELU, 20), inputs: (1, 1) };
/// `GridSample` of four axes.
pub static GRID_SAMPLE: Renamed =
    Renamed { name: "GridSample", inner: (Op::GridSample, &grid_sample::GridSample, 16), inputs: (2, 2) };
/// `Pad` with the pads as an input.
pub static PAD: Renamed = Renamed { name: "Pad", inner: (Op::Pad, &pad::Pad, 11), inputs: (2, 3) };
/// `QLinearConv`, channels first.
pub static Q_LINEAR_CONV: Renamed =
    Renamed { name: "QLinearConv", inner: (Op::QLinearConv, &integer::QLinearConv, 10), inputs: (8, 9) };
/// `Trilu`.
pub static TRILU: Renamed = Renamed { name: "Trilu", inner: (Op::Trilu, &trilu::Trilu, 14), inputs: (1, 2) };

impl Renamed {
    /// The node of `ai.onnx`.
    ///
    /// # Errors
    /// For `channels_last`.
    pub fn node(&self, node: &OpNode) -> Result<OpNode> {
        if node.attrs.flag("channels_last", false)? {
            return Err(Error::unsupported(format!("{DOMAIN}.{} with `channels_last`", self.name)));
        }
        let (op, _, version) = self.inner;
        Ok(OpNode { op, domain: String::new(), version, ..node.clone() })
    }
}

impl Operator for Renamed {
    fn schema(&self) -> Schema {
        Schema { name: self.name, domain: DOMAIN, since: &[1], inputs: self.inputs, outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        self.inner.1.infer(&InferCtx { node: &self.node(cx.node)?, ..*cx })
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        self.inner.1.eval(&EvalCtx { node: &self.node(cx.node)?, ..*cx })
    }
}

#[cfg(test)]
mod tests {
    use crate::attr::Attrs;
    use crate::ops::testing::eval_in;
    use crate::{DType, Tensor, convert};

    fn run(op_type: &str, attrs: Attrs, inputs: &[Option<Tensor>]) -> Tensor {
        eval_in("com.microsoft", op_type, attrs, inputs, 1).unwrap()[0].as_tensor().unwrap().clone()
    }

    #[test]
    fn quantisation_to_16_and_4_bits_and_along_an_axis() {
        let x = Some(Tensor::new([2, 2], vec![1f32, -3.0, 1e6, -1e6]).unwrap());
        let scales = Some(Tensor::new([2], vec![0.5f32, 2.0]).unwrap());
        let zeros = |dtype| Some(convert::from_i64s(dtype, [2], vec![1, -2]).unwrap());
        let axis = || Attrs::new().with("axis", 0i64);
        let y = run("QuantizeLinear", axis(), &[x.clone(), scales.clone(), zeros(DType::I16)]);
        assert_eq!(y.as_slice::<i16>().unwrap()[..], [3, -5, 32767, -32768]);
        let back = run("DequantizeLinear", axis(), &[Some(y), scales.clone(), zeros(DType::I16)]);
        assert_eq!(back.as_slice::<f32>().unwrap()[..], [1.0, -3.0, 65538.0, -65532.0]);
        let nibbles = run("QuantizeLinear", axis(), &[x, scales, zeros(DType::I4)]);
        assert_eq!(convert::to_f64s(&nibbles).unwrap(), [3.0, -5.0, 7.0, -8.0]);
    }

    #[test]
    fn a_name_of_ai_onnx_is_found_by_its_domain() {
        let x = Some(Tensor::new([1], vec![1f32]).unwrap());
        let y = run("Gelu", Attrs::new(), std::slice::from_ref(&x));
        assert!((y.as_slice::<f32>().unwrap()[0] - 0.841_344_7).abs() < 1e-6);
        let last = Attrs::new().with("channels_last", 1i64);
        let inputs: Vec<_> = vec![x; 8];
        assert!(eval_in("com.microsoft", "QLinearConv", last, &inputs, 1).is_err());
    }
}
