//! `fcc rewrite`: proofs, dumps, bisection, rules left out, sliding classifiers, weights beside the model.
mod common;
use common::{fcc, fixture, names, text_file};
use std::path::Path;

/// A classifier of 6x5 images without padding.
const CLASSIFIER: &str = r#"<ir_version: 8, opset_import: ["" : 17]>
classify (float[N,1,6,5] x) => (float[N,2] y)
<float[2,1,3,2] k = {1, 2, 3, -1, -2, -3, 2, 1, 0, 1, -1, 2},
 float[8,2] w = {1, 2, 3, 4, 5, 6, 7, 8, -1, -2, -3, -4, -5, -6, -7, -8}, float[2] b = {1, -2}> {
    [conv] c = Conv<strides = [2, 2]>(x, k)
    [relu] r = Relu(c)
    [flat] f = Flatten(r)
    [fc] y = Gemm(f, w, b)
}"#;

fn model(dir: &Path) -> String {
    text_file(dir, "m.onnxtxt", CLASSIFIER).to_str().unwrap().to_string()
}

#[test]
fn proofs_are_told_by_layer() {
    let dir = tempfile::tempdir().unwrap();
    let (path, out) = (model(dir.path()), dir.path().join("out.onnx"));
    let out = out.to_str().unwrap();
    let told = fcc(["rewrite", &path, "--prove", "-o", out]).ok().stdout;
    assert!(
        told.contains("proved: fc (linear-to-full-kernel-conv): all 64 coefficients are equal"),
        "{told}"
    );
    let json = fcc(["rewrite", &path, "--prove", "--json", "-o", out]).ok().json();
    assert_eq!(json["proofs"][0]["node"], "fc");
    assert_eq!(json["proofs"][0]["proof"]["method"], "basis");
    let without = fcc(["rewrite", &path, "--json", "-o", out]).ok().json();
    assert!(without["proofs"].is_null() && without["dense"].is_null());
}

#[test]
fn a_layer_of_unknown_rank_has_no_proof_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(fixture("../tests/filetests/in_function.onnxtxt")).unwrap();
    let path = text_file(dir.path(), "f.onnxtxt", &text);
    let out = dir.path().join("out.onnx");
    let rule = ["--rule", "linear-to-pointwise-conv", "--prove", "-o", out.to_str().unwrap()];
    let answer = fcc(["rewrite", path.to_str().unwrap()].iter().chain(&rule));
    assert_eq!(answer.code, 1, "{}{}", answer.stdout, answer.stderr);
    assert!(answer.stderr.contains("proof: function layer: fc1"), "{}", answer.stderr);
    assert!(!out.exists());
}

#[test]
fn dumps_are_numbered_by_pass() {
    let dir = tempfile::tempdir().unwrap();
    let (path, steps) = (model(dir.path()), dir.path().join("deep/steps"));
    let args = ["rewrite", &path, "--rule", "linear-to-conv", "--rule", "clean-up", "--dump"];
    let out = dir.path().join("out.onnx");
    fcc(args.iter().chain(&[steps.to_str().unwrap(), "-o", out.to_str().unwrap()])).ok();
    let wanted = [
        "00-input.txt",
        "01-linear-to-conv.txt",
        "02-cancel-layouts.txt",
        "03-clean-up.txt",
        "04-remove-unused.txt",
    ];
    assert_eq!(names(&steps), wanted);
    let read = |name: &str| std::fs::read_to_string(steps.join(name)).unwrap();
    assert!(read(wanted[0]).contains("Gemm") && !read(wanted[1]).contains("Gemm"));
    let blocked = text_file(dir.path(), "file", "");
    let refusal = fcc(["rewrite", &path, "--dump", blocked.to_str().unwrap()]).refusal();
    assert!(refusal.contains("cannot write into the folder"), "{refusal}");
}

#[test]
fn rules_are_left_out() {
    let dir = tempfile::tempdir().unwrap();
    let (path, out) = (model(dir.path()), dir.path().join("out.onnxtxt"));
    let args = ["rewrite", &path, "-o", out.to_str().unwrap()];
    let kernel = |more: &[&str]| {
        fcc(args.iter().chain(more)).ok();
        let text = std::fs::read_to_string(&out).unwrap().replace(' ', "");
        ["kernel_shape=[2,2]", "kernel_shape=[1,1]"].map(|k| text.contains(k))
    };
    assert_eq!(kernel(&[]), [true, false]);
    assert_eq!(kernel(&["--skip", "linear-to-full-kernel-conv"]), [false, true]);
    assert_eq!(kernel(&["--max-kernel", "1"]), [false, true]);
    assert_eq!(kernel(&["--skip", "linear-to-conv"]), [false, false]);
    let refusal = fcc(args.iter().chain(&["--skip", "conv-to-im2col-gemm"])).refusal();
    assert!(refusal.starts_with("--skip: got `conv-to-im2col-gemm`, wanted a rule"), "{refusal}");
}

#[cfg(unix)]
#[test]
fn bisection_finds_the_rewrite_that_a_program_does_not_take() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let model = fixture("mnist_mlp.onnx");
    let model = model.to_str().unwrap();
    let good = fcc(["rewrite", model, "--bisect"]).ok().stdout;
    assert_eq!(good, "every rewrite keeps the model right\n");
    // takes models with less than two Convs
    let program =
        text_file(dir.path(), "takes", "#!/bin/sh\ntest \"$(grep -ao 'Conv' \"$1\" | wc -l)\" -lt 1\n");
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let steps = dir.path().join("steps");
    let check = ["--check", program.to_str().unwrap(), "--dump", steps.to_str().unwrap()];
    let found = fcc(["rewrite", model, "--bisect"].iter().chain(&check));
    assert_eq!(found.code, 1, "{}{}", found.stdout, found.stderr);
    assert!(
        found.stdout.starts_with("first bad rewrite: number 1, pass linear-to-conv, rule "),
        "{}",
        found.stdout
    );
    assert_eq!(names(&steps), ["00-before.txt", "01-after.txt"]);
    let text = |name: &str| std::fs::read_to_string(steps.join(name)).unwrap();
    assert!(!text("00-before.txt").contains("Conv") && text("01-after.txt").contains("Conv"));
    let json = fcc(["rewrite", model, "--bisect", "--json"].iter().chain(&check[..2])).json();
    assert_eq!(json["first_bad"]["number"], 1);
    let missing = fcc(["rewrite", model, "--bisect", "--check", "/no/such/program"]).refusal();
    assert!(missing.contains("/no/such/program"), "{missing}");
}

#[test]
fn a_classifier_becomes_dense_or_is_declined() {
    let dir = tempfile::tempdir().unwrap();
    let (path, out) = (model(dir.path()), dir.path().join("dense.onnx"));
    let out = out.to_str().unwrap();
    let told = fcc(["rewrite", &path, "--dense", "-o", out]).ok().stdout;
    assert!(
        told.contains("dense: `x` may be larger; one result for each window of 6x5, every 2x2"),
        "{told}"
    );
    // of the fourth window along H the last row is missing, which the model does not read
    let sizes = ["--set", "N=3", "--set", "H=11", "--set", "W=9"];
    for engine in ["jit", "interpreter"] {
        let ran = fcc(["run", out, "--random", "1", "--engine", engine].iter().chain(&sizes)).ok().stdout;
        assert!(ran.starts_with("y  float[3,2,4,3]  "), "{ran}");
    }
    let json = fcc(["rewrite", &path, "--dense", "--json", "-o", out]).ok().json();
    assert_eq!(json["dense"]["strides"], serde_json::json!([2, 2]));
    // one row less, which zeros stand in for
    let padded = CLASSIFIER.replace("[N,1,6,5]", "[N,1,5,5]");
    let padded = padded.replace("strides = [2, 2]", "strides = [2, 2], pads = [0, 0, 1, 0]");
    let padded = text_file(dir.path(), "p.onnxtxt", &padded);
    let padded = padded.to_str().unwrap();
    let refusal = fcc(["rewrite", padded, "--dense"]);
    assert_eq!(refusal.code, 2, "{}", refusal.stdout);
    assert!(refusal.stderr.contains("--dense: pads of node `conv`"), "{}", refusal.stderr);
    assert!(refusal.stderr.contains("(--keep-padding keeps it)"), "{}", refusal.stderr);
    assert!(!dir.path().join("p.fcc.onnx").exists());
    let told = fcc(["rewrite", padded, "--dense", "--keep-padding", "-o", out]).ok().stdout;
    assert!(told.contains("equal to the original on an image of 5x5; inside a larger one"), "{told}");
    let ran = fcc(["run", out, "--random", "1"].iter().chain(&sizes)).ok().stdout;
    assert!(ran.starts_with("y  float[3,2,"), "{ran}");
}

#[test]
fn weights_beside_the_model_are_rewritten_and_stay_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("a.onnx"), dir.path().join("b.onnx"));
    let (a, b) = (first.to_str().unwrap(), second.to_str().unwrap());
    let model = fixture("mnist_mlp.onnx");
    fcc(["rewrite", model.to_str().unwrap(), "--rule", "none", "--external-data", "-o", a]).ok();
    assert_eq!(names(dir.path()).len(), 2, "{:?}", names(dir.path()));
    fcc(["rewrite", a, "--verify", "--external-data", "-o", b]).ok();
    assert_eq!(names(dir.path()).len(), 4, "{:?}", names(dir.path()));
    let run = |path: &str| {
        fcc(["run", path, "--random", "1", "--set", "batch=2", "--engine", "interpreter"]).ok().stdout
    };
    let (want, got) = (run(a), run(b));
    assert_eq!(want.split("  ").next(), got.split("  ").next());
    assert!(std::fs::metadata(b).unwrap().len() < 10_000);
}
