//! Graphs that are valid by construction, for testing fcc: generation, comparison of the engines, shrinking.
//!
//! A [`case`] is its number. Every value is computed as the graph grows, so that what is added next fits what is
//! there; a row of a table in `ops` says for each operator which inputs and attributes it takes. [`check()`] holds a case against
//! every promise of fcc: both round trips, inference, the interpreter as a whole and node by node, the code generator
//! at each instruction set of the machine, each rewrite. [`shrink()`] makes a failing case small.
#![forbid(unsafe_code)]

mod build;
mod case;
mod check;
mod draw;
mod file;
mod noise;
pub mod open;
pub mod ops;
mod pb;
mod shrink;
mod step;

pub use build::Build;
pub use case::{Case, Made, case, case_of, operators};
pub use check::{Failure, Options, Seen, check, expected, guarded};
pub use file::{read, write};
pub use noise::Bounds;
pub use shrink::shrink;

/// Version of the generator: another one makes other cases of the same numbers.
pub const VERSION: u64 = 1;
