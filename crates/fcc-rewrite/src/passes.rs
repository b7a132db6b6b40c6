//! Passes by name: each rule is one, and groups of rules that run together.
use crate::context::Limits;
use crate::driver::{Options, run};
use crate::report::{Report, Row};
use crate::rule::AnyRule;
use crate::rules;
use fcc_ir::{Error, Model, Result};

/// A named step of a run.
#[derive(Clone)]
pub struct Pass {
    /// Its name.
    pub name: &'static str,
    /// What it does.
    pub kind: PassKind,
}

/// What a pass does.
#[derive(Clone)]
pub enum PassKind {
    /// Tries rules at every node; the first that rewrites it wins.
    Rules {
        /// The rules, in the order of trying.
        rules: Vec<&'static dyn AnyRule>,
        /// Whether to go on until nothing changes. What is declined in the last round is reported.
        repeat: bool,
    },
    /// Removes nodes, initializers and captures that no output needs.
    RemoveUnused,
}

/// The pass that removes what no output needs.
pub const REMOVE_UNUSED: &str = "remove-unused";
/// Constants folded, identities and double layouts removed, unused things removed.
pub const CLEAN_UP: &str = "clean-up";
/// Linear to Conv: full kernel where there is one, else 1x1.
pub const LINEAR_TO_CONV: &str = "linear-to-conv";
/// Layouts between neighbouring layers removed.
pub const CANCEL_LAYOUTS: &str = "cancel-layouts";

static CLEANING: &[&dyn AnyRule] = &[
    &rules::FoldConstants,
    &rules::RemoveIdentities,
    &rules::MergeDuplicates,
    &rules::MergeReshapes,
    &rules::MergeTransposes,
];
static CANCELLING: &[&dyn AnyRule] = &[
    &rules::SinkLayout,
    &rules::RemoveIdentities,
    &rules::MergeDuplicates,
    &rules::MergeReshapes,
    &rules::MergeTransposes,
];
static REWRITING: &[&dyn AnyRule] = &[
    &rules::LinearToFullKernelConv,
    &rules::LinearToPointwiseConv,
    &rules::ConvToIm2colGemm,
    &rules::ConvToToeplitzGemm,
    &rules::ConvToToeplitzGemmPerChannel,
    &rules::PointwiseConvToMatmul,
];

/// Every rule: those that rewrite, then those that clean up.
pub fn rules() -> Vec<&'static dyn AnyRule> {
    let sink: &'static dyn AnyRule = &rules::SinkLayout;
    REWRITING.iter().chain(CLEANING).copied().chain([sink]).collect()
}

/// The rule of this name.
pub fn rule(name: &str) -> Option<&'static dyn AnyRule> {
    rules().into_iter().find(|r| r.name() == name)
}

/// Names that [`named`] takes: every rule, and the groups.
pub fn names() -> Vec<&'static str> {
    let groups = [REMOVE_UNUSED, CLEAN_UP, LINEAR_TO_CONV, CANCEL_LAYOUTS];
    rules().iter().map(|r| r.name()).chain(groups).collect()
}

/// The passes of a name: a rule, `remove-unused`, or a group. `none` is no pass at all. A rule that rewrites layers
/// to 1x1 Convs is followed by the pass that removes the layouts between them.
///
/// `None` for a name that is not in [`names`].
pub fn named(name: &str) -> Option<Vec<Pass>> {
    let one = |name, rules: &[&'static dyn AnyRule], repeat| Pass {
        name,
        kind: PassKind::Rules { rules: rules.to_vec(), repeat },
    };
    let cancel = || one(CANCEL_LAYOUTS, CANCELLING, true);
    Some(match name {
        "none" => vec![],
        REMOVE_UNUSED => vec![Pass { name: REMOVE_UNUSED, kind: PassKind::RemoveUnused }],
        CLEAN_UP => {
            vec![one(CLEAN_UP, CLEANING, true), Pass { name: REMOVE_UNUSED, kind: PassKind::RemoveUnused }]
        }
        CANCEL_LAYOUTS => vec![cancel()],
        LINEAR_TO_CONV => {
            let both: &[&'static dyn AnyRule] =
                &[&rules::LinearToFullKernelConv, &rules::LinearToPointwiseConv];
            vec![one(LINEAR_TO_CONV, both, false), cancel()]
        }
        _ => {
            let rule = rule(name)?;
            let cleans = CLEANING.iter().any(|r| r.name() == name) || name == rules::SinkLayout.name();
            let mut passes = vec![one(rule.name(), &[rule], cleans)];
            if name == rules::LinearToPointwiseConv.name() {
                passes.push(cancel());
            }
            passes
        }
    })
}

/// The passes less a rule or a pass of this name; `None` if none of them holds it.
pub fn without(passes: &[Pass], name: &str) -> Option<Vec<Pass>> {
    let mut found = false;
    let mut left = vec![];
    // a group stands for the passes that it is made of
    let members: Vec<&str> = match rule(name) {
        Some(_) => vec![],
        None => named(name)?.iter().map(|p| p.name).collect(),
    };
    for pass in passes {
        let mut pass = pass.clone();
        if pass.name == name || members.contains(&pass.name) {
            found = true;
            continue;
        }
        if let PassKind::Rules { rules, .. } = &mut pass.kind {
            let before = rules.len();
            rules.retain(|r| r.name() != name);
            found |= rules.len() < before;
            if rules.is_empty() {
                continue;
            }
        }
        left.push(pass);
    }
    found.then_some(left)
}

/// The passes of `fcc rewrite MODEL`: clean-up, Linear to Conv, clean-up.
pub fn default_passes() -> Vec<Pass> {
    [CLEAN_UP, LINEAR_TO_CONV, CLEAN_UP].iter().filter_map(|name| named(name)).flatten().collect()
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
