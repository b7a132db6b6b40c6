//! `--max-seconds`, `--max-memory`, `--shape`, optional inputs, and what is said of slow steps.
mod common;
use common::{fcc, names, text_file};
use fcc_ir::Tensor;
use std::path::Path;

const ENDLESS: &str = r#"<ir_version: 8, opset_import: ["" : 18]>
main (int64 n, bool c, float[2] x) => (float[2] y) {
  [endless] y = Loop(n, c, x) <
    body = b (int64 i, bool go, float[2] v) => (bool on, float[2] w) { on = Identity(go) w = Neg(v) }
  >
}"#;

/// A layer that is rewritten, then products that take minutes in the interpreter.
const LARGE: &str = r#"<ir_version: 8, opset_import: ["" : 17]>
main (float[2048,2048] x) => (float[2048,2048] y) {
  a = Mul(x, x)
  b = Add(a, x)
  [sum] y = Sub(b, x)
}"#;

fn npz(path: &Path, arrays: &[(&str, Tensor)]) {
    fcc_onnx::write_npz(path, arrays.iter().map(|(name, t)| (*name, t))).unwrap();
}

/// The endless loop and inputs for it, in a folder.
fn endless(dir: &Path) -> (String, String) {
    let model = text_file(dir, "loop.onnxtxt", ENDLESS);
    let inputs = dir.join("in.npz");
    let arrays = [
        ("n", Tensor::scalar(1i64 << 62)),
        ("c", Tensor::from_bools([], [true]).unwrap()),
        ("x", Tensor::new([2], vec![1f32, 2.0]).unwrap()),
    ];
    npz(&inputs, &arrays);
    (model.to_str().unwrap().into(), inputs.to_str().unwrap().into())
}

#[test]
fn an_endless_run_ends_in_both_engines_and_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (model, inputs) = endless(dir.path());
    let out = dir.path().join("out.npz");
    for engine in ["jit", "interpreter"] {
        let args = ["run", &model, "--inputs", &inputs, "--engine", engine, "--max-seconds", "0.5"];
        let refusal = fcc(args.into_iter().chain(["--outputs", out.to_str().unwrap()])).refusal();
        assert!(refusal.contains("loop.onnxtxt: node `endless` (Loop): "), "{refusal}");
        assert!(refusal.ends_with("stopped: the time limit of 0.5 s is reached"), "{refusal}");
    }
    assert_eq!(names(dir.path()), ["in.npz", "loop.onnxtxt"]);
}

#[test]
fn every_command_that_computes_ends() {
    let dir = tempfile::tempdir().unwrap();
    let (model, inputs) = endless(dir.path());
    for command in ["run", "bench", "profile", "explain"] {
        let refusal = fcc([command, &model, "--inputs", &inputs, "--max-seconds", "0"]).refusal();
        assert!(refusal.ends_with("stopped: the time limit of 0 s is reached"), "{command}: {refusal}");
    }
    for command in ["bench", "profile"] {
        let refusal = fcc([command, &model, "--inputs", &inputs, "--max-seconds", "0.5"]).refusal();
        assert!(refusal.contains("node `endless` (Loop)"), "{command}: {refusal}");
    }
    let bad = fcc(["run", &model, "--inputs", &inputs, "--max-seconds=-1"]).refusal();
    assert!(bad.contains("got `-1`, wanted a number of 0 or more"), "{bad}");
}

#[test]
fn a_rewrite_that_is_stopped_writes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let model = text_file(dir.path(), "m.onnxtxt", LARGE);
    let report = dir.path().join("r.json");
    let args = ["rewrite", model.to_str().unwrap(), "--report", report.to_str().unwrap()];
    let refusal = fcc(args.into_iter().chain(["--max-seconds", "0"])).refusal();
    assert!(refusal.ends_with("stopped: the time limit of 0 s is reached"), "{refusal}");
    // the verification needs inputs of 16 MiB and what is made of them
    let refusal = fcc(args.into_iter().chain(["--max-memory", "8"])).refusal();
    assert!(
        refusal.contains("verification") && refusal.contains("stopped: the memory limit of 8 MiB"),
        "{refusal}"
    );
    assert_eq!(names(dir.path()), ["m.onnxtxt"]);
    fcc(args.into_iter().chain(["--max-memory", "4096", "--max-seconds", "3600"])).ok();
    assert_eq!(names(dir.path()), ["m.fcc.onnx", "m.onnxtxt", "r.json"]);
}

#[test]
fn memory_is_limited_in_both_engines() {
    let dir = tempfile::tempdir().unwrap();
    let model = text_file(dir.path(), "m.onnxtxt", LARGE);
    for engine in ["jit", "interpreter"] {
        let args = ["run", model.to_str().unwrap(), "--random", "0", "--engine", engine, "--max-memory"];
        let refusal = fcc(args.into_iter().chain(["30"])).refusal();
        assert!(refusal.contains("stopped: the memory limit of 30 MiB is reached: "), "{engine}: {refusal}");
        fcc(args.into_iter().chain(["200"])).ok();
    }
}

#[test]
fn cases_that_are_cut_short_have_no_verdict() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("case/test_data_set_0");
    std::fs::create_dir_all(&data).unwrap();
    let model = fcc_ir::text::parse(
        r#"<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] y) { y = Neg(x) }"#,
    )
    .unwrap();
    fcc_onnx::save(&model, &dir.path().join("case/model.onnx"), &Default::default()).unwrap();
    let t = |v: f32| Tensor::new([2], vec![v, -v]).unwrap();
    fcc_onnx::write_tensor_pb(data.join("input_0.pb"), "x", &t(1.0)).unwrap();
    fcc_onnx::write_tensor_pb(data.join("output_0.pb"), "y", &t(-1.0)).unwrap();
    let folder = dir.path().to_str().unwrap();
    assert_eq!(fcc(["test", folder]).ok().stdout, "1 passed, 0 unsupported, 0 failed\n");
    for engine in ["jit", "interpreter"] {
        let refusal = fcc(["test", folder, "--engine", engine, "--max-seconds", "0"]).refusal();
        assert!(refusal.ends_with("stopped: the time limit of 0 s is reached"), "{refusal}");
        assert!(refusal.contains("case: "), "{refusal}");
    }
}

#[test]
fn steps_that_the_interpreter_computes_are_named_in_one_line() {
    let dir = tempfile::tempdir().unwrap();
    let text = r#"<ir_version: 8, opset_import: ["" : 17]>
main (float16[2,3] x, float16[3,4] w, float[5] z) => (float16[2,4] y, float[5] s) {
  a = MatMul(x, w)
  y = Relu(a)
  s = Relu(z)
}"#;
    let model = text_file(dir.path(), "half.onnxtxt", text);
    let model = model.to_str().unwrap();
    let run = fcc(["run", model, "--random", "0", "--threads", "1"]).ok();
    let line = run.stderr.strip_suffix('\n').unwrap();
    assert!(line.starts_with("fcc: note: 2 of 3 steps run in the interpreter, which is slow: "), "{line}");
    assert!(line.contains("MatMul (float16)") && line.contains("Relu (float16)"), "{line}");
    assert!(line.ends_with("(`fcc explain` says why)") && !line.contains('\n'), "{line}");
    let bench = fcc(["bench", model, "--random", "0", "--threads", "1", "--runs", "1", "--json"]).ok();
    assert!(bench.stderr.starts_with("fcc: note: 2 of 3 steps"), "{}", bench.stderr);
    let json = bench.json();
    assert_eq!(json["interpreted_steps"], 2);
    let share = json["interpreted_share"].as_f64().unwrap();
    assert!(share > 0.0 && share < 1.0, "{share}");
    // the interpreter on purpose is no surprise
    let args = ["bench", model, "--random", "0", "--runs", "1", "--json", "--engine", "interpreter"];
    let bench = fcc(args).ok();
    assert_eq!(bench.stderr, "");
    assert!(bench.json()["interpreted_steps"].is_null() && bench.json()["interpreted_share"].is_null());
}

#[test]
fn steps_in_the_body_of_a_loop_are_named_too() {
    let dir = tempfile::tempdir().unwrap();
    let text = r#"<ir_version: 8, opset_import: ["" : 18]>
main (float16[4] x) => (float16[4] y) {
  n = Constant<value = int64 {5}>()
  c = Constant<value = bool {1}>()
  y = Loop(n, c, x) <
    body = b (int64 i, bool go, float16[4] v) => (bool on, float16[4] w) { on = Identity(go) w = Erf(v) }
  >
}"#;
    let model = text_file(dir.path(), "loop.onnxtxt", text);
    let args = ["bench", model.to_str().unwrap(), "--random", "0", "--runs", "1", "--json"];
    let bench = fcc(args).ok();
    let wanted = "fcc: note: a step in the body of a loop or branch runs in the interpreter, which is slow: Erf (float16) (";
    assert!(bench.stderr.starts_with(wanted), "{}", bench.stderr);
    let json = bench.json();
    assert_eq!(json["interpreted_steps"], 1);
    let share = json["interpreted_share"].as_f64().unwrap();
    assert!(share > 0.0 && share <= 1.0, "{share}");
}

#[test]
fn nothing_is_said_where_all_is_compiled() {
    let dir = tempfile::tempdir().unwrap();
    let model = text_file(dir.path(), "m.onnxtxt", LARGE);
    let args = ["bench", model.to_str().unwrap(), "--random", "0", "--runs", "1", "--json"];
    let bench = fcc(args).ok();
    assert_eq!(bench.stderr, "");
    assert_eq!(
        (&bench.json()["interpreted_steps"], &bench.json()["interpreted_share"]),
        (&0.into(), &0.0.into())
    );
}

const UNNAMED: &str = r#"<ir_version: 8, opset_import: ["" : 17]>
main (float[?,3,?] x, float[n,?] y) => (float[?,3,?] z, float[n,?] w) { z = Relu(x) w = Relu(y) }"#;

#[test]
fn extents_without_a_name_are_1_or_what_shape_says() {
    let dir = tempfile::tempdir().unwrap();
    let model = text_file(dir.path(), "m.onnxtxt", UNNAMED);
    let model = model.to_str().unwrap();
    let run = fcc(["run", model, "--random", "0", "--set", "n=2"]).ok();
    assert_eq!(
        run.stderr,
        "fcc: note: extents `?` are taken as 1, --shape NAME=N,N,… gives others: `x` float[?,3,?], `y` float[2,?]\n"
    );
    assert!(
        run.stdout.starts_with("z  float[1,3,1]  ") && run.stdout.contains("w  float[2,1]  "),
        "{}",
        run.stdout
    );
    let given = ["--random", "0", "--shape", "x=5,3,7", "--shape", "y=4,2"];
    for command in ["run", "explain", "profile", "bench"] {
        let more = if matches!(command, "profile" | "bench") { &["--runs", "1"][..] } else { &[] };
        let answer = fcc([command, model].iter().chain(&given).chain(more)).ok();
        assert_eq!(answer.stderr, "", "{command}");
        if command == "run" {
            assert!(answer.stdout.contains("z  float[5,3,7]") && answer.stdout.contains("w  float[4,2]"));
        }
    }
}

#[test]
fn shapes_that_cannot_be_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = text_file(dir.path(), "m.onnxtxt", UNNAMED);
    let refusal =
        |given: &[&str]| fcc(["run", model.to_str().unwrap(), "--random", "0"].iter().chain(given)).refusal();
    assert_eq!(refusal(&["--shape", "q=1"]), "--shape: got name `q`, wanted one of `x`, `y`");
    assert_eq!(refusal(&["--shape", "x=1,4,1"]), "--shape: input `x`: got [1,4,1], wanted float[?,3,?]");
    assert_eq!(refusal(&["--shape", "x=1,3"]), "--shape: input `x`: got [1,3], wanted float[?,3,?]");
    assert_eq!(refusal(&["--shape", "y=1,1", "--shape", "y=1,1"]), "--shape: got `y` twice, wanted it once");
    let twice = refusal(&["--set", "n=2", "--shape", "y=3,1"]);
    assert_eq!(twice, "--shape: input `y`: got [3,1], wanted float[2,?]");
    assert!(refusal(&["--shape", "x=1,a"]).contains("wanted NAME=N,N,…"));
}

#[test]
fn a_name_that_two_inputs_share_has_one_extent() {
    let dir = tempfile::tempdir().unwrap();
    let text = r#"<ir_version: 8, opset_import: ["" : 17]>
main (float[n,2] x, float[n,?] y) => (float[n,?] z) { z = Concat<axis = 1>(x, y) }"#;
    let model = text_file(dir.path(), "m.onnxtxt", text);
    let run = |given: &[&str]| fcc(["run", model.to_str().unwrap(), "--random", "0"].iter().chain(given));
    let made = run(&["--shape", "y=3,4"]).ok();
    assert!(made.stdout.starts_with("z  float[3,6]  "), "{}", made.stdout);
    let refusal = run(&["--shape", "x=3,2", "--shape", "y=4,4"]).refusal();
    assert!(refusal.starts_with("--shape: input `y`: got [4,4], wanted float[n,?]"), "{refusal}");
}

#[test]
fn an_archive_feeds_optional_inputs_and_sequences() {
    let dir = tempfile::tempdir().unwrap();
    let text = r#"<ir_version: 8, opset_import: ["" : 18]>
main (optional(float[2]) o, seq(float[2]) s) => (bool there, int64 n) {
  there = OptionalHasElement(o)
  n = SequenceLength(s)
}"#;
    let model = text_file(dir.path(), "m.onnxtxt", text);
    let t = || Tensor::new([2], vec![1f32, 2.0]).unwrap();
    let inputs = dir.path().join("in.npz");
    for engine in ["jit", "interpreter"] {
        let run = || {
            let files = ["--inputs", inputs.to_str().unwrap(), "--engine", engine];
            fcc(["run", model.to_str().unwrap()].into_iter().chain(files))
        };
        npz(&inputs, &[("o", t()), ("s.0", t()), ("s.1", t())]);
        assert_eq!(run().ok().stdout, "there  bool  [1]\nn  int64  [2]\n");
        npz(&inputs, &[("s.0", t())]);
        assert_eq!(run().ok().stdout, "there  bool  [0]\nn  int64  [1]\n");
        npz(&inputs, &[("o", t()), ("s.0", t()), ("s.2", t())]);
        assert!(run().refusal().contains("`s.2`"));
    }
}
