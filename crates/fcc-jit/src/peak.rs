//! The machine's own limit: how fast independent multiply-adds run.
use crate::asm::{Asm, Isa};
use crate::error::Result;
use crate::module::{Code, Kernel};
use crate::pool::Pool;
use std::time::{Duration, Instant};

/// Rounds of the loop in one call: about half a millisecond.
const TURNS: i32 = 200_000;
/// Accumulators: more than the latency of a multiply-add times the units that do them.
const CHAINS: usize = 12;

/// A loop of independent vector multiply-adds that touches no memory.
pub struct Peak {
    code: Code,
    kernel: Kernel,
}

impl Peak {
    /// The loop in the widest instructions of this CPU up to `isa`, for pools of up to `threads` threads.
    ///
    /// # Errors
    /// Where vector code cannot be assembled for this CPU.
    pub fn new(isa: Isa, threads: usize) -> Result<Peak> {
        use crate::asm::reg::rax;
        let mut code = Code::new(isa)?;
        let isa = code.isa();
        let mut w = Asm::new(isa)?;
        // Values as in real work: multiplying zeros draws less power, and some hosts clock higher for it.
        for i in 0..CHAINS + 2 {
            w.splat(i, [0.37, 1e-9][usize::from(i > CHAINS)] * (1.0 + i as f32))?;
        }
        let top = w.repeat(rax, TURNS as usize)?;
        for i in 0..CHAINS {
            w.fma(i, CHAINS, CHAINS + 1)?;
        }
        w.again(rax, top)?;
        let bytes = w.finish()?;
        let func = code.emitter().assembled("peak", 2, &bytes)?;
        code.finalize()?;
        let tasks = threads.max(1);
        let flops = (tasks * TURNS as usize * CHAINS * 2 * isa.lanes()) as u64;
        let kernel = Kernel { func, name: format!("peak {isa}"), operands: vec![], tasks, flops };
        Ok(Peak { code, kernel })
    }

    /// The level that the loop is made for.
    pub fn isa(&self) -> Isa {
        self.code.isa()
    }

    /// GFLOP/s of all threads of the pool together: the best of the calls that fit in `time`, one at least. A
    /// multiply-add counts as two operations.
    ///
    /// # Errors
    /// None that a caller could cause.
    pub fn gflops(&self, pool: &Pool, time: Duration) -> Result<f64> {
        let step = self.code.step(&self.kernel)?;
        let (start, mut best) = (Instant::now(), Duration::MAX);
        while best == Duration::MAX || start.elapsed() < time {
            let call = Instant::now();
            // SAFETY: the loop takes no operands, and `self.code` is borrowed.
            unsafe { step.run(pool, &[])? };
            best = best.min(call.elapsed());
        }
        Ok(self.kernel.flops as f64 / best.as_secs_f64().max(1e-9) / 1e9)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peak_is_a_plausible_rate() {
        // where there is no vector assembler there is no peak either
        let Ok(peak) = Peak::new(Isa::Avx512, 1) else { return };
        let rate = peak.gflops(&Pool::new(1), Duration::from_millis(2)).expect("runs");
        assert!((0.1..10_000.0).contains(&rate), "{rate}");
    }
}
