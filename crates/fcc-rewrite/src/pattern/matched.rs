//! What a pattern found.
use crate::rule::Declined;
use fcc_ir::{NodeId, Tensor, ValueId};
use std::collections::BTreeMap;

/// A match of a pattern: which value each variable stands for.
#[derive(Debug, Clone, Default)]
pub struct Matched {
    pub(super) values: BTreeMap<String, ValueId>,
    pub(super) tensors: BTreeMap<String, Tensor>,
    /// Values of [`any`](super::any) that are not constant.
    pub(super) sources: Vec<ValueId>,
    pub(super) nodes: Vec<NodeId>,
    pub(super) roots: Vec<ValueId>,
}

impl Matched {
    /// The value of a variable, a constant or a named node. Errs if the pattern has no such name, or this match took
    /// an alternative without it.
    pub fn value(&self, name: &str) -> Result<ValueId, Declined> {
        self.values.get(name).copied().ok_or_else(|| unknown(name))
    }
    /// The tensor of a [`constant`](super::constant).
    pub fn tensor(&self, name: &str) -> Result<&Tensor, Declined> {
        self.tensors.get(name).ok_or_else(|| unknown(name))
    }
    /// A node that the pattern gives a name.
    pub fn node(&self, name: &str) -> Result<NodeId, Declined> {
        self.value(name).map(|v| v.node)
    }
    /// Whether this match has a value of the name.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }
    /// The values that the rule replaces, one for each root of the pattern.
    pub fn roots(&self) -> &[ValueId] {
        &self.roots
    }
}

fn unknown(name: &str) -> Declined {
    Declined::new("name of the pattern", format!("`{name}`"), "one that this match has")
}
