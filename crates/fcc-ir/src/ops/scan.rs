//! `Scan`. <https://onnx.ai/onnx/operators/onnx__Scan.html>
use super::control::{join, stack};
use super::movement;
use crate::limits;
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema, axis, need_outputs};
use crate::{Dim, Error, Graph, OpNode, Result, Tensor, TensorType, Value, ValueType};

/// `Scan`.
pub struct Scan;

/// A Scan node's attributes, in the meaning of version 9. Version 8 has a batch axis besides (axis 0 of all).
#[derive(Debug)]
pub struct Parts<'a> {
    /// The body: states and one slice of each scanned input -> states and one slice of each scanned output.
    pub body: &'a Graph,
    /// Number of states.
    pub states: usize,
    /// Whether each scanned input runs from the end.
    pub input_reversed: Vec<bool>,
    /// Axis of each scanned input, negative from the end.
    pub input_axes: Vec<i64>,
    /// Whether each scanned output is written from the end.
    pub output_reversed: Vec<bool>,
    /// Axis of each scanned output, negative from the end.
    pub output_axes: Vec<i64>,
}

impl Parts<'_> {
    /// Reads the attributes for a node with this many states and scanned inputs together, and this many outputs.
    pub fn parse(node: &OpNode, n: usize, n_outputs: usize) -> Result<Parts<'_>> {
        let body = node.attrs.need_graph("body")?;
        need_outputs(n_outputs, body.outputs.len())?;
        let scanned = node.attrs.need_int("num_scan_inputs")?;
        let fits = |s: &usize| *s >= 1 && *s <= n && body.inputs.len() == n && body.outputs.len() + s >= n;
        let scanned = usize::try_from(scanned).ok().filter(fits).ok_or_else(|| {
            let got = format!("{scanned} with a body of {} inputs", body.inputs.len());
            Error::mismatch(
                "attribute `num_scan_inputs`",
                got,
                format!("1 to {n}, as many inputs as the body"),
            )
        })?;
        let states = n - scanned;
        let outputs = body.outputs.len() - states;
        let list = |name: &str, n: usize| -> Result<Vec<i64>> {
            match node.attrs.ints(name)? {
                None => Ok(vec![0; n]),
                Some(v) if v.len() == n => Ok(v.to_vec()),
                Some(v) => Err(Error::mismatch(
                    format!("attribute `{name}`"),
                    format!("{v:?}"),
                    format!("{n} numbers"),
                )),
            }
        };
        let flags =
            |name: &str, n: usize| Ok::<_, Error>(list(name, n)?.into_iter().map(|v| v != 0).collect());
        let directions = if node.version < 9 { "directions" } else { "scan_input_directions" };
        Ok(Parts {
            body,
            states,
            input_reversed: flags(directions, scanned)?,
            input_axes: list("scan_input_axes", scanned)?,
            output_reversed: flags("scan_output_directions", outputs)?,
            output_axes: list("scan_output_axes", outputs)?,
        })
    }

    /// Runs all iterations over tensors without a batch axis.
    fn run(&self, cx: &EvalCtx<'_>, mut states: Vec<Value>, scanned: &[Tensor]) -> Result<Vec<Value>> {
        let mut axes = Vec::with_capacity(scanned.len());
        let mut length = None;
        for (x, a) in scanned.iter().zip(&self.input_axes) {
            let a = axis(*a, x.rank())?;
            let n = x.shape()[a];
            if *length.get_or_insert(n) != n {
                return Err(Error::mismatch("length of a scanned input", n, length.unwrap_or(n)));
            }
            axes.push(a);
        }
        let length = length.unwrap_or(0);
        let mut outputs: Vec<Vec<Value>> = vec![vec![]; self.output_axes.len()];
        for i in 0..length {
            limits::check_now()?;
            let mut given = std::mem::take(&mut states);
            for ((x, &a), reversed) in scanned.iter().zip(&axes).zip(&self.input_reversed) {
                given.push(position(x, a, if *reversed { length - 1 - i } else { i })?.into());
            }
            let mut made = (cx.subgraph)(self.body, given)?.into_iter();
            states = made.by_ref().take(self.states).collect();
            outputs.iter_mut().zip(made).for_each(|(all, v)| all.push(v));
        }
        for (k, mut all) in outputs.into_iter().enumerate() {
            if self.output_reversed[k] {
                all.reverse();
            }
            let rank = all.first().map_or(Ok(0), |v| v.as_tensor().map(Tensor::rank))?;
            let at = axis(self.output_axes[k], rank + 1)?;
            let none = || Err(Error::unsupported("Scan over no elements"));
            states.push(stack(&all, at, none)?.into());
        }
        Ok(states)
    }

    /// Version 8: every batch on its own; outputs beyond a batch's length are 0.
    fn run_batches(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let given: Vec<&Tensor> = (1..cx.inputs.len()).map(|i| cx.tensor(i)).collect::<Result<_>>()?;
        let (states, scanned) = given.split_at(self.states);
        let Some(&[batch, longest, ..]) = scanned.first().map(|x| x.shape()) else {
            return Err(Error::mismatch("rank of a scanned input", "less than 2", "at least 2"));
        };
        let lengths = match cx.opt_tensor(0)? {
            None => vec![longest; batch],
            Some(t) => super::lists::extents("sequence_lens", &t.to_i64s()?)?,
        };
        if lengths.len() != batch || lengths.iter().any(|n| *n > longest) {
            let wanted = format!("{batch} numbers of at most {longest}");
            return Err(Error::mismatch("sequence_lens", format!("{lengths:?}"), wanted));
        }
        let mut all: Vec<Vec<Value>> = vec![vec![]; self.body.outputs.len()];
        for (b, &n) in lengths.iter().enumerate() {
            let state = states.iter().map(|s| Ok(position(s, 0, b)?.into())).collect::<Result<_>>()?;
            let input = scanned.iter().map(|x| first(&position(x, 0, b)?, n)).collect::<Result<Vec<_>>>()?;
            for (k, made) in self.run(cx, state, &input)?.into_iter().enumerate() {
                all[k].push(if k < self.states { made } else { padded(made.as_tensor()?, longest)?.into() });
            }
        }
        let none = || Err(Error::unsupported("Scan over no batches"));
        all.iter().map(|parts| Ok(stack(parts, 0, none)?.into())).collect()
    }
}

/// One position along an axis, without the axis.
fn position(x: &Tensor, axis: usize, i: usize) -> Result<Tensor> {
    let mut axes = movement::whole(x.shape());
    let at =
        axes.get_mut(axis).ok_or_else(|| Error::mismatch("axis", axis, format!("below {}", x.rank())))?;
    *at = vec![*at.get(i).ok_or_else(|| Error::mismatch("position", i, format!("below {}", at.len())))?];
    let mut shape = x.shape().to_vec();
    shape.remove(axis);
    movement::select(x, &axes)?.reshaped(shape)
}

/// The first `n` positions along axis 0.
fn first(x: &Tensor, n: usize) -> Result<Tensor> {
    let mut axes = movement::whole(x.shape());
    if let Some(a) = axes.first_mut() {
        a.truncate(n);
    }
    movement::select(x, &axes)
}

/// Zeros behind, to the extent `n` along axis 0.
fn padded(x: &Tensor, n: usize) -> Result<Tensor> {
    let mut axes: Vec<Vec<Option<usize>>> =
        movement::whole(x.shape()).into_iter().map(|a| a.into_iter().map(Some).collect()).collect();
    if let Some(a) = axes.first_mut() {
        a.resize(n.max(a.len()), None);
    }
    let zero = crate::convert::from_i64s(x.dtype(), [], vec![0])?;
    movement::select_or(x, &axes, &zero)
}

impl Operator for Scan {
    fn schema(&self) -> Schema {
        Schema {
            name: "Scan",
            domain: "",
            since: &[8, 9, 11, 16, 19, 21, 23, 24, 25],
            inputs: (1, usize::MAX),
            outputs: (1, usize::MAX),
        }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        if cx.version() < 9 {
            return Ok(vec![Fact::default(); cx.n_outputs]);
        }
        let parts = Parts::parse(cx.node, cx.inputs.len(), cx.n_outputs)?;
        let mut length = Dim::Unknown;
        let mut slices = vec![];
        for (k, a) in parts.input_axes.iter().enumerate() {
            let i = parts.states + k;
            let mut shape = cx.shape(i)?.cloned();
            if let Some(shape) = &mut shape {
                let d = shape.remove(axis(*a, shape.len())?);
                if length == Dim::Unknown || d.known().is_some() {
                    length = d;
                }
            }
            slices.push(Fact::from(TensorType { dtype: cx.dtype(i)?, shape }));
        }
        let mut states: Vec<Fact> =
            (0..parts.states).map(|i| Ok(cx.ty(i)?.clone().into())).collect::<Result<_>>()?;
        let made = loop {
            let made = (cx.subgraph)(parts.body, &[states.clone(), slices.clone()].concat())?;
            let next: Vec<Fact> = states.iter().zip(&made).map(|(a, b)| join(&a.ty, &b.ty).into()).collect();
            if next == states {
                break made;
            }
            states = next;
        };
        for (fact, a) in made[parts.states..].iter().zip(&parts.output_axes) {
            let ValueType::Tensor(t) = &fact.ty else {
                states.push(Fact::default());
                continue;
            };
            let mut t = t.clone();
            if let Some(shape) = &mut t.shape {
                shape.insert(axis(*a, shape.len() + 1)?, length.clone());
            }
            states.push(t.into());
        }
        Ok(states)
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        if cx.version() < 9 {
            return Parts::parse(cx.node, cx.inputs.len().saturating_sub(1), cx.wanted.len())?
                .run_batches(cx);
        }
        let parts = Parts::parse(cx.node, cx.inputs.len(), cx.wanted.len())?;
        let states = (0..parts.states).map(|i| cx.value(i).cloned()).collect::<Result<_>>()?;
        let scanned: Vec<Tensor> =
            (parts.states..cx.inputs.len()).map(|i| cx.tensor(i).cloned()).collect::<Result<_>>()?;
        parts.run(cx, states, &scanned)
    }
}
