//! fcc
#![forbid(unsafe_code)]

pub mod cases;
mod engine;

pub use engine::{Engine, Runner};
