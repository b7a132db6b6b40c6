//! fcc
#![forbid(unsafe_code)]

pub mod cases;
pub mod compare;
mod engine;

pub use engine::{Engine, Runner};
