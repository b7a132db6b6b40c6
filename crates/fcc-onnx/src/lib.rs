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
mod files;
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
pub use files::{Files, same_file};
pub use map::release;

pub use npy::{from_npy_bytes, read_npy, read_npz, to_npy_bytes, to_npz_bytes, write_npy, write_npz};
pub use stage::{check_target, write_file};
pub use values::{read_tensor_pb, read_value_pb, read_value_pb_with_files, write_tensor_pb};
pub use write::{SaveOptions, Saved, data_path, save, to_bytes};

/// How [`load`] reads.
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// Read external data through symbolic links and hard links. Package caches that link their files
    /// (`snapshots/…/model.onnx_data` to `blobs/…`) need it. Off by default: in a folder from elsewhere a link can point
    /// at any file that this process may read, a key or another user's data; its bytes would become weights, and be
    /// written with them. What is no regular file (a device, a pipe, a folder) stays an error.
    pub follow_links: bool,
    /// Read a model with protobuf fields that ONNX's schema does not have, without them. Off by default, because a
    /// model that is written back would have lost them.
    pub drop_unknown_fields: bool,
}

/// Reads a model from a file; its weights stay in the mapped file and in the mapped files of external data.
///
/// Errors if the file cannot be read, is not an ONNX model of IR 1 to 14, or holds an invalid one.
pub fn load(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Model> {
    load_with_files(path, options).map(|(model, _)| model)
}

/// As [`load`], with the files that the model consists of: its own, and every file of its external data, which
/// initializers, attributes of nodes (as of `Constant`), subgraphs and functions may name.
pub fn load_with_files(path: impl AsRef<Path>, options: &LoadOptions) -> Result<(Model, Files)> {
    let path = path.as_ref();
    let file = map::open_regular(path)?;
    let bytes = map::map(&file, path)?;
    let folder = path.parent().map(Path::to_path_buf);
    let mut source = external::Source::new(folder, options.follow_links);
    let model = model(&bytes, &mut source, options).map_err(|e| e.in_file(path))?;
    let mut files = source.into_files();
    files.add_open(&file, path);
    Ok((model, files))
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
