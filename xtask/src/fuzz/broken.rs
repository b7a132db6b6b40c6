//! What must hold for any case: an error, or a model of which the laws of fcc hold.
use super::mutate::Case;
use fcc_ir::infer::{bind_symbols, infer};
use fcc_ir::interp::{self, run_observed};
use fcc_ir::text::{PrintOptions, parse, print, same};
use fcc_ir::verify::verify;
use fcc_ir::{Dim, Graph, Model, ValueType};
use fcc_rewrite::verify::{Options, compare, inputs};
use fcc_rewrite::{dense, passes};

/// Inputs with more elements than this are not run.
const MAX_ELEMS: usize = 1 << 14;

/// Gives a case to fcc. Errs with the law that does not hold; a panic is the caller's to see.
pub fn check(case: &Case) -> Result<&'static str, String> {
    let model = match case {
        Case::Text(text) => parse(text).map_err(|_| ()),
        Case::Bytes(bytes) => fcc_onnx::load_bytes(bytes.clone()).map_err(|_| ()),
        Case::Model(model) => Ok((**model).clone()),
    };
    let Ok(model) = model else { return Ok("refused") };
    if verify(&model).is_err() {
        return Ok("refused by the verifier");
    }
    round_trips(&model, matches!(case, Case::Text(_)))?;
    let mut typed = unclaimed(&model);
    if infer(&mut typed.graph, &model.functions).is_err() {
        return Ok("refused by inference");
    }
    let runs = may_run(&typed) && runs(&typed)?;
    for name in passes::names() {
        rewrites(&model, &passes::named(&name).unwrap_or_default(), &name, runs)?;
    }
    let rewritten = rewrites(&model, &passes::named("default").unwrap_or_default(), "default", runs)?;
    if let Some(rewritten) = rewritten.filter(|_| may_run(&typed)) {
        slides(&model, &rewritten)?;
    }
    Ok(if runs { "runs, and is rewritten" } else { "is rewritten" })
}

/// What is printed is read back, and what is written. The `fields` note of a text may hold what no file holds, and
/// writing leaves that out: then what was read back once is written and read again.
fn round_trips(model: &Model, of_text: bool) -> Result<(), String> {
    let text = print(model, &PrintOptions::whole());
    let again = parse(&text).map_err(|e| format!("the printed text is not read: {e}"))?;
    same(model, &again).map_err(|e| format!("the printed text is another model: {e}"))?;
    let Ok(bytes) = fcc_onnx::to_bytes(model) else { return Ok(()) };
    let read = |bytes| fcc_onnx::load_bytes(bytes).map_err(|e| format!("the written file is not read: {e}"));
    let again = read(bytes)?;
    if of_text {
        let bytes = fcc_onnx::to_bytes(&again).map_err(|e| format!("what was read is not written: {e}"))?;
        return same(&again, &read(bytes)?).map_err(|e| format!("the written file is another model: {e}"));
    }
    same(model, &again).map_err(|e| format!("the written file is another model: {e}"))
}

/// The model without what its file claims of types, but for those of its inputs: what inference then says must be so.
fn unclaimed(model: &Model) -> Model {
    let mut model = model.clone();
    let graph = &mut model.graph;
    graph.value_info.clear();
    graph.outputs.infos_mut().for_each(|info| info.ty = ValueType::Unknown);
    for id in graph.nodes().into_iter().filter(|id| graph.op(*id).is_some()).collect::<Vec<_>>() {
        for value in graph.values_of(id).collect::<Vec<_>>() {
            graph.set_ty(value, ValueType::Unknown);
        }
    }
    model
}

/// Whether a run ends soon: no loops, small inputs and outputs.
fn may_run(model: &Model) -> bool {
    let small = |ty: &ValueType| {
        let dims = ty.as_tensor().and_then(|t| t.shape.clone());
        let extents = dims.unwrap_or_default().into_iter().map(|d| match d {
            Dim::Known(n) => n,
            Dim::Sym(_) | Dim::Unknown => 8,
        });
        extents.into_iter().try_fold(1usize, |n, d| n.checked_mul(d)).is_some_and(|n| n <= MAX_ELEMS)
    };
    let values = |g: &Graph| g.nodes().into_iter().all(|id| g.values_of(id).all(|v| small(g.ty(v))));
    !has_loop(&model.graph) && values(&model.graph) && model.functions.iter().all(|f| !has_loop(&f.body))
}

fn has_loop(graph: &Graph) -> bool {
    let ops = graph.nodes().into_iter().filter_map(|id| graph.op(id));
    ops.into_iter()
        .any(|op| matches!(op.op_type.as_str(), "Loop" | "Scan") || op.attrs.graphs().any(has_loop))
}

/// Runs the interpreter. What inference said of a value must be so. Whether the run came to an end.
fn runs(model: &Model) -> Result<bool, String> {
    let mut bindings = fcc_ir::Bindings::new();
    for info in model.required_inputs() {
        info.ty.clone().for_each_dim(&mut |dim| {
            if let Dim::Sym(e) = dim {
                e.visit_symbols(&mut |s| {
                    bindings.insert(s.to_string(), 2);
                });
            }
        });
    }
    let mut bound = model.clone();
    bind_symbols(&mut bound.graph, &bindings);
    // extents that only the symbols' values make large
    if infer(&mut bound.graph, &model.functions).is_err() || !may_run(&bound) {
        return Ok(false);
    }
    let Ok(given) = inputs(model, &bindings, 1) else { return Ok(false) };
    let mut clash = None;
    let mut observer = |id: fcc_ir::ValueId, name: &str, value: &fcc_ir::Value| {
        // defaults and inputs have the type that the file declares, which is no finding of inference
        if model.graph.op(id.node).is_none() {
            return;
        }
        let (inferred, found) = (model.graph.ty(id), value.value_type());
        let mut bound = inferred.clone();
        bound.for_each_dim(&mut |d| *d = d.bind(&bindings));
        if clash.is_none() && bound.merge(&found).is_err() {
            clash = Some(format!("value `{name}`: inferred {inferred}, computed {found}"));
        }
    };
    let ended = run_observed(model, &given, &mut observer).is_ok();
    clash.map_or(Ok(ended), Err)
}

/// Rewrites a copy, if that is not refused. The result must be valid, and compute the same where the original runs.
fn rewrites(model: &Model, steps: &[passes::Pass], name: &str, runs: bool) -> Result<Option<Model>, String> {
    let mut rewritten = model.clone();
    if fcc_rewrite::run(&mut rewritten, steps, fcc_rewrite::Options::default()).is_err() {
        return Ok(None);
    }
    verify(&rewritten).map_err(|e| format!("after {name}: {e}"))?;
    let changed = same(model, &rewritten).is_err();
    if !(runs && changed) {
        return Ok(Some(rewritten));
    }
    let options = Options { batches: vec![2], engine: Some(&|m, v| interp::run(m, v)), ..Options::default() };
    match compare(model, &rewritten, &options) {
        Ok(found) if found.difference.is_none() => Ok(Some(rewritten)),
        Ok(found) => Err(format!("after {name}: {found}")),
        Err(e) if e.to_string().contains("original") => Ok(Some(rewritten)),
        Err(e) => Err(format!("after {name}: {e}")),
    }
}

/// A model that is made dense gives the same on every window; one that pads, on an image of the model's size.
fn slides(original: &Model, rewritten: &Model) -> Result<(), String> {
    let Ok(made) = dense::dense(rewritten, dense::Padding::Keep) else { return Ok(()) };
    if made.windows.strides.iter().any(|s| *s > 16) {
        return Ok(());
    }
    let found = match made.windows.padded {
        false => dense::check(original, rewritten, &made.model, &made.windows),
        true => dense::check_alone(original, &made.model, &made.windows, &|m, v| interp::run(m, v)),
    };
    match found {
        Ok(None) | Err(_) => Ok(()),
        Ok(Some(why)) => Err(format!("dense: {why}")),
    }
}
