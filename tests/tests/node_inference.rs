//! Symbolic shape inference against the ONNX backend tests: every extent of every tensor input becomes a symbol,
//! and what inference then says of each value (types, extents, elements of shapes, constants) must hold for the values
//! that the interpreter computes.
//!
//! `scripts/backend_cases.py` writes the cases; `FCC_CACHE` says where (`.cache` by default). With
//! `FCC_CASES=substring` only those run.
use fcc_ir::infer::{Facts, infer_facts};
use fcc_ir::interp::{Values, run_observed};
use fcc_ir::{Bindings, Dim, GraphInput, Model, NodeKind, Value, ValueId, ValueType};
use fcc_onnx::{LoadOptions, load, read_value_pb};
use std::path::Path;

/// Reads a case and makes its inputs' extents symbols, which the given inputs bind.
fn symbolic_case(folder: &Path) -> Result<(Model, Values, Bindings), String> {
    let mut model = load(folder.join("model.onnx"), &LoadOptions::default()).map_err(|e| e.to_string())?;
    let (mut values, mut bindings) = (Values::new(), Bindings::new());
    let mut inputs: Vec<GraphInput> = std::mem::take(&mut model.graph.inputs).into_iter().collect();
    let required = inputs.iter_mut().filter(|i| matches!(model.graph.node(i.node).kind, NodeKind::Input));
    for (number, input) in required.enumerate() {
        let path = folder.join(format!("test_data_set_0/input_{number}.pb"));
        let value = read_value_pb(&path, &input.info.ty).map_err(|e| e.to_string())?;
        if let (Value::Tensor(t), ValueType::Tensor(ty)) = (&value, &mut input.info.ty) {
            let dims = t.shape().iter().enumerate().map(|(axis, extent)| {
                let name = format!("d{number}_{axis}");
                bindings.insert(name.clone(), *extent);
                Dim::symbol(&name)
            });
            ty.shape = Some(dims.collect());
        }
        values.insert(input.info.name.clone(), value);
    }
    model.graph.inputs = inputs.into_iter().collect();
    for node in model.graph.inputs.iter().map(|i| (i.node, i.info.ty.clone())).collect::<Vec<_>>() {
        model.graph.set_ty(ValueId { node: node.0, output: 0 }, node.1);
    }
    Ok((model, values, bindings))
}

/// What a fact says that a value contradicts.
fn contradiction(facts: &Facts, id: ValueId, value: &Value, bindings: &Bindings) -> Option<String> {
    let fact = facts.get(id);
    let mut bound = fact.ty.clone();
    bound.for_each_dim(&mut |d| *d = d.bind(bindings));
    if let Err(why) = bound.merge(&value.value_type()) {
        return Some(format!("type {}: {why}", fact.ty));
    }
    let Value::Tensor(t) = value else { return None };
    if fact.value.as_ref().is_some_and(|constant| constant != t) {
        return Some(format!("constant {:?}, is {t:?}", fact.value));
    }
    let dims = fact.dims?;
    let found = t.to_i64s().ok()?;
    let elems: Vec<Dim> = dims.elems().iter().map(|d| d.bind(bindings)).collect();
    let fits = |(d, v): (&Dim, &i64)| match d {
        Dim::Known(n) => i64::try_from(*n) == Ok(*v),
        Dim::Sym(e) => e.as_constant().is_none_or(|c| c == *v),
        Dim::Unknown => true,
    };
    let agrees = elems.len() == found.len() && elems.iter().zip(&found).all(fits);
    (!agrees || dims.is_scalar() != (t.rank() == 0))
        .then(|| format!("elements {:?}, are {found:?}", dims.elems()))
}

/// How many extents of the case's outputs inference found, out of how many; `Err` where it contradicts a value.
fn check(folder: &Path) -> Result<Option<(usize, usize)>, String> {
    let (model, values, bindings) = symbolic_case(folder)?;
    let facts = infer_facts(&model.graph, &model.functions, None, &[]);
    let mut wrong = None;
    let mut observer = |id: ValueId, name: &str, value: &Value| {
        if let (None, Ok(facts)) = (&wrong, &facts) {
            wrong = contradiction(facts, id, value, &bindings).map(|why| format!("`{name}`: {why}"));
        }
    };
    // what the interpreter does not compute says nothing about inference
    let Ok(_) = run_observed(&model, &values, &mut observer) else { return Ok(None) };
    if let Some(why) = wrong {
        return Err(why);
    }
    let facts = facts.map_err(|e| format!("refused: {e}"))?;
    let mut counts = (0, 0);
    for output in &model.graph.outputs {
        if let Some(shape) = facts.get(output.value).ty.as_tensor().map(|t| t.shape.clone()) {
            let shape = shape.unwrap_or_else(|| vec![Dim::Unknown]);
            counts.0 += shape.iter().filter(|d| **d != Dim::Unknown).count();
            counts.1 += shape.len();
        }
    }
    Ok(Some(counts))
}

#[test]
#[ignore = "needs the cases that scripts/backend_cases.py writes"]
fn symbolic_inference_agrees_with_the_values() {
    let only = std::env::var("FCC_CASES").ok();
    let (mut cases, mut found, mut extents, mut wrong) = (0, 0, 0, vec![]);
    for case in fcc_tests::cases::backend() {
        let name = case.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if only.as_ref().is_some_and(|o| !name.contains(o.as_str())) {
            continue;
        }
        match check(&case) {
            Ok(Some((f, n))) => {
                (cases, found, extents) = (cases + 1, found + f, extents + n);
                if only.is_some() {
                    println!("{name}: {f} of {n} extents");
                }
            }
            Ok(None) => {}
            Err(why) => wrong.push(format!("{name}: {why}")),
        }
    }
    println!("{cases} cases, {found} of {extents} extents of their outputs found");
    wrong.iter().for_each(|line| println!("{line}"));
    assert!(cases > 0 && wrong.is_empty(), "{} cases are inferred wrongly", wrong.len());
    // two symbols that broadcast, and extents that depend on data, are rightly unknown
    assert!(only.is_some() || found * 10 > extents * 7, "fewer than 70 % of the extents found");
}
