//! Runs a model on the inputs of an npz file and compares, times or explains the run:
//! `run_model MODEL INPUTS.npz [--expect OUTPUTS.npz] [--threads N] [--runs N] [--profile [--tasks]] [--plan]
//! [--interpret]`; `--tasks` adds when each task of a step began and how long it took, in microseconds.
use fcc_ir::interp::{self, Values};
use fcc_ir::{DType, Value};
use fcc_jit::{Options, compile};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [model, inputs, rest @ ..] = &args[..] else {
        return Err("usage: run_model MODEL INPUTS.npz …".into());
    };
    let option = |name: &str| rest.iter().position(|a| a == name).and_then(|i| rest.get(i + 1)).cloned();
    let flag = |name: &str| rest.iter().any(|a| a == name);
    let start = Instant::now();
    let model = fcc_onnx::load(model, &Default::default())?;
    println!("load {:?}", start.elapsed());
    let inputs: Values =
        fcc_onnx::read_npz(inputs)?.into_iter().map(|(n, t)| (n, Value::Tensor(t))).collect();
    let expected = option("--expect").map(fcc_onnx::read_npz).transpose()?.unwrap_or_default();
    if flag("--interpret") {
        let start = Instant::now();
        let outputs = interp::run(&model, &inputs)?;
        println!("interpreted in {:?}", start.elapsed());
        return compare(&outputs, &expected);
    }
    let mut options = Options::with_threads(option("--threads").map_or(Ok(1), |t| t.parse())?);
    if let Some(isa) = option("--isa") {
        options.isa = isa.parse()?;
    }
    let start = Instant::now();
    let compiled = compile(&model, &options)?;
    let plan = compiled.plan_for(&inputs)?;
    println!(
        "compile {:?}, {} steps, arena {} bytes",
        start.elapsed(),
        plan.step_count(),
        plan.arena_bytes()
    );
    if flag("--plan") {
        print!("{plan}");
    }
    println!("interpreted: {:?}", plan.interpreted_steps());
    let start = Instant::now();
    let outputs = compiled.run(&inputs)?;
    println!("first run {:?}", start.elapsed());
    compare(&outputs, &expected)?;
    let runs: usize = option("--runs").map_or(Ok(0), |r| r.parse())?;
    let mut times: Vec<_> = vec![];
    let busy = cpu_ns();
    for _ in 0..runs {
        let start = Instant::now();
        compiled.run(&inputs)?;
        times.push(start.elapsed());
    }
    times.sort();
    if let Some(median) = times.get(times.len() / 2) {
        let cpu = (cpu_ns() - busy) as f64 / runs as f64 / 1e6;
        println!("min {:?} median {median:?} of {runs}, {cpu:.2} ms of this thread's time each", times[0]);
    }
    if flag("--profile") {
        // the least time of each step: what a busy machine adds falls out
        let (_, mut profile) = compiled.run_profiled(&inputs, flag("--tasks"))?;
        for _ in 0..runs {
            let (_, again) = compiled.run_profiled(&inputs, flag("--tasks"))?;
            for (best, new) in profile.steps.iter_mut().zip(again.steps) {
                if new.time < best.time {
                    *best = new;
                }
            }
        }
        let total: f64 = profile.steps.iter().map(|s| s.time.as_secs_f64()).sum();
        profile.steps.sort_by_key(|s| std::cmp::Reverse(s.time));
        for step in profile.steps.iter().take(1000) {
            let us = step.time.as_secs_f64() * 1e6;
            let rate = step.info.flops as f64 / us / 1e3;
            let share = us / total / 1e4;
            println!(
                "{us:10.1} us {share:5.1} % {rate:7.1} GFLOP/s  {}  // {}",
                step.info.kernel, step.info.place
            );
            for task in &step.tasks {
                let from = task.start.saturating_sub(step.start).as_secs_f64() * 1e6;
                let time = task.time.as_secs_f64() * 1e6;
                println!("    task {} on thread {}: from {from:.1} for {time:.1}", task.task, task.thread);
            }
        }
        println!("{:10.1} us in all", total * 1e6);
    }
    Ok(())
}

/// Time that this thread ran, where Linux says so.
fn cpu_ns() -> u64 {
    let stat = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    stat.split_whitespace().next().and_then(|n| n.parse().ok()).unwrap_or(0)
}

/// Prints the largest difference of each output, absolute and against the output's root mean square.
fn compare(
    outputs: &Values,
    expected: &[(String, fcc_ir::Tensor)],
) -> Result<(), Box<dyn std::error::Error>> {
    for (name, want) in expected {
        let Some(Value::Tensor(got)) = outputs.get(name) else {
            println!("{name}: missing");
            continue;
        };
        if got.shape() != want.shape() || got.dtype() != want.dtype() {
            println!("{name}: got {got:?}, wanted {want:?}");
            continue;
        }
        if want.dtype() != DType::F32 {
            println!("{name}: {}", if got == want { "equal" } else { "DIFFERENT" });
            continue;
        }
        let (a, b) = (got.as_slice::<f32>()?, want.as_slice::<f32>()?);
        let rms = (b.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / b.len().max(1) as f64).sqrt();
        let worst = a.iter().zip(b.iter()).map(|(a, b)| f64::from((a - b).abs())).fold(0.0, f64::max);
        let nan = a.iter().zip(b.iter()).any(|(a, b)| a.is_nan() != b.is_nan());
        println!(
            "{name} {:?}: max diff {worst:.3e}, {:.3e} of rms{}",
            got.shape(),
            worst / rms,
            if nan { " NaN DIFFERS" } else { "" }
        );
    }
    Ok(())
}
