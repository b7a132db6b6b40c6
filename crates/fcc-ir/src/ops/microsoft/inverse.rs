//! `Inverse`: of square matrices.
use super::DOMAIN;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema, unsupported_dtype};
use crate::{Error, Result, Value, convert};

/// `Inverse`: of each matrix of the last two axes. A singular matrix gives infinities and NaN.
pub struct Inverse;

/// The inverse of `[n, n]` by elimination with the greatest pivot of each column. Errors where a limit of
/// the run is reached.
fn invert(mut m: Vec<f64>, n: usize) -> Result<Vec<f64>> {
    let mut out: Vec<f64> = (0..n * n).map(|i| f64::from(u8::from(i / n == i % n))).collect();
    for c in 0..n {
        crate::limits::check()?;
        let better =
            |best: usize, r: usize| if m[r * n + c].abs() > m[best * n + c].abs() { r } else { best };
        let pivot = (c + 1..n).fold(c, better);
        for j in 0..n {
            m.swap(c * n + j, pivot * n + j);
            out.swap(c * n + j, pivot * n + j);
        }
        let by = m[c * n + c];
        for j in 0..n {
            m[c * n + j] /= by;
            out[c * n + j] /= by;
        }
        for r in (0..n).filter(|r| *r != c) {
            let factor = m[r * n + c];
            for j in 0..n {
                m[r * n + j] -= factor * m[c * n + j];
                out[r * n + j] -= factor * out[c * n + j];
            }
        }
    }
    Ok(out)
}

impl Operator for Inverse {
    fn schema(&self) -> Schema {
        Schema { name: "Inverse", domain: DOMAIN, since: &[1], inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        match cx.shape(0)?.map(Vec::as_slice) {
            None => {}
            Some([.., rows, columns]) if rows.compatible(columns) => {}
            Some(_) => return Err(Error::mismatch("type of X", cx.ty(0)?, "square matrices")),
        }
        Ok(vec![cx.ty(0)?.clone().into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let n = match *x.shape() {
            [.., rows, columns] if rows == columns => rows,
            _ => return Err(Error::mismatch("shape of X", format!("{:?}", x.shape()), "square matrices")),
        };
        if !x.dtype().is_float() || x.dtype().bits() < 16 {
            return Err(unsupported_dtype(x.dtype()));
        }
        let values = convert::to_f64s(x)?;
        let each = values.chunks_exact((n * n).max(1)).map(|m| invert(m.to_vec(), n));
        let y = each.collect::<Result<Vec<_>>>()?.concat();
        Ok(vec![convert::from_f64s(x.dtype(), x.shape(), y, Default::default())?.into()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;
    use crate::attr::Attrs;
    use crate::ops::testing::eval_in;

    #[test]
    fn each_matrix_of_the_batch_is_inverted_and_rows_are_exchanged() {
        let run = |shape: &[usize], v: &[f32]| {
            let x = Some(Tensor::new(shape, v.to_vec()).unwrap());
            eval_in(DOMAIN, "Inverse", Attrs::new(), &[x], 1)
                .map(|y| y[0].as_tensor().unwrap().as_slice::<f32>().unwrap().to_vec())
        };
        let got = run(&[2, 2, 2], &[0.0, 2.0, 4.0, 0.0, 1.0, 1.0, 0.0, 0.5]).unwrap();
        assert_eq!(got, [0.0, 0.25, 0.5, 0.0, 1.0, -2.0, 0.0, 2.0]);
        assert!(run(&[1, 1], &[0.0]).unwrap()[0].is_infinite());
        assert!(run(&[2, 1], &[1.0; 2]).is_err() && run(&[1], &[1.0]).is_err());
    }
}
