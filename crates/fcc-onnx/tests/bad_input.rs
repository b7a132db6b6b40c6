//! Broken and hostile files: an error of one line that names the place, what was got and what was wanted.
use std::path::{Path, PathBuf};

use bytes::Bytes;
use fcc_onnx::proto::*;
use fcc_onnx::{ErrorKind, LoadOptions, load, load_bytes};
use prost::Message;

fn s(text: &str) -> Option<String> {
    Some(text.to_string())
}

fn node(op_type: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        op_type: s(op_type),
        name: s(&format!("{op_type}_1")),
        input: inputs.iter().map(|n| n.to_string()).collect(),
        output: outputs.iter().map(|n| n.to_string()).collect(),
        ..Default::default()
    }
}

fn float(name: &str, dims: &[i64]) -> ValueInfoProto {
    use tensor_shape_proto::{Dimension, dimension::Value};
    let dim = dims.iter().map(|&d| Dimension { value: Some(Value::DimValue(d)), denotation: None }).collect();
    let tensor = type_proto::Tensor { elem_type: Some(1), shape: Some(TensorShapeProto { dim }) };
    let ty = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), denotation: None };
    ValueInfoProto { name: s(name), r#type: Some(ty), ..Default::default() }
}

fn weight(dims: &[i64], bytes: usize) -> TensorProto {
    TensorProto {
        name: s("w"),
        dims: dims.to_vec(),
        data_type: Some(1),
        raw_data: Some(vec![0; bytes].into()),
        ..Default::default()
    }
}

/// `x -> Add(w) -> Relu -> y`
fn good() -> ModelProto {
    let graph = GraphProto {
        name: s("g"),
        node: vec![node("Add", &["x", "w"], &["h"]), node("Relu", &["h"], &["y"])],
        initializer: vec![weight(&[2], 8)],
        input: vec![float("x", &[2])],
        output: vec![float("y", &[2])],
        ..Default::default()
    };
    ModelProto {
        ir_version: Some(8),
        opset_import: vec![OperatorSetIdProto { domain: None, version: Some(17) }],
        graph: Some(graph),
        ..Default::default()
    }
}

fn broken(change: impl FnOnce(&mut ModelProto)) -> String {
    let mut model = good();
    change(&mut model);
    let error = load_bytes(model.encode_to_vec()).unwrap_err();
    let text = error.to_string();
    assert!(!text.contains('\n'), "{text}");
    text
}

fn in_graph(change: impl FnOnce(&mut GraphProto)) -> String {
    broken(|m| change(m.graph.as_mut().unwrap()))
}

#[test]
fn models_that_are_no_models() {
    load_bytes(good().encode_to_vec()).unwrap();
    let table: Vec<(String, &str)> = vec![
        (broken(|m| m.graph = None), "graph: got none, wanted a graph"),
        (broken(|m| m.ir_version = None), "ir_version: got none, wanted 1 to 14: is this an ONNX model?"),
        (broken(|m| m.ir_version = Some(-3)), "ir_version: got -3, wanted 1 to 14: is this an ONNX model?"),
        (broken(|m| m.ir_version = Some(15)), "ir_version: got 15, wanted 14 or less"),
        (
            broken(|m| m.opset_import[0].version = Some(29)),
            "opset_import of `ai.onnx`: got 29, wanted 28 or less",
        ),
        (broken(|m| m.opset_import[0].version = None), "opset_import of `ai.onnx`: got 0, wanted 1 or more"),
        (
            broken(|m| m.opset_import.clear()),
            "graph `g`: node `Add_1` (Add): opset_import of `ai.onnx`: got none, wanted a version, as this operator \
             needs",
        ),
        (
            broken(|m| m.functions = vec![FunctionProto { name: s("F"), ..Default::default() }; 2]),
            "functions: got `F` twice, wanted unique functions",
        ),
    ];
    for (got, wanted) in table {
        assert_eq!(got, wanted);
    }
}

#[test]
fn graphs_that_do_not_fit_together() {
    let value = "wanted the name of an input, an initializer or an output of a node";
    let table: Vec<(String, String)> = vec![
        (
            in_graph(|g| g.node[0].input[0] = "y".into()),
            "graph `g`: cycle through node `Add_1` (Add)".into(),
        ),
        (
            in_graph(|g| g.node[1].input[0] = "none".into()),
            format!("graph `g`: node `Relu_1` (Relu): value: got `none`, {value}"),
        ),
        (
            in_graph(|g| g.output[0].name = s("none")),
            format!("graph `g`: output `none`: value: got `none`, {value}"),
        ),
        (in_graph(|g| g.output[0].name = None), format!("graph `g`: output ``: value: got ``, {value}")),
        (
            in_graph(|g| g.node[1].output[0] = "h".into()),
            "graph `g`: node `Relu_1` (Relu): value name: got `h` twice, wanted unique names".into(),
        ),
        (
            in_graph(|g| g.node[1].output[0] = "x".into()),
            "graph `g`: node `Relu_1` (Relu): value name: got `x` twice, wanted unique names".into(),
        ),
        (
            in_graph(|g| g.input.push(float("x", &[2]))),
            "graph `g`: input `x`: value name: got `x` twice, wanted unique names".into(),
        ),
        (
            in_graph(|g| g.initializer.push(weight(&[2], 8))),
            "graph `g`: initializer `w`: value name: got `w` twice, wanted unique names".into(),
        ),
        (in_graph(|g| g.initializer[0].name = None), "graph `g`: initializer ``: name: got none, wanted a name".into()),
        (in_graph(|g| g.input[0].name = None), "graph `g`: input ``: name: got none, wanted a name".into()),
        (
            in_graph(|g| g.input.push(float("w", &[3]))),
            "graph `g`: input `w`: default of an input: got dimension 0: 2 against 3, wanted its declared type".into(),
        ),
        (
            in_graph(|g| g.input[0] = float("x", &[2, -7])),
            "graph `g`: type of `x`: dimension: got -7, wanted 0 or more".into(),
        ),
        (
            in_graph(|g| {
                let twice = AttributeProto { name: s("axis"), r#type: Some(2), i: Some(1), ..Default::default() };
                g.node[1].attribute = vec![twice.clone(), twice];
            }),
            "graph `g`: node `Relu_1` (Relu): attribute `axis`: attribute: got the same name twice, wanted unique names"
                .into(),
        ),
        (
            in_graph(|g| {
                let strange = AttributeProto { name: s("a"), r#type: Some(77), ..Default::default() };
                g.node[1].attribute = vec![strange];
            }),
            "graph `g`: node `Relu_1` (Relu): attribute `a`: attribute type: got code 77, wanted a code from 0 to 14"
                .into(),
        ),
        (
            in_graph(|g| {
                let body = GraphProto {
                    name: s("body"),
                    node: vec![node("Neg", &["no such"], &["z"])],
                    output: vec![float("z", &[2])],
                    ..Default::default()
                };
                let attribute =
                    AttributeProto { name: s("then_branch"), r#type: Some(5), g: Some(body), ..Default::default() };
                g.node[1].attribute = vec![attribute];
            }),
            format!(
                "graph `g`: node `Relu_1` (Relu): attribute `then_branch`: graph `body`: node `Neg_1` (Neg): value: got \
                 `no such`, {value}"
            ),
        ),
    ];
    for (got, wanted) in table {
        assert_eq!(got, wanted);
    }
}

fn bad_weight(change: impl FnOnce(&mut TensorProto)) -> String {
    let text = in_graph(|g| change(&mut g.initializer[0]));
    text.strip_prefix("graph `g`: initializer `w`: ").unwrap_or(&text).to_string()
}

#[test]
fn tensors_that_are_not_what_they_say() {
    let table: Vec<(String, &str)> = vec![
        (bad_weight(|t| t.dims = vec![3]), "data of float[3]: got 8 bytes, wanted 12 bytes"),
        (bad_weight(|t| t.dims = vec![-2]), "dims: got [-2], wanted no negative extent"),
        (
            bad_weight(|t| t.dims = vec![1 << 40, 1 << 40]),
            "number of elements: got [1099511627776, 1099511627776], wanted a product of at most 2^59",
        ),
        (bad_weight(|t| t.dims = vec![1 << 59]), "8 bytes"),
        (bad_weight(|t| t.data_type = Some(99)), "element type: got code 99, wanted a code from 0 to 28"),
        (bad_weight(|t| t.data_type = None), "element type: got none, wanted a type"),
        (bad_weight(|t| t.data_type = Some(8)), "string tensor: got raw_data, wanted string_data"),
        (bad_weight(|t| t.float_data = vec![1.]), "tensor data: got 1 in float_data, wanted raw_data only"),
        (bad_weight(|t| t.segment = Some(Default::default())), "a tensor in segments is not supported"),
        (
            bad_weight(|t| {
                t.raw_data = None;
                t.int32_data = vec![1, 2];
            }),
            "tensor data: got 2 in int32_data, wanted the field for float",
        ),
        (
            bad_weight(|t| {
                (t.raw_data, t.data_type, t.int32_data) = (None, Some(3), vec![1, 200]);
            }),
            "tensor data: got 200, wanted a value of int8",
        ),
        (bad_weight(|t| t.raw_data = None), "tensor data: got 0 elements, wanted 2"),
        (
            bad_weight(|t| {
                t.data_location = Some(1);
                t.raw_data = None;
            }),
            "external data entries: got no `location`, wanted one",
        ),
        (
            bad_weight(|t| {
                t.data_location = Some(1);
                t.raw_data = None;
                t.external_data = vec![StringStringEntryProto { key: s("location"), value: s("w.bin") }];
            }),
            "not read from a file",
        ),
    ];
    for (got, wanted) in table {
        assert!(got.contains(wanted), "{got}\nwanted {wanted}");
    }
    let sparse = in_graph(|g| {
        let indices =
            TensorProto { dims: vec![1], data_type: Some(7), int64_data: vec![4], ..Default::default() };
        let values = TensorProto { name: s("sp"), ..weight(&[1], 4) };
        g.sparse_initializer =
            vec![SparseTensorProto { values: Some(values), indices: Some(indices), dims: vec![2, 2] }];
    });
    assert!(sparse.ends_with("indices: got 4, wanted 0 or more and below 4"), "{sparse}");
}

#[test]
fn files_of_other_kinds_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.onnx");
    for (bytes, wanted) in [
        (&b""[..], "m.onnx: the file: got 0 bytes, wanted an ONNX model"),
        (b"ir_version: 8\n", "got a text file"),
        (b"\x00\x01\x02\x03random\xff", "damaged"),
        (b"PK\x03\x04model", "a zip archive"),
    ] {
        std::fs::write(&path, bytes).unwrap();
        let error = load(&path, &LoadOptions::default()).unwrap_err();
        let text = error.to_string();
        assert!(text.contains(wanted) && text.starts_with(path.to_str().unwrap()), "{text}");
        assert_eq!((error.kind(), error.file()), (ErrorKind::Malformed, Some(path.as_path())));
    }
}

#[test]
fn fields_that_would_be_lost_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.onnx");
    let mut bytes = good().encode_to_vec();
    prost::encoding::string::encode(99, &"someone's own".to_string(), &mut bytes);
    std::fs::write(&path, bytes).unwrap();
    let error = load(&path, &LoadOptions::default()).unwrap_err().to_string();
    assert!(error.contains("m.onnx: field 99 at byte "), "{error}");
    let options = LoadOptions { drop_unknown_fields: true, ..Default::default() };
    load(&path, &options).unwrap();
}

#[test]
fn subgraphs_nest_only_so_deep() {
    let mut body = GraphProto { name: s("innermost"), ..Default::default() };
    for depth in 0..200 {
        let attribute = AttributeProto { name: s("a"), r#type: Some(5), g: Some(body), ..Default::default() };
        let mut owner = node("If", &[], &[]);
        owner.attribute = vec![attribute];
        body = GraphProto { name: s(&format!("g{depth}")), node: vec![owner], ..Default::default() };
    }
    let model = ModelProto { graph: Some(body), ..good() };
    let error = load_bytes(model.encode_to_vec()).unwrap_err().to_string();
    assert!(error.contains("recursion limit reached"), "{error}");
}

fn small_models() -> Vec<(PathBuf, Bytes)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/seeds");
    let mut models: Vec<(PathBuf, Bytes)> = std::fs::read_dir(folder)
        .unwrap()
        .map(|e| e.unwrap().path().join("model.onnx"))
        .filter_map(|path| Some((path.clone(), Bytes::from(std::fs::read(path).ok()?))))
        .collect();
    models.sort();
    assert!(!models.is_empty());
    models
}

/// Cut after each byte and with each byte changed: an error, or a model that is written and read again.
#[test]
fn damaged_models_never_panic() {
    let mut accepted = 0;
    let mut model = |bytes: Vec<u8>| {
        if let Ok(model) = load_bytes(bytes) {
            accepted += 1;
            let written = fcc_onnx::to_bytes(&model).unwrap();
            load_bytes(written.clone()).unwrap_or_else(|e| panic!("what was written is not read: {e}"));
        }
    };
    let mut all = small_models();
    all.push(("good".into(), good().encode_to_vec().into()));
    for (_, bytes) in &all {
        let step = (bytes.len() / 700).max(1);
        for at in (0..bytes.len()).step_by(step) {
            model(bytes[..at].to_vec());
            for flip in [0x01, 0x80, 0xff] {
                let mut changed = bytes.to_vec();
                changed[at] ^= flip;
                model(changed);
            }
        }
    }
    assert!(
        accepted > 100,
        "only {accepted} damaged models were accepted: does the test still damage gently?"
    );
}

#[test]
fn wide_nodes_are_read_in_linear_time() {
    let wide = 100_000;
    let mut model = good();
    let mut node = node("Wide", &[], &[]);
    node.domain = s("d");
    node.input = vec!["x".into(); wide];
    node.output = (0..wide).map(|i| format!("o{i}")).collect();
    model.graph.as_mut().unwrap().node.push(node);
    let bytes = model.encode_to_vec();
    let start = std::time::Instant::now();
    let model = load_bytes(bytes.clone()).unwrap();
    assert_eq!(fcc_onnx::to_bytes(&model).unwrap(), bytes);
    // the square of the width would be minutes
    assert!(start.elapsed().as_secs() < 30, "{:?}", start.elapsed());
}

/// Random bytes that begin like a model.
#[test]
fn random_bytes_never_panic() {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut random = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..3000u64 {
        let len = (random() % 200) as usize;
        let mut bytes = if round % 2 == 0 { vec![8, 8, 58] } else { vec![] };
        bytes.extend((0..len).map(|_| random() as u8));
        let _ = load_bytes(bytes);
    }
}
