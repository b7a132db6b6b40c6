//! Which operators may do more than make values: what removes unused nodes spares them.
use super::{Graph, OpNode};
use crate::{Function, Op};
use std::collections::HashSet;

/// Operators that fcc does not know may do anything, and so may whatever holds one: a subgraph's owner, a call of a
/// function. Built once for a model's functions.
#[derive(Debug, Default)]
pub struct Effects {
    /// Functions without such operators: domain, name, overload.
    pure: HashSet<(String, String, String)>,
}

impl Effects {
    /// Looks at a model's functions.
    pub fn new(functions: &[Function]) -> Effects {
        let mut effects = Effects { pure: functions.iter().map(key).collect() };
        // a function that calls one with effects has effects: until nothing changes
        loop {
            let found: Vec<_> = functions
                .iter()
                .map(|f| (key(f), &f.body))
                .filter(|(key, body)| effects.pure.contains(key) && effects.in_graph(body))
                .map(|(key, _)| key)
                .collect();
            if found.is_empty() {
                return effects;
            }
            for key in found {
                effects.pure.remove(&key);
            }
        }
    }
    /// Whether an operator may do more than make its values.
    pub fn has(&self, op: &OpNode) -> bool {
        let unknown = op.op == Op::Opaque
            && !self.pure.contains(&(op.domain.clone(), op.op_type.clone(), op.overload.clone()));
        unknown || op.attrs.graphs().any(|g| self.in_graph(g))
    }
    fn in_graph(&self, graph: &Graph) -> bool {
        graph.nodes().into_iter().any(|id| graph.op(id).is_some_and(|op| self.has(op)))
    }
}

fn key(f: &Function) -> (String, String, String) {
    (f.domain.clone(), f.name.clone(), f.overload.clone())
}
