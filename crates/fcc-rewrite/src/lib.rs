//! Rewrite rules over [`fcc_ir`] graphs, the passes that run them, and the checks that they kept the meaning.
//!
//! - A [`Rule`] is a law with a pattern, a guard that declines with values, and an action that only builds.
//! - [`run`] drives [`passes`](passes::Pass) over every graph of a model and answers with a [`Report`].
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
pub mod prove;
mod report;
mod rule;
mod rules;
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
pub use report::{Attempt, Outcome, PassSummary, Report, Row, Size};
pub use rule::{AnyRule, Declined, Match, Prepared, Rule};
