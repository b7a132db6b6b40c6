//! `MatMul`: as numpy's `matmul`. <https://onnx.ai/onnx/operators/onnx__MatMul.html>
use crate::limits::watched;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::broadcast;
use crate::ops::numeric::{Num, with_num};
use crate::{DType, Dim, Error, Result, TensorType, Value};

/// `MatMul`.
pub struct MatMul;

/// A product of known shapes: `[batch…, M, K] x [batch…, K, N] -> [batch…, M, N]`; a vector stands for one row on the
/// left or one column on the right, whose axis is dropped from the output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MatMulProblem {
    /// Rows of the left matrix.
    pub m: usize,
    /// Inner extent.
    pub k: usize,
    /// Columns of the right matrix.
    pub n: usize,
    /// Batch extents of the output.
    pub batch: Vec<usize>,
    /// Step between matrices of A along each batch axis, in matrices (0 where A is broadcast).
    pub a_strides: Vec<usize>,
    /// Step between matrices of B along each batch axis, in matrices.
    pub b_strides: Vec<usize>,
    /// Shape of the output.
    pub out: Vec<usize>,
}

/// The batch axes and the two matrix axes of both sides; absent matrix axes are `one`.
fn split<'a, T: Clone>(a: &'a [T], b: &'a [T], one: &T) -> Result<(&'a [T], [T; 2], &'a [T], [T; 2])> {
    let (a_batch, left) = match a {
        [k] => (&[][..], [one.clone(), k.clone()]),
        [batch @ .., m, k] => (batch, [m.clone(), k.clone()]),
        [] => return Err(Error::mismatch("rank of A", 0, "at least 1")),
    };
    let (b_batch, right) = match b {
        [k] => (&[][..], [k.clone(), one.clone()]),
        [batch @ .., k, n] => (batch, [k.clone(), n.clone()]),
        [] => return Err(Error::mismatch("rank of B", 0, "at least 1")),
    };
    Ok((a_batch, left, b_batch, right))
}

/// The output axes: the batch, then M and N where their side is a matrix.
fn out_axes<T: Clone>(batch: &[T], m: T, n: T, a_rank: usize, b_rank: usize) -> Vec<T> {
    let mut out = batch.to_vec();
    out.extend((a_rank > 1).then_some(m));
    out.extend((b_rank > 1).then_some(n));
    out
}

impl MatMulProblem {
    /// Checks two shapes. Errors where they do not fit.
    pub fn new(a: &[usize], b: &[usize]) -> Result<MatMulProblem> {
        let (a_batch, [m, k], b_batch, [k2, n]) = split(a, b, &1)?;
        if k != k2 {
            return Err(Error::mismatch("inner extent of B", k2, format!("{k} as of A")));
        }
        let batch = broadcast::shape(&[a_batch, b_batch])?;
        Ok(MatMulProblem {
            a_strides: broadcast::strides(a_batch, &batch),
            b_strides: broadcast::strides(b_batch, &batch),
            out: out_axes(&batch, m, n, a.len(), b.len()),
            m,
            k,
            n,
            batch,
        })
    }
    /// Calls `f` with the index of A's and of B's matrix for each matrix of the output in order.
    pub fn for_each(&self, mut f: impl FnMut(usize, usize)) {
        broadcast::for_each(&self.batch, [&self.a_strides, &self.b_strides], |[a, b]| f(a, b));
    }
}

/// The output type of a product of possibly symbolic shapes. Errors on what can never fit.
pub(crate) fn infer(cx: &InferCtx<'_>, a: usize, b: usize, dtype: DType) -> Result<TensorType> {
    let (Some(a), Some(b)) = (cx.shape(a)?, cx.shape(b)?) else { return Ok(TensorType::unranked(dtype)) };
    let (a_batch, [m, k], b_batch, [k2, n]) = split(a, b, &Dim::Known(1))?;
    if !k.compatible(&k2) {
        return Err(Error::mismatch("inner extent of B", k2, format!("{k} as of A")));
    }
    let batch = broadcast::dims(&[a_batch, b_batch])?;
    Ok(TensorType::new(dtype, out_axes(&batch, m, n, a.len(), b.len())))
}

/// Adds `a x b` to the zeroed `z[m, n]`; strides are in elements, `[row, column]`. Each output sums over k in order.
pub(crate) fn product<T: Num>(
    a: &[T],
    [ar, ac]: [usize; 2],
    b: &[T],
    [br, bc]: [usize; 2],
    (m, k, n): (usize, usize, usize),
    z: &mut [T],
) {
    for i in watched(0..m) {
        let row = &mut z[i * n..][..n];
        if (ac, br) == (1, 1) {
            // B is transposed: its columns are contiguous
            for (j, v) in watched(row.iter_mut().enumerate()) {
                let pairs = a[i * ar..][..k].iter().zip(&b[j * bc..][..k]);
                *v = pairs.fold(*v, |sum, (left, right)| sum.plus(left.times(*right)));
            }
            continue;
        }
        for l in watched(0..k) {
            let left = a[i * ar + l * ac];
            if bc == 1 {
                for (v, right) in row.iter_mut().zip(&b[l * br..][..n]) {
                    *v = v.plus(left.times(*right));
                }
            } else {
                for (j, v) in row.iter_mut().enumerate() {
                    *v = v.plus(left.times(b[l * br + j * bc]));
                }
            }
        }
    }
}

/// All matrices of a problem.
pub(crate) fn eval<T: Num>(p: &MatMulProblem, a: &[T], b: &[T]) -> Vec<T> {
    let (a_size, b_size, size) = (p.m * p.k, p.k * p.n, p.m * p.n);
    let mut z = vec![T::ZERO; p.batch.iter().product::<usize>() * size];
    let mut at = 0;
    p.for_each(|ia, ib| {
        let (a, b) = (&a[ia * a_size..][..a_size], &b[ib * b_size..][..b_size]);
        product(a, [p.k, 1], b, [p.n, 1], (p.m, p.k, p.n), &mut z[at..][..size]);
        at += size;
    });
    z
}

impl Operator for MatMul {
    fn schema(&self) -> Schema {
        Schema { name: "MatMul", domain: "", since: &[1, 9, 13], inputs: (2, 2), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        cx.need_one_dtype(2)?;
        let dtype = if cx.dtype(0)? == DType::Undefined { cx.dtype(1)? } else { cx.dtype(0)? };
        Ok(vec![infer(cx, 0, 1, dtype)?.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        cx.need_one_dtype(2)?;
        let (a, b) = (cx.tensor(0)?, cx.tensor(1)?);
        let p = MatMulProblem::new(a.shape(), b.shape())?;
        with_num!(a.dtype(), T => {
            let z = eval(&p, &T::load(a)?, &T::load(b)?);
            Ok(vec![T::store(a.dtype(), p.out.clone(), z)?.into()])
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_lose_their_axis() {
        let out = |a: &[usize], b: &[usize]| MatMulProblem::new(a, b).map(|p| p.out);
        assert_eq!(out(&[3], &[3]).unwrap(), [0usize; 0]);
        assert_eq!(out(&[3], &[5, 3, 4]).unwrap(), [5, 4]);
        assert_eq!(out(&[5, 2, 3], &[3]).unwrap(), [5, 2]);
        assert_eq!(out(&[6, 1, 2, 3], &[5, 3, 4]).unwrap(), [6, 5, 2, 4]);
        assert!(out(&[2, 3], &[2, 3]).is_err() && out(&[], &[2]).is_err());
    }

    #[test]
    fn broadcast_batches_share_matrices() {
        let p = MatMulProblem::new(&[2, 1, 2], &[2, 2]).unwrap();
        assert_eq!(
            eval(&p, &[1.0, 2.0, 3.0, 4.0], &[1.0, 10.0, 100.0, 1000.0f32]),
            [201.0, 2010.0, 403.0, 4030.0]
        );
    }
}
