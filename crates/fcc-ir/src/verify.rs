//! The verifier: invariants that every graph keeps, checked after import and after each pass.
use crate::graph::{NodeKind, Slot};
use crate::interp::call_target;
use crate::{Error, Function, Graph, Model, Result, ValueId};
use std::collections::BTreeSet;

/// Checks a whole model. Errors with the first violation.
pub fn verify(model: &Model) -> Result<()> {
    verify_graph(&model.graph, 0)?;
    for f in &model.functions {
        verify_graph(&f.body, 0).map_err(|e| e.at(format!("function `{}`", f.name)))?;
    }
    verify_calls(&model.functions)
}

/// Functions call each other at most this deep.
const MAX_CALLS: usize = 64;

/// Checks that no function calls itself, directly or through others, and that calls do not nest too deep.
fn verify_calls(functions: &[Function]) -> Result<()> {
    let mut depths = vec![None; functions.len()];
    (0..functions.len()).try_for_each(|i| call_depth(functions, i, &mut depths, &mut vec![]).map(|_| ()))
}

/// How deep calls nest in the function of this index; `open` are those being looked at.
fn call_depth(
    functions: &[Function],
    index: usize,
    depths: &mut [Option<usize>],
    open: &mut Vec<usize>,
) -> Result<usize> {
    let Some(function) = functions.get(index) else { return Ok(0) };
    if let Some(known) = depths.get(index).copied().flatten() {
        return Ok(known);
    }
    let place = format!("function `{}`", function.name);
    if open.contains(&index) {
        return Err(Error::mismatch(place, "calls of itself", "none"));
    }
    let mut callees = BTreeSet::new();
    collect_callees(&function.body, functions, &mut callees);
    open.push(index);
    let mut deepest = 0;
    for callee in callees {
        // a chain is cut before it is followed: this function must not overflow the stack either
        let inner =
            if open.len() < MAX_CALLS { call_depth(functions, callee, depths, open)? } else { MAX_CALLS };
        deepest = deepest.max(inner + 1);
    }
    open.pop();
    if deepest > MAX_CALLS {
        return Err(Error::mismatch(place, "calls nested deeper", format!("at most {MAX_CALLS} levels")));
    }
    if let Some(slot) = depths.get_mut(index) {
        *slot = Some(deepest);
    }
    Ok(deepest)
}

fn collect_callees(graph: &Graph, functions: &[Function], callees: &mut BTreeSet<usize>) {
    for op in graph.nodes().into_iter().filter_map(|id| graph.op(id)) {
        if let Some(f) = call_target(op, functions) {
            callees.extend(functions.iter().position(|g| std::ptr::eq(f, g)));
        }
        op.attrs.graphs().for_each(|g| collect_callees(g, functions, callees));
    }
}

/// Checks one graph and its subgraphs; `captures` is how many values its owner gives it.
///
/// Holds afterwards: no cycle; names are unique and outputs carry theirs; every operator that fcc knows has as many
/// inputs and outputs as its schema allows and its domain has an opset; attribute names are unique; captures exist.
pub fn verify_graph(graph: &Graph, captures: usize) -> Result<()> {
    graph.topological()?;
    for o in &graph.outputs {
        if graph.value_name(o.value) != o.info.name {
            return Err(Error::mismatch(
                "graph output",
                format!("`{}`", graph.value_name(o.value)),
                format!("`{}`", o.info.name),
            ));
        }
    }
    let mut names = BTreeSet::new();
    for id in graph.nodes() {
        for value in graph.values_of(id) {
            let name = graph.value_name(value);
            if !names.insert(name.to_string()) || graph.value(name) != Some(value) {
                return Err(Error::mismatch("value name", format!("`{name}` twice"), "unique names"));
            }
        }
        let place = || graph.place(id);
        match &graph.node(id).kind {
            NodeKind::Capture(i) if *i as usize >= captures => {
                return Err(Error::mismatch(place(), format!("capture {i}"), format!("below {captures}")));
            }
            NodeKind::Op(op) => {
                let mut attrs = BTreeSet::new();
                if let Some(a) = op.attrs.iter().find(|a| !attrs.insert(a.name.as_str())) {
                    return Err(
                        Error::mismatch(format!("attribute `{}`", a.name), "given twice", "once").at(place())
                    );
                }
                if let Some(schema) = op.op.schema() {
                    check_arity("inputs", op.n_inputs as usize, schema.inputs).map_err(|e| e.at(place()))?;
                    check_arity("outputs", graph.node(id).outputs().len(), schema.outputs)
                        .map_err(|e| e.at(place()))?;
                    if op.version < 1 {
                        let domain = if op.domain.is_empty() { "ai.onnx" } else { &op.domain };
                        return Err(Error::mismatch(
                            format!("opset of domain {domain}"),
                            "none",
                            "a version",
                        )
                        .at(place()));
                    }
                }
                let given = graph.captures_of(id);
                let contiguous =
                    (0..given.len()).all(|i| graph.slot(id, Slot::Capture(i as u32)) == Some(given[i]));
                if !contiguous {
                    return Err(Error::invalid("captures are not numbered from 0").at(place()));
                }
                for sub in op.attrs.graphs() {
                    verify_graph(sub, given.len()).map_err(|e| e.at(place()))?;
                }
            }
            NodeKind::Capture(_) | NodeKind::Input | NodeKind::Constant(_) | NodeKind::SparseConstant(_) => {}
        }
    }
    let input_ok = |v: ValueId| graph.contains(v.node);
    if graph.inputs.iter().any(|i| !input_ok(ValueId { node: i.node, output: 0 })) {
        return Err(Error::invalid("a graph input is not in the graph"));
    }
    Ok(())
}

fn check_arity(what: &str, got: usize, (least, most): (usize, usize)) -> Result<()> {
    if (least..=most).contains(&got) {
        return Ok(());
    }
    let wanted = match (least, most) {
        (l, usize::MAX) => format!("at least {l}"),
        (l, m) if l == m => l.to_string(),
        (l, m) => format!("{l} to {m}"),
    };
    Err(Error::mismatch(format!("number of {what}"), got, wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::parse;

    /// Functions `f0 … f(n-1)`, each calling the next twice; the last calls `last`.
    fn chain(n: usize, last: &str) -> Model {
        let mut text = String::from(
            "<ir_version: 9, opset_import: [\"\" : 17, \"d\" : 1]> g (x) => (y) { y = d.f0 (x) }",
        );
        for i in 0..n {
            let next = if i + 1 < n { format!("d.f{}", i + 1) } else { last.into() };
            text += &format!(
                "<domain: \"d\", opset_import: [\"\" : 17, \"d\" : 1]> f{i} (x) => (y) {{ h = {next} (x) y = {next} (h) }}"
            );
        }
        parse(&text).unwrap()
    }

    #[test]
    fn functions_do_not_call_themselves() {
        assert_eq!(verify(&chain(30, "Relu")), Ok(()));
        for n in [1, 2, 30] {
            let error = verify(&chain(n, "d.f0")).unwrap_err().to_string();
            assert_eq!(error, "function `f0`: got calls of itself, wanted none");
        }
        for n in [100, 20_000] {
            let error = verify(&chain(n, "Relu")).unwrap_err().to_string();
            assert!(error.ends_with("got calls nested deeper, wanted at most 64 levels"), "{error}");
        }
    }
}
