//! fcc-rewrite
#![forbid(unsafe_code)]
