//! The command line as programs call it: options, exit codes, JSON, files.
mod common;
use common::{answer, fcc, fixture, names, text_file};
use fcc_ir::Tensor;
use std::io::Read;
use std::process::{Command, Stdio};

const ADD: &str = r#"<ir_version: 8, opset_import: ["" : 17]>
g (float[batch,2] x, float[batch,2] y) => (float[batch,2] z) { z = Add (x, y) }"#;

fn npz(path: &std::path::Path, arrays: &[(&str, Tensor)]) {
    fcc_onnx::write_npz(path, arrays.iter().map(|(name, t)| (*name, t))).unwrap();
}

fn floats(shape: [usize; 2], values: &[f32]) -> Tensor {
    Tensor::new(shape, values.to_vec()).unwrap()
}

#[test]
fn run_reads_npz_and_writes_npz() {
    let dir = tempfile::tempdir().unwrap();
    let model = text_file(dir.path(), "add.onnxtxt", ADD);
    let (given, made) = (dir.path().join("in.npz"), dir.path().join("out.npz"));
    npz(&given, &[("x", floats([1, 2], &[1.0, 2.0])), ("y", floats([1, 2], &[10.0, 20.0]))]);
    for engine in ["jit", "interpreter"] {
        let args = ["run", model.to_str().unwrap(), "--engine", engine, "--threads", "1"];
        let files = ["--inputs", given.to_str().unwrap(), "--outputs", made.to_str().unwrap()];
        let answer = fcc(args.iter().chain(&files)).ok();
        assert_eq!((answer.stdout, answer.stderr), (String::new(), String::new()));
        let arrays = fcc_onnx::read_npz(&made).unwrap();
        assert_eq!(arrays, [("z".to_string(), floats([1, 2], &[11.0, 22.0]))]);
    }
}

#[test]
fn run_reads_single_files_and_prints_outputs() {
    let dir = tempfile::tempdir().unwrap();
    let model = text_file(dir.path(), "add.onnxtxt", ADD);
    let (npy, pb) = (dir.path().join("x.npy"), dir.path().join("y.pb"));
    fcc_onnx::write_npy(&npy, &floats([1, 2], &[1.0, 2.0])).unwrap();
    fcc_onnx::write_tensor_pb(&pb, "y", &floats([1, 2], &[0.5, -3.0])).unwrap();
    let (x, y) = (format!("x={}", npy.display()), format!("y={}", pb.display()));
    let answer =
        fcc(["run", model.to_str().unwrap(), "--input", &x, "--input", &y, "--engine", "interpreter"]).ok();
    assert_eq!(answer.stdout, "z  float[1,2]  -1 to 1.5, mean 0.25  [1.5, -1]\n");
}

#[test]
fn expect_compares_and_names_the_first_difference() {
    let dir = tempfile::tempdir().unwrap();
    let model = text_file(dir.path(), "add.onnxtxt", ADD);
    let (given, want) = (dir.path().join("in.npz"), dir.path().join("want.npz"));
    npz(&given, &[("x", floats([1, 2], &[1.0, 2.0])), ("y", floats([1, 2], &[0.0, 0.0]))]);
    npz(&want, &[("z", floats([1, 2], &[1.0, 2.5]))]);
    let (model, given, want) = (model.to_str().unwrap(), given.to_str().unwrap(), want.to_str().unwrap());
    let args = ["run", model, "--inputs", given, "--expect", want, "--engine", "interpreter"];
    let differs = fcc(args);
    assert_eq!(differs.code, 1);
    assert!(
        differs
            .stdout
            .starts_with("z: differs, first at [0, 1], max abs difference 5.000e-1, max rel 2.000e-1")
    );
    let close = fcc(args.iter().chain(&["--rtol", "0.2", "--atol", "0"])).ok();
    assert_eq!(close.stdout, "z: ok, max abs difference 5.000e-1, max rel 2.000e-1\n");
}

#[test]
fn random_needs_every_symbol_and_set_gives_it() {
    let dir = tempfile::tempdir().unwrap();
    let model = text_file(dir.path(), "add.onnxtxt", ADD);
    let model = model.to_str().unwrap();
    let refusal = fcc(["run", model, "--random", "1"]).refusal();
    assert_eq!(refusal, "input `x`: dimension `batch`: got no value, wanted one: --set NAME=N");
    let once = fcc(["run", model, "--random", "1", "--set", "batch=3"]).ok();
    assert!(once.stdout.starts_with("z  float[3,2]  "), "{}", once.stdout);
    assert_eq!(once.stdout, fcc(["run", model, "--random", "1", "--set", "batch=3"]).ok().stdout);
    assert_ne!(once.stdout, fcc(["run", model, "--random", "2", "--set", "batch=3"]).ok().stdout);
    let unknown = fcc(["run", model, "--random", "1", "--set", "N=3"]).refusal();
    assert_eq!(unknown, "--set: got symbol `N`, wanted one of `batch`");
}

#[test]
fn a_name_that_two_dimensions_share_is_no_law() {
    let dir = tempfile::tempdir().unwrap();
    let given = dir.path().join("in.npz");
    let rows = |n: usize| floats([n, 2], &vec![1.0; 2 * n]);
    npz(&given, &[("x", rows(2)), ("y", rows(3))]);
    let given = given.to_str().unwrap();
    let text = |op: &str| ADD.replace("Add (x, y)", op);
    let model = text_file(dir.path(), "concat.onnxtxt", &text("Concat <axis = 0> (x, y)"));
    let model = model.to_str().unwrap();
    let wanted = "fcc: note: dimension `batch` is 2 in input `x` and 3 in `y`: the file's name for both does not hold\n";
    for (args, shown) in [
        (&["run", "--engine", "interpreter"][..], "z  float[5,2]"),
        (&["run", "--engine", "jit"], "z  float[5,2]"),
        (&["bench", "--runs", "1"], "median"),
        (&["explain"], "float[5,2]"),
        (&["profile", "--runs", "1"], "float[5,2]"),
    ] {
        let answer = fcc([args[0], model, "--inputs", given].iter().chain(&args[1..])).ok();
        assert_eq!(answer.stderr, wanted, "{args:?}");
        assert!(answer.stdout.contains(shown), "{args:?}: {}", answer.stdout);
    }
    // what the operator forbids stays an error, and so does an extent that is fixed
    let model = text_file(dir.path(), "add.onnxtxt", ADD);
    for engine in ["interpreter", "jit"] {
        let answer = fcc(["run", model.to_str().unwrap(), "--inputs", given, "--engine", engine]);
        assert_eq!(answer.code, 2, "{}", answer.stdout);
        assert!(answer.stderr.starts_with(wanted) && answer.stderr.contains("(Add)"), "{}", answer.stderr);
    }
    let fixed = fcc(["run", model.to_str().unwrap(), "--inputs", given, "--set", "batch=2"]).refusal();
    assert!(fixed.contains("input `y`: got float[3,2], wanted float[2,2]"), "{fixed}");
}

#[test]
fn bench_answers_every_number() {
    let model = fixture("mnist_mlp.onnx");
    let answer =
        fcc(["bench", model.to_str().unwrap(), "--random", "0", "--set", "batch=1", "--runs", "5", "--json"])
            .ok();
    let json = answer.json();
    for key in ["load_ms", "compile_ms", "first_run_ms", "median_ms", "min_ms"] {
        assert!(json[key].as_f64().is_some_and(|ms| ms >= 0.0), "{key}: {json}");
    }
    assert_eq!(json["runs"], 5);
    assert!(json["min_ms"].as_f64() <= json["median_ms"].as_f64());
    if cfg!(target_os = "linux") {
        assert!(json["peak_rss_bytes"].as_u64().unwrap() > 1 << 20);
    }
}

#[test]
fn summary_counts_parameters_and_operations() {
    for (name, parameters, flops) in
        [("mnist_mlp.onnx", 397_510, "794500*batch"), ("mnist_cnn.onnx", 28_938, "5713792*batch")]
    {
        let model = fixture(name);
        let json = fcc(["summary", model.to_str().unwrap(), "--json"]).ok().json();
        assert_eq!((json["parameters"].as_u64(), json["flops"].as_str()), (Some(parameters), Some(flops)));
        let json = fcc(["summary", model.to_str().unwrap(), "--json", "--set", "batch=2"]).ok().json();
        let number: u64 = flops.strip_suffix("*batch").unwrap().parse().unwrap();
        assert_eq!(json["flops"].as_u64(), Some(2 * number));
    }
    let table = fcc(["summary", fixture("mnist_mlp.onnx").to_str().unwrap()]).ok().stdout;
    let words: Vec<&str> = table.split_whitespace().collect();
    let row = ["fc1", "(Gemm)", "[batch,500]", "392,500", "784000*batch"];
    assert!(words.windows(row.len()).any(|w| w == row), "{table}");
    assert!(table.contains("Parameters: 397,510"), "{table}");
}

#[test]
fn test_reports_each_case() {
    let dir = tempfile::tempdir().unwrap();
    let seeds = fixture("seeds");
    let all = fcc(["test", seeds.to_str().unwrap(), "--engine", "interpreter"]).ok();
    assert!(all.stdout.ends_with(" passed, 0 unsupported, 0 failed\n"), "{}", all.stdout);
    // one that fails, one that cannot be read: the others go on
    let good = fixture("seeds/linear_gemm_2x2");
    for (name, change) in [("wrong", Some(())), ("broken", None)] {
        let case = dir.path().join(name);
        std::fs::create_dir_all(case.join("test_data_set_0")).unwrap();
        for file in ["model.onnx", "tol.json", "test_data_set_0/input_0.pb", "test_data_set_0/output_0.pb"] {
            std::fs::copy(good.join(file), case.join(file)).unwrap();
        }
        match change {
            Some(()) => {
                let path = case.join("test_data_set_0/output_0.pb");
                let want = fcc_onnx::read_tensor_pb(&path).unwrap();
                let zeros = Tensor::new(want.shape(), vec![0f32; want.len()]).unwrap();
                fcc_onnx::write_tensor_pb(&path, "y", &zeros).unwrap();
            }
            None => std::fs::write(case.join("model.onnx"), "no model").unwrap(),
        }
    }
    let answer = fcc([
        "test",
        dir.path().to_str().unwrap(),
        good.to_str().unwrap(),
        "--json",
        "--engine",
        "interpreter",
    ]);
    assert_eq!(answer.code, 1);
    let json = answer.json();
    let statuses: Vec<(&str, &str)> = json["cases"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["name"].as_str().unwrap(), c["status"].as_str().unwrap()))
        .collect();
    assert_eq!(statuses, [("broken", "failed"), ("wrong", "failed"), ("linear_gemm_2x2", "passed")]);
    assert!(json["cases"][1]["reason"].as_str().unwrap().contains("elements differ"), "{json}");
}

#[test]
fn rewrite_alone_verifies_and_writes_beside_the_input() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("digits.onnx");
    std::fs::copy(fixture("mnist_cnn.onnx"), &model).unwrap();
    let before = std::fs::read(&model).unwrap();
    let answer = fcc(["rewrite", model.to_str().unwrap()]).ok();
    assert!(answer.stdout.contains("linear-to-full-kernel-conv"), "{}", answer.stdout);
    assert!(answer.stdout.contains("verified: "), "{}", answer.stdout);
    assert_eq!(names(dir.path()), ["digits.fcc.onnx", "digits.onnx"]);
    assert_eq!(std::fs::read(&model).unwrap(), before);
    let text = fcc(["print", dir.path().join("digits.fcc.onnx").to_str().unwrap()]).ok().stdout;
    assert!(text.contains("kernel_shape = [7, 7]"), "{text}");
}

#[test]
fn rewrite_reports_one_row_a_node() {
    let dir = tempfile::tempdir().unwrap();
    let (out, report) = (dir.path().join("out.onnx"), dir.path().join("report.json"));
    let model = fixture("mnist_mlp.onnx");
    let args = ["rewrite", model.to_str().unwrap(), "--rule", "linear-to-pointwise-conv", "--verify"];
    let files = ["-o", out.to_str().unwrap(), "--report", report.to_str().unwrap()];
    fcc(args.iter().chain(&files)).ok();
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(&report).unwrap()).unwrap();
    let rows = json["rows"].as_array().unwrap();
    assert_eq!(
        rows.iter().filter(|r| r["outcome"] == "rewritten" && r["rule"] == args[3]).count(),
        2,
        "{json:#}"
    );
    assert!(json["verification"]["difference"].is_null() && json["verification"]["trials"].is_array());
}

#[test]
fn rule_none_only_loads_and_saves() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("same.onnx");
    let model = fixture("mnist_mlp.onnx");
    fcc(["rewrite", model.to_str().unwrap(), "--rule", "none", "-o", out.to_str().unwrap()]).ok();
    let load = |path| fcc_onnx::load(path, &fcc_onnx::LoadOptions::default()).unwrap();
    fcc_ir::text::same(&load(&model), &load(&out)).unwrap();
}

#[test]
fn the_input_is_not_replaced_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("m.onnx");
    std::fs::copy(fixture("mnist_mlp.onnx"), &model).unwrap();
    let path = model.to_str().unwrap();
    let before = std::fs::read(&model).unwrap();
    let linked = dir.path().join("link.onnx");
    std::os::unix::fs::symlink(&model, &linked).unwrap();
    for target in [path, linked.to_str().unwrap(), &format!("{}/./m.onnx", dir.path().display())] {
        let refusal = fcc(["rewrite", path, "-o", target]).refusal();
        assert!(
            refusal.contains("-o (or give --in-place): got a file that is read, wanted another"),
            "{refusal}"
        );
    }
    assert_eq!(std::fs::read(&model).unwrap(), before);
    fcc(["rewrite", path, "--in-place"]).ok();
    assert_ne!(std::fs::read(&model).unwrap(), before);
}

#[test]
fn text_is_printed_and_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let model = fixture("seeds/linear_gemm_4x4/model.onnx");
    let text = fcc(["print", model.to_str().unwrap(), "--constants"]).ok().stdout;
    let file = text_file(dir.path(), "m.onnxtxt", &text);
    assert_eq!(fcc(["print", file.to_str().unwrap(), "--constants"]).ok().stdout, text);
    let out = dir.path().join("m.onnx");
    fcc(["rewrite", file.to_str().unwrap(), "--rule", "none", "-o", out.to_str().unwrap()]).ok();
    assert_eq!(fcc(["print", out.to_str().unwrap(), "--constants"]).ok().stdout, text);
}

#[test]
fn rules_are_listed_and_explained() {
    let list = fcc(["rules"]).ok().stdout;
    for rule in [
        "linear-to-full-kernel-conv",
        "linear-to-pointwise-conv",
        "conv-to-im2col-gemm",
        "conv-to-toeplitz-gemm",
        "pointwise-conv-to-matmul",
    ] {
        assert!(list.contains(rule), "{list}");
        assert!(fcc(["rules", rule]).ok().stdout.contains("=>"));
    }
    assert!(fcc(["rules", "--json"]).ok().json()["rules"].as_array().unwrap().len() >= 10);
    assert!(fcc(["rules", "no-such"]).refusal().starts_with("rule: got `no-such`, wanted one of linear-to-"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let model = fixture("mnist_cnn.onnx");
    let mut child = Command::new(env!("CARGO_BIN_EXE_fcc"))
        .args(["print", model.to_str().unwrap(), "--constants"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 16];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let answer = answer(&child.wait_with_output().unwrap(), "print | head");
    assert_eq!((answer.code, answer.stderr.as_str()), (0, ""));
}

#[test]
fn completions_name_every_subcommand() {
    for shell in ["bash", "zsh", "fish"] {
        let script = fcc(["completions", shell]).ok().stdout;
        for command in ["rewrite", "run", "bench", "test", "print", "summary", "rules"] {
            assert!(script.contains(command), "{shell}: {command}");
        }
    }
}

#[test]
fn profile_shows_steps_totals_and_a_trace() {
    let folder = tempfile::tempdir().expect("a folder");
    let trace = folder.path().join("trace.json");
    let model = fixture("mnist_cnn.onnx");
    let base = ["--random", "0", "--set", "batch=2", "--threads", "2", "--runs", "3"];
    let args = |rest: &[&str]| {
        let mut args = vec!["profile".to_string(), model.display().to_string()];
        args.extend(base.iter().chain(rest).map(|a| a.to_string()));
        args
    };
    let told = fcc(args(&["--json"])).ok().json();
    let steps = told["steps"].as_array().expect("steps");
    assert_eq!(told["runs"], 3);
    assert!(steps.iter().any(|s| s["op"] == "Gemm" || s["interpreted"] == true), "{told}");
    let sum: f64 = steps.iter().filter_map(|s| s["us"].as_f64()).sum();
    let totals: f64 =
        told["operators"].as_array().expect("totals").iter().filter_map(|o| o["us"].as_f64()).sum();
    assert!((sum - totals).abs() < 1e-6 * sum, "{sum} and {totals}");
    let path = trace.display().to_string();
    let text = fcc(args(&["--trace", &path, "--trace-runs", "2", "--top", "1"])).ok().stdout;
    assert!(text.contains("interpreter: "), "{text}");
    let trace: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&trace).expect("a trace")).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("events");
    let runs = events.iter().filter(|e| e["name"].as_str().is_some_and(|n| n.starts_with("run "))).count();
    assert_eq!(runs, 2);
    for event in events.iter().filter(|e| e["ph"] == "X") {
        assert!(event["dur"].as_f64().is_some_and(|d| d >= 0.0) && event["ts"].is_number(), "{event}");
    }
}

#[test]
fn explain_says_what_is_left_to_the_interpreter_and_why() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "<ir_version: 8, opset_import: [\"\" : 17]>
g (float[2,3] x, float[3,3] m) => (float y)
{
  a = Relu (x)
  y = Det (m)
}
";
    let text = text.replace("(float y)", "(float y, float[2,3] a)");
    let model = text_file(folder.path(), "det.onnxtxt", &text);
    let answer = fcc(["explain".as_ref(), model.as_os_str(), "--random".as_ref(), "0".as_ref()]).ok();
    let left = "Det `y`: operator: got Det of float[3,3], need one that there is a kernel for";
    assert!(answer.stdout.contains(left), "{}", answer.stdout);
    let args = ["explain".as_ref(), model.as_os_str(), "--random".as_ref(), "0".as_ref(), "--json".as_ref()];
    let told = fcc(args).ok().json();
    assert!(told["interpreted_steps"].as_array().is_some_and(|s| !s.is_empty()), "{told}");
}
