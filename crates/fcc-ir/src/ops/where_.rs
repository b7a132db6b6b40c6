//! `Where`: from X where the condition holds, else from Y. <https://onnx.ai/onnx/operators/onnx__Where.html>
use crate::op::{DimTensor, EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::broadcast;
use crate::{DType, Error, Result, Tensor, Value};

/// `Where`.
pub struct Where;

/// Elements of symbolic shapes, chosen by a constant condition.
fn dims(cx: &InferCtx<'_>) -> Option<DimTensor> {
    let condition = cx.value(0).filter(|c| c.rank() <= 1)?;
    let (scalar, condition) = (condition.rank() == 0, condition.as_bools().ok()?);
    let (x, y) = (cx.dims(1)?, cx.dims(2)?);
    let n = [condition.len(), x.elems().len(), y.elems().len()].into_iter().find(|n| *n != 1).unwrap_or(1);
    let pick = |i: usize| {
        let at = |len: usize| if len == 1 { 0 } else { i };
        let from = if *condition.get(at(condition.len()))? { &x } else { &y };
        from.elems().get(at(from.elems().len())).cloned()
    };
    let elems = (0..n.min(DimTensor::MAX_ELEMS + 1)).map(pick).collect::<Option<Vec<_>>>()?;
    DimTensor::of(scalar && x.is_scalar() && y.is_scalar(), elems)
}

impl Operator for Where {
    fn schema(&self) -> Schema {
        Schema { name: "Where", domain: "", since: &[9, 16], inputs: (3, 3), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = if cx.dtype(1)? == DType::Undefined { cx.dtype(2)? } else { cx.dtype(1)? };
        let ty = broadcast::infer(cx, [0, 1, 2], dtype)?;
        Ok(vec![match dims(cx) {
            Some(dims) if matches!(dtype, DType::I64 | DType::I32) => Fact::of_dims(dtype, dims),
            _ => ty.into(),
        }])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (c, x, y) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        if x.dtype() != y.dtype() {
            return Err(Error::mismatch("element type of Y", y.dtype(), x.dtype()));
        }
        let out = broadcast::shape(&[c.shape(), x.shape(), y.shape()])?;
        let condition = c.as_bools()?;
        let strides = [c, x, y].map(|t| broadcast::strides(t.shape(), &out));
        let strides = [&strides[0][..], &strides[1][..], &strides[2][..]];
        if x.dtype() == DType::String {
            let (xs, ys, mut z) = (x.as_strings()?, y.as_strings()?, vec![]);
            broadcast::for_each(&out, strides, |[c, i, k]| {
                z.push(if condition[c] { xs[i].clone() } else { ys[k].clone() });
            });
            return Ok(vec![Tensor::from_strings(out, z)?.into()]);
        }
        let width = (x.dtype().bits() / 8).max(1);
        let (xs, ys) = (x.unpacked_bits(), y.unpacked_bits());
        let mut z: Vec<u8> = Vec::with_capacity(out.iter().product::<usize>() * width);
        broadcast::for_each(&out, strides, |[c, i, k]| {
            let (from, at) = if condition[c] { (&xs, i) } else { (&ys, k) };
            z.extend_from_slice(&from[at * width..][..width]);
        });
        Ok(vec![Tensor::from_unpacked_bits(x.dtype(), out, &z)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::{eval1, infer};
    use crate::{Dim, ValueType};

    #[test]
    fn strings_are_chosen_and_nibbles_refused() {
        let c = Some(Tensor::from_bools([2, 1], [true, false]).unwrap());
        let strings = |v: [&'static str; 2]| Some(Tensor::from_strings([2], v).unwrap());
        let y =
            eval1("Where", 16, Attrs::new(), &[c.clone(), strings(["a", "b"]), strings(["c", "d"])]).unwrap();
        assert_eq!(y, Tensor::from_strings([2, 2], ["a", "b", "c", "d"]).unwrap());
        let nibbles = |v: [u8; 2]| Some(Tensor::from_unpacked_bits(DType::U4, [2], &v).unwrap());
        let error = eval1("Where", 16, Attrs::new(), &[c, nibbles([1, 2]), nibbles([3, 4])]).unwrap_err();
        assert!(error.to_string().starts_with("element type of input 1: got uint4, wanted float"), "{error}");
    }

    #[test]
    fn a_constant_condition_picks_symbols() {
        let shape = Fact {
            ty: ValueType::tensor(DType::I64, [2usize]),
            dims: DimTensor::vector([Dim::symbol("N"), Dim::Known(3)]),
            value: None,
        };
        let condition = Fact::constant(Tensor::from_bools([2], [true, false]).unwrap());
        let one = Fact::constant(Tensor::scalar(1i64));
        let facts = infer("Where", 16, Attrs::new(), &[Some(condition), Some(shape), Some(one)], 1).unwrap();
        assert_eq!(facts[0].dims.as_ref().unwrap().elems(), [Dim::symbol("N"), Dim::Known(1)]);
    }
}
