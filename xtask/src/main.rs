//! Commands for working on fcc itself. None of them is part of a normal build.
#![forbid(unsafe_code)]

mod proto;

use std::path::PathBuf;
use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo run -p xtask -- proto [--check] [--wheel FILE.whl]

proto    generate crates/fcc-onnx/src/proto.rs from the ONNX schema in the pinned Python package
         --check         write nothing; fail when the committed file differs
         --wheel FILE    read this copy of the package instead of asking pip for it";

fn main() -> ExitCode {
    let mut args = std::env::args().skip(1);
    let outcome = match args.next().as_deref() {
        Some("proto") => proto_options(args).and_then(|options| proto::run(&options)),
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
