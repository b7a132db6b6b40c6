//! Small graphs that are run in both engines and compared.
use fcc_ir::attr::{AttrValue, Attrs};
use fcc_ir::interp::{self, Values};
use fcc_ir::op::default_opsets;
use fcc_ir::{Graph, Model, NewNode, Result, Tensor, Value, ValueId, ValueInfo, ValueType};
use fcc_jit::{CompiledModel, Isa, Options, compile};

/// How close results must be.
#[derive(Clone, Copy)]
pub enum Within {
    /// The same numbers (0.0 and -0.0 are the same), NaN where there is NaN.
    Exact,
    /// This far apart, relative to the larger of the value and the output's root mean square.
    Relative(f64),
}

/// A graph under construction, with the inputs of a run.
pub struct Net {
    pub graph: Graph,
    pub inputs: Values,
    /// The domain of the nodes.
    pub domain: &'static str,
    seed: u64,
}

impl Net {
    pub fn new() -> Net {
        let graph = Graph::new("test", default_opsets(18));
        Net { graph, inputs: Values::new(), domain: "", seed: 7 }
    }
    pub fn next(&mut self) -> u64 {
        self.seed = self.seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        self.seed >> 33
    }
    /// Integers from -4 to 4: sums of their products are exact.
    pub fn integers(&mut self, shape: &[usize]) -> Tensor {
        let n: usize = shape.iter().product();
        Tensor::new(shape, (0..n).map(|_| (self.next() % 9) as f32 - 4.0).collect::<Vec<f32>>()).unwrap()
    }
    pub fn reals(&mut self, shape: &[usize]) -> Tensor {
        let n: usize = shape.iter().product();
        let one = |s: &mut Self| (s.next() % 20001) as f32 / 10000.0 - 1.0;
        Tensor::new(shape, (0..n).map(|_| one(self) * 3.0).collect::<Vec<f32>>()).unwrap()
    }
    pub fn given(&mut self, tensor: Tensor) -> ValueId {
        let name = self.graph.fresh_name("x");
        let id = self.graph.add_input(ValueInfo::new(name.clone(), tensor.tensor_type())).unwrap();
        self.inputs.insert(name, Value::Tensor(tensor));
        id
    }
    pub fn input(&mut self, shape: &[usize]) -> ValueId {
        let t = self.integers(shape);
        self.given(t)
    }
    pub fn real_input(&mut self, shape: &[usize]) -> ValueId {
        let t = self.reals(shape);
        self.given(t)
    }
    pub fn constant(&mut self, tensor: Tensor) -> ValueId {
        let name = self.graph.fresh_name("c");
        self.graph.add_constant(&name, tensor).unwrap()
    }
    pub fn weight(&mut self, shape: &[usize]) -> ValueId {
        let t = self.integers(shape);
        self.constant(t)
    }
    pub fn ints(&mut self, values: &[i64]) -> ValueId {
        self.constant(Tensor::from_i64s(values.to_vec()))
    }
    pub fn op(&mut self, op_type: &str, inputs: &[ValueId]) -> ValueId {
        self.node(op_type, inputs, Attrs::new())
    }
    pub fn node(&mut self, op_type: &str, inputs: &[ValueId], attrs: Attrs) -> ValueId {
        self.nodes(op_type, inputs, attrs, 1)[0]
    }
    pub fn nodes(&mut self, op_type: &str, inputs: &[ValueId], attrs: Attrs, n: usize) -> Vec<ValueId> {
        self.optional(op_type, &inputs.iter().copied().map(Some).collect::<Vec<_>>(), attrs, n)
    }
    /// A node that may leave inputs out.
    pub fn optional(
        &mut self,
        op_type: &str,
        inputs: &[Option<ValueId>],
        attrs: Attrs,
        n: usize,
    ) -> Vec<ValueId> {
        let name = format!("{}{}", op_type.to_lowercase(), self.graph.node_count());
        let outputs: Vec<String> = (0..n).map(|i| format!("{name}.{i}")).collect();
        let node = NewNode { op_type, domain: self.domain, name, inputs: inputs.to_vec(), outputs, attrs };
        let id = self.graph.add_op(node).unwrap();
        (0..n).map(|i| ValueId { node: id, output: i as u32 }).collect()
    }
    /// The model with these outputs, and the inputs of a run.
    pub fn model(mut self, outputs: &[ValueId]) -> (Model, Values) {
        for v in outputs {
            let info = ValueInfo::new(self.graph.value_name(*v), ValueType::Unknown);
            self.graph.add_output(*v, info);
        }
        (Model::new(self.graph), self.inputs)
    }
    /// Runs the graph with these outputs on every level, on one and two threads, and compares with the interpreter.
    pub fn check(self, outputs: &[ValueId], within: Within) {
        let (model, inputs) = self.model(outputs);
        check(&model, &inputs, within);
    }
    /// As [`Net::check`], where some steps are the interpreter's.
    pub fn agrees(self, outputs: &[ValueId], within: Within) {
        let (model, inputs) = self.model(outputs);
        compare(&model, &inputs, within, false);
    }
}

/// As [`Net::check`], of a model.
pub fn check(model: &Model, inputs: &Values, within: Within) {
    compare(model, inputs, within, true);
}

fn compare(model: &Model, inputs: &Values, within: Within, all_compiled: bool) {
    let want = interp::run(model, inputs).unwrap();
    for isa in super::model_levels() {
        for threads in [1, 2] {
            let mut options = Options::with_threads(threads);
            options.isa = isa;
            let compiled = compile(model, &options).unwrap();
            let plan = compiled.plan_for(inputs).unwrap();
            // a few kernels have no form of vectors of four: the plan says so, and the interpreter's steps are its own
            let whole = !all_compiled || isa == Isa::Baseline || plan.interpreted_steps().is_empty();
            assert!(whole, "{isa}: {:?}\n{plan}", plan.interpreted_steps());
            // a second run must not see what the first one left in the arena
            let got = run_guarded(&compiled, inputs).unwrap();
            for (name, want) in &want {
                let (got, want) = (got[name].as_tensor().unwrap(), want.as_tensor().unwrap());
                close(got, want, within, &format!("{name} at {isa}, {threads} threads\n{plan}"));
            }
        }
    }
}

/// A run, and one whose steps' operands lie at unreadable pages, which gives the outputs; both give the same.
pub fn run_guarded(model: &CompiledModel, inputs: &Values) -> Result<Values> {
    let plain = model.run(inputs)?;
    super::guard::name_faults();
    fcc_jit::guard::every_step(true);
    let guarded = model.run(inputs);
    fcc_jit::guard::every_step(false);
    assert!(guarded.as_ref().is_ok_and(|g| *g == plain), "a guarded run differs: {:?}", guarded.err());
    guarded
}

/// Compares one output; `place` says where in a failure.
pub fn close(got: &Tensor, want: &Tensor, within: Within, place: &str) {
    assert_eq!((got.dtype(), got.shape()), (want.dtype(), want.shape()), "{place}");
    let (Ok(a), Ok(b)) = (got.as_slice::<f32>(), want.as_slice::<f32>()) else {
        return assert_eq!(got, want, "{place}");
    };
    let finite = b.iter().filter(|v| v.is_finite());
    let rms = (finite.map(|v| f64::from(*v).powi(2)).sum::<f64>() / b.len().max(1) as f64).sqrt();
    for (i, (x, y)) in a.iter().zip(b.iter()).enumerate() {
        let same = x == y || (x.is_nan() && y.is_nan());
        let near = match within {
            Within::Exact => false,
            Within::Relative(r) => f64::from((x - y).abs()) <= r * rms.max(f64::from(y.abs())),
        };
        assert!(same || near, "element {i}: got {x}, wanted {y}; {place}");
    }
}

/// Attributes by name.
pub fn attrs<const N: usize>(list: [(&str, AttrValue); N]) -> Attrs {
    list.into_iter().fold(Attrs::new(), |a, (n, v)| a.with(n, v))
}
