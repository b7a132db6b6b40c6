//! What one inference may spend beyond a pass over the nodes: a small file must not ask for more.
use crate::op::{DimTensor, Fact};
use crate::{Dim, Graph, Shape, TensorType, ValueType};
use std::cell::Cell;

/// Nodes of bodies (of functions, of `If`, `Loop`, `Scan`) that are looked at, each as often as it is: loops that nest
/// and functions that call each other multiply. Beyond, what a body makes is unknown.
pub(super) const BODY_NODES: usize = 1 << 18;
/// What is followed of symbolic expressions and integer vectors, in units of [`Dim::size`], each as often as a node
/// reads or makes it. Beyond, extents that are neither numbers nor short are unknown.
const TERMS: usize = 1 << 22;
/// Bytes that values computed in inference may take together. Beyond, only their types are known.
const FOLDED_BYTES: usize = 1 << 26;
/// A fact of up to this size costs nothing: its cost is that of the node that makes it.
const FREE_TERMS: usize = 64;

/// What is left of the bounds above. One budget serves a graph with everything inside of it.
#[derive(Debug)]
pub(super) struct Budget {
    body_nodes: Cell<usize>,
    terms: Cell<usize>,
    folded_bytes: Cell<usize>,
}

impl Default for Budget {
    fn default() -> Self {
        Budget {
            body_nodes: Cell::new(BODY_NODES),
            terms: Cell::new(TERMS),
            folded_bytes: Cell::new(FOLDED_BYTES),
        }
    }
}

/// Takes `n` of what is left; takes nothing and answers false where that is too much.
fn spend(left: &Cell<usize>, n: usize) -> bool {
    let rest = left.get().checked_sub(n);
    left.set(rest.unwrap_or(left.get()));
    rest.is_some()
}

impl Budget {
    /// Pays for a look at a body.
    pub(super) fn body(&self, body: &Graph) -> bool {
        spend(&self.body_nodes, body.node_count() + 1)
    }
    /// Pays for a computed value.
    pub(super) fn folded(&self, bytes: usize) -> bool {
        spend(&self.folded_bytes, bytes)
    }
    /// Pays for a fact that a node reads or makes, in one piece or without its long parts. A rank above
    /// [`TensorType::MAX_RANK`] is no shape that fcc knows.
    pub(super) fn fact(&self, mut fact: Fact) -> Fact {
        unrank(&mut fact.ty);
        let cost = shapes(&fact.ty).flatten().map(Dim::size).sum::<usize>()
            + fact.dims.iter().flat_map(DimTensor::elems).map(Dim::size).sum::<usize>();
        if cost <= FREE_TERMS || spend(&self.terms, cost) {
            return fact;
        }
        fact.dims = None;
        fact.ty.for_each_dim(&mut |d| {
            if d.size() > 2 {
                *d = Dim::Unknown;
            }
        });
        fact
    }
}

/// The shapes in a type.
fn shapes(ty: &ValueType) -> impl Iterator<Item = &Shape> {
    let mut ty = ty;
    loop {
        match ty {
            ValueType::Sequence(t) | ValueType::Optional(t) | ValueType::Map(_, t) => ty = t,
            ValueType::Tensor(t) | ValueType::SparseTensor(t) => return t.shape.iter(),
            ValueType::Unknown | ValueType::Opaque(..) => return None.iter(),
        }
    }
}

fn unrank(ty: &mut ValueType) {
    match ty {
        ValueType::Sequence(t) | ValueType::Optional(t) | ValueType::Map(_, t) => unrank(t),
        ValueType::Tensor(t) | ValueType::SparseTensor(t) => {
            t.shape.take_if(|s| s.len() > TensorType::MAX_RANK);
        }
        ValueType::Unknown | ValueType::Opaque(..) => {}
    }
}
