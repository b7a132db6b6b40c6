//! `ai.onnx.ml`: tree ensembles, linear models, scalers and normalisers as steps in Rust.
use super::{Cx, Lowered};
use crate::declined::Declined;
use crate::host::{Host, LinearRows, Normalise, Scale, TreeOutput, TreeOutputs, TreeScores, takes_features};
use crate::plan::ir::{Kind, Val, Vx};
use fcc_ir::attr::Attrs;
pub(super) use fcc_ir::ops::ml::DOMAIN;
use fcc_ir::ops::ml::classes::Classes;
use fcc_ir::ops::ml::linear::Linear;
use fcc_ir::ops::ml::normalizer::Norm;
use fcc_ir::ops::ml::rows as rows_of;
use fcc_ir::ops::ml::scaler::Affine;
use fcc_ir::ops::ml::tree::Prepared;
use fcc_ir::ops::movement::new_elems;
use fcc_ir::{DType, Op, OpNode, ValueType};
use std::sync::Arc;

/// Lowers an operator of the domain.
pub(super) fn lower(cx: &mut Cx<'_>) -> Lowered {
    let node = cx.op;
    match node.op {
        Op::TreeEnsemble | Op::TreeEnsembleRegressor | Op::TreeEnsembleClassifier => trees(cx),
        Op::Scaler => {
            let (x, dtype, rows) = input(cx)?;
            let affine = Affine::parse(node)?;
            affine.check(cx.shape(x).last().copied().unwrap_or(1))?;
            not_empty(rows)?;
            step(cx, Arc::new(Scale { affine, dtype }), x, 0)
        }
        Op::Normalizer => {
            let (x, dtype, (rows, features)) = input(cx)?;
            not_empty((rows, features))?;
            step(cx, Arc::new(Normalise { norm: Norm::parse(node)?, features, dtype }), x, 0)
        }
        Op::LinearRegressor => {
            let (x, dtype, (rows, features)) = input(cx)?;
            not_empty((rows, features))?;
            let linear = Linear::regressor(node, features)?;
            step(cx, Arc::new(LinearRows { linear, features, dtype, classes: None }), x, 0)
        }
        Op::LinearClassifier => {
            let (x, dtype, (rows, features)) = input(cx)?;
            not_empty((rows, features))?;
            let linear = Linear::classifier(node, features)?;
            let classes = Classes::parse(node, "classlabels_ints")?;
            let scores = LinearRows { linear: linear.clone(), features, dtype, classes: None };
            let which = |labels| -> Host {
                Arc::new(LinearRows { linear: linear.clone(), features, dtype, classes: Some(labels) })
            };
            labels(cx, &classes, rows, x, which)?;
            step(cx, Arc::new(scores), x, 1)
        }
        _ => Err(cx.no_kernel()),
    }
}

/// The input: its element type, its rows and columns.
fn input(cx: &Cx<'_>) -> Result<(Vx, DType, (usize, usize)), Declined> {
    let x = cx.need(0)?;
    let (dtype, shape) = cx.dense(x)?;
    if !takes_features(dtype) {
        return Err(Declined::new(cx.named("input 0", x), dtype, "float, double, int32 or int64"));
    }
    // a scaler takes any rank: its rows are what lies along the last axis
    let rows = if cx.op.op == Op::Scaler {
        (shape.iter().product(), shape.last().copied().unwrap_or(1))
    } else {
        rows_of(&shape)?
    };
    Ok((x, dtype, rows))
}

fn not_empty((rows, features): (usize, usize)) -> Lowered {
    if rows > 0 && features > 0 {
        return Ok(());
    }
    Err(Declined::new("input 0", format!("{rows} rows of {features}"), "at least one element"))
}

/// A step that makes output `i` of the operator, if it is wanted.
fn step(cx: &mut Cx<'_>, host: Host, from: Vx, i: usize) -> Lowered {
    if let Some(y) = cx.outputs.get(i).copied().flatten() {
        cx.push(Kind::Host(host), vec![Some(from)], y);
    }
    Ok(())
}

/// Output 0 of a classifier. `which` makes the step that gives numbers of classes, or labels that are integers; strings
/// are looked up by a `Gather` of the interpreter.
fn labels(
    cx: &mut Cx<'_>,
    classes: &Classes,
    rows: usize,
    from: Vx,
    which: impl FnOnce(Option<Vec<i64>>) -> Host,
) -> Lowered {
    let Some(y) = cx.outputs.first().copied().flatten() else { return Ok(()) };
    if let Classes::Ints(labels) = classes {
        cx.push(Kind::Host(which(Some(labels.clone()))), vec![Some(from)], y);
        return Ok(());
    }
    let name = cx.program.val(y).name.clone();
    let number = Val::new(format!("{name}.class"), ValueType::tensor(DType::I64, [rows]), None);
    let number = cx.program.add(number);
    cx.push(Kind::Host(which(None)), vec![Some(from)], number);
    let table = cx.program.constant(format!("{name}.labels"), classes.all()?);
    let op = OpNode {
        op: Op::Gather,
        domain: String::new(),
        op_type: "Gather".into(),
        overload: String::new(),
        version: 13,
        attrs: Attrs::new(),
        n_inputs: 2,
        device_configurations: vec![],
    };
    cx.push(Kind::Interpret { op: Box::new(op), captures: 0 }, vec![Some(table), Some(number)], y);
    Ok(())
}

fn trees(cx: &mut Cx<'_>) -> Lowered {
    let (x, dtype, (rows, features)) = input(cx)?;
    not_empty((rows, features))?;
    let trees = cx.ensembles.of(cx.op, dtype)?;
    let (targets, scores_in) = match &*trees {
        Prepared::F32(t) => (t.ensemble.check(features).map(|()| t.ensemble.targets())?, DType::F32),
        Prepared::F64(t) => (t.ensemble.check(features).map(|()| t.ensemble.targets())?, DType::F64),
    };
    new_elems(&[rows, 2 * targets])?;
    let name = format!("{}.scores", cx.place);
    let raw = Val::new(name, ValueType::tensor(scores_in, [rows, 2 * targets]), None);
    let raw = cx.program.add(raw);
    let scores = TreeScores { trees: trees.clone(), rows, features, dtype };
    cx.push(Kind::Host(Arc::new(scores)), vec![Some(x)], raw);
    let output = |what| -> Host { Arc::new(TreeOutputs { trees: trees.clone(), what }) };
    if cx.op.op == Op::TreeEnsembleClassifier {
        let classes = Classes::parse(cx.op, "classlabels_int64s")?;
        labels(cx, &classes, rows, raw, |labels| output(TreeOutput::Classes(labels)))?;
        return step(cx, output(TreeOutput::Scores(DType::F32)), raw, 1);
    }
    let made = if cx.op.op == Op::TreeEnsemble { scores_in } else { DType::F32 };
    step(cx, output(TreeOutput::Scores(made)), raw, 0)
}
