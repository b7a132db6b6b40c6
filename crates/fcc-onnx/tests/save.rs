//! What `save` leaves on disk: whole files or nothing, external data, and never the input unless asked.
use std::path::Path;

use bytes::Bytes;
use fcc_ir::attr::{AttrValue, Attrs};
use fcc_ir::{DType, Graph, Model, NewNode, Tensor, ValueId, ValueInfo, ValueType};
use fcc_onnx::proto::ModelProto;
use fcc_onnx::{LoadOptions, SaveOptions, load, load_bytes, load_with_files, save, to_bytes};
use prost::Message;

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn external() -> SaveOptions {
    SaveOptions { external_data: true, ..Default::default() }
}

fn node<'a>(op_type: &'a str, inputs: &[ValueId], output: &str) -> NewNode<'a> {
    NewNode {
        op_type,
        domain: "",
        name: String::new(),
        inputs: inputs.iter().copied().map(Some).collect(),
        outputs: vec![output.into()],
        attrs: Attrs::new(),
    }
}

/// Two large weights over the same bytes, one of a megabyte, one small.
fn model() -> Model {
    let mut g = Graph::new("g", fcc_ir::op::default_opsets(21));
    let shared = Bytes::from((0..2000u32).map(|i| i as u8).collect::<Vec<u8>>());
    let of = |bytes: &Bytes| Tensor::from_bytes(DType::U8, vec![bytes.len()], bytes.clone()).unwrap();
    let mut sum = g.add_input(ValueInfo::new("x", ValueType::tensor(DType::U8, [1usize]))).unwrap();
    let big = Bytes::from(vec![7u8; 1 << 20]);
    for (name, bytes) in [("a", &shared), ("b", &shared), ("big", &big), ("small", &shared.slice(..1000))] {
        let weight = g.add_constant(name, of(bytes)).unwrap();
        let id = g.add_op(node("Add", &[sum, weight], &format!("{name}_sum"))).unwrap();
        sum = ValueId { node: id, output: 0 };
    }
    g.add_output(sum, ValueInfo::new("small_sum", ValueType::Unknown));
    Model::new(g)
}

#[test]
fn large_weights_go_beside_the_model() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.onnx");
    let model = model();
    let saved = save(&model, &path, &external()).unwrap();
    assert_eq!(names(dir.path()), ["m.onnx", "m.onnx.data"]);
    let (data_path, data_bytes) = saved.data.unwrap();
    assert_eq!(data_bytes, std::fs::metadata(&data_path).unwrap().len());
    assert_eq!(saved.model_bytes, std::fs::metadata(&path).unwrap().len());
    let proto = ModelProto::decode(&*std::fs::read(&path).unwrap()).unwrap();
    let entries = |name: &str| {
        let graph = proto.graph.as_ref().unwrap();
        let tensor = graph.initializer.iter().find(|t| t.name() == name).unwrap();
        tensor.external_data.iter().map(|e| e.value().to_string()).collect::<Vec<_>>()
    };
    // once on disk for both, as in memory; the large one at a page
    assert_eq!(entries("a"), ["m.onnx.data", "0", "2000"]);
    assert_eq!(entries("b"), entries("a"));
    assert_eq!(entries("big"), ["m.onnx.data", "4096", "1048576"]);
    assert_eq!(entries("small"), [] as [&str; 0]);
    let read = load(&path, &LoadOptions::default()).unwrap();
    for name in ["a", "b", "big", "small"] {
        let tensor = |m: &Model| m.graph.constant(m.graph.value(name).unwrap()).unwrap();
        assert_eq!(tensor(&read), tensor(&model), "{name}");
    }
    // and back into one file
    let one = dir.path().join("one.onnx");
    assert_eq!(save(&read, &one, &SaveOptions::default()).unwrap().data, None);
    let again = load(&one, &LoadOptions::default()).unwrap();
    assert_eq!(again.graph.constant(again.graph.value("big").unwrap()).unwrap().bytes().len(), 1 << 20);
}

#[test]
fn the_input_is_not_replaced_unless_asked() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.onnx");
    save(&model(), &path, &external()).unwrap();
    let (read, keep) = load_with_files(&path, &LoadOptions::default()).unwrap();
    let options = SaveOptions { keep, ..external() };
    let refused = save(&read, &dir.path().join("./m.onnx"), &options).unwrap_err().to_string();
    assert!(refused.contains("got a file that the model is read from"), "{refused}");
    // another model file whose data file would be the input's
    let moved = dir.path().join("moved.onnx");
    std::fs::rename(&path, &moved).unwrap();
    let refused = save(&read, &path, &options).unwrap_err();
    assert_eq!(refused.file().unwrap().file_name().unwrap(), "m.onnx.data");
    save(&read, &path, &external()).unwrap();
    // the mapping of the file that was replaced is still whole
    let tensor = read.graph.constant(read.graph.value("big").unwrap()).unwrap();
    assert!(tensor.bytes().iter().all(|&b| b == 7));
}

#[test]
fn a_failed_save_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.onnx");
    std::fs::write(&path, "old").unwrap();
    std::fs::create_dir(dir.path().join("m.onnx.data")).unwrap();
    let error = save(&model(), &path, &external()).unwrap_err().to_string();
    assert!(
        error.ends_with("m.onnx.data: cannot write: got a folder, wanted a regular file or a new name"),
        "{error}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    assert_eq!(names(dir.path()), ["m.onnx", "m.onnx.data"]);
    assert!(save(&model(), &dir.path().join("none/m.onnx"), &SaveOptions::default()).is_err());
}

#[test]
fn a_captured_value_takes_its_new_name_along() {
    let mut g = Graph::new("g", fcc_ir::op::default_opsets(21));
    let x = g.add_input(ValueInfo::new("x", ValueType::tensor(DType::F32, [1usize]))).unwrap();
    let flag = g.add_input(ValueInfo::new("flag", ValueType::tensor(DType::Bool, [0usize; 0]))).unwrap();
    let abs = g.add_op(node("Abs", &[x], "h")).unwrap();
    let h = ValueId { node: abs, output: 0 };
    let branch = |name: &str| {
        let mut inner = Graph::new(name, g.opsets.clone());
        let captured = inner.add_capture(0, "h", ValueType::Unknown).unwrap();
        let neg = inner.add_op(node("Neg", &[captured], &format!("{name}_out"))).unwrap();
        inner.add_output(
            ValueId { node: neg, output: 0 },
            ValueInfo::new(format!("{name}_out"), ValueType::Unknown),
        );
        inner
    };
    let attrs = Attrs::new().with("then_branch", branch("yes")).with("else_branch", branch("no"));
    let cond = g.add_op(NewNode { attrs, ..node("If", &[flag], "y") }).unwrap();
    g.connect(h, cond, fcc_ir::Slot::Capture(0));
    g.add_output(ValueId { node: cond, output: 0 }, ValueInfo::new("y", ValueType::Unknown));
    g.rename(h, "renamed").unwrap();
    let mut model = Model::new(g);
    let read = load_bytes(to_bytes(&model).unwrap()).unwrap();
    let owner = read.graph.value("y").unwrap().node;
    let captures: Vec<&str> =
        read.graph.captures_of(owner).into_iter().map(|v| read.graph.value_name(v)).collect();
    assert_eq!(captures, ["renamed"]);
    // a name that means another value inside cannot be written
    let owner = model.graph.value("y").unwrap().node;
    let attrs = &mut model.graph.node_mut(owner).op_mut().unwrap().attrs;
    for attr in attrs.iter_mut() {
        if let AttrValue::Graph(inner) = &mut attr.value {
            let out = inner.outputs[0].value;
            inner.rename(out, "renamed").unwrap();
        }
    }
    let error = to_bytes(&model).unwrap_err().to_string();
    assert!(error.contains("captured value: got `renamed` twice"), "{error}");
}
