//! `QuantizeLinear`, `DequantizeLinear`, `DynamicQuantizeLinear`.
//! <https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html>
use crate::convert::{self, Narrowing};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema, unsupported_dtype};
use crate::ops::numeric::{Num, round_through};
use crate::{DType, Error, OpNode, Result, Tensor, TensorType, Value};

/// `QuantizeLinear`: `saturate(round(x / scale) + zero_point)`.
pub struct QuantizeLinear;
/// `DequantizeLinear`: `(x - zero_point) * scale`.
pub struct DequantizeLinear;
/// `DynamicQuantizeLinear`: to uint8 with a scale found from the data.
pub struct DynamicQuantizeLinear;

/// Which elements share a scale: x seen as `[outer, extent, inner]`, the scales as `[outer, ceil(extent / block), inner]`,
/// with ones where `outer` or `inner` does not matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Granularity {
    /// One scale for the tensor.
    Tensor,
    /// One for each index of an axis.
    Axis {
        /// The axis.
        axis: usize,
    },
    /// One for each block of elements along an axis, at each place of the others.
    Block {
        /// The axis.
        axis: usize,
        /// Elements along it that share a scale.
        block: usize,
    },
}

impl Granularity {
    /// From the attributes and the shapes of x and the scale. Errors where they do not fit.
    pub fn new(node: &OpNode, x: &[usize], scale: &[usize]) -> Result<Granularity> {
        let axis = || crate::op::axis(node.attrs.int_or("axis", 1)?, x.len());
        let block = node.attrs.int_or("block_size", 0)?;
        let bad = |wanted: String| Error::mismatch("shape of scale", format!("{scale:?}"), wanted);
        if block == 0 || scale.is_empty() {
            return match scale {
                [] => Ok(Granularity::Tensor),
                // a vector of one element is a tensor's scale unless the axis has that extent
                [1] if x.len() < 2 => Ok(Granularity::Tensor),
                [n] => {
                    let axis = if x.len() == 1 { 0 } else { axis()? };
                    if x[axis] == *n {
                        Ok(Granularity::Axis { axis })
                    } else if *n == 1 {
                        Ok(Granularity::Tensor)
                    } else {
                        Err(bad(format!("[{}] as axis {axis} of x", x[axis])))
                    }
                }
                _ => Err(bad("a scalar or a vector without `block_size`".into())),
            };
        }
        let axis = axis()?;
        let block = usize::try_from(block)
            .map_err(|_| Error::mismatch("attribute `block_size`", block, "at least 0"))?;
        let mut wanted = x.to_vec();
        wanted[axis] = x[axis].div_ceil(block);
        if scale != wanted {
            return Err(bad(format!("{wanted:?}")));
        }
        Ok(Granularity::Block { axis, block })
    }
    /// The index of the scale for each element of x in order.
    pub fn indices(self, x: &[usize]) -> impl Iterator<Item = usize> {
        let len: usize = x.iter().product();
        let (axis, block) = match self {
            Granularity::Tensor => (None, 1),
            Granularity::Axis { axis } => (Some(axis), 1),
            Granularity::Block { axis, block } => (Some(axis), block),
        };
        let extent = axis.map_or(1, |a| x[a]);
        let inner: usize = axis.map_or(1, |a| x[a + 1..].iter().product());
        let scales = extent.div_ceil(block);
        (0..len).map(move |i| {
            let (outer, at) = (i / inner / extent.max(1), i / inner % extent.max(1));
            match self {
                Granularity::Tensor => 0,
                Granularity::Axis { .. } => at,
                Granularity::Block { .. } => (outer * scales + at / block) * inner + i % inner,
            }
        })
    }
}

/// An element type in an attribute, if it is there and not 0.
fn dtype_attribute(node: &OpNode, name: &str) -> Result<Option<DType>> {
    let code = node.attrs.int_or(name, 0)?;
    let dtype = i32::try_from(code).ok().and_then(DType::from_code);
    let dtype =
        dtype.ok_or_else(|| Error::mismatch(format!("attribute `{name}`"), code, "an element type"))?;
    Ok(Some(dtype).filter(|d| *d != DType::Undefined))
}

/// The type that `QuantizeLinear` gives: the zero point's, else `output_dtype`, else uint8.
pub fn quantized_dtype(node: &OpNode, zero_point: Option<DType>) -> Result<DType> {
    let named = dtype_attribute(node, "output_dtype")?;
    match (zero_point, named) {
        (Some(z), Some(n)) if z != n && z != DType::Undefined => {
            Err(Error::mismatch("element type of the zero point", z, format!("{n} as `output_dtype`")))
        }
        (Some(z), _) => Ok(z),
        (None, n) => Ok(n.unwrap_or(DType::U8)),
    }
}

/// Least and greatest value of an integer type that quantisation gives.
pub fn integer_range(dtype: DType) -> Option<(i64, i64)> {
    Some(match dtype {
        DType::U8 => (0, 255),
        DType::I8 => (-128, 127),
        DType::U16 => (0, 65535),
        DType::I16 => (-32768, 32767),
        DType::U4 => (0, 15),
        DType::I4 => (-8, 7),
        DType::U2 => (0, 3),
        DType::I2 => (-2, 1),
        _ => return None,
    })
}

/// The zero point as f64, zeros if absent.
fn zero_points(zero_point: Option<&Tensor>, scale: &Tensor) -> Result<Vec<f64>> {
    let Some(z) = zero_point else { return Ok(vec![0.0; scale.len()]) };
    zero_point_fits(z.shape(), scale.shape())?;
    convert::to_f64s(z)
}

/// Errors unless a zero point has the scale's shape; a scalar and a vector of one element are the same here.
fn zero_point_fits(zero_point: &[usize], scale: &[usize]) -> Result<()> {
    let one = |s: &[usize]| matches!(s, [] | [1]);
    if zero_point == scale || (one(zero_point) && one(scale)) {
        return Ok(());
    }
    let (got, wanted) = (format!("{zero_point:?}"), format!("{scale:?} as of the scale"));
    Err(Error::mismatch("shape of the zero point", got, wanted))
}

/// Holds the shapes of x, scale and zero point to each other, as far as they are known.
fn need_shapes(cx: &InferCtx<'_>) -> Result<()> {
    let known = |i: usize| cx.inputs.get(i)?.as_ref()?.ty.as_tensor()?.known_shape();
    if let (Some(x), Some(scale)) = (known(0), known(1)) {
        Granularity::new(cx.node, &x, &scale)?;
    }
    match (known(2), known(1)) {
        (Some(zero_point), Some(scale)) => zero_point_fits(&zero_point, &scale),
        _ => Ok(()),
    }
}

/// Rounds to an integer type's range; NaN becomes the zero point.
pub(crate) fn saturate(v: f64, zero_point: f64, (low, high): (i64, i64)) -> i64 {
    let rounded = v.round_ties_even();
    let y = if rounded.is_nan() { zero_point } else { rounded + zero_point };
    y.clamp(low as f64, high as f64) as i64
}

impl Operator for QuantizeLinear {
    fn schema(&self) -> Schema {
        let since = &[10, 13, 19, 21, 23, 24, 25, 28];
        Schema { name: "QuantizeLinear", domain: "", since, inputs: (2, 3), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        need_shapes(cx)?;
        let zero_point = if cx.has(2) { Some(cx.dtype(2)?) } else { None };
        let dtype = quantized_dtype(cx.node, zero_point)?;
        Ok(vec![TensorType { dtype, shape: cx.shape(0)?.cloned() }.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (x, scale, zero_point) = (cx.tensor(0)?, cx.tensor(1)?, cx.opt_tensor(2)?);
        let dtype = quantized_dtype(cx.node, zero_point.map(Tensor::dtype))?;
        let granularity = Granularity::new(cx.node, x.shape(), scale.shape())?;
        // the division happens in the scale's type unless the node says otherwise
        let precision = dtype_attribute(cx.node, "precision")?.unwrap_or(scale.dtype());
        let (values, scales) = (convert::to_f64s(x)?, convert::to_f64s(scale)?);
        let zeros = zero_points(zero_point, scale)?;
        let at: Vec<usize> = granularity.indices(x.shape()).collect();
        let mut quotients: Vec<f64> = match precision {
            DType::F32 | DType::F16 | DType::BF16 | DType::F8E8M0 => {
                values.iter().zip(&at).map(|(v, s)| f64::from(*v as f32 / scales[*s] as f32)).collect()
            }
            _ => values.iter().zip(&at).map(|(v, s)| v / scales[*s]).collect(),
        };
        round_through(precision, &mut quotients);
        if let Some(range) = integer_range(dtype) {
            let y = quotients.iter().zip(&at).map(|(q, s)| saturate(*q, zeros[*s], range)).collect();
            return Ok(vec![convert::from_i64s(dtype, x.shape(), y)?.into()]);
        }
        if !dtype.is_float() || dtype.bits() > 8 {
            return Err(unsupported_dtype(dtype));
        }
        let y = quotients.iter().zip(&at).map(|(q, s)| q + zeros[*s]).collect();
        let narrowing = Narrowing { saturate: cx.node.attrs.flag("saturate", true)?, ..Default::default() };
        Ok(vec![convert::from_f64s(dtype, x.shape(), y, narrowing)?.into()])
    }
}

/// The type that `DequantizeLinear` gives: `output_dtype`, else the scale's.
pub fn dequantized_dtype(node: &OpNode, scale: DType) -> Result<DType> {
    Ok(dtype_attribute(node, "output_dtype")?.unwrap_or(scale))
}

impl Operator for DequantizeLinear {
    fn schema(&self) -> Schema {
        let since = &[10, 13, 19, 21, 23, 24, 25, 28];
        Schema { name: "DequantizeLinear", domain: "", since, inputs: (2, 3), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        need_shapes(cx)?;
        let dtype = dequantized_dtype(cx.node, cx.dtype(1)?)?;
        Ok(vec![TensorType { dtype, shape: cx.shape(0)?.cloned() }.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (x, scale, zero_point) = (cx.tensor(0)?, cx.tensor(1)?, cx.opt_tensor(2)?);
        if let Some(z) = zero_point.filter(|z| z.dtype() != x.dtype()) {
            return Err(Error::mismatch("element type of the zero point", z.dtype(), x.dtype()));
        }
        let dtype = dequantized_dtype(cx.node, scale.dtype())?;
        let granularity = Granularity::new(cx.node, x.shape(), scale.shape())?;
        let (values, scales) = (convert::to_f64s(x)?, convert::to_f64s(scale)?);
        let zeros = zero_points(zero_point, scale)?;
        // the difference of integers is exact in f64; the product is rounded to f32 as text and type say
        let of = |(v, s): (&f64, usize)| (v - zeros[s]) as f32 * scales[s] as f32;
        let y = values.iter().zip(granularity.indices(x.shape())).map(of).collect();
        Ok(vec![f32::store(dtype, x.shape(), y)?.into()])
    }
}

/// The scale and zero point of `DynamicQuantizeLinear`: for the range of the values and 0, NaN left out.
pub fn dynamic_range(values: &[f32]) -> (f32, u8) {
    let (low, high) = values.iter().fold((0f32, 0f32), |(l, h), v| (l.min(*v), h.max(*v)));
    let scale = if high == low { 1.0 } else { high - low } / 255.0;
    (scale, (0.0 - low / scale).clamp(0.0, 255.0).round_ties_even() as u8)
}

impl Operator for DynamicQuantizeLinear {
    fn schema(&self) -> Schema {
        Schema { name: "DynamicQuantizeLinear", domain: "", since: &[11], inputs: (1, 1), outputs: (3, 3) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let scalar = |dtype| TensorType { dtype, shape: Some(vec![]) };
        let y = TensorType { dtype: DType::U8, shape: cx.shape(0)?.cloned() };
        Ok([y, scalar(DType::F32), scalar(DType::U8)].map(Fact::from).to_vec())
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let values = x.as_slice::<f32>()?;
        let (scale, zero_point) = dynamic_range(&values);
        let quantize = |v: &f32| saturate(f64::from(*v / scale), f64::from(zero_point), (0, 255)) as u8;
        let y = Tensor::new(x.shape(), values.iter().map(quantize).collect::<Vec<u8>>())?;
        Ok(vec![y.into(), Tensor::scalar(scale).into(), Tensor::scalar(zero_point).into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::{eval, eval1};

    #[test]
    fn scales_belong_to_a_tensor_an_axis_or_blocks() {
        let node = |attrs| crate::ops::testing::node("QuantizeLinear", 21, attrs, 2);
        let of = |attrs, x: &[usize], s: &[usize]| Granularity::new(&node(attrs), x, s);
        assert_eq!(of(Attrs::new(), &[2, 3], &[]).unwrap(), Granularity::Tensor);
        assert_eq!(of(Attrs::new(), &[2, 3], &[3]).unwrap(), Granularity::Axis { axis: 1 });
        assert!(of(Attrs::new(), &[2, 3], &[2]).is_err());
        let blocked = || Attrs::new().with("block_size", 2i64);
        let blocks = of(blocked(), &[2, 3], &[2, 2]).unwrap();
        assert_eq!(blocks.indices(&[2, 3]).collect::<Vec<_>>(), [0, 0, 1, 2, 2, 3]);
        let first = of(blocked().with("axis", 0i64), &[3, 2], &[2, 2]).unwrap();
        assert_eq!(first.indices(&[3, 2]).collect::<Vec<_>>(), [0, 1, 0, 1, 2, 3]);
        assert!(of(blocked(), &[2, 3], &[2, 1]).is_err());
    }

    #[test]
    fn halves_round_to_even_and_the_range_saturates() {
        let x = Some(Tensor::new([5], vec![1f32, 3.0, 1000.0, -1000.0, f32::NAN]).unwrap());
        let (scale, zero) = (Some(Tensor::scalar(2f32)), Some(Tensor::scalar(10u8)));
        let y = eval1("QuantizeLinear", 13, Attrs::new(), &[x, scale.clone(), zero.clone()]).unwrap();
        assert_eq!(y.as_slice::<u8>().unwrap()[..], [10, 12, 255, 0, 10]);
        let back = eval1("DequantizeLinear", 13, Attrs::new(), &[Some(y), scale, zero]).unwrap();
        assert_eq!(back.as_slice::<f32>().unwrap()[..3], [0.0, 4.0, 490.0]);
    }

    #[test]
    fn a_constant_tensor_quantises_dynamically() {
        let x = Some(Tensor::new([2], vec![0f32, 0.0]).unwrap());
        let outputs = eval("DynamicQuantizeLinear", 11, Attrs::new(), &[x], 3).unwrap();
        assert_eq!(outputs[0].as_tensor().unwrap().as_slice::<u8>().unwrap()[..], [0, 0]);
    }
}
