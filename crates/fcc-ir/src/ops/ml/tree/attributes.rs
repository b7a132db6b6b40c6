//! The attributes of `TreeEnsembleClassifier` and `TreeEnsembleRegressor`, read into flat trees.
use super::super::real::{Real, reals};
use super::ensemble::{Ensemble, Item, Mode};
use crate::{Bytes, DType, Error, OpNode, Result, Tensor};

/// Numbers that an attribute gives as floats or, with `_as_tensor`, as a tensor.
enum Numbers<'a, T> {
    Floats(&'a [f32]),
    Tensor(Vec<T>),
}

impl<T: Real> Numbers<'_, T> {
    fn len(&self) -> usize {
        match self {
            Numbers::Floats(v) => v.len(),
            Numbers::Tensor(v) => v.len(),
        }
    }
    fn get(&self, i: usize) -> T {
        match self {
            Numbers::Floats(v) => T::from_f64(f64::from(v[i])),
            Numbers::Tensor(v) => v[i],
        }
    }
}

/// The numbers of `{name}` or `{name}_as_tensor`; none where both are absent.
fn numbers<'a, T: Real>(node: &'a OpNode, name: &str) -> Result<Numbers<'a, T>> {
    let tensor = node.attrs.tensor(&format!("{name}_as_tensor"))?.filter(|t| !t.is_empty());
    let floats = node.attrs.floats(name)?.unwrap_or(&[]);
    match tensor {
        Some(_) if !floats.is_empty() => Err(Error::mismatch(
            format!("attribute `{name}_as_tensor`"),
            format!("`{name}` too"),
            "one of the two",
        )),
        Some(t) if !matches!(t.dtype(), DType::F32 | DType::F64) => {
            Err(Error::mismatch(format!("attribute `{name}_as_tensor`"), t.tensor_type(), "float or double"))
        }
        Some(t) => Ok(Numbers::Tensor(reals(t)?)),
        None => Ok(Numbers::Floats(floats)),
    }
}

/// The base values, as numbers of the format that the trees are computed in.
pub(super) fn base_values<T: Real>(node: &OpNode) -> Result<Vec<T>> {
    let v = numbers::<T>(node, "base_values")?;
    Ok((0..v.len()).map(|i| v.get(i)).collect())
}

/// Whether the trees are computed in doubles: some attribute or the input holds doubles.
pub(super) fn in_doubles(node: &OpNode, input: DType) -> Result<bool> {
    let names = ["nodes_values", "target_weights", "class_weights", "base_values"];
    let double = |name: &str| {
        Ok(node.attrs.tensor(&format!("{name}_as_tensor"))?.is_some_and(|t| t.dtype() == DType::F64))
    };
    Ok(input == DType::F64 || names.iter().map(|n| double(n)).collect::<Result<Vec<_>>>()?.contains(&true))
}

/// The list of integers of an attribute, of length `n`.
fn ints<'a>(node: &'a OpNode, name: &str, n: usize) -> Result<&'a [i64]> {
    let list = node.attrs.ints(name)?.unwrap_or(&[]);
    super::super::need_len(name, list.len(), n)?;
    Ok(list)
}

/// Where each node of a tree is found by its ids.
struct Places {
    /// Places of the nodes in the lists, sorted by tree and node id.
    sorted: Vec<u32>,
    /// For each tree in the order of its first node: that node, and the tree's part of `sorted`.
    trees: Vec<(u32, std::ops::Range<usize>)>,
    /// Which tree a node belongs to, by its place in the lists.
    tree_of: Vec<u32>,
}

impl Places {
    fn new(trees: &[i64], nodes: &[i64]) -> Result<Places> {
        let n = u32::try_from(trees.len())
            .map_err(|_| Error::unsupported("an ensemble of 2^32 nodes or more"))?;
        let key = |i: &u32| (trees[*i as usize], nodes[*i as usize]);
        let mut sorted: Vec<u32> = (0..n).collect();
        // most files have them in order: a stable sort is linear then
        sorted.sort_by_key(key);
        if let Some(twice) = sorted.windows(2).find(|w| key(&w[0]) == key(&w[1])) {
            let (tree, node) = key(&twice[0]);
            return Err(Error::mismatch(format!("node {node} of tree {tree}"), "two of them", "one"));
        }
        let mut groups: Vec<(u32, std::ops::Range<usize>)> = vec![];
        for (at, i) in sorted.iter().enumerate() {
            match groups.last_mut() {
                Some((first, range)) if trees[*i as usize] == trees[*first as usize] => {
                    *first = (*first).min(*i);
                    range.end = at + 1;
                }
                _ => groups.push((*i, at..at + 1)),
            }
        }
        groups.sort_by_key(|(first, _)| *first);
        let mut tree_of = vec![0; trees.len()];
        for (t, (_, range)) in groups.iter().enumerate() {
            sorted[range.clone()].iter().for_each(|i| tree_of[*i as usize] = t as u32);
        }
        Ok(Places { sorted, trees: groups, tree_of })
    }
    /// The place of a node in the lists.
    fn find(&self, tree: usize, id: i64, nodes: &[i64]) -> Option<usize> {
        let part = &self.sorted[self.trees[tree].1.clone()];
        let key = |i: &u32| nodes[*i as usize];
        // ids mostly count up from the first one
        let guess = usize::try_from(id.checked_sub(key(part.first()?))?).ok();
        match guess.and_then(|g| part.get(g)) {
            Some(i) if key(i) == id => Some(*i as usize),
            _ => Some(part[part.binary_search_by_key(&id, key).ok()?] as usize),
        }
    }
}

/// The mode of each node, `None` of leaves.
fn modes(node: &OpNode) -> Result<(Vec<Option<Mode>>, &[u32])> {
    let missing = || Error::mismatch("attribute `nodes_modes`", "none", "strings");
    let (distinct, elems) = node.attrs.strings("nodes_modes")?.ok_or_else(missing)?.parts();
    let mode = |s: &Bytes| {
        Ok(Some(match &s[..] {
            b"BRANCH_LEQ" => Mode::Leq,
            b"BRANCH_LT" => Mode::Lt,
            b"BRANCH_GTE" => Mode::Gte,
            b"BRANCH_GT" => Mode::Gt,
            b"BRANCH_EQ" => Mode::Eq,
            b"BRANCH_NEQ" => Mode::Neq,
            b"LEAF" => return Ok(None),
            other => {
                let wanted = "BRANCH_LEQ, BRANCH_LT, BRANCH_GTE, BRANCH_GT, BRANCH_EQ, BRANCH_NEQ or LEAF";
                return Err(Error::mismatch("mode of a node", String::from_utf8_lossy(other), wanted));
            }
        }))
    };
    Ok((distinct.iter().map(mode).collect::<Result<_>>()?, elems))
}

/// Errors where lists that belong together differ in length or a mode is unknown: cheap, whatever the number of nodes.
pub(super) fn check_lists(node: &OpNode, prefix: &str) -> Result<()> {
    let n = node.attrs.ints("nodes_treeids")?.map_or(0, <[i64]>::len);
    for name in ["nodes_nodeids", "nodes_featureids", "nodes_truenodeids", "nodes_falsenodeids"] {
        ints(node, name, n)?;
    }
    if n > 0 {
        super::super::need_len("nodes_modes", modes(node)?.1.len(), n)?;
    }
    let len = |name: &str| -> Result<usize> {
        let tensor = node.attrs.tensor(&format!("{name}_as_tensor"))?.map_or(0, Tensor::len);
        Ok(node.attrs.floats(name)?.map_or(0, <[f32]>::len) + tensor)
    };
    super::super::need_len("nodes_values", len("nodes_values")?, n)?;
    let weights = len(&format!("{prefix}_weights"))?;
    for rest in ["treeids", "nodeids", "ids"] {
        ints(node, &format!("{prefix}_{rest}"), weights)?;
    }
    Ok(())
}

/// The trees of a node of version 1 or 3. `prefix` is `target` or `class`. Also returns whether no weight is negative,
/// and the one target that all weights are for, if there is one.
pub(super) fn read<T: Real>(
    node: &OpNode,
    prefix: &str,
    targets: usize,
) -> Result<(Ensemble<T>, bool, Option<u32>)> {
    let trees = node.attrs.ints("nodes_treeids")?.unwrap_or(&[]);
    let n = trees.len();
    let ids = ints(node, "nodes_nodeids", n)?;
    let features = ints(node, "nodes_featureids", n)?;
    let if_true = ints(node, "nodes_truenodeids", n)?;
    let if_false = ints(node, "nodes_falsenodeids", n)?;
    let (distinct, kinds) = if n == 0 { (vec![], &[][..]) } else { modes(node)? };
    super::super::need_len("nodes_modes", kinds.len(), n)?;
    let values = numbers::<T>(node, "nodes_values")?;
    super::super::need_len("nodes_values", values.len(), n)?;
    let tracks = match node.attrs.ints("nodes_missing_value_tracks_true")?.unwrap_or(&[]) {
        [] => &[][..],
        _ => ints(node, "nodes_missing_value_tracks_true", n)?,
    };
    let places = Places::new(trees, ids)?;
    let Leaves { weights, starts, positive, only } =
        Leaves::read(node, prefix, trees, ids, &places, targets)?;
    let roots: Vec<usize> = places.trees.iter().map(|(first, _)| *first as usize).collect();
    let child = |i: usize, id: i64| {
        let found = places.find(places.tree_of[i] as usize, id, ids);
        found.ok_or_else(|| {
            let what = format!("child of node {} of tree {}", ids[i], trees[i]);
            Error::mismatch(what, id, "the id of a node of the tree")
        })
    };
    let item = |i: usize| {
        let Some(mode) = distinct[kinds[i] as usize] else {
            return Ok(Item::Leaf(starts[i] as usize..starts[i + 1] as usize));
        };
        let feature = usize::try_from(features[i]);
        Ok(Item::Branch {
            feature: feature.map_err(|_| Error::mismatch("feature of a node", features[i], "at least 0"))?,
            mode,
            value: values.get(i),
            set: vec![],
            nan_is_true: tracks.get(i).is_some_and(|t| *t != 0),
            children: [child(i, if_true[i])?, child(i, if_false[i])?],
        })
    };
    Ok((Ensemble::build(&roots, n, targets, weights, item)?, positive, only))
}

/// The weights, in the order of the nodes they are for.
struct Leaves<T> {
    weights: Vec<(u32, T)>,
    /// Where the weights of each node begin, and where the last ends.
    starts: Vec<u32>,
    positive: bool,
    /// The target of all weights.
    only: Option<u32>,
}

impl<T: Real> Leaves<T> {
    fn read(
        node: &OpNode,
        prefix: &str,
        trees: &[i64],
        ids: &[i64],
        places: &Places,
        targets: usize,
    ) -> Result<Leaves<T>> {
        let name = |rest: &str| format!("{prefix}_{rest}");
        let values = numbers::<T>(node, &name("weights"))?;
        let n = values.len();
        let of_tree = ints(node, &name("treeids"), n)?;
        let of_node = ints(node, &name("nodeids"), n)?;
        let target = ints(node, &name("ids"), n)?;
        // trees by their ids
        let tree_id = |t: &u32| trees[places.trees[*t as usize].0 as usize];
        let mut by_id: Vec<u32> = (0..places.trees.len() as u32).collect();
        by_id.sort_by_key(tree_id);
        let (mut at, mut last) = (Vec::with_capacity(n), None);
        for j in 0..n {
            // the weights of a tree mostly stand side by side
            let tree = match last {
                Some((id, tree)) if id == of_tree[j] => Some(tree),
                _ => by_id.binary_search_by_key(&of_tree[j], tree_id).ok().map(|b| by_id[b] as usize),
            };
            last = tree.map(|t| (of_tree[j], t));
            let found = tree.and_then(|t| places.find(t, of_node[j], ids));
            at.push(found.ok_or_else(|| {
                let got = format!("node {} of tree {}", of_node[j], of_tree[j]);
                Error::mismatch("node of a weight", got, "a node of the ensemble")
            })? as u32);
        }
        let mut starts = vec![0u32; ids.len() + 1];
        at.iter().for_each(|i| starts[*i as usize + 1] += 1);
        for i in 1..starts.len() {
            starts[i] += starts[i - 1];
        }
        let mut next = starts.clone();
        let mut weights = vec![(0, T::default()); n];
        let (mut positive, mut only) = (true, (n > 0).then(|| target[0]));
        for (j, i) in at.into_iter().enumerate() {
            let place = &mut next[i as usize];
            let id = u32::try_from(target[j]).ok().filter(|t| (*t as usize) < targets);
            let id =
                id.ok_or_else(|| Error::mismatch("target of a weight", target[j], format!("0..{targets}")))?;
            weights[*place as usize] = (id, values.get(j));
            *place += 1;
            positive &= values.get(j) >= T::default() || values.get(j).is_nan();
            only = only.filter(|o| *o == target[j]);
        }
        Ok(Leaves { weights, starts, positive, only: only.and_then(|o| u32::try_from(o).ok()) })
    }
}
