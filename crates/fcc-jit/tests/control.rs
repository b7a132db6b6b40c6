//! `If`, `Loop`, `Scan` and functions: bodies are compiled, and agree with the interpreter.
mod common;

use common::net::{Net, Within, check, run_guarded};
use fcc_ir::attr::Attrs;
use fcc_ir::interp::{self, Values};
use fcc_ir::text;
use fcc_ir::{Model, Tensor, Value};
use fcc_jit::{Options, compile};

fn model(source: &str) -> Model {
    text::parse(source).unwrap()
}

fn reals(shape: &[usize]) -> Value {
    let n: usize = shape.iter().product();
    Tensor::new(shape, (0..n).map(|i| (i * 7 % 11) as f32 - 5.0).collect::<Vec<f32>>()).unwrap().into()
}

fn given<const N: usize>(list: [(&str, Value); N]) -> Values {
    list.into_iter().map(|(n, v)| (n.to_string(), v)).collect()
}

const IF: &str = r#"<ir_version: 8, opset_import: ["" : 18]>
main (float[2,3] x, bool c) => (float[2,3] y) {
  w = Constant<value = float[3,3] {1, 2, 3, 4, 5, 6, 7, 8, 9}>()
  y = If(c) <
    then_branch = a () => (float[2,3] p) { h = MatMul(x, w) p = Relu(h) },
    else_branch = b () => (float[2,3] q) { q = Neg(x) }
  >
}"#;

#[test]
fn a_condition_of_the_run_takes_a_compiled_branch() {
    let m = model(IF);
    for c in [true, false] {
        let c = Tensor::from_bools([], [c]).unwrap();
        check(&m, &given([("x", reals(&[2, 3])), ("c", c.into())]), Within::Exact);
    }
}

#[test]
fn a_condition_that_is_known_leaves_no_if() {
    let m = model(
        r#"<ir_version: 8, opset_import: ["" : 18]>
main (float[2,n] x) => (float[m,k] y, float[2,n] z) {
  s = Shape(x)
  one = Constant<value = int64 {1}>()
  three = Constant<value = int64 {3}>()
  d = Gather(s, one)
  c = Equal(d, three)
  y, z = If(c) <
    then_branch = a () => (float[2,3] p, float[2,3] r) {
      cc = Not(c)
      p = If(cc) <
        then_branch = aa () => (float[2,3] p1) { p1 = Abs(x) },
        else_branch = bb () => (float[2,3] p2) { p2 = Exp(x) }
      >
      r = Identity(x)
    },
    else_branch = b () => (float[n,2] q, float[2,n] t) { q = Transpose(x) t = Neg(x) }
  >
}"#,
    );
    for n in [3, 5] {
        let inputs = given([("x", reals(&[2, n]))]);
        let plan = compile(&m, &Options::with_threads(1)).unwrap().plan_for(&inputs).unwrap().to_string();
        assert!(!plan.contains("If") && !plan.contains("depend"), "{plan}");
        check(&m, &inputs, Within::Relative(1e-6));
    }
}

const LOOP: &str = r#"<ir_version: 8, opset_import: ["" : 18]>
main (int64 trips, float[2,3] x) => (float[2,3] last, float[t,2,3] all) {
  w = Constant<value = float[3,3] {1, 0, -1, 0, 1, 1, 1, 0, 0}>()
  go = Constant<value = bool {1}>()
  last, all = Loop(trips, go, x) <
    body = b (int64 i, bool c, float[2,3] h) => (bool d, float[2,3] n, float[2,3] o) {
      d = Identity(c)
      m = MatMul(h, w)
      n = Clip(m, low, high)
      o = Add(n, x)
      low = Constant<value = float {-9}>()
      high = Constant<value = float {9}>()
    }
  >
}"#;

#[test]
fn a_loop_runs_its_compiled_body() {
    let m = model(LOOP);
    let compiled = compile(&m, &Options::with_threads(1)).unwrap();
    for trips in [1i64, 2, 7] {
        let inputs = given([("trips", Tensor::scalar(trips).into()), ("x", reals(&[2, 3]))]);
        assert_eq!(run_guarded(&compiled, &inputs).unwrap(), interp::run(&m, &inputs).unwrap(), "{trips}");
    }
}

#[test]
fn a_loop_whose_values_grow() {
    let m = model(
        r#"<ir_version: 8, opset_import: ["" : 18]>
main (int64 trips, float[n] x) => (float[m] y) {
  go = Constant<value = bool {1}>()
  y = Loop(trips, go, x) <
    body = b (int64 i, bool c, float[k] h) => (bool d, float[l] g) {
      d = Identity(c)
      e = Neg(h)
      g = Concat<axis = 0>(e, x)
    }
  >
}"#,
    );
    let compiled = compile(&m, &Options::with_threads(1)).unwrap();
    for _ in 0..3 {
        let inputs = given([("trips", Tensor::scalar(9i64).into()), ("x", reals(&[2]))]);
        assert_eq!(run_guarded(&compiled, &inputs).unwrap(), interp::run(&m, &inputs).unwrap());
    }
}

#[test]
fn a_scan_walks_over_its_compiled_body() {
    let m = model(
        r#"<ir_version: 8, opset_import: ["" : 18]>
main (float[2] h, float[5,2] x) => (float[2] last, float[5,2] all) {
  last, all = Scan<num_scan_inputs = 1,
    body = b (float[2] s, float[2] e) => (float[2] t, float[2] o) { t = Add(s, e) o = Mul(t, e) }
  >(h, x)
}"#,
    );
    check(&m, &given([("h", reals(&[2])), ("x", reals(&[5, 2]))]), Within::Exact);
}

#[test]
fn a_function_is_compiled_in_the_place_of_its_call() {
    let m = model(
        r#"<ir_version: 8, opset_import: ["" : 18, "own" : 1]>
main (float[2,3] x) => (float[2,3] y, float[2,3] z) {
  y = own.twice<k = 2.0>(x)
  z = own.twice<k = 0.5>(y)
}
<domain: "own", opset_import: ["" : 18]>
twice<k>(a) => (b) {
  f = Constant<value_float: float = @k>()
  g = Mul(a, f)
  b = Relu(g)
}"#,
    );
    check(&m, &given([("x", reals(&[2, 3]))]), Within::Exact);
}

#[test]
fn an_error_in_a_branch_is_reported() {
    let m = model(
        r#"<ir_version: 8, opset_import: ["" : 18]>
main (float[4] x, int64[1] i, bool c) => (float[1] y) {
  y = If(c) <
    then_branch = a () => (float[1] p) { p = Gather(x, i) },
    else_branch = b () => (float[1] q) { q = ReduceSum(x) }
  >
}"#,
    );
    let run = |i: i64| {
        let c = Tensor::from_bools([], [true]).unwrap();
        let inputs = given([("x", reals(&[4])), ("i", Tensor::from_i64s([i]).into()), ("c", c.into())]);
        compile(&m, &Options::with_threads(1)).unwrap().run(&inputs)
    };
    assert!(run(3).is_ok());
    let why = run(4).unwrap_err().to_string();
    assert!(why.contains("index: got 4"), "{why}");
}

#[test]
fn one_model_runs_in_several_threads() {
    let mut net = Net::new();
    // large enough to be dealt out to the pool's threads
    let x = net.real_input(&[64, 256]);
    let w = net.weight(&[256, 512]);
    let y = net.op("MatMul", &[x, w]);
    let z = net.node("Softmax", &[y], Attrs::new());
    let (m, inputs) = net.model(&[y, z]);
    let compiled = compile(&m, &Options::with_threads(2)).unwrap();
    let want = compiled.run(&inputs).unwrap();
    std::thread::scope(|s| {
        for _ in 0..4 {
            s.spawn(|| {
                for _ in 0..40 {
                    // held together, so that memory that is handed out again must be another's
                    let both = [compiled.run(&inputs).unwrap(), compiled.run(&inputs).unwrap()];
                    assert!(both.iter().all(|got| *got == want));
                }
            });
        }
    });
}

#[test]
fn a_body_declares_how_it_takes_the_iteration() {
    for declared in ["int64", "int64[1]", "int64[k]"] {
        let m = model(&format!(
            r#"<ir_version: 8, opset_import: ["" : 13]>
main (float[3] x, int64 n, bool c) => (y, z) {{
  z, y = Loop(n, c, x) <body = b ({declared} i, bool ci, float[3] v) => (bool co, float[3] w, s) {{
    co = Identity(ci)
    s = Cast<to = 1>(i)
    w = Add(v, s)
  }}>
}}"#
        ));
        for n in [1, 4] {
            let c = Tensor::from_bools([], [true]).unwrap();
            let given = given([("x", reals(&[3])), ("n", Tensor::scalar::<i64>(n).into()), ("c", c.into())]);
            check(&m, &given, Within::Exact);
        }
    }
}

/// The stack of no iterations has the rank of what the body would make, though the body does not declare it, as in
/// ONNX Runtime; interpreter and machine code agree, and with a body that captures the shape.
#[test]
fn the_stack_of_no_iterations_has_the_rank_that_inference_finds() {
    let source = |declared: &str| {
        format!(
            r#"<ir_version: 8, opset_import: ["" : 18]>
main (float[2,6] x, float[1,1] a, int64[3] shape, int64 m) => (z, s, t, u) {{
  z, s, t, u = Loop(m, "", a) <body = g (int64 i, bool c, float{declared} p) => (bool k, float{declared} q, float{declared} r, float{declared} v, w) {{
    k = Identity(c)
    q = Identity(p)
    r = Relu(x)
    v = Reshape(x, shape)
    w = Relu(p)
  }}>
}}"#
        )
    };
    for declared in ["[]", "[A,B,C]"] {
        let m = model(&source(declared));
        let shape = Tensor::from_i64s([3, 2, 2]);
        for trips in [0i64, 2] {
            let inputs = given([
                ("x", reals(&[2, 6])),
                ("a", reals(&[1, 1])),
                ("shape", shape.clone().into()),
                ("m", Tensor::scalar(trips).into()),
            ]);
            let made = interp::run(&m, &inputs).unwrap();
            let dims = |name: &str| made[name].as_tensor().unwrap().shape().to_vec();
            let n = trips as usize;
            assert_eq!((dims("s"), dims("t"), dims("u")), (vec![n, 2, 6], vec![n, 3, 2, 2], vec![n, 1, 1]));
            check(&m, &inputs, Within::Exact);
        }
    }
}
