//! `fcc rewrite`: rules over a model, checked, and the result as a file.
mod bisect;
mod dump;
mod proofs;
mod verification;

use super::common::{ModelArg, SetArg};
use super::files::{CommandFiles, Target, refuse_terminal};
use super::out::{Out, complain};
use super::progress::Progress;
use super::{CompileArgs, Failure, LimitArgs};
use dump::Dump;
use fcc_ir::text::{PrintOptions, print};
use fcc_ir::{Model, printable_json};
use fcc_onnx::{SaveOptions, data_path};
use fcc_rewrite::dense::{self, Padding, Windows};
use fcc_rewrite::passes::Pass;
use fcc_rewrite::registry::Registry;
use fcc_rewrite::{Limits, Moment, Report, Site};
use proofs::Proofs;
use serde_json::{Value as Json, json};
use std::path::PathBuf;
use verification::{Verified, compare};

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
  fcc rewrite model.onnx --skip linear-to-full-kernel-conv --prove --dump steps/
  fcc rewrite model.onnx --max-kernel 11
  fcc rewrite classifier.onnx --dense -o detector.onnx
  fcc rewrite vgg.onnx --dense --keep-padding
  fcc rewrite model.onnx --bisect --dump steps/
  fcc rewrite model.onnx --bisect --check ./my_runtime_accepts
  fcc rewrite model.onnx --max-seconds 60 --max-memory 4096

`fcc rules` lists the rules. Exit code 1 if the rewritten model differs from the original or a
proof fails; then nothing is written. --bisect writes no model; exit code 1 if it finds a rewrite.")]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    /// Where to write; text if it ends in .onnxtxt; - is standard output [default: MODEL.fcc.onnx beside the input]
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// Apply this rule or group of rules; several in the order given; `none` only loads and saves
    #[arg(long = "rule", value_name = "NAME")]
    rules: Vec<String>,
    /// Leave this rule or group out, also of groups that hold it
    #[arg(long, value_name = "NAME")]
    skip: Vec<String>,
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
    /// Prove each rewrite of a linear layer: with distinct integers as weights, every coefficient of both is read out
    /// exactly (above 2,097,152 coefficients, 12 exact integer vectors probe them)
    #[arg(long)]
    prove: bool,
    /// Write the model as text into this folder: as it was, and after each pass
    #[arg(long, value_name = "DIR")]
    dump: Option<PathBuf>,
    /// Find the first rewrite after which verification fails; with --dump, write the model before and after it
    #[arg(long, conflicts_with_all = ["output", "in_place", "prove", "no_verify", "dense", "report", "external_data"])]
    bisect: bool,
    /// With --bisect: a program that is given the rewritten model's path and exits with 0 if it is right
    #[arg(long, value_name = "PROGRAM", requires = "bisect")]
    check: Option<PathBuf>,
    /// Let a classifier slide: the image's extents become symbolic, the output [N,K] becomes [N,K,H',W'], one result for
    /// each window of the size that the model had; held against the original on every window
    #[arg(long)]
    dense: bool,
    /// With --dense: keep layers that pad. Results are the original's on an image of its size; in a larger one, such
    /// layers see pixels where the original saw zeros
    #[arg(long, requires = "dense")]
    keep_padding: bool,
    /// Decline Convs with a kernel of more than N in any direction
    #[arg(long, value_name = "N")]
    max_kernel: Option<usize>,
    /// Write what was rewritten and declined, one row a node; - is standard output
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
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Print the report as JSON in place of the table
    #[arg(long)]
    json: bool,
}

/// Everything that came of a run.
struct Outcome {
    report: Report,
    verified: Verified,
    proofs: Option<Proofs>,
    dense: Option<Windows>,
}

/// Rewrites, verifies, reports, writes.
pub fn run(args: &Args) -> Result<(), Failure> {
    if args.bisect {
        return bisect::run(args);
    }
    let passes = passes(args)?;
    let mut files = CommandFiles::new(args.json);
    args.model.note(&mut files);
    let target = target(args, &mut files)?;
    let report = args.report.as_deref().map(|path| files.output("--report", path)).transpose()?;
    if let Some(folder) = &args.dump {
        let names = std::iter::once("input").chain(passes.iter().map(|p| p.name.as_str()));
        dump::claim(&mut files, folder, names)?;
    }
    let mut model = args.model.load(&mut files)?;
    args.set.apply(&mut model)?;
    let outcome = outcome(args, &mut model, &passes)?;
    if let Some(target) = &report {
        let mut text = serde_json::to_string_pretty(&as_json(&outcome)).unwrap_or_default();
        text.push('\n');
        files.write(target, printable_json(&text).as_bytes())?;
    }
    let mut out = files.told();
    let told = tell(&mut out, args, &outcome);
    if told.is_err() {
        out.flush();
        return told;
    }
    let bytes = write(args, &model, &target, &files)?;
    if let (Target::File(path), false) = (&target, args.json) {
        out.line(format_args!("wrote {} ({bytes} bytes)", path.display()))?;
    }
    out.finish()
}

/// Rewrites the model in place and holds it against what it was.
fn outcome(args: &Args, model: &mut Model, passes: &[Pass]) -> Result<Outcome, Failure> {
    let mut progress = Progress::new();
    let verify = args.verify || (args.rules.is_empty() && !args.no_verify);
    let original = (verify || args.dense).then(|| model.clone());
    progress.show(|| "rewriting".into());
    let (report, proofs) = rewrite(args, model, passes)?;
    progress.show(|| "verifying".into());
    let verified = match original.as_ref().filter(|_| verify) {
        Some(original) => compare(original, model, &args.compile.options()?)
            .map_err(|e| Failure::from(e).in_file(args.model.name()))?,
        None => Verified::NotAsked,
    };
    let dense = match original.as_ref().filter(|_| args.dense) {
        Some(original) => Some(make_dense(args, original, model, &mut progress)?),
        None => None,
    };
    Ok(Outcome { report, verified, proofs, dense })
}

/// Makes the rewritten model dense and holds it against the original.
fn make_dense(
    args: &Args,
    original: &Model,
    model: &mut Model,
    progress: &mut Progress,
) -> Result<Windows, Failure> {
    let in_file = |e: Failure| e.in_file(args.model.name());
    let padding = if args.keep_padding { Padding::Keep } else { Padding::Decline };
    let made = dense::dense(model, padding).map_err(|d| {
        let pads = d.what.starts_with("pads of ") || d.what.starts_with("ceil_mode of ");
        let hint = if pads { " (--keep-padding keeps it)" } else { "" };
        in_file(Failure::input(format!("--dense: {d}{hint}")))
    })?;
    progress.show(|| "verifying windows".into());
    let differs = match made.windows.padded {
        false => dense::check(original, model, &made.model, &made.windows),
        true => verification::dense_alone(original, &made, &args.compile.options()?),
    };
    if let Some(why) = differs.map_err(|e| in_file(e.into()))? {
        complain(&format!("verification of --dense: {why}"));
        return Err(Failure::Check);
    }
    *model = made.model;
    Ok(made.windows)
}

/// Says what was done; errs where the model must not be written.
fn tell(out: &mut Out, args: &Args, outcome: &Outcome) -> Result<(), Failure> {
    if args.json {
        out.json(&as_json(outcome))?;
    } else {
        out.text(&outcome.report.to_table())?;
    }
    if let Some(proofs) = &outcome.proofs {
        proofs.tell(out, &outcome.report, args.json)?;
    }
    verification::tell(out, args, &outcome.verified)?;
    match &outcome.dense {
        Some(windows) if !args.json => out.line(windows),
        _ => Ok(()),
    }
}

/// The passes of the rules in the order given, or those of a plain `fcc rewrite`, less those left out.
fn passes(args: &Args) -> Result<Vec<Pass>, Failure> {
    let registry = Registry::builtin();
    let mut passes = registry.passes_of(&args.rules).map_err(|e| {
        let why = e.to_string();
        Failure::input(format!("--rule: {}", why.strip_prefix("rule: ").unwrap_or(&why)))
    })?;
    for rule in &args.skip {
        passes = registry.without(&passes, rule).ok_or_else(|| {
            Failure::input(format!(
                "--skip: got `{rule}`, wanted a rule or group of this run (see `fcc rules`)"
            ))
        })?;
    }
    Ok(passes)
}

/// Where the model goes. Takes the file of its external data too, where there is to be one.
fn target(args: &Args, files: &mut CommandFiles) -> Result<Target, Failure> {
    let target = if args.in_place {
        let path = args.model.file("--in-place")?;
        files.in_place(path)?;
        Target::File(path.into())
    } else if let Some(path) = &args.output {
        files.output("-o", path)?
    } else {
        let path = args.model.file("-o is not given")?.with_extension("fcc.onnx");
        files.output("-o", &path)?
    };
    refuse_terminal("-o", &target)?;
    match &target {
        Target::File(path) if args.external_data && args.in_place => files.in_place(&data_path(path)?)?,
        Target::File(path) if args.external_data => files.file("--external-data", &data_path(path)?)?,
        Target::File(_) => {}
        Target::Stdout if args.external_data => {
            return Err(Failure::input("--external-data: got standard output, wanted a file for the model"));
        }
        Target::Stdout => {}
    }
    Ok(target)
}

fn limits(args: &Args) -> Limits {
    Limits {
        growth_bytes: args.budget.saturating_mul(1 << 20),
        kernel: args.max_kernel.unwrap_or(usize::MAX),
        ..Limits::default()
    }
}

/// Runs the passes, with a proof of each rewrite and a dump after each pass where these are asked for.
fn rewrite(args: &Args, model: &mut Model, passes: &[Pass]) -> Result<(Report, Option<Proofs>), Failure> {
    let mut dump = args.dump.as_deref().map(Dump::new).transpose()?;
    let mut proofs = args.prove.then(Proofs::default);
    if let Some(dump) = &mut dump {
        dump.add("input", model);
    }
    // without passes nothing is touched, and nothing in the model can be refused
    let done = if passes.is_empty() {
        Ok(Report::default())
    } else {
        let mut hook = |moment: Moment, _: usize, name: &str, model: &Model| {
            if let (Moment::After, Some(dump)) = (moment, &mut dump) {
                dump.add(name, model);
            }
        };
        let mut on_match = |site: &Site<'_>| proofs.as_mut().map_or(Ok(()), |proofs| proofs.add(site));
        let options = fcc_rewrite::Options {
            limits: limits(args),
            stop_after: None,
            hook: Some(&mut hook),
            on_match: Some(&mut on_match),
        };
        fcc_rewrite::run(model, passes, options)
    };
    if let Some(mut dump) = dump {
        dump.finish()?;
    }
    match (done, proofs) {
        (Ok(report), proofs) => Ok((report, proofs)),
        (Err(e), Some(proofs)) if proofs.failed().is_some() => {
            complain(&e.to_string());
            Err(Failure::Check)
        }
        (Err(e), _) => Err(Failure::from(e).in_file(args.model.name())),
    }
}

fn write(args: &Args, model: &Model, target: &Target, files: &CommandFiles) -> Result<u64, Failure> {
    let path = match target {
        Target::Stdout => {
            let bytes = fcc_onnx::to_bytes(model)?;
            files.write(target, &bytes)?;
            return Ok(bytes.len() as u64);
        }
        Target::File(path) => path,
    };
    if path.extension().is_some_and(|e| e == "onnxtxt") {
        let text = print(model, &PrintOptions::whole());
        files.write(target, text.as_bytes())?;
        return Ok(text.len() as u64);
    }
    let options = SaveOptions { external_data: args.external_data, keep: files.keep(path) };
    let saved = fcc_onnx::save(model, path, &options)?;
    Ok(saved.model_bytes + saved.data.map_or(0, |(_, bytes)| bytes))
}

/// The report, with the fields `verification`, `proofs` (null, or one object a layer) and `dense` (null, or the windows).
fn as_json(outcome: &Outcome) -> Json {
    let mut json = serde_json::to_value(&outcome.report).unwrap_or_default();
    if let Json::Object(fields) = &mut json {
        fields.insert("verification".into(), verification::as_json(&outcome.verified));
        fields.insert("proofs".into(), json!(outcome.proofs.as_ref().map(|p| p.as_json(&outcome.report))));
        fields.insert("dense".into(), json!(outcome.dense));
    }
    json
}
