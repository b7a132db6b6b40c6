//! The verifier: invariants that every graph keeps, checked after import and after each pass.
use crate::graph::{NodeKind, Slot};
use crate::{Error, Graph, Model, Result, ValueId};
use std::collections::BTreeSet;

/// Checks a whole model. Errors with the first violation.
pub fn verify(model: &Model) -> Result<()> {
    verify_graph(&model.graph, 0)?;
    for f in &model.functions {
        verify_graph(&f.body, 0).map_err(|e| e.at(format!("function `{}`", f.name)))?;
    }
    Ok(())
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
