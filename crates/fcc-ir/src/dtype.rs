//! Element types: all of ONNX `TensorProto.DataType`.
use std::fmt;

macro_rules! dtypes {
    ($($variant:ident = $code:literal, $name:literal, $bits:literal, $doc:literal;)*) => {
        /// An ONNX element type; the discriminant is the code in `TensorProto.DataType`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(i32)]
        pub enum DType { $(#[doc = $doc] $variant = $code,)* }

        impl DType {
            /// Every element type, in the order of the codes.
            pub const ALL: &'static [DType] = &[$(DType::$variant,)*];
            /// The type of a code in a file; `None` for a code this version of ONNX does not have.
            pub fn from_code(code: i32) -> Option<DType> {
                match code { $($code => Some(DType::$variant),)* _ => None }
            }
            /// The name in ONNX's text syntax, such as `float` or `int64`.
            pub fn name(self) -> &'static str {
                match self { $(DType::$variant => $name,)* }
            }
            /// Bits of one element in a tensor's raw data; 0 where elements have no fixed size (strings).
            pub fn bits(self) -> usize {
                match self { $(DType::$variant => $bits,)* }
            }
        }
    };
}

dtypes! {
    Undefined = 0, "undefined", 0, "No type given.";
    F32 = 1, "float", 32, "IEEE binary32.";
    U8 = 2, "uint8", 8, "Unsigned 8-bit integer.";
    I8 = 3, "int8", 8, "Signed 8-bit integer.";
    U16 = 4, "uint16", 16, "Unsigned 16-bit integer.";
    I16 = 5, "int16", 16, "Signed 16-bit integer.";
    I32 = 6, "int32", 32, "Signed 32-bit integer.";
    I64 = 7, "int64", 64, "Signed 64-bit integer.";
    String = 8, "string", 0, "A byte string.";
    Bool = 9, "bool", 8, "A truth value in one byte, 0 or 1.";
    F16 = 10, "float16", 16, "IEEE binary16.";
    F64 = 11, "double", 64, "IEEE binary64.";
    U32 = 12, "uint32", 32, "Unsigned 32-bit integer.";
    U64 = 13, "uint64", 64, "Unsigned 64-bit integer.";
    C64 = 14, "complex64", 64, "Two binary32: real, imaginary.";
    C128 = 15, "complex128", 128, "Two binary64: real, imaginary.";
    BF16 = 16, "bfloat16", 16, "bfloat16.";
    F8E4M3FN = 17, "float8e4m3fn", 8, "8-bit float, 4 exponent bits, finite with NaN.";
    F8E4M3FNUZ = 18, "float8e4m3fnuz", 8, "8-bit float, 4 exponent bits, no negative zero.";
    F8E5M2 = 19, "float8e5m2", 8, "8-bit float, 5 exponent bits, with infinities.";
    F8E5M2FNUZ = 20, "float8e5m2fnuz", 8, "8-bit float, 5 exponent bits, no negative zero.";
    U4 = 21, "uint4", 4, "Unsigned 4-bit integer, two in a byte, low nibble first.";
    I4 = 22, "int4", 4, "Signed 4-bit integer, two in a byte, low nibble first.";
    F4E2M1 = 23, "float4e2m1", 4, "4-bit float, two in a byte, low nibble first.";
    F8E8M0 = 24, "float8e8m0", 8, "8-bit power of two (a scale).";
    U2 = 25, "uint2", 2, "Unsigned 2-bit integer, four in a byte, low bits first.";
    I2 = 26, "int2", 2, "Signed 2-bit integer, four in a byte, low bits first.";
    F6E2M3 = 27, "float6e2m3", 6, "6-bit float, 2 exponent bits, four in three bytes, low bits first.";
    F6E3M2 = 28, "float6e3m2", 6, "6-bit float, 3 exponent bits, four in three bytes, low bits first.";
}

impl DType {
    /// The type of a name in ONNX's text syntax.
    pub fn from_name(name: &str) -> Option<DType> {
        DType::ALL.iter().copied().find(|d| d.name() == name)
    }
    /// Bytes of `elems` elements packed as in raw data; `None` for strings, undefined, or on overflow.
    pub fn byte_len(self, elems: usize) -> Option<usize> {
        if self.bits() == 0 {
            return None;
        }
        // the product of two usize fits u128
        usize::try_from((elems as u128 * self.bits() as u128).div_ceil(8)).ok()
    }
    /// Whether this is a floating point type (of any width).
    pub fn is_float(self) -> bool {
        use DType::*;
        matches!(
            self,
            F32 | F16
                | F64
                | BF16
                | F8E4M3FN
                | F8E4M3FNUZ
                | F8E5M2
                | F8E5M2FNUZ
                | F4E2M1
                | F8E8M0
                | F6E2M3
                | F6E3M2
        )
    }
    /// Whether this is an integer type (not bool).
    pub fn is_int(self) -> bool {
        use DType::*;
        matches!(self, U8 | I8 | U16 | I16 | I32 | I64 | U32 | U64 | U4 | I4 | U2 | I2)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
