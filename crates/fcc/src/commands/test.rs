//! `fcc test`: runs ONNX test-case folders.
use super::out::Out;
use super::progress::Progress;
use super::{CompileArgs, EngineArg, Failure, LimitArgs};
use fcc::cases::{self, Outcome, Status};
use serde_json::json;
use std::path::PathBuf;

/// Run ONNX test-case folders and compare with their expected outputs
///
/// A case is a folder with model.onnx and test_data_set_*/{input,output}_*.pb; tol.json may hold its rtol and atol.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fcc test fixtures/seeds
  fcc test --engine interpreter --json node/test_conv_with_strides_padding
  fcc test --max-seconds 60 node

Exit code 1 if a case failed or is unsupported.")]
pub struct Args {
    /// Folders with a model.onnx and test_data_set_*, or folders of such folders
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// Who computes
    #[arg(long, value_enum, default_value_t)]
    engine: EngineArg,
    #[command(flatten)]
    compile: CompileArgs,
    /// Read external data through symbolic and hard links, as package caches have them
    #[arg(long)]
    follow_links: bool,
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Print {"cases":[{"name","status","reason"}]}; status is passed, failed or unsupported
    #[arg(long)]
    json: bool,
}

/// Runs every case.
pub fn run(args: &Args) -> Result<(), Failure> {
    let options = args.compile.options()?;
    let load = fcc_onnx::LoadOptions { follow_links: args.follow_links, ..Default::default() };
    let folders = cases::find(&args.folders).map_err(Failure::input)?;
    // a panic in a case is its outcome: what the hook would print has no place in between
    std::panic::set_hook(Box::new(|_| {}));
    let mut progress = Progress::new();
    let mut out = Out::new();
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(folders.len());
    for folder in &folders {
        progress.show(|| format!("{} of {}: {}", outcomes.len() + 1, folders.len(), folder.display()));
        let outcome = cases::run_with(folder, args.engine.into(), &options, &load);
        if outcome.status == Status::Stopped {
            // a case that was cut short says nothing, and neither do those behind it
            return Err(Failure::input(outcome.reason).in_file(folder));
        }
        if !args.json && outcome.status != Status::Passed {
            progress.clear();
            let status = if outcome.status == Status::Failed { "failed" } else { "unsupported" };
            out.line(format_args!("{status:<12} {}: {}", outcome.name, outcome.reason))?;
        }
        outcomes.push(outcome);
    }
    progress.clear();
    let count = |status| outcomes.iter().filter(|o| o.status == status).count();
    let passed = count(Status::Passed);
    if args.json {
        out.json(&json!({ "cases": outcomes }))?;
    } else {
        let (unsupported, failed) = (count(Status::Unsupported), count(Status::Failed));
        out.line(format_args!("{passed} passed, {unsupported} unsupported, {failed} failed"))?;
    }
    out.finish()?;
    if passed == outcomes.len() { Ok(()) } else { Err(Failure::Check) }
}
