//! What protobuf says and the IR has no place for, so that a file comes back as it was.
//!
//! proto2 tells a field that is absent from one that is there and empty. The IR does not: it keeps such fields in
//! `extra`, an encoded message that the exporter starts from.

use bytes::Bytes;
use prost::Message;

use crate::proto::StringStringEntryProto;

/// `Some("")` if the field is there and empty; else `None`, for its text has a place in the IR.
pub(crate) fn explicit(field: &Option<String>) -> Option<String> {
    field.clone().filter(String::is_empty)
}

/// The encoded message, as the IR's `extra`; nothing for a message without fields.
pub(crate) fn kept(message: &impl Message) -> Bytes {
    Bytes::from(message.encode_to_vec())
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
