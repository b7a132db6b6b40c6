//! The verifier: invariants that every graph keeps, checked after import and after each pass.
use crate::graph::NodeKind;
use crate::interp::call_target;
use crate::schema::arity;
use crate::{Error, Function, Graph, Model, Result, ValueId, ValueType};
use std::collections::BTreeSet;

/// Checks a whole model. Errors with the first violation.
pub fn verify(model: &Model) -> Result<()> {
    verify_graph(&model.graph, 0)?;
    for f in &model.functions {
        verify_graph(&f.body, 0).map_err(|e| e.at(format!("function `{}`", f.name)))?;
    }
    verify_calls(model)
}

/// Functions call each other at most this deep.
const MAX_CALLS: usize = 64;
/// Nodes of the graph and of all bodies together, each counted as often as it is called.
const MAX_EXPANDED_NODES: usize = 1 << 22;

/// Checks that no function calls itself, directly or through others, and that calls are neither too deep nor too many:
/// a short chain of functions that each call the next one twice would keep inference busy for years.
fn verify_calls(model: &Model) -> Result<()> {
    let mut calls = Calls { functions: &model.functions, known: vec![None; model.functions.len()] };
    (0..model.functions.len()).try_for_each(|i| calls.function(i, &mut vec![]).map(|_| ()))?;
    let main = calls.graph(&model.graph, &mut vec![])?;
    check_expanded("the graph", main)
}

fn check_expanded(place: &str, expanded: Expanded) -> Result<()> {
    if expanded.nodes > MAX_EXPANDED_NODES {
        let wanted = format!("at most {MAX_EXPANDED_NODES} nodes");
        return Err(Error::mismatch(place, "more nodes with those of the functions that it calls", wanted));
    }
    Ok(())
}

/// A graph or a function with all calls in it expanded.
#[derive(Debug, Clone, Copy, Default)]
struct Expanded {
    /// How deep calls nest.
    depth: usize,
    nodes: usize,
}

struct Calls<'m> {
    functions: &'m [Function],
    known: Vec<Option<Expanded>>,
}

impl Calls<'_> {
    /// The function of this index; `open` are those being looked at.
    fn function(&mut self, index: usize, open: &mut Vec<usize>) -> Result<Expanded> {
        let Some(function) = self.functions.get(index) else { return Ok(Expanded::default()) };
        if let Some(known) = self.known.get(index).copied().flatten() {
            return Ok(known);
        }
        let place = format!("function `{}`", function.name);
        if open.contains(&index) {
            return Err(Error::mismatch(place, "calls of itself", "none"));
        }
        // a chain is cut before it is followed: this function must not overflow the stack either
        if open.len() > MAX_CALLS {
            return Ok(Expanded { depth: MAX_CALLS, nodes: 0 });
        }
        open.push(index);
        let found = self.graph(&function.body, open)?;
        open.pop();
        if found.depth > MAX_CALLS {
            return Err(Error::mismatch(place, "calls nested deeper", format!("at most {MAX_CALLS} levels")));
        }
        check_expanded(&place, found)?;
        if let Some(slot) = self.known.get_mut(index) {
            *slot = Some(found);
        }
        Ok(found)
    }

    fn graph(&mut self, graph: &Graph, open: &mut Vec<usize>) -> Result<Expanded> {
        let functions = self.functions;
        let mut all = Expanded::default();
        for op in graph.nodes().into_iter().filter_map(|id| graph.op(id)) {
            all.nodes = all.nodes.saturating_add(1);
            let callee = call_target(op, functions);
            if let Some(i) = callee.and_then(|f| functions.iter().position(|g| std::ptr::eq(f, g))) {
                let inner = self.function(i, open)?;
                all.depth = all.depth.max(inner.depth + 1);
                all.nodes = all.nodes.saturating_add(inner.nodes);
            }
            for sub in op.attrs.graphs() {
                let inner = self.graph(sub, open)?;
                all.depth = all.depth.max(inner.depth);
                all.nodes = all.nodes.saturating_add(inner.nodes);
            }
        }
        Ok(all)
    }
}

/// Checks one graph and its subgraphs; `captures` is how many values its owner gives it.
///
/// Holds afterwards: no cycle; names are unique and outputs carry theirs; every operator that fcc knows has as many
/// inputs and outputs as its schema allows and its domain has an opset; attribute names are unique; captures exist;
/// a constant that callers may override has the type that its input declares.
pub fn verify_graph(graph: &Graph, captures: usize) -> Result<()> {
    graph.topological()?;
    for input in &graph.inputs {
        if let NodeKind::Constant(default) = &graph.node(input.node).kind {
            let ty = ValueType::from(default.tensor.tensor_type());
            let place = || format!("default of the input `{}`", input.info.name);
            ty.merge(&input.info.ty).map_err(|why| Error::mismatch(place(), why, "its declared type"))?;
        }
    }
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
                if op.op_type.is_empty() {
                    return Err(Error::mismatch("op_type", "none", "the name of an operator").at(place()));
                }
                if let Some(schema) = op.op.schema() {
                    arity("inputs", op.n_inputs as usize, schema.inputs).map_err(|e| e.at(place()))?;
                    arity("outputs", graph.node(id).outputs().len(), schema.outputs)
                        .map_err(|e| e.at(place()))?;
                }
                // one of ONNX's own that fcc does not know has a version too
                let onnx = matches!(op.domain.as_str(), "" | "ai.onnx");
                if op.version < 1 && (onnx || op.op.schema().is_some()) {
                    let domain = if onnx { "ai.onnx" } else { &op.domain };
                    let what = format!("opset of domain {domain}");
                    return Err(Error::mismatch(what, "none", "a version").at(place()));
                }
                let given = graph.captures_of(id);
                if !graph.capture_slots(id).into_iter().eq(0..given.len() as u32) {
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
    fn a_default_has_the_type_of_its_input() {
        let mut model = parse(
            "<ir_version: 9, opset_import: [\"\" : 17]> g (float[2] x, float[2] w = {1, 2}) => (y) { y = Add (x, w) }",
        )
        .unwrap();
        assert_eq!(verify(&model), Ok(()));
        for info in model.graph.inputs.infos_mut() {
            info.ty.for_each_dim(&mut |d| *d = crate::Dim::Known(3));
        }
        let error = verify(&model).unwrap_err().to_string();
        assert_eq!(error, "default of the input `w`: got dimension 0: 2 against 3, wanted its declared type");
    }

    #[test]
    fn functions_do_not_call_themselves() {
        assert_eq!(verify(&chain(15, "Relu")), Ok(()));
        for n in [1, 2, 30] {
            let error = verify(&chain(n, "d.f0")).unwrap_err().to_string();
            assert_eq!(error, "function `f0`: got calls of itself, wanted none");
        }
        for n in [100, 20_000] {
            let error = verify(&chain(n, "Relu")).unwrap_err().to_string();
            assert!(error.ends_with("got calls nested deeper, wanted at most 64 levels"), "{error}");
        }
    }

    #[test]
    fn calls_do_not_multiply_without_end() {
        for n in [30, 60] {
            let error = verify(&chain(n, "Relu")).unwrap_err().to_string();
            assert!(error.contains("more nodes with those of the functions that it calls"), "{error}");
        }
    }

    #[test]
    fn an_operator_of_onnx_has_an_opset_though_it_is_not_known() {
        let model = |opset: &str| {
            crate::text::parse(&format!("<ir_version: 8{opset}> g (float[1] x) => (y) {{ y = Unheard(x) }}"))
                .unwrap()
        };
        let error = verify(&model("")).unwrap_err().to_string();
        assert!(error.contains("opset of domain ai.onnx"), "{error}");
        verify(&model(", opset_import: [\"\" : 17]")).unwrap();
    }
}
