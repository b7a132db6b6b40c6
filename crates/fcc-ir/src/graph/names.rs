//! The names that values have in a file.
use super::{Graph, NodeId, NodeKind, Slot, ValueId};
use crate::{Error, Result};

/// A node that holds subgraphs, and the names of the graph it stands in.
#[derive(Debug, Clone, Copy)]
pub struct Owner<'a> {
    /// Names of the graph that holds the node.
    pub names: Names<'a>,
    /// The node.
    pub node: NodeId,
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
        let outer = owner.names.graph.slot(owner.node, Slot::Capture(index)).ok_or_else(missing)?;
        owner.names.name(outer)
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
