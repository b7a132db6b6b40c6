//! `RNN`, `GRU` and `LSTM` against the interpreter: every attribute and input, odd sizes, both levels, threads.
mod common;

use common::net::{Net, Within, run_guarded};
use fcc_ir::attr::{AttrValue, Attrs};
use fcc_ir::interp;
use fcc_ir::{Bytes, Tensor, ValueId};
use fcc_jit::{Options, compile};

/// One layer.
#[derive(Clone)]
struct Layer {
    op: &'static str,
    steps: usize,
    batch: usize,
    input: usize,
    hidden: usize,
    attrs: Attrs,
    /// Which of bias, lengths, initial_h, initial_c, peepholes are given.
    given: [bool; 5],
    lens: Vec<i32>,
    /// Integer values, else reals.
    integers: bool,
    /// Weights and biases are inputs of the run, not constants.
    computed: bool,
}

impl Layer {
    fn new(op: &'static str, [steps, batch, input, hidden]: [usize; 4]) -> Layer {
        let attrs = Attrs::new().with("hidden_size", hidden as i64);
        Layer {
            op,
            steps,
            batch,
            input,
            hidden,
            attrs,
            given: [false; 5],
            lens: vec![],
            integers: false,
            computed: false,
        }
    }
    fn with(mut self, name: &str, value: impl Into<AttrValue>) -> Layer {
        self.attrs.set(name, value);
        self
    }
    fn functions(self, names: &[&'static str]) -> Layer {
        let names: Vec<Bytes> = names.iter().map(|n| Bytes::from_static(n.as_bytes())).collect();
        self.with("activations", names)
    }
    fn giving(mut self, given: [bool; 5]) -> Layer {
        self.given = given;
        self
    }
    fn directions(&self) -> usize {
        if self.attrs.str("direction").unwrap() == Some("bidirectional") { 2 } else { 1 }
    }
    fn gates(&self) -> usize {
        match self.op {
            "RNN" => 1,
            "GRU" => 3,
            _ => 4,
        }
    }
    fn tensor(&self, net: &mut Net, shape: &[usize], scale: f32) -> Tensor {
        if self.integers {
            let n: usize = shape.iter().product();
            let values: Vec<f32> = (0..n).map(|_| (net.next() % 3) as f32 - 1.0).collect();
            return Tensor::new(shape, values).unwrap();
        }
        let t = net.reals(shape);
        let values: Vec<f32> = t.as_slice::<f32>().unwrap().iter().map(|v| v * scale).collect();
        Tensor::new(shape, values).unwrap()
    }
    fn build(&self, net: &mut Net) -> Vec<ValueId> {
        let (d, n) = (self.directions(), self.hidden);
        let rows = self.gates() * n;
        let first = self.attrs.flag("layout", false).unwrap();
        let (x, state) = match first {
            true => ([self.batch, self.steps, self.input], [self.batch, d, n]),
            false => ([self.steps, self.batch, self.input], [d, self.batch, n]),
        };
        let scale = 1.0 / (n as f32).sqrt();
        let x = self.tensor(net, &x, 0.7);
        let x = net.given(x);
        let constant = |net: &mut Net, shape: &[usize], scale: f32| {
            let t = self.tensor(net, shape, scale);
            Some(if self.computed { net.given(t) } else { net.constant(t) })
        };
        let w = constant(net, &[d, rows, self.input], 0.4);
        let r = constant(net, &[d, rows, n], 0.5 * scale);
        let b = if self.given[0] { constant(net, &[d, 2 * rows], 0.2) } else { None };
        let lens = self.given[1].then(|| net.given(Tensor::new([self.batch], self.lens.clone()).unwrap()));
        let state = |net: &mut Net| {
            let t = self.tensor(net, &state, 0.3);
            Some(net.given(t))
        };
        let h = if self.given[2] { state(net) } else { None };
        let c = if self.given[3] { state(net) } else { None };
        let p = if self.given[4] { constant(net, &[d, 3 * n], 0.3) } else { None };
        let (inputs, outputs) = match self.op {
            "LSTM" => (vec![Some(x), w, r, b, lens, h, c, p], 3),
            _ => (vec![Some(x), w, r, b, lens, h], 2),
        };
        net.optional(self.op, &inputs, self.attrs.clone(), outputs)
    }
    fn check(&self, within: Within) {
        let mut net = Net::new();
        let outputs = self.build(&mut net);
        net.check(&outputs, within);
    }
}

const NEAR: Within = Within::Relative(1e-5);
const DIRECTIONS: [&str; 3] = ["forward", "reverse", "bidirectional"];
const LAYERS: [&str; 3] = ["RNN", "GRU", "LSTM"];

#[test]
fn every_direction_and_size() {
    for op in LAYERS {
        for direction in DIRECTIONS {
            for sizes in [[1, 1, 3, 16], [3, 1, 1, 5], [2, 2, 4, 17], [5, 7, 3, 33], [3, 13, 2, 40]] {
                let layer = Layer::new(op, sizes).with("direction", direction);
                layer.check(NEAR);
                layer.giving([true, false, true, true, true]).check(NEAR);
            }
        }
    }
}

#[test]
fn a_single_unit_and_whole_vectors() {
    for op in LAYERS {
        for hidden in [1, 8, 32, 64] {
            Layer::new(op, [4, 3, 5, hidden]).giving([true, false, true, true, false]).check(NEAR);
        }
    }
}

#[test]
fn small_integers_are_exact() {
    for direction in DIRECTIONS {
        for batch in [1, 3, 9] {
            let sizes = [3, batch, 4, 21];
            let affine = |op, n: usize| {
                let names = vec!["Affine"; if direction == "bidirectional" { 2 * n } else { n }];
                let mut layer = Layer::new(op, sizes).with("direction", direction).with("clip", 2f32);
                layer.integers = true;
                layer.functions(&names)
            };
            affine("RNN", 1).giving([true, false, true, false, false]).check(Within::Exact);
            affine("GRU", 2).giving([true, false, true, false, false]).check(Within::Exact);
            affine("GRU", 2)
                .with("linear_before_reset", 1i64)
                .giving([true, false, true, false, false])
                .check(Within::Exact);
            affine("LSTM", 3).giving([true, false, true, true, true]).check(Within::Exact);
        }
    }
}

#[test]
fn sequences_end_at_their_own_lengths() {
    for op in LAYERS {
        for direction in DIRECTIONS {
            for layout in [0i64, 1] {
                let mut layer =
                    Layer::new(op, [5, 4, 3, 18]).with("direction", direction).with("layout", layout);
                layer.lens = vec![5, 0, 2, 3];
                layer.giving([true, true, true, true, false]).check(NEAR);
            }
        }
    }
}

#[test]
fn lengths_outside_are_the_interpreters_error() {
    for bad in [6, -1] {
        let mut layer = Layer::new("LSTM", [5, 2, 3, 16]).giving([false, true, false, false, false]);
        layer.lens = vec![1, bad];
        let mut net = Net::new();
        let outputs = layer.build(&mut net);
        let (model, inputs) = net.model(&outputs);
        let got = compile(&model, &Options::with_threads(1)).unwrap().run(&inputs).unwrap_err().to_string();
        assert_eq!(got, interp::run(&model, &inputs).unwrap_err().to_string());
    }
}

#[test]
fn the_batch_may_come_first() {
    for op in LAYERS {
        for direction in DIRECTIONS {
            let layer = Layer::new(op, [4, 3, 5, 19]).with("direction", direction).with("layout", 1i64);
            layer.giving([true, false, true, true, false]).check(NEAR);
        }
    }
}

#[test]
fn attributes_of_the_cells() {
    for direction in DIRECTIONS {
        let gru = Layer::new("GRU", [4, 3, 5, 19]).with("direction", direction);
        gru.clone().with("linear_before_reset", 1i64).check(NEAR);
        gru.with("linear_before_reset", 1i64).giving([true, false, true, false, false]).check(NEAR);
        let lstm = Layer::new("LSTM", [4, 3, 5, 19]).with("direction", direction);
        lstm.clone().with("input_forget", 1i64).giving([true, false, true, true, true]).check(NEAR);
        lstm.with("clip", 0.3f32).giving([true, false, true, true, true]).check(NEAR);
    }
}

#[test]
fn every_function_that_has_code() {
    for name in [
        "Relu",
        "Tanh",
        "Sigmoid",
        "Affine",
        "LeakyRelu",
        "ThresholdedRelu",
        "ScaledTanh",
        "HardSigmoid",
        "Elu",
        "Softsign",
    ] {
        let rnn = Layer::new("RNN", [3, 2, 4, 17]).functions(&[name]);
        let rnn = rnn.with("activation_alpha", vec![0.6f32]).with("activation_beta", vec![0.4f32]);
        rnn.check(Within::Relative(2e-5));
        let lstm = Layer::new("LSTM", [3, 2, 4, 17]).functions(&[name, "Sigmoid", name]);
        lstm.check(Within::Relative(2e-5));
    }
}

#[test]
fn weights_may_come_with_the_run() {
    for op in LAYERS {
        for direction in DIRECTIONS {
            for linear in [0i64, 1] {
                let layer = Layer::new(op, [3, 3, 4, 18]).with("direction", direction);
                let mut layer = match (op, linear) {
                    ("GRU", _) => layer.with("linear_before_reset", linear),
                    (_, 0) => layer,
                    _ => continue,
                };
                layer.computed = true;
                layer.clone().check(NEAR);
                layer.giving([true, false, true, true, true]).check(NEAR);
            }
        }
    }
}

#[test]
fn softplus_is_left_to_the_interpreter() {
    let mut net = Net::new();
    let outputs = Layer::new("RNN", [3, 2, 4, 17]).functions(&["Softplus"]).build(&mut net);
    let (model, inputs) = net.model(&outputs);
    let compiled = compile(&model, &Options::with_threads(1)).unwrap();
    assert_eq!(compiled.plan_for(&inputs).unwrap().interpreted_steps().len(), 1);
    assert_eq!(run_guarded(&compiled, &inputs).unwrap(), interp::run(&model, &inputs).unwrap());
}

#[test]
fn errors_do_not_grow_over_many_steps() {
    for op in LAYERS {
        let layer = Layer::new(op, [200, 2, 8, 48]).with("direction", "bidirectional");
        layer.giving([true, false, true, true, false]).check(Within::Relative(2e-5));
    }
}

#[test]
fn nan_and_infinity_stay_in_their_sequence() {
    for op in LAYERS {
        let mut net = Net::new();
        let layer = Layer::new(op, [3, 3, 4, 20]);
        let outputs = layer.build(&mut net);
        let x = net.inputs.values_mut().next().unwrap();
        let t = x.as_tensor().unwrap();
        let mut values = t.as_slice::<f32>().unwrap().into_owned();
        (values[1], values[9]) = (f32::NAN, f32::INFINITY);
        *x = Tensor::new(t.shape(), values).unwrap().into();
        net.check(&outputs, NEAR);
    }
}

#[test]
fn outputs_that_nobody_reads_are_not_made() {
    for op in LAYERS {
        for wanted in 0..if op == "LSTM" { 3 } else { 2 } {
            let mut net = Net::new();
            let outputs = Layer::new(op, [3, 2, 4, 17]).with("direction", "bidirectional").build(&mut net);
            let y = net.op("Neg", &[outputs[wanted]]);
            net.check(&[y], NEAR);
        }
    }
}
