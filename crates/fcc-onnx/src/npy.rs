//! NumPy's `.npy` and `.npz` files: inputs and outputs of runs.
//!
//! Format: `\x93NUMPY`, two version bytes, the header's length, a Python dict literal with `descr`, `fortran_order`
//! and `shape`, then the elements. An `.npz` file is a zip archive of such files.

use std::collections::HashSet;
use std::io::{Cursor, Read, Seek, Write};
use std::path::Path;

use bytes::Bytes;
use fcc_ir::{DType, Tensor};
use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

use crate::decode::looks_like;
use crate::error::{At, quoted};
use crate::map::{map, open_regular};
use crate::npy_header::{Element, Header};
use crate::stage::Staged;
use crate::{Error, ErrorKind, Result, npy_header};

/// No zip entry unpacks to more than this many times its size, the limit of the deflate method.
const DEFLATE_LIMIT: u64 = 1032;

/// Most elements of an array of text that is 0 characters wide.
const MOST_EMPTY_TEXTS: usize = 1 << 20;
/// The largest array of text that is written: NumPy pads each text to the longest.
const MOST_TEXT_BYTES: usize = 1 << 31;

/// Reads an `.npy` file; numbers are shared with the mapped file where they lie as ONNX has them.
///
/// Booleans, integers, float16 to float64, complex and text of fixed width are read, in either byte order, C or
/// Fortran order. Pickled objects and structured types are errors.
pub fn read_npy(path: impl AsRef<Path>) -> Result<Tensor> {
    let path = path.as_ref();
    let bytes = map(&open_regular(path)?, path)?;
    from_npy_bytes(bytes).map_err(|e| e.in_file(path))
}

/// Reads all arrays of an `.npz` file with their names, in file order. Errors as [`read_npy`], and on a name that is
/// there twice.
pub fn read_npz(path: impl AsRef<Path>) -> Result<Vec<(String, Tensor)>> {
    let path = path.as_ref();
    let bytes = map(&open_regular(path)?, path)?;
    from_npz_bytes(&bytes).map_err(|e| e.in_file(path))
}

/// Writes an `.npy` file. Errors on element types that NumPy does not have (bfloat16, float8, int4, …).
pub fn write_npy(path: impl AsRef<Path>, tensor: &Tensor) -> Result<()> {
    let (header, data) = parts(tensor)?;
    let mut file = Staged::create(path.as_ref())?;
    file.write(&header)?;
    file.write(&data)?;
    file.complete()?.publish()
}

/// Writes an `.npz` file, without compression and the same bytes for the same arrays. Errors as [`write_npy`].
pub fn write_npz<'a>(
    path: impl AsRef<Path>,
    arrays: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<()> {
    let path = path.as_ref();
    let mut file = Staged::create(path)?;
    write_zip(file.writer(), arrays).map_err(|e| e.in_file(path))?;
    file.complete()?.publish()
}

/// The bytes of an `.npz` file, as [`write_npz`] writes it.
pub fn to_npz_bytes<'a>(arrays: impl IntoIterator<Item = (&'a str, &'a Tensor)>) -> Result<Vec<u8>> {
    let mut bytes = vec![];
    write_zip(&mut Cursor::new(&mut bytes), arrays)?;
    Ok(bytes)
}

fn write_zip<'a>(
    file: &mut (impl Write + Seek),
    arrays: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<()> {
    let mut zip = zip::ZipWriter::new(file);
    let failed = |e: zip::result::ZipError| Error::new(ErrorKind::Io, format!("cannot write: {e}"));
    for (name, tensor) in arrays {
        let (header, data) = parts(tensor).at(|| format!("array {}", quoted(name)))?;
        let options = SimpleFileOptions::default()
            .compression_method(CompressionMethod::Stored)
            .last_modified_time(zip::DateTime::default())
            .large_file(data.len() as u64 >= u64::from(u32::MAX) - (1 << 20));
        zip.start_file(format!("{name}.npy"), options).map_err(failed)?;
        zip.write_all(&header).and_then(|()| zip.write_all(&data)).map_err(|e| failed(e.into()))?;
    }
    zip.finish().map_err(failed)?;
    Ok(())
}

pub(crate) fn from_npz_bytes(bytes: &Bytes) -> Result<Vec<(String, Tensor)>> {
    let bad = |what: &dyn std::fmt::Display| {
        Error::mismatch(ErrorKind::Malformed, "the file", what, "an npz file, a zip archive of npy files")
    };
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|e| match looks_like(bytes) {
        Some(kind) => bad(&kind),
        None => bad(&format!("{} bytes ({e})", bytes.len())),
    })?;
    let mut seen = HashSet::new();
    let mut arrays = Vec::with_capacity(archive.len());
    for index in 0..archive.len() {
        let entry = archive.by_index(index).map_err(|e| bad(&e))?;
        let name = entry.name().map_err(|e| bad(&e))?.into_owned();
        let place = || format!("array {}", quoted(&name));
        let Some(key) = name.strip_suffix(".npy") else {
            return Err(bad(&format!("an entry {}", quoted(&name))));
        };
        if !seen.insert(key.to_string()) {
            return Err(bad(&"two of one name").at(place()));
        }
        let claimed = entry.size();
        if claimed > entry.compressed_size().saturating_mul(DEFLATE_LIMIT).saturating_add(DEFLATE_LIMIT) {
            return Err(bad(&format!("{claimed} bytes from {}", entry.compressed_size())).at(place()));
        }
        let mut data = vec![];
        entry.take(claimed.saturating_add(1)).read_to_end(&mut data).map_err(|e| bad(&e).at(place()))?;
        arrays.push((key.to_string(), from_npy_bytes(data.into()).at(place)?));
    }
    Ok(arrays)
}

/// Reads an array from the bytes of an `.npy` file.
pub fn from_npy_bytes(bytes: Bytes) -> Result<Tensor> {
    let (header, start) = npy_header::parse(&bytes)?;
    let elems = fcc_ir::elem_count(&header.shape)?;
    let data = bytes.slice(start..);
    let wanted = elems.checked_mul(header.element.bytes());
    if wanted != Some(data.len()) {
        let wanted = wanted.map_or("an addressable number of".to_string(), |w| w.to_string());
        let what = format!("data of shape {:?}", header.shape);
        return Err(Error::mismatch(ErrorKind::Malformed, what, format!("{} bytes", data.len()), wanted));
    }
    // without data nothing in the file bounds their number
    if header.element.bytes() == 0 && elems > MOST_EMPTY_TEXTS {
        let wanted = format!("at most {MOST_EMPTY_TEXTS} texts without characters");
        let what = format!("array of shape {:?}", header.shape);
        return Err(Error::mismatch(ErrorKind::Unsupported, what, format!("{elems} elements"), wanted));
    }
    let data = if header.big_endian { swapped(&data, header.element.word_bytes()) } else { data };
    let data = if header.fortran_order { c_order(&data, &header) } else { data };
    Ok(match header.element {
        Element::Number(DType::Bool) if data.iter().any(|&b| b > 1) => {
            let bytes: Vec<u8> = data.iter().map(|&b| u8::from(b != 0)).collect();
            Tensor::from_bytes(DType::Bool, header.shape, bytes.into())?
        }
        Element::Number(dtype) => Tensor::from_bytes(dtype, header.shape, data)?,
        Element::Bytes(0) | Element::Unicode(0) => {
            Tensor::from_strings(header.shape, vec![Bytes::new(); elems])?
        }
        Element::Bytes(width) => {
            let trimmed = |s: &[u8]| data.slice_ref(trim(s));
            Tensor::from_strings(header.shape, data.chunks_exact(width).map(trimmed).collect::<Vec<_>>())?
        }
        Element::Unicode(width) => {
            let texts: Vec<Bytes> = data.chunks_exact(width * 4).map(utf8).collect::<Result<_>>()?;
            Tensor::from_strings(header.shape, texts)?
        }
    })
}

/// NumPy pads text with zeros.
fn trim(text: &[u8]) -> &[u8] {
    let end = text.iter().rposition(|&b| b != 0).map_or(0, |last| last + 1);
    text.get(..end).unwrap_or(text)
}

fn utf8(utf32: &[u8]) -> Result<Bytes> {
    let codes: Vec<u32> = bytemuck::pod_collect_to_vec(utf32);
    let end = codes.iter().rposition(|&c| c != 0).map_or(0, |last| last + 1);
    let text: Option<String> = codes.iter().take(end).map(|&c| char::from_u32(c)).collect();
    text.map(|t| Bytes::from(t.into_bytes()))
        .ok_or_else(|| Error::new(ErrorKind::Malformed, "text: got a number that is no Unicode character"))
}

fn swapped(data: &[u8], word: usize) -> Bytes {
    data.chunks(word.max(1)).flat_map(|w| w.iter().rev()).copied().collect()
}

/// Elements in Fortran order (the first index runs fastest) to C order.
fn c_order(data: &Bytes, header: &Header) -> Bytes {
    let (shape, size) = (&header.shape, header.element.bytes());
    if shape.iter().filter(|&&d| d != 1).count() <= 1 || data.is_empty() {
        return data.clone();
    }
    let mut strides = vec![0; shape.len()];
    let mut stride = size;
    for (s, d) in strides.iter_mut().zip(shape) {
        *s = stride;
        stride *= d; // the product is the data's length
    }
    let mut out = Vec::with_capacity(data.len());
    let (mut index, mut offset) = (vec![0; shape.len()], 0);
    while out.len() < data.len() {
        out.extend_from_slice(&data[offset..offset + size]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            offset += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            offset -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    out.into()
}

/// The bytes of an `.npy` file. Errors as [`write_npy`].
pub fn to_npy_bytes(tensor: &Tensor) -> Result<Vec<u8>> {
    let (mut header, data) = parts(tensor)?;
    header.extend_from_slice(&data);
    Ok(header)
}

/// The header and the data of a tensor.
fn parts(tensor: &Tensor) -> Result<(Vec<u8>, Bytes)> {
    if tensor.dtype() != DType::String {
        return Ok((
            npy_header::of(Element::Number(tensor.dtype()), tensor.shape())?,
            tensor.bytes().clone(),
        ));
    }
    let unfit = |got: &str| {
        let message = format!("text for NumPy: got {got}, wanted UTF-8 that does not end in a zero");
        Error::new(ErrorKind::Unsupported, message)
    };
    let mut texts: Vec<Vec<u32>> = Vec::with_capacity(tensor.len());
    for text in tensor.as_strings()? {
        let text = std::str::from_utf8(text).map_err(|_| unfit("other bytes"))?;
        if text.ends_with('\0') {
            return Err(unfit("a text that does"));
        }
        texts.push(text.chars().map(u32::from).collect());
    }
    let width = texts.iter().map(Vec::len).max().unwrap_or(0).max(1);
    if width.saturating_mul(4).saturating_mul(texts.len()) > MOST_TEXT_BYTES {
        let got = format!("{} texts padded to {width} characters", texts.len());
        let wanted = format!("at most {MOST_TEXT_BYTES} bytes");
        return Err(Error::mismatch(ErrorKind::Unsupported, "text for NumPy", got, wanted));
    }
    let mut data = Vec::new();
    for mut text in texts {
        text.resize(width, 0);
        data.extend(text.into_iter().flat_map(u32::to_le_bytes));
    }
    Ok((npy_header::of(Element::Unicode(width), tensor.shape())?, data.into()))
}
