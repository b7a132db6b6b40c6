//! Dense tensors: shared bytes with a type and a shape, and the values that runs pass around.
use crate::limits::{Held, TENSOR_BYTES, counted, hold};
use crate::{DType, Error, Result, TensorType, ValueType};
use bytemuck::Pod;
use bytes::Bytes;
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

#[cfg(target_endian = "big")]
compile_error!("tensor data is little-endian, as in ONNX raw_data");

/// A Rust type that is the element of some [`DType`].
pub trait Elem: Pod + fmt::Debug + PartialOrd + Send + Sync + 'static {
    /// The element type.
    const DTYPE: DType;
}
macro_rules! elems { ($($t:ty => $d:ident),*) => { $(impl Elem for $t { const DTYPE: DType = DType::$d; })* } }
elems! { f32 => F32, f64 => F64, half::f16 => F16, half::bf16 => BF16, u8 => U8, i8 => I8, u16 => U16,
i16 => I16, u32 => U32, i32 => I32, u64 => U64, i64 => I64 }

/// A dense tensor: row-major, immutable, cheap to clone.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    data: Data,
}

#[derive(Clone)]
enum Data {
    /// Packed as ONNX `raw_data` (little-endian; sub-byte types share bytes, low bits first).
    Bytes(Bytes),
    /// The strings, and what they count as.
    Strings(Arc<[Bytes]>, #[allow(dead_code)] Option<Arc<Held>>),
}

/// Owner of a vector that lends it as bytes, and has them counted while it lives.
struct VecBytes<T>(Vec<T>, #[allow(dead_code)] Option<Held>);
impl<T: Pod> AsRef<[u8]> for VecBytes<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

/// The bytes of a vector that was just made.
fn owned<T: Elem>(data: Vec<T>) -> Bytes {
    let held = hold(size_of_val(&data[..]).saturating_add(TENSOR_BYTES));
    Bytes::from_owner(VecBytes(data, held))
}

/// The product of the extents that are not 0 is below this: with 16 bytes an element it still fits an address.
const MOST_ELEMS: usize = 1 << 59;
/// The same for a tensor without elements, whose data bound nothing.
const MOST_AROUND_NOTHING: usize = 1 << 27;

/// The number of elements of a shape. Every tensor's shape is checked here.
///
/// Errors on a rank above [`TensorType::MAX_RANK`] and where the product of the extents that are not 0 is out of all
/// proportion. So the product of any of a tensor's extents fits, strides and sizes in bytes included, and a loop over
/// some of the extents of an empty tensor ends.
pub fn elem_count(shape: &[usize]) -> Result<usize> {
    if shape.len() > TensorType::MAX_RANK {
        return Err(Error::mismatch("rank", shape.len(), format!("at most {}", TensorType::MAX_RANK)));
    }
    let empty = shape.contains(&0);
    let (most, wanted) = match empty {
        true => (MOST_AROUND_NOTHING, "extents that multiply to at most 2^27 without the 0"),
        false => (MOST_ELEMS, "a product of at most 2^59"),
    };
    let around = shape.iter().filter(|d| **d != 0).try_fold(1usize, |n, &d| n.checked_mul(d));
    match around.filter(|n| *n <= most) {
        Some(n) => Ok(if empty { 0 } else { n }),
        None => Err(Error::mismatch("number of elements", format!("{shape:?}"), wanted)),
    }
}

impl Tensor {
    /// A tensor of `data` in row-major order. Errors if the length is not the product of `shape`.
    pub fn new<T: Elem>(shape: impl Into<Vec<usize>>, data: Vec<T>) -> Result<Tensor> {
        let shape = shape.into();
        let elems = elem_count(&shape)?;
        if data.len() != elems {
            return Err(Error::mismatch("tensor data", format!("{} elements", data.len()), elems));
        }
        Ok(Tensor { dtype: T::DTYPE, shape, data: Data::Bytes(owned(data)) })
    }
    /// A tensor of truth values.
    pub fn from_bools(shape: impl Into<Vec<usize>>, data: impl IntoIterator<Item = bool>) -> Result<Tensor> {
        let bytes: Vec<u8> = data.into_iter().map(u8::from).collect();
        Tensor::from_bytes(DType::Bool, shape, counted(bytes.into()))
    }
    /// A tensor of byte strings.
    pub fn from_strings(
        shape: impl Into<Vec<usize>>,
        data: impl IntoIterator<Item = impl Into<Bytes>>,
    ) -> Result<Tensor> {
        let (shape, data): (Vec<usize>, Arc<[Bytes]>) =
            (shape.into(), data.into_iter().map(Into::into).collect());
        let elems = elem_count(&shape)?;
        if data.len() != elems {
            return Err(Error::mismatch("tensor data", format!("{} strings", data.len()), elems));
        }
        let bytes = data.iter().map(|s| s.len().saturating_add(size_of::<Bytes>()));
        let held = hold(bytes.fold(TENSOR_BYTES, usize::saturating_add)).map(Arc::new);
        Ok(Tensor { dtype: DType::String, shape, data: Data::Strings(data, held) })
    }
    /// A tensor over bytes packed as in ONNX `raw_data`. Errors if the length does not fit `shape`.
    pub fn from_bytes(dtype: DType, shape: impl Into<Vec<usize>>, data: Bytes) -> Result<Tensor> {
        let shape = shape.into();
        let elems = elem_count(&shape)?;
        let len = dtype.byte_len(elems).ok_or_else(|| {
            Error::mismatch(
                "tensor data",
                format!("{dtype}{shape:?}"),
                "elements of a fixed size, addressable in all",
            )
        })?;
        if data.len() != len {
            return Err(Error::mismatch(
                format!("data of {dtype}{shape:?}"),
                format!("{} bytes", data.len()),
                format!("{len} bytes"),
            ));
        }
        Ok(Tensor { dtype, shape, data: Data::Bytes(data) })
    }
    /// A scalar (rank 0).
    pub fn scalar<T: Elem>(value: T) -> Tensor {
        let data = Data::Bytes(owned(vec![value]));
        Tensor { dtype: T::DTYPE, shape: vec![], data }
    }
    /// An `int64` vector, the form of shapes and axes.
    pub fn from_i64s(values: impl Into<Vec<i64>>) -> Tensor {
        let values = values.into();
        let shape = vec![values.len()];
        Tensor { dtype: DType::I64, shape, data: Data::Bytes(owned(values)) }
    }
    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }
    /// Extents.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }
    /// Rank.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }
    /// Number of elements.
    pub fn len(&self) -> usize {
        // checked when the tensor was made
        self.shape.iter().product()
    }
    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }
    /// The type with its fixed shape.
    pub fn tensor_type(&self) -> TensorType {
        TensorType::new(self.dtype, self.shape.iter().copied())
    }
    /// The packed bytes; empty for strings.
    pub fn bytes(&self) -> &Bytes {
        static EMPTY: Bytes = Bytes::new();
        match &self.data {
            Data::Bytes(b) => b,
            Data::Strings(..) => &EMPTY,
        }
    }
    /// Size of the data in memory.
    pub fn byte_len(&self) -> usize {
        match &self.data {
            Data::Bytes(b) => b.len(),
            Data::Strings(s, _) => s.iter().map(Bytes::len).sum(),
        }
    }
    /// The elements, borrowed where they are aligned (data out of a file may not be). Errors on another type.
    pub fn as_slice<T: Elem>(&self) -> Result<Cow<'_, [T]>> {
        if self.dtype != T::DTYPE {
            return Err(Error::mismatch("element type", self.dtype, T::DTYPE));
        }
        Ok(self.cast_slice())
    }
    fn cast_slice<T: Pod>(&self) -> Cow<'_, [T]> {
        let bytes = self.bytes();
        match bytemuck::try_cast_slice(bytes) {
            Ok(s) => Cow::Borrowed(s),
            Err(_) => Cow::Owned(bytemuck::pod_collect_to_vec(bytes)),
        }
    }
    /// The truth values. Errors on another type.
    pub fn as_bools(&self) -> Result<Vec<bool>> {
        if self.dtype != DType::Bool {
            return Err(Error::mismatch("element type", self.dtype, DType::Bool));
        }
        Ok(self.bytes().iter().map(|&b| b != 0).collect())
    }
    /// The strings. Errors on another type.
    pub fn as_strings(&self) -> Result<&[Bytes]> {
        match &self.data {
            Data::Strings(s, _) => Ok(s),
            Data::Bytes(_) => Err(Error::mismatch("element type", self.dtype, DType::String)),
        }
    }
    /// The elements of an `int64` or `int32` tensor: shapes, axes, sizes. Errors on another type.
    pub fn to_i64s(&self) -> Result<Vec<i64>> {
        match self.dtype {
            DType::I64 => Ok(self.as_slice::<i64>()?.into_owned()),
            DType::I32 => Ok(self.as_slice::<i32>()?.iter().map(|&v| i64::from(v)).collect()),
            other => Err(Error::mismatch("element type", other, "int64 or int32")),
        }
    }
    /// The same data under another shape of as many elements; nothing is copied.
    pub fn reshaped(&self, shape: impl Into<Vec<usize>>) -> Result<Tensor> {
        let shape = shape.into();
        if elem_count(&shape)? != self.len() {
            return Err(Error::mismatch("reshape", format!("{:?}", self.shape), format!("{shape:?}")));
        }
        Ok(Tensor { shape, ..self.clone() })
    }
    /// The elements of a sub-byte type, one in a byte, not yet sign-extended; other types as their bytes.
    pub fn unpacked_bits(&self) -> Vec<u8> {
        let bits = self.dtype.bits();
        if bits == 0 || bits >= 8 {
            return self.bytes().to_vec();
        }
        let (bytes, mask) = (self.bytes(), (1u16 << bits) - 1);
        let byte = |i: usize| u16::from(bytes.get(i).copied().unwrap_or(0));
        // an element may lie across two bytes
        (0..self.len())
            .map(|i| {
                let bit = i * bits;
                let two = byte(bit / 8) | byte(bit / 8 + 1) << 8;
                (two >> (bit % 8) & mask) as u8
            })
            .collect()
    }
    /// Packs one element in each of `elems` into a tensor of a sub-byte type.
    pub fn from_unpacked_bits(dtype: DType, shape: impl Into<Vec<usize>>, elems: &[u8]) -> Result<Tensor> {
        let bits = dtype.bits();
        if bits == 0 || bits >= 8 {
            return Tensor::from_bytes(dtype, shape, counted(elems.to_vec().into()));
        }
        let mask = (1u8 << bits) - 1;
        let mut packed = vec![0u8; dtype.byte_len(elems.len()).unwrap_or(0)];
        for (i, e) in elems.iter().enumerate() {
            let bit = i * bits;
            let two = u16::from(e & mask) << (bit % 8);
            packed[bit / 8] |= two as u8;
            if two > 0xff {
                packed[bit / 8 + 1] |= (two >> 8) as u8;
            }
        }
        Tensor::from_bytes(dtype, shape, counted(packed.into()))
    }
}

impl PartialEq for Tensor {
    /// Bit equality: NaNs of the same bits are equal, `0.0` and `-0.0` are not.
    fn eq(&self, other: &Self) -> bool {
        let same_data = match (&self.data, &other.data) {
            (Data::Bytes(a), Data::Bytes(b)) => a == b,
            (Data::Strings(a, _), Data::Strings(b, _)) => a == b,
            _ => false,
        };
        self.dtype == other.dtype && self.shape == other.shape && same_data
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.shape)?;
        if self.len() <= 16
            && let Data::Bytes(b) = &self.data
        {
            match self.dtype {
                DType::F32 => write!(f, " {:?}", self.cast_slice::<f32>())?,
                DType::I64 => write!(f, " {:?}", self.cast_slice::<i64>())?,
                DType::I32 => write!(f, " {:?}", self.cast_slice::<i32>())?,
                _ => write!(f, " bytes {:?}", b.as_ref())?,
            }
        }
        Ok(())
    }
}

/// Two lists of indices and values, as in ONNX `SparseTensorProto`.
#[derive(Debug, Clone, PartialEq)]
pub struct SparseTensor {
    /// The non-zero values `[NNZ]`.
    pub values: Tensor,
    /// Linear indices `[NNZ]` or coordinates `[NNZ, rank]`, int64.
    pub indices: Tensor,
    /// The dense extents.
    pub shape: Vec<usize>,
}

/// A value at run time.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A dense tensor.
    Tensor(Tensor),
    /// A list of values; the type of its elements stands beside it for when it is empty.
    Sequence(ValueType, Vec<Value>),
    /// A value or nothing; the type of the value stands beside it.
    Optional(ValueType, Option<Box<Value>>),
    /// A map, in key order of insertion: the keys' tensor `[N]` and one value for each.
    Map(Tensor, Vec<Value>),
}

impl Value {
    /// The dense tensor. Errors if it is something else.
    pub fn as_tensor(&self) -> Result<&Tensor> {
        match self {
            Value::Tensor(t) => Ok(t),
            other => Err(Error::mismatch("value", other.value_type(), "a tensor")),
        }
    }
    /// The elements of a sequence. Errors if it is something else.
    pub fn as_sequence(&self) -> Result<&[Value]> {
        match self {
            Value::Sequence(_, items) => Ok(items),
            other => Err(Error::mismatch("value", other.value_type(), "a sequence")),
        }
    }
    /// The keys `[N]` and values of a map. Errors if it is something else.
    pub fn as_map(&self) -> Result<(&Tensor, &[Value])> {
        match self {
            Value::Map(keys, values) => Ok((keys, values)),
            other => Err(Error::mismatch("value", other.value_type(), "a map")),
        }
    }
    /// The value's type.
    pub fn value_type(&self) -> ValueType {
        match self {
            Value::Tensor(t) => t.tensor_type().into(),
            Value::Sequence(ty, _) => ValueType::Sequence(Box::new(ty.clone())),
            Value::Optional(ty, _) => ValueType::Optional(Box::new(ty.clone())),
            Value::Map(keys, values) => {
                let value = values.first().map_or(ValueType::Unknown, Value::value_type);
                ValueType::Map(keys.dtype(), Box::new(value))
            }
        }
    }
}

impl From<Tensor> for Value {
    fn from(t: Tensor) -> Self {
        Value::Tensor(t)
    }
}

/// Evaluates an expression with `$T` bound to the Rust element type of a numeric [`DType`]
/// (`f32`, `f64`, `f16`, `bf16` and the integers of 8 to 64 bits); anything else takes the last arm.
///
/// ```
/// # use fcc_ir::{dispatch_numeric, DType};
/// let size = dispatch_numeric!(DType::I16, T => std::mem::size_of::<T>(), else 0);
/// assert_eq!(size, 2);
/// ```
#[macro_export]
macro_rules! dispatch_numeric {
    ($dtype:expr, $T:ident => $body:expr, else $other:expr) => {
        match $dtype {
            $crate::DType::F16 => {
                type $T = $crate::half::f16;
                $body
            }
            $crate::DType::BF16 => {
                type $T = $crate::half::bf16;
                $body
            }
            dtype => $crate::dispatch_native!(dtype, $T => $body, else $other),
        }
    };
}

/// As [`dispatch_numeric`], of the types that Rust itself computes in.
#[macro_export]
macro_rules! dispatch_native {
    ($dtype:expr, $T:ident => $body:expr, else $other:expr) => {
        match $dtype {
            $crate::DType::F32 => {
                type $T = f32;
                $body
            }
            $crate::DType::F64 => {
                type $T = f64;
                $body
            }
            $crate::DType::U8 => {
                type $T = u8;
                $body
            }
            $crate::DType::I8 => {
                type $T = i8;
                $body
            }
            $crate::DType::U16 => {
                type $T = u16;
                $body
            }
            $crate::DType::I16 => {
                type $T = i16;
                $body
            }
            $crate::DType::U32 => {
                type $T = u32;
                $body
            }
            $crate::DType::I32 => {
                type $T = i32;
                $body
            }
            $crate::DType::U64 => {
                type $T = u64;
                $body
            }
            $crate::DType::I64 => {
                type $T = i64;
                $body
            }
            _ => $other,
        }
    };
}

impl SparseTensor {
    /// The dense tensor. Errors where an index is outside or counts differ.
    pub fn to_dense(&self) -> Result<Tensor> {
        let elems = elem_count(&self.shape)?;
        let width = self.values.dtype().bits() / 8;
        if width == 0 {
            return Err(crate::op::unsupported_dtype(self.values.dtype()));
        }
        let nnz = self.values.len();
        let indices = self.indices.to_i64s()?;
        let bad = |what: String| Error::mismatch("sparse indices", what, format!("inside {:?}", self.shape));
        let linear: Vec<usize> = match self.indices.shape() {
            [n] if *n == nnz => indices
                .iter()
                .map(|&i| usize::try_from(i).ok().filter(|i| *i < elems).ok_or_else(|| bad(i.to_string())))
                .collect::<Result<_>>()?,
            [n, rank] if *n == nnz && *rank == self.shape.len() && *rank > 0 => indices
                .chunks(*rank)
                .map(|at| {
                    at.iter().zip(&self.shape).try_fold(0usize, |offset, (&i, &d)| {
                        let i = usize::try_from(i)
                            .ok()
                            .filter(|i| *i < d)
                            .ok_or_else(|| bad(format!("{at:?}")))?;
                        Ok(offset * d + i)
                    })
                })
                .collect::<Result<_>>()?,
            other => return Err(bad(format!("shape {other:?} for {nnz} values"))),
        };
        let len = elems.checked_mul(width).ok_or_else(|| bad("too many elements".into()))?;
        let mut data: Vec<u8> = vec![];
        // a few bytes of a file can ask for any size: too much is an error, not an abort
        data.try_reserve_exact(len).map_err(|_| {
            Error::mismatch("dense form of a sparse tensor", format!("{len} bytes"), "what fits memory")
        })?;
        data.resize(len, 0);
        for (value, at) in self.values.bytes().chunks(width).zip(linear) {
            data[at * width..][..width].copy_from_slice(value);
        }
        Tensor::from_bytes(self.values.dtype(), self.shape.clone(), data.into())
    }
}
