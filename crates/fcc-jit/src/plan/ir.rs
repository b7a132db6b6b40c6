//! What a specialised graph becomes before code is made: values of known shape, and nodes whose kind says how they
//! will be computed. Passes rewrite it; it is private to compilation.
use fcc_ir::{OpNode, Tensor, ValueType};

/// A value of a [`Program`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Vx(pub u32);

impl Vx {
    pub fn at(self) -> usize {
        self.0 as usize
    }
}

/// A value: its type, and its data if it is the same in every run.
#[derive(Debug, Clone)]
pub(crate) struct Val {
    pub name: String,
    pub ty: ValueType,
    pub constant: Option<Tensor>,
}

/// How a node is computed.
#[derive(Debug, Clone)]
pub(crate) enum Kind {
    /// By the interpreter. The last `captures` inputs are what the operator's subgraphs see.
    Interpret { op: Box<OpNode>, captures: usize },
}

/// One node: what it reads and makes, by slot.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    /// How errors and profiles call it.
    pub place: String,
    pub kind: Kind,
    pub inputs: Vec<Option<Vx>>,
    pub outputs: Vec<Option<Vx>>,
}

/// A specialised region: nodes in an order in which producers come first.
#[derive(Debug, Clone, Default)]
pub(crate) struct Program {
    pub vals: Vec<Val>,
    pub nodes: Vec<Node>,
    /// Values given by the caller.
    pub inputs: Vec<Vx>,
    /// Values the caller wants: outputs of the graph and what the next region needs.
    pub outputs: Vec<Vx>,
}

impl Program {
    pub fn add(&mut self, val: Val) -> Vx {
        self.vals.push(val);
        Vx(self.vals.len() as u32 - 1)
    }
    pub fn val(&self, v: Vx) -> &Val {
        &self.vals[v.at()]
    }
}
