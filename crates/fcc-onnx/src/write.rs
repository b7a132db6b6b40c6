//! Models to files, without a second copy of the weights in memory.
//!
//! The graph goes out node by node and tensor by tensor: each message is built, written and dropped, and the bytes
//! of a weight go from where they lie (often the mapping of the input file) to the output. A first pass counts, for
//! protobuf puts a message's length before it, and for sizes beyond what protobuf can hold the weights move to a
//! file of external data.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use fcc_ir::{Graph, Model, Names};
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint};

use crate::error::quoted;
use crate::export;
use crate::files::Files;
use crate::proto::tensor_proto::DataLocation;
use crate::proto::{GraphProto, NodeProto, StringStringEntryProto, TensorProto};
use crate::stage::Staged;
use crate::{Error, ErrorKind, Result};

/// The largest protobuf message that its readers accept.
const PROTOBUF_LIMIT_BYTES: u64 = i32::MAX as u64;
/// Tensors below this size stay in the model file.
const EXTERNAL_FROM_BYTES: usize = 1024;
/// Where tensors begin in a data file: page-aligned from this size on, so that readers can map them.
const PAGE_ALIGN_FROM_BYTES: usize = 1 << 20;
const PAGE_BYTES: u64 = 4096;
const SMALL_ALIGN_BYTES: u64 = 64;

const MODEL_GRAPH: u32 = 7;
const MODEL_FUNCTIONS: u32 = 25;
const GRAPH_NODE: u32 = 1;
const GRAPH_INITIALIZER: u32 = 5;
const TENSOR_RAW_DATA: u32 = 9;

/// How [`save`] writes.
#[derive(Debug, Clone, Default)]
pub struct SaveOptions {
    /// Put tensors of 1 KiB and more (initializers and attributes, in subgraphs too) into `NAME.data` beside the model.
    /// Beyond 2 GiB that happens anyway.
    pub external_data: bool,
    /// Files that must not be replaced, as those of [`load_with_files`](crate::load_with_files): neither by the model nor
    /// by the file of its data.
    pub keep: Files,
}

/// What [`save`] wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Saved {
    /// Size of the model file.
    pub model_bytes: u64,
    /// The file of external data with its size, if there is one.
    pub data: Option<(PathBuf, u64)>,
}

/// Writes a model to a file, which is replaced only once the new one is complete.
///
/// Errors if the target or the data file beside it is one to keep, a folder or a special file, if the system cannot
/// write, and if the model without its large tensors is beyond 2 GiB. After an error the target is as it was.
pub fn save(model: &Model, path: &Path, options: &SaveOptions) -> Result<Saved> {
    save_at_most(model, path, options, PROTOBUF_LIMIT_BYTES).map_err(|e| e.in_file(path))
}

fn save_at_most(model: &Model, path: &Path, options: &SaveOptions, limit_bytes: u64) -> Result<Saved> {
    let data_path = data_path(path)?;
    options.keep.refuse(path)?;
    let location = data_path.file_name().and_then(|name| name.to_str()).map(str::to_string);
    let head = Head::of(model)?;
    let mut external = options.external_data;
    let (graph_len, total, has_data) = loop {
        let mut count = Out { written: 0, file: None };
        let mut data = DataFile::new(external, &location, None);
        write_graph(&model.graph, &mut count, &mut data)?;
        let total = head.len().saturating_add(framed(MODEL_GRAPH, count.written));
        if total <= limit_bytes {
            break (count.written, total, data.next > 0);
        }
        if external {
            let got = format!("{total} bytes without tensors of {EXTERNAL_FROM_BYTES} bytes and more");
            let wanted = format!("{limit_bytes} or less");
            return Err(Error::mismatch(ErrorKind::Unsupported, "the model file", got, wanted));
        }
        external = true;
    };
    if has_data && location.is_none() {
        let message = "the file name of external data: got one that is not UTF-8, wanted UTF-8";
        return Err(Error::new(ErrorKind::Unsupported, message));
    }
    if has_data {
        options.keep.refuse(&data_path)?;
    }
    let mut file = Staged::create(path)?;
    let staged_data = if has_data { Some(Staged::create(&data_path)?) } else { None };
    let mut data = DataFile::new(external, &location, staged_data);
    let mut out = Out { written: 0, file: Some(&mut file) };
    head.write(&mut out)?;
    out.field(MODEL_GRAPH, graph_len)?;
    write_graph(&model.graph, &mut out, &mut data)?;
    debug_assert_eq!(out.written, total);
    let data_bytes = data.next;
    // both are complete before either replaces anything
    let data_file = data.file.map(Staged::complete).transpose()?;
    let model_file = file.complete()?;
    let data = match data_file {
        None => None,
        Some(data_file) => {
            data_file.publish()?;
            Some((data_path, data_bytes))
        }
    };
    model_file.publish()?;
    Ok(Saved { model_bytes: total, data })
}

/// The model as the bytes of a file. Errors beyond 2 GiB.
pub fn to_bytes(model: &Model) -> Result<Vec<u8>> {
    let proto = export::model(model)?;
    let len = proto.encoded_len();
    if len as u64 > PROTOBUF_LIMIT_BYTES {
        let wanted = format!("{PROTOBUF_LIMIT_BYTES} or less");
        return Err(Error::mismatch(ErrorKind::Unsupported, "the model", format!("{len} bytes"), wanted));
    }
    Ok(proto.encode_to_vec())
}

/// The file of external data beside a model at `path`: `NAME.data`. Errors if the path has no file name.
pub fn data_path(path: &Path) -> Result<PathBuf> {
    let Some(name) = path.file_name() else {
        return Err(Error::mismatch(ErrorKind::Io, "cannot write", "a path without a file name", "one"));
    };
    let mut name = name.to_os_string();
    name.push(".data");
    Ok(path.with_file_name(name))
}

/// Everything of a model but its graph, encoded.
struct Head {
    fields: Vec<u8>,
    functions: Vec<Vec<u8>>,
}

impl Head {
    fn of(model: &Model) -> Result<Self> {
        let fields = export::model_head(model)?.encode_to_vec();
        let encoded = |f| Ok(export::function(f)?.encode_to_vec());
        let functions = model.functions.iter().map(encoded).collect::<Result<_>>()?;
        Ok(Head { fields, functions })
    }
    fn len(&self) -> u64 {
        let functions: u64 = self.functions.iter().map(|f| framed(MODEL_FUNCTIONS, f.len() as u64)).sum();
        self.fields.len() as u64 + functions
    }
    fn write(&self, out: &mut Out<'_>) -> Result<()> {
        out.bytes(&self.fields)?;
        for function in &self.functions {
            out.field(MODEL_FUNCTIONS, function.len() as u64)?;
            out.bytes(function)?;
        }
        Ok(())
    }
}

/// The size of a length-delimited field with its key and length.
fn framed(field: u32, len: u64) -> u64 {
    let mut head = Vec::with_capacity(16);
    encode_key(field, WireType::LengthDelimited, &mut head);
    encode_varint(len, &mut head);
    (head.len() as u64).saturating_add(len)
}

/// A file being written, or only the count of its bytes.
struct Out<'a> {
    written: u64,
    file: Option<&'a mut Staged>,
}

impl Out<'_> {
    fn bytes(&mut self, bytes: &[u8]) -> Result<()> {
        self.written = self.written.saturating_add(bytes.len() as u64);
        self.file.as_mut().map_or(Ok(()), |file| file.write(bytes))
    }
    /// The key and length of a field of `len` bytes.
    fn field(&mut self, field: u32, len: u64) -> Result<()> {
        let mut head = Vec::with_capacity(16);
        encode_key(field, WireType::LengthDelimited, &mut head);
        encode_varint(len, &mut head);
        self.bytes(&head)
    }
    fn message(&mut self, field: u32, message: &impl Message) -> Result<()> {
        if self.file.is_none() {
            self.written = self.written.saturating_add(framed(field, message.encoded_len() as u64));
            return Ok(());
        }
        let bytes = message.encode_to_vec();
        self.field(field, bytes.len() as u64)?;
        self.bytes(&bytes)
    }
    /// A tensor, whose raw data is not copied.
    fn tensor(&mut self, field: u32, mut tensor: TensorProto) -> Result<()> {
        let Some(raw) = tensor.raw_data.take() else { return self.message(field, &tensor) };
        let rest = tensor.encode_to_vec();
        self.field(field, rest.len() as u64 + framed(TENSOR_RAW_DATA, raw.len() as u64))?;
        self.bytes(&rest)?;
        self.field(TENSOR_RAW_DATA, raw.len() as u64)?;
        self.bytes(&raw)
    }
}

fn write_graph(graph: &Graph, out: &mut Out<'_>, data: &mut DataFile) -> Result<()> {
    let names = Names::new(graph, None);
    let place = |e: Error| e.at(format!("graph {}", quoted(&graph.name)));
    out.bytes(&export::graph_head(&names).map_err(place)?.encode_to_vec())?;
    for id in graph.ops()? {
        let mut node = export::node(&names, id).map_err(place)?;
        data.move_out_of_node(&mut node)?;
        out.message(GRAPH_NODE, &node)?;
    }
    let raw_from_bytes = data.external.then_some(EXTERNAL_FROM_BYTES);
    for id in export::initializers(graph) {
        let mut tensor = export::initializer(graph, id, raw_from_bytes);
        data.move_out(&mut tensor)?;
        out.tensor(GRAPH_INITIALIZER, tensor)?;
    }
    Ok(())
}

/// The file of external data, or its plan while only bytes are counted.
struct DataFile {
    /// Whether tensors go there at all.
    external: bool,
    location: String,
    next: u64,
    /// Offsets of what is there, by address and length: weights that are shared in memory are shared on disk.
    placed: HashMap<(usize, usize), u64>,
    file: Option<Staged>,
}

impl DataFile {
    fn new(external: bool, location: &Option<String>, file: Option<Staged>) -> Self {
        let location = location.clone().unwrap_or_default();
        DataFile { external, location, next: 0, placed: HashMap::new(), file }
    }

    /// Moves a tensor's raw data to the data file if it is large.
    fn move_out(&mut self, tensor: &mut TensorProto) -> Result<()> {
        if !self.external {
            return Ok(());
        }
        let large = tensor.raw_data.take_if(|raw| raw.len() >= EXTERNAL_FROM_BYTES);
        let Some(raw) = large else { return Ok(()) };
        let key = (raw.as_ptr() as usize, raw.len());
        let offset = match self.placed.get(&key) {
            Some(offset) => *offset,
            None => {
                let align = if raw.len() >= PAGE_ALIGN_FROM_BYTES { PAGE_BYTES } else { SMALL_ALIGN_BYTES };
                let offset = self.next.next_multiple_of(align);
                if let Some(file) = &mut self.file {
                    file.write(&[0; PAGE_BYTES as usize][..(offset - self.next) as usize])?;
                    file.write(&raw)?;
                }
                self.next = offset + raw.len() as u64;
                self.placed.insert(key, offset);
                offset
            }
        };
        let entry =
            |key: &str, value: String| StringStringEntryProto { key: Some(key.into()), value: Some(value) };
        tensor.data_location = Some(DataLocation::External as i32);
        tensor.external_data = vec![
            entry("location", self.location.clone()),
            entry("offset", offset.to_string()),
            entry("length", raw.len().to_string()),
        ];
        Ok(())
    }

    fn move_out_of_node(&mut self, node: &mut NodeProto) -> Result<()> {
        if !self.external {
            return Ok(());
        }
        for attribute in &mut node.attribute {
            for tensor in attribute.t.iter_mut().chain(&mut attribute.tensors) {
                self.move_out(tensor)?;
            }
            for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
                self.move_out_of_graph(graph)?;
            }
        }
        Ok(())
    }

    fn move_out_of_graph(&mut self, graph: &mut GraphProto) -> Result<()> {
        for tensor in &mut graph.initializer {
            self.move_out(tensor)?;
        }
        graph.node.iter_mut().try_for_each(|node| self.move_out_of_node(node))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fcc_ir::attr::Attrs;
    use fcc_ir::{NewNode, Tensor, ValueId, ValueInfo, ValueType};

    /// An initializer of 4000 bytes, and a `Constant` node of 8000.
    fn model() -> Model {
        let mut g = Graph::new("g", fcc_ir::op::default_opsets(21));
        let weight = g.add_constant("w", Tensor::new(vec![1000], vec![1f32; 1000]).unwrap()).unwrap();
        let value = Tensor::new(vec![2000], vec![2f32; 2000]).unwrap();
        let constant = NewNode {
            op_type: "Constant",
            domain: "",
            name: String::new(),
            inputs: vec![],
            outputs: vec!["c".into()],
            attrs: Attrs::new().with("value", value),
        };
        let id = g.add_op(constant).unwrap();
        g.add_output(weight, ValueInfo::new("w", ValueType::Unknown));
        g.add_output(ValueId { node: id, output: 0 }, ValueInfo::new("c", ValueType::Unknown));
        Model::new(g)
    }

    #[test]
    fn beyond_the_limit_weights_move_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("m.onnx");
        for (limit, data_bytes) in [(20_000, None), (2000, Some(12_000))] {
            let saved = save_at_most(&model(), &path, &SaveOptions::default(), limit).unwrap();
            assert_eq!(saved.data.map(|(_, bytes)| bytes), data_bytes, "limit {limit}");
            assert!(saved.model_bytes <= limit);
            let read = crate::load(&path, &crate::LoadOptions::default()).unwrap();
            for (name, len) in [("w", 4000), ("c", 8000)] {
                let value = read.graph.value(name).unwrap();
                assert_eq!(read.graph.constant(value).unwrap().bytes().len(), len);
            }
        }
        let error = save_at_most(&model(), &path, &SaveOptions::default(), 50).unwrap_err().to_string();
        assert!(error.contains("without tensors of 1024 bytes and more, wanted 50 or less"), "{error}");
    }
}
