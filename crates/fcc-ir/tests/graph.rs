//! The graph keeps its invariants, and the interpreter and verifier see subgraphs and functions.
use fcc_ir::attr::Attrs;
use fcc_ir::interp::{self, Values};
use fcc_ir::op::default_opsets;
use fcc_ir::verify::{verify, verify_graph};
use fcc_ir::{DType, Dim, Function, Graph, Model, NewNode, NodeId, Tensor, ValueId, ValueInfo, ValueType};

fn node<'a>(op_type: &'a str, inputs: &[ValueId], output: &str) -> NewNode<'a> {
    NewNode {
        op_type,
        domain: "",
        name: output.into(),
        inputs: inputs.iter().copied().map(Some).collect(),
        outputs: vec![output.into()],
        attrs: Attrs::new(),
    }
}

fn out(node: NodeId) -> ValueId {
    ValueId { node, output: 0 }
}

fn float(shape: &[usize]) -> ValueType {
    ValueType::tensor(DType::F32, shape.iter().copied())
}

/// x -> Relu r -> Abs y
fn chain() -> (Graph, ValueId, NodeId, NodeId) {
    let mut g = Graph::new("g", default_opsets(21));
    let x = g.add_input(ValueInfo::new("x", float(&[2, 3]))).unwrap();
    let r = g.add_op(node("Relu", &[x], "r")).unwrap();
    let y = g.add_op(node("Abs", &[out(r)], "y")).unwrap();
    g.add_output(out(y), ValueInfo::new("y", float(&[2, 3])));
    (g, x, r, y)
}

fn run(graph: Graph, x: Tensor) -> Values {
    interp::run(&Model::new(graph), &Values::from([("x".into(), x.into())])).unwrap()
}

#[test]
fn replacing_an_output_keeps_its_name() {
    let (mut g, _, r, y) = chain();
    g.replace_uses(out(y), out(r)).unwrap();
    g.sweep(|_| false);
    verify_graph(&g, 0).unwrap();
    assert_eq!(g.value_name(out(r)), "y");
    assert!(!g.contains(y));
    let x = Tensor::new(vec![2, 3], vec![-1f32, 2., f32::NAN, -0., 5., -6.]).unwrap();
    let y = run(g, x)["y"].as_tensor().unwrap().as_slice::<f32>().unwrap().into_owned();
    assert_eq!((y[0], y[1], y[4], y[5]), (0., 2., 5., 0.));
    assert!(y[2].is_nan());
}

#[test]
fn an_output_is_not_replaced_by_an_input() {
    let (mut g, x, _, y) = chain();
    let before = format!("{:?}", g.outputs);
    assert!(g.replace_uses(out(y), x).unwrap_err().to_string().contains("output `y`"));
    assert_eq!(format!("{:?}", g.outputs), before);
    verify_graph(&g, 0).unwrap();
}

#[test]
fn names_are_unique_and_fresh_names_avoid_subgraphs() {
    let (mut g, x, ..) = chain();
    assert!(g.add_op(node("Abs", &[x], "r")).unwrap_err().to_string().contains("`r` twice"));
    let mut sub = Graph::new("sub", default_opsets(21));
    sub.add_capture(0, "x.inner", float(&[2, 3])).unwrap();
    let mut owner = node("Custom", &[], "z");
    owner.domain = "my";
    owner.attrs = Attrs::new().with("body", sub);
    g.add_op(owner).unwrap();
    assert_eq!(g.fresh_name("x.inner"), "x.inner_1");
    assert_eq!(g.fresh_name("free"), "free");
}

#[test]
fn a_cycle_is_named() {
    let (mut g, _, r, y) = chain();
    g.connect(out(y), r, fcc_ir::Slot::Input(0));
    let e = verify_graph(&g, 0).unwrap_err().to_string();
    assert!(e.contains("cycle") && e.contains("Relu"), "{e}");
}

#[test]
fn a_capture_beyond_what_the_owner_gives_is_an_error() {
    let (mut g, ..) = chain();
    let mut sub = Graph::new("sub", default_opsets(21));
    sub.add_capture(0, "c", float(&[1])).unwrap();
    let mut owner = node("Custom", &[], "z");
    owner.domain = "my";
    owner.attrs = Attrs::new().with("body", sub);
    g.add_op(owner).unwrap();
    assert!(verify_graph(&g, 0).unwrap_err().to_string().contains("capture 0"));
}

#[test]
fn wrong_arity_is_an_error() {
    let (mut g, x, ..) = chain();
    g.add_op(node("Relu", &[x, x], "bad")).unwrap();
    assert!(verify_graph(&g, 0).unwrap_err().to_string().contains("number of inputs: got 2, wanted 1"));
}

#[test]
fn inference_keeps_symbols_and_reports_wrong_declarations() {
    let mut g = Graph::new("g", default_opsets(21));
    let x = g
        .add_input(ValueInfo::new("x", ValueType::tensor(DType::F32, [Dim::symbol("N"), Dim::Known(3)])))
        .unwrap();
    let r = g.add_op(node("Relu", &[x], "r")).unwrap();
    g.set_ty(out(r), float(&[7, 4]));
    let facts = fcc_ir::infer::infer(&mut g, &[]).unwrap();
    assert_eq!(g.ty(out(r)).to_string(), "float[N,3]");
    assert_eq!(facts.conflicts.len(), 1, "{:?}", facts.conflicts);
}

#[test]
fn conv_infers_symbolic_extents() {
    let mut g = Graph::new("g", default_opsets(21));
    let dims = [Dim::symbol("N"), Dim::Known(2), Dim::symbol("H"), Dim::Known(9)];
    let x = g.add_input(ValueInfo::new("x", ValueType::tensor(DType::F32, dims))).unwrap();
    let w = g.add_constant("w", Tensor::new(vec![4, 2, 3, 2], vec![0f32; 48]).unwrap()).unwrap();
    let mut conv = node("Conv", &[x, w], "y");
    conv.attrs = Attrs::new().with("strides", vec![2, 3]).with("pads", vec![1, 0, 0, 1]);
    let y = g.add_op(conv).unwrap();
    fcc_ir::infer::infer(&mut g, &[]).unwrap();
    assert_eq!(g.ty(out(y)).to_string(), "float[N,4,floor((H - 2)/(2)) + 1,3]");
}

#[test]
fn functions_run_with_the_callers_attributes() {
    let mut body = Graph::new("f", default_opsets(21));
    let a = body.add_input(ValueInfo::new("a", ValueType::Unknown)).unwrap();
    let b = body.add_op(node("Relu", &[a], "b")).unwrap();
    body.add_output(out(b), ValueInfo::new("b", ValueType::Unknown));
    let mut g = Graph::new("g", default_opsets(21));
    let x = g.add_input(ValueInfo::new("x", float(&[2]))).unwrap();
    let mut call = node("F", &[x], "y");
    call.domain = "my";
    let y = g.add_op(call).unwrap();
    g.add_output(out(y), ValueInfo::new("y", float(&[2])));
    let mut model = Model::new(g);
    model.functions.push(Function {
        domain: "my".into(),
        name: "F".into(),
        overload: String::new(),
        attributes: vec![],
        defaults: Attrs::new(),
        opset_imports: vec![],
        body,
        doc: String::new(),
        metadata: vec![],
        extra: Default::default(),
    });
    verify(&model).unwrap();
    let x = Tensor::new(vec![2], vec![-1f32, 3.]).unwrap();
    let y = interp::run(&model, &Values::from([("x".into(), x.into())])).unwrap();
    assert_eq!(y["y"], Tensor::new(vec![2], vec![0f32, 3.]).unwrap().into());
}

#[test]
fn inputs_are_checked_before_a_run() {
    let (g, ..) = chain();
    let model = Model::new(g);
    let x = || Tensor::new(vec![2, 3], vec![0f32; 6]).unwrap();
    let error = |values: Values| interp::run(&model, &values).unwrap_err().to_string();
    assert!(error(Values::new()).contains("input `x`: got none"));
    assert!(
        error(Values::from([("z".into(), x().into())])).contains("input name: got `z`, wanted one of `x`")
    );
    let wrong = Tensor::new(vec![2, 4], vec![0f32; 8]).unwrap();
    assert!(error(Values::from([("x".into(), wrong.into())])).contains("got float[2,4], wanted float[2,3]"));
    let wrong = Tensor::new(vec![2, 3], vec![0i64; 6]).unwrap();
    assert!(error(Values::from([("x".into(), wrong.into())])).contains("got int64[2,3], wanted float[2,3]"));
}

#[test]
fn sub_byte_elements_are_packed_low_bits_first() {
    let t = Tensor::from_unpacked_bits(DType::U4, vec![3], &[1, 2, 15]).unwrap();
    assert_eq!(t.bytes().as_ref(), [0x21, 0x0f]);
    assert_eq!(t.unpacked_bits(), [1, 2, 15]);
    assert!(Tensor::new(vec![usize::MAX, 2], Vec::<f32>::new()).is_err());
}

#[test]
fn a_fresh_name_does_not_ask_every_node_that_was_lent() {
    let mut g = Graph::new("g", fcc_ir::op::default_opsets(17));
    let x = g.add_input(ValueInfo::new("x", ValueType::Unknown)).unwrap();
    let relu = |i: usize| NewNode {
        op_type: "Relu",
        domain: "",
        name: String::new(),
        inputs: vec![Some(x)],
        outputs: vec![format!("y{i}")],
        attrs: Attrs::new(),
    };
    let made: Vec<_> = (0..100_000).map(|i| g.add_op(relu(i)).unwrap()).collect();
    // 10^10 steps if each is asked for graphs
    for id in made {
        g.node_mut(id).doc = "lent".into();
        assert_eq!(g.fresh_name("x"), "x_1");
    }
}
