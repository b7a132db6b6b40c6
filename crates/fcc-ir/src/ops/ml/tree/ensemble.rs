//! Decision trees in flat form: what all tree operators, the interpreter and the code generator evaluate.
//!
//! A node takes 12 bytes (16 of doubles). The two children of a branch stand side by side, so that one number tells
//! where both are, and which of them a row takes is an addition.
use super::super::real::Real;
use crate::{Error, Result};

/// What a branch asks of its feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Mode {
    /// `x <= value`.
    Leq = 0,
    /// `x < value`.
    Lt = 1,
    /// `x >= value`.
    Gte = 2,
    /// `x > value`.
    Gt = 3,
    /// `x == value`.
    Eq = 4,
    /// `x != value`, false of NaN.
    Neq = 5,
    /// Whether `x` is in a set.
    Member = 6,
}

impl Mode {
    /// By the number that `TreeEnsemble` of version 5 gives it.
    pub fn of_code(code: u8) -> Option<Mode> {
        use Mode::*;
        [Leq, Lt, Gte, Gt, Eq, Neq, Member].into_iter().find(|m| *m as u8 == code)
    }
}

const BRANCH: u32 = 1 << 31;
const NAN_IS_TRUE: u32 = 1 << 30;
const MODE_SHIFT: u32 = 27;
const FEATURE: u32 = (1 << MODE_SHIFT) - 1;

/// A node of a flat tree.
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(C)]
pub struct Node<T> {
    /// Whether it is a branch, the branch of NaN, the mode, the feature; 0 of a leaf.
    word: u32,
    /// Of a branch: its true child; the false one stands behind. Of a leaf: its first weight.
    next: u32,
    /// Of a branch: the threshold, or the number of its set. Of a leaf: its only weight, or the number of its weights.
    value: T,
}

impl<T: Real> Node<T> {
    /// Whether it has children.
    #[inline(always)]
    pub fn is_branch(&self) -> bool {
        self.word & BRANCH != 0
    }
    /// The feature that a branch looks at; 0 of a leaf.
    #[inline(always)]
    pub fn feature(&self) -> usize {
        (self.word & FEATURE) as usize
    }
    /// Whether NaN takes the true branch.
    #[inline(always)]
    pub fn nan_is_true(&self) -> bool {
        self.word & NAN_IS_TRUE != 0
    }
    /// What a branch asks.
    #[inline(always)]
    pub fn mode(&self) -> Mode {
        match self.word >> MODE_SHIFT & 7 {
            0 => Mode::Leq,
            1 => Mode::Lt,
            2 => Mode::Gte,
            3 => Mode::Gt,
            4 => Mode::Eq,
            5 => Mode::Neq,
            _ => Mode::Member,
        }
    }
    /// The true child of a branch; the false one is the next.
    #[inline(always)]
    pub fn next(&self) -> u32 {
        self.next
    }
    /// The threshold of a branch, the weight of a leaf that has one for the only target.
    #[inline(always)]
    pub fn value(&self) -> T {
        self.value
    }
}

/// A node as a model gives it.
pub enum Item<T> {
    /// A branch, with the ids of its children.
    Branch {
        /// The feature's number.
        feature: usize,
        /// What it asks.
        mode: Mode,
        /// The threshold.
        value: T,
        /// The members of a [`Mode::Member`] branch.
        set: Vec<T>,
        /// Whether NaN takes the true branch.
        nan_is_true: bool,
        /// The ids of the true and the false child.
        children: [usize; 2],
    },
    /// A leaf: a range of the list of weights.
    Leaf(std::ops::Range<usize>),
}

/// Trees whose leaves add weights to targets.
#[derive(Debug, Clone)]
pub struct Ensemble<T> {
    nodes: Vec<Node<T>>,
    roots: Vec<u32>,
    /// Target and weight, by leaf; empty where each leaf has one weight for the only target.
    weights: Vec<(u32, T)>,
    sets: Vec<Vec<T>>,
    /// Whether each leaf has one weight, for the only target.
    lone: bool,
    targets: usize,
    /// One more than the greatest feature of a branch.
    features: usize,
    /// The mode of every branch, if it is the same.
    mode: Option<Mode>,
    /// Whether some branch sends NaN to its true child.
    tracks: bool,
}

impl<T: Real> Ensemble<T> {
    /// Lays out the trees of `roots`. `item` gives a node by its id, which is below `ids`; a branch is a child once at
    /// most, leaves may be shared. Errors on what `item` refuses, on a branch with two parents or in a cycle, and on more
    /// than fits the format.
    pub fn build(
        roots: &[usize],
        ids: usize,
        targets: usize,
        weights: Vec<(u32, T)>,
        mut item: impl FnMut(usize) -> Result<Item<T>>,
    ) -> Result<Ensemble<T>> {
        let mut made = Ensemble {
            nodes: Vec::with_capacity(ids),
            roots: Vec::with_capacity(roots.len()),
            weights: vec![],
            sets: vec![],
            lone: targets == 1,
            targets,
            features: 0,
            mode: None,
            tracks: false,
        };
        let (mut seen, mut mixed) = (vec![false; ids], false);
        let empty = Node { word: 0, next: 0, value: T::default() };
        // ids and their places, one tree at a time, level by level
        let mut queue: Vec<(usize, usize)> = vec![];
        for &root in roots {
            made.roots.push(short(made.nodes.len())?);
            queue.clear();
            queue.push((root, made.nodes.len()));
            made.nodes.push(empty);
            let mut at = 0;
            while let Some(&(id, place)) = queue.get(at) {
                at += 1;
                made.nodes[place] = match item(id)? {
                    Item::Leaf(range) => {
                        made.lone &= range.len() == 1;
                        Node { word: 0, next: short(range.start)?, value: T::of_whole(short(range.len())?) }
                    }
                    Item::Branch { feature, mode, value, set, nan_is_true, children } => {
                        let twice = seen.get_mut(id).map(|seen| std::mem::replace(seen, true));
                        if twice != Some(false) {
                            let wanted = "branches of a tree, each with one parent at most";
                            return Err(Error::mismatch(
                                format!("node {id}"),
                                "one that is reached twice",
                                wanted,
                            ));
                        }
                        if feature > FEATURE as usize {
                            return Err(Error::mismatch(
                                "feature of a node",
                                feature,
                                format!("{FEATURE} at most"),
                            ));
                        }
                        made.features = made.features.max(feature + 1);
                        made.tracks |= nan_is_true;
                        mixed |= made.mode.is_some_and(|m| m != mode);
                        made.mode = Some(mode);
                        let value = if mode == Mode::Member {
                            made.sets.push(set);
                            T::of_whole(short(made.sets.len() - 1)?)
                        } else {
                            value
                        };
                        let next = made.nodes.len();
                        made.nodes.extend([empty; 2]);
                        queue.extend([(children[0], next), (children[1], next + 1)]);
                        let track = if nan_is_true { NAN_IS_TRUE } else { 0 };
                        let word = BRANCH | track | (mode as u32) << MODE_SHIFT | feature as u32;
                        Node { word, next: short(next)?, value }
                    }
                };
            }
        }
        if mixed {
            made.mode = None;
        }
        if let Some((target, _)) = weights.iter().find(|(t, _)| *t as usize >= targets) {
            return Err(Error::mismatch("target of a weight", target, format!("below {targets}")));
        }
        if made.lone {
            for node in made.nodes.iter_mut().filter(|n| !n.is_branch()) {
                node.value = weights[node.next as usize].1;
            }
        } else {
            made.weights = weights;
        }
        made.nodes.shrink_to_fit();
        Ok(made)
    }
    /// All nodes, tree by tree.
    pub fn nodes(&self) -> &[Node<T>] {
        &self.nodes
    }
    /// The place of each tree's root.
    pub fn roots(&self) -> &[u32] {
        &self.roots
    }
    /// How many targets (or classes) there are scores for.
    pub fn targets(&self) -> usize {
        self.targets
    }
    /// How many features a row must have.
    pub fn features(&self) -> usize {
        self.features
    }
    /// The mode that all branches have; `None` where they differ or there are none.
    pub fn mode(&self) -> Option<Mode> {
        self.mode
    }
    /// Whether NaN takes the true child somewhere.
    pub fn tracks(&self) -> bool {
        self.tracks
    }
    /// Whether each leaf has one weight, for the only target: it stands in the leaf.
    pub fn is_lone(&self) -> bool {
        self.lone
    }
    /// The members of the set of a [`Mode::Member`] branch.
    pub fn set(&self, node: &Node<T>) -> &[T] {
        &self.sets[node.value.whole() as usize]
    }
    /// Targets and weights of a leaf, where it has not exactly one for the only target.
    pub fn weights(&self, leaf: &Node<T>) -> &[(u32, T)] {
        &self.weights[leaf.next as usize..][..leaf.value.whole() as usize]
    }
    /// Errors unless rows have every feature that a branch looks at.
    pub fn check(&self, features: usize) -> Result<()> {
        if self.features <= features {
            return Ok(());
        }
        Err(Error::mismatch(
            "feature of a node",
            self.features - 1,
            format!("below {features}, the columns of X"),
        ))
    }
    /// Whether a branch sends this number to its true child.
    pub fn holds(&self, node: &Node<T>, x: T) -> bool {
        let holds = match node.mode() {
            Mode::Leq => x <= node.value,
            Mode::Lt => x < node.value,
            Mode::Gte => x >= node.value,
            Mode::Gt => x > node.value,
            Mode::Eq => x == node.value,
            Mode::Neq => x != node.value && !x.is_nan(),
            Mode::Member => self.set(node).contains(&x),
        };
        holds || (x.is_nan() && node.nan_is_true())
    }
    /// The place of the leaf that a row reaches from a root. The row must have [`Ensemble::features`] columns.
    pub fn leaf(&self, root: u32, row: &[T]) -> u32 {
        let mut at = root;
        loop {
            let node = &self.nodes[at as usize];
            if !node.is_branch() {
                return at;
            }
            at = node.next + u32::from(!self.holds(node, row[node.feature()]));
        }
    }
    /// Bytes of the nodes and weights.
    pub fn bytes(&self) -> usize {
        size_of_val(&self.nodes[..]) + size_of_val(&self.weights[..])
    }
}

fn short(n: usize) -> Result<u32> {
    u32::try_from(n).map_err(|_| Error::unsupported(format!("an ensemble of {n} nodes, more than 2^32")))
}
