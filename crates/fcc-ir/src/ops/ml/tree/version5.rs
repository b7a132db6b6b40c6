//! The attributes of `TreeEnsemble`, read into flat trees: nodes and leaves stand in lists of their own.
use super::super::real::{Real, reals};
use super::ensemble::{Ensemble, Item, Mode};
use crate::ops::lists;
use crate::{DType, Error, OpNode, Result, Tensor};

/// The attribute `n_targets`.
pub(super) fn targets(node: &OpNode) -> Result<usize> {
    let n = node.attrs.need_int("n_targets")?;
    usize::try_from(n)
        .ok()
        .filter(|n| *n > 0)
        .ok_or_else(|| Error::mismatch("attribute `n_targets`", n, "at least 1"))
}

/// An attribute of `n` non-negative numbers.
fn numbers(node: &OpNode, name: &str, n: usize) -> Result<Vec<usize>> {
    let list = node.attrs.need_ints(name)?;
    super::super::need_len(name, list.len(), n)?;
    lists::extents(&format!("attribute `{name}`"), list)
}

/// A required tensor of `n` elements, any number of them for `None`.
fn tensor<'a>(node: &'a OpNode, name: &str, n: Option<usize>) -> Result<&'a Tensor> {
    let t = node.attrs.tensor(name)?;
    let t = t.ok_or_else(|| Error::mismatch(format!("attribute `{name}`"), "none", "a tensor"))?;
    super::super::need_len(name, t.len(), n.unwrap_or(t.len()))?;
    Ok(t)
}

/// Errors where lists that belong together differ in length: cheap, whatever the number of nodes.
pub(super) fn check_lists(node: &OpNode) -> Result<()> {
    let n = node.attrs.need_ints("nodes_featureids")?.len();
    for name in ["nodes_truenodeids", "nodes_falsenodeids", "nodes_trueleafs", "nodes_falseleafs"] {
        super::super::need_len(name, node.attrs.need_ints(name)?.len(), n)?;
    }
    tensor(node, "nodes_splits", Some(n))?;
    tensor(node, "nodes_modes", Some(n))?;
    let leaves = tensor(node, "leaf_weights", None)?.len();
    super::super::need_len("leaf_targetids", node.attrs.need_ints("leaf_targetids")?.len(), leaves)?;
    node.attrs.need_ints("tree_roots").map(drop)
}

/// The modes of the nodes.
fn modes(node: &OpNode, n: usize) -> Result<Vec<Mode>> {
    let codes = tensor(node, "nodes_modes", Some(n))?;
    if codes.dtype() != DType::U8 {
        return Err(Error::mismatch("element type of `nodes_modes`", codes.dtype(), DType::U8));
    }
    let mode = |c: &u8| Mode::of_code(*c).ok_or_else(|| Error::mismatch("mode of a node", c, "0 to 6"));
    codes.bytes().iter().map(mode).collect()
}

/// The trees of a node.
pub(super) fn read<T: Real>(node: &OpNode) -> Result<Ensemble<T>> {
    let n = node.attrs.need_ints("nodes_featureids")?.len();
    let features = numbers(node, "nodes_featureids", n)?;
    let modes = modes(node, n)?;
    let splits = reals::<T>(tensor(node, "nodes_splits", Some(n))?)?;
    let if_true = numbers(node, "nodes_truenodeids", n)?;
    let if_false = numbers(node, "nodes_falsenodeids", n)?;
    let (true_leaf, false_leaf) =
        (numbers(node, "nodes_trueleafs", n)?, numbers(node, "nodes_falseleafs", n)?);
    let tracks = match node.attrs.ints("nodes_missing_value_tracks_true")?.unwrap_or(&[]) {
        [] => vec![],
        list => {
            super::super::need_len("nodes_missing_value_tracks_true", list.len(), n)?;
            list.iter().map(|t| *t != 0).collect()
        }
    };
    let leaf_weights = reals::<T>(tensor(node, "leaf_weights", None)?)?;
    let leaves = leaf_weights.len();
    let ids = numbers(node, "leaf_targetids", leaves)?;
    let id =
        |t: usize| u32::try_from(t).map_err(|_| Error::mismatch("target of a leaf", t, "below n_targets"));
    let ids = ids.into_iter().map(id).collect::<Result<Vec<_>>>()?;
    // the sets stand one after another in the order of their nodes, each ended by NaN
    let members = node.attrs.tensor("membership_values")?.map(reals::<T>).transpose()?.unwrap_or_default();
    let mut sets = members.split(|v| v.is_nan());
    let mut set_of = vec![];
    if modes.contains(&Mode::Member) {
        for mode in &modes {
            set_of.push(match mode {
                Mode::Member => {
                    let too_few = || {
                        Error::mismatch(
                            "sets of `membership_values`",
                            "too few",
                            "one for each node that has one",
                        )
                    };
                    sets.next().ok_or_else(too_few)?
                }
                _ => &[],
            });
        }
    }
    let roots = lists::extents("attribute `tree_roots`", node.attrs.need_ints("tree_roots")?)?;
    let below = |what: &str, i: usize, n: usize| {
        if i < n { Ok(i) } else { Err(Error::mismatch(what, i, format!("below {n}"))) }
    };
    roots.iter().try_for_each(|r| below("root of a tree", *r, n).map(drop))?;
    // ids of leaves stand behind those of nodes
    let child = |id: usize, leaf: usize| match leaf {
        0 => below("child of a node", id, n),
        _ => Ok(n + below("leaf of a node", id, leaves)?),
    };
    let item = |i: usize| {
        if i >= n {
            return Ok(Item::Leaf(i - n..i - n + 1));
        }
        Ok(Item::Branch {
            feature: features[i],
            mode: modes[i],
            value: splits[i],
            set: set_of.get(i).map_or(vec![], |s| s.to_vec()),
            nan_is_true: tracks.get(i).copied().unwrap_or(false),
            children: [child(if_true[i], true_leaf[i])?, child(if_false[i], false_leaf[i])?],
        })
    };
    let weights = ids.into_iter().zip(leaf_weights).collect();
    Ensemble::build(&roots, n, targets(node)?, weights, item)
}
