//! Choices that were measured: for each problem of a machine the way that was fastest.
//!
//! Where a problem can be computed in more than one way, a model of the time decides (`kernels::tile`,
//! `kernels::winograd::cost`, …). A table of choices overrides it: [`Options::choices`](crate::Options) holds one,
//! [`tune`](crate::tune) fills it. The table has a text form, one line for each choice; files are the caller's.
mod machine;
pub(crate) mod problem;
mod text;
mod way;

use crate::asm::Isa;
use crate::precision::Precision;
use std::collections::BTreeMap;

pub use machine::machine;
pub use way::{Algorithm, Lanes, Way};

/// What a choice is for: nothing else may decide what is fastest.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// The level that kernels are made for; of a plan the highest that is allowed.
    pub isa: Isa,
    /// Threads of a run.
    pub threads: usize,
    /// Which kernels are allowed.
    pub precision: Precision,
    /// The problem, in words of one line without `|`: sizes, layouts, what is fused.
    pub problem: String,
}

/// A choice, and what it was measured against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The way that is taken.
    pub way: Way,
    /// Its median time.
    pub ns: u64,
    /// What the model of the time chose when it was measured.
    pub estimate: Way,
    /// The median time of that.
    pub estimate_ns: u64,
    /// The line of the file that it was read from; 0 of one that was measured in this process.
    pub line: usize,
}

/// A table of choices for one machine and one version of the code generator.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choices {
    of: BTreeMap<Key, Choice>,
}

impl Choices {
    /// No choices: the models of the time decide.
    pub fn new() -> Choices {
        Choices::default()
    }
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.of.is_empty()
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.of.len()
    }
    /// The choice for a problem.
    pub fn get(&self, key: &Key) -> Option<&Choice> {
        self.of.get(key)
    }
    /// Puts in a choice, in place of another for the same problem.
    pub fn insert(&mut self, key: Key, choice: Choice) {
        self.of.insert(key, choice);
    }
    /// Takes a choice out.
    pub fn remove(&mut self, key: &Key) -> Option<Choice> {
        self.of.remove(key)
    }
    /// All of them, in the order of the text.
    pub fn iter(&self) -> impl Iterator<Item = (&Key, &Choice)> {
        self.of.iter()
    }
}

impl Choice {
    /// How explanations say it: `tuned: 812.0 µs against 1033.2 of the estimate's direct …`.
    pub(crate) fn reason(&self) -> String {
        let us = |ns: u64| ns as f64 / 1e3;
        if self.way == self.estimate {
            return format!("tuned: the estimate's choice was the fastest, {:.1} µs", us(self.ns));
        }
        format!(
            "tuned: {:.1} µs against {:.1} of the estimate's {}",
            us(self.ns),
            us(self.estimate_ns),
            self.estimate
        )
    }
    /// The same where it cannot be taken.
    pub(crate) fn declined(&self, why: &str) -> String {
        let line = if self.line == 0 { String::new() } else { format!(" of line {}", self.line) };
        format!("the tuned choice{line}, `{}`, is declined: {why}", self.way)
    }
}
