//! The times of several runs, put together.
use super::super::steps::as_json;
use super::Timed;
use fcc_jit::{Isa, Options, StepInfo};
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A step over all runs.
pub struct Step {
    /// What it does.
    pub info: Arc<StepInfo>,
    /// The median of its times in microseconds.
    pub us: f64,
}

impl Step {
    /// Operations a nanosecond; none where the step does none that are counted.
    pub fn gflops(&self) -> Option<f64> {
        (self.info.flops > 0 && self.us > 0.0).then(|| self.info.flops as f64 / self.us / 1e3)
    }
    /// Bytes of its operands.
    pub fn bytes(&self) -> u64 {
        self.info.read_bytes + self.info.written_bytes
    }
    /// Bytes a nanosecond.
    pub fn gbytes_per_second(&self) -> f64 {
        if self.us > 0.0 { self.bytes() as f64 / self.us / 1e3 } else { 0.0 }
    }
}

/// All steps of one operator, or of one fused set of operators.
#[derive(Default)]
pub struct Operator {
    /// How many steps.
    pub steps: usize,
    /// The sum of their medians in microseconds.
    pub us: f64,
    /// The sum of their operations.
    pub flops: u64,
}

/// What a profile shows.
pub struct Measured {
    /// The level of the compiled code.
    pub isa: Isa,
    /// How it was compiled.
    pub options: Options,
    /// GFLOP/s that this machine reaches with as many threads.
    pub peak: Option<f64>,
    /// Runs that were measured.
    pub runs: usize,
    /// The median time of a whole run in microseconds.
    pub run_us: f64,
    /// In the order of the run.
    pub steps: Vec<Step>,
}

fn median_us(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    let us = |i: usize| times.get(i).map_or(0.0, |t| t.as_secs_f64() * 1e6);
    let n = times.len();
    (us(n.saturating_sub(1) / 2) + us(n / 2)) / 2.0
}

impl Measured {
    /// Puts runs together. A run that took other steps than the last one, as the first after a surprise in a shape may
    /// have, counts for the whole time only.
    pub fn new(profiles: &[Timed], isa: Isa, options: &Options, peak: Option<f64>) -> Measured {
        let last = profiles.last().map_or(&[][..], |(_, p)| &p.steps);
        let same: Vec<_> = profiles.iter().filter(|(_, p)| p.steps.len() == last.len()).collect();
        let steps = last.iter().enumerate().map(|(i, step)| {
            let us = median_us(same.iter().map(|(_, p)| p.steps[i].time).collect());
            Step { info: step.info.clone(), us }
        });
        Measured {
            isa,
            options: options.clone(),
            peak,
            runs: profiles.len(),
            run_us: median_us(profiles.iter().map(|(time, _)| *time).collect()),
            steps: steps.collect(),
        }
    }
    /// The sum of all steps in microseconds.
    pub fn sum_us(&self) -> f64 {
        self.steps.iter().map(|s| s.us).sum()
    }
    /// The steps that the interpreter computes.
    pub fn interpreted(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().filter(|s| s.info.is_interpreted())
    }
    /// Totals by what is computed, the slowest first.
    pub fn operators(&self) -> Vec<(String, Operator)> {
        let mut totals: BTreeMap<String, Operator> = BTreeMap::new();
        for step in &self.steps {
            let total = totals.entry(step.info.ops()).or_default();
            total.steps += 1;
            total.us += step.us;
            total.flops += step.info.flops;
        }
        let mut list: Vec<_> = totals.into_iter().collect();
        list.sort_by(|a, b| b.1.us.total_cmp(&a.1.us));
        list
    }
    /// All of it as JSON.
    pub fn as_json(&self) -> Json {
        let step = |s: &Step| {
            let mut json = as_json(&s.info);
            json["us"] = json!(s.us);
            json["gflops"] = json!(s.gflops());
            json
        };
        let operator = |(op, o): &(String, Operator)| json!({ "op": op, "steps": o.steps, "us": o.us, "flops": o.flops });
        let left_us = self.interpreted().map(|s| s.us).fold(0.0, |a, b| a + b);
        json!({
            "isa": self.isa.name(),
            "threads": self.options.threads,
            "precision": self.options.precision.name(),
            "peak_gflops": self.peak,
            "runs": self.runs,
            "median_ms": self.run_us / 1e3,
            "steps": self.steps.iter().map(step).collect::<Vec<_>>(),
            "operators": self.operators().iter().map(operator).collect::<Vec<_>>(),
            "interpreted": { "steps": self.interpreted().count(), "us": left_us },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_is_the_mean_of_the_middle() {
        let us = |list: &[u64]| median_us(list.iter().map(|n| Duration::from_micros(*n)).collect());
        assert_eq!(us(&[]), 0.0);
        assert_eq!(us(&[7]), 7.0);
        assert_eq!(us(&[9, 1, 5]), 5.0);
        assert_eq!(us(&[9, 1, 5, 6]), 5.5);
    }
}
