//! Files: inputs that are never replaced, outputs that never meet, standard input and output, permissions, long names,
//! what is noticed before the work, and links.
#![cfg(unix)]
mod common;
use common::{Answer, answer, fcc, fixture, names, text_file};
use fcc_onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, ValueInfoProto, attribute_proto::AttributeType,
};
use prost::Message;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

const ADD: &str = r#"<ir_version: 8, opset_import: ["" : 17]>
g (float[batch,2] x, float[batch,2] y) => (float[batch,2] z) { z = Add (x, y) }"#;

fn some(text: &str) -> Option<String> {
    Some(text.to_string())
}

/// Four floats in a file of their own.
fn external(name: &str, location: &str) -> TensorProto {
    let entry = |key: &str, value: &str| StringStringEntryProto { key: some(key), value: some(value) };
    TensorProto {
        name: some(name),
        dims: vec![4],
        data_type: Some(1),
        data_location: Some(1),
        external_data: vec![entry("location", location), entry("length", "16")],
        ..Default::default()
    }
}

fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let names = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
    NodeProto { op_type: some(op), input: names(inputs), output: names(outputs), ..Default::default() }
}

fn constant(output: &str, location: &str) -> NodeProto {
    let value = AttributeProto {
        name: some("value"),
        r#type: Some(AttributeType::Tensor as i32),
        t: Some(external("", location)),
        ..Default::default()
    };
    NodeProto { attribute: vec![value], ..node("Constant", &[], &[output]) }
}

fn named(name: &str) -> ValueInfoProto {
    ValueInfoProto { name: some(name), ..Default::default() }
}

const PARTS: [&str; 4] = ["initializer.bin", "constant.bin", "subgraph.bin", "function.bin"];

/// A model whose data lie in four files: of an initializer, a `Constant` node, a subgraph and a function.
fn scattered(folder: &Path, locations: [&str; 4]) -> String {
    let branch = |name: &str| AttributeProto {
        name: some(name),
        r#type: Some(AttributeType::Graph as i32),
        g: Some(GraphProto {
            name: some(name),
            initializer: vec![external(&format!("{name}_w"), locations[2])],
            node: vec![node("Add", &["b", &format!("{name}_w")], &[&format!("{name}_y")])],
            output: vec![named(&format!("{name}_y"))],
            ..Default::default()
        }),
        ..Default::default()
    };
    let mut choice = node("If", &["flag"], &["c"]);
    choice.attribute = ["then_branch", "else_branch"].map(branch).into();
    let mut call = node("Shift", &["c"], &["y"]);
    call.domain = some("mine");
    let function = FunctionProto {
        name: some("Shift"),
        domain: some("mine"),
        input: vec!["a".into()],
        output: vec!["r".into()],
        node: vec![constant("k", locations[3]), node("Add", &["a", "k"], &["r"])],
        opset_import: vec![OperatorSetIdProto { version: Some(17), ..Default::default() }],
        ..Default::default()
    };
    let mut flag = external("flag", "");
    (flag.dims, flag.data_type, flag.raw_data) = (vec![], Some(9), Some(vec![1].into()));
    (flag.data_location, flag.external_data) = (None, vec![]);
    let graph = GraphProto {
        name: some("g"),
        node: vec![constant("k", locations[1]), node("Add", &["w", "k"], &["b"]), choice, call],
        initializer: vec![external("w", locations[0]), flag],
        output: vec![named("y")],
        ..Default::default()
    };
    let opset = |domain: &str, version| OperatorSetIdProto { domain: some(domain), version: Some(version) };
    let model = ModelProto {
        ir_version: Some(8),
        opset_import: vec![opset("", 17), opset("mine", 1)],
        graph: Some(graph),
        functions: vec![function],
        ..Default::default()
    };
    for (n, location) in locations.iter().enumerate() {
        let data: Vec<u8> = (0..4).flat_map(|i| ((n * 4 + i) as f32).to_le_bytes()).collect();
        if !folder.join(location).exists() {
            std::fs::write(folder.join(location), data).unwrap();
        }
    }
    let path = folder.join("m.onnx");
    std::fs::write(&path, model.encode_to_vec()).unwrap();
    path.to_str().unwrap().to_string()
}

fn contents(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let read = |name: String| (name.clone(), std::fs::read(folder.join(&name)).unwrap_or_default());
    names(folder).into_iter().map(read).collect()
}

#[test]
fn no_output_replaces_a_part_of_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let model = scattered(dir.path(), PARTS);
    fcc(["run", &model]).ok();
    let before = contents(dir.path());
    let other = tempfile::tempdir().unwrap();
    let out = other.path().join("out.onnx");
    let out = out.to_str().unwrap();
    for part in PARTS.iter().copied().chain(["m.onnx"]) {
        let (real, link) = (dir.path().join(part), other.path().join("link"));
        let _ = std::fs::remove_file(&link);
        symlink(&real, &link).unwrap();
        for target in [real.to_str().unwrap(), link.to_str().unwrap()] {
            let commands: [&[&str]; 7] = [
                &["rewrite", &model, "--rule", "none", "-o", target],
                &["rewrite", &model, "--rule", "none", "-o", out, "--report", target],
                &["rewrite", &model, "--in-place", "--rule", "none", "--report", target],
                &["run", &model, "--outputs", target],
                &["profile", &model, "--runs", "1", "--trace", target],
                &["run", &model, "--tune", target],
                &["bench", &model, "--runs", "1", "--tune", target],
            ];
            for command in commands {
                let refusal = fcc(command).refusal();
                assert!(refusal.contains("wanted another"), "{command:?}: {refusal}");
            }
        }
    }
    assert_eq!(contents(dir.path()), before);
    assert_eq!(names(other.path()), ["link"]);
}

#[test]
fn hard_links_are_the_same_file() {
    let dir = tempfile::tempdir().unwrap();
    let model = scattered(dir.path(), PARTS);
    let hard = dir.path().join("hard.json");
    std::fs::hard_link(dir.path().join("constant.bin"), &hard).unwrap();
    let out = dir.path().join("out.onnx");
    let refusal = fcc([
        "rewrite",
        &model,
        "--follow-links",
        "--rule",
        "none",
        "-o",
        out.to_str().unwrap(),
        "--report",
        hard.to_str().unwrap(),
    ])
    .refusal();
    assert!(refusal.contains("--report: got a file that is read"), "{refusal}");
}

#[test]
fn the_file_of_external_data_replaces_no_input() {
    for at in 0..4 {
        let dir = tempfile::tempdir().unwrap();
        let mut parts = PARTS;
        parts[at] = "out.onnx.data";
        let model = scattered(dir.path(), parts);
        let before = contents(dir.path());
        let out = dir.path().join("out.onnx");
        let refusal =
            fcc(["rewrite", &model, "--rule", "none", "--external-data", "-o", out.to_str().unwrap()])
                .refusal();
        assert!(refusal.contains("out.onnx.data: --external-data: got a file that is read"), "{refusal}");
        assert_eq!(contents(dir.path()), before);
    }
}

#[test]
fn a_dump_replaces_no_input() {
    let dir = tempfile::tempdir().unwrap();
    let mut parts = PARTS;
    parts[2] = "00-input.txt";
    let model = scattered(dir.path(), parts);
    let out = dir.path().join("out.onnx");
    let before = contents(dir.path());
    let folder = dir.path().to_str().unwrap();
    let args = ["rewrite", &model, "--rule", "clean-up", "-o", out.to_str().unwrap(), "--dump", folder];
    let refusal = fcc(args).refusal();
    assert!(refusal.contains("00-input.txt: --dump: got a file that is read"), "{refusal}");
    assert_eq!(contents(dir.path()), before);
}

#[test]
fn no_output_replaces_inputs_of_a_run() {
    let dir = tempfile::tempdir().unwrap();
    let model = text_file(dir.path(), "add.onnxtxt", ADD);
    let model = model.to_str().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let row = fcc_ir::Tensor::new([1, 2], vec![1f32, 2.0]).unwrap();
    fcc_onnx::write_npz(at("in.npz"), [("x", &row), ("y", &row)]).unwrap();
    fcc_onnx::write_npz(at("want.npz"), [("z", &row)]).unwrap();
    fcc_onnx::write_npy(at("x.npy"), &row).unwrap();
    // a tensor whose data lie in a file of their own
    let mut tensor = external("y", "y.bin");
    tensor.dims = vec![2, 2];
    std::fs::write(at("y.bin"), [0; 16]).unwrap();
    std::fs::write(at("y.pb"), tensor.encode_to_vec()).unwrap();
    let before = contents(dir.path());
    let single = [format!("x={}", at("x.npy")), format!("y={}", at("y.pb"))];
    for target in ["x.npy", "y.pb", "y.bin", "add.onnxtxt"] {
        for (command, option) in [("run", "--outputs"), ("run", "--tune"), ("profile", "--trace")] {
            let target = at(target);
            let args = [command, model, "--input", &single[0], "--input", &single[1], option, &target];
            let refusal = fcc(args).refusal();
            assert!(refusal.contains("got a file that is read"), "{args:?}: {refusal}");
        }
    }
    let (given, want) = (at("in.npz"), at("want.npz"));
    for target in [&given, &want] {
        let refusal =
            fcc(["run", model, "--inputs", &given, "--expect", &want, "--outputs", target]).refusal();
        assert!(refusal.contains("--outputs: got a file that is read"), "{refusal}");
    }
    assert_eq!(contents(dir.path()), before);
}

#[test]
fn two_outputs_are_two_files() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("m.onnx");
    std::fs::copy(fixture("mnist_mlp.onnx"), &model).unwrap();
    let model = model.to_str().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    let (x, data, dump) = (at("x"), at("x.data"), at("dump"));
    std::fs::create_dir(&dump).unwrap();
    let (again, first) = (at("dump/../x"), at("dump/00-input.txt"));
    let run = ["--random", "1", "--set", "batch=1"];
    let cases: [(Vec<&str>, &str); 9] = [
        (vec!["rewrite", model, "-o", &x, "--report", &x], "--report: got the file that -o writes"),
        (vec!["rewrite", model, "-o", &x, "--report", &again], "--report: got the file that -o writes"),
        (
            vec!["rewrite", model, "-o", &x, "--external-data", "--report", &data],
            "--report: got the file that --external-data writes",
        ),
        (
            vec!["rewrite", model, "-o", &x, "--report", &first, "--dump", &dump],
            "--dump: got the file that --report writes",
        ),
        (vec!["run", model, "--outputs", &x, "--tune", &x], "--tune: got the file that --outputs writes"),
        (vec!["profile", model, "--trace", &x, "--tune", &x], "--tune: got the file that --trace writes"),
        (vec!["rewrite", model, "-o", "-", "--report", "-"], "--report: got standard output, which -o has"),
        (vec!["rewrite", model, "--json", "-o", "-"], "-o: got standard output, which --json has"),
        (
            vec!["profile", model, "--json", "--trace", "/dev/stdout"],
            "--trace: got standard output, which --json has",
        ),
    ];
    for (mut args, wanted) in cases {
        if args[0] != "rewrite" {
            args.extend(run);
        }
        let refusal = fcc(&args).refusal();
        assert!(refusal.contains(wanted), "{args:?}: {refusal}");
    }
    assert_eq!(names(dir.path()), ["dump", "m.onnx"]);
    assert!(names(Path::new(&dump)).is_empty());
}

/// Runs fcc with these bytes as standard input; standard output as bytes.
fn piped(args: &[&str], input: &[u8]) -> (Vec<u8>, String, i32) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_fcc"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // who is refused before reading goes away
    let _ = child.stdin.take().unwrap().write_all(input);
    let output = child.wait_with_output().unwrap();
    let stdout = output.stdout.clone();
    let code = output.status.code().expect("an exit code");
    let text = std::process::Output { stdout: vec![], ..output };
    let Answer { stderr, .. } = answer(&text, &format!("{args:?}"));
    (stdout, stderr, code)
}

#[test]
fn a_dash_is_standard_input_and_output() {
    let model = std::fs::read(fixture("mnist_mlp.onnx")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    for name in ["-", "/dev/stdin"] {
        let (made, told, code) = piped(&["rewrite", name, "--rule", "none", "-o", "-"], &model);
        assert_eq!((code, told.as_str()), (0, ""));
        let same = |bytes: Vec<u8>| fcc_onnx::load_bytes(bytes).unwrap();
        fcc_ir::text::same(&same(made), &same(model.clone())).unwrap();
        let (text, _, code) = piped(&["summary", name], ADD.as_bytes());
        assert_eq!(code, 0);
        assert!(String::from_utf8(text).unwrap().contains("(Add)"));
    }
    // what is told goes where it is not in the way
    let out = dir.path().join("out.onnx");
    let out = out.to_str().unwrap();
    let (report, told, code) = piped(&["rewrite", "-", "--report", "-", "-o", out], &model);
    assert_eq!(code, 0, "{told}");
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert!(!report["rows"].as_array().unwrap().is_empty());
    assert!(told.contains("linear-to-full-kernel-conv") && told.contains("wrote "), "{told}");
    let (arrays, _, code) =
        piped(&["run", "-", "--random", "1", "--set", "batch=1", "--outputs", "-"], &model);
    assert_eq!(code, 0);
    std::fs::write(dir.path().join("y.npz"), arrays).unwrap();
    assert_eq!(fcc_onnx::read_npz(dir.path().join("y.npz")).unwrap().len(), 1);
    for (args, wanted) in [
        (&["rewrite", "-"][..], "-o is not given: got a model from standard input, wanted a file"),
        (&["rewrite", "-", "--in-place"], "--in-place: got a model from standard input, wanted a file"),
        (&["rewrite", "-", "--external-data", "-o", "-"], "--external-data: got standard output"),
        (&["run", "-", "--tune", "-"], "--tune: got standard output, wanted a file"),
        (&["print", "-"], "standard input: the file: got 3 bytes that are cut short"),
    ] {
        let (_, told, code) = piped(args, if args[0] == "print" { &[8, 8, 0x3a] } else { &model });
        assert_eq!(code, 2);
        assert!(told.contains(wanted), "{args:?}: {told}");
    }
    assert!(!Path::new("-").exists());
}

#[test]
fn standard_input_from_a_file_is_an_input() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("m.onnx");
    std::fs::copy(fixture("mnist_mlp.onnx"), &model).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_fcc"))
        .args(["rewrite", "-", "-o", model.to_str().unwrap()])
        .stdin(std::fs::File::open(&model).unwrap())
        .output()
        .unwrap();
    let refusal = answer(&output, "rewrite -").refusal();
    assert!(refusal.contains("got a file that is read"), "{refusal}");
}

#[test]
fn what_a_target_lacks_is_noticed_before_the_work() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_string();
    // there is no model either: whoever reads it first would say so
    let (model, out, lost) = (at("no.onnx"), at("out.onnx"), at("none/file"));
    std::fs::write(at("plain"), "").unwrap();
    let below = at("plain/steps");
    for args in [
        &["rewrite", &model, "-o", &lost][..],
        &["rewrite", &model, "-o", &out, "--report", &lost],
        &["rewrite", &model, "-o", &out, "--dump", &below],
        &["rewrite", &model, "--bisect", "--dump", &below],
        &["run", &model, "--outputs", &lost],
        &["run", &model, "--tune", &lost],
        &["bench", &model, "--tune", &lost],
        &["explain", &model, "--tune", &lost],
        &["profile", &model, "--trace", &lost],
    ] {
        let refusal = fcc(args).refusal();
        assert!(refusal.contains("cannot write into the folder"), "{args:?}: {refusal}");
    }
    assert_eq!(names(dir.path()), ["plain"]);
}

#[test]
fn permissions_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let (model, out) = (dir.path().join("m.onnx"), dir.path().join("out.onnx"));
    std::fs::copy(fixture("mnist_mlp.onnx"), &model).unwrap();
    let set = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    set(&model, 0o600);
    fcc(["rewrite", model.to_str().unwrap(), "--in-place", "--no-verify"]).ok();
    assert_eq!(mode(&model), 0o600);
    std::fs::write(&out, "old").unwrap();
    set(&out, 0o640);
    fcc(["rewrite", model.to_str().unwrap(), "--rule", "none", "-o", out.to_str().unwrap()]).ok();
    assert_eq!(mode(&out), 0o640);
}

#[test]
fn the_longest_names_work() {
    let dir = tempfile::tempdir().unwrap();
    for len in [245, 250, 255] {
        let stem = "n".repeat(len - ".onnx".len());
        let model = dir.path().join(format!("{stem}.onnx"));
        std::fs::copy(fixture("mnist_mlp.onnx"), &model).unwrap();
        fcc(["rewrite", model.to_str().unwrap(), "--in-place", "--no-verify"]).ok();
        let report = dir.path().join("r".repeat(len));
        let args = ["rewrite", model.to_str().unwrap(), "--in-place", "--rule", "none", "--report"];
        fcc(args.iter().copied().chain([report.to_str().unwrap()])).ok();
        // NAME.data is longer than a name can be: said before the work
        if len > 250 {
            let refusal =
                fcc(["rewrite", model.to_str().unwrap(), "--in-place", "--external-data"]).refusal();
            assert!(refusal.contains(".onnx.data: cannot write: "), "{refusal}");
        }
    }
}

#[test]
fn models_of_a_package_cache_are_read_through_their_links() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    std::fs::create_dir_all(at("models--x/blobs")).unwrap();
    std::fs::create_dir_all(at("models--x/snapshots/1/onnx")).unwrap();
    let blobs = at("models--x/blobs");
    let _ = scattered(&blobs, PARTS);
    let snapshot = at("models--x/snapshots/1/onnx");
    for name in names(&blobs) {
        symlink(format!("../../../blobs/{name}"), snapshot.join(name)).unwrap();
    }
    let model = snapshot.join("m.onnx");
    let model = model.to_str().unwrap();
    let out = at("out.onnx");
    let out = out.to_str().unwrap();
    let before = contents(&blobs);
    for args in [
        &["print", model][..],
        &["summary", model],
        &["run", model],
        &["bench", model, "--runs", "1"],
        &["explain", model],
        &["profile", model, "--runs", "1"],
        &["rewrite", model, "--rule", "none", "-o", out],
        &["rewrite", model, "--rule", "none", "--bisect"],
    ] {
        let refusal = fcc(args).refusal();
        assert!(refusal.contains("got a symbolic link, wanted a regular file"), "{args:?}: {refusal}");
        assert!(refusal.contains("--follow-links"), "{refusal}");
        fcc(args.iter().chain(&["--follow-links"])).ok();
    }
    // a blob is a part of the model, under any name
    let blob = blobs.join("constant.bin");
    let args = ["rewrite", model, "--follow-links", "--rule", "none", "-o", blob.to_str().unwrap()];
    assert!(fcc(args).refusal().contains("got a file that is read"));
    assert_eq!(contents(&blobs), before);
    // a device behind a link stays refused
    std::fs::remove_file(snapshot.join("constant.bin")).unwrap();
    symlink("/dev/zero", snapshot.join("constant.bin")).unwrap();
    let refusal = fcc(["run", model, "--follow-links"]).refusal();
    assert!(refusal.contains("got a special file, wanted a regular file"), "{refusal}");
}
