//! `TreeEnsemble` of `ai.onnx.ml`. <https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsemble.html>
use super::lists;
use super::ml::DOMAIN;
use crate::convert::{Narrowing, from_f64s, to_f64s};
use crate::op::{EvalCtx, Fact, InferCtx, Operator, Schema};
use crate::{Dim, Error, OpNode, Result, TensorType, Value, elem_count};

/// `TreeEnsemble`.
pub struct TreeEnsemble;

/// Where a branch leads.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Next {
    Node(usize),
    Leaf(usize),
}

/// What a node asks of its feature.
#[derive(Debug, Clone, PartialEq)]
enum Test {
    Leq(f64),
    Lt(f64),
    Gte(f64),
    Gt(f64),
    Eq(f64),
    Neq(f64),
    Member(Vec<f64>),
}

impl Test {
    fn holds(&self, x: f64) -> bool {
        match self {
            Test::Leq(s) => x <= *s,
            Test::Lt(s) => x < *s,
            Test::Gte(s) => x >= *s,
            Test::Gt(s) => x > *s,
            Test::Eq(s) => x == *s,
            Test::Neq(s) => x != *s,
            Test::Member(set) => set.contains(&x),
        }
    }
}

#[derive(Debug)]
struct Node {
    feature: usize,
    test: Test,
    if_true: Next,
    if_false: Next,
    nan_is_true: bool,
}

#[derive(Debug)]
struct Ensemble {
    roots: Vec<usize>,
    nodes: Vec<Node>,
    /// Target and weight of each leaf.
    leaves: Vec<(usize, f64)>,
    targets: usize,
}

/// An attribute of `n` non-negative numbers.
fn numbers(node: &OpNode, name: &str, n: Option<usize>) -> Result<Vec<usize>> {
    let v = lists::extents(name, node.attrs.need_ints(name)?)?;
    match n.filter(|n| *n != v.len()) {
        Some(n) => Err(Error::mismatch(format!("attribute `{name}`"), v.len(), format!("{n} numbers"))),
        None => Ok(v),
    }
}

fn floats(node: &OpNode, name: &str) -> Result<Option<Vec<f64>>> {
    node.attrs.tensor(name)?.map(to_f64s).transpose()
}

fn below(what: &str, i: usize, n: usize) -> Result<usize> {
    if i < n { Ok(i) } else { Err(Error::mismatch(what, i, format!("below {n}"))) }
}

impl Ensemble {
    fn parse(node: &OpNode) -> Result<Ensemble> {
        let features = numbers(node, "nodes_featureids", None)?;
        let n = features.len();
        let need = |name: &str| {
            floats(node, name)?
                .ok_or_else(|| Error::mismatch(format!("attribute `{name}`"), "none", "a tensor"))
        };
        let (modes, splits) = (need("nodes_modes")?, need("nodes_splits")?);
        let weights = need("leaf_weights")?;
        let targets = node.attrs.need_int("n_targets")?;
        let targets =
            usize::try_from(targets).map_err(|_| Error::mismatch("n_targets", targets, "at least 0"))?;
        let of_leaf = numbers(node, "leaf_targetids", Some(weights.len()))?;
        if modes.len() != n || splits.len() != n {
            return Err(Error::mismatch("nodes_modes and nodes_splits", modes.len(), format!("{n} each")));
        }
        let tracks = match node.attrs.ints("nodes_missing_value_tracks_true")? {
            Some(t) if t.len() == n => t.iter().map(|t| *t != 0).collect(),
            Some(t) if !t.is_empty() => {
                return Err(Error::mismatch("nodes_missing_value_tracks_true", t.len(), n));
            }
            _ => vec![false; n],
        };
        let branch = |ids: &str, leafs: &str| -> Result<Vec<Next>> {
            let (ids, leafs) = (numbers(node, ids, Some(n))?, numbers(node, leafs, Some(n))?);
            let next = |(id, leaf): (usize, usize)| {
                Ok(if leaf != 0 {
                    Next::Leaf(below("leaf", id, weights.len())?)
                } else {
                    Next::Node(below("node", id, n)?)
                })
            };
            ids.into_iter().zip(leafs).map(next).collect()
        };
        let if_true = branch("nodes_truenodeids", "nodes_trueleafs")?;
        let if_false = branch("nodes_falsenodeids", "nodes_falseleafs")?;
        // the sets stand one after another, each ended by NaN
        let members = floats(node, "membership_values")?.unwrap_or_default();
        let mut sets = members.split(|v| v.is_nan());
        let mut nodes = vec![];
        for i in 0..n {
            let test = match modes[i] as u8 {
                0 => Test::Leq(splits[i]),
                1 => Test::Lt(splits[i]),
                2 => Test::Gte(splits[i]),
                3 => Test::Gt(splits[i]),
                4 => Test::Eq(splits[i]),
                5 => Test::Neq(splits[i]),
                6 => {
                    let set = sets
                        .next()
                        .ok_or_else(|| Error::mismatch("sets of members", "too few", "one a node"))?;
                    Test::Member(set.to_vec())
                }
                other => return Err(Error::mismatch("mode of a node", other, "0 to 6")),
            };
            let (if_true, if_false) = (if_true[i], if_false[i]);
            nodes.push(Node { feature: features[i], test, if_true, if_false, nan_is_true: tracks[i] });
        }
        let roots = numbers(node, "tree_roots", None)?;
        roots.iter().try_for_each(|r| below("root", *r, n).map(drop))?;
        of_leaf.iter().try_for_each(|t| below("target of a leaf", *t, targets).map(drop))?;
        Ok(Ensemble { roots, nodes, leaves: of_leaf.into_iter().zip(weights).collect(), targets })
    }

    /// The leaf that a row reaches. Errors on a feature that is not there and on a cycle.
    fn leaf(&self, root: usize, row: &[f64]) -> Result<usize> {
        let mut at = root;
        for _ in 0..=self.nodes.len() {
            let node = &self.nodes[at];
            let x = *row.get(node.feature).ok_or_else(|| {
                Error::mismatch("feature of a node", node.feature, format!("below {}", row.len()))
            })?;
            let holds = if x.is_nan() { node.nan_is_true } else { node.test.holds(x) };
            match if holds { node.if_true } else { node.if_false } {
                Next::Leaf(leaf) => return Ok(leaf),
                Next::Node(next) => at = next,
            }
        }
        Err(Error::invalid("the tree has a cycle"))
    }
}

/// `post_transform` on the scores of one row.
fn transform(kind: i64, scores: &mut [f64]) -> Result<()> {
    let softmax = |scores: &mut [f64], keep_zero: bool| {
        let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores
            .iter_mut()
            .map(|s| {
                *s = if keep_zero && *s == 0.0 { 0.0 } else { (*s - top).exp() };
                *s
            })
            .sum();
        scores.iter_mut().for_each(|s| *s /= sum);
    };
    match kind {
        0 => {}
        1 => softmax(scores, false),
        2 => scores.iter_mut().for_each(|s| *s = 1.0 / (1.0 + (-*s).exp())),
        3 => softmax(scores, true),
        4 => return Err(Error::unsupported("post_transform PROBIT")),
        other => return Err(Error::mismatch("attribute `post_transform`", other, "0 to 4")),
    }
    Ok(())
}

impl Operator for TreeEnsemble {
    fn schema(&self) -> Schema {
        Schema { name: "TreeEnsemble", domain: DOMAIN, since: &[5], inputs: (1, 1), outputs: (1, 1) }
    }
    fn infer(&self, cx: &InferCtx<'_>) -> Result<Vec<Fact>> {
        let targets = usize::try_from(cx.node.attrs.need_int("n_targets")?).map_or(Dim::Unknown, Dim::Known);
        let rows = cx.shape(0)?.and_then(|s| s.first().cloned()).unwrap_or_default();
        Ok(vec![TensorType::new(cx.dtype(0)?, [rows, targets]).into()])
    }
    fn eval(&self, cx: &EvalCtx<'_>) -> Result<Vec<Value>> {
        let x = cx.tensor(0)?;
        let &[rows, features] = x.shape() else { return Err(Error::mismatch("rank", x.rank(), 2)) };
        let ensemble = Ensemble::parse(cx.node)?;
        let how = cx.node.attrs.int_or("aggregate_function", 1)?;
        let after = cx.node.attrs.int_or("post_transform", 0)?;
        let data = to_f64s(x)?;
        let mut y = Vec::with_capacity(elem_count(&[rows, ensemble.targets])?);
        for r in 0..rows {
            let row = &data[r * features..][..features];
            let mut scores: Vec<Option<f64>> = vec![None; ensemble.targets];
            for &root in &ensemble.roots {
                let (target, weight) = ensemble.leaves[ensemble.leaf(root, row)?];
                let score = &mut scores[target];
                *score = Some(match (how, *score) {
                    (0..=3, None) => weight,
                    (0 | 1, Some(s)) => s + weight,
                    (2, Some(s)) => s.min(weight),
                    (3, Some(s)) => s.max(weight),
                    _ => return Err(Error::mismatch("attribute `aggregate_function`", how, "0 to 3")),
                });
            }
            let share = if how == 0 { ensemble.roots.len() as f64 } else { 1.0 };
            let mut scores: Vec<f64> = scores.into_iter().map(|s| s.unwrap_or(0.0) / share).collect();
            transform(after, &mut scores)?;
            y.extend(scores);
        }
        Ok(vec![from_f64s(x.dtype(), [rows, ensemble.targets], y, Narrowing::default())?.into()])
    }
}
