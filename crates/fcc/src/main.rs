//! The fcc command line. Exit codes: 0 done, 1 a check or comparison failed, 2 bad usage or bad input.
#![forbid(unsafe_code)]

mod commands;

use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};
use commands::Failure;
use std::process::ExitCode;

/// A compiler for ONNX models: turns linear layers into convolutions and back, and runs models
#[derive(Debug, Parser)]
#[command(
    name = "fcc",
    version,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_help = "Exit code: 0 done, 1 a check or comparison failed, 2 bad usage or bad input.

Examples:
  fcc rewrite model.onnx
  fcc run model.onnx --inputs in.npz --outputs out.npz
  fcc summary model.onnx"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Rewrite(commands::rewrite::Args),
    Run(commands::run::Args),
    Bench(commands::bench::Args),
    Profile(commands::profile::Args),
    Explain(commands::explain::Args),
    Test(commands::test::Args),
    Print(commands::print::Args),
    Summary(commands::summary::Args),
    Rules(commands::rules::Args),
    Completions(commands::completions::Args),
}

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    let result = match &cli.command {
        Command::Rewrite(args) => args.limits.within(|| commands::rewrite::run(args)),
        Command::Run(args) => args.limits.within(|| commands::run::run(args)),
        Command::Bench(args) => args.limits.within(|| commands::bench::run(args)),
        Command::Profile(args) => args.limits.within(|| commands::profile::run(args)),
        Command::Explain(args) => args.limits.within(|| commands::explain::run(args)),
        Command::Test(args) => args.limits.within(|| commands::test::run(args)),
        Command::Print(args) => commands::print::run(args),
        Command::Summary(args) => commands::summary::run(args),
        Command::Rules(args) => commands::rules::run(args),
        Command::Completions(args) => commands::completions::run(args, Cli::command()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}

/// Help and version as clap prints them; anything else as one line.
fn usage(error: &clap::Error) -> ExitCode {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            let _ = error.print();
            return ExitCode::SUCCESS;
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            let _ = error.print();
            return ExitCode::from(2);
        }
        _ => {}
    }
    let text = error.render().to_string();
    let message = text.split("\n\nUsage:").next().unwrap_or(&text);
    let message = message.split("\n\nFor more information").next().unwrap_or(message);
    let lines: Vec<&str> = message.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let line = lines.join(" ");
    let line = line.strip_prefix("error: ").unwrap_or(&line);
    Failure::input(format!("{line} (see `fcc --help`)")).report()
}
