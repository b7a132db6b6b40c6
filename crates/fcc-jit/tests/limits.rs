//! Compiled models that reach a limit: the error, and that the same model runs afterwards.
mod common;

use fcc_ir::interp::{Values, run};
use fcc_ir::op::default_opsets;
use fcc_ir::{
    CancelToken, DType, Error, Graph, Model, NewNode, RunLimits, Stopped, Tensor, Value, ValueId, ValueInfo,
    ValueType, convert, text,
};
use fcc_jit::{Options, compile};
use std::time::{Duration, Instant};

fn over() -> RunLimits {
    RunLimits { deadline: Some(Instant::now()), ..RunLimits::default() }
}

fn memory(bytes: usize) -> RunLimits {
    RunLimits { memory_bytes: Some(bytes), ..RunLimits::default() }
}

fn given<const N: usize>(list: [(&str, Tensor); N]) -> Values {
    list.into_iter().map(|(name, t)| (name.to_string(), Value::from(t))).collect()
}

fn ints(shape: &[usize]) -> Tensor {
    let n: usize = shape.iter().product();
    Tensor::new(shape, (0..n).map(|i| (i % 7) as f32 - 3.0).collect::<Vec<f32>>()).unwrap()
}

fn stopped<T>(made: Result<T, Error>) -> (Stopped, String) {
    let Err(error) = made else { panic!("a limit is reached") };
    (error.stopped().unwrap_or_else(|| panic!("{error}")), error.to_string())
}

/// Two products and what stands between them.
fn network() -> (Model, Values) {
    let model = text::parse(
        r#"<ir_version: 8, opset_import: ["" : 17]>
main (float[N,24] x, float[24,40] w, float[40,8] v) => (float[N,8] y) {
  [first] a = MatMul(x, w)
  b = Relu(a)
  [second] y = MatMul(b, v)
}"#,
    )
    .unwrap();
    let inputs = given([("x", ints(&[5, 24])), ("w", ints(&[24, 40])), ("v", ints(&[40, 8]))]);
    (model, inputs)
}

#[test]
fn a_model_runs_again_after_it_was_stopped() {
    let (model, inputs) = network();
    let want = run(&model, &inputs).unwrap();
    for threads in [1, 3] {
        let compiled = compile(&model, &Options::with_threads(threads)).unwrap();
        // before there is a plan, and with one
        for _ in 0..2 {
            let (why, message) = stopped(compiled.run_within(&inputs, &over()));
            assert!(matches!(why, Stopped::Deadline { .. }), "{message}");
            assert_eq!(compiled.run(&inputs).unwrap(), want);
        }
        assert!(
            compiled.plan_for(&inputs).unwrap().interpreted_steps().is_empty(),
            "what was stopped is not kept"
        );
    }
}

#[test]
fn the_step_is_named() {
    let (model, inputs) = network();
    let compiled = compile(&model, &Options::with_threads(1)).unwrap();
    compiled.run(&inputs).unwrap();
    let (_, message) = stopped(compiled.run_within(&inputs, &over()));
    assert_eq!(message, "node `first` (MatMul): stopped: the time limit of 0 s is reached");
}

#[test]
fn a_loop_in_a_compiled_model_is_cancelled_from_another_thread() {
    let model = text::parse(
        r#"<ir_version: 8, opset_import: ["" : 18]>
main (int64 n, bool c, float[4,4] x) => (float[4,4] y) {
  [endless] y = Loop(n, c, x) <
    body = b (int64 i, bool go, float[4,4] v) => (bool on, float[4,4] w) {
      on = Identity(go) m = MatMul(v, v) w = Clip(m)
    }
  >
}"#,
    )
    .unwrap();
    let inputs = |n: i64| {
        let c = Tensor::from_bools([], [true]).unwrap();
        given([("n", Tensor::scalar(n)), ("c", c), ("x", ints(&[4, 4]))])
    };
    let compiled = compile(&model, &Options::with_threads(2)).unwrap();
    let cancel = CancelToken::new();
    let limits = RunLimits { cancel: Some(cancel.clone()), ..RunLimits::default() };
    std::thread::scope(|s| {
        let running = s.spawn(|| stopped(compiled.run_within(&inputs(1 << 62), &limits)));
        // while the other thread is at it, or before: both end
        compiled.run(&inputs(3)).unwrap();
        cancel.cancel();
        let (why, message) = running.join().unwrap();
        assert_eq!(why, Stopped::Cancelled);
        assert!(message.starts_with("node `endless` (Loop): "), "{message}");
    });
    assert_eq!(compiled.run(&inputs(2)).unwrap(), run(&model, &inputs(2)).unwrap());
}

#[test]
fn no_task_begins_once_a_run_is_stopped() {
    // machine code only: the deadline passes in one of thousands of steps, whichever it is
    let steps: String = (0..2000).map(|i| format!("  v{} = MatMul(v{i}, w)\n", i + 1)).collect();
    let source = format!(
        "<ir_version: 8, opset_import: [\"\" : 17]>\nmain (float[64,512] v0, float[512,512] w) => (float[64,512] v2000) {{\n{steps}}}"
    );
    let model = text::parse(&source).unwrap();
    let inputs = given([("v0", ints(&[64, 512])), ("w", ints(&[512, 512]))]);
    let compiled = compile(&model, &Options::with_threads(2)).unwrap();
    let cancel = CancelToken::new();
    let limits = RunLimits { cancel: Some(cancel.clone()), ..RunLimits::default() };
    std::thread::scope(|s| {
        let running = s.spawn(|| compiled.run_within(&inputs, &limits));
        cancel.cancel();
        let (why, _) = stopped(running.join().unwrap());
        assert_eq!(why, Stopped::Cancelled);
    });
}

#[test]
fn the_arena_and_the_outputs_count() {
    let model = text::parse(
        r#"<ir_version: 8, opset_import: ["" : 17]>
main (float[256,1024] x, float[1024,1024] w) => (float[256,1024] y) {
  a = MatMul(x, w)
  b = Softmax(a)
  y = MatMul(b, w)
}"#,
    )
    .unwrap();
    let inputs = given([("x", ints(&[256, 1024])), ("w", ints(&[1024, 1024]))]);
    let compiled = compile(&model, &Options::with_threads(1)).unwrap();
    let plan = compiled.plan_for(&inputs).unwrap();
    let needed = plan.arena_bytes() + plan.info().output_bytes;
    assert!(plan.arena_bytes() >= 1 << 20);
    // whether the arena is new or waits from an earlier run
    for _ in 0..2 {
        let (why, _) = stopped(compiled.run_within(&inputs, &memory(needed - 1)));
        assert!(matches!(why, Stopped::Memory { asked_bytes, .. } if asked_bytes == needed), "{why:?}");
        compiled.run_within(&inputs, &memory(needed + 4096)).unwrap();
    }
}

#[test]
fn steps_of_the_interpreter_count_as_there() {
    let model = text::parse(
        r#"<ir_version: 8, opset_import: ["" : 17]>
main (float16[N,1024] x) => (float16[N,1024] y) { [narrow] y = Erf(x) }"#,
    )
    .unwrap();
    let x = convert::from_f32s(DType::F16, [512, 1024], vec![0.5; 512 * 1024]).unwrap();
    let inputs = given([("x", x)]);
    let compiled = compile(&model, &Options::with_threads(1)).unwrap();
    compiled.run_within(&inputs, &memory(16 << 20)).unwrap();
    let (why, message) = stopped(compiled.run_within(&inputs, &memory(1 << 19)));
    assert!(matches!(why, Stopped::Memory { asked_bytes: 1_048_576, .. }), "{why:?}");
    assert!(message.starts_with("node `narrow` (Erf): "), "{message}");
}

#[test]
fn compiling_ends_and_packed_weights_count() {
    let mut graph = Graph::new("main", default_opsets(17));
    let ty = ValueType::tensor(DType::F32, [8usize, 512]);
    let x = graph.add_input(ValueInfo::new("x", ty.clone())).unwrap();
    let w = graph.add_constant("w", ints(&[512, 512])).unwrap();
    let made = graph
        .add_op(NewNode {
            op_type: "MatMul",
            domain: "",
            name: "product".into(),
            inputs: vec![Some(x), Some(w)],
            outputs: vec!["y".into()],
            attrs: Default::default(),
        })
        .unwrap();
    graph.add_output(ValueId { node: made, output: 0 }, ValueInfo::new("y", ty));
    let model = Model::new(graph);
    let options = Options::with_threads(1);
    let (why, _) = stopped(over().within(|| compile(&model, &options)));
    assert!(matches!(why, Stopped::Deadline { .. }), "{why:?}");
    let (why, message) = stopped(memory(1 << 19).within(|| compile(&model, &options)));
    assert!(matches!(why, Stopped::Memory { asked_bytes, .. } if asked_bytes >= 1 << 20), "{why:?}");
    assert!(message.starts_with("packing weights: "), "{message}");
    let inputs = given([("x", ints(&[8, 512]))]);
    let made = memory(4 << 20).within(|| compile(&model, &options)?.run(&inputs)).unwrap();
    assert_eq!(made, run(&model, &inputs).unwrap());
}

#[test]
fn tuning_ends() {
    let (model, inputs) = network();
    let mut options = Options::with_threads(1);
    options.choices = Some(Default::default());
    let (why, _) =
        stopped(over().within(|| fcc_jit::tune::tune(&model, &options, &inputs, None, &mut |_| {})));
    assert!(matches!(why, Stopped::Deadline { .. }), "{why:?}");
    let limits =
        RunLimits { deadline: Some(Instant::now() + Duration::from_secs(3600)), ..RunLimits::default() };
    assert!(limits.within(|| compile(&model, &options)?.run(&inputs)).is_ok());
}
