//! Runs of the interpreter that reach a limit: what they say, where, and that the model runs afterwards.
use fcc_ir::interp::{Values, run, run_within};
use fcc_ir::{CancelToken, Error, Model, RunLimits, Stopped, Tensor, Value, text};
use std::time::{Duration, Instant};

fn soon() -> RunLimits {
    RunLimits { deadline: Some(Instant::now() + Duration::from_millis(200)), ..RunLimits::default() }
}

fn memory(bytes: usize) -> RunLimits {
    RunLimits { memory_bytes: Some(bytes), ..RunLimits::default() }
}

fn given<const N: usize>(list: [(&str, Tensor); N]) -> Values {
    list.into_iter().map(|(name, t)| (name.to_string(), Value::from(t))).collect()
}

fn stopped(made: Result<Values, Error>) -> (Stopped, String) {
    let error = made.expect_err("a limit is reached");
    (error.stopped().unwrap_or_else(|| panic!("{error}")), error.to_string())
}

const ENDLESS: &str = r#"<ir_version: 8, opset_import: ["" : 18]>
main (int64 n, bool c, float[2] x) => (float[2] y) {
  [endless] y = Loop(n, c, x) <
    body = b (int64 i, bool go, float[2] v) => (bool on, float[2] w) { on = Identity(go) w = Neg(v) }
  >
}"#;

fn loop_model(n: i64) -> (Model, Values) {
    let inputs = given([
        ("n", Tensor::scalar(n)),
        ("c", Tensor::from_bools([], [true]).unwrap()),
        ("x", Tensor::new([2], vec![1f32, -2.0]).unwrap()),
    ]);
    (text::parse(ENDLESS).unwrap(), inputs)
}

#[test]
fn a_loop_of_2_to_the_62_turns_ends_and_names_its_node() {
    let (model, inputs) = loop_model(1 << 62);
    let (why, message) = stopped(run_within(&model, &inputs, &soon()));
    assert!(matches!(why, Stopped::Deadline { .. }), "{why:?}");
    assert!(message.starts_with("node `endless` (Loop): "), "{message}");
    assert!(message.contains("stopped: the time limit of 0.2 s is reached"), "{message}");
    let (model, inputs) = loop_model(3);
    assert_eq!(run(&model, &inputs).unwrap(), given([("y", Tensor::new([2], vec![-1f32, 2.0]).unwrap())]));
}

#[test]
fn a_loop_with_an_empty_body_ends_too() {
    let model = text::parse(
        r#"<ir_version: 8, opset_import: ["" : 18]>
main (int64 n, bool c) => (bool d) {
  d = Loop(n, , c) < body = b (int64 i, bool go, bool v) => (bool go, bool v) { } >
}"#,
    )
    .unwrap();
    let inputs = given([("n", Tensor::scalar(i64::MAX)), ("c", Tensor::from_bools([], [true]).unwrap())]);
    let (why, _) = stopped(run_within(&model, &inputs, &soon()));
    assert!(matches!(why, Stopped::Deadline { .. }), "{why:?}");
}

#[test]
fn another_thread_cancels_a_run() {
    let cancel = CancelToken::new();
    let limits = RunLimits { cancel: Some(cancel.clone()), ..RunLimits::default() };
    let (model, inputs) = loop_model(1 << 62);
    let (why, _) = std::thread::scope(|s| {
        let running = s.spawn(|| stopped(run_within(&model, &inputs, &limits)));
        cancel.cancel();
        running.join().unwrap()
    });
    assert_eq!(why, Stopped::Cancelled);
}

#[test]
fn a_deadline_that_is_over_stops_the_first_node() {
    let (model, inputs) = loop_model(1);
    let over = RunLimits { deadline: Some(Instant::now()), ..RunLimits::default() };
    let (_, message) = stopped(run_within(&model, &inputs, &over));
    assert_eq!(message, "node `endless` (Loop): stopped: the time limit of 0 s is reached");
    assert!(run(&model, &inputs).is_ok());
}

#[test]
fn bodies_in_branches_in_functions_say_the_whole_way() {
    let model = text::parse(
        r#"<ir_version: 8, opset_import: ["" : 18, "own" : 1]>
main (bool c, int64 n) => (int64 y) { [call] y = own.f(c, n) }
<domain: "own", opset_import: ["" : 18]>
f (c, n) => (r) {
  [branch] r = If(c) <
    then_branch = a () => (int64 p) {
      [turns] p = Loop(n, c, n) <
        body = b (int64 i, bool go, int64 v) => (bool go2, int64 w) { go2 = Identity(go) [add] w = Add(v, i) }
      >
    },
    else_branch = e () => (int64 q) { q = Identity(n) }
  >
}"#,
    )
    .unwrap();
    let inputs =
        |c: bool| given([("n", Tensor::scalar(1i64 << 62)), ("c", Tensor::from_bools([], [c]).unwrap())]);
    let (_, message) = stopped(run_within(&model, &inputs(true), &soon()));
    assert!(message.starts_with("node `call` (f): node `branch` (If): node `turns` (Loop): "), "{message}");
    assert!(run_within(&model, &inputs(false), &soon()).is_ok());
}

#[test]
fn a_scan_ends() {
    let model = text::parse(
        r#"<ir_version: 8, opset_import: ["" : 18]>
main (float[600,600] h, float[N,1] x) => (float[600,600] last) {
  last = Scan<num_scan_inputs = 1,
    body = b (float[600,600] s, float[1] e) => (float[600,600] t) { m = MatMul(s, s) t = Add(m, e) }
  >(h, x)
}"#,
    )
    .unwrap();
    let zeros = |shape: [usize; 2]| Tensor::new(shape, vec![0f32; shape[0] * shape[1]]).unwrap();
    let inputs = given([("h", zeros([600, 600])), ("x", zeros([100_000, 1]))]);
    let (_, message) = stopped(run_within(&model, &inputs, &soon()));
    assert!(message.contains("(Scan): "), "{message}");
}

#[test]
fn what_a_loop_collects_counts() {
    let model = text::parse(
        r#"<ir_version: 8, opset_import: ["" : 18]>
main (int64 n, bool c) => (int64[N] all) {
  all = Loop(n, c) <
    body = b (int64 i, bool go) => (bool on, int64 j) { on = Identity(go) j = Identity(i) }
  >
}"#,
    )
    .unwrap();
    let inputs = |n: i64| given([("n", Tensor::scalar(n)), ("c", Tensor::from_bools([], [true]).unwrap())]);
    let (why, message) = stopped(run_within(&model, &inputs(1 << 62), &memory(1 << 20)));
    assert!(matches!(why, Stopped::Memory { limit_bytes: 1_048_576, .. }), "{why:?}");
    assert!(message.contains("(Loop): "), "{message}");
    let made = run_within(&model, &inputs(100), &memory(1 << 20)).unwrap();
    assert_eq!(made["all"].as_tensor().unwrap().len(), 100);
}

#[test]
fn values_are_held_to_the_limit_while_they_are_needed() {
    // each value is as large as x; two live at a time, and a third while a node makes it
    let model = text::parse(
        r#"<ir_version: 8, opset_import: ["" : 18]>
main (float[65536] x) => (float[65536] y) {
  a = Neg(x) b = Abs(a) c = Neg(b) d = Abs(c) [last] y = Add(d, c)
}"#,
    )
    .unwrap();
    let inputs = given([("x", Tensor::new([65536], vec![1f32; 65536]).unwrap())]);
    let size = 65536 * 4;
    assert!(run_within(&model, &inputs, &memory(3 * size + 1024)).is_ok());
    let (why, message) = stopped(run_within(&model, &inputs, &memory(2 * size + 1024)));
    let held_bytes = 2 * (size + fcc_ir::limits::TENSOR_BYTES);
    assert_eq!(why, Stopped::Memory { limit_bytes: 2 * size + 1024, held_bytes, asked_bytes: size });
    assert!(message.starts_with("node `last` (Add): stopped: the memory limit of "), "{message}");
    assert!(run(&model, &inputs).is_ok());
}
