//! Commands for working on fcc itself. None of them is part of a normal build.
#![forbid(unsafe_code)]

mod fuzz;
mod proto;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask proto [--check] [--wheel FILE.whl]
       cargo xtask fuzz [graphs|broken] [SECONDS] [--hours N] [--cases N] [--first N] [--only N] [--file FILE] [--write FOLDER]

proto    generate crates/fcc-onnx/src/proto.rs from the ONNX schema in the pinned Python package
         --check         write nothing; fail when the committed file differs
         --wheel FILE    read this copy of the package instead of asking pip for it
fuzz     graphs: valid graphs, in the interpreter, the code generator and rewritten; finds go to target/fuzz
         broken: broken models for the parser, the importer, inference, the rules and their verification
         both, for half of the time each, if neither is named
         SECONDS         how long [default: 20]
         --hours N       how long, in hours; runs the corpus of target/fuzz first
         --cases N       at most so many cases
         --first N       number of the first case [default: 0]; other numbers are other cases
         --only N        run this case alone, and write it to target/fuzz
         --file FILE     graphs: run the case of this file alone (as it is number N of --only)
         --write FOLDER  graphs: write the cases with what fcc computes, for another runtime to compare";

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
    let mut options = fuzz::Options {
        kind: None,
        seconds: 20,
        cases: u64::MAX,
        first: 0,
        only: None,
        file: None,
        write: None,
        corpus: false,
        child: false,
    };
    let number = |text: Option<String>| text.and_then(|t| t.parse::<u64>().ok()).ok_or("wanted a number");
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "graphs" => options.kind = Some(fuzz::Kind::Graphs),
            "broken" => options.kind = Some(fuzz::Kind::Broken),
            "--hours" => (options.seconds, options.corpus) = (3600 * number(args.next())?, true),
            "--cases" => options.cases = number(args.next())?,
            "--first" => options.first = number(args.next())?,
            "--only" => options.only = Some(number(args.next())?),
            "--file" => options.file = Some(PathBuf::from(args.next().ok_or("--file needs a file")?)),
            "--write" => options.write = Some(PathBuf::from(args.next().ok_or("--write needs a folder")?)),
            "--corpus" => options.corpus = true,
            "--child" => options.child = true,
            seconds => {
                let bad = |_| format!("unknown argument {seconds:?}\n{USAGE}");
                options.seconds = seconds.parse().map_err(bad)?;
            }
        }
    }
    if options.file.is_some() || options.only.is_some() || options.write.is_some() {
        options.kind = options.kind.or(Some(fuzz::Kind::Graphs));
    }
    Ok(options)
}
