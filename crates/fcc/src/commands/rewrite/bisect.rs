//! `--bisect`: the first rewrite after which the model is no longer right.
use super::super::Failure;
use super::super::files::CommandFiles;
use super::super::out::Out;
use super::dump::{self, Dump};
use super::verification::{Verified, compare};
use super::{Args, limits, passes};
use fcc_ir::{Error, Model};
use fcc_onnx::SaveOptions;
use fcc_rewrite::passes::{Pass, bisect};
use fcc_rewrite::{Options, Row};
use serde_json::json;
use std::path::Path;
use std::process::{Command, Stdio};

/// Searches, and says what it found: nothing is exit code 0, a rewrite is 1.
pub fn run(args: &Args) -> Result<(), Failure> {
    let steps = passes(args)?;
    let mut files = CommandFiles::new(args.json);
    args.model.note(&mut files);
    args.check.iter().for_each(|program| files.reads(program));
    if let Some(folder) = &args.dump {
        dump::claim(&mut files, folder, ["before", "after"])?;
    }
    let mut model = args.model.load(&mut files)?;
    args.set.apply(&mut model)?;
    let options = args.compile.options()?;
    let mut good = |rewritten: &Model| match &args.check {
        Some(program) => accepts(program, rewritten),
        None => is_verified(&options, &model, rewritten),
    };
    let found = bisect(&model, &steps, &limits(args), &mut good)
        .map_err(|e| Failure::from(e).in_file(args.model.name()))?;
    let mut out = Out::new();
    if args.json {
        out.json(&json!({ "first_bad": found }))?;
    } else {
        let nothing = || "every rewrite keeps the model right".to_string();
        out.line(found.as_ref().map_or_else(nothing, describe))?;
    }
    let Some(number) = found.and_then(|row| row.number) else { return out.finish() };
    if let Some(folder) = &args.dump {
        dump_both(folder, args, &model, &steps, number)?;
    }
    out.finish()?;
    Err(Failure::Check)
}

fn describe(row: &Row) -> String {
    let place = if row.graph.is_empty() { row.node.clone() } else { format!("{}: {}", row.graph, row.node) };
    let number = row.number.unwrap_or(0);
    format!(
        "first bad rewrite: number {number}, pass {}, rule {} at {place} ({})",
        row.pass, row.rule, row.op
    )
}

/// Whether the rewritten model computes what the original does.
fn is_verified(options: &fcc_jit::Options, original: &Model, rewritten: &Model) -> fcc_ir::Result<bool> {
    match compare(original, rewritten, options)? {
        Verified::Compared(c) => Ok(c.is_same()),
        Verified::Broken(_) => Ok(false),
        Verified::Impossible(why) => Err(Error::invalid(format!("verification is not possible: {why}"))),
        Verified::NotAsked => Ok(true),
    }
}

/// Whether a program, given the path of the model as a file, exits with 0.
fn accepts(program: &Path, model: &Model) -> fcc_ir::Result<bool> {
    let broken = |what: &str, why: &dyn std::fmt::Display| Error::invalid(format!("{what}: {why}"));
    let folder = tempfile::tempdir().map_err(|e| broken("a folder for the model", &e))?;
    let path = folder.path().join("model.onnx");
    fcc_onnx::save(model, &path, &SaveOptions::default()).map_err(|e| broken("writing the model", &e))?;
    let program_text = program.display().to_string();
    let status = Command::new(program).arg(&path).stdin(Stdio::null()).stdout(Stdio::null()).status();
    Ok(status.map_err(|e| broken(&format!("--check {program_text}"), &e))?.success())
}

/// The model before and after the rewrite of this number.
fn dump_both(folder: &Path, args: &Args, model: &Model, steps: &[Pass], number: u64) -> Result<(), Failure> {
    let mut files = Dump::new(folder)?;
    for (name, stop_after) in [("before", number - 1), ("after", number)] {
        let mut copy = model.clone();
        let options = Options { limits: limits(args), stop_after: Some(stop_after), ..Default::default() };
        fcc_rewrite::run(&mut copy, steps, options)?;
        files.add(name, &copy);
    }
    Ok(files.finish()?)
}
