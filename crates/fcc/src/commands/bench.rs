//! `fcc bench`: how long loading, compiling and running take.
use super::common::ModelArg;
use super::files::CommandFiles;
use super::inputs::InputArgs;
use super::interpreted;
use super::out::{Out, grouped};
use super::progress::Progress;
use super::{CompileArgs, EngineArg, Failure, LimitArgs, TuneArgs};
use serde_json::json;
use std::time::{Duration, Instant};

/// Measure how long a model takes to load, compile and run
///
/// Runs for about --seconds unless --runs is given; the first run is measured apart. Times are wall-clock
/// milliseconds. What is left to the interpreter is said in one line on standard error.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fcc bench model.onnx --random 0 --set batch=1 --threads 1
  fcc bench model.onnx --random 0 --shape x=1,3,48,192
  fcc bench model.onnx --inputs in.npz --json")]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    inputs: InputArgs,
    /// Who computes
    #[arg(long, value_enum, default_value_t)]
    engine: EngineArg,
    #[command(flatten)]
    compile: CompileArgs,
    #[command(flatten)]
    tune: TuneArgs,
    /// About how long to measure; there are 5 runs at least
    #[arg(long, value_name = "S", default_value_t = 2.0, conflicts_with = "runs", value_parser = seconds)]
    seconds: f64,
    /// Number of runs after the first [default: as many as fit in --seconds]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Print {"load_ms","compile_ms","first_run_ms","median_ms","min_ms","runs","peak_rss_bytes","interpreted_steps",
    /// "interpreted_share"}: the steps that are left to the interpreter (those in the bodies of loops and branches each
    /// once), and their part of the time of all steps in one more run, 0 to 1; null with --engine interpreter
    #[arg(long)]
    json: bool,
}

const LEAST_RUNS: usize = 5;
const MOST_RUNS: usize = 100_000;

fn seconds(text: &str) -> Result<f64, String> {
    let value = text.parse().ok().filter(|v| (0.0..=3600.0).contains(v));
    value.ok_or_else(|| format!("got `{text}`, wanted 0 to 3600 seconds"))
}

/// Measures and prints.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut progress = Progress::new();
    let mut files = CommandFiles::new(args.json);
    args.tune.note(&mut files)?;
    let (model, load_ms) = timed(|| args.model.load(&mut files));
    let mut model = model?;
    let values = args.inputs.read(&mut model, &mut files)?;
    let in_file = |e: fcc_ir::Error| Failure::from(e).in_file(args.model.name());
    progress.show(|| "compiling".into());
    let engine = fcc::Engine::from(args.engine);
    let options = args.tune.apply(args.engine, args.compile.options()?, &model, &values, &mut progress)?;
    let (runner, compile_ms) = timed(|| engine.prepare(&model, &options));
    let runner = runner.map_err(in_file)?;
    progress.show(|| "first run".into());
    let (first, first_run_ms) = timed(|| runner.run(&values));
    first.map_err(in_file)?;
    let budget = Duration::from_secs_f64(args.seconds);
    let mut times = vec![];
    let start = Instant::now();
    loop {
        let (made, ms) = timed(|| runner.run(&values));
        made.map_err(in_file)?;
        times.push(ms);
        let done = match args.runs {
            Some(n) => times.len() >= n as usize,
            None => times.len() >= MOST_RUNS || (times.len() >= LEAST_RUNS && start.elapsed() >= budget),
        };
        if done {
            break;
        }
        progress.show(|| format!("run {}: {ms:.2} ms", times.len()));
    }
    // one more run, in which each step is timed: who computes it, and what share of the time that takes
    let (_, interpreted) = interpreted::run(&runner, &values).map_err(in_file)?;
    progress.clear();
    if let Some(interpreted) = &interpreted {
        interpreted.tell();
    }
    times.sort_by(f64::total_cmp);
    let runs = times.len();
    let min_ms = times.first().copied().unwrap_or_default();
    let middle = (times.get((runs - 1) / 2), times.get(runs / 2));
    let median_ms = (middle.0.copied().unwrap_or_default() + middle.1.copied().unwrap_or_default()) / 2.0;
    let peak = peak_rss_bytes();
    let mut out = Out::new();
    if args.json {
        out.json(&json!({
            "load_ms": load_ms,
            "compile_ms": compile_ms,
            "first_run_ms": first_run_ms,
            "median_ms": median_ms,
            "min_ms": min_ms,
            "runs": runs,
            "peak_rss_bytes": peak,
            "interpreted_steps": interpreted.as_ref().map(|i| i.steps),
            "interpreted_share": interpreted.as_ref().map(|i| i.share),
        }))?;
    } else {
        for (name, ms) in [("load", load_ms), ("compile", compile_ms), ("first run", first_run_ms)] {
            out.line(format_args!("{name:<10} {ms:>12.3} ms"))?;
        }
        out.line(format_args!("{:<10} {median_ms:>12.3} ms  (median of {runs} runs)", "run"))?;
        out.line(format_args!("{:<10} {min_ms:>12.3} ms", "fastest"))?;
        if let Some(bytes) = peak {
            out.line(format_args!("{:<10} {:>12} MiB", "peak rss", grouped((bytes >> 20) as usize)))?;
        }
    }
    out.finish()
}

fn timed<T>(work: impl FnOnce() -> T) -> (T, f64) {
    let start = Instant::now();
    let made = work();
    (made, start.elapsed().as_secs_f64() * 1e3)
}

/// The most memory the process has held, where the system tells (Linux).
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
