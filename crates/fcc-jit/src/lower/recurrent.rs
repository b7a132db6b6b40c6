//! `RNN`, `GRU`, `LSTM`: the input projection of all time steps as one matrix product, then the recurrence.
use super::Cx;
use crate::host::{Biases, Lengths};
use crate::kernels::activation::Activation as Act;
use crate::kernels::recurrent::{CellFunction, CellKind, Recurrence};
use crate::plan::ir::{GemmNode, Kind, Node, Val, Vx};
use fcc_ir::ops::recurrent::{Activation, Cell, Function, RecurrentParams, params};
use fcc_ir::{DType, Tensor, ValueType};
use std::sync::Arc;

pub(super) fn recurrent(cx: &mut Cx<'_>, cell: Cell) -> Option<()> {
    let p = params(cx.op, cell).ok()?;
    let mut layer = Layer::new(cx, cell, &p)?;
    let state = if p.batch_first {
        vec![layer.spec.batch, layer.spec.reverse.len(), layer.spec.hidden]
    } else {
        vec![layer.spec.reverse.len(), layer.spec.batch, layer.spec.hidden]
    };
    let states = if cell == Cell::Lstm { 5..7 } else { 5..6 };
    if states.clone().any(|i| cx.input(i).is_some() && cx.f32(i).ok().as_ref() != Some(&state)) {
        return None;
    }
    let name = cx.outputs.iter().flatten().next().map(|v| cx.program.val(*v).name.clone())?;
    let lens = match cx.input(4) {
        Some(v) => Some(lengths(cx, v, &layer.spec)?),
        None => None,
    };
    let g = layer.project(cx)?;
    let mut inputs = vec![Some(g), cx.input(2)];
    if let Some(extra) = layer.extra.take() {
        inputs.push(Some(extra.value(cx, format!("{name}.extra"))));
    }
    for i in states {
        inputs.push(cx.input(i).or_else(|| {
            let zeros = Tensor::new(state.clone(), vec![0f32; state.iter().product()]).ok()?;
            Some(cx.program.constant(format!("{name}.zero"), zeros))
        }));
    }
    inputs.extend(lens.map(Some));
    let outputs = (0..3).map(|i| cx.outputs.get(i).copied().flatten()).collect();
    push(cx, Kind::Recurrent(Box::new(layer.spec)), inputs, outputs);
    Some(())
}

fn push(cx: &mut Cx<'_>, kind: Kind, inputs: Vec<Option<Vx>>, outputs: Vec<Option<Vx>>) {
    let (place, origins) = (cx.place.to_string(), vec![cx.origin]);
    cx.program.nodes.push(Node { place, kind, inputs, outputs, origins });
}

/// A list of numbers that a layer needs: known, or made in the run from one of the node's inputs.
enum List {
    Known(Tensor),
    /// The input itself.
    Given(Vx),
    /// What the step makes of it, with this many elements.
    Made(Vx, Biases, usize),
}

impl List {
    fn of_bias(cx: &Cx<'_>, b: Option<Vx>, biases: Biases, elems: usize) -> Option<List> {
        Some(match b {
            None => List::Known(Tensor::new(vec![elems], vec![0f32; elems]).ok()?),
            Some(v) => match cx.program.constant_of(v) {
                Some(t) => {
                    List::Known(Tensor::new(vec![elems], biases.make(&t.as_slice::<f32>().ok()?)).ok()?)
                }
                None => List::Made(v, biases, elems),
            },
        })
    }
    fn value(self, cx: &mut Cx<'_>, name: String) -> Vx {
        match self {
            List::Known(t) => cx.program.constant(name, t),
            List::Given(v) => v,
            List::Made(v, biases, elems) => {
                let ty = ValueType::tensor(DType::F32, [elems]);
                let out = cx.program.add(Val::new(name, ty, None));
                push(cx, Kind::Host(Arc::new(biases)), vec![Some(v)], vec![Some(out)]);
                out
            }
        }
    }
}

/// A layer as its kernels want it.
struct Layer {
    spec: Recurrence,
    bias: Option<List>,
    extra: Option<List>,
    input: usize,
}

impl Layer {
    fn new(cx: &Cx<'_>, cell: Cell, p: &RecurrentParams) -> Option<Layer> {
        let (x, w, r) = (cx.f32(0).ok()?, cx.f32(1).ok()?, cx.f32(2).ok()?);
        let (&[a, b, input], &[dirs, rows, hidden]) = (&x[..], &r[..]) else { return None };
        let (steps, batch) = if p.batch_first { (b, a) } else { (a, b) };
        let given_hidden = cx.op.attrs.int("hidden_size").ok()?;
        let fits = dirs == p.reverse.len()
            && rows == cell.gates() * hidden
            && w == [dirs, rows, input]
            && given_hidden.is_none_or(|h| usize::try_from(h) == Ok(hidden));
        let bias = cx.input(3);
        let bias_fits = bias.is_none() || cx.f32(3).ok()? == [dirs, 2 * rows];
        let peepholes = cx.input(7).filter(|_| cell == Cell::Lstm);
        let peepholes_fit = peepholes.is_none() || cx.f32(7).ok()? == [dirs, 3 * hidden];
        if !fits || input == 0 || !bias_fits || !peepholes_fit {
            return None;
        }
        let kind = match cell {
            Cell::Rnn => CellKind::Rnn,
            Cell::Gru => CellKind::Gru { linear_before_reset: p.linear_before_reset },
            Cell::Lstm => CellKind::Lstm { peepholes: peepholes.is_some(), input_forget: p.input_forget },
        };
        // the recurrence bias of a gate that is scaled before the sum stays with the recurrence
        let apart = kind == CellKind::Gru { linear_before_reset: true };
        let biases = Biases { rows, apart: if apart { 2 * hidden } else { rows }, kept: false };
        let extra = match peepholes {
            Some(v) => Some(cx.program.constant_of(v).map_or(List::Given(v), |t| List::Known(t.clone()))),
            None if apart => Some(List::of_bias(cx, bias, Biases { kept: true, ..biases }, dirs * hidden)?),
            None => None,
        };
        let read = |i: usize| cx.outputs.get(i).copied().flatten().is_some();
        let spec = Recurrence {
            cell: kind,
            steps,
            batch,
            hidden,
            reverse: p.reverse.clone(),
            functions: p
                .activations
                .iter()
                .map(|d| d.iter().map(function).collect())
                .collect::<Option<_>>()?,
            clip: p.clip,
            lens: cx.input(4).is_some(),
            batch_first: p.batch_first,
            wanted: [read(0), read(1), read(2)],
        };
        Some(Layer { spec, bias: Some(List::of_bias(cx, bias, biases, dirs * rows)?), extra, input })
    }

    /// `X·Wᵀ + b` of all time steps, sequences, directions and gates.
    fn project(&mut self, cx: &mut Cx<'_>) -> Option<Vx> {
        let s = &self.spec;
        let (tokens, n) = (s.steps * s.batch, s.reverse.len() * s.cell.gates() * s.hidden);
        let (x, w) = (cx.input(0)?, cx.input(1)?);
        let name = cx.program.val(x).name.clone();
        let rows = view(cx, x, [tokens, self.input], format!("{name}.rows"))?;
        let w = view(cx, w, [n, self.input], format!("{name}.w"))?;
        let bias = self.bias.take()?.value(cx, format!("{name}.bias"));
        let known = cx.program.constant_of(bias).is_some();
        let node = GemmNode {
            trans_a: false,
            trans_b: true,
            alpha: 1.0,
            bias: known,
            residual: (!known).then_some(1.0),
            activation: None,
        };
        let ty = ValueType::tensor(DType::F32, [tokens, n]);
        let g = cx.program.add(Val::new(format!("{name}.gates"), ty, None));
        push(cx, Kind::Gemm(node), vec![Some(rows), Some(w), Some(bias)], vec![Some(g)]);
        Some(g)
    }
}

/// A value, or a constant, under another shape.
fn view(cx: &mut Cx<'_>, v: Vx, shape: [usize; 2], name: String) -> Option<Vx> {
    if let Some(t) = cx.program.constant_of(v) {
        let t = t.reshaped(shape).ok()?;
        return Some(cx.program.constant(name, t));
    }
    let out = cx.program.add(Val::new(name, ValueType::tensor(DType::F32, shape), None));
    push(cx, Kind::View, vec![Some(v)], vec![Some(out)]);
    Some(out)
}

/// The lengths of the sequences, checked in the run.
fn lengths(cx: &mut Cx<'_>, v: Vx, spec: &Recurrence) -> Option<Vx> {
    let (dtype, shape) = cx.program.val(v).dense.clone()?;
    if shape != [spec.batch] || !matches!(dtype, DType::I32 | DType::I64) {
        return None;
    }
    let name = format!("{}.checked", cx.program.val(v).name);
    let out = cx.program.add(Val::new(name, ValueType::tensor(DType::U64, [spec.batch]), None));
    push(cx, Kind::Host(Arc::new(Lengths { steps: spec.steps, dtype })), vec![Some(v)], vec![Some(out)]);
    Some(out)
}

fn function(a: &Activation) -> Option<CellFunction> {
    let Activation { function, alpha, beta } = *a;
    Some(match function {
        Function::Relu => CellFunction::Act(Act::Relu),
        Function::Tanh => CellFunction::Act(Act::Tanh),
        Function::Sigmoid => CellFunction::Act(Act::Sigmoid),
        Function::LeakyRelu => CellFunction::Act(Act::LeakyRelu { alpha }),
        Function::HardSigmoid => CellFunction::Act(Act::HardSigmoid { alpha, beta }),
        Function::Affine => CellFunction::Affine { alpha, beta },
        Function::ThresholdedRelu => CellFunction::ThresholdedRelu { alpha },
        Function::ScaledTanh => CellFunction::ScaledTanh { alpha, beta },
        Function::Elu => CellFunction::Elu { alpha },
        Function::Softsign => CellFunction::Softsign,
        // a logarithm of an exponential: nobody's hot path
        Function::Softplus => return None,
    })
}
