//! `RNN`, `GRU`, `LSTM`: one layer over time, forwards, backwards or both.
//! <https://onnx.ai/onnx/operators/onnx__LSTM.html>
use crate::limits::watched;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::numeric::{Num, Real, with_real};
use crate::ops::unary::{sigmoid, softplus};
use crate::{Dim, Error, OpNode, Result, Tensor, TensorType, Value};

/// A recurrent layer.
pub struct Recurrent {
    name: &'static str,
    since: &'static [i64],
    cell: Cell,
}

/// The equations of a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cell {
    /// `H' = f(W x + R H + b)`.
    Rnn,
    /// Gates z, r, h.
    Gru,
    /// Gates i, o, f, c.
    Lstm,
}

/// `RNN`.
pub static RNN: Recurrent = Recurrent { name: "RNN", since: &[1, 7, 14, 22], cell: Cell::Rnn };
/// `GRU`.
pub static GRU: Recurrent = Recurrent { name: "GRU", since: &[1, 3, 7, 14, 22], cell: Cell::Gru };
/// `LSTM`.
pub static LSTM: Recurrent = Recurrent { name: "LSTM", since: &[1, 7, 14, 22], cell: Cell::Lstm };

impl Cell {
    /// Gates, each with a weight matrix.
    pub fn gates(self) -> usize {
        match self {
            Cell::Rnn => 1,
            Cell::Gru => 3,
            Cell::Lstm => 4,
        }
    }
    /// The activations of one direction, where the node does not name them.
    fn default_activations(self) -> &'static [Function] {
        match self {
            Cell::Rnn => &[Function::Tanh],
            Cell::Gru => &[Function::Sigmoid, Function::Tanh],
            Cell::Lstm => &[Function::Sigmoid, Function::Tanh, Function::Tanh],
        }
    }
}

/// The activation functions that a node may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Function {
    Relu,
    Tanh,
    Sigmoid,
    Affine,
    LeakyRelu,
    ThresholdedRelu,
    ScaledTanh,
    HardSigmoid,
    Elu,
    Softsign,
    Softplus,
}

/// An activation with its parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Activation {
    /// The function.
    pub function: Function,
    /// First parameter, where the function has one.
    pub alpha: f32,
    /// Second parameter, where the function has one.
    pub beta: f32,
}

impl Function {
    pub(crate) fn parse(name: &str) -> Result<Function> {
        use Function::*;
        let all = [
            ("relu", Relu),
            ("tanh", Tanh),
            ("sigmoid", Sigmoid),
            ("affine", Affine),
            ("leakyrelu", LeakyRelu),
            ("thresholdedrelu", ThresholdedRelu),
            ("scaledtanh", ScaledTanh),
            ("hardsigmoid", HardSigmoid),
            ("elu", Elu),
            ("softsign", Softsign),
            ("softplus", Softplus),
        ];
        let lower = name.to_ascii_lowercase();
        let found = all.into_iter().find(|(n, _)| *n == lower);
        found.map(|f| f.1).ok_or_else(|| Error::mismatch("attribute `activations`", name, "a known function"))
    }
    /// Defaults of alpha and beta; `None` where the function has none.
    pub(crate) fn defaults(self) -> (Option<f32>, Option<f32>) {
        use Function::*;
        match self {
            Relu | Tanh | Sigmoid | Softsign | Softplus => (None, None),
            LeakyRelu => (Some(0.01), None),
            ThresholdedRelu | Elu => (Some(1.0), None),
            HardSigmoid => (Some(0.2), Some(0.5)),
            Affine | ScaledTanh => (Some(1.0), Some(if self == Affine { 0.0 } else { 1.0 })),
        }
    }
}

impl Activation {
    pub(crate) fn apply<T: Real>(&self, x: T) -> T {
        let (alpha, beta) = (T::of(self.alpha), T::of(self.beta));
        match self.function {
            Function::Relu => {
                if x < T::ZERO {
                    T::ZERO
                } else {
                    x
                }
            }
            Function::Tanh => x.tanh(),
            Function::Sigmoid => sigmoid(x),
            Function::Affine => alpha * x + beta,
            Function::LeakyRelu => {
                if x < T::ZERO {
                    alpha * x
                } else {
                    x
                }
            }
            Function::ThresholdedRelu => {
                if x < alpha {
                    T::ZERO
                } else {
                    x
                }
            }
            Function::ScaledTanh => alpha * (beta * x).tanh(),
            Function::HardSigmoid => {
                let y = alpha * x + beta;
                if y < T::ZERO {
                    T::ZERO
                } else if y > T::ONE {
                    T::ONE
                } else {
                    y
                }
            }
            Function::Elu => {
                if x < T::ZERO {
                    alpha * x.exp_m1()
                } else {
                    x
                }
            }
            Function::Softsign => x / (T::ONE + x.abs()),
            Function::Softplus => softplus(x),
        }
    }
}

/// The attributes of a recurrent layer.
#[derive(Debug, Clone, PartialEq)]
pub struct RecurrentParams {
    /// For each direction whether it runs backwards.
    pub reverse: Vec<bool>,
    /// For each direction its activations, in the order f, g, h.
    pub activations: Vec<Vec<Activation>>,
    /// Bound of what enters an activation.
    pub clip: Option<f32>,
    /// The batch is the first axis of x and of the states, not the second.
    pub batch_first: bool,
    /// `GRU`: the reset gate scales after the matrix.
    pub linear_before_reset: bool,
    /// `LSTM`: the forget gate is one less the input gate.
    pub input_forget: bool,
}

/// Reads the attributes.
pub fn params(node: &OpNode, cell: Cell) -> Result<RecurrentParams> {
    let attrs = &node.attrs;
    let reverse = match attrs.str_or("direction", "forward")? {
        "forward" => vec![false],
        "reverse" => vec![true],
        "bidirectional" => vec![false, true],
        other => {
            return Err(Error::mismatch("attribute `direction`", other, "forward, reverse or bidirectional"));
        }
    };
    let per_direction = cell.default_activations().len();
    let functions: Vec<Function> = match attrs.strings("activations")? {
        // the default of RNN lists two also for one direction
        Some(names) if names.len() >= per_direction * reverse.len() => names
            .iter()
            .take(per_direction * reverse.len())
            .map(|n| Function::parse(&String::from_utf8_lossy(n)))
            .collect::<Result<_>>()?,
        Some(names) => {
            let wanted = per_direction * reverse.len();
            return Err(Error::mismatch("attribute `activations`", names.len(), wanted));
        }
        None => cell.default_activations().repeat(reverse.len()),
    };
    // parameters are consumed in order by the functions that have them
    let (mut alphas, mut betas) = (
        attrs.floats("activation_alpha")?.unwrap_or_default().iter(),
        attrs.floats("activation_beta")?.unwrap_or_default().iter(),
    );
    let activations: Vec<Activation> = functions
        .into_iter()
        .map(|function| {
            let (a, b) = function.defaults();
            let next = |d: Option<f32>, given: &mut std::slice::Iter<'_, f32>| {
                d.map_or(0.0, |d| given.next().copied().unwrap_or(d))
            };
            Activation { function, alpha: next(a, &mut alphas), beta: next(b, &mut betas) }
        })
        .collect();
    // a bound of 0 leaves nothing of any value: ONNX Runtime refuses it where it is an LSTM's or a GRU's
    let clip = attrs.float("clip")?;
    if let Some(c) = clip.filter(|c| !(*c > 0.0 || (*c == 0.0 && cell == Cell::Rnn))) {
        return Err(Error::mismatch("attribute `clip`", c, "a number above 0, or no attribute for no bound"));
    }
    Ok(RecurrentParams {
        activations: activations.chunks(per_direction).map(<[_]>::to_vec).collect(),
        reverse,
        clip,
        batch_first: attrs.flag("layout", false)?,
        linear_before_reset: attrs.flag("linear_before_reset", false)?,
        input_forget: attrs.flag("input_forget", false)?,
    })
}

/// Extents of a layer.
#[derive(Debug, Clone, Copy)]
struct Extents {
    steps: usize,
    batch: usize,
    input: usize,
    hidden: usize,
}

/// The parameters of one direction.
struct Direction<'a, T> {
    w: &'a [T],
    r: &'a [T],
    /// Bias on the input side and on the recurrence side, each for all gates.
    bias: Option<(&'a [T], &'a [T])>,
    peephole: Option<&'a [T]>,
    activations: &'a [Activation],
}

impl<T: Real> Direction<'_, T> {
    /// `W x + b` of one gate and unit.
    fn input_term(&self, e: Extents, row: usize, x: &[T]) -> T {
        let start = self.bias.map_or(T::ZERO, |b| b.0[row]);
        start + dot(&self.w[row * e.input..][..e.input], x)
    }
    /// `R h + b` of one gate and unit.
    fn state_term(&self, e: Extents, row: usize, h: &[T]) -> T {
        let start = self.bias.map_or(T::ZERO, |b| b.1[row]);
        start + dot(&self.r[row * e.hidden..][..e.hidden], h)
    }
    /// One step of one sequence: new hidden state; the cell state is updated in place.
    fn step(&self, cell: Cell, p: &RecurrentParams, e: Extents, x: &[T], h: &[T], c: &mut [T]) -> Vec<T> {
        let n = e.hidden;
        let clip = |v: T| match p.clip {
            Some(bound) => {
                let bound = T::of(bound);
                if v > bound {
                    bound
                } else if v < -bound {
                    -bound
                } else {
                    v
                }
            }
            None => v,
        };
        let f = |which: usize, v: T| self.activations[which].apply(clip(v));
        let gate = |g: usize, u: usize| self.input_term(e, g * n + u, x) + self.state_term(e, g * n + u, h);
        match cell {
            Cell::Rnn => (0..n).map(|u| f(0, gate(0, u))).collect(),
            Cell::Gru => {
                let z: Vec<T> = (0..n).map(|u| f(0, gate(0, u))).collect();
                let r: Vec<T> = (0..n).map(|u| f(0, gate(1, u))).collect();
                let reset: Vec<T> = r.iter().zip(h).map(|(r, h)| *r * *h).collect();
                let candidate = |u: usize| {
                    let state = if p.linear_before_reset {
                        r[u] * self.state_term(e, 2 * n + u, h)
                    } else {
                        self.state_term(e, 2 * n + u, &reset)
                    };
                    f(1, self.input_term(e, 2 * n + u, x) + state)
                };
                (0..n).map(|u| (T::ONE - z[u]) * candidate(u) + z[u] * h[u]).collect()
            }
            Cell::Lstm => (0..n)
                .map(|u| {
                    let peep = |gate: usize, c: T| self.peephole.map_or(T::ZERO, |p| p[gate * n + u] * c);
                    let i = f(0, gate(0, u) + peep(0, c[u]));
                    let forget = if p.input_forget { T::ONE - i } else { f(0, gate(2, u) + peep(2, c[u])) };
                    let new = forget * c[u] + i * f(1, gate(3, u));
                    c[u] = new;
                    let o = f(0, gate(1, u) + peep(1, new));
                    o * self.activations[2].apply(new)
                })
                .collect(),
        }
    }
}

fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    a.iter().zip(b).fold(T::ZERO, |s, (a, b)| s + *a * *b)
}

/// Checks one optional input's shape.
pub(crate) fn fits(name: &str, t: Option<&Tensor>, shape: &[usize]) -> Result<()> {
    match t {
        Some(t) if t.shape() != shape => {
            Err(Error::mismatch(format!("shape of {name}"), format!("{:?}", t.shape()), format!("{shape:?}")))
        }
        _ => Ok(()),
    }
}

impl Recurrent {
    /// Which equations this layer has.
    pub fn cell(&self) -> Cell {
        self.cell
    }
    fn extents(&self, cx: &EvalCtx<'_>, p: &RecurrentParams) -> Result<Extents> {
        let (x, w, r) = (cx.tensor(0)?, cx.tensor(1)?, cx.tensor(2)?);
        let (dirs, gates) = (p.reverse.len(), self.cell.gates());
        let (&[a, b, input], &[_, _, hidden]) = (x.shape(), r.shape()) else {
            return Err(Error::mismatch(
                "ranks of X and R",
                format!("{} and {}", x.rank(), r.rank()),
                "3 and 3",
            ));
        };
        if let Some(h) = cx.node.attrs.int("hidden_size")?.filter(|h| usize::try_from(*h) != Ok(hidden)) {
            return Err(Error::mismatch("attribute `hidden_size`", h, format!("{hidden} as in R")));
        }
        let (steps, batch) = if p.batch_first { (b, a) } else { (a, b) };
        fits("W", Some(w), &[dirs, gates * hidden, input])?;
        fits("R", Some(r), &[dirs, gates * hidden, hidden])?;
        fits("B", cx.opt_tensor(3)?, &[dirs, 2 * gates * hidden])?;
        let state = if p.batch_first { [batch, dirs, hidden] } else { [dirs, batch, hidden] };
        fits("initial_h", cx.opt_tensor(5)?, &state)?;
        if self.cell == Cell::Lstm {
            fits("initial_c", cx.opt_tensor(6)?, &state)?;
            fits("P", cx.opt_tensor(7)?, &[dirs, 3 * hidden])?;
        }
        Ok(Extents { steps, batch, input, hidden })
    }
    fn run<T: Real>(&self, cx: &EvalCtx<'_>, p: &RecurrentParams, e: Extents) -> Result<[Vec<T>; 3]> {
        let load = |i: usize| cx.opt_tensor(i)?.map(|t| T::load(t).map(|v| v.into_owned())).transpose();
        let (x, w, r) = (T::load(cx.tensor(0)?)?, T::load(cx.tensor(1)?)?, T::load(cx.tensor(2)?)?);
        let lstm = self.cell == Cell::Lstm;
        let (b, initial_h) = (load(3)?, load(5)?);
        let (initial_c, peepholes) = if lstm { (load(6)?, load(7)?) } else { (None, None) };
        let lengths = sequence_lengths(cx.opt_tensor(4)?, e.steps, e.batch)?;
        let (dirs, n, rows) = (p.reverse.len(), e.hidden, self.cell.gates() * e.hidden);
        let state_at = |d: usize, s: usize| (if p.batch_first { s * dirs + d } else { d * e.batch + s }) * n;
        let mut y = vec![T::ZERO; e.steps * dirs * e.batch * n];
        let (mut last_h, mut last_c) = (vec![T::ZERO; dirs * e.batch * n], vec![T::ZERO; dirs * e.batch * n]);
        for d in 0..dirs {
            let direction = Direction {
                w: &w[d * rows * e.input..][..rows * e.input],
                r: &r[d * rows * n..][..rows * n],
                bias: b.as_ref().map(|b| b[d * 2 * rows..][..2 * rows].split_at(rows)),
                peephole: peepholes.as_ref().map(|p| &p[d * 3 * n..][..3 * n]),
                activations: &p.activations[d],
            };
            for s in watched(0..e.batch) {
                let start = |v: &Option<Vec<T>>| match v {
                    Some(v) => v[state_at(d, s)..][..n].to_vec(),
                    None => vec![T::ZERO; n],
                };
                let (mut h, mut c) = (start(&initial_h), start(&initial_c));
                for t in watched(0..lengths[s]) {
                    let t = if p.reverse[d] { lengths[s] - 1 - t } else { t };
                    let token = if p.batch_first { s * e.steps + t } else { t * e.batch + s };
                    h = direction.step(self.cell, p, e, &x[token * e.input..][..e.input], &h, &mut c);
                    let at = if p.batch_first {
                        (s * e.steps + t) * dirs + d
                    } else {
                        (t * dirs + d) * e.batch + s
                    };
                    y[at * n..][..n].copy_from_slice(&h);
                }
                last_h[state_at(d, s)..][..n].copy_from_slice(&h);
                last_c[state_at(d, s)..][..n].copy_from_slice(&c);
            }
        }
        Ok([y, last_h, last_c])
    }
}

/// The length of each sequence of the batch, all steps if not given.
pub(crate) fn sequence_lengths(given: Option<&Tensor>, steps: usize, batch: usize) -> Result<Vec<usize>> {
    let Some(t) = given else { return Ok(vec![steps; batch]) };
    fits("sequence_lens", Some(t), &[batch])?;
    let length = |v: i64| {
        let wanted = || Error::mismatch("sequence_lens", v, format!("0 to {steps}"));
        usize::try_from(v).ok().filter(|v| *v <= steps).ok_or_else(wanted)
    };
    t.to_i64s()?.into_iter().map(length).collect()
}

impl Operator for Recurrent {
    fn schema(&self) -> Schema {
        let (inputs, outputs) = if self.cell == Cell::Lstm { ((3, 8), (0, 3)) } else { ((3, 6), (0, 2)) };
        Schema { name: self.name, domain: "", since: self.since, inputs, outputs }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let (p, dtype) = (params(cx.node, self.cell)?, cx.dtype(0)?);
        let dirs = Dim::Known(p.reverse.len());
        let hidden = match cx.shape(2)?.and_then(|s| s.get(2)).cloned() {
            Some(d) if d != Dim::Unknown => d,
            _ => {
                let attr = cx.node.attrs.int("hidden_size")?;
                attr.and_then(|v| usize::try_from(v).ok()).map_or(Dim::Unknown, Dim::Known)
            }
        };
        let (a, b) = match cx.shape(0)?.map(Vec::as_slice) {
            Some([a, b, _]) => (a.clone(), b.clone()),
            Some(other) => return Err(Error::mismatch("rank of X", other.len(), 3)),
            None => (Dim::Unknown, Dim::Unknown),
        };
        let (y, state) = match p.batch_first {
            true => (vec![a.clone(), b, dirs.clone(), hidden.clone()], vec![a, dirs, hidden]),
            false => (vec![a, dirs.clone(), b.clone(), hidden.clone()], vec![dirs, b, hidden]),
        };
        let facts = [y, state.clone(), state].map(|s| Fact::from(TensorType::new(dtype, s)));
        Ok(facts.into_iter().take(cx.n_outputs).collect())
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let p = params(cx.node, self.cell)?;
        let (e, dtype) = (self.extents(cx, &p)?, cx.tensor(0)?.dtype());
        let dirs = p.reverse.len();
        let (y_shape, state) = match p.batch_first {
            true => ([e.batch, e.steps, dirs, e.hidden], [e.batch, dirs, e.hidden]),
            false => ([e.steps, dirs, e.batch, e.hidden], [dirs, e.batch, e.hidden]),
        };
        with_real!(dtype, T => {
            let [y, h, c] = self.run::<T>(cx, &p, e)?;
            let outputs = [T::store(dtype, y_shape, y)?, T::store(dtype, state, h)?, T::store(dtype, state, c)?];
            Ok(outputs.into_iter().take(cx.wanted.len()).map(Value::from).collect())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attr::Attrs;
    use crate::ops::testing::eval;

    /// An RNN that adds: `h' = x + h`.
    fn sum(attrs: Attrs, lens: &[i32]) -> Vec<Vec<f32>> {
        let t = |shape: &[usize], v: &[f32]| Some(Tensor::new(shape, v.to_vec()).unwrap());
        let x = t(&[3, 2, 1], &[1.0, 10.0, 2.0, 20.0, 3.0, 30.0]);
        let lens = Some(Tensor::new([2], lens.to_vec()).unwrap());
        let affine = vec![crate::Bytes::from_static(b"Affine")];
        let attrs = attrs.with("hidden_size", 1i64).with("activations", affine);
        let inputs = [x, t(&[1, 1, 1], &[1.0]), t(&[1, 1, 1], &[1.0]), None, lens];
        let outputs = eval("RNN", 22, attrs, &inputs, 2).unwrap();
        outputs.iter().map(|o| o.as_tensor().unwrap().as_slice::<f32>().unwrap().to_vec()).collect()
    }

    #[test]
    fn short_sequences_end_early_and_pad_with_zeros() {
        assert_eq!(sum(Attrs::new(), &[3, 2]), [vec![1.0, 10.0, 3.0, 30.0, 6.0, 0.0], vec![6.0, 30.0]]);
    }

    #[test]
    fn backwards_begins_at_each_sequence_s_own_end() {
        let y = sum(Attrs::new().with("direction", "reverse"), &[3, 2]);
        assert_eq!(y, [vec![6.0, 30.0, 5.0, 20.0, 3.0, 0.0], vec![6.0, 30.0]]);
    }

    #[test]
    fn parameters_go_to_the_functions_that_have_them() {
        let names = ["Tanh", "LeakyRelu", "Sigmoid"].map(crate::Bytes::from).to_vec();
        let attrs = Attrs::new().with("activations", names).with("activation_alpha", vec![0.5f32]);
        let node = crate::ops::testing::node("LSTM", 22, attrs, 3);
        let activations = params(&node, Cell::Lstm).unwrap().activations.remove(0);
        assert_eq!(activations[1], Activation { function: Function::LeakyRelu, alpha: 0.5, beta: 0.0 });
    }

    #[test]
    fn a_bound_of_0_is_refused_but_of_an_rnn() {
        let with = |op: &str, cell: Cell, clip: f32| {
            let node = crate::ops::testing::node(op, 22, Attrs::new().with("clip", clip), 3);
            params(&node, cell).map(|p| p.clip).map_err(|e| e.to_string())
        };
        assert_eq!(with("LSTM", Cell::Lstm, 0.5), Ok(Some(0.5)));
        assert_eq!(with("RNN", Cell::Rnn, 0.0), Ok(Some(0.0)));
        let error = "attribute `clip`: got 0, wanted a number above 0, or no attribute for no bound";
        assert_eq!(with("LSTM", Cell::Lstm, 0.0), Err(error.into()));
        assert_eq!(with("GRU", Cell::Gru, 0.0), Err(error.into()));
        for (op, cell) in [("LSTM", Cell::Lstm), ("GRU", Cell::Gru), ("RNN", Cell::Rnn)] {
            assert!(with(op, cell, -1.0).is_err() && with(op, cell, f32::NAN).is_err(), "{op}");
        }
    }
}
