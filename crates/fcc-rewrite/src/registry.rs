//! Rules and pipelines by name: those of fcc, and those that a caller adds.
//!
//! A registry is a value. Whoever adds a rule to one gets it everywhere that the registry goes: in pipelines, reports,
//! `--skip` and proofs. A pipeline may only name what the registry holds already, so none can name itself.
use crate::passes::{Pass, PassKind};
use crate::rule::AnyRule;
use crate::rules;
use fcc_ir::{Error, Result};
use std::sync::Arc;

/// The pass that removes what no output needs.
pub const REMOVE_UNUSED: &str = "remove-unused";
/// Constants folded, identities and double layouts removed, unused things removed.
pub const CLEAN_UP: &str = "clean-up";
/// Linear to Conv: full kernel where there is one, else 1x1.
pub const LINEAR_TO_CONV: &str = "linear-to-conv";
/// Layouts between neighbouring layers removed.
pub const CANCEL_LAYOUTS: &str = "cancel-layouts";
/// What runs where no rule is named: clean-up, Linear to Conv, clean-up.
pub const DEFAULT: &str = "default";
/// The name that stands for no pass at all.
pub const NONE: &str = "none";

/// One step of a [`Pipeline`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Tries these rules at every node, in this order; the first that rewrites it wins.
    Rules {
        /// Names of rules.
        rules: Vec<String>,
        /// Whether to go on until nothing changes.
        repeat: bool,
    },
    /// Removes nodes, initializers and captures that no output needs.
    RemoveUnused,
    /// The steps of another pipeline.
    Pipeline(String),
}

impl Step {
    /// Rules once over the graph.
    pub fn once(rules: &[&str]) -> Step {
        Step::Rules { rules: rules.iter().map(|r| r.to_string()).collect(), repeat: false }
    }
    /// Rules until nothing changes.
    pub fn repeat(rules: &[&str]) -> Step {
        Step::Rules { rules: rules.iter().map(|r| r.to_string()).collect(), repeat: true }
    }
}

/// Steps that run together under a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pipeline {
    /// Its name on the command line and in reports.
    pub name: String,
    /// What it does, one after the other.
    pub steps: Vec<Step>,
}

/// Rules and pipelines, each under a name of its own.
#[derive(Clone)]
pub struct Registry {
    rules: Vec<Arc<dyn AnyRule>>,
    pipelines: Vec<Pipeline>,
}

impl Registry {
    /// No rule and no pipeline.
    pub fn empty() -> Registry {
        Registry { rules: vec![], pipelines: vec![] }
    }
    /// The rules and pipelines of fcc.
    pub fn builtin() -> Registry {
        let rules: Vec<Arc<dyn AnyRule>> = vec![
            Arc::new(rules::LinearToFullKernelConv),
            Arc::new(rules::LinearToPointwiseConv),
            Arc::new(rules::ConvToIm2colGemm),
            Arc::new(rules::ConvToToeplitzGemm),
            Arc::new(rules::ConvToToeplitzGemmPerChannel),
            Arc::new(rules::PointwiseConvToMatmul),
            Arc::new(rules::FoldConstants),
            Arc::new(rules::RemoveIdentities),
            Arc::new(rules::MergeDuplicates),
            Arc::new(rules::MergeReshapes),
            Arc::new(rules::MergeTransposes),
            Arc::new(rules::SinkLayout),
        ];
        let merging = ["remove-identities", "merge-duplicates", "merge-reshapes", "merge-transposes"];
        let cleaning = [&["fold-constants"], &merging[..]].concat();
        let cancelling = [&["sink-layout"], &merging[..]].concat();
        let both = Step::once(&["linear-to-full-kernel-conv", "linear-to-pointwise-conv"]);
        let pipeline = |name: &str, steps: Vec<Step>| Pipeline { name: name.into(), steps };
        let named = |name: &str| Step::Pipeline(name.into());
        let pipelines = vec![
            pipeline(REMOVE_UNUSED, vec![Step::RemoveUnused]),
            pipeline(CLEAN_UP, vec![Step::repeat(&cleaning), Step::RemoveUnused]),
            pipeline(CANCEL_LAYOUTS, vec![Step::repeat(&cancelling)]),
            pipeline(LINEAR_TO_CONV, vec![both, named(CANCEL_LAYOUTS)]),
            pipeline(DEFAULT, vec![named(CLEAN_UP), named(LINEAR_TO_CONV), named(CLEAN_UP)]),
        ];
        Registry { rules, pipelines }
    }

    /// Adds a rule. Errors if something has its name.
    pub fn add_rule(&mut self, rule: impl AnyRule + 'static) -> Result<()> {
        self.need_free(rule.name())?;
        self.rules.push(Arc::new(rule));
        Ok(())
    }
    /// Adds a pipeline. Errors if something has its name, or a step names what the registry does not hold.
    pub fn add_pipeline(&mut self, pipeline: Pipeline) -> Result<()> {
        self.need_free(&pipeline.name)?;
        self.expand(&pipeline)?;
        self.pipelines.push(pipeline);
        Ok(())
    }
    fn need_free(&self, name: &str) -> Result<()> {
        if name.is_empty() || name == NONE || self.names().any(|n| n == name) {
            return Err(Error::mismatch(
                "name of a rule or pipeline",
                format!("`{name}`"),
                "one that is free",
            ));
        }
        Ok(())
    }

    /// Every rule, in the order in which they were added.
    pub fn rules(&self) -> impl Iterator<Item = &Arc<dyn AnyRule>> {
        self.rules.iter()
    }
    /// Every pipeline, likewise.
    pub fn pipelines(&self) -> impl Iterator<Item = &Pipeline> {
        self.pipelines.iter()
    }
    /// The rule of this name.
    pub fn rule(&self, name: &str) -> Option<&Arc<dyn AnyRule>> {
        self.rules.iter().find(|r| r.name() == name)
    }
    /// The pipeline of this name.
    pub fn pipeline(&self, name: &str) -> Option<&Pipeline> {
        self.pipelines.iter().find(|p| p.name == name)
    }
    /// What [`Registry::passes`] takes: every rule and every pipeline.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.rules.iter().map(|r| r.name()).chain(self.pipelines.iter().map(|p| p.name.as_str()))
    }

    /// The passes of a name: a pipeline's; a rule by itself, with the pipeline that its
    /// [`traits`](crate::AnyRule::traits) want behind it; none for `none`. Errors on any other name.
    pub fn passes(&self, name: &str) -> Result<Vec<Pass>> {
        if name == NONE {
            return Ok(vec![]);
        }
        if let Some(pipeline) = self.pipeline(name) {
            return self.expand(pipeline);
        }
        let unknown = || {
            let known: Vec<&str> = self.names().collect();
            Error::mismatch("rule", format!("`{name}`"), format!("{NONE}, {}", known.join(", ")))
        };
        let rule = self.rule(name).ok_or_else(unknown)?;
        let traits = rule.traits();
        let kind = PassKind::Rules { rules: vec![rule.clone()], repeat: traits.repeats };
        let mut passes = vec![Pass { name: name.into(), kind }];
        if let Some(then) = traits.then {
            passes.extend(self.passes(then)?);
        }
        Ok(passes)
    }
    /// The passes of several names, in the order given; those of `default` for no name.
    pub fn passes_of<S: AsRef<str>>(&self, names: &[S]) -> Result<Vec<Pass>> {
        if names.is_empty() {
            return self.passes(DEFAULT);
        }
        names.iter().map(|n| self.passes(n.as_ref())).collect::<Result<Vec<_>>>().map(|p| p.concat())
    }
    fn expand(&self, pipeline: &Pipeline) -> Result<Vec<Pass>> {
        let mut passes = vec![];
        for step in &pipeline.steps {
            match step {
                Step::RemoveUnused => {
                    passes.push(Pass { name: REMOVE_UNUSED.into(), kind: PassKind::RemoveUnused });
                }
                Step::Pipeline(name) => {
                    let unknown = || Error::mismatch("pipeline", format!("`{name}`"), "one added before");
                    passes.extend(self.expand(self.pipeline(name).ok_or_else(unknown)?)?);
                }
                Step::Rules { rules, repeat } => {
                    let rule = |name: &String| {
                        let unknown = || Error::mismatch("rule", format!("`{name}`"), "one added before");
                        self.rule(name).cloned().ok_or_else(unknown)
                    };
                    let rules = rules.iter().map(rule).collect::<Result<Vec<_>>>()?;
                    passes.push(Pass {
                        name: pipeline.name.clone(),
                        kind: PassKind::Rules { rules, repeat: *repeat },
                    });
                }
            }
        }
        Ok(passes)
    }

    /// The passes less a rule or a pipeline of this name; `None` if none of them holds it.
    pub fn without(&self, passes: &[Pass], name: &str) -> Option<Vec<Pass>> {
        // a pipeline stands for the passes that it is made of
        let members: Vec<String> = match self.pipeline(name) {
            Some(pipeline) => self.expand(pipeline).ok()?.into_iter().map(|p| p.name).collect(),
            None => vec![],
        };
        let mut found = false;
        let mut left = vec![];
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
}
