//! Tensors as text: elements in braces, and the hash that stands for large ones.

use super::{Constants, number};
use crate::attr::ConstTensor;
use crate::{DType, Elem, Tensor};
use std::fmt::Write;

/// A 64-bit hash of a tensor's data, the same on every machine and in every version of fcc.
///
/// FNV-1a over the packed bytes, taken as little-endian 64-bit words, then over their number, and mixed. Type and
/// shape do not enter: a reshaped weight keeps its hash.
pub fn content_hash(tensor: &Tensor) -> u64 {
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut eat = |bytes: &[u8]| {
        let step = |hash: u64, word: u64| (hash ^ word).wrapping_mul(PRIME).rotate_left(29);
        let mut words = bytes.chunks_exact(8);
        for word in &mut words {
            hash = step(hash, u64::from_le_bytes(word.try_into().unwrap_or_default()));
        }
        let mut tail = [0; 8];
        tail[..words.remainder().len()].copy_from_slice(words.remainder());
        hash = step(hash, u64::from_le_bytes(tail));
        hash = step(hash, bytes.len() as u64);
    };
    match tensor.as_strings() {
        Ok(strings) => strings.iter().for_each(|s| eat(s)),
        Err(_) => eat(tensor.bytes()),
    }
    hash ^= hash >> 32;
    hash = hash.wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash ^ (hash >> 32)
}

/// Appends `float[2,3]`, a scalar as `float`.
pub(super) fn tensor_type(out: &mut String, dtype: DType, shape: &[usize]) {
    out.push_str(dtype.name());
    if !shape.is_empty() {
        let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
        let _ = write!(out, "[{}]", dims.join(","));
    }
}

/// Appends the data: `{1.0, 2.0}`, or `hash 0x…`.
pub(super) fn data(out: &mut String, tensor: &Tensor, constants: Constants) {
    if let Constants::Abbreviated(most) = constants
        && tensor.len() > most
    {
        let _ = write!(out, "hash {:#018x}", content_hash(tensor));
        return;
    }
    out.push('{');
    elements(out, tensor);
    out.push('}');
}

fn list<T>(out: &mut String, items: impl IntoIterator<Item = T>, mut one: impl FnMut(&mut String, T)) {
    for (i, item) in items.into_iter().enumerate() {
        if i > 0 {
            out.push_str(", ");
        }
        one(out, item);
    }
}

/// Integers, and what the syntax shows as integers: the packed bits taken as `T`.
fn integers<T: bytemuck::Pod + std::fmt::Display>(out: &mut String, tensor: &Tensor) {
    let values: Vec<T> = bytemuck::pod_collect_to_vec(tensor.bytes());
    list(out, values, |out, v| {
        let _ = write!(out, "{v}");
    });
}

fn floats<T: Elem>(out: &mut String, tensor: &Tensor, one: fn(&mut String, T)) {
    let values: Vec<T> = bytemuck::pod_collect_to_vec(tensor.bytes());
    list(out, values, one);
}

fn elements(out: &mut String, tensor: &Tensor) {
    use DType::*;
    match tensor.dtype() {
        F32 | C64 => floats(out, tensor, number::f32),
        F64 | C128 => floats(out, tensor, number::f64),
        I8 => integers::<i8>(out, tensor),
        I16 => integers::<i16>(out, tensor),
        I32 => integers::<i32>(out, tensor),
        I64 => integers::<i64>(out, tensor),
        U32 => integers::<u32>(out, tensor),
        U64 => integers::<u64>(out, tensor),
        U16 | F16 | BF16 => integers::<u16>(out, tensor),
        U8 | Bool | F8E4M3FN | F8E4M3FNUZ | F8E5M2 | F8E5M2FNUZ | F8E8M0 => integers::<u8>(out, tensor),
        U4 | I4 | F4E2M1 | U2 | I2 => integers::<u8>(out, tensor),
        F6E2M3 | F6E3M2 => list(out, tensor.unpacked_bits(), |out, v| {
            let _ = write!(out, "{v}");
        }),
        String => list(out, tensor.as_strings().unwrap_or_default(), |out, s| number::quoted(out, s)),
        Undefined => {}
    }
}

/// Appends a tensor as an attribute has it: `float[2] name {1.0, 2.0}`. The name must be bare; where it cannot be, it
/// is for the notes before.
pub(super) fn attribute(out: &mut String, constant: &ConstTensor, constants: Constants) {
    tensor_type(out, constant.tensor.dtype(), constant.tensor.shape());
    out.push(' ');
    if super::print::is_bare_name(&constant.name) {
        out.push_str(&constant.name);
        out.push(' ');
    }
    data(out, &constant.tensor, constants);
}
