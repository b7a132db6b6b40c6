//! Bad files and bad inputs: each a one-line error that names the place, what was got and what was wanted; exit code
//! 2, no panic, no output file.
mod common;
use common::{fcc, fixture, names};
use fcc_ir::Tensor;
use fcc_onnx::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    StringStringEntryProto, TensorProto, TensorShapeProto, TypeProto, ValueInfoProto,
    attribute_proto::AttributeType,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};
use prost::Message;
use std::path::Path;

const FLOAT: i32 = 1;

fn value(name: &str, dims: &[i64]) -> ValueInfoProto {
    let dim = |d: &i64| Dimension { value: Some(dimension::Value::DimValue(*d)), ..Default::default() };
    let shape = TensorShapeProto { dim: dims.iter().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: Some(FLOAT), shape: Some(shape) };
    let ty = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..Default::default() };
    ValueInfoProto { name: Some(name.into()), r#type: Some(ty), ..Default::default() }
}

fn weight(name: &str, dims: &[i64], bytes: usize) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        dims: dims.to_vec(),
        data_type: Some(FLOAT),
        raw_data: Some(vec![0; bytes].into()),
        ..Default::default()
    }
}

fn external(location: &str, length: &str) -> TensorProto {
    let entry =
        |key: &str, value: &str| StringStringEntryProto { key: Some(key.into()), value: Some(value.into()) };
    TensorProto {
        raw_data: None,
        data_location: Some(1),
        external_data: vec![entry("location", location), entry("length", length)],
        ..weight("w", &[4], 0)
    }
}

fn node(op: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    let names = |names: &[&str]| names.iter().map(|n| n.to_string()).collect();
    NodeProto { op_type: Some(op.into()), input: names(inputs), output: names(outputs), ..Default::default() }
}

fn ints(name: &str, ints: &[i64]) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::Ints as i32),
        ints: ints.to_vec(),
        ..Default::default()
    }
}

/// `x [1,4,8,8] -> y` through these nodes and weights.
fn model(nodes: Vec<NodeProto>, weights: Vec<TensorProto>) -> ModelProto {
    let graph = GraphProto {
        name: Some("g".into()),
        node: nodes,
        initializer: weights,
        input: vec![value("x", &[1, 4, 8, 8])],
        output: vec![ValueInfoProto { name: Some("y".into()), ..Default::default() }],
        ..Default::default()
    };
    let opset = OperatorSetIdProto { version: Some(17), ..Default::default() };
    ModelProto { ir_version: Some(8), opset_import: vec![opset], graph: Some(graph), ..Default::default() }
}

fn with_graph(mut model: ModelProto, change: impl FnOnce(&mut GraphProto)) -> ModelProto {
    change(model.graph.as_mut().expect("a graph"));
    model
}

fn relu() -> ModelProto {
    model(vec![node("Relu", &["x"], &["y"])], vec![])
}

/// Messages nested in each other, inside out: graph (7), node (1), attribute (5), graph (6), …
fn nested() -> Vec<u8> {
    let wrap = |tag: u8, inner: Vec<u8>| {
        let mut outer = vec![tag << 3 | 2];
        prost::encoding::encode_varint(inner.len() as u64, &mut outer);
        outer.extend(inner);
        outer
    };
    wrap(7, (0..6000).fold(vec![], |bytes, level| wrap([6, 5, 1][level % 3], bytes)))
}

/// Name, bytes of the model, a part of the message.
fn bad_files() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let whole = std::fs::read(fixture("mnist_mlp.onnx")).expect("a fixture");
    let noise: Vec<u8> = (0u64..4096).map(|i| (i.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 37) as u8).collect();
    let bytes = |m: ModelProto| m.encode_to_vec();
    let conv = |w: &[i64], b: i64| {
        let elems: i64 = w.iter().product();
        let weights = vec![weight("w", w, 4 * elems as usize), weight("b", &[b], 4 * b as usize)];
        bytes(model(vec![node("Conv", &["x", "w", "b"], &["y"])], weights))
    };
    let attr = |name: &str, values: &[i64]| {
        let mut conv = node("Conv", &["x", "w"], &["y"]);
        conv.attribute.push(ints(name, values));
        bytes(model(vec![conv], vec![weight("w", &[2, 4, 3, 3], 288)]))
    };
    let mut recursive =
        model(vec![NodeProto { domain: Some("d".into()), ..node("F", &["x"], &["y"]) }], vec![]);
    recursive.opset_import.push(OperatorSetIdProto { domain: Some("d".into()), version: Some(1) });
    recursive.functions.push(FunctionProto {
        name: Some("F".into()),
        domain: Some("d".into()),
        input: vec!["a".into()],
        output: vec!["b".into()],
        node: vec![NodeProto { domain: Some("d".into()), ..node("F", &["a"], &["b"]) }],
        opset_import: recursive.opset_import.clone(),
        ..Default::default()
    });
    vec![
        ("empty", vec![], "got 0 bytes, wanted an ONNX model"),
        ("truncated", whole[..whole.len() / 2].to_vec(), "wanted an ONNX model"),
        ("noise", noise, "wanted an ONNX model"),
        ("text", b"import onnx\nmodel = onnx.load('x')\n".to_vec(), "a text file"),
        ("nested", nested(), "recursion limit"),
        ("groups", vec![15 << 3 | 3; 400_000], "recursion limit"),
        ("no graph", bytes(ModelProto { graph: None, ..relu() }), "graph"),
        ("no opset", bytes(ModelProto { opset_import: vec![], ..relu() }), "opset"),
        (
            "cycle",
            bytes(model(
                vec![
                    node("Add", &["x", "b"], &["a"]),
                    node("Relu", &["a"], &["b"]),
                    node("Relu", &["b"], &["y"]),
                ],
                vec![],
            )),
            "cycle",
        ),
        ("missing name", bytes(model(vec![node("Relu", &["nowhere"], &["y"])], vec![])), "`nowhere`"),
        (
            "doubled name",
            bytes(model(vec![node("Relu", &["x"], &["y"]), node("Abs", &["x"], &["y"])], vec![])),
            "`y`",
        ),
        ("operator without a name", bytes(model(vec![node("", &["x"], &["y"])], vec![])), "op_type"),
        ("output of no node", bytes(model(vec![node("Relu", &["x"], &["z"])], vec![])), "`y`"),
        ("negative extent", bytes(with_graph(relu(), |g| g.input[0] = value("x", &[1, -4]))), "-4"),
        (
            "negative dims of a weight",
            bytes(model(vec![node("Add", &["x", "w"], &["y"])], vec![weight("w", &[-1], 4)])),
            "-1",
        ),
        (
            "overflowing dims",
            bytes(model(vec![node("Add", &["x", "w"], &["y"])], vec![weight("w", &[1 << 40, 1 << 40], 4)])),
            "1099511627776",
        ),
        (
            "data of another length",
            bytes(model(vec![node("Add", &["x", "w"], &["y"])], vec![weight("w", &[4], 12)])),
            "got 12 bytes, wanted 16 bytes",
        ),
        (
            "external data above the folder",
            bytes(model(vec![node("Add", &["x", "w"], &["y"])], vec![external("../secret.bin", "16")])),
            "..",
        ),
        (
            "external data by absolute path",
            bytes(model(vec![node("Add", &["x", "w"], &["y"])], vec![external("/etc/hostname", "16")])),
            "/etc/hostname",
        ),
        (
            "external data past the end",
            bytes(model(vec![node("Add", &["x", "w"], &["y"])], vec![external("short.bin", "16")])),
            "16",
        ),
        (
            "external data that is not there",
            bytes(model(vec![node("Add", &["x", "w"], &["y"])], vec![external("none.bin", "16")])),
            "none.bin",
        ),
        ("weight rank above input rank", conv(&[2, 4, 3, 3, 3], 2), "rank"),
        ("bias of the wrong length", conv(&[2, 4, 3, 3], 5), "wanted [2]"),
        ("channels that do not fit", conv(&[2, 3, 3, 3], 2), "channels of x: got 4, wanted 3"),
        ("zero stride", attr("strides", &[0, 1]), "strides"),
        ("huge pads", attr("pads", &[i64::MAX, 0, i64::MAX, 0]), ""),
        ("too few pads", attr("pads", &[1]), "pads"),
        ("kernel larger than the input", conv(&[2, 4, 9, 9], 2), "at least 9"),
        ("function that calls itself", bytes(recursive), "F"),
    ]
}

#[test]
fn every_bad_file_is_refused_by_every_command() {
    let mut wrong = vec![];
    for (name, bytes, part) in bad_files() {
        let dir = tempfile::tempdir().unwrap();
        let (file, out) = (dir.path().join("bad.onnx"), dir.path().join("out.onnx"));
        std::fs::write(&file, bytes).unwrap();
        std::fs::write(dir.path().join("short.bin"), [0; 8]).unwrap();
        let (file, out) = (file.to_str().unwrap(), out.to_str().unwrap());
        let npz = dir.path().join("out.npz");
        let commands: [&[&str]; 5] = [
            &["rewrite", file, "-o", out],
            &["run", file, "--random", "1", "--outputs", npz.to_str().unwrap(), "--engine", "interpreter"],
            &["run", file, "--random", "1", "--outputs", npz.to_str().unwrap()],
            &["bench", file, "--random", "1", "--runs", "1"],
            &["summary", file],
        ];
        for command in commands {
            let answer = fcc(command);
            let lines = answer.stderr.lines().count();
            let placed = answer.stderr.starts_with("fcc: error: ") && answer.stderr.contains(part);
            if answer.code != 2
                || lines != 1
                || !placed
                || !answer.stdout.is_empty()
                || answer.stderr.len() > 1000
            {
                wrong
                    .push(format!("{name}: {command:?}: {} {}{}", answer.code, answer.stdout, answer.stderr));
            }
        }
        assert_eq!(names(dir.path()), ["bad.onnx", "short.bin"], "{name}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_that_are_no_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let missing = dir.path().join("none.onnx");
    for (path, part) in [
        (missing.as_path(), "cannot open"),
        (dir.path(), "a folder"),
        (Path::new("/dev/zero"), "a special file"),
    ] {
        let message = fcc(["print".as_ref(), path.as_os_str()]).refusal();
        assert!(message.starts_with(&format!("{}: ", path.display())) && message.contains(part), "{message}");
    }
    assert!(names(dir.path()).is_empty());
}

#[test]
fn inputs_that_do_not_fit_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("m.onnx");
    std::fs::write(&model, relu().encode_to_vec()).unwrap();
    let model = model.to_str().unwrap();
    let zeros = |shape: &[usize]| Tensor::new(shape, vec![0f32; shape.iter().product()]).unwrap();
    let npz = dir.path().join("in.npz");
    let path = npz.to_str().unwrap();
    let out = dir.path().join("out.npz");
    let cases: [(&[(&str, Tensor)], &str); 5] = [
        (&[("z", zeros(&[1, 4, 8, 8]))], "input name: got `z`, wanted one of `x`"),
        (&[], "input `x`: got none, wanted float[1,4,8,8]"),
        (&[("x", zeros(&[1, 4, 8]))], "input `x`: got float[1,4,8], wanted float[1,4,8,8]"),
        (&[("x", zeros(&[1, 4, 8, 9]))], "input `x`: got float[1,4,8,9], wanted float[1,4,8,8]"),
        (
            &[("x", Tensor::new([1, 4, 8, 8], vec![0f64; 256]).unwrap())],
            "input `x`: got double[1,4,8,8], wanted float[1,4,8,8]",
        ),
    ];
    for (arrays, wanted) in cases {
        fcc_onnx::write_npz(&npz, arrays.iter().map(|(n, t)| (*n, t))).unwrap();
        for command in [
            &["run", model, "--inputs", path, "--outputs", out.to_str().unwrap()][..],
            &["bench", model, "--inputs", path, "--json"],
        ] {
            assert_eq!(fcc(command).refusal(), format!("{path}: {wanted}"));
        }
    }
    for (bytes, part) in [(&b"PK\x03\x04"[..], "zip"), (b"hello", ""), (b"", "")] {
        std::fs::write(&npz, bytes).unwrap();
        let message = fcc(["run", model, "--inputs", path]).refusal();
        assert!(message.starts_with(path) && message.contains(part), "{message}");
    }
    assert!(!out.exists());
}

#[test]
fn usage_is_refused_in_one_line() {
    let model = fixture("mnist_mlp.onnx");
    let model = model.to_str().unwrap();
    let cases: &[(&[&str], &str)] = &[
        (&["rewrit", model], "unrecognized subcommand 'rewrit'"),
        (&["run"], "the following required arguments were not provided: <MODEL>"),
        (&["run", model, "--random", "x"], "invalid value 'x' for '--random <SEED>'"),
        (&["run", model, "--random", "1", "--inputs", "a.npz"], "cannot be used with"),
        (&["run", model, "--random", "1", "--engine", "gpu"], "invalid value 'gpu'"),
        (&["run", model, "--random", "1", "--threads", "0"], "invalid value '0'"),
        (&["run", model, "--random", "1", "--set", "batch"], "got `batch`, wanted SYM=N"),
        (&["run", model, "--random", "1", "--set", "batch=-1"], "got `batch=-1`, wanted SYM=N"),
        (&["run", model, "--input", "image"], "got `image`, wanted NAME=FILE"),
        (&["run", model, "--input", "other=x.npy"], "--input: got name `other`, wanted one of `image`"),
        (&["run", model, "--input", "image=x.txt"], "wanted .npy or .pb"),
        (&["run", model], "inputs: got none, wanted --inputs FILE.npz"),
        (&["run", model, "--random", "1", "--rtol", "0.1"], "--expect"),
        (&["rewrite", model, "--rule", "no-such"], "--rule: got `no-such`, wanted none, linear-to-"),
        (&["test", "/nowhere"], "/nowhere"),
        (&["summary", model, "--set", "N=1"], "--set: got symbol `N`, wanted one of `batch`"),
    ];
    for (args, part) in cases {
        let message = fcc(*args).refusal();
        assert!(message.contains(part), "{args:?}: {message}");
    }
}

#[test]
fn amx_where_there_is_none_is_an_error() {
    let answer = fcc([
        "run",
        &fixture("mnist_cnn.onnx").display().to_string(),
        "--random",
        "1",
        "--set",
        "batch=2",
        "--isa",
        "amx",
    ]);
    if fcc_jit::Isa::Amx.check().is_ok() {
        answer.ok();
        return;
    }
    let error = answer.refusal();
    assert!(error.contains("--isa") && error.contains("AMX"), "{error}");
}

#[test]
fn outputs_out_of_all_proportion_are_refused_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("huge.onnxtxt");
    for (x, y, body) in [
        ("1,1,5,5", "1,1,a,b", "y = Conv <pads = [1, 1, 1, 2147483647], strides = [2, 2]> (x, w)"),
        ("65536,1", "65536,65536", "t = Transpose(x) y = MatMul(x, t)"),
        ("65536,1", "65536,65536", "t = Transpose(x) y = Add(x, t)"),
    ] {
        let text = format!(
            r#"<ir_version: 8, opset_import: ["" : 17]> g (float[{x}] x) => (float[{y}] y)
            <float[1,1,3,3] w = {{1, 2, -2, 1, -2, 0, 0, 3, -4}}> {{ {body} }}"#
        );
        std::fs::write(&file, text).unwrap();
        for engine in ["interpreter", "jit"] {
            let answer = fcc(["run", file.to_str().unwrap(), "--random", "1", "--engine", engine]);
            let said = answer.stderr.contains("elements, more than 2147483648");
            assert!(answer.code == 2 && said, "{body}, {engine}: {} {}", answer.code, answer.stderr);
        }
    }
}
