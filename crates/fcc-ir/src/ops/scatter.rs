//! `Scatter`, `ScatterElements`, `ScatterND`, `TensorScatter`.
//! <https://onnx.ai/onnx/operators/onnx__ScatterElements.html>, <https://onnx.ai/onnx/operators/onnx__ScatterND.html>,
//! <https://onnx.ai/onnx/operators/onnx__TensorScatter.html>
use super::gather::{element_offsets, gather_axis, slice_offsets};
use super::movement::Elems;
use crate::convert::{Narrowing, Wide, narrow, widen};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema, axis};
use crate::{Error, OpNode, Result, Tensor, Value};

/// `ScatterElements`, and `Scatter` as it was called before version 11.
pub struct ScatterElements {
    name: &'static str,
    since: &'static [i64],
}
/// `Scatter`.
pub static SCATTER: ScatterElements = ScatterElements { name: "Scatter", since: &[9, 11] };
/// `ScatterElements`.
pub static SCATTER_ELEMENTS: ScatterElements =
    ScatterElements { name: "ScatterElements", since: &[11, 13, 16, 18] };
/// `ScatterND`.
pub struct ScatterND;
/// `TensorScatter`.
pub struct TensorScatter;

/// How an update meets what stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reduction {
    /// It replaces it.
    None,
    /// Sum.
    Add,
    /// Product.
    Mul,
    /// The greater.
    Max,
    /// The lesser.
    Min,
}

/// `reduction`, none by default.
pub fn reduction(node: &OpNode) -> Result<Reduction> {
    match node.attrs.str_or("reduction", "none")? {
        "none" => Ok(Reduction::None),
        "add" => Ok(Reduction::Add),
        "mul" => Ok(Reduction::Mul),
        "max" => Ok(Reduction::Max),
        "min" => Ok(Reduction::Min),
        other => Err(Error::mismatch("attribute `reduction`", other, "none, add, mul, max or min")),
    }
}

/// `x` with `updates` put at linear indices, one after another.
fn put(x: &Tensor, at: &[usize], updates: &Tensor, how: Reduction) -> Result<Tensor> {
    if updates.dtype() != x.dtype() || updates.len() != at.len() {
        return Err(Error::mismatch(
            "updates",
            updates.tensor_type(),
            format!("{} of {}", at.len(), x.dtype()),
        ));
    }
    if how == Reduction::None {
        let from = Elems::of(updates);
        let mut out = Elems::of(x).into_owned();
        at.iter().enumerate().try_for_each(|(j, &i)| out.set(i, &from, j))?;
        return out.into_tensor(x.dtype(), x.shape());
    }
    fn each<T: Copy>(x: &mut [T], at: &[usize], u: &[T], f: impl Fn(T, T) -> T) -> Result<()> {
        for (&i, &u) in at.iter().zip(u) {
            let place = x.get_mut(i).ok_or_else(|| Error::invalid("index outside of the tensor"))?;
            *place = f(*place, u);
        }
        Ok(())
    }
    let mut data = widen(x)?;
    match (&mut data, &widen(updates)?) {
        (Wide::Float(x), Wide::Float(u)) => each(x, at, u, |a, b| match how {
            Reduction::None => b,
            Reduction::Add => a + b,
            Reduction::Mul => a * b,
            Reduction::Max => {
                if a.is_nan() || a > b {
                    a
                } else {
                    b
                }
            }
            Reduction::Min => {
                if a.is_nan() || a < b {
                    a
                } else {
                    b
                }
            }
        }),
        (Wide::Int(x), Wide::Int(u)) => each(x, at, u, |a, b| match how {
            Reduction::None => b,
            Reduction::Add => a.wrapping_add(b),
            Reduction::Mul => a.wrapping_mul(b),
            Reduction::Max => a.max(b),
            Reduction::Min => a.min(b),
        }),
        (Wide::UInt(x), Wide::UInt(u)) => each(x, at, u, |a, b| match how {
            Reduction::None => b,
            Reduction::Add => a.wrapping_add(b),
            Reduction::Mul => a.wrapping_mul(b),
            Reduction::Max => a.max(b),
            Reduction::Min => a.min(b),
        }),
        _ => Err(Error::mismatch("updates", updates.dtype(), x.dtype())),
    }?;
    narrow(data, x.dtype(), x.shape().to_vec(), Narrowing::default())
}

/// The output has the type of the first input.
fn as_data(cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
    Ok(vec![cx.ty(0)?.clone().into()])
}

impl Operator for ScatterElements {
    fn schema(&self) -> Schema {
        Schema { name: self.name, domain: "", since: self.since, inputs: (3, 3), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        as_data(cx)
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (x, indices, updates) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        if indices.shape() != updates.shape() {
            let (got, wanted) = (format!("{:?}", updates.shape()), format!("{:?}", indices.shape()));
            return Err(Error::mismatch("shape of updates", got, wanted));
        }
        let at = element_offsets(x.shape(), indices, gather_axis(cx.node, x.rank())?)?;
        Ok(vec![put(x, &at, updates, reduction(cx.node)?)?.into()])
    }
}

impl Operator for ScatterND {
    fn schema(&self) -> Schema {
        Schema { name: "ScatterND", domain: "", since: &[11, 13, 16, 18], inputs: (3, 3), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        as_data(cx)
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (x, indices, updates) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        let starts = slice_offsets(x.shape(), indices, 0)?;
        let (k, lead) = indices.shape().split_last().unwrap_or((&0, &[]));
        let wanted = [lead, &x.shape()[*k..]].concat();
        if updates.shape() != wanted {
            let got = format!("{:?}", updates.shape());
            return Err(Error::mismatch("shape of updates", got, format!("{wanted:?}")));
        }
        let size: usize = x.shape()[*k..].iter().product();
        let at: Vec<usize> = starts.into_iter().flat_map(|s| s..s + size).collect();
        Ok(vec![put(x, &at, updates, reduction(cx.node)?)?.into()])
    }
}

impl Operator for TensorScatter {
    fn schema(&self) -> Schema {
        Schema { name: "TensorScatter", domain: "", since: &[24], inputs: (2, 3), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        as_data(cx)
    }
    /// Writes `update` into the cache along the sequence axis, from each batch's write index on.
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (cache, update) = (cx.tensor(0)?, cx.tensor(1)?);
        let at = axis(cx.node.attrs.int_or("axis", -2)?, cache.rank())?;
        let fits = update.rank() == cache.rank()
            && (0..cache.rank()).all(|i| {
                if i == at {
                    update.shape()[i] <= cache.shape()[i]
                } else {
                    update.shape()[i] == cache.shape()[i]
                }
            });
        if at == 0 || !fits {
            let wanted =
                format!("{} with at most its extent along axis {at}, not the batch", cache.tensor_type());
            return Err(Error::mismatch("update", update.tensor_type(), wanted));
        }
        let circular = match cx.node.attrs.str_or("mode", "linear")? {
            "linear" => false,
            "circular" => true,
            other => return Err(Error::mismatch("attribute `mode`", other, "linear or circular")),
        };
        let batch = cache.shape()[0];
        let starts = match cx.opt_tensor(2)? {
            Some(t) if t.shape() == [batch] => t.to_i64s()?,
            Some(t) => return Err(Error::mismatch("write_indices", t.tensor_type(), format!("[{batch}]"))),
            None => vec![0; batch],
        };
        let (room, steps) = (cache.shape()[at], update.shape()[at]);
        let inner: usize = cache.shape()[at + 1..].iter().product();
        let per_batch: usize = cache.shape()[1..at].iter().product();
        let mut offsets = Vec::with_capacity(update.len());
        for row in 0..batch * per_batch {
            let given = starts[row / per_batch.max(1)];
            let start = usize::try_from(given)
                .ok()
                .filter(|s| *s < room.max(1) && (circular || s + steps <= room))
                .ok_or_else(|| {
                    Error::mismatch("write index", given, format!("room for {steps} of {room} positions"))
                })?;
            for step in 0..steps {
                let first = (row * room + (start + step) % room) * inner;
                offsets.extend(first..first + inner);
            }
        }
        Ok(vec![put(cache, &offsets, update, Reduction::None)?.into()])
    }
}

#[cfg(test)]
mod tests {
    use crate::Tensor;
    use crate::attr::Attrs;
    use crate::ops::testing::eval1;

    #[test]
    fn repeated_indices_reduce() {
        let x = Tensor::new(vec![3], vec![1i8, 2, 3]).unwrap();
        let i = Tensor::from_i64s([1, -2, 0]);
        let u = Tensor::new(vec![3], vec![10i8, 20, 5]).unwrap();
        let run = |how: &str| {
            let attrs = Attrs::new().with("reduction", how);
            let y = eval1("ScatterElements", 18, attrs, &[Some(x.clone()), Some(i.clone()), Some(u.clone())]);
            y.unwrap().as_slice::<i8>().unwrap().to_vec()
        };
        assert_eq!(run("add"), [6, 32, 3]);
        assert_eq!(run("none"), [5, 20, 3]);
        assert_eq!(run("max"), [5, 20, 3]);
    }

    #[test]
    fn whole_slices_are_replaced() {
        let x = Tensor::new(vec![2, 2], vec![1f32, 2., 3., 4.]).unwrap();
        let i = Tensor::new(vec![1, 1], vec![1i64]).unwrap();
        let u = Tensor::new(vec![1, 2], vec![8f32, 9.]).unwrap();
        let y = eval1("ScatterND", 18, Attrs::new(), &[Some(x.clone()), Some(i), Some(u.clone())]).unwrap();
        assert_eq!(*y.as_slice::<f32>().unwrap(), [1., 2., 8., 9.]);
        let far = Tensor::new(vec![1, 1], vec![2i64]).unwrap();
        assert!(eval1("ScatterND", 18, Attrs::new(), &[Some(x), Some(far), Some(u)]).is_err());
    }
}
