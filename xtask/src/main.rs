//! Commands for working on fcc itself. None of them is part of a normal build.
#![forbid(unsafe_code)]

mod fuzz;
mod proto;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo run -p xtask -- proto [--check] [--wheel FILE.whl]
       cargo run -p xtask -- fuzz [SECONDS] [--cases N] [--first N] [--only N]

proto    generate crates/fcc-onnx/src/proto.rs from the ONNX schema in the pinned Python package
         --check         write nothing; fail when the committed file differs
         --wheel FILE    read this copy of the package instead of asking pip for it
fuzz     give broken models to the parser, the importer, inference, the rules and their verification
         SECONDS         how long [default: 20]
         --cases N       at most so many cases
         --first N       number of the first case [default: 0]; other numbers are other cases
         --only N        run this case alone, and write it to target/fuzz";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let outcome = match args.next().as_deref() {
        Some("proto") => proto_options(args).and_then(|options| proto::run(&options)),
        Some("fuzz") => fuzz_options(args).and_then(|options| fuzz::run(&options)),
        _ => Err(USAGE.to_string()),
    };
    match outcome {
        Ok(done) => {
            println!("{done}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn proto_options(mut args: impl Iterator<Item = String>) -> Result<proto::Options, String> {
    let mut options = proto::Options { check: false, wheel: None };
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--check" => options.check = true,
            "--wheel" => {
                let file = args.next().ok_or("--wheel needs a file")?;
                options.wheel = Some(PathBuf::from(file));
            }
            other => return Err(format!("unknown argument {other:?}\n{USAGE}")),
        }
    }
    Ok(options)
}

fn fuzz_options(mut args: impl Iterator<Item = String>) -> Result<fuzz::Options, String> {
    let mut options = fuzz::Options { seconds: 20, cases: u64::MAX, first: 0, only: None, child: false };
    let number = |text: Option<String>| text.and_then(|t| t.parse::<u64>().ok()).ok_or("wanted a number");
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--cases" => options.cases = number(args.next())?,
            "--first" => options.first = number(args.next())?,
            "--only" => options.only = Some(number(args.next())?),
            "--child" => options.child = true,
            seconds => {
                let bad = |_| format!("unknown argument {seconds:?}\n{USAGE}");
                options.seconds = seconds.parse().map_err(bad)?;
            }
        }
    }
    Ok(options)
}
