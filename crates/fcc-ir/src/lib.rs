//! fcc-ir
#![forbid(unsafe_code)]
