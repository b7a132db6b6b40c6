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

/// How a rule runs where it is asked for by its own name, and what else the driver should know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traits {
    /// It runs until nothing changes, as rules that clean up do; else once over the graph.
    pub repeats: bool,
    /// The pipeline that cleans up behind it.
    pub then: Option<&'static str>,
    /// What it replaces is linear in its first source, so that a proof can read out every coefficient.
    pub linear: bool,
}

/// A rewrite rule for one value, matched by hand. A rule cannot delete or redirect anything: the driver does, after
/// checking the replacement. Patterns of several nodes and values are a [`PatternRule`](crate::PatternRule).
pub trait Rule: Send + Sync {
    /// What the pattern found.
    type Found;
    /// What the guard worked out for the action.
    type Plan;
    /// The rule's name on the command line and in reports.
    fn name(&self) -> &str;
    /// The rule's documentation in Markdown; its first line is the law.
    fn doc(&self) -> &str;
    /// How it runs by itself.
    fn traits(&self) -> Traits {
        Traits::default()
    }
    /// Whether the node is a candidate: looks at structure only.
    fn pattern(&self, cx: &Cx<'_>, node: NodeId) -> Option<Self::Found>;
    /// Every condition. Errs with the first that does not hold.
    fn guard(&self, cx: &Cx<'_>, found: Self::Found) -> Result<Match<Self::Plan>, Declined>;
    /// Builds the value that takes the place of [`Match::replaces`].
    fn action(&self, plan: Self::Plan, b: &mut Builder<'_>) -> Result<ValueId, Declined>;
}

/// What builds a replacement.
pub type Action<'r> = dyn FnOnce(&mut Builder<'_>) -> Result<Vec<ValueId>, Declined> + 'r;

/// A match of some rule, ready to be applied by the driver.
pub struct Prepared<'r> {
    /// The values that the rule replaces, in the order in which the action answers.
    pub replaces: Vec<ValueId>,
    /// The values that are not constant and that the replacement reads.
    pub sources: Vec<ValueId>,
    /// Bytes of constants that the replacement will hold and what it replaces does not.
    pub growth_bytes: u64,
    /// Builds the values that take the places of `replaces`.
    pub action: Box<Action<'r>>,
}

/// A rule of any kind: a [`Rule`] written by hand, or a [`PatternRule`](crate::PatternRule).
pub trait AnyRule: Send + Sync {
    /// The rule's name.
    fn name(&self) -> &str;
    /// The rule's documentation in Markdown; its first line is the law.
    fn doc(&self) -> &str;
    /// How it runs by itself.
    fn traits(&self) -> Traits;
    /// Pattern and guard: `None` if the node is no candidate.
    fn prepare<'r>(&'r self, cx: &Cx<'_>, node: NodeId) -> Option<Result<Prepared<'r>, Declined>>;
}

impl<R: Rule<Plan: 'static>> AnyRule for R {
    fn name(&self) -> &str {
        Rule::name(self)
    }
    fn doc(&self) -> &str {
        Rule::doc(self)
    }
    fn traits(&self) -> Traits {
        Rule::traits(self)
    }
    fn prepare<'r>(&'r self, cx: &Cx<'_>, node: NodeId) -> Option<Result<Prepared<'r>, Declined>> {
        let found = self.pattern(cx, node)?;
        Some(self.guard(cx, found).map(|m| Prepared {
            replaces: vec![m.replaces],
            sources: m.sources,
            growth_bytes: m.growth_bytes,
            action: Box::new(move |b| self.action(m.plan, b).map(|made| vec![made])),
        }))
    }
}

/// The law of a rule: the first line of its documentation, without Markdown.
pub fn law(rule: &dyn AnyRule) -> String {
    rule.doc().trim().lines().next().unwrap_or_default().trim().replace('`', "")
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
