//! Bytes to protobuf messages, for bytes that nobody vouches for.
//!
//! prost bounds the nesting of messages and groups (100 levels) and checks every length against what is
//! left of the input, so memory is bounded by a multiple of the file's size and the stack by the limit.

use bytes::Bytes;

use crate::{Error, ErrorKind, Result};

/// Decodes a message; its `bytes` fields are slices of `bytes`, not copies. `what` names what is expected.
pub(crate) fn decode<M: prost::Message + Default>(bytes: &Bytes, what: &str) -> Result<M> {
    if bytes.is_empty() {
        return Err(Error::mismatch(ErrorKind::Malformed, "the file", "0 bytes", what));
    }
    M::decode(bytes.clone()).map_err(|error| {
        let error = shortened(&error.to_string());
        let got = match looks_like(bytes) {
            Some(kind) => format!("{kind} ({error})"),
            None => format!("{} bytes that are cut short or damaged ({error})", bytes.len()),
        };
        Error::mismatch(ErrorKind::Malformed, "the file", got, what)
    })
}

/// prost names every message on the way to a fault: of a long way, the end.
fn shortened(message: &str) -> String {
    const PARTS: usize = 4;
    let parts: Vec<&str> = message.split(": ").collect();
    match parts.len().checked_sub(PARTS) {
        Some(cut) if cut > PARTS => format!("… {}", parts[cut..].join(": ")),
        _ => message.to_string(),
    }
}

/// What a file seems to be instead, by its first bytes.
pub(crate) fn looks_like(bytes: &[u8]) -> Option<&'static str> {
    const MAGIC: [(&[u8], &str); 10] = [
        (b"PK\x03\x04", "a zip archive"),
        (b"\x89HDF", "an HDF5 file"),
        (b"\x1f\x8b", "a gzip file"),
        (b"\x93NUMPY", "a NumPy array"),
        (b"\x7fELF", "an ELF binary"),
        (b"\x80\x02", "a Python pickle"),
        (b"\x80\x04", "a Python pickle"),
        (b"version https://git-lfs", "a Git LFS pointer: fetch the file with `git lfs pull`"),
        (b"<!DOCTYPE", "an HTML page"),
        (b"<html", "an HTML page"),
    ];
    if let Some((_, kind)) = MAGIC.iter().find(|(magic, _)| bytes.starts_with(magic)) {
        return Some(kind);
    }
    if bytes.get(4..8) == Some(b"TFL3") {
        return Some("a TensorFlow Lite model");
    }
    if bytes.get(4..8) == Some(b"ORTM") {
        return Some("a model in ONNX Runtime's own format");
    }
    let head = &bytes[..bytes.len().min(512)];
    let utf8 = std::str::from_utf8(head).map_or_else(|e| e.error_len().is_none(), |_| true);
    let control = |&b: &u8| b < 0x20 && !matches!(b, b'\n' | b'\r' | b'\t') || b == 0x7f;
    (utf8 && !head.is_empty() && !head.iter().any(control)).then_some("a text file")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ModelProto;

    fn message(bytes: &[u8]) -> String {
        decode::<ModelProto>(&Bytes::copy_from_slice(bytes), "an ONNX model").unwrap_err().to_string()
    }

    #[test]
    fn says_what_the_file_is_instead() {
        assert_eq!(message(b""), "the file: got 0 bytes, wanted an ONNX model");
        assert!(
            message(b"hello, this is not a model").contains("got a text file ("),
            "{}",
            message(b"hello")
        );
        assert!(message(b"PK\x03\x04....").contains("a zip archive"));
        assert!(message(b"version https://git-lfs.github.com/spec/v1\n").contains("git lfs pull"));
    }

    #[test]
    fn deep_nesting_is_an_error_not_a_stack_overflow() {
        // graph (7) in a node (1) in an attribute (5) in a graph (6), two thousand deep, inside out
        let mut bytes = vec![];
        for level in 0..6000 {
            let tag = [6u8, 5, 1][level % 3];
            let mut outer = vec![tag << 3 | 2];
            prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
            outer.extend_from_slice(&bytes);
            bytes = outer;
        }
        let mut model = vec![7 << 3 | 2];
        prost::encoding::encode_varint(bytes.len() as u64, &mut model);
        model.extend_from_slice(&bytes);
        assert!(message(&model).contains("recursion limit"), "{}", message(&model));
        // unknown groups, nested: the hole of RUSTSEC-2024-0437
        let groups = vec![15 << 3 | 3; 400_000];
        assert!(message(&groups).contains("recursion limit"), "{}", message(&groups));
    }

    #[test]
    fn lengths_beyond_the_input_do_not_allocate() {
        // graph of 2^62 bytes; raw data of 2^40; packed floats of 2^40
        assert!(
            message(&[7 << 3 | 2, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x40])
                .contains("cut short")
        );
        let mut tensor = vec![5 << 3 | 2, 8, 9 << 3 | 2, 0x80, 0x80, 0x80, 0x80, 0x80, 0x20, 0];
        tensor.splice(0..0, [7 << 3 | 2, 10]);
        assert!(message(&tensor).contains("cut short"));
    }

    #[test]
    fn raw_data_is_a_slice_of_the_input() {
        use crate::proto::{GraphProto, TensorProto};
        let weight = TensorProto { raw_data: Some(vec![7; 4096].into()), ..Default::default() };
        let graph = GraphProto { initializer: vec![weight], ..Default::default() };
        let model = ModelProto { graph: Some(graph), ..Default::default() };
        let bytes = Bytes::from(prost::Message::encode_to_vec(&model));
        let read: ModelProto = decode(&bytes, "an ONNX model").unwrap();
        let data = read.graph.unwrap().initializer.remove(0).raw_data.unwrap();
        let range = bytes.as_ptr_range();
        assert!(range.contains(&data.as_ptr()));
    }
}
