//! fcc
#![forbid(unsafe_code)]
