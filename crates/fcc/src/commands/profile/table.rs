//! A profile as text.
use super::super::out::{Out, table};
use super::super::steps::{megabytes, short, title};
use super::Measured;
use super::measured::Step;
use crate::commands::Failure;

/// Steps, totals by operator, and what the interpreter computed.
pub fn print(out: &mut Out, m: &Measured, top: Option<usize>) -> Result<(), Failure> {
    let sum = m.sum_us();
    let share = |us: f64| if sum > 0.0 { format!("{:.1}", 100.0 * us / sum) } else { "-".into() };
    let mut shown: Vec<(usize, &Step)> = m.steps.iter().enumerate().collect();
    if let Some(top) = top {
        shown.sort_by(|a, b| b.1.us.total_cmp(&a.1.us));
        shown.truncate(top);
    }
    let row = |(n, s): &(usize, &Step)| {
        let mark = if s.info.is_interpreted() { "!" } else { "" };
        let kernel = if s.info.is_interpreted() { "interpreter" } else { &s.info.kernel };
        let rate = s.gflops().map_or(String::new(), |r| format!("{r:.1}"));
        let of_peak = match (s.gflops(), m.peak) {
            (Some(rate), Some(peak)) => format!("{:.0}", 100.0 * rate / peak),
            _ => String::new(),
        };
        vec![
            mark.to_string(),
            (n + 1).to_string(),
            format!("{:.1}", s.us),
            share(s.us),
            rate,
            of_peak,
            megabytes(s.bytes()),
            format!("{:.1}", s.gbytes_per_second()),
            short(&title(&s.info), 60),
            kernel.to_string(),
            short(&s.info.output, 40),
        ]
    };
    let head = ["", "step", "us", "%", "GFLOP/s", "% peak", "MB", "GB/s", "nodes", "kernel", "makes"];
    let right = [false, true, true, true, true, true, true, true, false, false, false];
    let rows: Vec<Vec<String>> = shown.iter().map(row).collect();
    table(&head, &rows, &right).iter().try_for_each(|line| out.line(line))?;
    operators(out, m, &share)?;
    summary(out, m, sum)
}

fn operators(out: &mut Out, m: &Measured, share: &dyn Fn(f64) -> String) -> Result<(), Failure> {
    let rows: Vec<Vec<String>> = m
        .operators()
        .into_iter()
        .map(|(op, o)| {
            let rate = if o.flops > 0 && o.us > 0.0 {
                format!("{:.1}", o.flops as f64 / o.us / 1e3)
            } else {
                String::new()
            };
            vec![o.steps.to_string(), format!("{:.1}", o.us), share(o.us), rate, op]
        })
        .collect();
    out.line("")?;
    let head = ["steps", "us", "%", "GFLOP/s", "operators"];
    table(&head, &rows, &[true, true, true, true, false]).iter().try_for_each(|line| out.line(line))
}

fn summary(out: &mut Out, m: &Measured, sum: f64) -> Result<(), Failure> {
    let peak = m.peak.map_or("not known".into(), |p| format!("{p:.0} GFLOP/s"));
    let threads = m.options.threads.max(1);
    out.line("")?;
    out.line(format_args!(
        "run {:.3} ms, median of {}; outside the steps {:.1} us; peak {peak} ({}, threads: {threads}, precision {})",
        m.run_us / 1e3,
        m.runs,
        (m.run_us - sum).max(0.0),
        m.isa,
        m.options.precision,
    ))?;
    let (left, us) = (m.interpreted().count(), m.interpreted().map(|s| s.us).fold(0.0, |a, b| a + b));
    let percent = if sum > 0.0 { 100.0 * us / sum } else { 0.0 };
    out.line(format_args!(
        "interpreter: {left} of {} steps, {us:.1} us, {percent:.1} % of the steps' time",
        m.steps.len()
    ))
}
