//! One peer, one model, one process: prints its timings as one line of JSON, as ../worker.py does for the peers that
//! are Python libraries. Started by ../run.py with the task as JSON in the only argument.
mod peer;
mod rten_peer;
mod tract_peer;

use anyhow::{Context, Result, bail};
use fcc_ir::Tensor;
use peer::Peer;
use serde_json::{Value as Json, json};
use std::time::{Duration, Instant};

/// As in ../worker.py.
const WARMUP_RUNS: usize = 2;
const LEAST_RUNS: usize = 5;
const MOST_RUNS: usize = 2000;

fn main() -> Result<()> {
    let argument = std::env::args().nth(1).context("got no argument, wanted the task as JSON")?;
    let task: Json = serde_json::from_str(&argument)?;
    let text = |key: &str| task[key].as_str().with_context(|| format!("task: got no text `{key}`"));
    let (model, threads) = (text("model")?, task["threads"].as_u64().context("task: got no `threads`")?);
    let inputs = fcc_onnx::read_npz(text("inputs")?)?;
    let start = Instant::now();
    let mut peer: Box<dyn Peer> = match text("runner")? {
        "tract" => Box::new(tract_peer::Tract::load(model, &inputs, usize::try_from(threads)?)?),
        "rten" => Box::new(rten_peer::Rten::load(model, &inputs)?),
        other => bail!("task: got runner `{other}`, wanted tract or rten"),
    };
    let loaded = start.elapsed();
    peer.run()?;
    let first = start.elapsed();
    if task["once"] == true {
        let made = peer.outputs()?;
        let shapes: Vec<Json> = made.iter().map(|(n, t)| json!({ "name": n, "shape": t.shape() })).collect();
        println!("{}", json!({ "outputs": shapes }));
        return Ok(());
    }
    if let Some(path) = task["outputs"].as_str() {
        let made = peer.outputs()?;
        fcc_onnx::write_npz(path, made.iter().map(|(name, t): &(String, Tensor)| (name.as_str(), t)))?;
    }
    let seconds = task["seconds"].as_f64().context("task: got no `seconds`")?;
    let times = measure(peer.as_mut(), Duration::from_secs_f64(seconds))?;
    let middle = (times[(times.len() - 1) / 2] + times[times.len() / 2]) / 2.0;
    let result = json!({
        "load_ms": ms(loaded),
        "compile_ms": 0.0,
        "first_run_ms": ms(first - loaded),
        "median_ms": middle,
        "min_ms": times[0],
        "runs": times.len(),
        "peak_rss_bytes": peak_rss_bytes().context("got no VmHWM in /proc/self/status")?,
    });
    println!("{result}");
    Ok(())
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Milliseconds of each run, fastest first, for about the given time.
fn measure(peer: &mut dyn Peer, time: Duration) -> Result<Vec<f64>> {
    for _ in 0..WARMUP_RUNS {
        peer.run()?;
    }
    let (mut times, begin) = (vec![], Instant::now());
    while times.len() < LEAST_RUNS || (begin.elapsed() < time && times.len() < MOST_RUNS) {
        let start = Instant::now();
        peer.run()?;
        times.push(ms(start.elapsed()));
    }
    times.sort_by(f64::total_cmp);
    Ok(times)
}

/// The most memory that the process has held (Linux).
fn peak_rss_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}
