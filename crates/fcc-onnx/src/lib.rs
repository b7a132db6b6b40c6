//! Reading and writing ONNX files.
//!
//! [`load`] maps a file and decodes it without copying its weights; [`save`] writes a model so that no second copy
//! of them is made. Everything read is checked: a broken or hostile file gives an [`Error`] of one line.
//!
//! This crate never rewrites a model, and never reads a file that the model's own folder does not hold.
#![deny(unsafe_code)]

mod attrs;
mod decode;
mod error;
mod export;
mod external;
mod import;
mod import_graph;
mod keep;
mod map;
mod npy;
mod npy_header;
pub mod proto;
mod stage;
mod tensors;
mod types;
mod unknown;
mod values;
mod write;

use std::path::Path;

use bytes::Bytes;
use fcc_ir::Model;

pub use error::{Error, ErrorKind, Result};
pub use map::release;

pub use npy::{from_npy_bytes, read_npy, read_npz, to_npy_bytes, write_npy, write_npz};
pub use stage::write_file;
pub use values::{read_tensor_pb, read_value_pb, write_tensor_pb};
pub use write::{SaveOptions, Saved, save, to_bytes};

/// How [`load`] reads.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Read external data through symbolic links and hard links. Off by default, because a link in a folder from
    /// elsewhere can point at any file; package caches that link their files need it.
    pub follow_links: bool,
    /// Read a model with protobuf fields that ONNX's schema does not have, without them. Off by default, because a
    /// model that is written back would have lost them.
    pub drop_unknown_fields: bool,
}

/// Reads a model from a file; its weights stay in the mapped file and in the mapped files of external data.
///
/// Errors if the file cannot be read, is not an ONNX model of IR 1 to 14, or holds an invalid one.
pub fn load(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Model> {
    let path = path.as_ref();
    let bytes = map::map(&map::open_regular(path)?, path)?;
    let folder = path.parent().map(Path::to_path_buf);
    let mut source = external::Source::new(folder, options.follow_links);
    model(&bytes, &mut source, options).map_err(|e| e.in_file(path))
}

/// Reads a model from memory. Its weights share `bytes`. External data is an error: there is no folder to look in.
pub fn load_bytes(bytes: impl Into<Bytes>) -> Result<Model> {
    model(&bytes.into(), &mut external::Source::new(None, false), &LoadOptions::default())
}

fn model(bytes: &Bytes, source: &mut external::Source, options: &LoadOptions) -> Result<Model> {
    let proto = decode::decode(bytes, "an ONNX model")?;
    let model = import::model(proto, source)?;
    if !options.drop_unknown_fields {
        unknown::refuse(bytes, "ModelProto")?;
    }
    Ok(model)
}
