//! What protobuf says and the IR has no place for, so that a file comes back as it was.
//!
//! proto2 tells a field that is absent from one that is there and empty. The IR does not: it keeps such fields in
//! `extra`, an encoded message that the exporter starts from.

use bytes::Bytes;
use prost::Message;

use crate::import::spelt_imports;
use crate::proto::tensor_proto::DataLocation;
use crate::proto::{
    AttributeProto, FunctionProto, GraphProto, ModelProto, NodeProto, StringStringEntryProto, TensorProto,
    ValueInfoProto,
};

/// A message of which some fields have no place in the IR.
pub(crate) trait Kept: Message + Default {
    /// The message with nothing but those fields.
    fn rest(&self) -> Self;
    /// Those fields, encoded, as the IR's `extra`; nothing for a message without any.
    fn kept(&self) -> Bytes {
        Bytes::from(self.rest().encode_to_vec())
    }
    /// The message to start from in writing. An `extra` may come out of a text, so nothing else in it counts.
    fn restored(extra: &Bytes) -> Self {
        Self::decode(extra.clone()).unwrap_or_default().rest()
    }
}

/// `Some("")` if the field is there and empty; else `None`, for its text has a place in the IR.
fn explicit(field: &Option<String>) -> Option<String> {
    field.clone().filter(String::is_empty)
}

macro_rules! kept { ($($message:ident { $($text:ident),* } $(+ $($field:ident: $of:expr),*)?;)*) => { $(
    impl Kept for $message {
        fn rest(&self) -> Self {
            $message { $($text: explicit(&self.$text),)* $($($field: $of(self),)*)? ..Default::default() }
        }
    }
)* } }
kept! {
    ModelProto { producer_name, producer_version, domain, doc_string }
        + model_version: |m: &Self| m.model_version.filter(|&v| v == 0),
        opset_import: |m: &Self| spelt_imports(&m.opset_import);
    FunctionProto { name, domain, overload, doc_string } + opset_import: |m: &Self| spelt_imports(&m.opset_import);
    GraphProto { name, doc_string };
    NodeProto { name, op_type, domain, overload, doc_string };
    TensorProto { name, doc_string }
        + data_location: |m: &Self| m.data_location.filter(|&l| l == DataLocation::Default as i32);
    ValueInfoProto { name, doc_string } + r#type: |m: &Self| m.r#type.clone();
}

impl Kept for AttributeProto {
    /// Values of other kinds than the attribute's, and types in the file's spelling.
    fn rest(&self) -> Self {
        AttributeProto {
            name: explicit(&self.name),
            doc_string: explicit(&self.doc_string),
            ref_attr_name: explicit(&self.ref_attr_name),
            r#type: None,
            ..self.clone()
        }
    }
}

/// Key-value entries in file order.
pub(crate) fn metadata(entries: &[StringStringEntryProto]) -> Vec<(String, String)> {
    entries.iter().map(|e| (e.key().to_string(), e.value().to_string())).collect()
}

/// Key-value entries as a file holds them.
pub(crate) fn metadata_proto(entries: &[(String, String)]) -> Vec<StringStringEntryProto> {
    let entry =
        |(k, v): &(String, String)| StringStringEntryProto { key: Some(k.clone()), value: Some(v.clone()) };
    entries.iter().map(entry).collect()
}

/// Sets a string field, unless the text is empty: then the field stays as the file had it.
pub(crate) fn put(field: &mut Option<String>, text: &str) {
    if !text.is_empty() {
        *field = Some(text.to_string());
    } else if field.as_ref().is_some_and(|old| !old.is_empty()) {
        *field = None;
    }
}
