//! Models with small integers as weights and inputs, on which f32 is exact: rewritten and original must agree in
//! every bit.
#![allow(dead_code)]
use fcc_ir::attr::Attrs;
use fcc_ir::interp::{self, Values};
use fcc_ir::op::default_opsets;
use fcc_ir::{DType, Dim, Graph, Model, NewNode, Tensor, Value, ValueId, ValueInfo, ValueType};
use fcc_rewrite::{Options, Outcome, Report, passes};

/// A small generator of numbers, the same in every run.
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64) -> Self {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0xd1b5_4a32_d192_ed03)
    }
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
    /// A number in `low..=high`.
    pub fn range(&mut self, low: usize, high: usize) -> usize {
        low + (self.next() % (high - low + 1) as u64) as usize
    }
    pub fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.range(0, from.len() - 1)]
    }
    /// Integers -4..=4 as a float tensor.
    pub fn ints(&mut self, shape: &[usize]) -> Tensor {
        let n: usize = shape.iter().product();
        Tensor::new(shape, (0..n).map(|_| self.range(0, 8) as f32 - 4.0).collect::<Vec<f32>>()).unwrap()
    }
}

/// Builds a graph node by node.
pub struct Net {
    pub graph: Graph,
    pub rng: Rng,
}

impl Net {
    pub fn new(opset: i64, seed: u64) -> Self {
        Net { graph: Graph::new("main", default_opsets(opset)), rng: Rng::new(seed) }
    }
    /// An input; an extent of `None` is the symbol N, H, W … by axis.
    pub fn input(&mut self, name: &str, shape: &[Option<usize>]) -> ValueId {
        let symbols = ["N", "C", "H", "W", "D"];
        let dims: Vec<Dim> =
            shape.iter().zip(symbols).map(|(d, s)| d.map_or(Dim::symbol(s), Dim::Known)).collect();
        self.graph.add_input(ValueInfo::new(name, ValueType::tensor(DType::F32, dims))).unwrap()
    }
    pub fn weight(&mut self, name: &str, shape: &[usize]) -> ValueId {
        let t = self.rng.ints(shape);
        self.graph.add_constant(name, t).unwrap()
    }
    pub fn op(&mut self, op: &str, name: &str, inputs: &[ValueId], attrs: Attrs) -> ValueId {
        let new = NewNode {
            op_type: op,
            domain: "",
            name: name.into(),
            inputs: inputs.iter().map(|v| Some(*v)).collect(),
            outputs: vec![name.into()],
            attrs,
        };
        ValueId { node: self.graph.add_op(new).unwrap(), output: 0 }
    }
    pub fn output(mut self, value: ValueId) -> Model {
        let name = self.graph.value_name(value).to_string();
        self.graph.add_output(value, ValueInfo::new(name, ValueType::Unknown));
        let mut model = Model::new(self.graph);
        fcc_ir::infer::infer(&mut model.graph, &[]).unwrap();
        model
    }
}

/// Inputs of small integers for these extents of the symbols.
pub fn inputs(model: &Model, rng: &mut Rng, extents: &[(&str, usize)]) -> Values {
    model
        .required_inputs()
        .map(|info| {
            let shape = info.ty.as_tensor().unwrap().shape.as_ref().unwrap();
            let shape: Vec<usize> = shape
                .iter()
                .map(|d| match d {
                    Dim::Known(n) => *n,
                    d => extents.iter().find(|(s, _)| Dim::symbol(s).same(d)).map_or(2, |(_, n)| *n),
                })
                .collect();
            (info.name.clone(), Value::from(rng.ints(&shape)))
        })
        .collect()
}

/// Runs the passes of these names on a copy, with a proof of each rewrite of a linear node.
pub fn rewrite(model: &Model, names: &[&str]) -> (Model, Report) {
    let mut proofs = 0;
    let mut prove = |site: &fcc_rewrite::Site<'_>| {
        proofs += usize::from(fcc_rewrite::prove::prove(site)?.is_some());
        Ok(())
    };
    let done = rewrite_with(model, names, Options { on_match: Some(&mut prove), ..Options::default() });
    let linear = |r: &&fcc_rewrite::Row| passes::rule(&r.rule).is_some_and(|rule| rule.traits().linear);
    assert_eq!(proofs, done.1.rows.iter().filter(|r| r.outcome == Outcome::Rewritten).filter(linear).count());
    done
}

pub fn rewrite_with(model: &Model, names: &[&str], options: Options<'_>) -> (Model, Report) {
    let mut copy = model.clone();
    let passes: Vec<_> = names.iter().flat_map(|n| passes::named(n).unwrap()).collect();
    let report = fcc_rewrite::run(&mut copy, &passes, options).unwrap();
    for row in &report.rows {
        let reason = row.reason.as_ref().map_or("", |r| &r.what);
        assert!(!reason.contains("new node") && !reason.contains("type of the replacement"), "{report}");
    }
    (copy, report)
}

/// Both models agree in every bit on these inputs, in values, names and shapes.
pub fn assert_same(original: &Model, rewritten: &Model, inputs: &Values) {
    let want = interp::run(original, inputs).unwrap();
    let got = interp::run(rewritten, inputs).unwrap_or_else(|e| {
        panic!("{e}\n{}", fcc_ir::text::print(rewritten, &fcc_ir::text::PrintOptions::readable()))
    });
    assert_eq!(want.keys().collect::<Vec<_>>(), got.keys().collect::<Vec<_>>());
    for (name, want) in &want {
        let (want, got) = (want.as_tensor().unwrap(), got[name].as_tensor().unwrap());
        assert_eq!((want.dtype(), want.shape()), (got.dtype(), got.shape()), "type of {name}");
        assert_eq!(values(want), values(got), "values of {name}");
    }
}

/// The elements; -0.0 counts as 0.0, as a sum of products may give either.
pub fn values(t: &Tensor) -> Vec<f64> {
    match t.dtype() {
        DType::F32 => t.as_slice::<f32>().unwrap().iter().map(|v| f64::from(*v) + 0.0).collect(),
        DType::F64 => t.as_slice::<f64>().unwrap().iter().map(|v| *v + 0.0).collect(),
        DType::F16 => t.as_slice::<fcc_ir::half::f16>().unwrap().iter().map(|v| v.to_f64() + 0.0).collect(),
        _ => t.to_i64s().unwrap().iter().map(|v| *v as f64).collect(),
    }
}

/// How many nodes of an operator the main graph has.
pub fn count(model: &Model, op: &str) -> usize {
    let g = &model.graph;
    g.nodes().iter().filter(|id| g.op(**id).is_some_and(|o| o.op_type == op)).count()
}

/// The operators of the main graph, in order.
pub fn ops(model: &Model) -> Vec<String> {
    model.graph.ops().unwrap().iter().map(|id| model.graph.op(*id).unwrap().op_type.clone()).collect()
}

/// Whether the rule rewrote at least one candidate.
pub fn fired(report: &Report, rule: &str) -> bool {
    report.rows.iter().any(|r| r.rule == rule && r.outcome == Outcome::Rewritten)
}

/// A model in the text form.
pub fn parse(text: &str) -> Model {
    let mut model = fcc_ir::text::parse(text).unwrap();
    fcc_ir::infer::infer(&mut model.graph, &model.functions.clone()).unwrap();
    model
}
