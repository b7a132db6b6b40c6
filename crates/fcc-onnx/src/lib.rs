//! Reading and writing ONNX files.
#![deny(unsafe_code)]

mod decode;
mod error;
mod external;
mod map;
pub mod proto;
mod stage;

pub use error::{Error, ErrorKind, Result};
