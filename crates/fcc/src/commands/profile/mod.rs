//! `fcc profile`: where the time of a run goes.
mod measured;
mod table;
mod trace;

use super::common::ModelArg;
use super::files::CommandFiles;
use super::inputs::InputArgs;
use super::progress::Progress;
use super::{CompileArgs, EngineArg, Failure, LimitArgs, TuneArgs};
use fcc_ir::interp::Values;
use fcc_jit::peak::Peak;
use fcc_jit::pool::Pool;
use fcc_jit::{CompiledModel, Isa, Profile};
use measured::Measured;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Show how long each step of a run takes
///
/// Times are medians over the runs, in microseconds. GFLOP/s count the operations of the plain algorithm (a Winograd
/// convolution does fewer, and may pass the peak); the peak is that of a loop of multiply-adds, measured in the same
/// process on as many threads. GB/s count each operand once. Steps that the interpreter computes are marked with !.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fcc profile model.onnx --random 0 --set batch=1 --threads 1
  fcc profile model.onnx --random 0 --shape x=1,3,48,192 --max-seconds 60
  fcc profile model.onnx --inputs in.npz --top 20
  fcc profile model.onnx --random 0 --trace trace.json --trace-runs 3

A trace opens in chrome://tracing and in Perfetto: one track for the steps, one for each thread.")]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    inputs: InputArgs,
    #[command(flatten)]
    compile: CompileArgs,
    #[command(flatten)]
    tune: TuneArgs,
    /// Number of runs after the first [default: as many as fit in two seconds, at least 5]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,
    /// Show only the N steps that take longest
    #[arg(long, value_name = "N", conflicts_with = "json")]
    top: Option<usize>,
    /// Write the times of steps and of the tasks of each thread in the Chrome trace-event format; - is standard output
    #[arg(long, value_name = "FILE.json")]
    trace: Option<PathBuf>,
    /// How many runs the trace shows
    #[arg(long, value_name = "N", default_value_t = 1, requires = "trace", value_parser = clap::value_parser!(u32).range(1..=1000))]
    trace_runs: u32,
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Print {"isa","threads","precision","peak_gflops","runs","median_ms","steps","operators","interpreted"}
    #[arg(long)]
    json: bool,
}

const BUDGET: Duration = Duration::from_secs(2);
const LEAST_RUNS: usize = 5;
const MOST_RUNS: usize = 10_000;

/// Measures and prints.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut progress = Progress::new();
    let mut files = CommandFiles::new(args.json);
    args.model.note(&mut files);
    args.inputs.note(&mut files);
    let trace = args.trace.as_deref().map(|path| files.output("--trace", path)).transpose()?;
    args.tune.note(&mut files)?;
    let mut model = args.model.load(&mut files)?;
    let values = args.inputs.read(&mut model, &mut files)?;
    let in_file = |e: fcc_ir::Error| Failure::from(e).in_file(args.model.name());
    progress.show(|| "compiling".into());
    let options = args.tune.apply(EngineArg::Jit, args.compile.options()?, &model, &values, &mut progress)?;
    let compiled = fcc_jit::compile(&model, &options).map_err(in_file)?;
    progress.show(|| "first run".into());
    compiled.run(&values).map_err(in_file)?;
    let profiles = profiles(args, &compiled, &values, &mut progress).map_err(in_file)?;
    if let Some(target) = &trace {
        let runs: fcc_ir::Result<Vec<_>> = (0..args.trace_runs).map(|_| traced(&compiled, &values)).collect();
        let text = trace::trace(&runs.map_err(in_file)?).to_string();
        files.write(target, fcc_ir::printable_json(&text).as_bytes())?;
    }
    progress.clear();
    // on a CPU without vector code for the loop there is no peak to compare with
    let peak = Peak::new(options.isa, options.threads);
    let peak = peak.and_then(|p| p.gflops(&Pool::new(options.threads), Duration::from_millis(50))).ok();
    let isa = Isa::within(options.isa);
    let measured = Measured::new(&profiles, isa, &options, peak);
    let mut out = files.told();
    if args.json {
        out.json(&measured.as_json())?;
    } else {
        table::print(&mut out, &measured, args.top)?;
    }
    out.finish()
}

/// The whole time of a run, and its steps.
type Timed = (Duration, Profile);

fn profiles(
    args: &Args,
    compiled: &CompiledModel,
    values: &Values,
    progress: &mut Progress,
) -> fcc_ir::Result<Vec<Timed>> {
    let (mut profiles, begin) = (vec![], Instant::now());
    loop {
        let start = Instant::now();
        let (_, profile) = compiled.run_profiled(values, false)?;
        profiles.push((start.elapsed(), profile));
        let n = profiles.len();
        let done = match args.runs {
            Some(runs) => n >= runs as usize,
            None => n >= MOST_RUNS || (n >= LEAST_RUNS && begin.elapsed() >= BUDGET),
        };
        if done {
            return Ok(profiles);
        }
        progress.show(|| format!("run {n}"));
    }
}

/// A run whose tasks are timed, and when it began.
fn traced(compiled: &CompiledModel, values: &Values) -> fcc_ir::Result<Timed> {
    let start = Instant::now();
    let (_, profile) = compiled.run_profiled(values, true)?;
    Ok((start.elapsed(), profile))
}
