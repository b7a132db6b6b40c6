//! Operators with subgraphs: each body is a segment of its own, compiled for the types it is run with, while the
//! operator's own code walks over the bodies.
use super::Profile;
use crate::segment::{Segment, Shared};
use fcc_ir::infer::infer_body;
use fcc_ir::interp::{call_target, eval_checked};
use fcc_ir::op::{EvalCtx, Fact};
use fcc_ir::schema::check;
use fcc_ir::{Error, Graph, GraphInput, NodeKind, OpNode, Result, Tensor, Value, ValueId, ValueInfo};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A subgraph whose captures have become inputs behind its own, or constants.
pub(crate) struct Body {
    segment: Segment,
    /// Which of the node's captures the further inputs are.
    captures: Vec<usize>,
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Body").field("captures", &self.captures).finish_non_exhaustive()
    }
}

impl Body {
    /// `fixed`: the value of a capture that is the same in every run.
    fn new(graph: &Graph, fixed: &dyn Fn(usize) -> Option<Tensor>, shared: &Arc<Shared>) -> Body {
        let mut graph = graph.clone();
        let mut captures = vec![];
        for id in graph.nodes() {
            let NodeKind::Capture(i) = graph.node(id).kind else { continue };
            let i = i as usize;
            match fixed(i) {
                Some(tensor) => graph.node_mut(id).kind = NodeKind::Constant(tensor.into()),
                None => {
                    let value = ValueId { node: id, output: 0 };
                    let info = ValueInfo::new(graph.value_name(value), graph.ty(value).clone());
                    graph.node_mut(id).kind = NodeKind::Input;
                    graph.inputs.push(GraphInput { node: id, info });
                    captures.push(i);
                }
            }
        }
        Body { segment: Segment::body(graph, shared.clone()), captures }
    }
}

/// The bodies of an operator, none for one without subgraphs.
pub(super) fn bodies(
    op: &OpNode,
    fixed: &dyn Fn(usize) -> Option<Tensor>,
    shared: &Arc<Shared>,
) -> Vec<Body> {
    if !shared.options.kernels || call_target(op, &shared.functions).is_some() || op.op.operator().is_none() {
        return vec![];
    }
    op.attrs.graphs().map(|g| Body::new(g, fixed, shared)).collect()
}

/// Runs an operator over its compiled bodies. `capture` gives the captured value of an index.
pub(super) fn eval(
    op: &OpNode,
    bodies: &[Body],
    inputs: &[Option<Value>],
    capture: &dyn Fn(usize) -> Result<Value>,
    wanted: &[bool],
    profile: Option<&mut Profile>,
) -> Result<Vec<Value>> {
    let profile = RefCell::new(profile);
    let mut captures: BTreeMap<usize, Value> = BTreeMap::new();
    for i in bodies.iter().flat_map(|b| &b.captures) {
        if !captures.contains_key(i) {
            captures.insert(*i, capture(*i)?);
        }
    }
    let subgraph = |g: &Graph, given: Vec<Value>| {
        let body = op.attrs.graphs().zip(bodies).find(|(own, _)| std::ptr::eq(*own, g)).map(|(_, b)| b);
        let body = body.ok_or_else(|| Error::invalid("a subgraph of another node"))?;
        let mut all: Vec<Option<&Value>> = given.iter().map(Some).collect();
        for i in &body.captures {
            all.push(captures.get(i));
        }
        let mut turn = profile.borrow().as_ref().map(|_| Profile::new(false));
        let made = body.segment.run(&all, turn.as_mut())?;
        if let (Some(profile), Some(turn)) = (profile.borrow_mut().as_deref_mut(), turn) {
            profile.add_body(turn);
        }
        Ok(made)
    };
    let operator = op.op.operator().ok_or_else(|| Error::unsupported(format!("operator {}", op.op_type)))?;
    let fact = |v: &Value| Fact::from(v.value_type());
    let facts: Vec<Option<Fact>> = inputs.iter().map(|v| v.as_ref().map(fact)).collect();
    check(op, &facts, wanted.len())?;
    let infer = |g: &Graph, given: &[Fact]| infer_body(g, &[], given, &|i| capture(i).ok());
    eval_checked(operator, &EvalCtx { node: op, inputs, wanted, subgraph: &subgraph, infer: &infer })
}
