//! `TreeEnsemble`, `TreeEnsembleClassifier`, `TreeEnsembleRegressor`.
//! <https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsemble.html>,
//! <https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsembleClassifier.html>,
//! <https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsembleRegressor.html>
//!
//! Trees are computed in floats, or in doubles where the input or an attribute holds doubles. The weights for a target
//! are added in the order of the trees, a tree's in the order in which the file lists them.
mod attributes;
pub mod ensemble;
pub mod head;
#[cfg(test)]
mod tests;
mod version5;

use super::classes::Classes;
use super::post_transform::PostTransform;
use super::real::{Real, reals};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::ops::movement::new_elems;
use crate::{DType, Dim, Error, OpNode, Result, Tensor, TensorType, Value};
use ensemble::Ensemble;
use head::{Aggregate, Head, Rule, Scores};

/// `TreeEnsemble`.
pub struct TreeEnsemble;
/// `TreeEnsembleClassifier`.
pub struct TreeEnsembleClassifier;
/// `TreeEnsembleRegressor`.
pub struct TreeEnsembleRegressor;

/// An operator's trees and what becomes of their weights.
#[derive(Debug, Clone)]
pub struct Trees<T> {
    /// The trees.
    pub ensemble: Ensemble<T>,
    /// What follows.
    pub head: Head<T>,
}

/// The trees of an operator in the format they are computed in.
#[derive(Debug, Clone)]
pub enum Prepared {
    /// In floats.
    F32(Trees<f32>),
    /// In doubles.
    F64(Trees<f64>),
}

impl Prepared {
    /// Reads the attributes of any of the three operators, for an input of this element type.
    pub fn of(node: &OpNode, input: DType) -> Result<Prepared> {
        let doubles = match node.op_type.as_str() {
            "TreeEnsemble" => input == DType::F64,
            _ => attributes::in_doubles(node, input)?,
        };
        Ok(if doubles { Prepared::F64(Trees::of(node)?) } else { Prepared::F32(Trees::of(node)?) })
    }
}

/// The number of targets or classes.
fn targets(node: &OpNode) -> Result<usize> {
    match node.op_type.as_str() {
        "TreeEnsembleClassifier" => Ok(Classes::parse(node, "classlabels_int64s")?.len()),
        _ => version5::targets(node),
    }
}

impl<T: Real> Trees<T> {
    fn of(node: &OpNode) -> Result<Trees<T>> {
        let targets = targets(node)?;
        let aggregate = || Aggregate::of_name(node.attrs.str_or("aggregate_function", "SUM")?);
        let (ensemble, head) = match node.op_type.as_str() {
            "TreeEnsemble" => {
                let head = Head {
                    aggregate: Aggregate::of_code(node.attrs.int_or("aggregate_function", 1)?)?,
                    base: vec![],
                    transform: PostTransform::of_code(node.attrs.int_or("post_transform", 0)?)?,
                    rule: Rule::Regression,
                    trees: 0,
                };
                (version5::read(node)?, head)
            }
            "TreeEnsembleClassifier" => {
                let (ensemble, positive, only) = attributes::read(node, "class", targets)?;
                let rule = if targets == 2 && only.is_some() { Rule::Binary { positive } } else { Rule::Top };
                let lengths = if targets == 2 { vec![0, 1, 2] } else { vec![0, targets] };
                let base = base_values(node, &lengths)?;
                let transform = PostTransform::parse(node)?;
                (ensemble, Head { aggregate: Aggregate::Sum, base, transform, rule, trees: 0 })
            }
            _ => {
                let (ensemble, ..) = attributes::read(node, "target", targets)?;
                let base = base_values(node, &[0, targets])?;
                let transform = PostTransform::parse(node)?;
                (
                    ensemble,
                    Head { aggregate: aggregate()?, base, transform, rule: Rule::Regression, trees: 0 },
                )
            }
        };
        Ok(Trees { head: Head { trees: ensemble.roots().len(), ..head }, ensemble })
    }
    /// The outputs of all rows in another format, and the number of each row's class.
    fn rows<O: Real>(&self, x: &Tensor) -> Result<(Vec<O>, Vec<usize>)> {
        let (rows, features) = super::rows(x.shape())?;
        self.ensemble.check(features)?;
        let x = reals::<T>(x)?;
        let targets = self.ensemble.targets();
        let mut out = vec![O::default(); new_elems(&[rows, targets])?];
        let mut classes = vec![];
        for (row, out) in out.chunks_exact_mut(targets).enumerate() {
            crate::limits::check()?;
            let row = &x[row * features..][..features];
            let mut scores = Scores::new(targets);
            for root in self.ensemble.roots() {
                let leaf = &self.ensemble.nodes()[self.ensemble.leaf(*root, row) as usize];
                scores.add(self.head.aggregate, &self.ensemble, leaf);
            }
            classes.push(self.head.finish(&mut scores, out));
        }
        Ok((out, classes))
    }
}

/// The base values, as many as one of `lengths`.
fn base_values<T: Real>(node: &OpNode, lengths: &[usize]) -> Result<Vec<T>> {
    let base = attributes::base_values::<T>(node)?;
    if lengths.contains(&base.len()) {
        return Ok(base);
    }
    let wanted: Vec<String> = lengths.iter().map(usize::to_string).collect();
    Err(Error::mismatch("length of `base_values`", base.len(), wanted.join(" or ")))
}

/// `[N, targets]` of a tree operator's input.
fn out_dims(cx: &InferCtx<'_>) -> Result<[Dim; 2]> {
    Ok([super::row_dims(cx)?.0, Dim::Known(targets(cx.node)?)])
}

/// Scores as floats and classes.
fn floats(cx: &EvalCtx<'_>) -> Result<(Tensor, Vec<usize>)> {
    let x = cx.tensor(0)?;
    let (scores, classes) = match Prepared::of(cx.node, x.dtype())? {
        Prepared::F32(trees) => trees.rows::<f32>(x)?,
        Prepared::F64(trees) => trees.rows::<f32>(x)?,
    };
    Ok((Tensor::new([classes.len(), targets(cx.node)?], scores)?, classes))
}

impl Operator for TreeEnsemble {
    fn schema(&self) -> Schema {
        Schema { since: &[5], ..super::schema("TreeEnsemble", 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        version5::check_lists(cx.node)?;
        Ok(vec![TensorType::new(cx.dtype(0)?, out_dims(cx)?).into()])
    }
    /// Halves are computed as floats and rounded at the end.
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        Ok(vec![
            match Prepared::of(cx.node, x.dtype())? {
                Prepared::F32(trees) => {
                    let (scores, classes) = trees.rows::<f32>(x)?;
                    crate::convert::from_f32s(x.dtype(), [classes.len(), trees.ensemble.targets()], scores)?
                }
                Prepared::F64(trees) => {
                    let (scores, classes) = trees.rows::<f64>(x)?;
                    Tensor::new([classes.len(), trees.ensemble.targets()], scores)?
                }
            }
            .into(),
        ])
    }
}

impl Operator for TreeEnsembleClassifier {
    fn schema(&self) -> Schema {
        Schema { since: &[1, 3, 5], ..super::schema("TreeEnsembleClassifier", 2) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        attributes::check_lists(cx.node, "class")?;
        let [rows, classes] = out_dims(cx)?;
        let labels = Classes::parse(cx.node, "classlabels_int64s")?.dtype();
        let labels = TensorType::new(labels, [rows.clone()]);
        Ok(vec![labels.into(), TensorType::new(DType::F32, [rows, classes]).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let (scores, classes) = floats(cx)?;
        let labels = Classes::parse(cx.node, "classlabels_int64s")?.labels(&classes)?;
        Ok(vec![labels.into(), scores.into()])
    }
}

impl Operator for TreeEnsembleRegressor {
    fn schema(&self) -> Schema {
        Schema { since: &[1, 3, 5], ..super::schema("TreeEnsembleRegressor", 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        attributes::check_lists(cx.node, "target")?;
        Ok(vec![TensorType::new(DType::F32, out_dims(cx)?).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        Ok(vec![floats(cx)?.0.into()])
    }
}
