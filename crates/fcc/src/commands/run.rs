//! `fcc run`: computes a model's outputs.
use super::arrays;
use super::common::ModelArg;
use super::files::{CommandFiles, Target, refuse_terminal};
use super::inputs::InputArgs;
use super::interpreted;
use super::out::Out;
use super::progress::Progress;
use super::{CompileArgs, EngineArg, Failure, LimitArgs, TuneArgs};
use fcc_ir::compare::{Tolerance, close, distance};
use fcc_ir::convert::to_f64s;
use fcc_ir::interp::Values;
use fcc_ir::{Tensor, Value};
use std::path::{Path, PathBuf};

/// Run a model, and compare its outputs with expected ones
///
/// Without --outputs and --expect, a line for each output shows its type, range and first elements. What is left to the
/// interpreter is said in one line on standard error.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fcc run model.onnx --inputs in.npz --outputs out.npz
  fcc run model.onnx --input x=x.npy --input mask=mask.pb --engine interpreter
  fcc run model.onnx --random 0 --set batch=4
  fcc run model.onnx --random 0 --shape x=1,3,48,192
  fcc run model.onnx --inputs in.npz --max-seconds 2.5 --max-memory 1024
  fcc run model.onnx --inputs in.npz --expect out.npz --rtol 1e-4

Exit code 1 if an output is not as expected: |got - want| <= atol + rtol * |want| for floats, equal for the rest.")]
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
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Write the outputs by name to a NumPy archive; - is standard output. A sequence is NAME.0, NAME.1, …,
    /// a map is NAME.keys and NAME.values
    #[arg(long, value_name = "OUT.npz")]
    outputs: Option<PathBuf>,
    /// Compare with the arrays of a NumPy archive; each must be an output of the model
    #[arg(long, value_name = "FILE.npz")]
    expect: Option<PathBuf>,
    /// Relative tolerance of --expect
    #[arg(long, value_name = "R", default_value_t = 1e-3, requires = "expect", value_parser = tolerance)]
    rtol: f64,
    /// Absolute tolerance of --expect
    #[arg(long, value_name = "A", default_value_t = 1e-5, requires = "expect", value_parser = tolerance)]
    atol: f64,
}

fn tolerance(text: &str) -> Result<f64, String> {
    let value: Option<f64> = text.parse().ok().filter(|v: &f64| *v >= 0.0);
    value.ok_or_else(|| format!("got `{text}`, wanted a number of 0 or more"))
}

/// Runs, writes and compares.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut progress = Progress::new();
    let mut files = CommandFiles::new(false);
    args.model.note(&mut files);
    args.inputs.note(&mut files);
    args.expect.iter().for_each(|path| files.reads(path));
    let outputs = args.outputs.as_deref().map(|path| files.output("--outputs", path)).transpose()?;
    outputs.iter().try_for_each(|target| refuse_terminal("--outputs", target))?;
    args.tune.note(&mut files)?;
    let mut model = args.model.load(&mut files)?;
    let given = args.inputs.read(&mut model, &mut files)?;
    let expected = args.expect.as_deref().map(|path| expected(path, &model)).transpose()?;
    let in_file = |e: fcc_ir::Error| Failure::from(e).in_file(args.model.name());
    progress.show(|| "compiling".into());
    let options = args.tune.apply(args.engine, args.compile.options()?, &model, &given, &mut progress)?;
    let runner = fcc::Engine::from(args.engine).prepare(&model, &options).map_err(in_file)?;
    progress.show(|| "running".into());
    let (made, interpreted) = interpreted::run(&runner, &given).map_err(in_file)?;
    progress.clear();
    if let Some(interpreted) = interpreted {
        interpreted.tell();
    }
    if let Some(target) = &outputs {
        write(&files, target, &made)?;
    }
    let mut out = files.told();
    match expected {
        Some(expected) => {
            let tolerance = Tolerance { rtol: args.rtol, atol: args.atol };
            compare(&mut out, &made, &expected, tolerance)?;
        }
        None if args.outputs.is_none() => {
            for output in &model.graph.outputs {
                if let Some(value) = made.get(&output.info.name) {
                    out.line(describe(&output.info.name, value))?;
                }
            }
        }
        None => {}
    }
    out.finish()
}

fn expected(path: &Path, model: &fcc_ir::Model) -> Result<Vec<(String, Tensor)>, Failure> {
    let arrays = fcc_onnx::read_npz(path)?;
    let names: Vec<String> = model.graph.outputs.iter().map(|o| format!("`{}`", o.info.name)).collect();
    if arrays.is_empty() {
        return Err(Failure::input("got no arrays, wanted expected outputs").in_file(path));
    }
    for (name, _) in &arrays {
        if !model.graph.outputs.iter().any(|o| o.info.name == *name) {
            let message = format!("expected output: got name `{name}`, wanted one of {}", names.join(", "));
            return Err(Failure::input(message).in_file(path));
        }
    }
    Ok(arrays)
}

/// One line for each expected output. Errs with [`Failure::Check`] if one differs.
fn compare(
    out: &mut Out,
    made: &Values,
    expected: &[(String, Tensor)],
    tolerance: Tolerance,
) -> Result<(), Failure> {
    let mut differs = false;
    for (name, want) in expected {
        let Some(got) = made.get(name) else {
            differs = true;
            out.line(format_args!("{name}: not computed"))?;
            continue;
        };
        let measured = got.as_tensor().ok().and_then(|got| distance(got, want, tolerance));
        let size = match &measured {
            Some(d) => format!("max abs difference {:.3e}, max rel {:.3e}", d.abs, d.rel),
            None => "no numbers to compare".into(),
        };
        let first = match measured.and_then(|d| d.first) {
            Some(index) => format!(", first at {index:?}"),
            None => String::new(),
        };
        match close(got, &want.clone().into(), tolerance) {
            Ok(()) => out.line(format_args!("{name}: ok, {size}"))?,
            Err(e) => {
                differs = true;
                out.line(format_args!("{name}: differs{first}, {size}: {e}"))?;
            }
        }
    }
    if differs { Err(Failure::Check).inspect_err(|_| out.flush()) } else { Ok(()) }
}

/// Outputs as arrays, see [`arrays::of`].
fn write(files: &CommandFiles, target: &Target, made: &Values) -> Result<(), Failure> {
    let mut all = vec![];
    for (name, value) in made {
        all.extend(arrays::of(name, value)?);
    }
    let all = all.iter().map(|(name, t)| (name.as_str(), t));
    match target {
        Target::File(path) => Ok(fcc_onnx::write_npz(path, all)?),
        Target::Stdout => files.write(target, &fcc_onnx::to_npz_bytes(all)?),
    }
}

/// `y  float[1,10]  -0.5 to 2.25, mean 0.3  [0.1, 0.2, …]`
fn describe(name: &str, value: &Value) -> String {
    const SHOWN: usize = 8;
    let ty = value.value_type();
    let Value::Tensor(t) = value else {
        return format!("{name}  {ty}  {}", arrays::brief(value, SHOWN, &short));
    };
    if let Ok(strings) = t.as_strings() {
        let shown: Vec<String> =
            strings.iter().take(SHOWN).map(|s| format!("{:?}", String::from_utf8_lossy(s))).collect();
        return format!(
            "{name}  {ty}  [{}{}]",
            shown.join(", "),
            if strings.len() > SHOWN { ", …" } else { "" }
        );
    }
    let Ok(numbers) = to_f64s(t) else { return format!("{name}  {ty}") };
    let finite = || numbers.iter().copied().filter(|v| !v.is_nan());
    let (least, most) = (finite().fold(f64::INFINITY, f64::min), finite().fold(f64::NEG_INFINITY, f64::max));
    let nans = numbers.iter().filter(|v| v.is_nan()).count();
    let mean = finite().sum::<f64>() / (numbers.len() - nans).max(1) as f64;
    let shown: Vec<String> = numbers.iter().take(SHOWN).map(|v| short(*v)).collect();
    let more = if numbers.len() > SHOWN { ", …" } else { "" };
    let range = match (numbers.len() > 1, least <= most) {
        (true, true) => format!("  {} to {}, mean {}", short(least), short(most), short(mean)),
        _ => String::new(),
    };
    let nans = if nans > 0 { format!("  {nans} NaN") } else { String::new() };
    format!("{name}  {ty}{range}{nans}  [{}{more}]", shown.join(", "))
}

/// Six significant digits.
fn short(v: f64) -> String {
    let size = v.abs();
    if v == v.trunc() && size < 1e15 {
        format!("{v}")
    } else if (1e-4..1e6).contains(&size) {
        let digits = (5 - size.log10().floor() as i32).clamp(0, 9) as usize;
        let text = format!("{v:.digits$}");
        text.trim_end_matches('0').trim_end_matches('.').to_string()
    } else {
        format!("{v:.5e}")
    }
}
