//! Weights as a model file holds them.

use std::ops::Range;

/// f32s at any alignment, read one by one: the elements of a slice, or of a part of a mapped file that begins where the
/// file happens to have them. Nothing is copied.
#[derive(Clone, Copy, Debug)]
pub struct Floats<'a>(&'a [[u8; 4]]);

impl<'a> Floats<'a> {
    /// The elements of little-endian bytes; bytes behind the last whole element are left out.
    pub fn of_bytes(bytes: &'a [u8]) -> Floats<'a> {
        Floats(bytes.as_chunks().0)
    }
    /// Elements.
    pub fn len(self) -> usize {
        self.0.len()
    }
    /// Whether there are none.
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }
    /// Element `i`. Panics as a slice does.
    pub fn at(self, i: usize) -> f32 {
        f32::from_le_bytes(self.0[i])
    }
    /// Some of the elements. Panics as a slice does.
    pub fn part(self, range: Range<usize>) -> Floats<'a> {
        Floats(&self.0[range])
    }
    /// The elements in order.
    pub fn iter(self) -> impl Iterator<Item = f32> + 'a {
        self.0.iter().map(|b| f32::from_le_bytes(*b))
    }
    /// Runs of `n` elements (at least 1), the last one shorter if need be.
    pub fn chunks(self, n: usize) -> impl Iterator<Item = Floats<'a>> {
        self.0.chunks(n.max(1)).map(Floats)
    }
}

impl<'a> From<&'a [f32]> for Floats<'a> {
    fn from(values: &'a [f32]) -> Floats<'a> {
        Floats::of_bytes(bytemuck::cast_slice(values))
    }
}

impl<'a> From<&'a Vec<f32>> for Floats<'a> {
    fn from(values: &'a Vec<f32>) -> Floats<'a> {
        values.as_slice().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_the_same_at_every_alignment() {
        let values: Vec<f32> = (0..37).map(|i| i as f32 * 1.25 - 7.0).collect();
        for shift in 0..8 {
            let mut bytes = vec![0xaa; shift];
            bytes.extend(values.iter().flat_map(|v| v.to_le_bytes()));
            bytes.extend([1, 2, 3]);
            let floats = Floats::of_bytes(&bytes[shift..]);
            assert_eq!(floats.len(), values.len());
            assert_eq!(floats.iter().collect::<Vec<_>>(), values);
            assert_eq!(floats.part(3..9).at(2), values[5]);
            let chunks: Vec<Vec<f32>> = floats.chunks(10).map(|c| c.iter().collect()).collect();
            assert_eq!(chunks, values.chunks(10).map(<[f32]>::to_vec).collect::<Vec<_>>());
        }
        assert!(Floats::from(&[][..]).is_empty());
    }
}
