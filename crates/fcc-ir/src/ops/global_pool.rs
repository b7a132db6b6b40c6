//! `GlobalAveragePool`, `GlobalMaxPool`, `GlobalLpPool`: one number for each plane of `[N, C, spatial…]`.
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::numeric::{Num, Real, with_real};
use crate::ops::pool::{norm, order};
use crate::{Dim, Error, Result, TensorType, Value};

/// A pooling over all spatial axes.
pub struct GlobalPool {
    name: &'static str,
    since: &'static [i64],
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Average,
    Max,
    Lp,
}

/// `GlobalAveragePool`.
pub static AVERAGE: GlobalPool =
    GlobalPool { name: "GlobalAveragePool", since: &[1, 22], kind: Kind::Average };
/// `GlobalLpPool`.
pub static LP: GlobalPool = GlobalPool { name: "GlobalLpPool", since: &[1, 2, 22], kind: Kind::Lp };
/// `GlobalMaxPool`.
pub static MAX: GlobalPool = GlobalPool { name: "GlobalMaxPool", since: &[1, 22], kind: Kind::Max };

fn out_shape<T: Clone>(x: &[T], one: T) -> Result<Vec<T>> {
    match x {
        [n, c, spatial @ ..] => {
            Ok([n, c].into_iter().cloned().chain(spatial.iter().map(|_| one.clone())).collect())
        }
        _ => Err(Error::mismatch("rank of x", x.len(), "at least 2")),
    }
}

impl Operator for GlobalPool {
    fn schema(&self) -> Schema {
        Schema { name: self.name, domain: "", since: self.since, inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let shape = cx.shape(0)?.map(|s| out_shape(s, Dim::Known(1))).transpose()?;
        Ok(vec![TensorType { dtype: cx.dtype(0)?, shape }.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let shape = out_shape(x.shape(), 1)?;
        let p = if self.kind == Kind::Lp { order(cx.node)? } else { 0.0 };
        let (planes, size) = (shape.iter().product(), x.shape()[2..].iter().product::<usize>());
        with_real!(x.dtype(), T => {
            let values = T::load(x)?;
            let pool = |plane: &[T]| match self.kind {
                Kind::Average => {
                    plane.iter().fold(T::ZERO, |sum, v| sum + *v) / T::from_f64(plane.len() as f64)
                }
                Kind::Max => plane.iter().fold(T::LOWEST, |m, v| if *v > m || v.is_nan() { *v } else { m }),
                Kind::Lp => norm(&mut plane.iter().copied(), T::of(p)),
            };
            let y = (0..planes).map(|i| pool(&values[i * size..][..size])).collect();
            Ok(vec![T::store(x.dtype(), shape, y)?.into()])
        })
    }
}
