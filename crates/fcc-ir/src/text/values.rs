//! Types, tensors and attributes out of text.

use super::cursor::{Cursor, Literal};
use super::notes::Notes;
use super::number::{parse_f32, parse_f64};
use super::parse::{GraphText, graph};
use crate::attr::{AttrKind, AttrValue, ConstSparse, ConstTensor};
use crate::{DType, Dim, Error, Result, Tensor, TensorType, ValueInfo, ValueType, elem_count};
use bytes::Bytes;

/// An attribute; graphs in it are not yet built.
pub(super) struct AttrText {
    pub(super) name: String,
    pub(super) doc: String,
    pub(super) extra: Bytes,
    pub(super) value: AttrTextValue,
}

/// The value of an attribute.
pub(super) enum AttrTextValue {
    Plain(AttrValue),
    Graph(Box<GraphText>),
    Graphs(Vec<GraphText>),
}

/// Whether a type comes next.
pub(super) fn at_type(c: &mut Cursor<'_>) -> bool {
    c.peek() == Some(b'?') || c.peek_identifier().is_some_and(super::is_type_word)
}

/// Takes a type.
pub(super) fn ty(c: &mut Cursor<'_>) -> Result<ValueType> {
    if c.take(b'?') {
        return Ok(ValueType::Unknown);
    }
    if let Some(t) = tensor_type(c)? {
        return Ok(t.into());
    }
    let inner = |c: &mut Cursor<'_>| {
        let t = c.deeper(ty)?;
        c.expect(b')')?;
        Ok(Box::new(t))
    };
    match c.peek_identifier() {
        Some(word @ ("seq" | "optional" | "sparse_tensor" | "map" | "opaque")) => {
            c.identifier();
            c.expect(b'(')?;
            Ok(match word {
                "seq" => ValueType::Sequence(inner(c)?),
                "optional" => ValueType::Optional(inner(c)?),
                "sparse_tensor" => {
                    let t = tensor_type(c)?.ok_or_else(|| c.wanted("a tensor type"))?;
                    c.expect(b')')?;
                    ValueType::SparseTensor(t)
                }
                "map" => {
                    let key = dtype(c)?.ok_or_else(|| c.wanted("an element type"))?;
                    c.expect(b',')?;
                    ValueType::Map(key, inner(c)?)
                }
                _ => opaque(c)?,
            })
        }
        _ => Err(c.wanted("a type")),
    }
}

/// `)`, `name)` or `domain, name)`.
fn opaque(c: &mut Cursor<'_>) -> Result<ValueType> {
    if c.take(b')') {
        return Ok(ValueType::Opaque(String::new(), String::new()));
    }
    let mut first = c.name("a name")?;
    while c.take(b'.') {
        first = format!("{first}.{}", c.name("a name")?);
    }
    let opaque = if c.take(b',') {
        ValueType::Opaque(first, c.name("a name")?)
    } else {
        ValueType::Opaque(String::new(), first)
    };
    c.expect(b')')?;
    Ok(opaque)
}

fn dtype(c: &mut Cursor<'_>) -> Result<Option<DType>> {
    let dtype = c.peek_identifier().and_then(DType::from_name);
    if dtype.is_some() {
        c.identifier();
    }
    Ok(dtype)
}

fn tensor_type(c: &mut Cursor<'_>) -> Result<Option<TensorType>> {
    let Some(dtype) = dtype(c)? else { return Ok(None) };
    let shape = if !c.take(b'[') {
        Some(vec![])
    } else if c.take(b']') {
        None
    } else {
        Some(c.items(b']', dim)?)
    };
    Ok(Some(TensorType { dtype, shape }))
}

fn dim(c: &mut Cursor<'_>) -> Result<Dim> {
    if c.take(b'?') {
        return Ok(Dim::Unknown);
    }
    if let Some(symbol) = c.optional_name()? {
        return Ok(if symbol.is_empty() { Dim::Unknown } else { Dim::symbol(&symbol) });
    }
    Ok(Dim::Known(c.int("a dimension of 0 or more")?))
}

/// Takes notes and `type name`, or a name alone.
pub(super) fn value_info(c: &mut Cursor<'_>) -> Result<ValueInfo> {
    let notes = Notes::take(c)?;
    let mut info = plain_info(c)?;
    notes.of_info(&mut info)?;
    Ok(info)
}

/// Takes `type name`, or a name alone.
pub(super) fn plain_info(c: &mut Cursor<'_>) -> Result<ValueInfo> {
    let ty = if at_type(c) { ty(c)? } else { ValueType::Unknown };
    Ok(ValueInfo::new(c.name("a value's name")?, ty))
}

/// Takes the data of a tensor of this type: `{1.0, 2.0}`.
pub(super) fn tensor_data(c: &mut Cursor<'_>, t: &TensorType) -> Result<Tensor> {
    let Some(shape) = t.known_shape() else {
        return Err(c.bad(format!("data of {t}"), "a type with fixed dimensions"));
    };
    if c.peek() == Some(b'[') {
        return Err(c.bad("external data", "data in braces"));
    }
    if c.at_hash() {
        return Err(c.bad("an abbreviated constant", "data in braces (print constants whole)"));
    }
    let start = c.clone();
    c.expect(b'{')?;
    let misfit = |e: Error| Error::At { place: start.clone().place(), source: Box::new(e) };
    elem_count(&shape).map_err(misfit)?;
    elements(c, t.dtype, shape).and_then(|made| made.map_err(misfit))
}

/// The outer error has its place in the text already.
fn elements(c: &mut Cursor<'_>, dtype: DType, shape: Vec<usize>) -> Result<Result<Tensor>> {
    macro_rules! ints {
        ($t:ty) => {{
            let what = concat!("a number in the range of ", stringify!($t));
            c.items(b'}', |c| c.int::<$t>(what))?
        }};
    }
    macro_rules! bytes {
        ($values:expr) => {{
            let values = $values;
            let per_element = if matches!(dtype, C64 | C128) { 2 } else { 1 };
            let wanted = elem_count(&shape)?.checked_mul(per_element);
            if wanted != Some(values.len()) {
                let got = format!("{} numbers", values.len());
                Err(Error::mismatch("tensor data", got, wanted.unwrap_or(usize::MAX)))
            } else {
                let bytes: Vec<u8> = bytemuck::cast_slice(&values).to_vec();
                Tensor::from_bytes(dtype, shape, bytes.into())
            }
        }};
    }
    use DType::*;
    Ok(match dtype {
        F32 | C64 => bytes!(c.items(b'}', float32)?),
        F64 | C128 => bytes!(c.items(b'}', float64)?),
        I8 => Tensor::new(shape, ints!(i8)),
        I16 => Tensor::new(shape, ints!(i16)),
        I32 => Tensor::new(shape, ints!(i32)),
        I64 => Tensor::new(shape, ints!(i64)),
        U32 => Tensor::new(shape, ints!(u32)),
        U64 => Tensor::new(shape, ints!(u64)),
        U16 | F16 | BF16 => bytes!(ints!(u16)),
        // any number but 0 is true, as in files
        Bool => bytes!(ints!(u8).into_iter().map(|v| u8::from(v != 0)).collect::<Vec<u8>>()),
        U8 | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 => bytes!(ints!(u8)),
        U4 | I4 | F4E2M1 | U2 | I2 => {
            let values = ints!(i16);
            sub_byte(dtype, shape, &values)
        }
        F6E2M3 | F6E3M2 => {
            let values = ints!(u8);
            six_bits(dtype, shape, &values)
        }
        String => Tensor::from_strings(shape, c.items(b'}', Cursor::byte_string)?),
        Undefined => Err(Error::mismatch("element type", "undefined", "a type")),
    })
}

fn six_bits(dtype: DType, shape: Vec<usize>, values: &[u8]) -> Result<Tensor> {
    if values.len() != elem_count(&shape)? {
        let wanted = elem_count(&shape)?;
        return Err(Error::mismatch("tensor data", format!("{} numbers", values.len()), wanted));
    }
    if let Some(v) = values.iter().find(|v| **v > 63) {
        return Err(Error::mismatch("element", v, "0 to 63"));
    }
    Tensor::from_unpacked_bits(dtype, shape, values)
}

/// Packed bytes, or one number for each element: the two differ in number unless there is one.
fn sub_byte(dtype: DType, shape: Vec<usize>, values: &[i16]) -> Result<Tensor> {
    let elems = elem_count(&shape)?;
    let range = |least: i16, most: i16| match values.iter().find(|v| !(least..=most).contains(*v)) {
        None => Ok(values.iter().map(|v| *v as u8).collect::<Vec<u8>>()),
        Some(v) => Err(Error::mismatch("element", v, format!("{least} to {most}"))),
    };
    if values.len() == elems && elems != 1 {
        let most = (1i16 << dtype.bits()) - 1;
        let least = if matches!(dtype, DType::I4 | DType::I2) { -(most + 1) / 2 } else { 0 };
        return Tensor::from_unpacked_bits(dtype, shape, &range(least, most)?);
    }
    Tensor::from_bytes(dtype, shape, range(-128, 255)?.into())
}

fn float32(c: &mut Cursor<'_>) -> Result<f32> {
    let start = c.clone();
    match c.literal()? {
        Some(Literal::Int(text) | Literal::Float(text)) => {
            parse_f32(text).ok_or_else(|| start.clone().bad(format!("`{text}`"), "a float in range"))
        }
        _ => Err(start.clone().wanted("a number")),
    }
}

fn float64(c: &mut Cursor<'_>) -> Result<f64> {
    let start = c.clone();
    match c.literal()? {
        Some(Literal::Int(text) | Literal::Float(text)) => {
            parse_f64(text).ok_or_else(|| start.clone().bad(format!("`{text}`"), "a double in range"))
        }
        _ => Err(start.clone().wanted("a number")),
    }
}

/// Takes `sparse {values, indices}` of this dense type; `name` is that of the values.
pub(super) fn sparse_data(c: &mut Cursor<'_>, t: &TensorType) -> Result<ConstSparse> {
    let Some(shape) = t.known_shape() else {
        return Err(c.bad(format!("data of {t}"), "a type with fixed dimensions"));
    };
    if !c.take_word("sparse") {
        return Err(c.wanted("`sparse {values, indices}`"));
    }
    c.expect(b'{')?;
    let values = named_tensor(c)?;
    c.expect(b',')?;
    let indices = named_tensor(c)?;
    c.expect(b'}')?;
    Ok(ConstSparse { values, indices, shape })
}

/// Notes and `float[2] name {1.0, 2.0}`.
fn named_tensor(c: &mut Cursor<'_>) -> Result<ConstTensor> {
    let notes = Notes::take(c)?;
    let t = tensor_type(c)?.ok_or_else(|| c.wanted("a tensor type"))?;
    tensor_of(c, &t, notes)
}

fn tensor_of<'t>(c: &mut Cursor<'t>, t: &TensorType, notes: Notes<'t>) -> Result<ConstTensor> {
    let name = if c.at_hash() { None } else { c.optional_name()? };
    c.take(b'=');
    let mut constant = ConstTensor::from(tensor_data(c, t)?);
    constant.name = name.unwrap_or_default();
    notes.of_tensor(&mut constant)?;
    Ok(constant)
}

/// Takes notes and `name = value`, `name: kind = value`.
pub(super) fn attr(c: &mut Cursor<'_>) -> Result<AttrText> {
    let (doc, extra) = Notes::take(c)?.of_attribute()?;
    let name = c.name("an attribute's name")?;
    let value = attr_after_name(c)?;
    Ok(AttrText { name, doc, extra, value })
}

/// Takes what follows an attribute's name.
pub(super) fn attr_after_name(c: &mut Cursor<'_>) -> Result<AttrTextValue> {
    let mut kind = AttrKind::Undefined;
    if c.take(b':') {
        let word = c.peek_identifier().unwrap_or_default();
        kind = *KINDS.iter().find(|k| super::print::kind_name(**k) == word).ok_or_else(|| {
            let names: Vec<&str> = KINDS.iter().map(|k| super::print::kind_name(*k)).collect();
            c.wanted(format!("one of {}", names.join(", ")))
        })?;
        c.identifier();
        if kind == AttrKind::Undefined {
            return Ok(AttrTextValue::Plain(AttrValue::Undefined));
        }
    }
    c.expect(b'=')?;
    let start = c.clone();
    let value = if c.take(b'@') {
        AttrTextValue::Plain(AttrValue::Ref(c.name("an attribute's name")?, kind))
    } else if c.take(b'[') {
        list(c, kind)?
    } else {
        c.deeper(|c| single(c, kind))?
    };
    let got = match &value {
        AttrTextValue::Plain(v) => v.kind(),
        AttrTextValue::Graph(_) => AttrKind::Graph,
        AttrTextValue::Graphs(_) => AttrKind::Graphs,
    };
    if kind != AttrKind::Undefined && kind != got {
        let (got, wanted) = (super::print::kind_name(got), super::print::kind_name(kind));
        return Err(start.clone().bad(format!("a value of kind {got}"), wanted));
    }
    Ok(value)
}

const KINDS: [AttrKind; 15] = [
    AttrKind::Float,
    AttrKind::Int,
    AttrKind::String,
    AttrKind::Tensor,
    AttrKind::Graph,
    AttrKind::SparseTensor,
    AttrKind::Type,
    AttrKind::Floats,
    AttrKind::Ints,
    AttrKind::Strings,
    AttrKind::Tensors,
    AttrKind::Graphs,
    AttrKind::SparseTensors,
    AttrKind::Types,
    AttrKind::Undefined,
];

/// The kind of one element of a list.
fn element_kind(list: AttrKind) -> AttrKind {
    match list {
        AttrKind::Floats => AttrKind::Float,
        AttrKind::Ints => AttrKind::Int,
        AttrKind::Strings => AttrKind::String,
        AttrKind::Tensors => AttrKind::Tensor,
        AttrKind::Graphs => AttrKind::Graph,
        AttrKind::SparseTensors => AttrKind::SparseTensor,
        AttrKind::Types => AttrKind::Type,
        _ => AttrKind::Undefined,
    }
}

fn single(c: &mut Cursor<'_>, wanted: AttrKind) -> Result<AttrTextValue> {
    let mut notes = Notes::take(c)?;
    let start = c.clone();
    let value = if at_type(c) {
        match ty(c)? {
            ValueType::Tensor(t) if c.peek() == Some(b'{') || c.peek() == Some(b'=') || at_name(c) => {
                AttrValue::Tensor(tensor_of(c, &t, std::mem::take(&mut notes))?)
            }
            ValueType::SparseTensor(t) if c.peek_identifier() == Some("sparse") => {
                AttrValue::SparseTensor(Box::new(sparse_data(c, &t)?))
            }
            t => AttrValue::Type(t),
        }
    } else {
        match c.literal()? {
            // without a point, but said to be a float
            Some(Literal::Int(text)) if wanted == AttrKind::Float => AttrValue::Float(finite(&start, text)?),
            Some(Literal::Int(text)) => {
                let int = text.parse().map_err(|_| start.clone().bad(format!("`{text}`"), "an int64"));
                AttrValue::Int(int?)
            }
            Some(Literal::Float(text)) => AttrValue::Float(finite(&start, text)?),
            Some(Literal::String(bytes)) => AttrValue::String(bytes.into()),
            None if c.peek_identifier().is_some() => {
                return Ok(AttrTextValue::Graph(Box::new(c.deeper(|c| graph(c, notes))?)));
            }
            None => return Err(c.wanted("an attribute's value")),
        }
    };
    notes.end()?;
    Ok(AttrTextValue::Plain(value))
}

fn finite(at: &Cursor<'_>, text: &str) -> Result<f32> {
    parse_f32(text).ok_or_else(|| at.clone().bad(format!("`{text}`"), "a float in range"))
}

fn at_name(c: &mut Cursor<'_>) -> bool {
    c.at_string() || c.peek_identifier().is_some()
}

/// The rest of a list whose `[` is taken.
fn list(c: &mut Cursor<'_>, kind: AttrKind) -> Result<AttrTextValue> {
    let start = c.clone();
    let items = c.items(b']', |c| c.deeper(|c| single(c, element_kind(kind))))?;
    let mixed = || start.clone().bad("a list of several kinds", "one kind");
    if matches!(items.first(), Some(AttrTextValue::Graph(_))) {
        let graphs = items.into_iter().map(|i| match i {
            AttrTextValue::Graph(g) => Ok(*g),
            _ => Err(mixed()),
        });
        return Ok(AttrTextValue::Graphs(graphs.collect::<Result<_>>()?));
    }
    let plain: Vec<AttrValue> = items
        .into_iter()
        .map(|i| match i {
            AttrTextValue::Plain(v) => Ok(v),
            _ => Err(mixed()),
        })
        .collect::<Result<_>>()?;
    macro_rules! all {
        ($one:ident $many:ident, $v:pat => $e:expr) => {
            AttrValue::$many(
                plain
                    .into_iter()
                    .map(|i| match i {
                        AttrValue::$one($v) => Ok($e),
                        _ => Err(mixed()),
                    })
                    .collect::<Result<_>>()?,
            )
        };
    }
    let value = match plain.first().map_or(element_kind(kind), AttrValue::kind) {
        AttrKind::Float => all!(Float Floats, v => v),
        AttrKind::Int => all!(Int Ints, v => v),
        AttrKind::String => all!(String Strings, v => v),
        AttrKind::Tensor => all!(Tensor Tensors, v => v),
        AttrKind::SparseTensor => all!(SparseTensor SparseTensors, v => *v),
        AttrKind::Type => all!(Type Types, v => v),
        AttrKind::Graph => return Ok(AttrTextValue::Graphs(vec![])),
        _ => return Err(start.clone().bad("an empty list", "a kind, as in `axes: ints = []`")),
    };
    Ok(AttrTextValue::Plain(value))
}
