//! One operator that is a sum of products, in both engines: exact on small integers, within a bound on real values.
use super::net::{Net, Within, run_guarded};
use super::{Rng, levels};
use fcc_ir::attr::Attrs;
use fcc_ir::interp::{self, Values};
use fcc_ir::{Model, Tensor, Value};
use fcc_jit::{Options, Precision, compile};

/// How far a real result may be from the exact one.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// `c * eps * sum |x*w|` of the element itself.
    Elementwise(f64),
    /// `c * eps` of the largest such sum of the output: what Winograd's transforms keep.
    Normwise(f64),
}

/// An operator and the shapes of its operands; those from `weights` on are constants.
#[derive(Clone, Debug)]
pub struct Sum {
    pub op: &'static str,
    pub attrs: Attrs,
    pub shapes: Vec<Vec<usize>>,
    pub weights: usize,
}

impl Sum {
    pub fn new(op: &'static str, attrs: Attrs, shapes: &[&[usize]]) -> Sum {
        Sum { op, attrs, shapes: shapes.iter().map(|s| s.to_vec()).collect(), weights: 1 }
    }
    /// With every operand an input.
    pub fn computed(self) -> Sum {
        Sum { weights: self.shapes.len(), ..self }
    }
    /// Adds the operator to a graph; `of` gives the data of each operand.
    fn add(&self, net: &mut Net, of: &mut dyn FnMut(usize, &[usize]) -> Tensor) -> fcc_ir::ValueId {
        let operands: Vec<_> = self
            .shapes
            .iter()
            .enumerate()
            .map(|(i, shape)| {
                let t = of(i, shape);
                if i < self.weights { net.given(t) } else { net.constant(t) }
            })
            .collect();
        net.node(self.op, &operands, self.attrs.clone())
    }
    fn model(&self, data: &[Tensor]) -> (Model, Values) {
        let mut net = Net::new();
        let y = self.add(&mut net, &mut |i, _| data[i].clone());
        net.model(&[y])
    }
    /// The one output of the interpreter on this data.
    fn reference(&self, data: &[Tensor]) -> Vec<f64> {
        let (model, inputs) = self.model(data);
        let out = interp::run(&model, &inputs).unwrap();
        let y = out.values().next().unwrap().as_tensor().unwrap();
        y.as_slice::<f64>().unwrap().into_owned()
    }
    /// Real values in -1 .. 1 at every level, against the interpreter in f64. `winograd`: what the plan must say.
    pub fn check_reals(&self, rng: &mut Rng, precision: Precision, bound: Bound, winograd: bool) {
        let reals: Vec<Vec<f32>> = self.shapes.iter().map(|s| rng.floats(s.iter().product())).collect();
        let tensors = |f: &dyn Fn(f32) -> f64| -> Vec<Tensor> {
            let wide = reals.iter().map(|v| v.iter().map(|v| f(*v)).collect::<Vec<f64>>());
            self.shapes.iter().zip(wide).map(|(s, v)| Tensor::new(s.clone(), v).unwrap()).collect()
        };
        let exact = self.reference(&tensors(&f64::from));
        let sizes = self.reference(&tensors(&|v| f64::from(v.abs())));
        let largest = sizes.iter().fold(0.0f64, |m, v| m.max(*v));
        let narrow: Vec<Tensor> =
            self.shapes.iter().zip(&reals).map(|(s, v)| Tensor::new(s.clone(), v.clone()).unwrap()).collect();
        let (model, inputs) = self.model(&narrow);
        for isa in levels() {
            let mut options = Options::with_threads(1 + rng.below(2));
            (options.isa, options.precision) = (isa, precision);
            let compiled = compile(&model, &options).unwrap();
            let plan = compiled.plan_for(&inputs).unwrap().to_string();
            assert_eq!(plan.contains("winograd"), winograd, "{self:?} at {isa}\n{plan}");
            let made = run_guarded(&compiled, &inputs).unwrap();
            let Some(Value::Tensor(y)) = made.values().next() else { panic!("no output") };
            let y = y.as_slice::<f32>().unwrap();
            assert_eq!(y.len(), exact.len());
            for (i, ((y, exact), size)) in y.iter().zip(&exact).zip(&sizes).enumerate() {
                let (c, size) = match bound {
                    Bound::Elementwise(c) => (c, *size),
                    Bound::Normwise(c) => (c, largest),
                };
                let error = (f64::from(*y) - exact).abs();
                let bound = c * f64::from(f32::EPSILON) * size;
                assert!(
                    error <= bound,
                    "{self:?} at {isa}, {precision}: element {i} is {y}, not {exact}: {error:e} > {bound:e}\n{plan}"
                );
            }
        }
    }
}

/// Many operators on small integers in one graph: equal in every bit at every level.
pub fn check_integers(sums: &[Sum]) {
    let mut net = Net::new();
    let made: Vec<_> = sums
        .iter()
        .map(|sum| {
            let data: Vec<Tensor> = sum.shapes.iter().map(|s| net.integers(s)).collect();
            sum.add(&mut net, &mut |i, _| data[i].clone())
        })
        .collect();
    net.check(&made, Within::Exact);
}
