//! Moving elements of any type: what all data movement operators are made of.
use crate::limits::{check, counted, reserve};
use crate::{DType, Error, Result, Tensor, elem_count};
use bytes::Bytes;
use std::borrow::Cow;

/// The elements of a tensor, one by one: bytes of a fixed width (sub-byte types unpacked) or strings.
pub enum Elems<'a> {
    /// Bytes of one element, and all elements.
    Fixed(usize, Cow<'a, [u8]>),
    /// Strings.
    Strings(Cow<'a, [Bytes]>),
}

fn outside(i: usize) -> Error {
    Error::invalid(format!("element {i} lies outside the tensor"))
}

impl<'a> Elems<'a> {
    /// The elements of a tensor, borrowed where they are whole bytes.
    pub fn of(t: &'a Tensor) -> Elems<'a> {
        match t.dtype() {
            DType::String => Elems::Strings(Cow::Borrowed(t.as_strings().unwrap_or_default())),
            d if d.bits() < 8 => Elems::Fixed(1, Cow::Owned(t.unpacked_bits())),
            d => Elems::Fixed(d.bits() / 8, Cow::Borrowed(t.bytes())),
        }
    }
    /// No elements of a type, to be appended to.
    pub fn empty(dtype: DType, capacity: usize) -> Elems<'static> {
        match dtype {
            DType::String => Elems::Strings(Cow::Owned(Vec::with_capacity(capacity))),
            d => {
                let width = (d.bits() / 8).max(1);
                Elems::Fixed(width, Cow::Owned(Vec::with_capacity(capacity.saturating_mul(width))))
            }
        }
    }
    /// Appends `n` elements of `from` beginning at `i`. Errors if they are not there or differ in type.
    pub fn extend(&mut self, from: &Elems<'_>, i: usize, n: usize) -> Result<()> {
        match (self, from) {
            (Elems::Fixed(width, to), Elems::Fixed(w, data)) if width == w => {
                let part = i.checked_mul(*w).zip(n.checked_mul(*w));
                let part = part.and_then(|(i, n)| data.get(i..i.checked_add(n)?));
                to.to_mut().extend_from_slice(part.ok_or_else(|| outside(i))?);
                Ok(())
            }
            (Elems::Strings(to), Elems::Strings(data)) => {
                let part = i.checked_add(n).and_then(|end| data.get(i..end));
                to.to_mut().extend_from_slice(part.ok_or_else(|| outside(i))?);
                Ok(())
            }
            _ => Err(Error::invalid("element types differ")),
        }
    }
    /// Sets element `i` to element `j` of `from`. Errors if one is not there or they differ in type.
    pub fn set(&mut self, i: usize, from: &Elems<'_>, j: usize) -> Result<()> {
        match (self, from) {
            (Elems::Fixed(width, to), Elems::Fixed(w, data)) if width == w => {
                let value = data.chunks_exact(*w).nth(j).ok_or_else(|| outside(j))?;
                let place = to.to_mut().chunks_exact_mut(*w).nth(i).ok_or_else(|| outside(i))?;
                place.copy_from_slice(value);
                Ok(())
            }
            (Elems::Strings(to), Elems::Strings(data)) => {
                let value = data.get(j).ok_or_else(|| outside(j))?.clone();
                *to.to_mut().get_mut(i).ok_or_else(|| outside(i))? = value;
                Ok(())
            }
            _ => Err(Error::invalid("element types differ")),
        }
    }
    /// A copy that can be changed.
    pub fn into_owned(self) -> Elems<'static> {
        match self {
            Elems::Fixed(w, d) => Elems::Fixed(w, Cow::Owned(d.into_owned())),
            Elems::Strings(d) => Elems::Strings(Cow::Owned(d.into_owned())),
        }
    }
    /// The tensor of these elements. Errors if their number does not fit the shape.
    pub fn into_tensor(self, dtype: DType, shape: impl Into<Vec<usize>>) -> Result<Tensor> {
        let shape = shape.into();
        match self {
            Elems::Strings(d) => Tensor::from_strings(shape, d.into_owned()),
            Elems::Fixed(_, d) if dtype.bits() >= 8 => {
                Tensor::from_bytes(dtype, shape, counted(Bytes::from(d.into_owned())))
            }
            Elems::Fixed(_, d) => {
                let elems = elem_count(&shape)?;
                if d.len() != elems {
                    return Err(Error::mismatch("tensor data", format!("{} elements", d.len()), elems));
                }
                Tensor::from_unpacked_bits(dtype, shape, &d)
            }
        }
    }
}

/// Tensors above this many elements are not made: a shape out of a broken file would exhaust the memory, and the
/// patience of who waits for it.
pub const MAX_ELEMS: usize = 1 << 31;

/// From this many elements on, memory is asked for before something that aborts without it is begun.
const LARGE_ELEMS: usize = 1 << 24;

/// The number of elements of a tensor to be made. Errors where it is out of all proportion, or does not fit memory.
pub fn new_elems(shape: &[usize]) -> Result<usize> {
    let n = elem_count(shape)?;
    if n > MAX_ELEMS {
        return Err(Error::unsupported(format!("a tensor {shape:?} of {n} elements, more than {MAX_ELEMS}")));
    }
    if n >= LARGE_ELEMS && !fits_memory(n.saturating_mul(LARGE_ELEM_BYTES)) {
        return Err(Error::unsupported(format!("a tensor {shape:?} of {n} elements, more than fit memory")));
    }
    Ok(n)
}

/// As [`new_elems`], and asks for room for elements of this type under the limit of memory that is in force.
fn room(dtype: DType, shape: &[usize]) -> Result<usize> {
    let n = new_elems(shape)?;
    reserve(dtype.byte_len(n).unwrap_or(n))?;
    Ok(n)
}

/// What an operator holds for an element while it computes: the widest element, or one of 8 bytes in and out.
const LARGE_ELEM_BYTES: usize = 16;
/// Texts above this many bytes in one tensor are not made.
const MAX_TEXT_BYTES: usize = 1 << 31;

/// What a text takes beside its bytes: its place in a list that is made and in the one that is kept, and a block of
/// its own.
const TEXT_BYTES: usize = 96;

/// As [`new_elems`] for elements of this type: texts take more than numbers.
pub fn new_elems_of(dtype: DType, shape: &[usize]) -> Result<usize> {
    let n = new_elems(shape)?;
    if dtype == DType::String {
        new_text([n.saturating_mul(TEXT_BYTES)])?;
    }
    Ok(n)
}

/// Errors where texts to be made take too many bytes in all, or do not fit memory or the limits in force: a tensor of
/// strings has no size that follows from its shape.
pub fn new_text(bytes: impl IntoIterator<Item = usize>) -> Result<()> {
    let bytes = bytes.into_iter().fold(0usize, usize::saturating_add);
    if bytes > MAX_TEXT_BYTES || bytes >= LARGE_ELEMS && !fits_memory(bytes.saturating_mul(2)) {
        return Err(Error::unsupported(format!(
            "texts of {bytes} bytes, more than {MAX_TEXT_BYTES} or memory"
        )));
    }
    crate::limits::reserve(bytes)
}

fn fits_memory(bytes: usize) -> bool {
    Vec::<u8>::new().try_reserve_exact(bytes).is_ok()
}

/// Row-major element strides.
pub fn strides(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i];
    }
    strides
}

/// Calls `f` with the sum of one offset of each axis but the last, in row-major order.
fn each_row(axes: &[Vec<usize>], base: usize, f: &mut dyn FnMut(usize) -> Result<()>) -> Result<()> {
    match axes {
        [] => f(base),
        [first, rest @ ..] => {
            first.iter().try_for_each(|o| check().and_then(|()| each_row(rest, base + o, f)))
        }
    }
}

/// `y[i, j, …] = t.data[axes[0][i] + axes[1][j] + …]`: each output axis lists the offset of its positions.
pub fn select(t: &Tensor, axes: &[Vec<usize>]) -> Result<Tensor> {
    let shape: Vec<usize> = axes.iter().map(Vec::len).collect();
    let from = Elems::of(t);
    let mut out = Elems::empty(t.dtype(), room(t.dtype(), &shape)?);
    let (inner, outer) = axes.split_last().map_or((None, axes), |(l, o)| (Some(l), o));
    let inner: &[usize] = inner.map_or(&[0], Vec::as_slice);
    if inner.is_empty() || outer.iter().any(Vec::is_empty) {
        return out.into_tensor(t.dtype(), shape);
    }
    let consecutive = inner.windows(2).all(|w| w[1] == w[0] + 1);
    each_row(outer, 0, &mut |row| {
        if consecutive {
            out.extend(&from, row + inner[0], inner.len())
        } else {
            inner.iter().try_for_each(|i| out.extend(&from, row + i, 1))
        }
    })?;
    out.into_tensor(t.dtype(), shape)
}

/// As [`select`], with `fill` (one element of the same type) wherever an axis has no offset.
pub fn select_or(t: &Tensor, axes: &[Vec<Option<usize>>], fill: &Tensor) -> Result<Tensor> {
    fn walk(
        axes: &[Vec<Option<usize>>],
        at: Option<usize>,
        f: &mut dyn FnMut(Option<usize>) -> Result<()>,
    ) -> Result<()> {
        match axes {
            [] => f(at),
            [first, rest @ ..] => {
                first.iter().try_for_each(|o| walk(rest, at.zip(*o).map(|(a, o)| a + o), f))
            }
        }
    }
    let shape: Vec<usize> = axes.iter().map(Vec::len).collect();
    if fill.dtype() != t.dtype() {
        return Err(Error::mismatch("element type of the fill value", fill.dtype(), t.dtype()));
    }
    let (from, fill) = (Elems::of(t), Elems::of(fill));
    let mut out = Elems::empty(t.dtype(), room(t.dtype(), &shape)?);
    if !shape.contains(&0) {
        walk(axes, Some(0), &mut |at| match at {
            Some(i) => out.extend(&from, i, 1),
            None => out.extend(&fill, 0, 1),
        })?;
    }
    out.into_tensor(t.dtype(), shape)
}

/// The elements at linear indices, as a tensor of `shape`.
pub fn take(t: &Tensor, shape: impl Into<Vec<usize>>, at: &[usize]) -> Result<Tensor> {
    let from = Elems::of(t);
    let mut out = Elems::empty(t.dtype(), room(t.dtype(), &[at.len()])?);
    at.iter().try_for_each(|&i| out.extend(&from, i, 1))?;
    out.into_tensor(t.dtype(), shape)
}

/// One offset list for each axis of a shape: reads it as it is. The start for changing some of them.
pub fn whole(shape: &[usize]) -> Vec<Vec<usize>> {
    shape.iter().zip(strides(shape)).map(|(&n, s)| (0..n).map(|i| i * s).collect()).collect()
}

/// The tensors one after another along an axis. Errors if other extents or the element types differ.
pub fn concat(parts: &[&Tensor], axis: usize) -> Result<Tensor> {
    let Some(first) = parts.first() else { return Err(Error::invalid("nothing to concatenate")) };
    let mut shape = first.shape().to_vec();
    if axis >= shape.len() {
        return Err(Error::mismatch("axis", axis, format!("below {}", shape.len())));
    }
    shape[axis] = 0;
    for p in parts {
        let fits = p.rank() == shape.len()
            && p.dtype() == first.dtype()
            && p.shape().iter().zip(first.shape()).enumerate().all(|(i, (a, b))| i == axis || a == b);
        if !fits {
            return Err(Error::mismatch("concatenation", p.tensor_type(), first.tensor_type()));
        }
        shape[axis] = shape[axis]
            .checked_add(p.shape()[axis])
            .ok_or_else(|| Error::invalid("concatenated extent overflows"))?;
    }
    let mut out = Elems::empty(first.dtype(), room(first.dtype(), &shape)?);
    let elems: Vec<Elems<'_>> = parts.iter().map(|p| Elems::of(p)).collect();
    let inner: usize = shape[axis + 1..].iter().product();
    for row in 0..shape[..axis].iter().product() {
        for (p, from) in parts.iter().zip(&elems) {
            let n = p.shape()[axis] * inner;
            out.extend(from, row * n, n)?;
        }
    }
    out.into_tensor(first.dtype(), shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn four_bit_elements_and_strings_move_alike() {
        let axes = [vec![0, 1, 2], vec![0, 3]];
        let t = Tensor::from_unpacked_bits(DType::U4, vec![2, 3], &[1, 2, 3, 4, 5, 6]).unwrap();
        assert_eq!(select(&t, &axes).unwrap().unpacked_bits(), [1, 4, 2, 5, 3, 6]);
        let s = Tensor::from_strings(vec![2, 3], ["a", "b", "c", "d", "e", "f"]).unwrap();
        assert_eq!(select(&s, &axes).unwrap().as_strings().unwrap().concat(), b"adbecf");
    }

    #[test]
    fn an_index_outside_is_an_error() {
        let t = Tensor::from_i64s([1, 2]);
        assert!(take(&t, vec![1], &[2]).is_err());
        assert!(take(&t, vec![1], &[usize::MAX]).is_err());
    }

    #[test]
    fn parts_follow_each_other_along_the_axis() {
        let a = Tensor::new(vec![2, 1], vec![1i32, 4]).unwrap();
        let b = Tensor::new(vec![2, 2], vec![2i32, 3, 5, 6]).unwrap();
        assert_eq!(*concat(&[&a, &b], 1).unwrap().as_slice::<i32>().unwrap(), [1, 2, 3, 4, 5, 6]);
        assert!(concat(&[&a, &b], 0).is_err());
    }
}
