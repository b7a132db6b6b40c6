//! A rule made of a pattern.
use super::matcher::{Found, find};
use super::{Matched, Pat};
use crate::builder::Builder;
use crate::context::Cx;
use crate::rule::{AnyRule, Declined, Prepared, Traits};
use fcc_ir::{NodeId, ValueId};

type Check = dyn Fn(&Cx<'_>, &Matched) -> Result<(), Declined> + Send + Sync;
type Growth = dyn Fn(&Cx<'_>, &Matched) -> u64 + Send + Sync;
type Build = dyn Fn(&Matched, &mut Builder<'_>) -> Result<Vec<ValueId>, Declined> + Send + Sync;

/// A rule that replaces what a pattern describes.
pub struct PatternRule {
    name: String,
    doc: String,
    roots: Vec<Pat>,
    traits: Traits,
    check: Box<Check>,
    growth: Box<Growth>,
    build: Box<Build>,
}

/// A [`PatternRule`] that lacks what it builds.
pub struct Unbuilt(PatternRule);

impl PatternRule {
    /// A rule of this name; `doc` is Markdown whose first line is the law. The rule is tried at nodes that the root's
    /// operator makes.
    #[expect(clippy::new_ret_no_self, reason = "a rule is one only when it knows what it builds")]
    pub fn new(name: &str, doc: &str, root: Pat) -> Unbuilt {
        let build: Box<Build> = Box::new(|_, _| Err(Declined::new("rule", "nothing to build", "a build")));
        Unbuilt(PatternRule {
            name: name.into(),
            doc: doc.into(),
            roots: vec![root],
            traits: Traits { repeats: true, ..Traits::default() },
            check: Box::new(|_, _| Ok(())),
            growth: Box::new(|_, _| 0),
            build,
        })
    }
}

impl Unbuilt {
    /// Another value that the same match replaces. It shares a variable with the roots before it, as a direct input.
    pub fn root(mut self, root: Pat) -> Unbuilt {
        self.0.roots.push(root);
        self
    }
    /// How the rule runs by itself; by default until nothing changes.
    pub fn traits(mut self, traits: Traits) -> Unbuilt {
        self.0.traits = traits;
        self
    }
    /// A condition on a match, beside the pattern.
    pub fn check(
        mut self,
        check: impl Fn(&Cx<'_>, &Matched) -> Result<(), Declined> + Send + Sync + 'static,
    ) -> Unbuilt {
        self.0.check = Box::new(check);
        self
    }
    /// Bytes of constants that the replacement holds and what it replaces does not.
    pub fn growth_bytes(
        mut self,
        growth: impl Fn(&Cx<'_>, &Matched) -> u64 + Send + Sync + 'static,
    ) -> Unbuilt {
        self.0.growth = Box::new(growth);
        self
    }
    /// What takes the place of the root.
    pub fn build(
        self,
        build: impl Fn(&Matched, &mut Builder<'_>) -> Result<ValueId, Declined> + Send + Sync + 'static,
    ) -> PatternRule {
        self.build_all(move |m, b| build(m, b).map(|made| vec![made]))
    }
    /// What takes the places of all roots, in their order.
    pub fn build_all(
        mut self,
        build: impl Fn(&Matched, &mut Builder<'_>) -> Result<Vec<ValueId>, Declined> + Send + Sync + 'static,
    ) -> PatternRule {
        self.0.build = Box::new(build);
        self.0
    }
}

impl AnyRule for PatternRule {
    fn name(&self) -> &str {
        &self.name
    }
    fn doc(&self) -> &str {
        &self.doc
    }
    fn traits(&self) -> Traits {
        self.traits
    }
    fn prepare<'r>(&'r self, cx: &Cx<'_>, node: NodeId) -> Option<Result<Prepared<'r>, Declined>> {
        let matched = match find(cx, &self.roots, node) {
            Found::Nothing => return None,
            Found::Near(declined) => return Some(Err(declined)),
            Found::Match(matched) => matched,
        };
        if let Err(declined) = (self.check)(cx, &matched) {
            return Some(Err(declined));
        }
        Some(Ok(Prepared {
            replaces: matched.roots.clone(),
            sources: matched.sources.clone(),
            growth_bytes: (self.growth)(cx, &matched),
            action: Box::new(move |b| (self.build)(&matched, b)),
        }))
    }
}
