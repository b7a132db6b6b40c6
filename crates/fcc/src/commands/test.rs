//! `fcc test`: runs ONNX test-case folders.
use super::EngineArg;
use fcc::cases::{self, Outcome, Status};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

/// Run ONNX test-case folders and compare with their expected outputs
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fcc test fixtures/seeds
  fcc test --engine interpreter --json node/test_conv_with_strides_padding")]
pub struct Args {
    /// Folders with a model.onnx and test_data_set_*, or folders of such folders
    #[arg(required = true, value_name = "DIR")]
    folders: Vec<PathBuf>,
    /// Who computes
    #[arg(long, value_enum, default_value_t)]
    engine: EngineArg,
    /// Threads of the compiled code [default: all cores]
    #[arg(long)]
    threads: Option<usize>,
    /// Print {"cases":[{"name","status","reason"}]}
    #[arg(long)]
    json: bool,
}

/// Runs every case; exit code 1 if one failed or is unsupported.
pub fn run(args: &Args) -> Result<ExitCode, String> {
    let options = args.threads.map_or_else(fcc_jit::Options::default, fcc_jit::Options::with_threads);
    let folders = cases::find(&args.folders)?;
    let mut out = std::io::stdout().lock();
    let mut outcomes: Vec<Outcome> = Vec::with_capacity(folders.len());
    for folder in &folders {
        let outcome = cases::run(folder, args.engine.into(), &options);
        if !args.json && outcome.status != Status::Passed {
            let status = if outcome.status == Status::Failed { "failed" } else { "unsupported" };
            writeln!(out, "{status:<12} {}: {}", outcome.name, outcome.reason).map_err(|e| e.to_string())?;
        }
        outcomes.push(outcome);
    }
    let count = |status| outcomes.iter().filter(|o| o.status == status).count();
    let (passed, failed, unsupported) =
        (count(Status::Passed), count(Status::Failed), count(Status::Unsupported));
    if args.json {
        let text = serde_json::json!({ "cases": outcomes });
        writeln!(out, "{text}").map_err(|e| e.to_string())?;
    } else {
        writeln!(out, "{passed} passed, {unsupported} unsupported, {failed} failed")
            .map_err(|e| e.to_string())?;
    }
    Ok(if passed == outcomes.len() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
