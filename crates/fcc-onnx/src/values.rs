//! Values as files of their own: the `.pb` files of ONNX test cases.

use std::path::Path;

use bytes::Bytes;
use fcc_ir::attr::ConstTensor;
use fcc_ir::{DType, Tensor, Value, ValueType};
use prost::Message;

use crate::decode::decode;
use crate::error::At;
use crate::external::Source;
use crate::files::Files;
use crate::map::{map, open_regular};
use crate::proto::{MapProto, OptionalProto, SequenceProto, TensorProto};
use crate::stage::Staged;
use crate::{Error, ErrorKind, Result, tensors};

/// Reads a `TensorProto` file.
pub fn read_tensor_pb(path: impl AsRef<Path>) -> Result<Tensor> {
    match read_value_pb(path.as_ref(), &ValueType::Unknown)? {
        Value::Tensor(tensor) => Ok(tensor),
        other => Err(Error::invalid("value", other.value_type(), "a tensor").in_file(path.as_ref())),
    }
}

/// Reads a file that holds a value of the declared type `ty`: `TensorProto`, `SequenceProto`, `OptionalProto` or
/// `MapProto` do not say which they are. A type that is not known counts as a tensor.
pub fn read_value_pb(path: impl AsRef<Path>, ty: &ValueType) -> Result<Value> {
    read_value_pb_with_files(path, ty).map(|(value, _)| value)
}

/// As [`read_value_pb`], with the files that were read: a tensor's data may lie in another.
pub fn read_value_pb_with_files(path: impl AsRef<Path>, ty: &ValueType) -> Result<(Value, Files)> {
    let path = path.as_ref();
    let file = open_regular(path)?;
    let mut source = Source::new(path.parent().map(Path::to_path_buf), false);
    let value = value(&map(&file, path)?, ty, &mut source).map_err(|e| e.in_file(path))?;
    let mut files = source.into_files();
    files.add_open(&file, path);
    Ok((value, files))
}

/// Writes a `TensorProto` file with the data in `raw_data`.
pub fn write_tensor_pb(path: impl AsRef<Path>, name: &str, tensor: &Tensor) -> Result<()> {
    let constant = ConstTensor { name: name.to_string(), ..ConstTensor::from(tensor.clone()) };
    let mut file = Staged::create(path.as_ref())?;
    file.write(&tensors::export(&constant).encode_to_vec())?;
    file.complete()?.publish()
}

fn value(bytes: &Bytes, ty: &ValueType, source: &mut Source) -> Result<Value> {
    match ty {
        ValueType::Unknown | ValueType::Tensor(_) => tensor(decode(bytes, "a TensorProto")?, source),
        ValueType::Sequence(elem) => sequence(decode(bytes, "a SequenceProto")?, elem, source),
        // one without a value may have no field at all
        ValueType::Optional(elem) if bytes.is_empty() => Ok(Value::Optional((**elem).clone(), None)),
        ValueType::Optional(elem) => optional(decode(bytes, "an OptionalProto")?, elem, source),
        ValueType::Map(key, elem) => map_value(decode(bytes, "a MapProto")?, *key, elem, source),
        ValueType::SparseTensor(_) | ValueType::Opaque(..) => Err(unsupported(ty)),
    }
}

fn unsupported(ty: &ValueType) -> Error {
    Error::new(ErrorKind::Unsupported, format!("a value of type {ty} is not supported"))
}

fn tensor(proto: TensorProto, source: &mut Source) -> Result<Value> {
    Ok(tensors::import(proto, source)?.tensor.into())
}

fn sequence(proto: SequenceProto, elem: &ValueType, source: &mut Source) -> Result<Value> {
    let items: Vec<Value> = match elem {
        ValueType::Unknown | ValueType::Tensor(_) => {
            proto.tensor_values.into_iter().map(|t| tensor(t, source)).collect::<Result<_>>()
        }
        ValueType::Sequence(inner) => {
            proto.sequence_values.into_iter().map(|s| sequence(s, inner, source)).collect::<Result<_>>()
        }
        ValueType::Optional(inner) => {
            proto.optional_values.into_iter().map(|o| optional(o, inner, source)).collect::<Result<_>>()
        }
        ValueType::Map(key, inner) => {
            proto.map_values.into_iter().map(|m| map_value(m, *key, inner, source)).collect::<Result<_>>()
        }
        ValueType::SparseTensor(_) | ValueType::Opaque(..) => Err(unsupported(elem)),
    }
    .at(|| "sequence")?;
    Ok(Value::Sequence(elem.clone(), items))
}

fn optional(proto: OptionalProto, elem: &ValueType, source: &mut Source) -> Result<Value> {
    let item = match elem {
        ValueType::Unknown | ValueType::Tensor(_) => proto.tensor_value.map(|t| tensor(t, source)),
        ValueType::Sequence(inner) => proto.sequence_value.map(|s| sequence(s, inner, source)),
        ValueType::Optional(inner) => proto.optional_value.map(|o| optional(*o, inner, source)),
        ValueType::Map(key, inner) => proto.map_value.map(|m| map_value(m, *key, inner, source)),
        ValueType::SparseTensor(_) | ValueType::Opaque(..) => Some(Err(unsupported(elem))),
    };
    let item = item.transpose().at(|| "optional")?;
    Ok(Value::Optional(elem.clone(), item.map(Box::new)))
}

fn map_value(proto: MapProto, key: DType, elem: &ValueType, source: &mut Source) -> Result<Value> {
    let keys = if key == DType::String {
        Tensor::from_strings(vec![proto.string_keys.len()], proto.string_keys)?
    } else {
        // integer keys of every width are stored as int64
        let proto = TensorProto {
            dims: vec![proto.keys.len() as i64],
            data_type: Some(DType::I64 as i32),
            int64_data: proto.keys,
            ..Default::default()
        };
        narrow_keys(key, tensors::import(proto, source)?.tensor)?
    };
    let values = match sequence(proto.values.unwrap_or_default(), elem, source).at(|| "map")? {
        Value::Sequence(_, values) => values,
        other => vec![other],
    };
    if values.len() != keys.len() {
        return Err(Error::invalid(
            "map",
            format!("{} values", values.len()),
            format!("{}, one a key", keys.len()),
        ));
    }
    Ok(Value::Map(keys, values))
}

fn narrow_keys(key: DType, wide: Tensor) -> Result<Tensor> {
    fn to<T: fcc_ir::Elem + TryFrom<i64>>(wide: &[i64]) -> Result<Tensor> {
        let narrow = |&v: &i64| T::try_from(v).map_err(|_| Error::invalid("map key", v, T::DTYPE));
        let keys: Vec<T> = wide.iter().map(narrow).collect::<Result<_>>()?;
        Ok(Tensor::new(vec![keys.len()], keys)?)
    }
    let keys = wide.to_i64s()?;
    match key {
        DType::I64 => Ok(wide),
        DType::I32 => to::<i32>(&keys),
        DType::I16 => to::<i16>(&keys),
        DType::I8 => to::<i8>(&keys),
        DType::U64 => to::<u64>(&keys),
        DType::U32 => to::<u32>(&keys),
        DType::U16 => to::<u16>(&keys),
        DType::U8 => to::<u8>(&keys),
        other => Err(Error::invalid("map key type", other, "an integer type or string")),
    }
}
