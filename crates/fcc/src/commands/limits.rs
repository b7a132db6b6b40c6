//! `--max-seconds` and `--max-memory`: how far a command may go.
use super::Failure;
use fcc_ir::RunLimits;
use std::time::{Duration, Instant};

/// `--max-seconds` and `--max-memory`.
#[derive(Debug, Clone, clap::Args)]
pub struct LimitArgs {
    /// Stop after N seconds, fractions allowed: exit code 2, and one line that says where
    #[arg(long, value_name = "N", value_parser = seconds)]
    max_seconds: Option<f64>,
    /// Stop before the tensors, arenas and packed weights that are made take more than this many MiB at a time: exit code
    /// 2, and one line that says where. What files hold (the model, inputs) is not counted
    #[arg(long, value_name = "MIB")]
    max_memory: Option<u64>,
}

fn seconds(text: &str) -> Result<f64, String> {
    let value = text.parse().ok().filter(|v: &f64| v.is_finite() && *v >= 0.0);
    value.ok_or_else(|| format!("got `{text}`, wanted a number of 0 or more"))
}

impl LimitArgs {
    /// Does the work of a command under the limits.
    pub fn within(&self, work: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        // beyond what the clock can say there is no limit
        let after = |s: f64| Instant::now().checked_add(Duration::try_from_secs_f64(s).ok()?);
        let mib = |n: u64| usize::try_from(n).ok()?.checked_mul(1 << 20);
        let limits = RunLimits {
            deadline: self.max_seconds.and_then(after),
            memory_bytes: self.max_memory.and_then(mib),
            cancel: None,
        };
        limits.within(work)
    }
}
