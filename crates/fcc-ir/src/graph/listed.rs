//! The inputs and outputs of a graph: in order, and found by what they are without a walk over all of them.
use super::{GraphInput, GraphOutput, NodeId, ValueId};
use crate::ValueInfo;
use std::collections::HashMap;
use std::hash::Hash;
use std::ops::Deref;

/// What stands in a [`Listed`].
pub trait Item {
    /// What it is found by.
    type Key: Copy + Eq + Hash;
    /// What it is found by.
    fn key(&self) -> Self::Key;
    /// What the file declares.
    fn info_mut(&mut self) -> &mut ValueInfo;
}

impl Item for GraphInput {
    type Key = NodeId;
    fn key(&self) -> NodeId {
        self.node
    }
    fn info_mut(&mut self) -> &mut ValueInfo {
        &mut self.info
    }
}

impl Item for GraphOutput {
    type Key = ValueId;
    fn key(&self) -> ValueId {
        self.value
    }
    fn info_mut(&mut self) -> &mut ValueInfo {
        &mut self.info
    }
}

/// A list, read as a slice, that knows how often each key stands in it.
#[derive(Debug, Clone)]
pub struct Listed<T: Item> {
    items: Vec<T>,
    counts: HashMap<T::Key, usize>,
}

impl<T: Item> Default for Listed<T> {
    fn default() -> Self {
        Listed { items: vec![], counts: HashMap::new() }
    }
}

impl<T: Item> Deref for Listed<T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.items
    }
}

impl<'a, T: Item> IntoIterator for &'a Listed<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;
    fn into_iter(self) -> Self::IntoIter {
        self.items.iter()
    }
}

impl<T: Item> IntoIterator for Listed<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;
    fn into_iter(self) -> Self::IntoIter {
        self.items.into_iter()
    }
}

impl<T: Item> FromIterator<T> for Listed<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut listed = Listed::default();
        items.into_iter().for_each(|item| listed.push(item));
        listed
    }
}

impl<T: Item> Listed<T> {
    /// How often the key stands in the list.
    pub fn count(&self, key: T::Key) -> usize {
        self.counts.get(&key).copied().unwrap_or(0)
    }
    /// Appends an item.
    pub fn push(&mut self, item: T) {
        *self.counts.entry(item.key()).or_insert(0) += 1;
        self.items.push(item);
    }
    /// Keeps the items that `keep` says.
    pub fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        let mut items = std::mem::take(&mut self.items);
        items.retain(keep);
        *self = items.into_iter().collect();
    }
    /// Removes all items.
    pub fn clear(&mut self) {
        *self = Listed::default();
    }
    /// The items, to change what the file declares of them; what they are found by stays as it is.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.items.iter_mut()
    }
    /// One item, to change as with [`Listed::iter_mut`].
    pub fn get_mut(&mut self, i: usize) -> Option<&mut T> {
        self.items.get_mut(i)
    }
    /// What the file declares of each, to change.
    pub fn infos_mut(&mut self) -> impl Iterator<Item = &mut ValueInfo> {
        self.items.iter_mut().map(Item::info_mut)
    }
}

impl Listed<GraphOutput> {
    /// Has `new` stand wherever `old` stood.
    pub(super) fn replace(&mut self, old: ValueId, new: ValueId) {
        let Some(n) = self.counts.remove(&old) else { return };
        *self.counts.entry(new).or_insert(0) += n;
        self.items.iter_mut().filter(|o| o.value == old).for_each(|o| o.value = new);
    }
}
