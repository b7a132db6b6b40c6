//! `Cast`, `CastLike`, `BitCast`. <https://onnx.ai/onnx/operators/onnx__Cast.html>,
//! <https://onnx.ai/onnx/operators/onnx__BitCast.html>
use crate::convert::{Narrowing, ScaleRound, cast};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{DType, Error, OpNode, Result, Tensor, TensorType, Value, ValueType};

/// `Cast`.
pub struct Cast;
/// `CastLike`.
pub struct CastLike;
/// `BitCast`.
pub struct BitCast;

/// The attribute `to`: a number since version 6, a name before.
pub fn target(node: &OpNode) -> Result<DType> {
    if let Ok(Some(name)) = node.attrs.str("to") {
        return DType::from_name(&name.to_lowercase())
            .ok_or_else(|| Error::mismatch("attribute `to`", name, "an element type"));
    }
    let code = node.attrs.need_int("to")?;
    let dtype = i32::try_from(code).ok().and_then(DType::from_code).filter(|d| *d != DType::Undefined);
    dtype.ok_or_else(|| Error::mismatch("attribute `to`", code, "an element type"))
}

/// `saturate` and `round_mode`.
pub fn narrowing(node: &OpNode) -> Result<Narrowing> {
    Ok(Narrowing {
        saturate: node.attrs.flag("saturate", true)?,
        scale: match node.attrs.str_or("round_mode", "up")? {
            "up" => ScaleRound::Up,
            "down" => ScaleRound::Down,
            "nearest" => ScaleRound::Nearest,
            other => return Err(Error::mismatch("attribute `round_mode`", other, "up, down or nearest")),
        },
    })
}

/// The input's shape with another element type; small integer tensors keep their elements between integer types.
fn fact(cx: &InferCtx<'_>, dtype: DType) -> Result<Vec<Fact>> {
    if let Some(d) = cx.dims(0).filter(|_| matches!(dtype, DType::I64 | DType::I32)) {
        return Ok(vec![Fact::of_dims(dtype, d)]);
    }
    let ty = TensorType { dtype, shape: cx.shape(0)?.cloned() };
    Ok(vec![ValueType::Tensor(ty).into()])
}

impl Operator for Cast {
    fn schema(&self) -> Schema {
        Schema {
            name: "Cast",
            domain: "",
            since: &[1, 6, 9, 13, 19, 21, 23, 24, 25, 28],
            inputs: (1, 1),
            outputs: (1, 1),
        }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        fact(cx, target(cx.node)?)
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        Ok(vec![cast(cx.tensor(0)?, target(cx.node)?, narrowing(cx.node)?)?.into()])
    }
}

impl Operator for CastLike {
    fn schema(&self) -> Schema {
        Schema {
            name: "CastLike",
            domain: "",
            since: &[15, 19, 21, 23, 24, 25],
            inputs: (2, 2),
            outputs: (1, 1),
        }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        fact(cx, cx.dtype(1)?)
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        Ok(vec![cast(cx.tensor(0)?, cx.tensor(1)?.dtype(), narrowing(cx.node)?)?.into()])
    }
}

impl Operator for BitCast {
    fn schema(&self) -> Schema {
        Schema { name: "BitCast", domain: "", since: &[26], inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let (from, to) = (cx.dtype(0)?, target(cx.node)?);
        if from != DType::Undefined {
            same_width(from, to)?;
        }
        Ok(vec![TensorType { dtype: to, shape: cx.shape(0)?.cloned() }.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (x, to) = (cx.tensor(0)?, target(cx.node)?);
        same_width(x.dtype(), to)?;
        Ok(vec![Tensor::from_bytes(to, x.shape(), x.bytes().clone())?.into()])
    }
}

fn same_width(from: DType, to: DType) -> Result<()> {
    if from.bits() == 0 || from.bits() != to.bits() {
        return Err(Error::mismatch("bits of the target type", to, format!("as many as {from}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::eval1;

    #[test]
    fn the_type_is_a_name_in_version_1() {
        let x = Tensor::new(vec![2], vec![1.9f32, -1.9]).unwrap();
        let y = eval1("Cast", 1, Attrs::new().with("to", "INT64"), &[Some(x)]);
        // ONNX's names: INT64 is int64, FLOAT is float
        assert_eq!(y.unwrap().to_i64s().unwrap(), [1, -1]);
    }

    #[test]
    fn bits_are_kept() {
        let x = Tensor::scalar(1f32);
        let to = |d: DType| Attrs::new().with("to", d as i64);
        let y = eval1("BitCast", 26, to(DType::U32), &[Some(x.clone())]).unwrap();
        assert_eq!(y.as_slice::<u32>().unwrap()[0], 0x3F80_0000);
        assert!(eval1("BitCast", 26, to(DType::U16), &[Some(x)]).is_err());
    }
}
