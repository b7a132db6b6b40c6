//! Tests of fcc across crates.
