//! The names that values have in a file.
use super::{Graph, NodeId, NodeKind, ValueId};
use crate::{Error, Result};
use std::collections::HashMap;

/// A node that holds subgraphs: what they capture, and the names of the graph it stands in.
#[derive(Debug, Clone)]
pub struct Owner<'a> {
    names: Names<'a>,
    captures: HashMap<u32, ValueId>,
}

impl<'a> Owner<'a> {
    /// A node of the graph that `names` is of.
    pub fn new(names: Names<'a>, node: NodeId) -> Self {
        Owner { names, captures: names.graph.captures(node).collect() }
    }
}

/// The names of a graph's values. A captured value has the name that the graph around it gives it.
#[derive(Debug, Clone, Copy)]
pub struct Names<'a> {
    graph: &'a Graph,
    owner: Option<&'a Owner<'a>>,
}

impl<'a> Names<'a> {
    /// Of a graph; of a subgraph with the node that owns it.
    pub fn new(graph: &'a Graph, owner: Option<&'a Owner<'a>>) -> Self {
        Names { graph, owner }
    }

    /// The graph.
    pub fn graph(&self) -> &'a Graph {
        self.graph
    }

    /// The name of a value. Errors on a capture that no graph around gives.
    pub fn name(&self, value: ValueId) -> Result<&'a str> {
        let NodeKind::Capture(index) = self.graph.node(value.node).kind else {
            return Ok(self.graph.value_name(value));
        };
        let missing = || {
            let name = self.graph.value_name(value);
            Error::mismatch(
                "captured value",
                format!("`{name}`, which no graph around has"),
                "a value of one",
            )
        };
        let owner = self.owner.ok_or_else(missing)?;
        owner.names.name(*owner.captures.get(&index).ok_or_else(missing)?)
    }

    /// Errors if the name of a captured value means another value inside.
    pub fn check_captures(&self) -> Result<()> {
        for id in self.graph.nodes() {
            if let NodeKind::Capture(_) = self.graph.node(id).kind {
                let name = self.name(ValueId { node: id, output: 0 })?;
                if self.graph.value(name).is_some_and(|inner| inner.node != id) {
                    return Err(Error::mismatch("captured value", format!("`{name}` twice"), "unique names"));
                }
            }
        }
        Ok(())
    }
}
