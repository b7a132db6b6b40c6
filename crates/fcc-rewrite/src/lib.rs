//! Rewrite rules over [`fcc_ir`] graphs, the passes that run them, and the checks that they kept the meaning.
//!
//! - A rule is a law with a pattern, a guard that declines with values, and an action that only builds: a
//!   [`PatternRule`] from an expression over operators, or a [`Rule`] matched by hand.
//! - A [`Registry`] holds rules and pipelines by name, fcc's own and a caller's.
//! - [`run`] drives [`passes`](passes::Pass) over every graph of a model and returns a [`Report`].
//! - [`dense`] makes of a classifier a model that slides over larger images.
//! - [`verify`] compares the rewritten model with the original; [`prove`] decides equality of one linear node.
#![forbid(unsafe_code)]

mod apply;
mod builder;
mod context;
mod convolution;
mod count;
pub mod dense;
mod driver;
mod frontier;
mod linear;
pub mod passes;
pub mod pattern;
pub mod prove;
pub mod registry;
mod report;
mod rule;
mod rules;
mod runtimes;
mod same;
mod side;
mod sizes;
mod stretch;
mod toeplitz;
pub mod verify;
mod weights;

pub use builder::{Builder, Extent};
pub use context::{Cx, Limits};
pub use driver::{Hook, Moment, OnMatch, Options, Site, run};
pub use pattern::PatternRule;
pub use registry::Registry;
pub use report::{Attempt, Outcome, PassSummary, Report, Row, Size};
pub use rule::{Action, AnyRule, Declined, Match, Prepared, Rule, Traits, law};
