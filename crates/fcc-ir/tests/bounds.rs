//! What inference may take is bounded (`docs/limits.md`): each model here is a few kilobytes of text, and without its
//! bound takes time or memory that doubles with every line.
use fcc_ir::infer::infer;
use fcc_ir::{Dim, DimExpr, Model, ValueType, text, verify};
use std::fmt::Write;

fn model(signature: &str, body: &str, functions: &str) -> Model {
    model_at(17, signature, body, functions)
}

fn model_at(opset: i64, signature: &str, body: &str, functions: &str) -> Model {
    let imports = format!("opset_import: [\"\" : {opset}, \"d\" : 1]");
    let source = format!("<ir_version: 9, {imports}> g {signature} {{ {body} }} {functions}");
    let model = text::parse(&source).unwrap();
    verify::verify(&model).unwrap();
    model
}

/// The inferred type of a value.
fn ty(mut model: Model, name: &str) -> ValueType {
    infer(&mut model.graph, &model.functions).unwrap();
    model.graph.ty(model.graph.value(name).unwrap()).clone()
}

#[test]
fn a_vector_that_doubles_is_followed_up_to_a_length() {
    let mut body = String::from("s = Shape(x) c0 = Concat<axis = 0>(s, s)\n");
    for i in 0..60 {
        writeln!(body, "c{} = Concat<axis = 0>(c{i}, c{i})", i + 1).unwrap();
    }
    body += "y = Identity(c60) z = Identity(c3)";
    let m = model("(float[N] x) => (y, z)", &body, "");
    assert_eq!(ty(m.clone(), "y").to_string(), format!("int64[{}]", 1u64 << 61));
    assert_eq!(ty(m, "z").to_string(), "int64[16]");
}

#[test]
fn a_text_that_doubles_is_not_computed() {
    let mut body = String::from("c0 = Constant<value_string = \"abcdefgh\">()\n");
    for i in 0..50 {
        writeln!(body, "c{} = StringConcat(c{i}, c{i})", i + 1).unwrap();
    }
    body += "y = Identity(c50)";
    let m = model_at(20, "(float[N] x) => (y)", &body, "");
    assert_eq!(ty(m, "y"), ValueType::tensor(fcc_ir::DType::String, Vec::<Dim>::new()));
}

#[test]
fn expressions_that_share_their_parts_are_cut() {
    // each line makes the tree of the expression larger than twice the one before
    let mut body = String::from("h = Shape(x) one = Constant<value_ints = [1]>() d0 = Add(h, one)\n");
    for i in 0..60 {
        writeln!(body, "e{i} = Add(d{i}, one) d{} = Div(d{i}, e{i})", i + 1).unwrap();
    }
    body += "y = Expand(x, d3) z = Expand(x, d60)";
    let m = model("(float[N] x) => (y, z)", &body, "");
    let size = |name| match ty(m.clone(), name) {
        ValueType::Tensor(t) => t.shape.unwrap()[0].size(),
        other => panic!("{other}"),
    };
    assert!(size("d3") == 1 && size("z") <= DimExpr::MAX_SIZE);
}

/// `n` loops inside of each other, each of which has to be looked at twice: its state's extent changes.
fn nested_loops(n: usize) -> String {
    let inner = match n {
        0 => "t0 = Concat<axis = 0>(s0, s0)".to_string(),
        _ => format!("t{n} = Loop(, c{n}, s{n}) <body = b{} {}>", n - 1, nested_loops(n - 1)),
    };
    let end = if n == 0 { "u = Identity(t0)" } else { "" };
    format!(
        "(int64 i{n}, bool c{n}, float[] s{n}) => (bool d{n}, float[] t{n}) {{ d{n} = Identity(c{n}) {inner} {end} }}"
    )
}

#[test]
fn loops_that_nest_are_looked_at_so_many_times() {
    let body = format!("y = Loop(, c, x) <body = b {}>", nested_loops(24));
    assert_eq!(ty(model("(bool c, float[2] x) => (y)", &body, ""), "y").to_string(), "float[?]");
}

#[test]
fn functions_that_call_each_other_twice_are_looked_at_so_many_times() {
    let mut functions = String::new();
    for i in 0..12 {
        let next = if i == 11 { "Relu".to_string() } else { format!("d.f{}", i + 1) };
        write!(
            functions,
            "<domain: \"d\", opset_import: [\"\" : 17, \"d\" : 1]> f{i} (x) => (y) {{ h = {next}(x) y = {next}(h) }}"
        )
        .unwrap();
    }
    // about 2^14 nodes a call
    let calls: String = (0..20).map(|i| format!("h{} = d.f0(h{i}) ", i + 1)).collect();
    let body = format!("h0 = Relu(x) {calls} y = Relu(h20)");
    let m = model("(float[2] x) => (y)", &body, &functions);
    assert_eq!(ty(m.clone(), "h1").to_string(), "float[2]");
    assert_eq!(ty(m, "h20"), ValueType::Unknown);
}

#[test]
fn facts_of_all_nodes_together_are_bounded() {
    // each of 20,000 lines would keep 1024 extents
    let mut body = String::from("s = Shape(x) c0 = Concat<axis = 0>(s, s)\n");
    for i in 0..9 {
        writeln!(body, "c{} = Concat<axis = 0>(c{i}, c{i})", i + 1).unwrap();
    }
    for i in 9..20_000 {
        writeln!(body, "c{} = Identity(c{i})", i + 1).unwrap();
    }
    body += "a = Identity(c9) y = Identity(c20000)";
    let mut m = model("(float[N] x) => (a, y)", &body, "");
    let facts = infer(&mut m.graph, &m.functions).unwrap();
    let dims = |name: &str| facts.get(m.graph.value(name).unwrap()).dims;
    assert!(dims("c9").is_some() && dims("y").is_none());
    assert_eq!(m.graph.ty(m.graph.value("y").unwrap()).to_string(), "int64[1024]");
}

#[test]
fn a_rank_above_64_is_not_followed() {
    let sixty = vec!["1"; 60].join(",");
    for (more, want) in [(4, Some(64)), (5, None)] {
        let ones = vec!["1"; more].join(",");
        let body = format!(
            "a = Constant<value_ints = [{sixty}]>() b = Constant<value_ints = [{ones}]>() s = Concat<axis = 0>(a, b)
             y = Reshape(x, s)"
        );
        let ty = ty(model("(float[N] x) => (y)", &body, ""), "y");
        assert_eq!(ty.as_tensor().unwrap().rank(), want);
    }
}
