//! `fcc explain`: what a model compiles to, step by step.
use super::common::load;
use super::inputs::InputArgs;
use super::out::Out;
use super::{CompileArgs, Failure};
use serde_json::json;
use std::path::PathBuf;

/// Show what a model compiles to for inputs of these shapes: kernels, memory, and what is left to the interpreter
///
/// One line a step: kernel, operands (@offset+bytes in the arena, #constants, %values of the interpreter), tasks, and
/// the nodes it computes. Where a shape depends on data the plan ends: what follows is compiled during the run.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fcc explain model.onnx --random 0 --set batch=1
  fcc explain model.onnx --inputs in.npz --json")]
pub struct Args {
    /// The model, .onnx or .onnxtxt
    model: PathBuf,
    #[command(flatten)]
    inputs: InputArgs,
    #[command(flatten)]
    compile: CompileArgs,
    /// Print {"steps","interpreted_steps","ends_where_a_shape_depends_on_data","arena_bytes"}
    #[arg(long)]
    json: bool,
}

/// Compiles and prints.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut model = load(&args.model)?;
    let values = args.inputs.read(&mut model)?;
    let compiled = fcc_jit::compile(&model, &args.compile.options());
    let plan = compiled.and_then(|c| c.plan_for(&values));
    let plan = plan.map_err(|e| Failure::from(e).in_file(&args.model))?;
    let mut out = Out::new();
    if args.json {
        out.json(&json!({
            "steps": plan.step_count(),
            "interpreted_steps": plan.interpreted_steps(),
            "ends_where_a_shape_depends_on_data": plan.is_cut(),
            "arena_bytes": plan.arena_bytes(),
        }))?;
    } else {
        for line in plan.to_string().lines() {
            out.line(line)?;
        }
        let left = plan.interpreted_steps().len();
        out.line(format_args!("{left} of {} steps run in the interpreter", plan.step_count()))?;
    }
    out.finish()
}
