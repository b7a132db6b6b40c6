//! `ConvInteger`, `MatMulInteger`, `QLinearConv`, `QLinearMatMul`: products of quantised tensors.
//! <https://onnx.ai/onnx/operators/onnx__QLinearConv.html>
use crate::convert;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema, unsupported_dtype};
use crate::ops::broadcast;
use crate::ops::conv::{self, ConvProblem, direct};
use crate::ops::matmul::{self, MatMulProblem};
use crate::ops::quantize::{integer_range, saturate};
use crate::{DType, Error, Result, Tensor, Value};

/// `ConvInteger`: int32 sums of `(x - x_zero_point) * (w - w_zero_point)`.
pub struct ConvInteger;
/// `MatMulInteger`: the same for matrices.
pub struct MatMulInteger;
/// `QLinearConv`: a convolution of quantised tensors, quantised again.
pub struct QLinearConv;
/// `QLinearMatMul`: a matrix product of quantised tensors, quantised again.
pub struct QLinearMatMul;

/// The elements of an 8-bit tensor as int32.
pub(crate) fn bytes(t: &Tensor) -> Result<Vec<i32>> {
    match t.dtype() {
        DType::U8 => Ok(t.as_slice::<u8>()?.iter().map(|v| i32::from(*v)).collect()),
        DType::I8 => Ok(t.as_slice::<i8>()?.iter().map(|v| i32::from(*v)).collect()),
        other if other.is_float() && other.bits() == 8 => {
            Err(Error::unsupported(format!("products of {other}")))
        }
        other => Err(unsupported_dtype(other)),
    }
}

/// The elements of an 8-bit tensor less a zero point that lies along `axis` (from the end), as int32.
pub(crate) fn centred(t: &Tensor, zero_point: Option<&Tensor>, axis_from_end: usize) -> Result<Vec<i32>> {
    let values = bytes(t)?;
    let Some(z) = zero_point else { return Ok(values) };
    let shape = along(z.shape(), t.shape(), axis_from_end)?;
    if broadcast::shape(&[&shape, t.shape()]).ok().as_deref() != Some(t.shape()) {
        return Err(Error::mismatch(
            "shape of the zero point",
            format!("{:?}", z.shape()),
            format!("one fitting {:?}", t.shape()),
        ));
    }
    let zeros: Vec<i32> = convert::to_f64s(z)?.into_iter().map(|v| v as i32).collect();
    Ok(broadcast::map2((&values, t.shape()), (&zeros, &shape), t.shape(), |v, z| v - z))
}

/// The shape of a scale or zero point for broadcasting: a vector lies along one axis, counted from the end.
pub(crate) fn along(shape: &[usize], of: &[usize], axis_from_end: usize) -> Result<Vec<usize>> {
    match shape {
        [] | [1] => Ok(vec![]),
        [n] if axis_from_end < of.len() || of.is_empty() => {
            Ok(std::iter::once(*n).chain(std::iter::repeat_n(1, axis_from_end)).collect())
        }
        // a vector operand has no such axis: its zero point is one number
        [_] => Err(Error::mismatch("shape of a scale or zero point", format!("{shape:?}"), "a scalar")),
        more => Ok(more.to_vec()),
    }
}

/// `sums * (a_scale * b_scale / y_scale)` in f32, rounded, plus the zero point of y, in its type.
pub(crate) fn requantize(
    sums: &[i32],
    shape: &[usize],
    [a_scale, b_scale, y_scale]: [(&Tensor, usize); 3],
    zero_point: &Tensor,
) -> Result<Tensor> {
    let range = integer_range(zero_point.dtype()).ok_or_else(|| unsupported_dtype(zero_point.dtype()))?;
    let scale = |(t, axis): (&Tensor, usize)| {
        let at = along(t.shape(), shape, axis)?;
        if broadcast::shape(&[&at, shape]).ok().as_deref() != Some(shape) {
            return Err(Error::mismatch(
                "shape of a scale",
                format!("{:?}", t.shape()),
                format!("one fitting {shape:?}"),
            ));
        }
        Ok((at, convert::to_f32s(t)?))
    };
    let ((a_at, a), (b_at, b), (y_at, y)) = (scale(a_scale)?, scale(b_scale)?, scale(y_scale)?);
    let zero_at = along(zero_point.shape(), shape, y_scale.1)?;
    let zeros = convert::to_f64s(zero_point)?;
    if broadcast::shape(&[&zero_at, shape]).ok().as_deref() != Some(shape) {
        return Err(Error::mismatch(
            "shape of the zero point of y",
            format!("{:?}", zero_point.shape()),
            "a scalar",
        ));
    }
    let strides = [&a_at, &b_at, &y_at, &zero_at].map(|s| broadcast::strides(s, shape));
    let mut out = Vec::with_capacity(sums.len());
    broadcast::for_each(shape, [&strides[0], &strides[1], &strides[2], &strides[3]], |[i, j, k, z]| {
        let factor = a[i] * b[j] / y[k];
        out.push(saturate(f64::from(sums[out.len()] as f32 * factor), zeros[z], range));
    });
    convert::from_i64s(zero_point.dtype(), shape, out)
}

fn conv_sums(
    cx: &EvalCtx<'_>,
    x: [Option<&Tensor>; 2],
    w: [Option<&Tensor>; 2],
    b: Option<&Tensor>,
) -> Result<(Vec<i32>, Vec<usize>)> {
    let [[Some(xt), xz], [Some(wt), wz]] = [x, w] else { return Err(Error::invalid("no operands")) };
    let p = ConvProblem::new(cx.node, xt.shape(), wt.shape(), b.map(Tensor::shape))?;
    let spatial = p.spatial.len();
    let b = b.map(|b| b.as_slice::<i32>()).transpose()?;
    // the zero point of w lies along its output channels; padding is x's zero point, which is 0 once centred
    let sums = direct(&p, &centred(xt, xz, spatial)?, &centred(wt, wz, spatial + 1)?, b.as_deref());
    Ok((sums, p.out_shape()))
}

pub(crate) fn matmul_sums(
    a: &Tensor,
    az: Option<&Tensor>,
    b: &Tensor,
    bz: Option<&Tensor>,
) -> Result<(Vec<i32>, Vec<usize>)> {
    let p = MatMulProblem::new(a.shape(), b.shape())?;
    Ok((matmul::eval(&p, &centred(a, az, 1)?, &centred(b, bz, 0)?), p.out))
}

impl Operator for ConvInteger {
    fn schema(&self) -> Schema {
        Schema { name: "ConvInteger", domain: "", since: &[10], inputs: (2, 4), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![conv::infer(cx, 0, 1, None, DType::I32)?.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (sums, shape) = conv_sums(
            cx,
            [Some(cx.tensor(0)?), cx.opt_tensor(2)?],
            [Some(cx.tensor(1)?), cx.opt_tensor(3)?],
            None,
        )?;
        Ok(vec![Tensor::new(shape, sums)?.into()])
    }
}

impl Operator for MatMulInteger {
    fn schema(&self) -> Schema {
        Schema { name: "MatMulInteger", domain: "", since: &[10], inputs: (2, 4), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![matmul::infer(cx, 0, 1, DType::I32)?.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (sums, shape) = matmul_sums(cx.tensor(0)?, cx.opt_tensor(2)?, cx.tensor(1)?, cx.opt_tensor(3)?)?;
        Ok(vec![Tensor::new(shape, sums)?.into()])
    }
}

impl Operator for QLinearConv {
    fn schema(&self) -> Schema {
        Schema { name: "QLinearConv", domain: "", since: &[10], inputs: (8, 9), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![conv::infer(cx, 0, 3, Some(8), cx.dtype(7)?)?.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = [Some(cx.tensor(0)?), Some(cx.tensor(2)?)];
        let w = [Some(cx.tensor(3)?), Some(cx.tensor(5)?)];
        let (sums, shape) = conv_sums(cx, x, w, cx.opt_tensor(8)?)?;
        let spatial = shape.len() - 2;
        let scales = [(cx.tensor(1)?, spatial), (cx.tensor(4)?, spatial), (cx.tensor(6)?, spatial)];
        Ok(vec![requantize(&sums, &shape, scales, cx.tensor(7)?)?.into()])
    }
}

impl Operator for QLinearMatMul {
    fn schema(&self) -> Schema {
        Schema { name: "QLinearMatMul", domain: "", since: &[10, 21], inputs: (8, 8), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![matmul::infer(cx, 0, 3, cx.dtype(7)?)?.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (sums, shape) =
            matmul_sums(cx.tensor(0)?, Some(cx.tensor(2)?), cx.tensor(3)?, Some(cx.tensor(5)?))?;
        // scales of a lie along rows, of b along columns
        let scales = [(cx.tensor(1)?, 1), (cx.tensor(4)?, 0), (cx.tensor(6)?, 1)];
        Ok(vec![requantize(&sums, &shape, scales, cx.tensor(7)?)?.into()])
    }
}
