//! Where the stretches behind a compared value begin, so that both sides compute it from the same values.
use fcc_ir::{Graph, NodeId, ValueId};
use std::collections::{BTreeSet, HashMap};

/// Both graphs, seen by the names of the values that they share.
pub(crate) struct Shared<'m> {
    original: &'m Graph,
    rewritten: &'m Graph,
    /// Names of values of both graphs that are constant in neither.
    names: BTreeSet<String>,
    /// Place of each operator in the original's order.
    order: HashMap<NodeId, usize>,
}

/// Operators that read no more than the extents of their first input.
const READ_EXTENTS: &[&str] = &["Shape", "Size"];

impl<'m> Shared<'m> {
    pub(crate) fn new(original: &'m Graph, rewritten: &'m Graph) -> fcc_ir::Result<Self> {
        let varies = |g: &Graph, v: ValueId| g.constant(v).is_none();
        let alike = |u: ValueId, v: ValueId| {
            varies(original, u) && varies(rewritten, v) && original.ty(u).merge(rewritten.ty(v)).is_ok()
        };
        let known =
            |name: &&str| original.value(name).zip(rewritten.value(name)).is_some_and(|(u, v)| alike(u, v));
        let names = original.names().filter(known).map(String::from).collect();
        let order = original.ops()?.into_iter().enumerate().map(|(i, id)| (id, i)).collect();
        Ok(Shared { original, rewritten, names, order })
    }

    pub(crate) fn contains(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// The shared values that must be computed too, so that both sides of the value `name` read the same values.
    ///
    /// A side that reads `a` and one that computes `a` from `x` do not meet: `a` was rounded, and the comparison puts
    /// other numbers in place of zeros. Such values are opened, the latest first, until both sides read the same.
    pub(crate) fn opened(&self, name: &str) -> BTreeSet<String> {
        let mut opened = BTreeSet::new();
        loop {
            let was = self.reads(self.original, name, &opened, true);
            let is = self.reads(self.rewritten, name, &opened, true);
            let one_sided: BTreeSet<String> = was.symmetric_difference(&is).cloned().collect();
            if one_sided.is_empty() {
                return opened;
            }
            let behind = self.behind(&one_sided);
            let both_sided = was.intersection(&is).filter(|name| self.made_in(name, &behind));
            let candidates = one_sided.iter().chain(both_sided);
            let latest = candidates.filter_map(|name| Some((self.place(name)?, name))).max();
            // inputs that only one side reads stay as they are: it does not matter what they hold
            let Some((_, latest)) = latest else { return opened };
            opened.insert(latest.clone());
        }
    }

    /// The shared values that must be computed too, so that no side reads a value beside what it is made of.
    ///
    /// That both sides read the same does not say that they read it for the same: a rule may have merged `b` into
    /// `a`, so that one side computes from `x` what the other reads as `a`, and both read `x` for some third value.
    pub(crate) fn opened_wide(&self, name: &str) -> BTreeSet<String> {
        let mut opened = BTreeSet::new();
        loop {
            let mut read = self.reads(self.original, name, &opened, true);
            read.extend(self.reads(self.rewritten, name, &opened, true));
            let behind = self.behind(&read);
            let before = opened.len();
            opened.extend(
                read.into_iter().filter(|name| self.made_in(name, &behind) && self.place(name).is_some()),
            );
            if opened.len() == before {
                return opened;
            }
        }
    }

    /// Names of what a stretch that ends in the value `name` reads. `values`: leave out of what only extents are read.
    pub(crate) fn reads(
        &self,
        graph: &Graph,
        name: &str,
        opened: &BTreeSet<String>,
        values: bool,
    ) -> BTreeSet<String> {
        let (mut names, mut seen) = (BTreeSet::new(), BTreeSet::new());
        let mut work: Vec<NodeId> = graph.value(name).map(|v| v.node).into_iter().collect();
        while let Some(node) = work.pop() {
            if !seen.insert(node) || (values && reads_extents(graph, node)) {
                continue;
            }
            for feed in graph.inputs_of(node).into_iter().flatten().chain(graph.captures_of(node)) {
                let name = graph.value_name(feed);
                let begins = self.contains(name) && !opened.contains(name) || graph.op(feed.node).is_none();
                if begins && graph.constant(feed).is_none() {
                    names.insert(name.to_string());
                } else if !begins {
                    work.push(feed.node);
                }
            }
        }
        names
    }

    /// The original's operators that need one of these values.
    fn behind(&self, names: &BTreeSet<String>) -> BTreeSet<NodeId> {
        let graph = self.original;
        let mut found = BTreeSet::new();
        let mut work: Vec<ValueId> = names.iter().filter_map(|name| graph.value(name)).collect();
        while let Some(value) = work.pop() {
            for (user, _) in graph.users(value) {
                if !reads_extents(graph, user) && found.insert(user) {
                    work.extend(graph.values_of(user));
                }
            }
        }
        found
    }

    fn made_in(&self, name: &str, nodes: &BTreeSet<NodeId>) -> bool {
        self.original.value(name).is_some_and(|v| nodes.contains(&v.node))
    }

    /// The place of the operator that makes a value; `None` if it is not one in both graphs.
    fn place(&self, name: &str) -> Option<usize> {
        let (was, is) = (self.original.value(name)?, self.rewritten.value(name)?);
        self.rewritten.op(is.node)?;
        self.order.get(&was.node).copied()
    }
}

fn reads_extents(graph: &Graph, node: NodeId) -> bool {
    graph.op(node).is_some_and(|op| READ_EXTENTS.contains(&op.onnx_name()))
}
