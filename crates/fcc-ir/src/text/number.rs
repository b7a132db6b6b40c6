//! Numbers and strings, both ways, bit by bit.

use crate::is_hidden;
use std::fmt::Write;

/// Appends a float so that it reads back to the same bits: shortest form, always with a point, an exponent or a word.
pub(super) fn f32(out: &mut String, v: f32) {
    let bits = v.to_bits();
    if v.is_nan() {
        nan(out, v.is_sign_negative(), bits & 0x7fff_ffff == 0x7fc0_0000, u64::from(bits));
    } else {
        let _ = write!(out, "{v:?}");
    }
}

/// As [`f32`], for a double.
pub(super) fn f64(out: &mut String, v: f64) {
    let bits = v.to_bits();
    if v.is_nan() {
        nan(out, v.is_sign_negative(), bits << 1 == 0x7ff8_0000_0000_0000 << 1, bits);
    } else {
        let _ = write!(out, "{v:?}");
    }
}

fn nan(out: &mut String, negative: bool, usual: bool, bits: u64) {
    match (usual, negative) {
        (true, false) => out.push_str("nan"),
        (true, true) => out.push_str("-nan"),
        (false, _) => {
            let _ = write!(out, "nan:{bits:#x}");
        }
    }
}

/// Appends a quoted string. Only `\` and `"` are escaped, as `onnx.parser` knows no other escape; bytes that are not
/// UTF-8, and text with what a terminal obeys or hides, take the form `b"\xff"`. Line breaks and tabs stand as they
/// are: doc strings have them, and `onnx.parser` reads them.
pub(super) fn quoted(out: &mut String, bytes: &[u8]) {
    let hidden = |c: char| is_hidden(c) && !matches!(c, '\n' | '\t');
    let text = std::str::from_utf8(bytes).ok().filter(|text| !text.chars().any(hidden));
    let Some(text) = text else { return escaped(out, bytes) };
    out.push('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
}

/// Appends a quoted name: as [`quoted`], and on one line whatever it holds.
pub(super) fn quoted_name(out: &mut String, name: &str) {
    if name.chars().any(is_hidden) { escaped(out, name.as_bytes()) } else { quoted(out, name.as_bytes()) }
}

/// Appends a string on one line: `b"…"` with `\xHH` for what is not printable ASCII.
pub(super) fn escaped(out: &mut String, bytes: &[u8]) {
    out.push_str("b\"");
    for &b in bytes {
        match b {
            b'"' | b'\\' => {
                out.push('\\');
                out.push(b.into());
            }
            b' '..=b'~' => out.push(b.into()),
            _ => {
                let _ = write!(out, "\\x{b:02x}");
            }
        }
    }
    out.push('"');
}

/// The bits of `:0x7fc00001`, the tail of a NaN, and the length of that text.
pub(super) fn nan_bits(tail: &str) -> Option<(u64, usize)> {
    let digits = tail.strip_prefix(":0x")?;
    let len = digits.bytes().take_while(u8::is_ascii_hexdigit).count();
    Some((u64::from_str_radix(&digits[..len], 16).ok()?, 3 + len))
}

/// Reads a float literal. `None` where a finite text has no finite value, as with `onnx.parser`, and for NaN bits
/// that are none.
pub(super) fn parse_f32(text: &str) -> Option<f32> {
    if let Some((bits, _)) = text.strip_prefix("nan").and_then(nan_bits) {
        return u32::try_from(bits).ok().map(f32::from_bits).filter(|v| v.is_nan());
    }
    let v: f32 = text.parse().ok()?;
    (v.is_finite() || has_word(text)).then_some(v)
}

/// As [`parse_f32`], for a double.
pub(super) fn parse_f64(text: &str) -> Option<f64> {
    if let Some((bits, _)) = text.strip_prefix("nan").and_then(nan_bits) {
        return Some(f64::from_bits(bits)).filter(|v| v.is_nan());
    }
    let v: f64 = text.parse().ok()?;
    (v.is_finite() || has_word(text)).then_some(v)
}

/// Whether infinity or NaN is spelt out.
fn has_word(text: &str) -> bool {
    text.contains(['i', 'I', 'n', 'N'])
}
