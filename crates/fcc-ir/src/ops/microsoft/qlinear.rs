//! `com.microsoft`: `QLinearAdd` and the other operators that are a float operator between `DequantizeLinear` and
//! `QuantizeLinear`, one scale and zero point a tensor; and `QGemm`.
//! <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>
use super::DOMAIN;
use crate::convert;
use crate::limits::watched;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema, unsupported_dtype};
use crate::ops::integer::{centred, requantize};
use crate::ops::quantize::{integer_range, saturate};
use crate::ops::{Op, activation, binary, broadcast, concat, gemm, global_pool, pool, softmax, unary};
use crate::{DType, Error, OpNode, Result, Tensor, TensorType, Value};

/// How the inputs of an operator stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// `x, x_scale, x_zero_point` for each of this many inputs, then `y_scale, y_zero_point`.
    InputsFirst(usize),
    /// `y_scale, y_zero_point`, then `x, x_scale, x_zero_point` for each of any number of inputs.
    OutputFirst,
}

/// A float operator between dequantisation and quantisation.
pub struct QLinear {
    name: &'static str,
    layout: Layout,
    /// The float operator, and the opset version whose text it follows.
    inner: (Op, &'static dyn Operator, i64),
}

/// `QLinearAdd`.
pub static ADD: QLinear =
    QLinear { name: "QLinearAdd", layout: Layout::InputsFirst(2), inner: (Op::Add, &binary::ADD, 14) };
/// `QLinearMul`.
pub static MUL: QLinear =
    QLinear { name: "QLinearMul", layout: Layout::InputsFirst(2), inner: (Op::Mul, &binary::MUL, 14) };
/// `QLinearSigmoid`.
pub static SIGMOID: QLinear = QLinear {
    name: "QLinearSigmoid",
    layout: Layout::InputsFirst(1),
    inner: (Op::Sigmoid, &unary::SIGMOID, 13),
};
/// `QLinearLeakyRelu`.
pub static LEAKY_RELU: QLinear = QLinear {
    name: "QLinearLeakyRelu",
    layout: Layout::InputsFirst(1),
    inner: (Op::LeakyRelu, &activation::LEAKY_RELU, 16),
};
/// `QLinearGlobalAveragePool`.
pub static GLOBAL_AVERAGE_POOL: QLinear = QLinear {
    name: "QLinearGlobalAveragePool",
    layout: Layout::InputsFirst(1),
    inner: (Op::GlobalAveragePool, &global_pool::AVERAGE, 1),
};
/// `QLinearAveragePool`.
pub static AVERAGE_POOL: QLinear = QLinear {
    name: "QLinearAveragePool",
    layout: Layout::InputsFirst(1),
    inner: (Op::AveragePool, &pool::AveragePool, 11),
};
/// `QLinearConcat`.
pub static CONCAT: QLinear =
    QLinear { name: "QLinearConcat", layout: Layout::OutputFirst, inner: (Op::Concat, &concat::Concat, 13) };

/// `QLinearSoftmax`: of the opset that its attribute `opset` names.
pub static SOFTMAX: QLinear = QLinear {
    name: "QLinearSoftmax",
    layout: Layout::InputsFirst(1),
    inner: (Op::Softmax, &softmax::SOFTMAX, 13),
};

/// The operators of this module by name.
pub static ALL: &[&QLinear] =
    &[&ADD, &MUL, &SIGMOID, &LEAKY_RELU, &GLOBAL_AVERAGE_POOL, &AVERAGE_POOL, &CONCAT, &SOFTMAX];

impl QLinear {
    /// The slots of `(x, scale, zero point)` of each input and of `(scale, zero point)` of the output.
    pub fn slots(&self, n_inputs: usize) -> Result<(Vec<[usize; 3]>, [usize; 2])> {
        Ok(match self.layout {
            Layout::InputsFirst(n) => {
                ((0..n).map(|i| [3 * i, 3 * i + 1, 3 * i + 2]).collect(), [3 * n, 3 * n + 1])
            }
            Layout::OutputFirst => {
                if n_inputs < 5 || !(n_inputs - 2).is_multiple_of(3) {
                    return Err(Error::mismatch("number of inputs", n_inputs, "2 and 3 for each tensor"));
                }
                ((2..n_inputs).step_by(3).map(|i| [i, i + 1, i + 2]).collect(), [0, 1])
            }
        })
    }
    /// The float operator of `ai.onnx` with the node's attributes.
    ///
    /// # Errors
    /// For `channels_last`.
    pub fn float_node(&self, node: &OpNode) -> Result<OpNode> {
        if node.attrs.flag("channels_last", false)? {
            return Err(Error::unsupported(format!("{} with `channels_last`", self.name)));
        }
        let (op, operator, version) = self.inner;
        let mut inner = node.clone();
        inner.op = op;
        inner.domain = String::new();
        inner.op_type = operator.schema().name.into();
        // only `QLinearSoftmax` has the attribute
        inner.version = node.attrs.int_or("opset", version)?;
        inner.n_inputs = self.slots(node.n_inputs as usize)?.0.len() as u32;
        Ok(inner)
    }
}

/// The one element of a scale.
fn scale(t: &Tensor) -> Result<f32> {
    match convert::to_f32s(t)?[..] {
        [s] => Ok(s),
        _ => Err(Error::mismatch("shape of a scale", format!("{:?}", t.shape()), "one element")),
    }
}

/// The one element of a zero point, 0 if absent.
fn zero(t: Option<&Tensor>) -> Result<f64> {
    match t.map(convert::to_f64s).transpose()?.as_deref() {
        None => Ok(0.0),
        Some([z]) => Ok(*z),
        Some(other) => Err(Error::mismatch("elements of a zero point", other.len(), 1)),
    }
}

impl Operator for QLinear {
    fn schema(&self) -> Schema {
        let inputs = match self.layout {
            // the pooling of whole planes and Softmax must have the zero point of y
            Layout::InputsFirst(n) => {
                let needed = matches!(self.name, "QLinearGlobalAveragePool" | "QLinearSoftmax");
                (3 * n + 1 + usize::from(needed), 3 * n + 2)
            }
            Layout::OutputFirst => (3, usize::MAX),
        };
        Schema { name: self.name, domain: DOMAIN, since: &[1], inputs, outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let node = self.float_node(cx.node)?;
        let (inputs, _) = self.slots(cx.inputs.len())?;
        let dtype = cx.dtype(inputs[0][0])?;
        let float = |i: &[usize; 3]| {
            let mut fact = cx.inputs.get(i[0])?.clone()?;
            if let crate::ValueType::Tensor(t) = &mut fact.ty {
                t.dtype = DType::F32;
            }
            Some(Fact { value: None, dims: None, ..fact })
        };
        let facts: Vec<Option<Fact>> = inputs.iter().map(float).collect();
        let inner = InferCtx { node: &node, inputs: &facts, n_outputs: 1, subgraph: cx.subgraph };
        let mut made = self.inner.1.infer(&inner)?;
        for fact in &mut made {
            if let crate::ValueType::Tensor(t) = &mut fact.ty {
                t.dtype = dtype;
            }
        }
        Ok(made)
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let node = self.float_node(cx.node)?;
        let (slots, [y_scale, y_zero]) = self.slots(cx.inputs.len())?;
        let mut inputs = vec![];
        for [x, s, z] in &slots {
            let (t, s, z) = (cx.tensor(*x)?, scale(cx.tensor(*s)?)?, zero(cx.opt_tensor(*z)?)?);
            let values = convert::to_f64s(t)?.iter().map(|v| (v - z) as f32 * s).collect::<Vec<f32>>();
            inputs.push(Some(Tensor::new(t.shape(), values)?.into()));
        }
        let inner = EvalCtx { node: &node, inputs: &inputs, ..*cx };
        let y = self.inner.1.eval(&inner)?;
        let y = y.first().ok_or_else(|| Error::invalid("no output"))?.as_tensor()?;
        let dtype = cx.tensor(slots[0][0])?.dtype();
        let range = integer_range(dtype).ok_or_else(|| unsupported_dtype(dtype))?;
        let (s, z) = (scale(cx.tensor(y_scale)?)?, zero(cx.opt_tensor(y_zero)?)?);
        let values = y.as_slice::<f32>()?.iter().map(|v| saturate(f64::from(v / s), z, range)).collect();
        Ok(vec![convert::from_i64s(dtype, y.shape(), values)?.into()])
    }
}

/// `QGemm`: `Gemm` of quantised A and B and an int32 C of scale `alpha * a_scale * b_scale`; float where y has no scale.
pub struct QGemm;

impl Operator for QGemm {
    fn schema(&self) -> Schema {
        Schema { name: "QGemm", domain: DOMAIN, since: &[1], inputs: (6, 9), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = if cx.has(7) { cx.dtype(0)? } else { DType::F32 };
        let trans = |name: &str| cx.node.attrs.flag(name, false);
        let (ta, tb) = (trans("transA")?, trans("transB")?);
        let extent = |i: usize, at: usize| match cx.shape(i)?.map(Vec::as_slice) {
            Some(s) if s.len() == 2 => Ok(s[at].clone()),
            Some(s) => Err(Error::mismatch(format!("rank of input {i}"), s.len(), 2)),
            None => Ok(crate::Dim::Unknown),
        };
        let shape = vec![extent(0, usize::from(ta))?, extent(3, usize::from(!tb))?];
        Ok(vec![TensorType::new(dtype, shape).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (a, b) = (cx.tensor(0)?, cx.tensor(3)?);
        let p = gemm::params(cx.node)?;
        let (m, k, n) = gemm::extents(p, a.shape(), b.shape())?;
        let a = centred(a, cx.opt_tensor(2)?, 0)?;
        // a vector of zero points of b lies along its columns
        let b = centred(b, cx.opt_tensor(5)?, usize::from(p.transB))?;
        let at = |m: &[i32], trans: bool, rows: usize, cols: usize, i: usize, j: usize| {
            m[if trans { j * rows + i } else { i * cols + j }]
        };
        let c = cx.opt_tensor(6)?;
        let c_at = c.map(|c| crate::ops::broadcast::strides(c.shape(), &[m, n]));
        let c = c.map(|c| c.as_slice::<i32>()).transpose()?;
        let mut sums = Vec::with_capacity(m * n);
        for i in 0..m {
            for j in watched(0..n) {
                let start = match (&c, &c_at) {
                    (Some(c), Some(s)) => {
                        *c.get(i * s[0] + j * s[1]).ok_or_else(|| Error::invalid("C does not fit"))?
                    }
                    _ => 0,
                };
                let dot = (0..k).fold(start, |sum, l| {
                    sum.wrapping_add(at(&a, p.transA, m, k, i, l) * at(&b, p.transB, k, n, l, j))
                });
                sums.push(dot);
            }
        }
        let alpha_a = convert::to_f32s(cx.tensor(1)?)?.iter().map(|s| s * p.alpha).collect::<Vec<f32>>();
        let (a_scale, b_scale) = (Tensor::new(cx.tensor(1)?.shape(), alpha_a)?, cx.tensor(4)?);
        if let Some(y_scale) = cx.opt_tensor(7)? {
            let none = convert::from_i64s(cx.tensor(0)?.dtype(), vec![], vec![0])?;
            let y_zero = cx.opt_tensor(8)?.unwrap_or(&none);
            let scales = [(&a_scale, 1), (b_scale, 0), (y_scale, 1)];
            return Ok(vec![requantize(&sums, &[m, n], scales, y_zero)?.into()]);
        }
        Ok(vec![super::dynamic_quantize::scaled(&sums, &[m, n], &a_scale, b_scale, None)?])
    }
}

/// `QLinearWhere`: condition, then value, scale and zero point of X, of Y, and scale and zero point of the output.
pub struct QLinearWhere;

impl Operator for QLinearWhere {
    fn schema(&self) -> Schema {
        Schema { name: "QLinearWhere", domain: DOMAIN, since: &[1], inputs: (9, 9), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let shapes = [cx.shape(0)?, cx.shape(1)?, cx.shape(4)?];
        let dtype = cx.dtype(1)?;
        let [Some(c), Some(x), Some(y)] = shapes else { return Ok(vec![TensorType::unranked(dtype).into()]) };
        Ok(vec![TensorType { dtype, shape: Some(broadcast::dims(&[c, x, y])?) }.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (c, x, y) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(4)?);
        if y.dtype() != x.dtype() {
            return Err(Error::mismatch("element type of Y", y.dtype(), x.dtype()));
        }
        let range = integer_range(x.dtype()).ok_or_else(|| unsupported_dtype(x.dtype()))?;
        let real = |t: &Tensor, at: usize| {
            let (s, z) = (scale(cx.tensor(at)?)?, zero(cx.opt_tensor(at + 1)?)?);
            Ok::<_, Error>(convert::to_f64s(t)?.iter().map(|v| (v - z) as f32 * s).collect::<Vec<f32>>())
        };
        let (on, left, right) = (c.as_bools()?, real(x, 2)?, real(y, 5)?);
        let (s, z) = (scale(cx.tensor(7)?)?, zero(cx.opt_tensor(8)?)?);
        let shape = broadcast::shape(&[c.shape(), x.shape(), y.shape()])?;
        let strides = [c, x, y].map(|t| broadcast::strides(t.shape(), &shape));
        let mut out = vec![];
        broadcast::for_each(&shape, [&strides[0], &strides[1], &strides[2]], |[i, j, k]| {
            let v = if on[i] { left[j] } else { right[k] };
            out.push(saturate(f64::from(v / s), z, range));
        });
        Ok(vec![convert::from_i64s(x.dtype(), shape, out)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::eval_in;

    #[test]
    fn an_addition_happens_between_two_scales() {
        let t = |v: Vec<u8>| Some(Tensor::new([v.len()], v).unwrap());
        let (s, z) = (|v: f32| Some(Tensor::scalar(v)), |v: u8| Some(Tensor::scalar(v)));
        let inputs = [t(vec![0, 10, 255]), s(0.5), z(10), t(vec![0, 1, 255]), s(2.0), z(0), s(1.0), z(3)];
        let y = eval_in("com.microsoft", "QLinearAdd", Attrs::new(), &inputs, 1).unwrap();
        // -5 + 0 + 3, 0 + 2 + 3, 122.5 + 510 + 3
        assert_eq!(y[0].as_tensor().unwrap().as_slice::<u8>().unwrap()[..], [0, 5, 255]);
    }

    #[test]
    fn a_product_adds_c_before_it_is_scaled() {
        let m = |shape: [usize; 2], v: Vec<u8>| Some(Tensor::new(shape, v).unwrap());
        let (s, z) = (|v: f32| Some(Tensor::scalar(v)), |v: u8| Some(Tensor::scalar(v)));
        let c = Some(Tensor::new([2], vec![100i32, -100]).unwrap());
        let inputs = [
            m([1, 2], vec![3, 5]),
            s(0.5),
            z(1),
            m([2, 2], vec![1, 2, 3, 4]),
            s(1.0),
            z(0),
            c,
            s(0.25),
            z(7),
        ];
        let y = eval_in("com.microsoft", "QGemm", Attrs::new().with("transB", 1i64), &inputs, 1).unwrap();
        // (2 1 + 4 2 + 100) * 2 + 7, (2 3 + 4 4 - 100) * 2 + 7
        assert_eq!(y[0].as_tensor().unwrap().as_slice::<u8>().unwrap()[..], [227, 0]);
    }

    #[test]
    fn a_softmax_follows_its_opset_and_a_choice_its_condition() {
        let (s, z) = (|v: f32| Some(Tensor::scalar(v)), |v: u8| Some(Tensor::scalar(v)));
        let x = Some(Tensor::new([2, 2], vec![0u8, 0, 255, 255]).unwrap());
        let run = |opset: i64| {
            let attrs = Attrs::new().with("axis", 0i64).with("opset", opset);
            let y = eval_in(
                "com.microsoft",
                "QLinearSoftmax",
                attrs,
                &[x.clone(), s(1.0), z(0), s(1.0 / 256.0), z(0)],
                1,
            );
            y.unwrap()[0].as_tensor().unwrap().as_slice::<u8>().unwrap().to_vec()
        };
        assert_eq!(run(13), [0, 0, 255, 255]);
        // all behind the axis are one
        assert_eq!(run(12), [0, 0, 128, 128]);
        let on = Some(Tensor::from_bools([2], [true, false]).unwrap());
        let (a, b) =
            (Some(Tensor::new([1], vec![5u8]).unwrap()), Some(Tensor::new([2], vec![1u8, 2]).unwrap()));
        let inputs = [on, a, s(0.5), z(1), b, s(4.0), z(0), s(1.0), z(10)];
        let y = eval_in("com.microsoft", "QLinearWhere", Attrs::new(), &inputs, 1).unwrap();
        assert_eq!(y[0].as_tensor().unwrap().as_slice::<u8>().unwrap()[..], [12, 18]);
    }
}
