//! What is decided when a plan is made: an `If` whose condition is known becomes the branch that it takes, and a call
//! of a model's function becomes the function's body.
use crate::segment::Shared;
use fcc_ir::infer::Facts;
use fcc_ir::interp::{bind_attributes, call_target};
use fcc_ir::{Function, Graph, NodeId, Op, Result, Tensor};

/// Bodies put in place in one plan; what is left then (only endless recursion gets there) stays a step.
const MOST: usize = 10_000;

/// Splices every node that `facts` decide, and returns how many that were: what they bring is to be inferred, and may
/// hold others. `done` of them were spliced before.
pub(crate) fn settle(graph: &mut Graph, facts: &Facts, shared: &Shared, done: usize) -> Result<usize> {
    let mut spliced = 0;
    for id in graph.ops()? {
        if done + spliced >= MOST {
            break;
        }
        let Some(body) = body(graph, facts, &shared.functions, id)? else { continue };
        let inputs = match graph.op(id) {
            Some(op) if op.op == Op::If => vec![],
            _ => graph.inputs_of(id),
        };
        graph.splice(id, &body, &inputs)?;
        spliced += 1;
    }
    if spliced > 0 {
        graph.sweep(|op| shared.effects.has(op));
    }
    Ok(spliced)
}

fn body(graph: &Graph, facts: &Facts, functions: &[Function], id: NodeId) -> Result<Option<Graph>> {
    let Some(op) = graph.op(id) else { return Ok(None) };
    if let Some(f) = call_target(op, functions) {
        return bind_attributes(f, &op.attrs).map(Some);
    }
    if op.op != Op::If {
        return Ok(None);
    }
    let condition = graph.input(id, 0).and_then(|v| facts.get(v).value);
    let Some(taken) = condition.as_ref().and_then(truth) else { return Ok(None) };
    let branch = if taken { "then_branch" } else { "else_branch" };
    op.attrs.need_graph(branch).cloned().map(Some)
}

fn truth(t: &Tensor) -> Option<bool> {
    match t.as_bools().ok()?[..] {
        [b] => Some(b),
        _ => None,
    }
}
