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
