//! Products and convolutions with what ONNX Runtime's optimiser joins to them: `FusedMatMul`, `TransposeMatMul`,
//! `FusedGemm`, `FusedConv`; and `NhwcConv`, whose x and y are channels last.
use super::{DOMAIN, wrong_shape};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::Op;
use crate::ops::activation::{hard_sigmoid, thresholded_relu};
use crate::ops::conv::{self, Conv};
use crate::ops::gemm::Gemm;
use crate::ops::matmul::{self, MatMulProblem};
use crate::ops::numeric::{Num, with_real};
use crate::ops::recurrent::{Activation, Function};
use crate::ops::transpose::transpose;
use crate::{Error, OpNode, Result, Tensor, TensorType, Value};

/// `alpha * A' * B'`, where the axes of A and B may be exchanged.
pub struct FusedMatMul {
    name: &'static str,
}
/// `FusedMatMul`.
pub static FUSED_MAT_MUL: FusedMatMul = FusedMatMul { name: "FusedMatMul" };
/// `TransposeMatMul`, its older name.
pub static TRANSPOSE_MAT_MUL: FusedMatMul = FusedMatMul { name: "TransposeMatMul" };

/// `FusedGemm`: an activation of a `Gemm`.
pub struct FusedGemm;
/// `FusedConv`: an activation of a `Conv` plus an optional fourth input.
pub struct FusedConv;
/// `NhwcConv`: a `Conv` of x `[N, spatial…, C]`, with w `[M, C/group, kernel…]` as elsewhere.
pub struct NhwcConv;

/// The order of an operand's axes: `transBatch` puts the first one before the last, `trans` exchanges the last two. A
/// vector stays as it is.
fn order(node: &OpNode, side: char, rank: usize) -> Result<Vec<usize>> {
    let flag = |name: &str| node.attrs.flag(&format!("{name}{side}"), false);
    let mut axes: Vec<usize> = (0..rank).collect();
    if flag("transBatch")? {
        if rank < 3 {
            return Err(Error::mismatch(format!("rank of {side}"), rank, "at least 3 for `transBatch`"));
        }
        axes[..rank - 1].rotate_left(1);
    }
    if flag("trans")? && rank > 1 {
        axes.swap(rank - 2, rank - 1);
    }
    Ok(axes)
}

impl Operator for FusedMatMul {
    fn schema(&self) -> Schema {
        Schema { name: self.name, domain: DOMAIN, since: &[1], inputs: (2, 2), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.need_one_dtype(2)?;
        let mut inputs = cx.inputs.to_vec();
        for (input, side) in inputs.iter_mut().zip(['A', 'B']) {
            if let Some(Fact { ty: crate::ValueType::Tensor(t), .. }) = input
                && let Some(shape) = &mut t.shape
            {
                *shape = order(cx.node, side, shape.len())?.iter().map(|a| shape[*a].clone()).collect();
            }
        }
        let inner = InferCtx { inputs: &inputs, ..*cx };
        Ok(vec![matmul::infer(&inner, 0, 1, cx.dtype(0)?)?.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        cx.need_one_dtype(2)?;
        let operand = |i: usize, side: char| {
            let t = cx.tensor(i)?;
            transpose(t, &order(cx.node, side, t.rank())?)
        };
        let (a, b) = (operand(0, 'A')?, operand(1, 'B')?);
        let p = MatMulProblem::new(a.shape(), b.shape())?;
        let alpha = cx.node.attrs.float_or("alpha", 1.0)?;
        with_real!(a.dtype(), T => {
            let (x, y) = (T::load(&a)?, T::load(&b)?);
            let alpha = T::from_f64(f64::from(alpha));
            let mut z = Vec::with_capacity(p.out.iter().product());
            p.for_each(|i, j| {
                let mut one = vec![T::ZERO; p.m * p.n];
                let (x, y) = (&x[i * p.m * p.k..], &y[j * p.k * p.n..]);
                matmul::product(x, [p.k, 1], y, [p.n, 1], (p.m, p.k, p.n), &mut one);
                z.extend(one.into_iter().map(|v| alpha * v));
            });
            Ok(vec![T::store(a.dtype(), p.out, z)?.into()])
        })
    }
}

/// What is applied to a product or a convolution.
#[derive(Debug, Clone, Copy)]
enum Applied {
    Nothing,
    Function(Activation),
    Clip(f32, f32),
    HardSwish,
    ThresholdedRelu(f32),
}

impl Applied {
    /// The activation of this name; `param` gives its parameters in order. Errors on a missing one.
    fn new(name: &str, param: impl Fn(usize) -> Result<Option<f32>>) -> Result<Applied> {
        let need = |i: usize| {
            param(i)?.ok_or_else(|| {
                Error::mismatch(format!("parameter {i} of activation `{name}`"), "none", "a float")
            })
        };
        match name {
            "Clip" => Ok(Applied::Clip(need(0)?, need(1)?)),
            "HardSwish" => Ok(Applied::HardSwish),
            // the operator is 0 at alpha itself, the function of recurrent networks is not
            "ThresholdedRelu" => Ok(Applied::ThresholdedRelu(need(0)?)),
            _ => {
                let function = Function::parse(name)?;
                let (alpha, beta) = function.defaults();
                let alpha = alpha.map_or(Ok(0.0), |_| need(0))?;
                let beta = beta.map_or(Ok(0.0), |_| need(1))?;
                Ok(Applied::Function(Activation { function, alpha, beta }))
            }
        }
    }
    /// Of a `FusedGemm`.
    fn of_gemm(node: &OpNode) -> Result<Applied> {
        let name = node.attrs.str("activation")?;
        let name = name.ok_or_else(|| Error::mismatch("attribute `activation`", "none", "a function"))?;
        let names = ["activation_alpha", "activation_beta"];
        Applied::new(name, |i| node.attrs.float(names[i]))
    }
    /// Of a `FusedConv`.
    fn of_conv(node: &OpNode) -> Result<Applied> {
        let params = node.attrs.floats("activation_params")?.unwrap_or_default();
        match node.attrs.str("activation")? {
            None => Ok(Applied::Nothing),
            Some(name) => Applied::new(name, |i| Ok(params.get(i).copied())),
        }
    }
    /// The activation of every element of `x + z`.
    fn apply(self, x: &Tensor, z: Option<&Tensor>) -> Result<Tensor> {
        with_real!(x.dtype(), T => {
            let mut y = T::load(x)?.into_owned();
            if let Some(z) = z {
                y.iter_mut().zip(&*T::load(z)?).for_each(|(y, z)| *y += *z);
            }
            let f = |v: T| match self {
                Applied::Nothing => v,
                Applied::Function(f) => f.apply(v),
                Applied::Clip(low, high) => {
                    let (low, high) = (T::from_f64(f64::from(low)), T::from_f64(f64::from(high)));
                    if v < low { low } else if v > high { high } else { v }
                }
                Applied::ThresholdedRelu(alpha) => thresholded_relu(v, [T::from_f64(f64::from(alpha)), T::ZERO]),
                Applied::HardSwish => v * hard_sigmoid(v, [T::from_f64(1.0 / 6.0), T::from_f64(0.5)]),
            };
            y.iter_mut().for_each(|v| *v = f(*v));
            T::store(x.dtype(), x.shape(), y)
        })
    }
}

/// The node as one of `ai.onnx`.
fn plain(node: &OpNode, op: Op, version: i64, n_inputs: usize) -> OpNode {
    let op_type = op.schema().map_or_else(String::new, |s| s.name.to_string());
    OpNode { op, domain: String::new(), op_type, version, n_inputs: n_inputs as u32, ..node.clone() }
}

/// The only output of an operator.
fn only(outputs: Vec<Value>) -> Result<Tensor> {
    outputs.first().ok_or_else(|| Error::invalid("no output"))?.as_tensor().cloned()
}

impl Operator for FusedGemm {
    fn schema(&self) -> Schema {
        Schema { name: "FusedGemm", domain: DOMAIN, since: &[1], inputs: (2, 3), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Applied::of_gemm(cx.node)?;
        Gemm.infer(&InferCtx { node: &plain(cx.node, Op::Gemm, 13, cx.inputs.len()), ..*cx })
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let applied = Applied::of_gemm(cx.node)?;
        let node = plain(cx.node, Op::Gemm, 13, cx.inputs.len());
        let y = only(Gemm.eval(&EvalCtx { node: &node, ..*cx })?)?;
        Ok(vec![applied.apply(&y, None)?.into()])
    }
}

impl Operator for FusedConv {
    fn schema(&self) -> Schema {
        Schema { name: "FusedConv", domain: DOMAIN, since: &[1], inputs: (2, 4), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Applied::of_conv(cx.node)?;
        cx.need_one_dtype(4)?;
        let y = conv::infer(cx, 0, 1, Some(2), cx.dtype(0)?)?;
        if cx.has(3)
            && let (Some(y), Some(z)) = (&y.shape, cx.shape(3)?)
            && (y.len() != z.len() || y.iter().zip(z).any(|(y, z)| !y.compatible(z)))
        {
            return Err(Error::mismatch("shape of `Z`", cx.ty(3)?, "that of the output"));
        }
        Ok(vec![y.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        cx.need_one_dtype(4)?;
        let applied = Applied::of_conv(cx.node)?;
        let inputs = &cx.inputs[..cx.inputs.len().min(3)];
        let node = plain(cx.node, Op::Conv, 11, inputs.len());
        let y = only(Conv.eval(&EvalCtx { node: &node, inputs, ..*cx })?)?;
        let z = cx.opt_tensor(3)?;
        if let Some(z) = z.filter(|z| z.shape() != y.shape()) {
            return Err(wrong_shape("Z", z.shape(), format!("{:?} as the output", y.shape())));
        }
        Ok(vec![applied.apply(&y, z)?.into()])
    }
}

/// The order of axes that puts the channels second, and the one that puts them last.
fn channels_second(rank: usize) -> Result<(Vec<usize>, Vec<usize>)> {
    if rank < 3 {
        return Err(Error::mismatch("rank of x", rank, "at least 3"));
    }
    let second = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
    let last = [0].into_iter().chain(2..rank).chain([1]).collect();
    Ok((second, last))
}

impl Operator for NhwcConv {
    fn schema(&self) -> Schema {
        Schema { name: "NhwcConv", domain: DOMAIN, since: &[1], inputs: (2, 3), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.need_one_dtype(3)?;
        let dtype = cx.dtype(0)?;
        let Some(x) = cx.shape(0)? else { return Ok(vec![TensorType::unranked(dtype).into()]) };
        let (second, last) = channels_second(x.len())?;
        let mut inputs = cx.inputs.to_vec();
        inputs[0] = Some(TensorType::new(dtype, second.iter().map(|a| x[*a].clone())).into());
        let mut y = conv::infer(&InferCtx { inputs: &inputs, ..*cx }, 0, 1, Some(2), dtype)?;
        y.shape = y.shape.map(|y| last.iter().map(|a| y[*a].clone()).collect());
        Ok(vec![y.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let (second, last) = channels_second(x.rank())?;
        let mut inputs = cx.inputs.to_vec();
        inputs[0] = Some(transpose(x, &second)?.into());
        let node = plain(cx.node, Op::Conv, 11, inputs.len());
        let y = only(Conv.eval(&EvalCtx { node: &node, inputs: &inputs, ..*cx })?)?;
        Ok(vec![transpose(&y, &last)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::eval_in;

    fn t(shape: &[usize], v: &[f32]) -> Option<Tensor> {
        Some(Tensor::new(shape, v.to_vec()).unwrap())
    }
    fn run(op: &str, attrs: Attrs, inputs: &[Option<Tensor>]) -> Result<(Vec<usize>, Vec<f32>)> {
        let y = only(eval_in(DOMAIN, op, attrs, inputs, 1)?)?;
        Ok((y.shape().to_vec(), y.as_slice::<f32>()?.to_vec()))
    }

    #[test]
    fn batch_and_matrix_axes_are_exchanged_before_the_product() {
        // A is [rows, batch, inner], B [inner, columns] of one batch
        let a = t(&[2, 3, 1], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let b = t(&[1, 2, 1], &[10.0, 100.0]);
        let attrs = || Attrs::new().with("transB", 1i64).with("alpha", 0.5f32);
        let (shape, y) =
            run("FusedMatMul", attrs().with("transBatchA", 1i64), &[a.clone(), b.clone()]).unwrap();
        assert_eq!(shape, [3, 2, 2]);
        assert_eq!(y, [5.0, 50.0, 20.0, 200.0, 10.0, 100.0, 25.0, 250.0, 15.0, 150.0, 30.0, 300.0]);
        let (shape, y) = run(
            "TransposeMatMul",
            attrs().with("transA", 1i64),
            &[t(&[1, 2], &[1.0, 2.0]), t(&[1, 1], &[4.0])],
        )
        .unwrap();
        assert_eq!((shape, y), (vec![2, 1], vec![2.0, 4.0]));
        let inputs = [t(&[2, 1], &[1.0, 2.0]), t(&[2], &[10.0, 100.0])];
        let (shape, y) = run("FusedMatMul", Attrs::new().with("transA", 1i64), &inputs).unwrap();
        assert_eq!((shape, y), (vec![1], vec![210.0]));
        // a vector has no axes to exchange
        let (shape, y) = run("FusedMatMul", attrs(), &[t(&[2], &[1.0, 2.0]), t(&[2], &[3.0, 4.0])]).unwrap();
        assert_eq!((shape, y), (vec![], vec![5.5]));
        assert!(run("FusedMatMul", attrs().with("transBatchB", 1i64), &[a, t(&[2, 1], &[1.0; 2])]).is_err());
    }

    #[test]
    fn activations_follow_and_their_parameters_are_needed() {
        let gemm = |attrs: Attrs| {
            let inputs = [t(&[1, 1], &[2.0]), t(&[1, 3], &[1.0, -1.0, 3.0]), t(&[1], &[-1.0])];
            run("FusedGemm", attrs, &inputs).map(|y| y.1)
        };
        let named = |name: &str| Attrs::new().with("activation", name);
        assert_eq!(gemm(named("Relu")).unwrap(), [1.0, 0.0, 5.0]);
        assert_eq!(gemm(named("LeakyRelu").with("activation_alpha", 0.5f32)).unwrap(), [1.0, -1.5, 5.0]);
        // 0 at alpha itself
        let threshold = named("ThresholdedRelu").with("activation_alpha", 1f32);
        assert_eq!(gemm(threshold).unwrap(), [0.0, 0.0, 5.0]);
        for bad in [named("LeakyRelu"), named("Swish"), Attrs::new()] {
            assert!(gemm(bad).is_err());
        }
        let conv = |attrs: Attrs, z: Option<Tensor>| {
            let inputs = [t(&[1, 1, 3], &[1.0, -2.0, 4.0]), t(&[1, 1, 2], &[1.0, 1.0]), t(&[1], &[0.5]), z];
            run("FusedConv", attrs, &inputs).map(|y| y.1)
        };
        // -0.5 and 2.5
        assert_eq!(conv(Attrs::new(), None).unwrap(), [-0.5, 2.5]);
        assert_eq!(conv(named("Relu"), t(&[1, 1, 2], &[1.0, -4.0])).unwrap(), [0.5, 0.0]);
        let clip = named("Clip").with("activation_params", vec![-0.25f32, 2.0]);
        assert_eq!(conv(clip, None).unwrap(), [-0.25, 2.0]);
        assert!((conv(named("HardSwish"), None).unwrap()[0] + 0.208_333_33).abs() < 1e-6);
        assert!(conv(named("Clip"), None).is_err());
        assert!(conv(named("Relu"), t(&[1, 1, 1], &[1.0])).is_err());
    }

    #[test]
    fn channels_lie_last() {
        // two channels: [1, 10], [2, 20], [3, 30]
        let x = t(&[1, 3, 2], &[1.0, 10.0, 2.0, 20.0, 3.0, 30.0]);
        let w = t(&[3, 2, 2], &[1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, -1.0, 0.0]);
        let (shape, y) = run("NhwcConv", Attrs::new(), &[x, w]).unwrap();
        assert_eq!(shape, [1, 2, 3]);
        assert_eq!(y, [1.0, 20.0, -7.0, 2.0, 30.0, -15.0]);
    }
}
