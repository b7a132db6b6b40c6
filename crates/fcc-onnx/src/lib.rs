//! Reading and writing ONNX files.
#![deny(unsafe_code)]

pub mod proto;
