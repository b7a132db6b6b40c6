//! `TensorProto` and the IR's tensors, both ways.
//!
//! The bytes of `raw_data` and of external data are shared with the file. Typed fields (`float_data`, …) become
//! packed bytes, and a tensor that came in a typed field goes back into it.

use bytes::Bytes;
use fcc_ir::attr::{ConstSparse, ConstTensor};
use fcc_ir::{DType, Tensor};

use crate::error::{At, quoted};
use crate::external::Source;
use crate::keep::{Kept, metadata, metadata_proto};
use crate::proto::tensor_proto::DataLocation;
use crate::proto::{SparseTensorProto, TensorProto};
use crate::{Error, ErrorKind, Result};

/// The element type of a code in a file.
pub(crate) fn dtype(code: i32) -> Result<DType> {
    DType::from_code(code).ok_or_else(|| {
        let last = DType::ALL.last().map_or(0, |d| *d as i32);
        Error::invalid("element type", format!("code {code}"), format!("a code from 0 to {last}"))
    })
}

/// Extents as a file gives them. Errors on a negative one and where the number of elements overflows.
pub(crate) fn extents(dims: &[i64]) -> Result<Vec<usize>> {
    let shape: Vec<usize> = dims
        .iter()
        .map(|&d| {
            usize::try_from(d).map_err(|_| Error::invalid("dims", format!("{dims:?}"), "no negative extent"))
        })
        .collect::<Result<_>>()?;
    fcc_ir::elem_count(&shape)?;
    Ok(shape)
}

/// Reads a tensor. Errors name the tensor.
pub(crate) fn import(proto: TensorProto, source: &mut Source) -> Result<ConstTensor> {
    let place = match proto.name() {
        "" => "tensor".to_string(),
        name => format!("tensor {}", quoted(name)),
    };
    import_unplaced(proto, source).at(|| place)
}

/// Reads a tensor whose place the caller names.
pub(crate) fn import_unplaced(mut proto: TensorProto, source: &mut Source) -> Result<ConstTensor> {
    let dtype = dtype(proto.data_type())?;
    let shape = extents(&proto.dims)?;
    if dtype == DType::Undefined {
        return Err(Error::invalid("element type", "none", "a type"));
    }
    if proto.segment.is_some() {
        return Err(Error::new(ErrorKind::Unsupported, "a tensor in segments is not supported"));
    }
    let extra = proto.kept();
    let is_external = proto.data_location() == DataLocation::External;
    let mut typed_field = false;
    let mut external = None;
    let tensor = if is_external {
        only(&proto, Field::External)?;
        let elems = fcc_ir::elem_count(&shape)?;
        let len = dtype.byte_len(elems).ok_or_else(|| {
            Error::invalid("external data", format!("{dtype}{shape:?}"), "elements of a fixed size")
        })?;
        let bytes = source.read(&proto.external_data, len)?;
        external = Some(metadata(&proto.external_data));
        from_bytes(dtype, shape, bytes)?
    } else if let Some(raw) = proto.raw_data.take() {
        if dtype == DType::String {
            return Err(Error::invalid("string tensor", "raw_data", "string_data"));
        }
        only(&proto, Field::Raw)?;
        from_bytes(dtype, shape, raw)?
    } else {
        typed_field = true;
        only(&proto, typed(dtype))?;
        from_typed(dtype, shape, &mut proto)?
    };
    Ok(ConstTensor {
        tensor,
        name: proto.name.unwrap_or_default(),
        doc: proto.doc_string.unwrap_or_default(),
        metadata: metadata(&proto.metadata_props),
        typed_field,
        external,
        extra,
    })
}

fn from_bytes(dtype: DType, shape: Vec<usize>, bytes: Bytes) -> Result<Tensor> {
    // a truth value is 0 or 1: other bytes mean true, and code that computes with them relies on it
    let bytes = match dtype {
        DType::Bool if bytes.iter().any(|&b| b > 1) => bytes.iter().map(|&b| u8::from(b != 0)).collect(),
        _ => bytes,
    };
    Ok(Tensor::from_bytes(dtype, shape, bytes)?)
}

/// The fields of `TensorProto` that can hold data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Raw,
    External,
    Float,
    Int32,
    String,
    Int64,
    Double,
    Uint64,
}

/// The typed field for an element type.
fn typed(dtype: DType) -> Field {
    use DType::*;
    match dtype {
        F32 | C64 => Field::Float,
        F64 | C128 => Field::Double,
        I64 => Field::Int64,
        U32 | U64 => Field::Uint64,
        String | Undefined => Field::String,
        I32 | U8 | I8 | U16 | I16 | Bool | F16 | BF16 | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ
        | F8E8M0 | U4 | I4 | F4E2M1 | U2 | I2 | F6E2M3 | F6E3M2 => Field::Int32,
    }
}

/// Errors if any other field than `field` holds data (`raw_data` is taken out before).
fn only(proto: &TensorProto, field: Field) -> Result<()> {
    let filled = [
        (Field::Float, "float_data", proto.float_data.len()),
        (Field::Int32, "int32_data", proto.int32_data.len()),
        (Field::String, "string_data", proto.string_data.len()),
        (Field::Int64, "int64_data", proto.int64_data.len()),
        (Field::Double, "double_data", proto.double_data.len()),
        (Field::Uint64, "uint64_data", proto.uint64_data.len()),
        (Field::Raw, "raw_data", proto.raw_data.as_ref().map_or(0, Bytes::len)),
    ];
    match filled.iter().find(|(f, _, len)| *f != field && *len > 0) {
        None => Ok(()),
        Some((_, name, len)) => {
            let dtype = DType::from_code(proto.data_type()).unwrap_or(DType::Undefined);
            let wanted = match field {
                Field::Raw => "raw_data only".to_string(),
                Field::External => "external data only".to_string(),
                _ => format!("the field for {dtype}"),
            };
            Err(Error::invalid("tensor data", format!("{len} in {name}"), wanted))
        }
    }
}

fn from_typed(dtype: DType, shape: Vec<usize>, proto: &mut TensorProto) -> Result<Tensor> {
    use DType::*;
    let take32 = std::mem::take(&mut proto.int32_data);
    Ok(match dtype {
        String | Undefined => Tensor::from_strings(shape, std::mem::take(&mut proto.string_data))?,
        F32 => Tensor::new(shape, std::mem::take(&mut proto.float_data))?,
        F64 => Tensor::new(shape, std::mem::take(&mut proto.double_data))?,
        C64 => packed(dtype, shape, std::mem::take(&mut proto.float_data))?,
        C128 => packed(dtype, shape, std::mem::take(&mut proto.double_data))?,
        I64 => Tensor::new(shape, std::mem::take(&mut proto.int64_data))?,
        U64 => Tensor::new(shape, std::mem::take(&mut proto.uint64_data))?,
        U32 => Tensor::new(shape, narrow::<u64, u32>(dtype, &proto.uint64_data)?)?,
        I32 => Tensor::new(shape, take32)?,
        I16 => Tensor::new(shape, narrow::<i32, i16>(dtype, &take32)?)?,
        I8 => Tensor::new(shape, narrow::<i32, i8>(dtype, &take32)?)?,
        U16 => Tensor::new(shape, narrow::<i32, u16>(dtype, &take32)?)?,
        F16 | BF16 => packed(dtype, shape, narrow::<i32, u16>(dtype, &take32)?)?,
        Bool => {
            let bytes: Vec<u8> = take32.iter().map(|&v| u8::from(v != 0)).collect();
            packed(dtype, shape, bytes)?
        }
        U8 | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 | U4 | I4 | F4E2M1 | U2 | I2 => {
            packed(dtype, shape, narrow::<i32, u8>(dtype, &take32)?)?
        }
        F6E2M3 | F6E3M2 => {
            let elems = narrow::<i32, u8>(dtype, &take32)?;
            if elems.len() != fcc_ir::elem_count(&shape)? || elems.iter().any(|&e| e > 0x3f) {
                let got = format!("{} entries", elems.len());
                return Err(Error::invalid(
                    format!("data of {dtype}{shape:?}"),
                    got,
                    "6 bits for each element",
                ));
            }
            Tensor::from_unpacked_bits(dtype, shape, &elems)?
        }
    })
}

/// A tensor over the bytes of `data`, which holds the packed elements.
fn packed<T: bytemuck::Pod>(dtype: DType, shape: Vec<usize>, data: Vec<T>) -> Result<Tensor> {
    Ok(Tensor::from_bytes(dtype, shape, Bytes::copy_from_slice(bytemuck::cast_slice(&data)))?)
}

fn narrow<W: Copy + std::fmt::Display, N: TryFrom<W>>(dtype: DType, wide: &[W]) -> Result<Vec<N>> {
    wide.iter()
        .map(|&v| N::try_from(v).map_err(|_| Error::invalid("tensor data", v, format!("a value of {dtype}"))))
        .collect()
}

/// Writes a tensor, under its own name; the data is shared where it goes to `raw_data`.
pub(crate) fn export(constant: &ConstTensor) -> TensorProto {
    export_as(constant, false)
}

/// Writes a tensor; with `raw`, one that came in a typed field goes to `raw_data` too.
pub(crate) fn export_as(constant: &ConstTensor, raw: bool) -> TensorProto {
    let tensor = &constant.tensor;
    let mut proto = TensorProto::restored(&constant.extra);
    proto.dims = tensor.shape().iter().map(|&d| d as i64).collect(); // the element count is below 2^63
    proto.data_type = Some(tensor.dtype() as i32);
    if !constant.name.is_empty() {
        proto.name = Some(constant.name.clone());
    }
    if !constant.doc.is_empty() {
        proto.doc_string = Some(constant.doc.clone());
    }
    proto.metadata_props = metadata_proto(&constant.metadata);
    if constant.external.is_some() {
        // what readers that inline external data write, too
        proto.data_location = Some(DataLocation::Default as i32);
    }
    if constant.typed_field && !raw || tensor.dtype() == DType::String {
        to_typed(tensor, &mut proto);
    } else {
        proto.raw_data = Some(tensor.bytes().clone());
    }
    proto
}

fn to_typed(tensor: &Tensor, proto: &mut TensorProto) {
    use DType::*;
    let bytes = tensor.bytes();
    match tensor.dtype() {
        String | Undefined => {
            proto.string_data = tensor.as_strings().map(<[Bytes]>::to_vec).unwrap_or_default()
        }
        F32 | C64 => proto.float_data = bytemuck::pod_collect_to_vec(bytes),
        F64 | C128 => proto.double_data = bytemuck::pod_collect_to_vec(bytes),
        I64 => proto.int64_data = bytemuck::pod_collect_to_vec(bytes),
        U64 => proto.uint64_data = bytemuck::pod_collect_to_vec(bytes),
        U32 => proto.uint64_data = widen::<u32, u64>(bytes),
        I32 => proto.int32_data = bytemuck::pod_collect_to_vec(bytes),
        I16 => proto.int32_data = widen::<i16, i32>(bytes),
        I8 => proto.int32_data = widen::<i8, i32>(bytes),
        U16 | F16 | BF16 => proto.int32_data = widen::<u16, i32>(bytes),
        U8 | Bool | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 | U4 | I4 | F4E2M1 | U2 | I2 => {
            proto.int32_data = widen::<u8, i32>(bytes);
        }
        F6E2M3 | F6E3M2 => proto.int32_data = widen::<u8, i32>(&tensor.unpacked_bits()),
    }
}

fn widen<N: bytemuck::Pod, W: From<N>>(bytes: &[u8]) -> Vec<W> {
    bytemuck::pod_collect_to_vec::<u8, N>(bytes).into_iter().map(W::from).collect()
}

/// Reads a sparse tensor.
pub(crate) fn import_sparse(proto: SparseTensorProto, source: &mut Source) -> Result<ConstSparse> {
    let shape = extents(&proto.dims)?;
    let part = |tensor: Option<TensorProto>, what: &str| {
        tensor.ok_or_else(|| Error::invalid(format!("{what} of a sparse tensor"), "none", "a tensor"))
    };
    let values = import(part(proto.values, "values")?, source)?;
    let indices = import(part(proto.indices, "indices")?, source)?;
    check_sparse(&shape, &values, &indices).at(|| format!("sparse tensor {}", quoted(&values.name)))?;
    Ok(ConstSparse { values, indices, shape })
}

fn check_sparse(shape: &[usize], values: &ConstTensor, indices: &ConstTensor) -> Result<()> {
    let nnz = values.tensor.len();
    if shape.is_empty() {
        return Err(Error::invalid("dims of a sparse tensor", "none", "one or more"));
    }
    if values.tensor.rank() != 1 {
        return Err(Error::invalid("rank of values", values.tensor.rank(), 1));
    }
    let wanted: &[&[usize]] = &[&[nnz], &[nnz, shape.len()]];
    if indices.tensor.dtype() != DType::I64 || !wanted.contains(&indices.tensor.shape()) {
        let got = indices.tensor.tensor_type();
        return Err(Error::invalid("indices", got, format!("int64[{nnz}] or int64[{nnz},{}]", shape.len())));
    }
    let entries = indices.tensor.as_slice::<i64>()?;
    let limit = |i: usize| match indices.tensor.rank() {
        1 => shape.iter().product::<usize>(),
        _ => shape[i % shape.len().max(1)],
    };
    let outside = |(i, &v): (usize, &i64)| usize::try_from(v).map_or(true, |v| v >= limit(i));
    match entries.iter().enumerate().find(|&entry| outside(entry)) {
        Some((i, v)) => Err(Error::invalid("indices", v, format!("0 or more and below {}", limit(i)))),
        None => Ok(()),
    }
}

/// Writes a sparse tensor.
pub(crate) fn export_sparse(sparse: &ConstSparse) -> SparseTensorProto {
    SparseTensorProto {
        values: Some(export(&sparse.values)),
        indices: Some(export(&sparse.indices)),
        dims: sparse.shape.iter().map(|&d| d as i64).collect(),
    }
}
