//! Tests of fcc across crates.
pub mod cases;
