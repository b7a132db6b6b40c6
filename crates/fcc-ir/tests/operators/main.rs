//! Operators on a few numbers that were computed by hand from the text of ONNX, each case a line of text: what is
//! given, the nodes, what they must make. The interpreter and the types that inference gives are held against it.
mod control;
mod elementwise;
mod images;
mod learning;
mod linear;
mod sequences;

use fcc_ir::convert::to_f64s;
use fcc_ir::infer::infer;
use fcc_ir::interp::{Values, run};
use fcc_ir::text::{parse, parse_graph};
use fcc_ir::{DType, Graph, Model, NodeKind, Tensor, verify};

/// The opset of `ai.onnx`; what is given, as initializers of the text form; nodes; what the outputs must be.
pub type Case = (i64, &'static str, &'static str, &'static str);
/// The same, with a part of the error.
pub type Refusal = Case;

/// The initializers of a text, by name.
fn tensors(text: &str) -> Vec<(String, Tensor)> {
    let opsets = fcc_ir::op::default_opsets(20);
    let graph: Graph =
        parse_graph(&format!("g () => () <{text}> {{}}"), opsets).unwrap_or_else(|e| panic!("{e}: {text}"));
    let tensor = |id| match &graph.node(id).kind {
        NodeKind::Constant(c) => Some((graph.node(id).outputs()[0].name.clone(), c.tensor.clone())),
        _ => None,
    };
    graph.nodes().into_iter().filter_map(tensor).collect()
}

/// The case as a model; `fed`: what is given comes as inputs, else it is constant.
fn model(&(opset, given, nodes, _): &Case, outputs: &[String], fed: bool) -> Model {
    let inputs: Vec<String> =
        tensors(given).iter().map(|(name, t)| format!("{} {name}", t.tensor_type())).collect();
    let (inputs, constants) = if fed { (inputs.join(", "), "") } else { (String::new(), given) };
    let text = format!(
        "<ir_version: 10, opset_import: [\"\" : {opset}, \"ai.onnx.preview\" : 1, \"ai.onnx.preview.training\" : 1]>
         g ({inputs}) => ({}) <{constants}> {{ {nodes} }}",
        outputs.join(", ")
    );
    parse(&text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

fn values(given: &str, fed: bool) -> Values {
    let given = tensors(given).into_iter().filter(|_| fed);
    given.map(|(name, t)| (name, t.into())).collect()
}

/// Equal in every bit, or as floats within one millionth (half precision: one thousandth).
fn close(got: &Tensor, want: &Tensor) -> bool {
    if got.dtype() != want.dtype() || got.shape() != want.shape() {
        return false;
    }
    let tolerance = match want.dtype() {
        DType::F32 | DType::F64 => 1e-6,
        DType::F16 | DType::BF16 => 1e-3,
        _ => return got == want,
    };
    let near = |(a, b): (&f64, &f64)| {
        a == b || a.is_nan() && b.is_nan() || (a - b).abs() <= tolerance * b.abs().max(1.0)
    };
    to_f64s(got).unwrap().iter().zip(&to_f64s(want).unwrap()).all(near)
}

/// Computes each case with its values given as inputs and as constants, and wants the outputs and their types.
pub fn check(cases: &[Case]) {
    for case in cases {
        let want = tensors(case.3);
        let names: Vec<String> = want.iter().map(|(name, _)| name.clone()).collect();
        for fed in [true, false] {
            let mut model = model(case, &names, fed);
            verify::verify(&model).unwrap_or_else(|e| panic!("{e}: {case:?}"));
            let made = run(&model, &values(case.1, fed)).unwrap_or_else(|e| panic!("{e}: {case:?}"));
            let functions = vec![];
            infer(&mut model.graph, &functions).unwrap_or_else(|e| panic!("inference: {e}: {case:?}"));
            for ((name, want), output) in want.iter().zip(&model.graph.outputs) {
                let got = made[name].as_tensor().unwrap();
                assert!(close(got, want), "{case:?}: `{name}` is {got:?}, wanted {want:?}");
                let inferred = model.graph.ty(output.value);
                let fits = inferred.merge(&want.tensor_type().into());
                assert!(fits.is_ok(), "{case:?}: `{name}` is inferred as {inferred}");
            }
        }
    }
}

/// Each case must be refused, by the checks, by inference or in the run, with an error that holds this text.
pub fn refuse(cases: &[Refusal]) {
    for case in cases {
        for fed in [true, false] {
            let mut model = model(case, &["y".to_string()], fed);
            let refused = verify::verify(&model).and_then(|()| run(&model, &values(case.1, fed)).map(|_| ()));
            let error = refused.expect_err(&format!("{case:?}")).to_string();
            assert!(error.contains(case.3), "{case:?}: {error}");
            // inference may say so too, or nothing; it must not panic
            let _ = infer(&mut model.graph, &[]);
        }
    }
}
