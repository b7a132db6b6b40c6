//! `fcc rewrite`: rules over a model, checked, and the result as a file.
use super::common::{SetArg, load, not_the_same};
use super::out::{Out, warn};
use super::progress::Progress;
use super::{CompileArgs, Failure};
use fcc_ir::interp::{self, Values};
use fcc_ir::text::{PrintOptions, print};
use fcc_ir::{Bindings, Model};
use fcc_onnx::{SaveOptions, write_file};
use fcc_rewrite::passes::{Pass, default_passes, named, names};
use fcc_rewrite::verify::{self, Comparison};
use fcc_rewrite::{Limits, Report};
use serde_json::{Value as Json, json};
use std::path::{Path, PathBuf};

/// Rewrite a model and write it back as ONNX
///
/// Without --rule: clean-up and Linear to Conv (a kernel of the input's full size where there is one, else 1x1),
/// verified. The table of what was rewritten or declined, and why, is printed; MODEL.fcc.onnx is written beside the
/// input.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fcc rewrite model.onnx
  fcc rewrite model.onnx --rule conv-to-toeplitz-gemm --set batch=1 --verify -o toeplitz.onnx
  fcc rewrite model.onnx --rule clean-up --rule linear-to-pointwise-conv --report report.json
  fcc rewrite model.onnx --rule none -o copy.onnx

`fcc rules` lists the rules. Exit code 1 if the rewritten model differs from the original; then nothing is written.")]
pub struct Args {
    /// The model, .onnx or .onnxtxt
    model: PathBuf,
    /// Where to write; text if it ends in .onnxtxt [default: MODEL.fcc.onnx beside the input]
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// Apply this rule or group of rules; several in the order given; `none` only loads and saves
    #[arg(long = "rule", value_name = "NAME")]
    rules: Vec<String>,
    #[command(flatten)]
    set: SetArg,
    /// Compare with the original on seeded inputs, several batch sizes where the batch is symbolic
    #[arg(long)]
    verify: bool,
    /// Do not verify where no --rule is given
    #[arg(long, conflicts_with = "verify")]
    no_verify: bool,
    #[command(flatten)]
    compile: CompileArgs,
    /// Write what was rewritten and declined, one row a node
    #[arg(long, value_name = "FILE.json")]
    report: Option<PathBuf>,
    /// Put large initializers into a file of their own beside the model
    #[arg(long)]
    external_data: bool,
    /// How many MiB all rewrites together may add to the model's constants
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    budget: u64,
    /// Write over the input
    #[arg(long, conflicts_with = "output")]
    in_place: bool,
    /// Print the report as JSON in place of the table
    #[arg(long)]
    json: bool,
}

/// What came of the verification.
enum Verified {
    NotAsked,
    /// The original does not run, so there is nothing to compare with.
    Impossible(String),
    /// The original runs, the rewritten model does not.
    Broken(String),
    Compared(Comparison),
}

/// Rewrites, verifies, reports, writes.
pub fn run(args: &Args) -> Result<(), Failure> {
    let passes = passes(&args.rules)?;
    let target = target(args)?;
    let mut progress = Progress::new();
    let mut model = load(&args.model)?;
    args.set.apply(&mut model)?;
    let verify = args.verify || (args.rules.is_empty() && !args.no_verify);
    let original = verify.then(|| model.clone());
    let in_file = |e: fcc_ir::Error| Failure::from(e).in_file(&args.model);
    progress.show(|| "rewriting".into());
    let report = rewrite(&mut model, &passes, args.budget).map_err(in_file)?;
    progress.show(|| "verifying".into());
    let verified = match &original {
        Some(original) => compare(original, &model, &args.compile.options()),
        None => Verified::NotAsked,
    };
    progress.clear();
    if let Some(path) = &args.report {
        let mut text = serde_json::to_string_pretty(&as_json(&report, &verified)).unwrap_or_default();
        text.push('\n');
        write_file(path, text.as_bytes())?;
    }
    let mut out = Out::new();
    if args.json {
        out.json(&as_json(&report, &verified))?;
    } else {
        out.text(&report.to_table())?;
    }
    let outcome = tell(&mut out, args, &verified);
    if outcome.is_err() {
        out.flush();
        return outcome;
    }
    let bytes = write(args, &model, &target)?;
    if !args.json {
        out.line(format_args!("wrote {} ({bytes} bytes)", target.display()))?;
    }
    out.finish()
}

/// The passes of the rules in the order given, or those of a plain `fcc rewrite`.
fn passes(rules: &[String]) -> Result<Vec<Pass>, Failure> {
    if rules.is_empty() {
        return Ok(default_passes());
    }
    let mut passes = vec![];
    for rule in rules {
        let found = named(rule).ok_or_else(|| {
            Failure::input(format!("--rule: got `{rule}`, wanted none, {}", names().join(", ")))
        })?;
        passes.extend(found);
    }
    Ok(passes)
}

fn target(args: &Args) -> Result<PathBuf, Failure> {
    if args.in_place {
        return Ok(args.model.clone());
    }
    let target = args.output.clone().unwrap_or_else(|| args.model.with_extension("fcc.onnx"));
    not_the_same(&target, &args.model, "-o (or give --in-place)")?;
    if let Some(report) = &args.report {
        not_the_same(report, &args.model, "--report")?;
    }
    Ok(target)
}

fn rewrite(model: &mut Model, passes: &[Pass], budget: u64) -> fcc_ir::Result<Report> {
    // without passes nothing is touched, and nothing in the model can be refused
    if passes.is_empty() {
        return Ok(Report::default());
    }
    let limits = Limits { growth_bytes: budget.saturating_mul(1 << 20), ..Limits::default() };
    fcc_rewrite::run(model, passes, fcc_rewrite::Options { limits, ..Default::default() })
}

/// Runs whole models: compiled where that works, else in the interpreter.
fn engine(model: &Model, inputs: &Values, options: &fcc_jit::Options) -> fcc_ir::Result<Values> {
    let compiled = fcc_jit::compile(model, options).and_then(|c| c.run(inputs));
    compiled.or_else(|_| interp::run(model, inputs))
}

fn compare(original: &Model, rewritten: &Model, options: &fcc_jit::Options) -> Verified {
    let engine = |model: &Model, inputs: &Values| engine(model, inputs, options);
    let options = verify::Options { engine: Some(&engine), bindings: Bindings::new(), ..Default::default() };
    match verify::compare(original, rewritten, &options) {
        Ok(comparison) => Verified::Compared(comparison),
        Err(e) => {
            let original = matches!(e.root(), fcc_ir::Error::Unsupported(_))
                || e.root().to_string().starts_with("the original does not run");
            let why = e.to_string();
            if original { Verified::Impossible(why) } else { Verified::Broken(why) }
        }
    }
}

/// Says what verification found; errs where the output must not be written.
fn tell(out: &mut Out, args: &Args, verified: &Verified) -> Result<(), Failure> {
    match verified {
        Verified::NotAsked => Ok(()),
        Verified::Compared(c) if c.is_same() => {
            if !args.json {
                out.text(&c.to_string())?;
                out.line("verified: the rewritten model computes what the original does")?;
            }
            Ok(())
        }
        Verified::Compared(c) => {
            match &c.difference {
                Some(d) => super::out::complain(&format!("verification: differs at {d}")),
                None => super::out::complain("verification: got no run to compare, wanted at least one"),
            }
            Err(Failure::Check)
        }
        Verified::Broken(why) => {
            super::out::complain(&format!("verification: the rewritten model does not run: {why}"));
            Err(Failure::Check)
        }
        Verified::Impossible(why) if args.verify => {
            super::out::complain(&format!("verification: not possible: {why}"));
            Err(Failure::Check)
        }
        Verified::Impossible(why) => {
            warn(&format!("not verified: {why}"));
            Ok(())
        }
    }
}

fn write(args: &Args, model: &Model, target: &Path) -> Result<u64, Failure> {
    if target.extension().is_some_and(|e| e == "onnxtxt") {
        let text = print(model, &PrintOptions::whole());
        write_file(target, text.as_bytes())?;
        return Ok(text.len() as u64);
    }
    let options = SaveOptions {
        external_data: args.external_data,
        input: Some(args.model.clone()),
        overwrite_input: args.in_place,
    };
    let saved = fcc_onnx::save(model, target, &options)?;
    Ok(saved.model_bytes + saved.data.map_or(0, |(_, bytes)| bytes))
}

/// The report with a field `verification`: null, `{"impossible": why}`, or the comparison.
fn as_json(report: &Report, verified: &Verified) -> Json {
    let mut json = serde_json::to_value(report).unwrap_or_default();
    if let Json::Object(fields) = &mut json {
        let verification = match verified {
            Verified::NotAsked => Json::Null,
            Verified::Impossible(why) => json!({ "impossible": why }),
            Verified::Broken(why) => json!({ "broken": why }),
            Verified::Compared(c) => serde_json::to_value(c).unwrap_or_default(),
        };
        fields.insert("verification".into(), verification);
    }
    json
}
