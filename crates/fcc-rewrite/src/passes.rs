//! Passes: what [`run`] runs one after the other. A [`Registry`] makes them of names.
use crate::context::Limits;
use crate::driver::{Options, run};
use crate::registry::Registry;
use crate::report::{Report, Row};
use crate::rule::AnyRule;
use fcc_ir::{Error, Model, Result};
use std::sync::Arc;

/// A named step of a run.
#[derive(Clone)]
pub struct Pass {
    /// Its name.
    pub name: String,
    /// What it does.
    pub kind: PassKind,
}

/// What a pass does.
#[derive(Clone)]
pub enum PassKind {
    /// Tries rules at every node; the first that rewrites it wins.
    Rules {
        /// The rules, in the order of trying.
        rules: Vec<Arc<dyn AnyRule>>,
        /// Whether to go on until nothing changes. What is declined in the last round is reported.
        repeat: bool,
    },
    /// Removes nodes, initializers and captures that no output needs.
    RemoveUnused,
}

/// The built-in rule of this name.
pub fn rule(name: &str) -> Option<Arc<dyn AnyRule>> {
    Registry::builtin().rule(name).cloned()
}

/// Names that [`named`] takes: every built-in rule and pipeline.
pub fn names() -> Vec<String> {
    Registry::builtin().names().map(String::from).collect()
}

/// The passes of a built-in rule or pipeline, as [`Registry::passes`] gives them.
pub fn named(name: &str) -> Option<Vec<Pass>> {
    Registry::builtin().passes(name).ok()
}

/// Finds the first rewrite that makes a model bad: `good` says whether a rewritten model is still right.
///
/// Runs the passes again and again with fewer rewrites, halving the range. Answers with the row of the first rewrite
/// without which `good` holds; `None` if the whole run is good. Errors if the model is bad without any rewrite, or
/// where a pass does.
pub fn bisect(
    model: &Model,
    passes: &[Pass],
    limits: &Limits,
    good: &mut dyn FnMut(&Model) -> Result<bool>,
) -> Result<Option<Row>> {
    let mut attempt = |stop_after: Option<u64>| -> Result<(bool, Report)> {
        let mut copy = model.clone();
        let options = Options { limits: limits.clone(), stop_after, ..Default::default() };
        let report = run(&mut copy, passes, options)?;
        Ok((good(&copy)?, report))
    };
    let (all_good, whole) = attempt(None)?;
    if all_good {
        return Ok(None);
    }
    if !attempt(Some(0))?.0 {
        return Err(Error::invalid("the model is bad before any rewrite"));
    }
    let (mut right, mut wrong) = (0, whole.rows.iter().filter_map(|r| r.number).max().unwrap_or(0));
    let mut report = whole;
    while wrong - right > 1 {
        let middle = right + (wrong - right) / 2;
        let (good, made) = attempt(Some(middle))?;
        if good {
            right = middle;
        } else {
            (wrong, report) = (middle, made);
        }
    }
    Ok(report.rows.into_iter().find(|r| r.number == Some(wrong)))
}
