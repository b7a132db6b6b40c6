//! `Det`: determinants of the last two axes. <https://onnx.ai/onnx/operators/onnx__Det.html>
use crate::limits::watched;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::numeric::{Num, Real, with_real};
use crate::{Error, Result, TensorType, Value};

/// `Det`.
pub struct Det;

/// The determinant by elimination with partial pivoting; `a` is `[m, m]` and is overwritten.
fn determinant<T: Real>(a: &mut [T], m: usize) -> T {
    let mut det = T::ONE;
    for col in watched(0..m) {
        let pivot = (col..m).reduce(|p, r| if a[r * m + col].abs() > a[p * m + col].abs() { r } else { p });
        let Some(pivot) = pivot.filter(|p| a[p * m + col] != T::ZERO) else { return T::ZERO };
        if pivot != col {
            (0..m).for_each(|k| a.swap(pivot * m + k, col * m + k));
            det = -det;
        }
        det *= a[col * m + col];
        for row in watched(col + 1..m) {
            let factor = a[row * m + col] / a[col * m + col];
            for k in col..m {
                a[row * m + k] = a[row * m + k] - factor * a[col * m + k];
            }
        }
    }
    det
}

impl Operator for Det {
    fn schema(&self) -> Schema {
        Schema { name: "Det", domain: "", since: &[11, 22], inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let shape = match cx.shape(0)?.map(Vec::as_slice) {
            Some([batch @ .., rows, columns]) if rows.compatible(columns) => Some(batch.to_vec()),
            Some(_) => return Err(Error::mismatch("type of x", cx.ty(0)?, "square matrices")),
            None => None,
        };
        Ok(vec![TensorType { dtype: cx.dtype(0)?, shape }.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let [batch @ .., m, n] = x.shape() else {
            return Err(Error::mismatch("rank of x", x.rank(), "at least 2"));
        };
        if m != n {
            return Err(Error::mismatch("shape of x", format!("{:?}", x.shape()), "square matrices"));
        }
        with_real!(x.dtype(), T => {
            let mut values = T::load(x)?.into_owned();
            let count = batch.iter().product::<usize>();
            let y = (0..count).map(|i| determinant(&mut values[i * m * m..][..m * m], *m)).collect();
            Ok(vec![T::store(x.dtype(), batch, y)?.into()])
        })
    }
}
