//! Finds out by measurement which way to compute each problem of a model is the fastest.
//!
//! Whole plans first (which instructions, how many threads, what lies in the lanes of narrow convolutions): the model
//! runs in each way, in turn. Then each convolution and product alone, on scratch data: first every algorithm and the
//! tiles that the model of its time thinks near, then what differs from the best of them in one size. A way must beat
//! the estimate's choice by a margin to be taken, so that noise chooses nothing; and its results must be those of the
//! estimate's choice, exactly, or it is left out.
mod alone;
mod race;
mod whole;

use crate::choices::problem::{Asked, Problem};
use crate::choices::{Choice, Choices, Key, Way};
use crate::compiled::{Options, compile};
use fcc_ir::interp::Values;
use fcc_ir::limits;
use fcc_ir::{Model, Result};
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What a way must save to be taken instead of the estimate's choice.
const MARGIN: f64 = 0.03;

/// What tuning did.
#[derive(Debug, Clone, Default)]
pub struct Tuned {
    /// The choices, those that were there before too.
    pub choices: Choices,
    /// Problems that were measured now.
    pub measured: usize,
    /// Problems that there was no time for.
    pub left: usize,
    /// Earlier choices that could not be taken and were measured again: why.
    pub replaced: Vec<String>,
    /// What was not measured, or left out because its results differ: why.
    pub notes: Vec<String>,
}

/// What is measured next.
#[derive(Debug)]
pub struct Progress<'a> {
    /// Problems done.
    pub done: usize,
    /// Problems to do, as far as is known.
    pub of: usize,
    /// The next one.
    pub problem: &'a str,
}

/// Tuning in progress.
struct Tuner<'a> {
    model: &'a Model,
    options: Options,
    inputs: &'a Values,
    deadline: Option<Instant>,
    progress: &'a mut dyn FnMut(&Progress),
    tuned: Tuned,
    /// Problems that were measured, found missing for lack of time, or given up.
    seen: HashSet<Key>,
}

/// Measures the problems of a model's plan for these inputs that `options.choices` has no choice for, or one that the
/// code generator cannot take. With a time limit it begins no problem after that; what it has is valid all the same.
/// Regions behind a cut and bodies of loops are not measured.
///
/// # Errors
/// As [`compile`] and [`run`](crate::CompiledModel::run).
pub fn tune(
    model: &Model,
    options: &Options,
    inputs: &Values,
    limit: Option<Duration>,
    progress: &mut dyn FnMut(&Progress),
) -> Result<Tuned> {
    let choices = options.choices.as_deref().cloned().unwrap_or_default();
    let deadline = limit.map(|l| Instant::now() + l);
    let tuned = Tuned { choices, ..Tuned::default() };
    let mut tuner =
        Tuner { model, options: options.clone(), inputs, deadline, progress, tuned, seen: HashSet::new() };
    // a choice for the whole plan changes which other problems there are
    for whole in [true, false] {
        while let Some(asked) = tuner.missing(whole)? {
            tuner.measure(&asked)?;
        }
    }
    Ok(tuner.tuned)
}

/// Each problem of a model's plan for these inputs, in the order in which the plan meets them, with the ways that tuning
/// may try: those that it begins with, and those that differ from one of them in one size.
///
/// # Errors
/// As [`compile`].
pub fn candidates(model: &Model, options: &Options, inputs: &Values) -> Result<Vec<(Key, Vec<Way>)>> {
    let choices = options.choices.clone().unwrap_or_default();
    let plan = compile(model, &Options { choices: Some(choices), ..options.clone() })?.plan_for(inputs)?;
    let ways = |a: &Asked| {
        let s = a.setting();
        let mut ways = a.problem.starts(s);
        for way in ways.clone().iter().flat_map(|w| a.problem.beside(w, s)) {
            if !ways.contains(&way) {
                ways.push(way);
            }
        }
        (a.key.clone(), ways)
    };
    Ok(plan.asked.iter().map(ways).collect())
}

impl Tuner<'_> {
    fn options(&self) -> Options {
        Options { choices: Some(Arc::new(self.tuned.choices.clone())), ..self.options.clone() }
    }

    /// Problems without a choice: the first of those that change the whole plan, or all others.
    fn missing(&mut self, whole: bool) -> Result<Option<Vec<Asked>>> {
        let compiled = compile(self.model, &self.options())?;
        let plan = compiled.plan_for(self.inputs)?;
        let is_whole = |a: &&Asked| matches!(a.problem, Problem::Plan(_) | Problem::Lanes(_)) == whole;
        let open = |a: &&Asked| !a.taken && !self.seen.contains(&a.key);
        let mut asked: Vec<Asked> = plan.asked.iter().filter(is_whole).filter(open).cloned().collect();
        if whole {
            asked.truncate(1);
        }
        Ok((!asked.is_empty()).then_some(asked))
    }

    fn measure(&mut self, asked: &[Asked]) -> Result<()> {
        let alone = match asked.iter().any(|a| matches!(a.problem, Problem::Conv(_) | Problem::Gemm(_))) {
            true => Some(alone::Bench::new(&*self.plan()?, &self.options)),
            false => None,
        };
        for (done, a) in asked.iter().enumerate() {
            limits::check_now()?;
            self.seen.insert(a.key.clone());
            if self.deadline.is_some_and(|d| Instant::now() >= d) {
                self.tuned.left += 1;
                continue;
            }
            (self.progress)(&Progress { done, of: asked.len(), problem: &a.key.problem });
            let found = match (&a.problem, &alone) {
                (Problem::Plan(_) | Problem::Lanes(_), _) => self.whole(a)?,
                (_, Some(bench)) => bench.measure(a, &mut self.tuned.notes)?,
                (_, None) => None,
            };
            if let Some(choice) = found {
                self.tuned.replaced.extend(a.declined.clone());
                self.tuned.choices.insert(a.key.clone(), choice);
                self.tuned.measured += 1;
            }
        }
        Ok(())
    }

    fn plan(&self) -> Result<Arc<crate::plan::Plan>> {
        compile(self.model, &self.options())?.plan_for(self.inputs)
    }
}

/// The faster of two ways, the estimate's unless the other beats it by more than `margin`.
fn decide(estimate: (Way, u64), best: (Way, u64), margin: f64) -> Choice {
    let wins = (best.1 as f64) < estimate.1 as f64 * (1.0 - margin);
    let (way, ns) = if wins { best } else { estimate };
    Choice { way, ns, estimate: estimate.0, estimate_ns: estimate.1, line: 0 }
}
