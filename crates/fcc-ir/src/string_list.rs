//! Lists of byte strings in which few strings stand often, as the modes of a tree ensemble's nodes.
use bytes::Bytes;
use std::collections::HashMap;
use std::fmt;
use std::ops::Index;
use std::sync::Arc;

/// An immutable list of byte strings, cheap to clone. Each distinct string is stored once, each element is a number:
/// four bytes.
#[derive(Clone, Default)]
pub struct StringList {
    distinct: Arc<[Bytes]>,
    /// For each element its place in `distinct`.
    elems: Arc<[u32]>,
}

impl StringList {
    /// The number of elements.
    pub fn len(&self) -> usize {
        self.elems.len()
    }
    /// Whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.elems.is_empty()
    }
    /// Element `i`, if there are as many.
    pub fn get(&self, i: usize) -> Option<&Bytes> {
        Some(&self.distinct[*self.elems.get(i)? as usize])
    }
    /// The elements in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Bytes> + Clone {
        self.elems.iter().map(|e| &self.distinct[*e as usize])
    }
    /// Whether two lists are one in memory.
    pub fn shares(&self, other: &StringList) -> bool {
        Arc::ptr_eq(&self.distinct, &other.distinct) && Arc::ptr_eq(&self.elems, &other.elems)
    }
    /// Every distinct string once, and for each element its place among them.
    pub fn parts(&self) -> (&[Bytes], &[u32]) {
        (&self.distinct, &self.elems)
    }
}

impl Index<usize> for StringList {
    type Output = Bytes;
    fn index(&self, i: usize) -> &Bytes {
        &self.distinct[self.elems[i] as usize]
    }
}

impl<T: Into<Bytes>> FromIterator<T> for StringList {
    fn from_iter<I: IntoIterator<Item = T>>(strings: I) -> Self {
        let (mut distinct, mut places) = (vec![], HashMap::new());
        let elems = strings.into_iter().map(|s| {
            *places.entry(s.into()).or_insert_with_key(|s: &Bytes| {
                distinct.push(s.clone());
                // a list of 2^32 distinct strings is far larger than any file of protobuf
                distinct.len() as u32 - 1
            })
        });
        let elems = elems.collect();
        StringList { distinct: distinct.into(), elems }
    }
}

impl From<Vec<Bytes>> for StringList {
    fn from(strings: Vec<Bytes>) -> Self {
        strings.into_iter().collect()
    }
}

impl PartialEq for StringList {
    fn eq(&self, other: &Self) -> bool {
        self.len() == other.len() && self.iter().eq(other.iter())
    }
}

impl fmt::Debug for StringList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_come_back_in_order_and_equal_ones_share_a_place() {
        let strings = ["a", "b", "a", "", "b"].map(|s| Bytes::from_static(s.as_bytes()));
        let list = StringList::from(strings.to_vec());
        assert!(list.iter().eq(strings.iter()));
        assert_eq!(list.parts().1, [0, 1, 0, 2, 1]);
        assert_eq!((&list[2], list.get(3), list.get(5)), (&strings[0], Some(&strings[3]), None));
        assert_eq!(list, strings[..].iter().cloned().collect());
        assert_ne!(list, StringList::default());
    }
}
