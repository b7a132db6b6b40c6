//! The text form: ONNX's own text syntax, the one that `onnx.parser` of the `onnx` package 1.23 reads.
//!
//! [`print()`] with [`PrintOptions::whole`] writes everything, and [`parse`] reads it back: `parse(print(m)) == m`, which
//! [`same`] decides. [`PrintOptions::readable`] is for people and snapshots: large constants stand as
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
//! - comments that start with `#@`, which only fcc reads: the notes below.
//!
//! `onnx.parser` 1.23.2 takes lists of graphs, tensors and types as attributes, but drops their elements.
//!
//! # Notes
//! What the syntax has no place for stands in notes, each on a line of its own before the thing it speaks of (a model,
//! a graph, an input, output, initializer or other value, a node, an attribute, its tensor or graph, a function):
//!
//! ```text
//! #@ doc b"what the exporter said"
//! #@ metadata b"key" b"value"
//! [conv1] y = Conv (x, w)
//! ```
//!
//! Their keys: `name` of a subgraph or tensor whose name is no identifier, `doc`, `metadata`, `denotation` and `dims`
//! (those of a type and of its dimensions), `quantization` (a tensor, then key and name of each parameter), `typed` and
//! `external` (where a tensor's elements stood in the file), `raw` (its bytes, where unused bits of them are set), and as encoded protobuf messages `device`,
//! `training_info`, `configuration` and `fields`: the rest of a message, such as fields that are there and empty. A note
//! that is not known, or has no thing to speak of, is an error. So the text says all that a file says, and
//! `parse(print(m))` writes the file that `m` does.

mod build;
mod cursor;
mod notes;
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
    /// Whether `value_info`, doc strings, metadata and all notes are printed.
    pub details: bool,
}

impl PrintOptions {
    /// For people: constants of up to 16 elements, types, no `value_info`.
    pub fn readable() -> Self {
        PrintOptions { constants: Constants::Abbreviated(16), types: true, details: false }
    }
    /// For [`parse`] and `onnx.parser`: all that the model says.
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
