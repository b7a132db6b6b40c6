//! Conversion between element types: `Cast` and everything that computes in a wider type than it stores.
//!
//! Rules, in one place: float to float rounds to nearest, ties to even; integers keep their low bits; floats become
//! integers by truncation to 64 bits (saturating, NaN is 0) whose low bits are kept; anything but zero is true.
//! <https://onnx.ai/onnx/operators/onnx__Cast.html>, <https://onnx.ai/onnx/technical/float8.html>
use crate::half::{bf16, f16};
use crate::limits::reserve;
use crate::op::unsupported_dtype;
use crate::{DType, Error, Result, Tensor, elem_count};
use bytes::Bytes;

/// How a power of two is chosen for `float8e8m0`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ScaleRound {
    /// The next power of two above.
    #[default]
    Up,
    /// The next power of two below.
    Down,
    /// The nearest, ties up.
    Nearest,
}

/// How values that a narrow float cannot hold are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Narrowing {
    /// Float 8 types: values beyond the greatest become the greatest (else NaN or infinity).
    pub saturate: bool,
    /// Rounding to `float8e8m0`.
    pub scale: ScaleRound,
}

impl Default for Narrowing {
    fn default() -> Self {
        Narrowing { saturate: true, scale: ScaleRound::Up }
    }
}

/// A float of at most 8 bits: sign, exponent, mantissa.
#[derive(Debug, Clone, Copy)]
struct Small {
    exponent_bits: u32,
    mantissa_bits: u32,
    bias: i32,
    /// Code of the greatest finite magnitude.
    max: u8,
    /// Code of infinity.
    inf: Option<u8>,
    /// Code of NaN, sign included where the format has but one.
    nan: u8,
    negative_zero: bool,
}

fn small(dtype: DType) -> Option<Small> {
    let s = |exponent_bits, mantissa_bits, bias, max, inf, nan, negative_zero| {
        Some(Small { exponent_bits, mantissa_bits, bias, max, inf, nan, negative_zero })
    };
    match dtype {
        DType::F8E4M3FN => s(4, 3, 7, 0x7E, None, 0x7F, true),
        DType::F8E4M3FNUZ => s(4, 3, 8, 0x7F, None, 0x80, false),
        DType::F8E5M2 => s(5, 2, 15, 0x7B, Some(0x7C), 0x7F, true),
        DType::F8E5M2FNUZ => s(5, 2, 16, 0x7F, None, 0x80, false),
        // no NaN: it becomes the negative zero
        DType::F4E2M1 => s(2, 1, 1, 0x7, None, 0x8, true),
        DType::F6E2M3 => s(2, 3, 1, 0x1F, None, 0x20, true),
        DType::F6E3M2 => s(3, 2, 3, 0x1F, None, 0x20, true),
        _ => None,
    }
}

/// `2^e` in f64, exact for every exponent of a normal number.
fn power_of_two(e: i32) -> f64 {
    f64::from_bits(((e + 1023) as u64) << 52)
}

impl Small {
    fn sign_bit(&self) -> u8 {
        1 << (self.exponent_bits + self.mantissa_bits)
    }
    fn decode(&self, code: u8) -> f64 {
        let magnitude = code & (self.sign_bit() - 1);
        if !self.negative_zero && code == self.nan {
            return f64::NAN;
        }
        let value = if Some(magnitude) == self.inf {
            f64::INFINITY
        } else if magnitude > self.max {
            f64::NAN
        } else {
            let (exponent, mantissa) =
                (i32::from(magnitude >> self.mantissa_bits), magnitude & ((1 << self.mantissa_bits) - 1));
            let (lead, exponent) = if exponent == 0 { (0, 1) } else { (1 << self.mantissa_bits, exponent) };
            f64::from(lead + mantissa) * power_of_two(exponent - self.bias - self.mantissa_bits as i32)
        };
        if code & self.sign_bit() != 0 { -value } else { value }
    }
    fn encode(&self, x: f64, saturate: bool) -> u8 {
        let sign = if x.is_sign_negative() { self.sign_bit() } else { 0 };
        // a NaN code that uses the sign bit has no sign of its own
        let nan = if self.nan < self.sign_bit() { self.nan | sign } else { self.nan };
        if x.is_nan() {
            return nan;
        }
        let least = 1 - self.bias;
        // the exponent of the quantum: the value's own, or that of the subnormal numbers
        let exponent = (((x.to_bits() >> 52) & 0x7FF) as i32 - 1023).max(least);
        let code = if exponent > 64 {
            u64::MAX
        } else {
            let quanta =
                (x.abs() / power_of_two(exponent - self.mantissa_bits as i32)).round_ties_even() as u64;
            (((exponent - least) as u64) << self.mantissa_bits) + quanta
        };
        if code > u64::from(self.max) {
            return match (saturate, self.inf) {
                (true, _) => self.max | sign,
                (false, Some(inf)) => inf | sign,
                (false, None) => nan,
            };
        }
        match code as u8 {
            0 if !self.negative_zero => 0,
            code => code | sign,
        }
    }
}

fn encode_scale(x: f64, narrowing: Narrowing) -> u8 {
    const NAN: u8 = 0xFF;
    if x.is_nan() || x < 0.0 {
        return NAN;
    }
    let bits = x.to_bits();
    let (exponent, fraction) = ((bits >> 52) as i32 - 1023, bits & ((1 << 52) - 1));
    let up = match narrowing.scale {
        ScaleRound::Up => fraction > 0,
        ScaleRound::Down => false,
        ScaleRound::Nearest => fraction >= 1 << 51,
    };
    let outside = |end| if narrowing.saturate { end } else { NAN };
    match exponent + i32::from(up) + 127 {
        code @ 0..=254 => code as u8,
        i32::MIN..0 => outside(0),
        _ => outside(254),
    }
}

/// Rounds to f32 so that a second rounding to a type of at most 22 bits of mantissa is as one rounding:
/// an inexact result gets an odd last bit.
fn to_f32_odd(x: f64) -> f32 {
    let y = x as f32;
    if f64::from(y) == x || !y.is_finite() || y.to_bits() & 1 == 1 {
        return y;
    }
    // y is even and inexact: its neighbour towards x is odd
    let away = f64::from(y).abs() < x.abs();
    f32::from_bits(if away { y.to_bits() + 1 } else { y.to_bits() - 1 })
}

/// The elements of a tensor in the widest type of their kind.
#[derive(Debug, Clone, PartialEq)]
pub enum Wide {
    /// Floats, exactly.
    Float(Vec<f64>),
    /// Signed integers.
    Int(Vec<i64>),
    /// Unsigned integers and truth values.
    UInt(Vec<u64>),
}

/// Reads any numeric or boolean tensor. Errors on strings and complex numbers.
pub fn widen(t: &Tensor) -> Result<Wide> {
    reserve(t.len().saturating_mul(size_of::<f64>()))?;
    macro_rules! read {
        ($t:ty, $to:ident, $f:expr) => {
            Wide::$to(t.as_slice::<$t>()?.iter().map($f).collect())
        };
    }
    Ok(match t.dtype() {
        DType::F32 => read!(f32, Float, |v| f64::from(*v)),
        DType::F64 => read!(f64, Float, |v| *v),
        DType::F16 => read!(f16, Float, |v| v.to_f64()),
        DType::BF16 => read!(bf16, Float, |v| v.to_f64()),
        DType::I8 => read!(i8, Int, |v| i64::from(*v)),
        DType::I16 => read!(i16, Int, |v| i64::from(*v)),
        DType::I32 => read!(i32, Int, |v| i64::from(*v)),
        DType::I64 => read!(i64, Int, |v| *v),
        DType::U8 => read!(u8, UInt, |v| u64::from(*v)),
        DType::U16 => read!(u16, UInt, |v| u64::from(*v)),
        DType::U32 => read!(u32, UInt, |v| u64::from(*v)),
        DType::U64 => read!(u64, UInt, |v| *v),
        DType::Bool => Wide::UInt(t.bytes().iter().map(|b| u64::from(*b != 0)).collect()),
        DType::U4 | DType::U2 => Wide::UInt(t.unpacked_bits().into_iter().map(u64::from).collect()),
        DType::I4 | DType::I2 => {
            let shift = 8 - t.dtype().bits();
            Wide::Int(t.unpacked_bits().into_iter().map(|b| i64::from((b << shift) as i8 >> shift)).collect())
        }
        DType::F8E8M0 => Wide::Float(
            t.bytes()
                .iter()
                .map(|&b| if b == 0xFF { f64::NAN } else { power_of_two(i32::from(b) - 127) })
                .collect(),
        ),
        other => match small(other) {
            Some(s) => Wide::Float(t.unpacked_bits().into_iter().map(|b| s.decode(b)).collect()),
            None => return Err(unsupported_dtype(other)),
        },
    })
}

impl Wide {
    /// The order of two elements, ascending with NaN last. Indices must lie inside.
    pub fn compare(&self, i: usize, j: usize) -> std::cmp::Ordering {
        match self {
            Wide::Float(v) => v[i].partial_cmp(&v[j]).unwrap_or_else(|| v[i].is_nan().cmp(&v[j].is_nan())),
            Wide::Int(v) => v[i].cmp(&v[j]),
            Wide::UInt(v) => v[i].cmp(&v[j]),
        }
    }
    /// The elements as f64; integers beyond 2^53 are rounded.
    pub fn into_f64s(self) -> Vec<f64> {
        match self {
            Wide::Float(v) => v,
            Wide::Int(v) => v.into_iter().map(|v| v as f64).collect(),
            Wide::UInt(v) => v.into_iter().map(|v| v as f64).collect(),
        }
    }
    /// The low 64 bits of the elements as integers.
    fn into_bits(self) -> Vec<u64> {
        match self {
            Wide::Float(v) => v
                .into_iter()
                .map(|x| if x >= 9_223_372_036_854_775_808.0 { x as u64 } else { x as i64 as u64 })
                .collect(),
            Wide::Int(v) => v.into_iter().map(|v| v as u64).collect(),
            Wide::UInt(v) => v,
        }
    }
}

/// The elements of any numeric or boolean tensor as f64 (exact but for integers beyond 2^53).
pub fn to_f64s(t: &Tensor) -> Result<Vec<f64>> {
    Ok(widen(t)?.into_f64s())
}

/// The elements of any numeric or boolean tensor as f32, rounded to nearest.
pub fn to_f32s(t: &Tensor) -> Result<Vec<f32>> {
    Ok(match t.dtype() {
        DType::F32 => t.as_slice::<f32>()?.into_owned(),
        _ => match widen(t)? {
            Wide::Float(v) => v.into_iter().map(|v| v as f32).collect(),
            Wide::Int(v) => v.into_iter().map(|v| v as f32).collect(),
            Wide::UInt(v) => v.into_iter().map(|v| v as f32).collect(),
        },
    })
}

/// A tensor of any numeric or boolean type from f64 values. Errors on strings and complex numbers.
pub fn from_f64s(
    dtype: DType,
    shape: impl Into<Vec<usize>>,
    values: Vec<f64>,
    narrowing: Narrowing,
) -> Result<Tensor> {
    narrow(Wide::Float(values), dtype, shape.into(), narrowing)
}

/// A tensor of any numeric or boolean type from f32 values. Errors on strings and complex numbers.
pub fn from_f32s(dtype: DType, shape: impl Into<Vec<usize>>, values: Vec<f32>) -> Result<Tensor> {
    match dtype {
        DType::F32 => Tensor::new(shape, values),
        _ => from_f64s(dtype, shape, values.into_iter().map(f64::from).collect(), Narrowing::default()),
    }
}

/// A tensor of any numeric or boolean type from 64-bit integers.
pub fn from_i64s(dtype: DType, shape: impl Into<Vec<usize>>, values: Vec<i64>) -> Result<Tensor> {
    narrow(Wide::Int(values), dtype, shape.into(), Narrowing::default())
}

/// Stores wide elements in `dtype`. Errors on strings, complex numbers, and a length that does not fit `shape`.
pub fn narrow(values: Wide, dtype: DType, shape: Vec<usize>, narrowing: Narrowing) -> Result<Tensor> {
    macro_rules! ints {
        ($t:ty) => {
            Tensor::new(shape, values.into_bits().into_iter().map(|v| v as $t).collect::<Vec<_>>())
        };
    }
    match dtype {
        DType::F64 => Tensor::new(shape, values.into_f64s()),
        DType::F32 => Tensor::new(
            shape,
            match values {
                Wide::Float(v) => v.into_iter().map(|v| v as f32).collect(),
                Wide::Int(v) => v.into_iter().map(|v| v as f32).collect(),
                Wide::UInt(v) => v.into_iter().map(|v| v as f32).collect::<Vec<f32>>(),
            },
        ),
        DType::F16 => {
            let half = |v| f16::from_f32(to_f32_odd(v));
            Tensor::new(shape, values.into_f64s().into_iter().map(half).collect::<Vec<_>>())
        }
        DType::BF16 => {
            let half = |v| bf16::from_f32(to_f32_odd(v));
            Tensor::new(shape, values.into_f64s().into_iter().map(half).collect::<Vec<_>>())
        }
        DType::I8 => ints!(i8),
        DType::I16 => ints!(i16),
        DType::I32 => ints!(i32),
        DType::I64 => ints!(i64),
        DType::U8 => ints!(u8),
        DType::U16 => ints!(u16),
        DType::U32 => ints!(u32),
        DType::U64 => ints!(u64),
        DType::Bool => match values {
            Wide::Float(v) => Tensor::from_bools(shape, v.into_iter().map(|v| v != 0.0)),
            Wide::Int(v) => Tensor::from_bools(shape, v.into_iter().map(|v| v != 0)),
            Wide::UInt(v) => Tensor::from_bools(shape, v.into_iter().map(|v| v != 0)),
        },
        DType::U4 | DType::I4 | DType::U2 | DType::I2 => {
            let low: Vec<u8> = values.into_bits().into_iter().map(|v| v as u8).collect();
            packed(dtype, shape, &low)
        }
        DType::F8E8M0 => {
            let codes: Vec<u8> = values.into_f64s().into_iter().map(|x| encode_scale(x, narrowing)).collect();
            packed(dtype, shape, &codes)
        }
        other => {
            let s = small(other).ok_or_else(|| unsupported_dtype(other))?;
            // floats below 8 bits always saturate
            let saturate = narrowing.saturate || other.bits() < 8;
            let codes: Vec<u8> = values.into_f64s().into_iter().map(|x| s.encode(x, saturate)).collect();
            packed(dtype, shape, &codes)
        }
    }
}

fn packed(dtype: DType, shape: Vec<usize>, codes: &[u8]) -> Result<Tensor> {
    let elems = elem_count(&shape)?;
    if codes.len() != elems {
        return Err(Error::mismatch("tensor data", format!("{} elements", codes.len()), elems));
    }
    Tensor::from_unpacked_bits(dtype, shape, codes)
}

/// `Cast`: the same shape in another element type. Errors on a string that is no number, and on complex numbers.
pub fn cast(t: &Tensor, to: DType, narrowing: Narrowing) -> Result<Tensor> {
    if t.dtype() == to {
        return Ok(t.clone());
    }
    let shape = t.shape().to_vec();
    match (t.dtype(), to) {
        (DType::String, _) => {
            let strings = t.as_strings()?;
            let values = if to.is_float() {
                Wide::Float(strings.iter().map(parse_float).collect::<Result<_>>()?)
            } else if to == DType::U64 {
                Wide::UInt(strings.iter().map(|s| Ok(parse_int(s)? as u64)).collect::<Result<_>>()?)
            } else {
                Wide::Int(strings.iter().map(|s| Ok(parse_int(s)? as i64)).collect::<Result<_>>()?)
            };
            narrow(values, to, shape, narrowing)
        }
        (from, DType::String) => Tensor::from_strings(shape, format_elems(t, from)?),
        _ => narrow(widen(t)?, to, shape, narrowing),
    }
}

fn not_a_number(s: &[u8], wanted: &str) -> Error {
    Error::mismatch("string", format!("{:?}", String::from_utf8_lossy(s)), wanted)
}

fn parse_float(s: &Bytes) -> Result<f64> {
    let text = std::str::from_utf8(s).map_err(|_| not_a_number(s, "a number"))?.trim();
    text.parse().map_err(|_| not_a_number(s, "a number"))
}

fn parse_int(s: &Bytes) -> Result<i128> {
    let text = std::str::from_utf8(s).map_err(|_| not_a_number(s, "an integer"))?.trim();
    if let Ok(v) = text.parse::<i128>() {
        return Ok(v);
    }
    // "100.5" may be cast to 100
    parse_float(s).map(|v| v as i128).map_err(|_| not_a_number(s, "an integer"))
}

/// The shortest decimal that reads back as the same number, in plain notation.
fn format_elems(t: &Tensor, from: DType) -> Result<Vec<String>> {
    Ok(match (from, widen(t)?) {
        (DType::Bool, Wide::UInt(v)) => v.into_iter().map(|v| v.to_string()).collect(),
        (DType::F64, Wide::Float(v)) => v.into_iter().map(|v| format_float(v, v.to_string())).collect(),
        (_, Wide::Float(v)) => v.into_iter().map(|v| format_float(v, (v as f32).to_string())).collect(),
        (_, Wide::Int(v)) => v.into_iter().map(|v| v.to_string()).collect(),
        (_, Wide::UInt(v)) => v.into_iter().map(|v| v.to_string()).collect(),
    })
}

fn format_float(value: f64, text: String) -> String {
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "INF".into() } else { "-INF".into() }
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(dtype: DType, saturate: bool, values: &[f64]) -> Vec<u8> {
        let n = Narrowing { saturate, ..Default::default() };
        from_f64s(dtype, vec![values.len()], values.to_vec(), n).unwrap().unpacked_bits()
    }

    #[test]
    fn every_code_of_a_small_float_survives_a_round_trip() {
        use DType::*;
        for dtype in [F8E4M3FN, F8E4M3FNUZ, F8E5M2, F8E5M2FNUZ, F4E2M1, F6E2M3, F6E3M2] {
            let n = 1u16 << dtype.bits();
            let all: Vec<u8> = (0..n).map(|c| c as u8).collect();
            let t = Tensor::from_unpacked_bits(dtype, vec![all.len()], &all).unwrap();
            let wide = to_f64s(&t).unwrap();
            let back = codes(dtype, false, &wide);
            for ((code, value), back) in all.iter().zip(wide).zip(back) {
                assert!(*code == back || value.is_nan(), "{dtype} {code:#x} {value} {back:#x}");
            }
        }
    }

    #[test]
    fn float8_limits() {
        let x = [0.0, -0.0, 448.0, 464.0, 465.0, -1e9, f64::INFINITY];
        assert_eq!(codes(DType::F8E4M3FN, true, &x), [0, 0x80, 0x7E, 0x7E, 0x7E, 0xFE, 0x7E]);
        assert_eq!(codes(DType::F8E4M3FN, false, &x), [0, 0x80, 0x7E, 0x7E, 0x7F, 0xFF, 0x7F]);
        assert_eq!(codes(DType::F8E4M3FNUZ, false, &[-0.0, 240.0, 1e9, -1e-9]), [0, 0x7F, 0x80, 0]);
        assert_eq!(codes(DType::F8E5M2, false, &[57344.0, 1e9, -1e9]), [0x7B, 0x7C, 0xFC]);
        assert_eq!(codes(DType::F4E2M1, true, &[0.25, 0.75, 5.0, 100.0, f64::NAN]), [0, 2, 6, 7, 8]);
    }

    #[test]
    fn scales_round_as_asked() {
        let one = |x: f64, scale, saturate| encode_scale(x, Narrowing { saturate, scale });
        assert_eq!(one(1.25, ScaleRound::Up, true), 128);
        assert_eq!(one(1.25, ScaleRound::Down, true), 127);
        assert_eq!(one(1.5, ScaleRound::Nearest, true), 128);
        assert_eq!(one(0.0, ScaleRound::Up, true), 0);
        assert_eq!(one(0.0, ScaleRound::Nearest, false), 0xFF);
        assert_eq!(one(f64::INFINITY, ScaleRound::Up, true), 254);
    }

    #[test]
    fn halves_are_rounded_once() {
        // just above the tie between 1 and 1 + 2^-10: f32 would round it onto the tie
        let x = 1.0 + 2f64.powi(-11) + 2f64.powi(-40);
        let t = from_f64s(DType::F16, vec![], vec![x], Narrowing::default()).unwrap();
        assert_eq!(to_f64s(&t).unwrap(), [1.0 + 2f64.powi(-10)]);
    }

    #[test]
    fn integers_keep_low_bits_and_strings_parse() {
        let t = Tensor::new(vec![2], vec![200i16, -1]).unwrap();
        let c = cast(&t, DType::I8, Narrowing::default()).unwrap();
        assert_eq!(*c.as_slice::<i8>().unwrap(), [-56, -1]);
        let s = Tensor::from_strings(vec![4], ["3.25", "+INF", "nan", "1e-5"]).unwrap();
        let f = to_f32s(&cast(&s, DType::F32, Narrowing::default()).unwrap()).unwrap();
        assert!(f[0] == 3.25 && f[1] == f32::INFINITY && f[2].is_nan() && f[3] == 1e-5);
        let bad = Tensor::from_strings(vec![1], ["Hello"]).unwrap();
        assert!(cast(&bad, DType::F32, Narrowing::default()).is_err());
    }
}
