//! `fcc explain`: what a model compiles to, and why.
use super::common::ModelArg;
use super::files::CommandFiles;
use super::inputs::InputArgs;
use super::out::{Out, grouped, table};
use super::progress::Progress;
use super::steps::{as_json, megabytes, short, title};
use super::{CompileArgs, EngineArg, Failure, LimitArgs, TuneArgs};
use fcc_jit::{Isa, NodeInfo, Plan, StepInfo, Work};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;

/// Show what a model compiles to for inputs of these shapes, and why
///
/// Which kernels there are and why these, what was fused into what, where values are copied into another layout, what
/// is left to the interpreter and what was in the way, what is held in memory, and the steps in order. Where a shape
/// depends on data the plan ends: what follows is compiled during the run.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  fcc explain model.onnx --random 0 --set batch=1
  fcc explain model.onnx --random 0 --shape x=1,3,48,192 --max-seconds 60
  fcc explain model.onnx --inputs in.npz --precision fast --json
  fcc explain model.onnx --random 0 --plan")]
pub struct Args {
    #[command(flatten)]
    model: ModelArg,
    #[command(flatten)]
    inputs: InputArgs,
    #[command(flatten)]
    compile: CompileArgs,
    #[command(flatten)]
    tune: TuneArgs,
    /// Print the plan with the place of each operand: @offset+bytes in the arena, #constants, %values of the interpreter
    #[arg(long, conflicts_with = "json")]
    plan: bool,
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Print {"isa","threads","precision","nodes","memory","steps","interpreted_steps",
    /// "ends_where_a_shape_depends_on_data","arena_bytes"}
    #[arg(long)]
    json: bool,
}

/// Compiles and prints.
pub fn run(args: &Args) -> Result<(), Failure> {
    let mut files = CommandFiles::new(args.json);
    args.tune.note(&mut files)?;
    let mut model = args.model.load(&mut files)?;
    let values = args.inputs.read(&mut model, &mut files)?;
    let mut progress = Progress::new();
    let options = args.tune.apply(EngineArg::Jit, args.compile.options()?, &model, &values, &mut progress)?;
    progress.clear();
    let plan = fcc_jit::compile(&model, &options).and_then(|c| c.plan_for(&values));
    let plan = plan.map_err(|e| Failure::from(e).in_file(args.model.name()))?;
    let mut out = Out::new();
    if args.json {
        out.json(&json(&plan, &options))?;
    } else if args.plan {
        plan.to_string().lines().try_for_each(|line| out.line(line))?;
    } else {
        explain(&mut out, &plan, &options)?;
    }
    out.finish()
}

fn isa(options: &fcc_jit::Options) -> Isa {
    Isa::within(options.isa)
}

fn json(plan: &Plan, options: &fcc_jit::Options) -> Json {
    let info = plan.info();
    let nodes = |list: &[NodeInfo]| -> Vec<Json> {
        list.iter().map(|n| json!({ "name": n.name, "op_type": n.op_type })).collect()
    };
    json!({
        "isa": info.isa.unwrap_or(isa(options)).name(),
        "alone": info.alone,
        "why": info.why,
        "threads": options.threads,
        "precision": options.precision.name(),
        "nodes": { "all": info.nodes, "constant": nodes(&info.constant), "views": nodes(&info.views) },
        "memory": {
            "arena_bytes": info.arena_bytes,
            "packed_bytes": info.packed_bytes,
            "constant_bytes": info.constant_bytes,
            "output_bytes": info.output_bytes,
        },
        "steps": plan.steps().map(as_json).collect::<Vec<_>>(),
        "interpreted_steps": plan.interpreted_steps(),
        "ends_where_a_shape_depends_on_data": plan.is_cut(),
        "arena_bytes": plan.arena_bytes(),
    })
}

fn explain(out: &mut Out, plan: &Plan, options: &fcc_jit::Options) -> Result<(), Failure> {
    if let Some(why) = plan.interpreted_whole() {
        return out.line(format_args!("all of it runs in the interpreter: {why}"));
    }
    let threads =
        if options.threads == 1 { "1 thread".into() } else { format!("{} threads", options.threads) };
    let isa = plan.info().isa.unwrap_or(isa(options));
    out.line(format_args!("compiled for {isa}, {threads}, precision {}", options.precision))?;
    if options.threads > 1 && plan.info().alone {
        out.line("one thread runs all steps")?;
    }
    if let Some(why) = &plan.info().why {
        out.line(why)?;
    }
    nodes(out, plan)?;
    kernels(out, plan)?;
    tuned(out, plan)?;
    fused(out, plan)?;
    reorders(out, plan)?;
    interpreted(out, plan)?;
    memory(out, plan)?;
    steps(out, plan)?;
    if plan.is_cut() {
        out.line("then a region whose shapes depend on data: it is compiled in the run")?;
    }
    Ok(())
}

/// What became of the graph's nodes.
fn nodes(out: &mut Out, plan: &Plan) -> Result<(), Failure> {
    let (info, steps) = (plan.info(), plan.step_count());
    let (constant, views) = (info.constant.len(), info.views.len());
    let rest = info.nodes.saturating_sub(constant + views);
    out.line(format_args!(
        "nodes: {} = {constant} computed now, once + {views} that only rename or reshape + {rest} in {steps} steps",
        info.nodes
    ))
}

/// Equal texts with how many there are, the most frequent first.
fn counted(texts: impl Iterator<Item = (String, String)>) -> Vec<(usize, String, String)> {
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for text in texts {
        *counts.entry(text).or_default() += 1;
    }
    let mut list: Vec<_> = counts.into_iter().map(|((a, b), n)| (n, a, b)).collect();
    list.sort_by_key(|(n, ..)| std::cmp::Reverse(*n));
    list
}

fn section(out: &mut Out, name: &str, list: &[(usize, String, String)]) -> Result<(), Failure> {
    out.line("")?;
    out.line(name)?;
    let width = list.iter().map(|(_, a, _)| a.chars().count()).max().unwrap_or(0);
    for (n, a, b) in list {
        let line = format!("  {n:>4}  {a:<width$}  {b}");
        out.line(line.trim_end())?;
    }
    Ok(())
}

fn computing(plan: &Plan) -> impl Iterator<Item = &StepInfo> {
    plan.steps().filter(|s| s.work == Work::Compute)
}

fn kernels(out: &mut Out, plan: &Plan) -> Result<(), Failure> {
    let kind = |s: &StepInfo| {
        let words = s.kernel.split_whitespace().take_while(|w| !w.contains(|c: char| c.is_ascii_digit()));
        let why = if s.tuned.is_some() { "tuned" } else { s.why.as_deref().unwrap_or_default() };
        (words.collect::<Vec<_>>().join(" "), why.to_string())
    };
    let mut list = counted(computing(plan).map(kind));
    list.sort_by(|a, b| (b.0, &a.1).cmp(&(a.0, &b.1)));
    section(out, "kernels", &list)
}

/// What a table of choices says of each kernel that it knows.
fn tuned(out: &mut Out, plan: &Plan) -> Result<(), Failure> {
    let us = |ns: u64| format!("{:.1}", ns as f64 / 1e3);
    let mut rows: Vec<Vec<String>> = vec![];
    for step in plan.steps() {
        let Some(c) = &step.tuned else { continue };
        let gain = 100.0 * (1.0 - c.ns as f64 / c.estimate_ns.max(1) as f64);
        let (gain, instead) = match c.way == c.estimate {
            true => (String::new(), String::new()),
            false => (format!("{gain:.0} %"), c.estimate.to_string()),
        };
        let row = vec![us(c.ns), us(c.estimate_ns), gain, step.kernel.clone(), c.way.to_string(), instead];
        if !rows.contains(&row) {
            rows.push(row);
        }
    }
    if rows.is_empty() {
        return Ok(());
    }
    out.line("")?;
    out.line("tuned, each problem once")?;
    let head = ["µs", "estimate's", "saves", "kernel", "way", "the estimate's choice"];
    let lines = table(&head, &rows, &[true, true, true, false, false, false]);
    lines.iter().try_for_each(|line| out.line(line))
}

fn fused(out: &mut Out, plan: &Plan) -> Result<(), Failure> {
    let several = computing(plan).filter(|s| s.nodes.len() > 1);
    let list = counted(several.map(|s| (s.ops(), String::new())));
    if list.is_empty() { Ok(()) } else { section(out, "fused into one step", &list) }
}

fn reorders(out: &mut Out, plan: &Plan) -> Result<(), Failure> {
    let copies: Vec<&StepInfo> = plan.steps().filter(|s| matches!(s.work, Work::Reorder { .. })).collect();
    if copies.is_empty() {
        return Ok(());
    }
    let bytes: u64 = copies.iter().map(|s| s.written_bytes).sum();
    out.line("")?;
    out.line(format_args!("copied into another layout: {} times, {} MB", copies.len(), megabytes(bytes)))?;
    for step in copies {
        if let Work::Reorder { value, from, to } = &step.work {
            let reader = step.nodes.first().map_or("an output".into(), ToString::to_string);
            out.line(format_args!("  `{value}` from {from} to {to}, for {reader}"))?;
        }
    }
    Ok(())
}

fn interpreted(out: &mut Out, plan: &Plan) -> Result<(), Failure> {
    let left: Vec<&StepInfo> = plan.steps().filter(|s| s.is_interpreted()).collect();
    out.line("")?;
    out.line(format_args!("{} of {} steps run in the interpreter", left.len(), plan.step_count()))?;
    for step in left {
        if let Work::Interpret { why } = &step.work {
            out.line(format_args!("  {}: {why}", title(step)))?;
        }
    }
    Ok(())
}

fn memory(out: &mut Out, plan: &Plan) -> Result<(), Failure> {
    let info = plan.info();
    out.line("")?;
    out.line("memory in MB")?;
    for (what, bytes) in [
        ("arena: all values between steps", info.arena_bytes),
        ("weights in the order of their kernels", info.packed_bytes),
        ("other constants", info.constant_bytes),
        ("outputs", info.output_bytes),
    ] {
        out.line(format_args!("  {:>9}  {what}", megabytes(bytes as u64)))?;
    }
    let mut largest: Vec<(usize, &StepInfo)> = plan.steps().enumerate().collect();
    largest.sort_by_key(|(n, s)| (std::cmp::Reverse(s.arena_in_use_bytes), *n));
    out.line("  of the arena in use, the largest steps")?;
    for (n, step) in largest.into_iter().take(3) {
        let mb = megabytes(step.arena_in_use_bytes as u64);
        out.line(format_args!("  {mb:>9}  step {}, {}", n + 1, title(step)))?;
    }
    Ok(())
}

fn steps(out: &mut Out, plan: &Plan) -> Result<(), Failure> {
    let row = |(n, s): (usize, &StepInfo)| {
        let kernel = if s.is_interpreted() { "interpreter".into() } else { s.kernel.clone() };
        let flops = if s.flops == 0 { String::new() } else { grouped((s.flops / 1_000_000) as usize) };
        vec![(n + 1).to_string(), short(&title(s), 60), kernel, short(&s.output, 40), flops]
    };
    let rows: Vec<Vec<String>> = plan.steps().enumerate().map(row).collect();
    let head = ["step", "nodes", "kernel", "makes", "MFLOP"];
    out.line("")?;
    table(&head, &rows, &[true, false, false, false, true]).iter().try_for_each(|line| out.line(line))
}
