//! `Adagrad`, `Adam`, `Momentum` of `ai.onnx.preview.training`: one step of an optimizer.
//! <https://onnx.ai/onnx/operators/onnx_aionnxpreviewtraining_Adam.html>
use crate::convert;
use crate::limits::watched;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::numeric::{Num, Real, with_real};
use crate::{Error, OpNode, Result, Tensor, Value};

/// One step of an optimizer.
pub struct Optimizer {
    name: &'static str,
    kind: Kind,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Adagrad,
    Adam,
    Momentum,
}

/// `Adagrad`.
pub static ADAGRAD: Optimizer = Optimizer { name: "Adagrad", kind: Kind::Adagrad };
/// `Adam`.
pub static ADAM: Optimizer = Optimizer { name: "Adam", kind: Kind::Adam };
/// `Momentum`.
pub static MOMENTUM: Optimizer = Optimizer { name: "Momentum", kind: Kind::Momentum };

impl Kind {
    /// States kept for each tensor besides itself.
    fn states(self) -> usize {
        if self == Kind::Adam { 2 } else { 1 }
    }
}

/// Learning rate, number of the step, and the attributes.
struct Step<'a> {
    rate: f64,
    count: f64,
    node: &'a OpNode,
}

impl Step<'_> {
    fn attr<T: Real>(&self, name: &str, default: f32) -> Result<T> {
        Ok(T::of(self.node.attrs.float_or(name, default)?))
    }
    fn need<T: Real>(&self, name: &str) -> Result<T> {
        let v = self.node.attrs.float(name)?;
        v.map(T::of).ok_or_else(|| Error::mismatch(format!("attribute `{name}`"), "none", "a float"))
    }
    /// The new tensor and its states, each element from x, its gradient and its states.
    fn run<T: Real>(&self, kind: Kind, x: &[T], gradient: &[T], states: &[&[T]]) -> Result<Vec<Vec<T>>> {
        let (r, t) = (T::from_f64(self.rate), T::from_f64(self.count));
        let each = |f: &dyn Fn(T, T, T, T) -> [T; 3]| -> Vec<Vec<T>> {
            let mut out = vec![Vec::with_capacity(x.len()); 1 + kind.states()];
            for (i, (x, g)) in watched(x.iter().zip(gradient).enumerate()) {
                let state = |k: usize| states.get(k).map_or(T::ZERO, |s| s[i]);
                for (list, v) in out.iter_mut().zip(f(*x, *g, state(0), state(1))) {
                    list.push(v);
                }
            }
            out
        };
        Ok(match kind {
            Kind::Adagrad => {
                let (norm, epsilon): (T, T) =
                    (self.attr("norm_coefficient", 0.0)?, self.attr("epsilon", 1e-6)?);
                let rate = r / (T::ONE + t * self.attr("decay_factor", 0.0)?);
                each(&|x, g, h, _| {
                    let g = norm * x + g;
                    let h = h + g * g;
                    [x - rate * g / (h.sqrt() + epsilon), h, T::ZERO]
                })
            }
            Kind::Adam => {
                let (norm, epsilon): (T, T) =
                    (self.attr("norm_coefficient", 0.0)?, self.attr("epsilon", 1e-6)?);
                let (alpha, beta): (T, T) = (self.attr("alpha", 0.9)?, self.attr("beta", 0.999)?);
                let post: T = self.attr("norm_coefficient_post", 0.0)?;
                let rate = if self.count > 0.0 {
                    r * (T::ONE - beta.powf(t)).sqrt() / (T::ONE - alpha.powf(t))
                } else {
                    r
                };
                each(&|x, g, v, h| {
                    let g = norm * x + g;
                    let v = alpha * v + (T::ONE - alpha) * g;
                    let h = beta * h + (T::ONE - beta) * g * g;
                    [(T::ONE - post) * (x - rate * v / (h.sqrt() + epsilon)), v, h]
                })
            }
            Kind::Momentum => {
                let (norm, alpha): (T, T) = (self.need("norm_coefficient")?, self.need("alpha")?);
                let beta: T = if self.count > 0.0 { self.need("beta")? } else { T::ONE };
                let nesterov = match self.node.attrs.str_or("mode", "")? {
                    "standard" => false,
                    "nesterov" => true,
                    other => return Err(Error::mismatch("attribute `mode`", other, "standard or nesterov")),
                };
                each(&|x, g, v, _| {
                    let g = norm * x + g;
                    let v = alpha * v + beta * g;
                    [x - r * if nesterov { g + alpha * v } else { v }, v, T::ZERO]
                })
            }
        })
    }
}

/// How many tensors a node optimizes. Errors if the inputs do not come in full sets.
fn tensors(kind: Kind, n_inputs: usize) -> Result<usize> {
    let each = 2 + kind.states();
    let given = n_inputs.saturating_sub(2);
    if given == 0 || !given.is_multiple_of(each) {
        return Err(Error::mismatch("number of inputs", n_inputs, format!("2 and a multiple of {each}")));
    }
    Ok(given / each)
}

fn scalar(t: &Tensor) -> Result<f64> {
    match convert::to_f64s(t)?[..] {
        [v] => Ok(v),
        _ => Err(Error::mismatch("shape of R or T", format!("{:?}", t.shape()), "a scalar")),
    }
}

impl Operator for Optimizer {
    fn schema(&self) -> Schema {
        let domain = "ai.onnx.preview.training";
        Schema { name: self.name, domain, since: &[1], inputs: (3, usize::MAX), outputs: (1, usize::MAX) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let n = tensors(self.kind, cx.inputs.len())?;
        // the tensors, then their states, which come behind the gradients
        let inputs = (2..2 + n).chain(2 + 2 * n..cx.inputs.len());
        inputs.take(cx.n_outputs).map(|i| Ok(cx.ty(i)?.clone().into())).collect()
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let n = tensors(self.kind, cx.inputs.len())?;
        let step = Step { rate: scalar(cx.tensor(0)?)?, count: scalar(cx.tensor(1)?)?, node: cx.node };
        let mut outputs: Vec<Vec<Value>> = vec![vec![]; 1 + self.kind.states()];
        for i in 0..n {
            let x = cx.tensor(2 + i)?;
            let rest: Vec<&Tensor> =
                (1..2 + self.kind.states()).map(|k| cx.tensor(2 + k * n + i)).collect::<Result<_>>()?;
            if let Some(bad) = rest.iter().find(|t| t.shape() != x.shape() || t.dtype() != x.dtype()) {
                return Err(Error::mismatch(
                    "type of a gradient or state",
                    bad.tensor_type(),
                    x.tensor_type(),
                ));
            }
            with_real!(x.dtype(), T => {
                let rest = rest.iter().map(|t| T::load(t)).collect::<Result<Vec<_>>>()?;
                let states: Vec<&[T]> = rest[1..].iter().map(|s| &s[..]).collect();
                let made = step.run(self.kind, &T::load(x)?, &rest[0], &states)?;
                for (list, values) in outputs.iter_mut().zip(made) {
                    list.push(T::store(x.dtype(), x.shape(), values)?.into());
                }
            });
        }
        Ok(outputs.into_iter().flatten().take(cx.wanted.len()).collect())
    }
}
