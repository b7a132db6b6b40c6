//! Nodes that hand their work to a graph: branches, bodies of loops, functions of the model; and nodes that are not known.
use fcc_ir::infer::infer;
use fcc_ir::interp::{self, Values};
use fcc_ir::text::{PrintOptions, parse, print};
use fcc_ir::{Effects, Model, Op, Tensor, Value};

fn floats(shape: &[usize]) -> Value {
    let n: usize = shape.iter().product();
    Tensor::new(shape, (0..n).map(|i| i as f32 - 1.0).collect::<Vec<f32>>()).unwrap().into()
}

fn run(model: &Model, inputs: &[(&str, Value)]) -> fcc_ir::Result<Values> {
    interp::run(model, &inputs.iter().map(|(n, v)| (n.to_string(), v.clone())).collect())
}

/// Inference and the interpreter say the same of a model, and neither panics.
fn refused(text: &str, inputs: &[(&str, Value)]) -> String {
    let mut model = parse(text).unwrap();
    let inferred = infer(&mut model.graph, &model.functions).unwrap_err().to_string();
    assert_eq!(run(&model, inputs).unwrap_err().to_string(), inferred);
    inferred
}

const HEAD: &str = "<ir_version: 8, opset_import: [\"\" : 13]>\n";

#[test]
fn a_node_lists_as_many_outputs_as_its_bodies_make() {
    let t = Tensor::from_bools([], [true]).unwrap();
    let n = Tensor::scalar(2i64);
    for (outputs, listed) in [("r", 1), ("r, s, t", 3)] {
        let model = format!(
            "{HEAD} g (bool c, float[2] x) => (float[2] r) {{ {outputs} = If (c) <
               then_branch = t () => (float[2] a, float[2] a2) {{ a = Neg (x) a2 = Abs (x) }},
               else_branch = e () => (float[2] b, float[2] b2) {{ b = Abs (x) b2 = Neg (x) }}> }}"
        );
        let error = refused(&model, &[("c", t.clone().into()), ("x", floats(&[2]))]);
        let wanted = format!("got {listed}, wanted 2, as many as the subgraph makes");
        assert_eq!(error, format!("node of output `r` (If): number of outputs: {wanted}"));

        let model = format!(
            "{HEAD} g (float[2] x, int64 n, bool c) => (float[2] r) {{ {outputs} = Loop (n, c, x) <
               body = t (int64 i, bool ci, float[2] v) => (bool co, float[2] a, float[2] a2) {{
                 co = Identity (ci) a = Neg (v) a2 = Abs (v) }}> }}"
        );
        let inputs = [("x", floats(&[2])), ("n", n.clone().into()), ("c", t.clone().into())];
        assert!(refused(&model, &inputs).ends_with(&wanted));

        let model = format!(
            "{HEAD} g (float[2,3] x) => (r) {{ {outputs} = Scan <num_scan_inputs = 1,
               body = t (float[3] v) => (float[3] a, float[3] a2) {{ a = Neg (v) a2 = Abs (v) }}> (x) }}"
        );
        assert!(refused(&model, &[("x", floats(&[2, 3]))]).ends_with(&wanted));
    }
}

const TWO: &str =
    "<domain: \"d\", opset_import: [\"\" : 13]> two (a, b) => (p, q) { p = Neg (a) q = Abs (a) }";

#[test]
fn a_call_may_leave_out_what_stands_last() {
    let text = format!(
        "<ir_version: 8, opset_import: [\"\" : 13, \"d\" : 1]> g (float[2] x) => (r) {{ r = d.two (x) }} {TWO}"
    );
    let mut model = parse(&text).unwrap();
    infer(&mut model.graph, &model.functions).unwrap();
    assert!(print(&model, &PrintOptions::readable()).contains("float[2]"));
    fcc_ir::summary::summary(&model).unwrap();
    let r = run(&model, &[("x", floats(&[2]))]).unwrap()["r"].as_tensor().unwrap().clone();
    assert_eq!(*r.as_slice::<f32>().unwrap(), [1.0, 0.0]);
}

#[test]
fn a_call_has_no_more_inputs_and_outputs_than_its_function() {
    for (call, wanted) in [
        ("r, s, t = d.two (x)", "number of outputs of a call of function `two`: got 3, wanted at most 2"),
        ("r = d.two (x, x, x)", "number of inputs of a call of function `two`: got 3, wanted at most 2"),
    ] {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\" : 13, \"d\" : 1]> g (float[2] x) => (r) {{ {call} }} {TWO}"
        );
        assert_eq!(refused(&text, &[("x", floats(&[2]))]), format!("node of output `r` (two): {wanted}"));
    }
}

#[test]
fn a_node_without_outputs_is_counted_and_kept() {
    let text = "<ir_version: 8, opset_import: [\"\" : 13, \"com.foo\" : 1]>
        g (float[2] x) => (float[2] y) { h = Neg (x)  = com.foo.Sink (h)  d = Exp (x)  y = Abs (x) }";
    let mut model = parse(text).unwrap();
    let layers = fcc_ir::summary::summary(&model).unwrap().layers;
    assert_eq!(
        layers.iter().map(|l| l.op.as_str()).collect::<Vec<_>>(),
        ["Neg", "com.foo.Sink", "Exp", "Abs"]
    );
    let effects = Effects::new(&model.functions);
    let removed = model.graph.sweep(|op| effects.has(op));
    assert_eq!(removed, ["node of output `d` (Exp)"]);
}

#[test]
fn what_holds_an_unknown_operator_has_effects() {
    let text = "<ir_version: 8, opset_import: [\"\" : 13, \"d\" : 1]> g (float[2] x, bool c) => (float[2] y) {
          a = d.calls (x)  b = d.pure (x)  e = d.unheard (x)
          i = If (c) <then_branch = t () => (p) { p = d.unheard (x) }, else_branch = f () => (q) { q = Neg (x) }>
          j = If (c) <then_branch = t () => (p) { p = d.pure (x) }, else_branch = f () => (q) { q = Neg (x) }>
          y = Abs (x)
        }
        <domain: \"d\", opset_import: [\"\" : 13, \"d\" : 1]> calls (x) => (y) { y = d.holds (x) }
        <domain: \"d\", opset_import: [\"\" : 13, \"d\" : 1]> holds (x) => (y) { y = d.unheard (x) }
        <domain: \"d\", opset_import: [\"\" : 13, \"d\" : 1]> pure (x) => (y) { y = Neg (x) }";
    let mut model = parse(text).unwrap();
    let effects = Effects::new(&model.functions);
    let removed = model.graph.sweep(|op| effects.has(op));
    assert_eq!(removed, ["node of output `b` (pure)", "node of output `j` (If)"]);
}

#[test]
fn an_operator_goes_before_a_function_of_its_name() {
    let text = |name: &str, opset: i64, overload: &str| {
        let call = if overload.is_empty() { String::new() } else { format!(":{overload}") };
        let key = if overload.is_empty() { String::new() } else { format!("overload: \"{overload}\", ") };
        format!(
            "<ir_version: 10, opset_import: [\"\" : {opset}]> g (float[3] x) => (y) {{ y = {name}{call} (x) }}
             <domain: \"\", {key}opset_import: [\"\" : {opset}]> {name} (x) => (y) {{ y = Neg (x) }}"
        )
    };
    let made = |text: &str| {
        let model = parse(text).unwrap();
        let known = model.graph.ops().unwrap().iter().all(|id| model.graph.op(*id).unwrap().op != Op::Opaque);
        let y = run(&model, &[("x", floats(&[3]))]).unwrap()["y"].as_tensor().unwrap().clone();
        (known, y.as_slice::<f32>().unwrap().to_vec())
    };
    assert_eq!(made(&text("Abs", 17, "")), (true, vec![1.0, 0.0, 1.0]));
    // an overload is a function's, and opset 17 has no Gelu
    assert_eq!(made(&text("Abs", 17, "v2")), (false, vec![1.0, 0.0, -1.0]));
    assert_eq!(made(&text("Gelu", 17, "")), (false, vec![1.0, 0.0, -1.0]));
    assert!(made(&text("Gelu", 20, "")).0);
}

#[test]
fn a_body_declares_how_it_takes_the_iteration() {
    for (declared, shape) in [("int64", vec![]), ("int64[1]", vec![1]), ("int64[k]", vec![1])] {
        let text = format!(
            "{HEAD} g (float[2] x) => (y) {{
               n = Constant <value = int64 {{3}}> ()  c = Constant <value = bool {{1}}> ()
               y = Loop (n, c) <body = b ({declared} i, bool ci) => (bool co, s) {{
                 co = Identity (ci)  s = Cast <to = 1> (i) }}> }}"
        );
        let mut model = parse(&text).unwrap();
        let y = run(&model, &[("x", floats(&[2]))]).unwrap()["y"].as_tensor().unwrap().clone();
        assert_eq!(y.shape(), [vec![3], shape.clone()].concat());
        assert_eq!(*y.as_slice::<f32>().unwrap(), [0.0, 1.0, 2.0]);
        infer(&mut model.graph, &[]).unwrap();
        let value = model.graph.value("y").unwrap();
        assert_eq!(model.graph.ty(value).as_tensor().unwrap().rank(), Some(1 + shape.len()));
    }
}

#[test]
fn of_two_versions_of_a_domain_the_last_counts() {
    for (imports, wanted) in [("\"\" : 13, \"ai.onnx\" : 11", 11), ("\"ai.onnx\" : 13, \"\" : 17", 17)] {
        let text =
            format!("<ir_version: 8, opset_import: [{imports}]> g (float[2] x) => (y) {{ y = Abs (x) }}");
        let model = parse(&text).unwrap();
        assert_eq!((model.graph.opsets[""], model.opsets()[""]), (wanted, wanted));
        // both entries stay in the file
        assert_eq!(model.opset_imports.len(), 2);
    }
}

#[test]
fn what_a_body_makes_is_held_to_the_operators_types() {
    // 4-bit integers are no elements of a SequenceMap's sequences, bf16 no result of an If before opset 16
    let map = "<ir_version: 10, opset_import: [\"\" : 21]> g (float[2] x) => (y) {
        s = SequenceConstruct (x)
        y = SequenceMap (s) <body = b (float[2] v) => (w) { w = Cast <to = 21> (v) }>
    }";
    assert!(refused(map, &[("x", floats(&[2]))]).contains("wanted sequences of"));
    let branch = "<ir_version: 8, opset_import: [\"\" : 13]> g (bool c, float[2] x) => (y) {
        y = If (c) <
            then_branch = t () => (a) { a = Cast <to = 16> (x) },
            else_branch = e () => (b) { b = Cast <to = 16> (x) }>
    }";
    let c = Tensor::from_bools([], [true]).unwrap();
    assert!(refused(branch, &[("c", c.into()), ("x", floats(&[2]))]).contains("got bfloat16"));
}
