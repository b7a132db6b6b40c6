use super::facts::OpFacts;
use super::*;
use crate::attr::{AttrValue, Attrs};
use crate::ops::testing::node;
use crate::{TensorType, ValueType};

/// Every `Schema` literal beside the tables: versions that changed the operator, least and greatest arity over all
/// versions. A new release of onnx prints here what it changed.
#[test]
fn rows_fit_the_schemas() {
    let mut wrong = vec![];
    for op in Op::ALL {
        let schema = op.schema().unwrap();
        let rows = &BY_OP[*op as usize];
        let alive: Vec<&&OpFacts> = rows.iter().filter(|f| !f.deprecated).collect();
        if alive.is_empty() {
            // exporters write more into this domain than ONNX Runtime registers there
            if schema.domain != "com.microsoft" {
                wrong.push(format!("{}: no row", schema.name));
            }
            continue;
        }
        let mut since: Vec<i64> = rows.iter().map(|f| f.since).collect();
        since.dedup();
        let span = |of: fn(&OpFacts) -> (usize, usize)| {
            (alive.iter().map(|f| of(f).0).min().unwrap(), alive.iter().map(|f| of(f).1).max().unwrap())
        };
        let (inputs, outputs) = (span(|f| f.inputs), span(|f| f.outputs));
        let said = (schema.since.to_vec(), schema.inputs, schema.outputs);
        if said != (since.clone(), inputs, outputs) {
            wrong.push(format!(
                "{}: {said:?} here, {:?} in the table",
                schema.name,
                (since, inputs, outputs)
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The rows themselves: parameters fit the arity, variadic ones stand last, names are unique.
#[test]
fn rows_are_well_formed() {
    for facts in [onnx::ONNX, runtime::RUNTIME].into_iter().flatten() {
        let place = format!("{}.{}-{}", facts.domain, facts.name, facts.since);
        for (params, (least, most)) in [(facts.takes, facts.inputs), (facts.makes, facts.outputs)] {
            let ends = params.iter().position(|p| p.times == Times::Variadic);
            assert!(ends.is_none_or(|i| i + 1 == params.len()), "{place}");
            let fits = ends.is_some() || params.len() == most || facts.deprecated;
            assert!(fits && least <= most, "{place}: {} parameters, {most} at most", params.len());
        }
        let mut names: Vec<&str> = facts.attrs.iter().map(|a| a.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), facts.attrs.len(), "{place}");
    }
}

fn tensor(dtype: DType) -> Option<Fact> {
    Some(TensorType::unranked(dtype).into())
}

fn said(op: &str, version: i64, attrs: Attrs, inputs: &[Option<Fact>], n_outputs: usize) -> String {
    let node = node(op, version, attrs, inputs.len());
    check(&node, inputs, n_outputs).map_or_else(|e| e.to_string(), |()| "fits".into())
}

#[test]
fn attributes_are_those_of_the_version() {
    let x = [tensor(DType::F32)];
    let axes = || Attrs::new().with("axes", vec![0i64]);
    assert_eq!(said("ReduceSum", 11, axes(), &x, 1), "fits");
    assert_eq!(
        said("ReduceSum", 13, axes(), &x, 1),
        "attribute `axes`: got one that ReduceSum of opset 13 does not have, wanted keepdims, noop_with_empty_axes"
    );
    assert_eq!(
        said("Relu", 14, Attrs::new().with("alpha", 1f32), &x, 1),
        "attribute `alpha`: got one that Relu of opset 14 does not have, wanted no attributes"
    );
    assert_eq!(
        said("Flatten", 13, Attrs::new().with("axis", 1f32), &x, 1),
        "attribute `axis`: got Float, wanted an int"
    );
    assert_eq!(said("Cast", 13, Attrs::new(), &x, 1), "attribute `to`: got none, wanted a value");
    // runtimes' own notes are no attributes, and a function's body may name its caller's
    assert_eq!(said("Relu", 14, Attrs::new().with("__note", 1i64), &x, 1), "fits");
    let by_name = AttrValue::Ref("mine".into(), crate::attr::AttrKind::Int);
    assert_eq!(said("Flatten", 13, Attrs::new().with("axis", by_name), &x, 1), "fits");
}

#[test]
fn inputs_and_outputs_are_counted() {
    let (x, absent) = (tensor(DType::F32), None);
    let none = Attrs::new;
    assert_eq!(said("Relu", 14, none(), &[], 1), "number of inputs: got 0, wanted 1");
    assert_eq!(said("Relu", 14, none(), &[x.clone(), x.clone()], 1), "number of inputs: got 2, wanted 1");
    assert_eq!(said("Relu", 14, none(), std::slice::from_ref(&x), 2), "number of outputs: got 2, wanted 1");
    assert_eq!(
        said("Add", 14, none(), &[x.clone(), absent.clone()], 1),
        "input 1: got none, wanted a value for `B`"
    );
    assert_eq!(said("Clip", 13, none(), &[x.clone(), absent, x.clone()], 1), "fits");
    // Dropout takes its ratio as an input from opset 12 on
    assert_eq!(said("Dropout", 10, none(), &[x.clone(), x], 1), "number of inputs: got 2, wanted 1");
}

#[test]
fn element_types_are_those_of_the_version_and_agree() {
    let of = |list: &[DType]| list.iter().map(|d| tensor(*d)).collect::<Vec<_>>();
    let none = Attrs::new;
    for dtype in [DType::I32, DType::F32] {
        let wanted = format!("element type of input 0: got {dtype}, wanted bool");
        assert_eq!(said("Not", 1, none(), &of(&[dtype]), 1), wanted);
    }
    assert_eq!(
        said("Add", 7, none(), &of(&[DType::U8, DType::U8]), 1).split(',').next(),
        Some("element type of input 0: got uint8")
    );
    assert_eq!(said("Add", 14, none(), &of(&[DType::U8, DType::U8]), 1), "fits");
    assert_eq!(
        said("Add", 14, none(), &of(&[DType::U8, DType::I8]), 1),
        "element type of input 1: got int8, wanted uint8 as of input 0"
    );
    assert_eq!(said("Concat", 13, Attrs::new().with("axis", 0i64), &of(&[DType::U8; 3]), 1), "fits");
    assert_eq!(
        said("Concat", 13, Attrs::new().with("axis", 0i64), &of(&[DType::U8, DType::U8, DType::F32]), 1),
        "element type of input 2: got float, wanted uint8 as of input 0"
    );
    assert_eq!(said("Add", 14, none(), &[tensor(DType::Undefined), tensor(DType::U8)], 1), "fits");
    let list = ValueType::Sequence(Box::new(ValueType::tensor(DType::F32, [2usize])));
    assert!(
        said("Relu", 14, none(), &[Some(list.clone().into())], 1).starts_with("type of input 0: got seq(")
    );
    assert_eq!(said("SequenceLength", 11, none(), &[Some(list.into())], 1), "fits");
}

#[test]
fn what_an_opset_took_away_is_gone() {
    let x = [tensor(DType::F32), tensor(DType::F32)];
    assert_eq!(said("Upsample", 9, Attrs::new(), &x, 1), "fits");
    assert_eq!(
        said("Upsample", 10, Attrs::new(), &x, 1),
        "operator Upsample: got one that opset 10 took away, wanted an operator of this opset"
    );
}
