//! `fcc rules`: what `fcc rewrite --rule` takes.
use super::Failure;
use super::out::{Out, table};
use fcc_rewrite::law;
use fcc_rewrite::passes::{Pass, PassKind};
use fcc_rewrite::registry::{DEFAULT, Registry};
use serde_json::json;

/// List the rewrite rules, or explain one
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fcc rules
  fcc rules linear-to-full-kernel-conv")]
pub struct Args {
    /// A rule or a group of rules
    name: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints the list or the explanation.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut out = Out::new();
    match &args.name {
        None => list(&mut out, args.json)?,
        Some(name) => explain(&mut out, name, args.json)?,
    }
    out.finish()
}

/// The pipelines, and what each consists of.
fn pipelines(registry: &Registry) -> Result<Vec<(&str, String)>, Failure> {
    let mut described = vec![];
    // the default is told apart from the others
    for pipeline in registry.pipelines().filter(|p| p.name != DEFAULT) {
        described.push((pipeline.name.as_str(), steps(&registry.passes(&pipeline.name)?)));
    }
    Ok(described)
}

fn steps(passes: &[Pass]) -> String {
    let mut steps: Vec<String> = vec![];
    for pass in passes {
        match &pass.kind {
            PassKind::RemoveUnused => steps.push("what no output needs is removed".into()),
            PassKind::Rules { rules, .. } => {
                let names: Vec<&str> = rules.iter().map(|r| r.name()).collect();
                steps.push(names.join(" | "));
            }
        }
    }
    steps.join("; then ")
}

fn list(out: &mut Out, as_json: bool) -> Result<(), Failure> {
    let registry = Registry::builtin();
    let pipelines = pipelines(&registry)?;
    if as_json {
        let rules: Vec<_> =
            registry.rules().map(|r| json!({ "name": r.name(), "law": law(r.as_ref()) })).collect();
        let groups: Vec<_> =
            pipelines.iter().map(|(name, steps)| json!({ "name": name, "steps": steps })).collect();
        return out.json(&json!({ "rules": rules, "groups": groups }));
    }
    let rows: Vec<Vec<String>> =
        registry.rules().map(|r| vec![r.name().to_string(), law(r.as_ref())]).collect();
    for line in table(&["Rule", "Law"], &rows, &[false, false]) {
        out.line(line)?;
    }
    out.line("")?;
    let rows: Vec<Vec<String>> =
        pipelines.into_iter().map(|(name, steps)| vec![name.to_string(), steps]).collect();
    for line in table(&["Group", "Steps"], &rows, &[false, false]) {
        out.line(line)?;
    }
    let default: Vec<String> = registry.passes(DEFAULT)?.into_iter().map(|p| p.name).collect();
    out.line("")?;
    out.line(format_args!("Without --rule, fcc rewrite runs {}.", default.join(", ")))
}

fn explain(out: &mut Out, name: &str, as_json: bool) -> Result<(), Failure> {
    let registry = Registry::builtin();
    if let Some(rule) = registry.rule(name) {
        let (law, doc) = (law(rule.as_ref()), rule.doc().trim());
        if as_json {
            return out.json(&json!({ "name": name, "law": law, "doc": doc }));
        }
        out.line(name)?;
        out.line("")?;
        for line in doc.lines() {
            out.line(line.strip_prefix(' ').unwrap_or(line))?;
        }
        return Ok(());
    }
    if registry.pipeline(name).is_none() {
        let known: Vec<&str> = registry.names().collect();
        return Err(Failure::input(format!("rule: got `{name}`, wanted one of {}", known.join(", "))));
    }
    let steps = steps(&registry.passes(name)?);
    if as_json {
        return out.json(&json!({ "name": name, "steps": steps }));
    }
    out.line(format_args!("{name}: {steps}"))
}
