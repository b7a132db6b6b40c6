//! `RNN`, `GRU`, `LSTM`: the input projection of all time steps as one matrix product, then the recurrence.
use super::Cx;
use crate::host::Lengths;
use crate::kernels::activation::Activation as Act;
use crate::kernels::recurrent::{CellFunction, CellKind, Recurrence};
use crate::plan::ir::{GemmNode, Kind, Node, Val, Vx};
use fcc_ir::ops::recurrent::{Activation, Cell, Function, RecurrentParams, params};
use fcc_ir::{DType, Tensor, ValueType};
use std::sync::Arc;

/// Weights and biases must be constant: they are packed when the plan is made.
pub(super) fn recurrent(cx: &mut Cx<'_>, cell: Cell) -> Option<()> {
    let p = params(cx.op, cell).ok()?;
    let layer = Layer::new(cx, cell, &p)?;
    let g = layer.project(cx)?;
    let lens = match cx.input(4) {
        Some(v) => Some(lengths(cx, v, layer.spec.steps)?),
        None => None,
    };
    let Layer { spec, r, extra, .. } = layer;
    let name = cx.outputs.iter().flatten().next().map(|v| cx.program.val(*v).name.clone())?;
    let r = cx.program.constant(format!("{name}.r"), r);
    let mut inputs = vec![Some(g), Some(r)];
    if let Some(extra) = extra {
        inputs.push(Some(cx.program.constant(format!("{name}.extra"), extra)));
    }
    let state = if spec.batch_first {
        vec![spec.batch, spec.reverse.len(), spec.hidden]
    } else {
        vec![spec.reverse.len(), spec.batch, spec.hidden]
    };
    for i in if cell == Cell::Lstm { 5..7 } else { 5..6 } {
        inputs.push(Some(match cx.input(i) {
            Some(v) if cx.f32(i)? == state => v,
            Some(_) => return None,
            None => {
                let zeros = vec![0f32; state.iter().product()];
                cx.program.constant(format!("{name}.zero"), Tensor::new(state.clone(), zeros).ok()?)
            }
        }));
    }
    inputs.extend(lens.map(Some));
    cx.program.nodes.push(Node {
        place: cx.place.to_string(),
        kind: Kind::Recurrent(Box::new(spec)),
        inputs,
        outputs: (0..3).map(|i| cx.outputs.get(i).copied().flatten()).collect(),
        origins: vec![cx.origin],
    });
    Some(())
}

/// A layer as its kernels want it.
struct Layer {
    spec: Recurrence,
    /// Rows of the input's weights of all directions, `[directions * gates * hidden, input]`, and their bias.
    w: Tensor,
    bias: Vec<f32>,
    r: Tensor,
    extra: Option<Tensor>,
    input: usize,
}

impl Layer {
    fn new(cx: &Cx<'_>, cell: Cell, p: &RecurrentParams) -> Option<Layer> {
        let (x, w, r) = (cx.f32(0)?, cx.constant(1)?.clone(), cx.constant(2)?.clone());
        let (&[a, b, input], &[dirs, rows, hidden]) = (&x[..], r.shape()) else { return None };
        let (steps, batch) = if p.batch_first { (b, a) } else { (a, b) };
        let given_hidden = cx.op.attrs.int("hidden_size").ok()?;
        let fits = dirs == p.reverse.len()
            && rows == cell.gates() * hidden
            && w.shape() == [dirs, rows, input]
            && given_hidden.is_none_or(|h| usize::try_from(h) == Ok(hidden));
        if !fits || input == 0 || w.dtype() != DType::F32 || r.dtype() != DType::F32 {
            return None;
        }
        let b = cx.input(3).map(|_| cx.constant(3).cloned());
        let b = match b {
            Some(t) => t?.as_slice::<f32>().ok()?.into_owned(),
            None => vec![0.0; dirs * 2 * rows],
        };
        let peepholes = match cx.input(7) {
            Some(_) if cell == Cell::Lstm => Some(cx.constant(7)?.clone()),
            _ => None,
        };
        if b.len() != dirs * 2 * rows || peepholes.as_ref().is_some_and(|p| p.shape() != [dirs, 3 * hidden]) {
            return None;
        }
        let kind = match cell {
            Cell::Rnn => CellKind::Rnn,
            Cell::Gru => CellKind::Gru { linear_before_reset: p.linear_before_reset },
            Cell::Lstm => CellKind::Lstm { peepholes: peepholes.is_some(), input_forget: p.input_forget },
        };
        // the recurrence bias of a gate that is scaled before the sum stays with the recurrence
        let apart = kind == CellKind::Gru { linear_before_reset: true };
        let (mut bias, mut kept): (Vec<f32>, Vec<f32>) = (vec![], vec![]);
        for b in b.chunks_exact(2 * rows) {
            let (own, state) = b.split_at(rows);
            let joined = |(i, (w, r)): (usize, (&f32, &f32))| {
                if apart && i >= 2 * hidden { *w } else { w + r }
            };
            bias.extend(own.iter().zip(state).enumerate().map(joined));
            kept.extend(state.iter().skip(2 * hidden).filter(|_| apart));
        }
        let extra = match peepholes {
            Some(p) => Some(p),
            None if apart => Some(Tensor::new(vec![dirs, hidden], kept).ok()?),
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
        let w = w.reshaped(vec![dirs * rows, input]).ok()?;
        Some(Layer { spec, w, bias, r, extra, input })
    }

    /// `X·Wᵀ + b` of all time steps, sequences, directions and gates.
    fn project(&self, cx: &mut Cx<'_>) -> Option<Vx> {
        let (tokens, n) = (self.spec.steps * self.spec.batch, self.w.shape()[0]);
        let (x, place, origin) = (cx.input(0)?, cx.place.to_string(), cx.origin);
        let name = cx.program.val(x).name.clone();
        let ty = |shape: [usize; 2]| ValueType::tensor(DType::F32, shape);
        let flat = cx.program.add(Val::new(format!("{name}.rows"), ty([tokens, self.input]), None));
        let g = cx.program.add(Val::new(format!("{name}.gates"), ty([tokens, n]), None));
        let w = cx.program.constant(format!("{name}.w"), self.w.clone());
        let bias = Tensor::new(vec![n], self.bias.clone()).ok()?;
        let bias = cx.program.constant(format!("{name}.bias"), bias);
        let node = GemmNode {
            trans_a: false,
            trans_b: true,
            alpha: 1.0,
            bias: true,
            residual: None,
            activation: None,
        };
        let push = |cx: &mut Cx<'_>, kind: Kind, inputs: Vec<Option<Vx>>, out: Vx| {
            let (place, origins) = (place.clone(), vec![origin]);
            cx.program.nodes.push(Node { place, kind, inputs, outputs: vec![Some(out)], origins });
        };
        push(cx, Kind::View, vec![Some(x)], flat);
        push(cx, Kind::Gemm(node), vec![Some(flat), Some(w), Some(bias)], g);
        Some(g)
    }
}

/// The lengths of the sequences, checked in the run.
fn lengths(cx: &mut Cx<'_>, v: Vx, steps: usize) -> Option<Vx> {
    let (dtype, shape) = cx.program.val(v).dense.clone()?;
    let batch = cx.program.shape(cx.input(0)?)[if cx.op.attrs.flag("layout", false).ok()? { 0 } else { 1 }];
    if shape != [batch] || !matches!(dtype, DType::I32 | DType::I64) {
        return None;
    }
    let name = format!("{}.checked", cx.program.val(v).name);
    let out = cx.program.add(Val::new(name, ValueType::tensor(DType::U64, [batch]), None));
    cx.push(Kind::Host(Arc::new(Lengths { steps, dtype })), vec![Some(v)], out);
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
