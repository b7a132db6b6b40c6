//! `fcc rules`: what `fcc rewrite --rule` takes.
use super::Failure;
use super::out::{Out, table};
use fcc_rewrite::AnyRule;
use fcc_rewrite::passes::{PassKind, default_passes, named, names, rule, rules};
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

/// The first line of a rule's documentation: its equation.
fn law(rule: &dyn AnyRule) -> String {
    rule.doc().trim().lines().next().unwrap_or_default().trim().replace('`', "")
}

/// The groups, and what each consists of.
fn groups() -> Vec<(&'static str, String)> {
    let single = |name: &&str| rule(name).is_none();
    names().into_iter().filter(single).map(|name| (name, steps(&named(name).unwrap_or_default()))).collect()
}

fn steps(passes: &[fcc_rewrite::passes::Pass]) -> String {
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
    if as_json {
        let rules: Vec<_> = rules().iter().map(|r| json!({ "name": r.name(), "law": law(*r) })).collect();
        let groups: Vec<_> =
            groups().iter().map(|(name, steps)| json!({ "name": name, "steps": steps })).collect();
        return out.json(&json!({ "rules": rules, "groups": groups }));
    }
    let rows: Vec<Vec<String>> = rules().iter().map(|r| vec![r.name().to_string(), law(*r)]).collect();
    for line in table(&["Rule", "Law"], &rows, &[false, false]) {
        out.line(line)?;
    }
    out.line("")?;
    let rows: Vec<Vec<String>> =
        groups().into_iter().map(|(name, steps)| vec![name.to_string(), steps]).collect();
    for line in table(&["Group", "Steps"], &rows, &[false, false]) {
        out.line(line)?;
    }
    let default: Vec<&str> = default_passes().iter().map(|p| p.name).collect();
    out.line("")?;
    out.line(format_args!("Without --rule, fcc rewrite runs {}.", default.join(", ")))
}

fn explain(out: &mut Out, name: &str, as_json: bool) -> Result<(), Failure> {
    if let Some(rule) = rule(name) {
        if as_json {
            return out.json(&json!({ "name": name, "law": law(rule), "doc": rule.doc().trim() }));
        }
        out.line(name)?;
        out.line("")?;
        for line in rule.doc().trim().lines() {
            out.line(line.strip_prefix(' ').unwrap_or(line))?;
        }
        return Ok(());
    }
    let Some(passes) = named(name).filter(|_| names().contains(&name)) else {
        return Err(Failure::input(format!("rule: got `{name}`, wanted one of {}", names().join(", "))));
    };
    if as_json {
        return out.json(&json!({ "name": name, "steps": steps(&passes) }));
    }
    out.line(format_args!("{name}: {}", steps(&passes)))
}
