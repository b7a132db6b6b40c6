//! The header of an `.npy` file.

use fcc_ir::DType;

use crate::decode::looks_like;
use crate::error::quoted;
use crate::{Error, ErrorKind, Result};

const MAGIC: &[u8] = b"\x93NUMPY";
/// NumPy itself refuses longer ones unless told to trust the file.
const LONGEST_BYTES: usize = 1 << 16;
/// Data begins at a multiple of this.
const ALIGN_BYTES: usize = 64;

/// What an array says of itself.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) element: Element,
    pub(crate) big_endian: bool,
    pub(crate) fortran_order: bool,
    pub(crate) shape: Vec<usize>,
}

/// The element of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    Number(DType),
    /// Bytes, padded with zeros to this many.
    Bytes(usize),
    /// UTF-32, padded with zeros to this many characters.
    Unicode(usize),
}

impl Element {
    /// Size of one element.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Element::Number(dtype) => dtype.bits() / 8,
            Element::Bytes(n) => n,
            Element::Unicode(n) => n.saturating_mul(4),
        }
    }
    /// Size of what the byte order applies to.
    pub(crate) fn word_bytes(self) -> usize {
        match self {
            Element::Number(DType::C64) => 4,
            Element::Number(DType::C128) => 8,
            Element::Number(dtype) => dtype.bits() / 8,
            Element::Bytes(_) => 1,
            Element::Unicode(_) => 4,
        }
    }
}

fn bad(what: &str, got: impl std::fmt::Display, wanted: &str) -> Error {
    Error::mismatch(ErrorKind::Malformed, what, got, wanted)
}

/// The header and where the data begins.
pub(crate) fn parse(bytes: &[u8]) -> Result<(Header, usize)> {
    if !bytes.starts_with(MAGIC) {
        let got = looks_like(bytes).map_or_else(|| format!("{} other bytes", bytes.len()), str::to_string);
        return Err(bad("the file", got, "a NumPy array"));
    }
    let short = || bad("npy header", "a file that ends in it", "a whole one");
    let le = |range: std::ops::Range<usize>| -> Result<usize> {
        let bytes = bytes.get(range).ok_or_else(short)?;
        Ok(bytes.iter().rev().fold(0usize, |n, &b| n << 8 | usize::from(b)))
    };
    let (start, len) = match bytes.get(6) {
        Some(1) => (10, le(8..10)?),
        Some(2 | 3) => (12, le(8..12)?),
        Some(version) => return Err(bad("npy version", version, "1, 2 or 3")),
        None => return Err(short()),
    };
    if len > LONGEST_BYTES {
        return Err(bad("npy header", format!("{len} bytes"), "65536 or less"));
    }
    let text = bytes.get(start..start + len).ok_or_else(short)?;
    let text = std::str::from_utf8(text).map_err(|_| bad("npy header", "other bytes", "text"))?;
    Ok((dict(text)?, start + len))
}

/// `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`, in any order.
fn dict(text: &str) -> Result<Header> {
    let wrong = || bad("npy header", quoted(text.trim()), "a dict of descr, fortran_order and shape");
    let mut rest = text.trim().strip_prefix('{').and_then(|t| t.strip_suffix('}')).ok_or_else(wrong)?.trim();
    let (mut descr, mut fortran_order, mut shape) = (None, None, None);
    while !rest.is_empty() {
        let (key, value) = rest.split_once(':').ok_or_else(wrong)?;
        let value = value.trim_start();
        let end = match value.chars().next() {
            Some(quote @ ('\'' | '"')) => value[1..].find(quote).map(|i| i + 2),
            Some('(') => value.find(')').map(|i| i + 1),
            Some('[') => return Err(bad("npy type", "a structured type", "numbers, truth values or text")),
            _ => Some(value.find(',').unwrap_or(value.len())),
        };
        let (this, next) = value.split_at(end.ok_or_else(wrong)?);
        let slot = match key.trim().trim_matches(['\'', '"']) {
            "descr" => &mut descr,
            "fortran_order" => &mut fortran_order,
            "shape" => &mut shape,
            _ => return Err(wrong()),
        };
        if slot.replace(this.trim()).is_some() {
            return Err(wrong());
        }
        let next = next.trim_start();
        rest = match next.strip_prefix(',') {
            Some(more) => more.trim_start(),
            None if next.is_empty() => next,
            None => return Err(wrong()),
        };
    }
    let (element, big_endian) = descr_of(descr.ok_or_else(wrong)?.trim_matches(['\'', '"']))?;
    let fortran_order = match fortran_order {
        Some("True") => true,
        Some("False") => false,
        _ => return Err(wrong()),
    };
    let inside = shape.and_then(|s| s.strip_prefix('(')?.strip_suffix(')')).ok_or_else(wrong)?;
    let extents = inside.split(',').map(str::trim).filter(|extent| !extent.is_empty());
    // Python 2 wrote long integers as `3L`
    let shape =
        extents.map(|e| e.trim_end_matches('L').parse().map_err(|_| wrong())).collect::<Result<_>>()?;
    Ok(Header { element, big_endian, fortran_order, shape })
}

/// A type string such as `<f4`, and whether it is big-endian.
fn descr_of(descr: &str) -> Result<(Element, bool)> {
    use DType::*;
    let (order, name) = match descr.chars().next() {
        Some(order @ ('<' | '>' | '|' | '=')) => (order, &descr[1..]),
        _ => ('=', descr),
    };
    let element = match name {
        "b1" | "?" => Element::Number(Bool),
        "i1" => Element::Number(I8),
        "u1" => Element::Number(U8),
        "i2" => Element::Number(I16),
        "u2" => Element::Number(U16),
        "i4" => Element::Number(I32),
        "u4" => Element::Number(U32),
        "i8" => Element::Number(I64),
        "u8" => Element::Number(U64),
        "f2" => Element::Number(F16),
        "f4" => Element::Number(F32),
        "f8" => Element::Number(F64),
        "c8" => Element::Number(C64),
        "c16" => Element::Number(C128),
        _ if name.starts_with('O') => {
            return Err(bad("npy type", "Python objects (pickle)", "numbers, truth values or text"));
        }
        _ => {
            let wrong = || {
                let message =
                    format!("npy type: got {}, wanted numbers, truth values or text", quoted(descr));
                Error::new(ErrorKind::Unsupported, message)
            };
            let width = |digits: &str| digits.parse::<u32>().map(|n| n as usize).map_err(|_| wrong());
            match name.split_at_checked(1) {
                Some(("S", digits)) => Element::Bytes(width(digits)?),
                Some(("U", digits)) => Element::Unicode(width(digits)?),
                _ => return Err(wrong()),
            }
        }
    };
    Ok((element, order == '>'))
}

/// The header of an array in C order, little-endian. Errors on an element type that NumPy does not have.
pub(crate) fn of(element: Element, shape: &[usize]) -> Result<Vec<u8>> {
    use DType::*;
    let descr = match element {
        Element::Number(dtype) => match dtype {
            Bool => "|b1",
            I8 => "|i1",
            U8 => "|u1",
            I16 => "<i2",
            U16 => "<u2",
            I32 => "<i4",
            U32 => "<u4",
            I64 => "<i8",
            U64 => "<u8",
            F16 => "<f2",
            F32 => "<f4",
            F64 => "<f8",
            C64 => "<c8",
            C128 => "<c16",
            Undefined | String | BF16 | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | U4 | I4 | F4E2M1
            | F8E8M0 | U2 | I2 | F6E2M3 | F6E3M2 => {
                let message = format!("NumPy array: got {dtype}, wanted an element type that NumPy has");
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
        }
        .to_string(),
        Element::Bytes(width) => format!("|S{width}"),
        Element::Unicode(width) => format!("<U{width}"),
    };
    let extents: Vec<std::string::String> = shape.iter().map(usize::to_string).collect();
    let comma = if shape.len() == 1 { "," } else { "" };
    let mut dict =
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({}{comma}), }}", extents.join(", "));
    // version 1 has two bytes for the length, version 2 has four; the text ends in a newline at the alignment
    let prefix = if dict.len() + ALIGN_BYTES <= usize::from(u16::MAX) { 10 } else { 12 };
    while !(prefix + dict.len() + 1).is_multiple_of(ALIGN_BYTES) {
        dict.push(' ');
    }
    dict.push('\n');
    let mut header = MAGIC.to_vec();
    if prefix == 10 {
        header.extend([1, 0]);
        header.extend((dict.len() as u16).to_le_bytes());
    } else {
        header.extend([2, 0]);
        header.extend((dict.len() as u32).to_le_bytes());
    }
    header.extend(dict.as_bytes());
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_numpy_writes() {
        let read = |text: &str| dict(text).map_err(|e| e.to_string());
        let header = read("{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }   \n").unwrap();
        assert_eq!(
            header,
            Header {
                element: Element::Number(DType::F32),
                big_endian: false,
                fortran_order: false,
                shape: vec![3, 4]
            }
        );
        assert_eq!(read("{'shape': (), 'descr': '|b1', 'fortran_order': True}").unwrap().shape, []);
        assert_eq!(
            read("{'descr': '>U7', 'fortran_order': False, 'shape': (5,)}").unwrap().element.bytes(),
            28
        );
    }

    #[test]
    fn refuses_other_headers() {
        let table = [
            ("{'descr': '|O', 'fortran_order': False, 'shape': (3,)}", "Python objects"),
            ("{'descr': [('a', '<i4')], 'fortran_order': False, 'shape': (3,)}", "a structured type"),
            ("{'descr': '<V2', 'fortran_order': False, 'shape': (3,)}", "got `<V2`"),
            ("{'descr': '<f4', 'fortran_order': False, 'shape': (-3,)}", "wanted a dict"),
            ("{'descr': '<f4', 'fortran_order': 0, 'shape': (3,)}", "wanted a dict"),
            ("{'descr': '<f4', 'fortran_order': False}", "wanted a dict"),
            ("{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': ()}", "wanted a dict"),
            ("{'descr': '<f4", "wanted a dict"),
            ("{'descr': '<f4}", "wanted a dict"),
            ("", "wanted a dict"),
        ];
        for (text, wanted) in table {
            let error = dict(text).unwrap_err().to_string();
            assert!(error.contains(wanted), "{text}: {error}");
        }
    }

    #[test]
    fn data_is_aligned() {
        for shape in [vec![], vec![1], vec![1000, 20], vec![7; 40_000]] {
            let header = of(Element::Number(DType::F32), &shape).unwrap();
            assert_eq!(header.len() % 64, 0);
            assert_eq!(&header[header.len() - 1..], b"\n");
            if shape.len() < 100 {
                assert_eq!(parse(&header).unwrap().0.shape, shape);
            }
        }
    }
}
