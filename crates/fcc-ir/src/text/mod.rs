//! The text form: ONNX's own text syntax, the one that `onnx.parser` of the `onnx` package 1.23 reads.
//!
//! [`print()`] with [`PrintOptions::whole`] writes everything that the syntax has a place for, and [`parse`] reads it
//! back: `parse(print(g)) == g`, which [`same`] decides. [`PrintOptions::readable`] is for people and snapshots: large constants stand as
//! their type and a hash of their data (see [`content_hash`]), and the type of each value behind its line as a
//! comment. A text with such a hash does not parse, here or elsewhere: it is an error, not a different model.
//!
//! ```text
//! <
//!   ir_version: 8,
//!   opset_import: ["" : 17]
//! >
//! main (float[batch,3,224,224] x) => (float[batch,64,112,112] y) <
//!   float[64,3,7,7] "conv1.weight" = hash 0x91c0f3e2a75d8b46
//! > {
//!   [conv1] y = Conv <pads = [3, 3, 3, 3], strides = [2, 2]> (x, "conv1.weight")  # float[batch,64,112,112]
//! }
//! ```
//!
//! # How data stands in braces
//! One number for each element; `complex` two. As `onnx.parser` has it, the 8- and 16-bit floats and `bool` stand as
//! their bit patterns, and the 2- and 4-bit types as the packed bytes of `int32_data` (the parser here also takes
//! one number for each of their elements).
//!
//! # What is added to the syntax
//! Where the syntax has no form for a thing, the form here is one that `onnx.parser` refuses or skips, so that it
//! never reads another model than the one printed:
//! - `b"\xff"`: a string that is not UTF-8;
//! - `nan:0x7fc00001`: a NaN of other bits than the usual quiet one;
//! - quoted operator, domain, attribute and opaque type names where they are not identifiers;
//! - `undefined` and `?` for an element type or type that is not given, `name: undefined` for an attribute without
//!   a value, `sparse {indices.., values..}` for sparse tensors;
//! - comments that start with `#@`, which only fcc reads: the names of a subgraph and of an attribute's tensor that are
//!   not identifiers, doc strings and metadata of graphs, functions and nodes.
//!
//! `onnx.parser` 1.23.2 takes lists of graphs, tensors and types as attributes, but drops their elements.
//!
//! # What has no form
//! Doc strings and metadata of values, tensors and attributes; denotations; quantization annotations; training
//! information; device configurations; whether a tensor's elements were stored raw, typed or outside the file.

mod build;
mod cursor;
mod number;
mod parse;
mod print;
mod same;
mod tensors;
#[cfg(test)]
mod tests;
mod values;

pub use parse::{parse, parse_graph};
pub use print::{print, print_graph};
pub use same::same;
pub use tensors::content_hash;

/// How constants are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Constants {
    /// Whole up to this many elements, larger ones as `hash 0x…`.
    Abbreviated(usize),
    /// Every element.
    Whole,
}

/// What [`print()`] shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrintOptions {
    /// How constants are printed.
    pub constants: Constants,
    /// Whether the best known type of each operator's outputs stands behind its line, as a comment.
    pub types: bool,
    /// Whether `value_info`, doc strings and metadata are printed.
    pub details: bool,
}

impl PrintOptions {
    /// For people: constants of up to 16 elements, types, no `value_info`.
    pub fn readable() -> Self {
        PrintOptions { constants: Constants::Abbreviated(16), types: true, details: false }
    }
    /// For [`parse`] and `onnx.parser`: all that the syntax can say.
    pub fn whole() -> Self {
        PrintOptions { constants: Constants::Whole, types: false, details: true }
    }
}

impl Default for PrintOptions {
    fn default() -> Self {
        PrintOptions::readable()
    }
}

/// Graphs and types nest at most this deep in a text.
const MAX_DEPTH: usize = 64;

/// Words that begin a type, so that a value of this name must be quoted.
fn is_type_word(word: &str) -> bool {
    crate::DType::from_name(word).is_some()
        || matches!(word, "seq" | "map" | "optional" | "sparse_tensor" | "opaque")
}

/// Whether a word is an identifier of the syntax.
fn is_identifier(word: &str) -> bool {
    let mut bytes = word.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}
