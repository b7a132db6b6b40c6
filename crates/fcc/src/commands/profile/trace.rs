//! Runs in the Chrome trace-event format, which chrome://tracing and Perfetto read.
use super::super::steps::title;
use super::Timed;
use fcc_jit::ProfiledStep;
use serde_json::{Value as Json, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// The track of the runs and of their steps; thread `t` of the pool has track `t + 1`.
const STEPS: usize = 0;

/// A trace of runs, one after another.
pub fn trace(runs: &[Timed]) -> Json {
    let mut events: Vec<Json> = vec![];
    let threads: BTreeSet<usize> =
        runs.iter().flat_map(|(_, p)| &p.steps).flat_map(|s| &s.tasks).map(|t| t.thread).collect();
    events.push(name_of_track(STEPS, "steps"));
    for thread in threads {
        let caller = if thread == 0 { " (the caller)" } else { "" };
        events.push(name_of_track(thread + 1, &format!("thread {thread}{caller}")));
    }
    let mut begin = Duration::ZERO;
    for (n, (time, profile)) in runs.iter().enumerate() {
        events.push(event(&format!("run {}", n + 1), STEPS, begin, *time, json!({})));
        profile.steps.iter().for_each(|step| step_events(&mut events, step, begin));
        begin += *time;
    }
    json!({ "traceEvents": events, "displayTimeUnit": "ns" })
}

fn step_events(events: &mut Vec<Json>, step: &ProfiledStep, begin: Duration) {
    let info = &step.info;
    let about = json!({
        "kernel": info.kernel,
        "makes": info.output,
        "flops": info.flops,
        "read_bytes": info.read_bytes,
        "written_bytes": info.written_bytes,
        "tasks": info.tasks,
        "interpreted": info.is_interpreted(),
    });
    let title = title(info);
    events.push(event(&title, STEPS, begin + step.start, step.time, about));
    for span in &step.tasks {
        let about = json!({ "task": span.task, "kernel": info.kernel });
        events.push(event(&title, span.thread + 1, begin + span.start, span.time, about));
    }
}

/// A complete event; the format's times are microseconds.
fn event(name: &str, track: usize, start: Duration, time: Duration, about: Json) -> Json {
    let us = |t: Duration| t.as_nanos() as f64 / 1e3;
    json!({ "name": name, "ph": "X", "pid": 1, "tid": track, "ts": us(start), "dur": us(time), "args": about })
}

fn name_of_track(track: usize, name: &str) -> Json {
    json!({ "name": "thread_name", "ph": "M", "pid": 1, "tid": track, "args": { "name": name } })
}
