//! One model with every kind of thing that ONNX has, there and back.
use fcc_ir::text::{PrintOptions, parse, print, same};
use fcc_ir::{DType, NodeKind};
use fcc_onnx::proto::attribute_proto::AttributeType as T;
use fcc_onnx::proto::tensor_shape_proto::{Dimension, dimension};
use fcc_onnx::proto::*;
use fcc_onnx::{LoadOptions, SaveOptions, load, load_bytes, save, to_bytes};
use prost::Message;

fn s(text: &str) -> Option<String> {
    Some(text.to_string())
}

fn entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto { key: s(key), value: s(value) }
}

fn dim(value: Option<dimension::Value>, denotation: Option<&str>) -> Dimension {
    Dimension { value, denotation: denotation.map(str::to_string) }
}

fn tensor_type(elem_type: i32, dims: Option<Vec<Dimension>>) -> TypeProto {
    let tensor =
        type_proto::Tensor { elem_type: Some(elem_type), shape: dims.map(|dim| TensorShapeProto { dim }) };
    TypeProto { value: Some(type_proto::Value::TensorType(tensor)), denotation: None }
}

fn value(name: &str, ty: Option<TypeProto>) -> ValueInfoProto {
    ValueInfoProto { name: s(name), r#type: ty, ..Default::default() }
}

fn float(name: &str) -> ValueInfoProto {
    value(name, Some(tensor_type(1, None)))
}

fn attribute(name: &str, kind: T) -> AttributeProto {
    AttributeProto { name: s(name), r#type: Some(kind as i32), ..Default::default() }
}

fn node(op_type: &str, inputs: &[&str], outputs: &[&str]) -> NodeProto {
    NodeProto {
        op_type: s(op_type),
        input: inputs.iter().map(|n| n.to_string()).collect(),
        output: outputs.iter().map(|n| n.to_string()).collect(),
        ..Default::default()
    }
}

/// Tensors of every element type, in its typed field and in `raw_data`.
fn tensors() -> Vec<TensorProto> {
    let mut all = vec![];
    for &dtype in DType::ALL {
        use DType::*;
        let mut t = TensorProto { dims: vec![3], data_type: Some(dtype as i32), ..Default::default() };
        t.name = s(&format!("typed_{dtype}"));
        match dtype {
            Undefined => continue,
            String => t.string_data = ["a", "", "\u{0}\u{e9}"].map(|x| x.to_string().into()).into(),
            F32 => t.float_data = vec![1., f32::MIN_POSITIVE, -0.],
            C64 => t.float_data = vec![1., 2., 3., 4., 5., 6.],
            F64 => t.double_data = vec![1., f64::MAX, -0.],
            C128 => t.double_data = vec![1., 2., 3., 4., 5., 6.],
            I64 => t.int64_data = vec![i64::MIN, 0, i64::MAX],
            U64 => t.uint64_data = vec![0, 1, u64::MAX],
            U32 => t.uint64_data = vec![0, 1, u64::from(u32::MAX)],
            I32 => t.int32_data = vec![i32::MIN, 0, i32::MAX],
            I16 => t.int32_data = vec![-32768, 0, 32767],
            I8 => t.int32_data = vec![-128, 0, 127],
            U16 | F16 | BF16 => t.int32_data = vec![0, 1, 65535],
            U8 | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 => t.int32_data = vec![0, 1, 255],
            Bool => t.int32_data = vec![0, 1, 1],
            U4 | I4 | F4E2M1 => t.int32_data = vec![0xf1, 0x07],
            U2 | I2 => t.int32_data = vec![0b11_10_01],
            F6E2M3 | F6E3M2 => t.int32_data = vec![0, 1, 63],
        }
        all.push(t.clone());
        if let Some(len) = dtype.byte_len(3) {
            let raw: Vec<u8> = (0..len)
                .map(|i| if dtype == Bool { i as u8 % 2 } else { (i as u8).wrapping_mul(0x21) })
                .collect();
            all.push(TensorProto {
                name: s(&format!("raw_{dtype}")),
                dims: vec![3],
                data_type: Some(dtype as i32),
                raw_data: Some(raw.into()),
                ..Default::default()
            });
        }
    }
    all[0].doc_string = s("a tensor");
    all[1].doc_string = s("");
    all[1].data_location = Some(0);
    all[2].metadata_props = vec![entry("k", "v")];
    all.push(TensorProto { name: s("empty"), dims: vec![0, 4], data_type: Some(1), ..Default::default() });
    all
}

fn sparse(name: &str) -> SparseTensorProto {
    SparseTensorProto {
        values: Some(TensorProto {
            name: s(name),
            dims: vec![2],
            data_type: Some(1),
            float_data: vec![1., 2.],
            ..Default::default()
        }),
        indices: Some(TensorProto {
            dims: vec![2, 2],
            data_type: Some(7),
            int64_data: vec![0, 1, 2, 3],
            ..Default::default()
        }),
        dims: vec![3, 4],
    }
}

/// A branch that captures `x` from two graphs out, `h` from one, and shadows nothing.
fn branch(name: &str) -> GraphProto {
    let mut inner_if = node("If", &["flag"], &[&format!("{name}_inner")]);
    for which in ["then_branch", "else_branch"] {
        let mut attr = attribute(which, T::Graph);
        let out = format!("{name}_{which}");
        attr.g = Some(GraphProto {
            name: s(which),
            node: vec![node("Add", &["x", &format!("{name}_h")], &[&out])],
            output: vec![float(&out)],
            ..Default::default()
        });
        inner_if.attribute.push(attr);
    }
    GraphProto {
        name: s(name),
        node: vec![node("Abs", &["h"], &[&format!("{name}_h")]), inner_if],
        output: vec![float(&format!("{name}_inner")), float("x")],
        ..Default::default()
    }
}

fn attributes() -> Vec<AttributeProto> {
    let mut all = vec![];
    let mut add = |kind: T, set: &dyn Fn(&mut AttributeProto)| {
        let mut a = attribute(&format!("{kind:?}"), kind);
        set(&mut a);
        all.push(a);
    };
    add(T::Undefined, &|_| {});
    add(T::Float, &|a| a.f = Some(-0.));
    add(T::Int, &|a| {
        a.i = Some(i64::MIN);
        a.doc_string = s("an attribute");
    });
    add(T::String, &|a| a.s = Some(vec![0xff, 0x00].into()));
    add(T::Tensor, &|a| a.t = Some(tensors().remove(0)));
    add(T::SparseTensor, &|a| a.sparse_tensor = Some(sparse("")));
    add(T::TypeProto, &|a| a.tp = Some(tensor_type(1, Some(vec![dim(None, Some("D"))]))));
    add(T::Floats, &|a| a.floats = vec![1., 2.]);
    add(T::Ints, &|a| a.ints = vec![]);
    add(T::Strings, &|a| a.strings = vec![vec![1].into(), vec![].into()]);
    add(T::Tensors, &|a| a.tensors = tensors());
    add(T::SparseTensors, &|a| a.sparse_tensors = vec![sparse("a"), sparse("b")]);
    add(T::TypeProtos, &|a| a.type_protos = vec![tensor_type(7, None), TypeProto::default()]);
    all
}

fn function() -> FunctionProto {
    let mut body = node("LeakyRelu", &["a"], &["b"]);
    body.attribute.push(AttributeProto { ref_attr_name: s("slope"), ..attribute("alpha", T::Float) });
    let mut default = attribute("slope", T::Float);
    default.f = Some(0.25);
    FunctionProto {
        name: s("Leaky"),
        domain: s("mine"),
        overload: s("v2"),
        doc_string: s(""),
        input: vec!["a".into()],
        output: vec!["b".into()],
        attribute: vec!["other".into()],
        attribute_proto: vec![default],
        node: vec![body],
        opset_import: vec![OperatorSetIdProto { domain: s(""), version: Some(21) }],
        value_info: vec![float("b")],
        metadata_props: vec![entry("f", "1")],
    }
}

fn everything() -> ModelProto {
    use dimension::Value::{DimParam, DimValue};
    let mut opaque = node("Strange", &["x", "", "typed_float"], &["h", "", "second"]);
    opaque.domain = s("elsewhere");
    opaque.name = s("strange");
    opaque.doc_string = s("a node");
    opaque.metadata_props = vec![entry("n", "")];
    opaque.attribute = attributes();
    opaque.device_configurations = vec![NodeDeviceConfigurationProto {
        configuration_id: s("two"),
        sharding_spec: vec![ShardingSpecProto {
            tensor_name: s("x"),
            device: vec![0, 1],
            index_to_device_group_map: vec![IntIntListEntryProto { key: Some(0), value: vec![1] }],
            sharded_dim: vec![ShardedDimProto::default()],
        }],
        pipeline_stage: Some(1),
    }];
    let mut call = node("Leaky", &["h"], &["z"]);
    (call.domain, call.overload, call.name) = (s("mine"), s("v2"), s(""));
    let mut plain = node("Relu", &["z"], &["y"]);
    plain.domain = s("ai.onnx");
    let mut branches = node("Branches", &["z"], &["w"]);
    branches.domain = s("elsewhere");
    branches.attribute = vec![AttributeProto {
        graphs: vec![branch("one"), branch("two")],
        ..attribute("branches", T::Graphs)
    }];
    let dims = vec![
        dim(Some(DimParam("batch".into())), Some("DATA_BATCH")),
        dim(Some(DimParam(String::new())), None),
        dim(Some(DimValue(-1)), None),
        dim(Some(DimParam("2*batch + 1".into())), None),
        dim(Some(DimValue(4)), Some("")),
        dim(None, None),
    ];
    let mut x = value("x", Some(tensor_type(1, Some(dims))));
    x.doc_string = s("an input");
    x.metadata_props = vec![entry("i", "1")];
    x.r#type.as_mut().unwrap().denotation = s("IMAGE");
    let boxed = |t: TypeProto| Some(Box::new(t));
    let of = |value| Some(TypeProto { value: Some(value), denotation: None });
    let sequence = type_proto::Value::SequenceType(Box::new(type_proto::Sequence {
        elem_type: boxed(TypeProto { denotation: s("inner"), ..tensor_type(1, Some(vec![])) }),
    }));
    let map = type_proto::Value::MapType(Box::new(type_proto::Map {
        key_type: Some(8),
        value_type: boxed(tensor_type(11, None)),
    }));
    let optional = type_proto::Value::OptionalType(Box::new(type_proto::Optional { elem_type: None }));
    let opaque_type = type_proto::Value::OpaqueType(type_proto::Opaque { domain: s("d"), name: None });
    let sparse_type =
        type_proto::Value::SparseTensorType(type_proto::SparseTensor { elem_type: Some(1), shape: None });
    let graph = GraphProto {
        name: s("main"),
        doc_string: s(""),
        node: vec![opaque, call, plain, branches],
        initializer: tensors(),
        sparse_initializer: vec![sparse("sparse_weight")],
        input: vec![
            x,
            value("typed_float", Some(tensor_type(1, Some(vec![dim(Some(DimValue(3)), None)])))),
            value("flag", Some(tensor_type(9, Some(vec![])))),
            value("seq", of(sequence)),
            value("map", of(map)),
            value("opt", of(optional)),
            value("opaque", of(opaque_type)),
            value("sparse", of(sparse_type)),
            value("untyped", None),
            value("half typed", Some(TypeProto::default())),
        ],
        output: vec![float("y"), float("second"), float("raw_float")],
        value_info: vec![float("h"), ValueInfoProto { doc_string: s(""), ..float("gone") }],
        quantization_annotation: vec![TensorAnnotation {
            tensor_name: s("h"),
            quant_parameter_tensor_names: vec![entry("SCALE_TENSOR", "typed_float")],
        }],
        metadata_props: vec![entry("g", "1"), entry("g", "2")],
    };
    ModelProto {
        ir_version: Some(14),
        opset_import: vec![
            OperatorSetIdProto { domain: s("mine"), version: Some(1) },
            OperatorSetIdProto { domain: s("ai.onnx"), version: Some(21) },
            OperatorSetIdProto { domain: s("elsewhere"), version: Some(7) },
        ],
        producer_name: s("tests"),
        producer_version: s(""),
        domain: None,
        model_version: Some(0),
        doc_string: s("all of it"),
        graph: Some(graph),
        metadata_props: vec![entry("m", "1")],
        training_info: vec![TrainingInfoProto {
            algorithm: Some(GraphProto { name: s("train"), ..Default::default() }),
            update_binding: vec![entry("w", "w2")],
            ..Default::default()
        }],
        functions: vec![function()],
        configuration: vec![DeviceConfigurationProto {
            name: s("two"),
            num_devices: Some(2),
            device: vec!["a".into(), "b".into()],
        }],
    }
}

#[test]
fn every_field_comes_back() {
    let original = everything();
    let model = load_bytes(original.encode_to_vec()).unwrap();
    let written = ModelProto::decode(&*to_bytes(&model).unwrap()).unwrap();
    let (a, b) = (original.graph.as_ref().unwrap(), written.graph.as_ref().unwrap());
    for (a, b) in a.initializer.iter().zip(&b.initializer) {
        assert_eq!(a, b);
    }
    for (a, b) in a.node.iter().zip(&b.node) {
        for (a, b) in a.attribute.iter().zip(&b.attribute) {
            assert_eq!(a, b);
        }
        assert_eq!(a, b);
    }
    assert_eq!(a.input, b.input);
    assert_eq!(original, written);
}

#[test]
fn files_hold_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("a.onnx"), dir.path().join("b.onnx"));
    std::fs::write(&first, everything().encode_to_vec()).unwrap();
    let model = load(&first, &LoadOptions::default()).unwrap();
    let saved = save(&model, &second, &SaveOptions::default()).unwrap();
    let bytes = std::fs::read(&second).unwrap();
    assert_eq!((saved.model_bytes, saved.data), (bytes.len() as u64, None));
    assert_eq!(ModelProto::decode(&*bytes).unwrap(), everything());
}

#[test]
fn the_ir_sees_what_is_meant() {
    let model = load_bytes(everything().encode_to_vec()).unwrap();
    let graph = &model.graph;
    let branches = graph.value("w").unwrap().node;
    let mut captured: Vec<&str> =
        graph.captures_of(branches).into_iter().map(|v| graph.value_name(v)).collect();
    captured.sort_unstable();
    assert_eq!(captured, ["flag", "h", "x"]);
    assert!(graph.is_overridable(graph.value("typed_float").unwrap().node));
    assert!(!graph.is_overridable(graph.value("raw_float").unwrap().node));
    assert!(matches!(
        graph.node(graph.value("sparse_weight").unwrap().node).kind,
        NodeKind::SparseConstant(_)
    ));
}

#[test]
fn the_text_form_says_everything() {
    let model = load_bytes(everything().encode_to_vec()).unwrap();
    let text = print(&model, &PrintOptions::whole());
    let again = parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    same(&model, &again).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!(print(&again, &PrintOptions::whole()), text);
    assert_eq!(ModelProto::decode(&*to_bytes(&again).unwrap()).unwrap(), everything());
}

/// Messages kept in a text are not looked at by fcc, so nothing in them may count that fcc should have seen.
#[test]
fn fields_of_a_text_add_nothing() {
    let plain = parse("<ir_version: 8, opset_import: [\"\" : 17]> g (float x) => (float y) { y = Relu (x) }")
        .unwrap();
    let graph = GraphProto {
        node: vec![node("Neg", &["y"], &["z"])],
        input: vec![float("w")],
        initializer: tensors(),
        name: s("other"),
        ..Default::default()
    };
    let mut model = plain.clone();
    model.graph.extra = graph.encode_to_vec().into();
    model.extra = ModelProto { graph: Some(graph), functions: vec![function()], ..Default::default() }
        .encode_to_vec()
        .into();
    let relu = model.graph.value("y").unwrap().node;
    model.graph.node_mut(relu).extra = node("Abs", &["x", "x"], &["q"]).encode_to_vec().into();
    assert_eq!(to_bytes(&model).unwrap(), to_bytes(&plain).unwrap());
}
