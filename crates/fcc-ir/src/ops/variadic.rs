//! `Min`, `Max`, `Sum`, `Mean`: elementwise over any number of inputs.
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema, unsupported_dtype};
use crate::ops::broadcast;
use crate::ops::numeric::{Num, with_num};
use crate::{Error, Result, Value};

/// An elementwise operator of one or more inputs.
pub struct Variadic {
    name: &'static str,
    since: &'static [i64],
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Min,
    Max,
    Sum,
    Mean,
}

/// `Max`; NaN wins.
pub static MAX: Variadic = Variadic { name: "Max", since: &[1, 6, 8, 12, 13], kind: Kind::Max };
/// `Mean`.
pub static MEAN: Variadic = Variadic { name: "Mean", since: &[1, 6, 8, 13], kind: Kind::Mean };
/// `Min`; NaN wins.
pub static MIN: Variadic = Variadic { name: "Min", since: &[1, 6, 8, 12, 13], kind: Kind::Min };
/// `Sum`.
pub static SUM: Variadic = Variadic { name: "Sum", since: &[1, 6, 8, 13], kind: Kind::Sum };

fn combine<T: Num>(kind: Kind, a: T, b: T) -> T {
    match kind {
        Kind::Sum | Kind::Mean => a.plus(b),
        _ if a.is_nan() => a,
        _ if b.is_nan() => b,
        Kind::Min => {
            if b < a {
                b
            } else {
                a
            }
        }
        Kind::Max => {
            if b > a {
                b
            } else {
                a
            }
        }
    }
}

impl Operator for Variadic {
    fn schema(&self) -> Schema {
        Schema { name: self.name, domain: "", since: self.since, inputs: (1, usize::MAX), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        Ok(vec![broadcast::infer(cx, 0..cx.inputs.len(), cx.dtype(0)?)?.into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let inputs: Vec<_> = (0..cx.inputs.len()).map(|i| cx.tensor(i)).collect::<Result<_>>()?;
        let [first, rest @ ..] = inputs.as_slice() else {
            return Err(Error::mismatch("number of inputs", 0, "at least 1"));
        };
        let dtype = first.dtype();
        if let Some(other) = rest.iter().find(|t| t.dtype() != dtype) {
            return Err(Error::mismatch("element type", other.dtype(), dtype));
        }
        if self.kind == Kind::Mean && !dtype.is_float() {
            return Err(unsupported_dtype(dtype));
        }
        with_num!(dtype, T => {
            let (mut shape, mut y) = (first.shape().to_vec(), T::load(first)?.into_owned());
            for t in rest {
                let out = broadcast::shape(&[&shape, t.shape()])?;
                let f = |a, b| combine(self.kind, a, b);
                y = broadcast::map2((&y, &shape), (&T::load(t)?[..], t.shape()), &out, f);
                shape = out;
            }
            if self.kind == Kind::Mean {
                let n = inputs.len() as f64;
                y.iter_mut().for_each(|v| *v = T::from_f64(v.to_f64() / n));
            }
            Ok(vec![T::store(dtype, shape, y)?.into()])
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::Tensor;
    use crate::attr::Attrs;
    use crate::half::f16;
    use crate::ops::testing::eval1;

    #[test]
    fn nan_wins_and_halves_round_once() {
        let t = |v: f32| Some(Tensor::scalar(v));
        for op in ["Min", "Max"] {
            for inputs in [[t(f32::NAN), t(1.0)], [t(1.0), t(f32::NAN)]] {
                assert!(eval1(op, 13, Attrs::new(), &inputs).unwrap().as_slice::<f32>().unwrap()[0].is_nan());
            }
        }
        // 2048 + 1 is no half; 2048 + 1 + 1 is
        let h = |v: f32| Some(Tensor::scalar(f16::from_f32(v)));
        let y = eval1("Sum", 13, Attrs::new(), &[h(2048.0), h(1.0), h(1.0)]).unwrap();
        assert_eq!(y.as_slice::<f16>().unwrap()[0].to_f32(), 2050.0);
    }
}
