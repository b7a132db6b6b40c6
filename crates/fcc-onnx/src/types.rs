//! `TypeProto` and `ValueInfoProto`, both ways.

use fcc_ir::{DType, Dim, TensorType, ValueInfo, ValueType};

use crate::error::{At, quoted};
use crate::keep::{Kept, metadata, metadata_proto, put};
use crate::proto::tensor_shape_proto::{Dimension, dimension};
use crate::proto::{TensorShapeProto, TypeProto, ValueInfoProto, type_proto};
use crate::tensors::dtype;
use crate::{Error, Result};

/// Reads a type. Errors on an element type that ONNX does not have and on a negative extent.
pub(crate) fn import(proto: &TypeProto) -> Result<ValueType> {
    use type_proto::Value as P;
    let inner = |elem: &Option<Box<TypeProto>>| match elem {
        Some(elem) => import(elem),
        None => Ok(ValueType::Unknown),
    };
    Ok(match &proto.value {
        None => ValueType::Unknown,
        Some(P::TensorType(t)) => ValueType::Tensor(tensor(t.elem_type(), &t.shape)?),
        Some(P::SparseTensorType(t)) => ValueType::SparseTensor(tensor(t.elem_type(), &t.shape)?),
        Some(P::SequenceType(t)) => ValueType::Sequence(Box::new(inner(&t.elem_type)?)),
        Some(P::OptionalType(t)) => ValueType::Optional(Box::new(inner(&t.elem_type)?)),
        Some(P::MapType(t)) => ValueType::Map(dtype(t.key_type())?, Box::new(inner(&t.value_type)?)),
        Some(P::OpaqueType(t)) => ValueType::Opaque(t.domain().to_string(), t.name().to_string()),
    })
}

fn tensor(elem_type: i32, shape: &Option<TensorShapeProto>) -> Result<TensorType> {
    let shape = match shape {
        None => None,
        Some(shape) => Some(shape.dim.iter().map(dim).collect::<Result<_>>()?),
    };
    Ok(TensorType { dtype: dtype(elem_type)?, shape })
}

fn dim(proto: &Dimension) -> Result<Dim> {
    Ok(match &proto.value {
        // some exporters (Paddle's) mean an extent that is not known
        Some(dimension::Value::DimValue(-1)) => Dim::Unknown,
        Some(dimension::Value::DimValue(v)) => {
            Dim::Known(usize::try_from(*v).map_err(|_| Error::invalid("dimension", v, "0 or more"))?)
        }
        // `?` is written for extents that have nothing to do with each other: it is no symbol
        Some(dimension::Value::DimParam(name)) if !name.is_empty() && name != "?" => Dim::symbol(name),
        Some(dimension::Value::DimParam(_)) | None => Dim::Unknown,
    })
}

/// Writes a type; an unknown one as an empty message.
pub(crate) fn export(ty: &ValueType) -> TypeProto {
    use type_proto::Value as P;
    let inner = |ty: &ValueType| (*ty != ValueType::Unknown).then(|| Box::new(export(ty)));
    let value = match ty {
        ValueType::Unknown => None,
        ValueType::Tensor(t) => {
            let (elem_type, shape) = tensor_parts(t);
            Some(P::TensorType(type_proto::Tensor { elem_type, shape }))
        }
        ValueType::SparseTensor(t) => {
            let (elem_type, shape) = tensor_parts(t);
            Some(P::SparseTensorType(type_proto::SparseTensor { elem_type, shape }))
        }
        ValueType::Sequence(t) => {
            Some(P::SequenceType(Box::new(type_proto::Sequence { elem_type: inner(t) })))
        }
        ValueType::Optional(t) => {
            Some(P::OptionalType(Box::new(type_proto::Optional { elem_type: inner(t) })))
        }
        ValueType::Map(key, t) => {
            let map = type_proto::Map { key_type: Some(*key as i32), value_type: inner(t) };
            Some(P::MapType(Box::new(map)))
        }
        ValueType::Opaque(domain, name) => Some(P::OpaqueType(type_proto::Opaque {
            domain: (!domain.is_empty()).then(|| domain.clone()),
            name: (!name.is_empty()).then(|| name.clone()),
        })),
    };
    TypeProto { value, denotation: None }
}

fn tensor_parts(t: &TensorType) -> (Option<i32>, Option<TensorShapeProto>) {
    let dim = |d: &Dim| {
        let value = match d {
            Dim::Known(n) => Some(dimension::Value::DimValue(i64::try_from(*n).unwrap_or(i64::MAX))),
            Dim::Sym(_) => Some(dimension::Value::DimParam(d.to_string())),
            Dim::Unknown => None,
        };
        Dimension { value, denotation: None }
    };
    let elem_type = (t.dtype != DType::Undefined).then_some(t.dtype as i32);
    (elem_type, t.shape.as_ref().map(|s| TensorShapeProto { dim: s.iter().map(dim).collect() }))
}

/// Reads the declaration of a value. Errors name it.
pub(crate) fn import_info(proto: &ValueInfoProto) -> Result<ValueInfo> {
    let mut info = plain_info(proto).at(|| format!("type of {}", quoted(proto.name())))?;
    let spelt_otherwise = export_info(&info).r#type != proto.r#type;
    let ty = proto.r#type.clone().filter(|_| spelt_otherwise);
    info.extra = ValueInfoProto { r#type: ty, ..proto.clone() }.kept();
    Ok(info)
}

fn plain_info(proto: &ValueInfoProto) -> Result<ValueInfo> {
    let mut info = ValueInfo::new(proto.name(), ValueType::Unknown);
    info.doc = proto.doc_string().to_string();
    info.metadata = metadata(&proto.metadata_props);
    let Some(ty) = &proto.r#type else { return Ok(info) };
    info.ty = import(ty)?;
    info.denotation = ty.denotation().to_string();
    if let Some(type_proto::Value::TensorType(t)) = &ty.value
        && let Some(shape) = &t.shape
        && shape.dim.iter().any(|d| d.denotation.is_some())
    {
        info.dim_denotations = shape.dim.iter().map(|d| d.denotation().to_string()).collect();
    }
    Ok(info)
}

/// Writes the declaration of a value; the type as the file spelt it, if it still is the same type.
pub(crate) fn export_info(info: &ValueInfo) -> ValueInfoProto {
    let mut proto = ValueInfoProto::restored(&info.extra);
    put(&mut proto.name, &info.name);
    put(&mut proto.doc_string, &info.doc);
    proto.metadata_props = metadata_proto(&info.metadata);
    let still_so = proto.r#type.is_some()
        && plain_info(&proto).is_ok_and(|spelt| {
            spelt.ty == info.ty
                && spelt.denotation == info.denotation
                && spelt.dim_denotations == info.dim_denotations
        });
    if still_so {
        return proto;
    }
    proto.r#type = None;
    if info.ty == ValueType::Unknown && info.denotation.is_empty() {
        return proto;
    }
    let mut ty = export(&info.ty);
    put(&mut ty.denotation, &info.denotation);
    if let Some(type_proto::Value::TensorType(t)) = &mut ty.value
        && let Some(shape) = &mut t.shape
    {
        for (dim, denotation) in shape.dim.iter_mut().zip(&info.dim_denotations) {
            put(&mut dim.denotation, denotation);
        }
    }
    proto.r#type = Some(ty);
    proto
}
