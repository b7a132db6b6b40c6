//! Tests of fcc across crates.
pub mod cases;
pub mod fixtures;
