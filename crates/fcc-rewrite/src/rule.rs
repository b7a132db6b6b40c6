//! What a rewrite rule is: a law, a pattern, a guard and an action.
use crate::builder::Builder;
use crate::context::Cx;
use fcc_ir::{NodeId, ValueId};
use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a rule leaves a candidate as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declined {
    /// The thing that does not fit, for example `dilations`.
    pub what: String,
    /// What was found there.
    pub got: String,
    /// What the rule needs.
    pub need: String,
}

impl Declined {
    /// A reason from anything printable.
    pub fn new(what: impl Into<String>, got: impl ToString, need: impl ToString) -> Self {
        Declined { what: what.into(), got: got.to_string(), need: need.to_string() }
    }
}

impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: got {}, need {}", self.what, self.got, self.need)
    }
}

impl From<fcc_ir::Error> for Declined {
    /// An attribute or a shape that cannot be read is a reason to leave a node alone.
    fn from(error: fcc_ir::Error) -> Self {
        match error {
            fcc_ir::Error::Mismatch { what, got, wanted } => Declined { what, got, need: wanted },
            other => Declined::new("node", other, "one that ONNX allows and fcc knows"),
        }
    }
}

/// A candidate that passed every condition.
#[derive(Debug, Clone)]
pub struct Match<P> {
    /// The value that the rule replaces.
    pub replaces: ValueId,
    /// The values that are not constant and that the replacement reads.
    pub sources: Vec<ValueId>,
    /// Bytes of constants that the replacement will hold and what it replaces does not.
    pub growth_bytes: u64,
    /// What the action needs to know.
    pub plan: P,
}

/// A rewrite rule. A rule cannot delete or redirect anything: the driver does, after checking the replacement.
pub trait Rule: Sync {
    /// What the pattern found.
    type Found;
    /// What the guard worked out for the action.
    type Plan;
    /// The rule's name on the command line and in reports.
    fn name(&self) -> &'static str;
    /// The rule's documentation in Markdown; its first line is the law.
    fn doc(&self) -> &'static str;
    /// Whether the node is a candidate: looks at structure only.
    fn pattern(&self, cx: &Cx<'_>, node: NodeId) -> Option<Self::Found>;
    /// Every condition. Errs with the first that does not hold.
    fn guard(&self, cx: &Cx<'_>, found: Self::Found) -> Result<Match<Self::Plan>, Declined>;
    /// Builds the value that takes the place of [`Match::replaces`].
    fn action(&self, plan: Self::Plan, b: &mut Builder<'_>) -> Result<ValueId, Declined>;
}

/// A match of some rule, ready to be applied by the driver.
pub struct Prepared<'r> {
    pub(crate) replaces: ValueId,
    pub(crate) sources: Vec<ValueId>,
    pub(crate) growth_bytes: u64,
    pub(crate) action: Box<dyn FnOnce(&mut Builder<'_>) -> Result<ValueId, Declined> + 'r>,
}

/// A [`Rule`] of any kind.
pub trait AnyRule: Sync {
    /// The rule's name.
    fn name(&self) -> &'static str;
    /// The rule's documentation in Markdown; its first line is the law.
    fn doc(&self) -> &'static str;
    /// Pattern and guard: `None` if the node is no candidate.
    fn prepare<'r>(&'r self, cx: &Cx<'_>, node: NodeId) -> Option<Result<Prepared<'r>, Declined>>;
}

impl<R: Rule<Plan: 'static>> AnyRule for R {
    fn name(&self) -> &'static str {
        Rule::name(self)
    }
    fn doc(&self) -> &'static str {
        Rule::doc(self)
    }
    fn prepare<'r>(&'r self, cx: &Cx<'_>, node: NodeId) -> Option<Result<Prepared<'r>, Declined>> {
        let found = self.pattern(cx, node)?;
        Some(self.guard(cx, found).map(|m| Prepared {
            replaces: m.replaces,
            sources: m.sources,
            growth_bytes: m.growth_bytes,
            action: Box::new(move |b| self.action(m.plan, b)),
        }))
    }
}

/// Declares the type of a rule with its name; its doc comment becomes [`Rule::doc`] too.
macro_rules! rule_type {
    ($(#[doc = $doc:expr])* $vis:vis struct $type:ident = $name:literal;) => {
        $(#[doc = $doc])*
        $vis struct $type;
        impl $type {
            pub(crate) const NAME: &'static str = $name;
            pub(crate) const DOC: &'static str = concat!($($doc, "\n"),*);
        }
    };
}
pub(crate) use rule_type;
