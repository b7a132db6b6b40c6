//! Test-case files (`.pb`) and arrays: each is read as the type that its model declares.
use std::path::{Path, PathBuf};

use fcc_ir::{DType, Tensor, TensorType, Value, ValueType};
use fcc_onnx::proto::{MapProto, OptionalProto, SequenceProto, TensorProto};
use fcc_onnx::{LoadOptions, load, read_npz, read_tensor_pb, read_value_pb, write_tensor_pb};
use prost::Message;

fn float(values: &[f32]) -> TensorProto {
    TensorProto {
        dims: vec![values.len() as i64],
        data_type: Some(1),
        float_data: values.to_vec(),
        ..Default::default()
    }
}

fn any_float() -> Box<ValueType> {
    Box::new(TensorType::unranked(DType::F32).into())
}

fn read(message: &impl Message, ty: &ValueType) -> fcc_onnx::Result<Value> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("input_0.pb");
    std::fs::write(&path, message.encode_to_vec()).unwrap();
    read_value_pb(&path, ty)
}

fn tensor(values: &[f32]) -> Value {
    Tensor::new(vec![values.len()], values.to_vec()).unwrap().into()
}

#[test]
fn tensors_come_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a.pb");
    for tensor in [
        Tensor::new(vec![2, 2], vec![1f32, 2., 3., 4.]).unwrap(),
        Tensor::scalar(7i64),
        Tensor::from_strings(vec![2], ["a", "\u{e9}"]).unwrap(),
        Tensor::from_unpacked_bits(DType::I4, vec![3], &[1, 15, 8]).unwrap(),
    ] {
        write_tensor_pb(&path, "x", &tensor).unwrap();
        assert_eq!(read_tensor_pb(&path).unwrap(), tensor);
    }
}

#[test]
fn sequences_optionals_and_maps_are_read_as_declared() {
    let items = SequenceProto {
        elem_type: Some(1),
        tensor_values: vec![float(&[1.]), float(&[2., 3.])],
        ..Default::default()
    };
    let sequence = ValueType::Sequence(any_float());
    let wanted = Value::Sequence(*any_float(), vec![tensor(&[1.]), tensor(&[2., 3.])]);
    assert_eq!(read(&items, &sequence).unwrap(), wanted);

    let optional =
        OptionalProto { elem_type: Some(3), sequence_value: Some(items.clone()), ..Default::default() };
    let of_sequence = ValueType::Optional(Box::new(sequence.clone()));
    assert_eq!(read(&optional, &of_sequence).unwrap(), Value::Optional(sequence, Some(Box::new(wanted))));
    let nothing = ValueType::Optional(any_float());
    assert_eq!(read(&OptionalProto::default(), &nothing).unwrap(), Value::Optional(*any_float(), None));

    let map =
        |keys: &[i64]| MapProto { keys: keys.to_vec(), values: Some(items.clone()), ..Default::default() };
    let by_byte = ValueType::Map(DType::U8, any_float());
    let Value::Map(keys, values) = read(&map(&[4, 255]), &by_byte).unwrap() else { panic!("no map") };
    assert_eq!(keys, Tensor::new(vec![2], vec![4u8, 255]).unwrap());
    assert_eq!(values.len(), 2);
    assert!(
        read(&map(&[4, 256]), &by_byte).unwrap_err().to_string().contains("map key: got 256, wanted uint8")
    );
    assert!(read(&map(&[4]), &by_byte).unwrap_err().to_string().contains("2 values, wanted 1"));
}

fn cache() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::env::var_os("FCC_CACHE").map_or_else(|| root.join(".cache"), PathBuf::from)
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
#[ignore = "needs the files that scripts/setup makes"]
fn cached_values_are_what_their_models_declare() {
    let (mut values, mut failed) = (0, vec![]);
    for case in entries(&cache().join("node")).iter().filter(|p| p.join("model.onnx").exists()) {
        let model = load(case.join("model.onnx"), &LoadOptions::default()).unwrap();
        let inputs: Vec<&ValueType> = model.graph.inputs.iter().map(|i| &i.info.ty).collect();
        let outputs: Vec<&ValueType> = model.graph.outputs.iter().map(|o| &o.info.ty).collect();
        let sets = entries(case).into_iter().filter(|p| p.is_dir());
        for file in sets.flat_map(|set| entries(&set)).filter(|f| f.extension().is_some_and(|e| e == "pb")) {
            let stem = file.file_stem().unwrap().to_str().unwrap();
            let (kind, index) = stem.rsplit_once('_').unwrap();
            let index: usize = index.parse().unwrap();
            let ty = if kind == "input" { inputs[index] } else { outputs[index] };
            values += 1;
            match read_value_pb(&file, ty) {
                Ok(value) if value.value_type().merge(ty).is_ok() => {}
                Ok(value) => failed.push(format!("{}: {} is not {ty}", file.display(), value.value_type())),
                Err(error) => failed.push(error.to_string()),
            }
        }
    }
    assert!(values > 5000, "{values} values");
    assert!(
        failed.is_empty(),
        "{} of {values}:\n{}",
        failed.len(),
        failed[..failed.len().min(20)].join("\n")
    );
}

#[test]
#[ignore = "needs the files that scripts/setup makes"]
fn cached_arrays_are_read() {
    let files: Vec<PathBuf> = entries(&cache().join("expected"))
        .into_iter()
        .filter(|p| p.extension().is_some_and(|e| e == "npz"))
        .collect();
    assert!(!files.is_empty());
    for file in files {
        assert!(!read_npz(&file).unwrap().is_empty(), "{}", file.display());
    }
}
