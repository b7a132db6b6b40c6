//! Whole models: compiled and interpreted runs agree, at every size they are run at.
use fcc_ir::attr::Attrs;
use fcc_ir::interp::{self, Values};
use fcc_ir::op::default_opsets;
use fcc_ir::{DType, Dim, Graph, Model, NewNode, Tensor, Value, ValueId, ValueInfo, ValueType};
use fcc_jit::{Options, compile};

fn op(g: &mut Graph, op_type: &str, inputs: &[ValueId], attrs: Attrs) -> ValueId {
    let name = g.fresh_name(&op_type.to_lowercase());
    let inputs = inputs.iter().copied().map(Some).collect();
    let node = NewNode { op_type, domain: "", name: name.clone(), inputs, outputs: vec![name], attrs };
    ValueId { node: g.add_op(node).unwrap(), output: 0 }
}

fn output(g: &mut Graph, value: ValueId) {
    let info = ValueInfo::new(g.value_name(value), ValueType::Unknown);
    g.add_output(value, info);
}

fn ints(shape: &[usize], step: usize) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::new(shape, (0..n).map(|i| ((i * step + 3) % 11) as f32 - 5.0).collect::<Vec<f32>>()).unwrap()
}

fn conv_relu() -> Model {
    let mut g = Graph::new("conv_relu", default_opsets(18));
    let dims = [Dim::symbol("batch"), Dim::Known(3), Dim::symbol("h"), Dim::Known(6)];
    let x = g.add_input(ValueInfo::new("x", ValueType::tensor(DType::F32, dims))).unwrap();
    let w = g.add_constant("w", ints(&[4, 3, 3, 3], 7)).unwrap();
    let y = op(&mut g, "Conv", &[x, w], Attrs::new().with("pads", vec![1, 1, 1, 1]));
    let z = op(&mut g, "Relu", &[y], Attrs::new());
    output(&mut g, z);
    Model::new(g)
}

fn given(name: &str, tensor: Tensor) -> Values {
    Values::from([(name.to_string(), Value::Tensor(tensor))])
}

#[test]
fn one_compiled_model_runs_at_several_sizes() {
    let model = conv_relu();
    let compiled = compile(&model, &Options::with_threads(2)).unwrap();
    for shape in [[1, 3, 5, 6], [2, 3, 9, 6], [1, 3, 5, 6], [0, 3, 5, 6]] {
        let inputs = given("x", ints(&shape, 5));
        assert_eq!(compiled.run(&inputs).unwrap(), interp::run(&model, &inputs).unwrap(), "{shape:?}");
    }
}

#[test]
fn wrong_inputs_are_named() {
    let compiled = compile(&conv_relu(), &Options::default()).unwrap();
    let why = |v: Values| compiled.run(&v).unwrap_err().to_string();
    assert!(why(given("y", ints(&[1], 1))).contains("`y`"));
    assert!(why(given("x", ints(&[1, 2, 5, 6], 1))).contains("input `x`"));
    assert!(why(Values::new()).contains("input `x`"));
}

#[test]
fn constant_nodes_are_folded() {
    let mut g = Graph::new("folded", default_opsets(18));
    let x = g.add_input(ValueInfo::new("x", ValueType::tensor(DType::F32, [1, 1, 4, 4]))).unwrap();
    let w = g.add_constant("w", ints(&[1, 1, 2, 2], 3)).unwrap();
    let w = op(&mut g, "Abs", &[w], Attrs::new());
    let y = op(&mut g, "Conv", &[x, w], Attrs::new());
    output(&mut g, y);
    output(&mut g, w);
    let model = Model::new(g);
    let compiled = compile(&model, &Options::default()).unwrap();
    let inputs = given("x", ints(&[1, 1, 4, 4], 5));
    assert_eq!(compiled.run(&inputs).unwrap(), interp::run(&model, &inputs).unwrap());
    let plan = compiled.plan_for(&inputs).unwrap();
    assert!(plan.interpreted_steps().is_empty(), "{plan}");
    assert_eq!(plan.to_string().matches("conv").count(), 2, "the kernel and the node: {plan}");
}

#[test]
fn an_overridable_initializer_is_a_constant_until_it_is_given() {
    let mut g = Graph::new("overridable", default_opsets(18));
    let x = g.add_input(ValueInfo::new("x", ValueType::tensor(DType::F32, [1, 1, 4, 4]))).unwrap();
    let w = g.add_constant("w", ints(&[1, 1, 2, 2], 3)).unwrap();
    g.list_as_input(w.node, ValueInfo::new("w", ValueType::tensor(DType::F32, [1, 1, 2, 2])));
    let y = op(&mut g, "Conv", &[x, w], Attrs::new());
    output(&mut g, y);
    let model = Model::new(g);
    let compiled = compile(&model, &Options::default()).unwrap();
    let mut inputs = given("x", ints(&[1, 1, 4, 4], 5));
    let kept = compiled.run(&inputs).unwrap();
    assert_eq!(kept, interp::run(&model, &inputs).unwrap());
    inputs.insert("w".into(), ints(&[1, 1, 2, 2], 5).into());
    let replaced = compiled.run(&inputs).unwrap();
    assert_eq!(replaced, interp::run(&model, &inputs).unwrap());
    assert_ne!(kept, replaced);
}

#[test]
fn what_follows_a_shape_that_depends_on_data_is_planned_when_it_is_seen() {
    let mut g = Graph::new("cut", default_opsets(18));
    let x = g.add_input(ValueInfo::new("x", ValueType::tensor(DType::F32, [4, 6]))).unwrap();
    let w = g.add_constant("w", ints(&[6, 3], 5)).unwrap();
    let y = op(&mut g, "MatMul", &[x, w], Attrs::new());
    let at = op(&mut g, "NonZero", &[y], Attrs::new());
    let turned = op(&mut g, "Transpose", &[at], Attrs::new());
    let values = op(&mut g, "GatherND", &[y, turned], Attrs::new());
    let z = op(&mut g, "Relu", &[values], Attrs::new());
    let e = op(&mut g, "Exp", &[y], Attrs::new());
    for v in [z, e, turned, at] {
        output(&mut g, v);
    }
    let model = Model::new(g);
    let compiled = compile(&model, &Options::with_threads(1)).unwrap();
    for step in [5, 1, 5, 7, 11] {
        let inputs = given("x", ints(&[4, 6], step));
        let (got, want) = (compiled.run(&inputs).unwrap(), interp::run(&model, &inputs).unwrap());
        for (name, want) in want {
            let (got, want) = (got[&name].as_tensor().unwrap(), want.as_tensor().unwrap());
            match (got.as_slice::<f32>(), want.as_slice::<f32>()) {
                (Ok(a), Ok(b)) => {
                    assert_eq!(got.shape(), want.shape());
                    let near = |(x, y): (&f32, &f32)| (x - y).abs() <= 1e-6 * y.abs();
                    assert!(a.iter().zip(b.iter()).all(near), "{name}: {a:?} {b:?}");
                }
                _ => assert_eq!(got, want, "{name}"),
            }
        }
        assert!(compiled.plan_for(&inputs).unwrap().is_cut());
    }
}

#[test]
fn the_cache_of_shapes_is_bounded_and_runs_stay_right() {
    let model = conv_relu();
    let mut options = Options::with_threads(1);
    options.cached_shapes = 2;
    let compiled = compile(&model, &options).unwrap();
    for round in 0..2 {
        for h in 3..8 {
            let inputs = given("x", ints(&[1, 3, h, 6], 5 + round));
            assert_eq!(compiled.run(&inputs).unwrap(), interp::run(&model, &inputs).unwrap(), "{h}");
        }
    }
}

#[test]
fn several_threads_run_one_model() {
    let model = conv_relu();
    let compiled = compile(&model, &Options::with_threads(2)).unwrap();
    std::thread::scope(|s| {
        for t in 0..3usize {
            let (model, compiled) = (&model, &compiled);
            s.spawn(move || {
                for i in 0..20 {
                    let inputs = given("x", ints(&[1 + t % 2, 3, 7, 6], 1 + i + t));
                    assert_eq!(compiled.run(&inputs).unwrap(), interp::run(model, &inputs).unwrap());
                }
            });
        }
    });
}

#[test]
fn an_input_can_be_an_output() {
    let mut g = Graph::new("through", default_opsets(18));
    let x = g.add_input(ValueInfo::new("x", ValueType::tensor(DType::F32, [2, 6]))).unwrap();
    let y = op(&mut g, "Identity", &[x], Attrs::new());
    let shape = g.add_constant("shape", Tensor::from_i64s(vec![3, 4])).unwrap();
    let z = op(&mut g, "Reshape", &[y, shape], Attrs::new());
    output(&mut g, y);
    output(&mut g, z);
    output(&mut g, shape);
    let model = Model::new(g);
    let inputs = given("x", ints(&[2, 6], 5));
    let compiled = compile(&model, &Options::default()).unwrap();
    assert_eq!(compiled.run(&inputs).unwrap(), interp::run(&model, &inputs).unwrap());
}

#[test]
fn outputs_that_are_one_value_under_several_names_or_shapes() {
    let mut g = Graph::new("aliases", default_opsets(18));
    let x = g.add_input(ValueInfo::new("x", ValueType::tensor(DType::F32, [2, 6]))).unwrap();
    let y = op(&mut g, "Neg", &[x], Attrs::new());
    let z = op(&mut g, "Identity", &[y], Attrs::new());
    let flat = op(&mut g, "Flatten", &[y], Attrs::new().with("axis", 0i64));
    for v in [y, z, flat] {
        output(&mut g, v);
    }
    let model = Model::new(g);
    let inputs = given("x", ints(&[2, 6], 5));
    let compiled = compile(&model, &Options::default()).unwrap();
    for _ in 0..2 {
        assert_eq!(compiled.run(&inputs).unwrap(), interp::run(&model, &inputs).unwrap());
    }
}
