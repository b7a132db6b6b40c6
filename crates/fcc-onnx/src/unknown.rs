//! Fields that the schema does not have.
//!
//! prost skips them without a word. A model that is written back would lose them, and one whose bytes were damaged
//! might only lose an attribute, so they are looked for.

use prost::encoding::{WireType, decode_key, decode_varint};

use crate::proto::FIELDS;
use crate::{Error, ErrorKind, Result};

/// Errors on the first field of a message that its schema does not have. The bytes must be decodable.
pub(crate) fn refuse(bytes: &[u8], message: &str) -> Result<()> {
    let Some(index) = FIELDS.iter().position(|(name, _)| *name == message) else { return Ok(()) };
    walk(bytes, index, 0, &mut vec![])
}

fn walk(bytes: &[u8], message: usize, start: usize, path: &mut Vec<&'static str>) -> Result<()> {
    let Some((name, fields)) = FIELDS.get(message) else { return Ok(()) };
    let mut rest = bytes;
    while !rest.is_empty() {
        let at = start + (bytes.len() - rest.len());
        let (number, wire) = decode_key(&mut rest).map_err(damaged)?;
        let unknown = || {
            let place = if path.is_empty() { String::new() } else { format!("{}: ", path.join(".")) };
            let message =
                format!("{place}field {number} at byte {at}: got one that {name} of IR 14 does not have");
            Error::new(
                ErrorKind::Unsupported,
                format!("{message}, wanted only fields that can be written back"),
            )
        };
        let field = fields.binary_search_by_key(&number, |(n, ..)| *n).map_err(|_| unknown())?;
        let skipped = match wire {
            WireType::Varint => {
                decode_varint(&mut rest).map_err(damaged)?;
                0
            }
            WireType::ThirtyTwoBit => 4,
            WireType::SixtyFourBit => 8,
            WireType::LengthDelimited => {
                usize::try_from(decode_varint(&mut rest).map_err(damaged)?).map_err(|_| short())?
            }
            WireType::StartGroup | WireType::EndGroup => return Err(unknown()),
        };
        let (inside, after) = rest.split_at_checked(skipped).ok_or_else(short)?;
        if let Some((_, name, Some(inner))) = fields.get(field)
            && wire == WireType::LengthDelimited
        {
            path.push(name);
            let offset = start + (bytes.len() - rest.len());
            walk(inside, *inner, offset, path)?;
            path.pop();
        }
        rest = after;
    }
    Ok(())
}

fn damaged(error: prost::DecodeError) -> Error {
    Error::new(ErrorKind::Malformed, error.to_string())
}

fn short() -> Error {
    Error::mismatch(ErrorKind::Malformed, "a field", "more bytes than its message", "fewer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_place_of_a_field_that_is_not_in_the_schema() {
        // graph { node { op_type: "A", field 100: 1 } } after ir_version 8
        let node = [0x22, 1, b'A', 0xa0, 0x06, 1];
        let mut model = vec![8, 8, 0x3a, 8, 0x0a, 6];
        model.extend(node);
        let error = refuse(&model, "ModelProto").unwrap_err().to_string();
        assert!(error.starts_with("graph.node: field 100 at byte 9: got one that NodeProto"), "{error}");
        model.truncate(9);
        model[3] = 5;
        model[5] = 3;
        refuse(&model, "ModelProto").unwrap();
        assert!(refuse(&[0x7b, 0x7c], "ModelProto").unwrap_err().to_string().contains("field 15"));
    }
}
