//! `Transpose`. <https://onnx.ai/onnx/operators/onnx__Transpose.html>
use super::{lists, movement};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{Error, OpNode, Result, Tensor, TensorType, Value};

/// `Transpose`.
pub struct Transpose;

/// Which input axis each output axis is; without the attribute the axes are reversed.
pub fn perm(node: &OpNode, rank: usize) -> Result<Vec<usize>> {
    let Some(p) = node.attrs.ints("perm")? else { return Ok((0..rank).rev().collect()) };
    if p.len() != rank {
        return Err(Error::mismatch("attribute `perm`", format!("{p:?}"), format!("{rank} axes")));
    }
    lists::axes(p, rank)
}

/// The axes in another order: output axis `i` is input axis `perm[i]`.
pub fn transpose(x: &Tensor, perm: &[usize]) -> Result<Tensor> {
    let whole = movement::whole(x.shape());
    if perm.len() != whole.len() {
        return Err(Error::mismatch("perm", format!("{perm:?}"), format!("{} axes", whole.len())));
    }
    let axis = |&p: &usize| whole.get(p).cloned().ok_or_else(|| Error::invalid("perm outside of the rank"));
    movement::select(x, &perm.iter().map(axis).collect::<Result<Vec<_>>>()?)
}

impl Operator for Transpose {
    fn schema(&self) -> Schema {
        Schema {
            name: "Transpose",
            domain: "",
            since: &[1, 13, 21, 23, 24, 25],
            inputs: (1, 1),
            outputs: (1, 1),
        }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let dtype = cx.dtype(0)?;
        let Some(x) = cx.shape(0)? else { return Ok(vec![TensorType::unranked(dtype).into()]) };
        let perm = perm(cx.node, x.len())?;
        if perm.len() <= 1 {
            return Ok(vec![Fact { value: None, ..cx.fact(0)?.clone() }]);
        }
        Ok(vec![TensorType::new(dtype, perm.iter().map(|&p| x[p].clone())).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        Ok(vec![transpose(x, &perm(cx.node, x.rank())?)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use crate::attr::Attrs;
    use crate::ops::testing::eval1;
    use crate::{DType, Tensor};

    #[test]
    fn axes_are_reversed_without_perm_and_ordered_by_it() {
        let x = Tensor::new(vec![1, 2, 3], (0..6u8).collect()).unwrap();
        let y = eval1("Transpose", 13, Attrs::new(), &[Some(x.clone())]).unwrap();
        assert_eq!((y.shape(), y.bytes().as_ref()), (&[3, 2, 1][..], &[0, 3, 1, 4, 2, 5][..]));
        let attrs = Attrs::new().with("perm", vec![2i64, 0, 1]);
        assert_eq!(eval1("Transpose", 13, attrs, &[Some(x.clone())]).unwrap().shape(), [3, 1, 2]);
        assert!(eval1("Transpose", 13, Attrs::new().with("perm", vec![0i64, 0, 1]), &[Some(x)]).is_err());
        let nibbles = Tensor::from_unpacked_bits(DType::I4, vec![3, 1], &[1, 2, 3]).unwrap();
        assert_eq!(
            eval1("Transpose", 21, Attrs::new(), &[Some(nibbles)]).unwrap().unpacked_bits(),
            [1, 2, 3]
        );
    }
}
