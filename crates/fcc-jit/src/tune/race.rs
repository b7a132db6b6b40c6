//! Timing several ways to do the same, in turn, so that what else the machine does meets all of them alike.
use fcc_ir::limits;
use std::time::{Duration, Instant};

/// How long a race may take, and when it gives up on those behind.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// Rounds at most; in each of them everyone who is left runs once.
    pub rounds: usize,
    /// Rounds that are run whatever the time.
    pub least: usize,
    /// No round begins after this time.
    pub time: Duration,
    /// A sample lasts about this long at least: short work is repeated.
    pub sample: Duration,
}

/// What one entrant needs for a run; called once for each run.
pub type Entrant<'a> = Box<dyn FnMut() + 'a>;

/// The share of the best time so far above which an entrant is given up after so many rounds.
const BEHIND: [(usize, f64); 3] = [(2, 1.3), (4, 1.12), (7, 1.06)];

/// Median times of one run in nanoseconds; `None` of those that were given up. The first entrant never is, unless a limit
/// of the run is reached: then nobody has a time.
pub fn race(entrants: &mut [Entrant], rules: &Rules) -> Vec<Option<u64>> {
    let begin = Instant::now();
    let mut repeats: Vec<u32> = vec![];
    for run in entrants.iter_mut() {
        if limits::check_now().is_err() {
            return vec![None; entrants.len()];
        }
        // first runs touch new memory and are no samples
        run();
        let start = Instant::now();
        run();
        let once = start.elapsed().max(Duration::from_nanos(50));
        repeats.push((rules.sample.as_nanos() / once.as_nanos() + 1).min(10_000) as u32);
    }
    let mut samples: Vec<Vec<u64>> = vec![vec![]; entrants.len()];
    let mut runs: Vec<bool> = vec![true; entrants.len()];
    for round in 0..rules.rounds {
        if round >= rules.least && begin.elapsed() > rules.time {
            break;
        }
        for i in 0..entrants.len() {
            // who is first changes
            let i = (i + round) % entrants.len();
            if limits::check_now().is_err() {
                return vec![None; entrants.len()];
            }
            if runs[i] {
                let start = Instant::now();
                (0..repeats[i]).for_each(|_| entrants[i]());
                samples[i].push((start.elapsed() / repeats[i]).as_nanos() as u64);
            }
        }
        if let Some((_, limit)) = BEHIND.iter().find(|b| b.0 == round + 1) {
            let best = samples.iter().filter_map(|s| s.iter().min()).min().copied().unwrap_or(0) as f64;
            for (i, s) in samples.iter().enumerate().skip(1) {
                runs[i] &= s.iter().min().is_some_and(|ns| *ns as f64 <= best * limit);
            }
        }
    }
    let left = runs.iter().zip(&mut samples);
    left.map(|(runs, s)| (*runs && !s.is_empty()).then(|| median(s))).collect()
}

fn median(samples: &mut [u64]) -> u64 {
    samples.sort_unstable();
    samples.get(samples.len() / 2).copied().unwrap_or(0)
}

/// The index and time of the fastest.
pub fn fastest(times: &[Option<u64>]) -> Option<(usize, u64)> {
    times.iter().enumerate().filter_map(|(i, t)| Some((i, (*t)?))).min_by_key(|(_, t)| *t)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn the_first_is_never_given_up_and_all_run_as_often() {
        let counts: Vec<Cell<usize>> = vec![Cell::new(0); 3];
        let mut entrants: Vec<Entrant> =
            counts.iter().map(|c| Box::new(|| c.set(c.get() + 1)) as Entrant).collect();
        let rules = Rules { rounds: 1, least: 1, time: Duration::from_secs(1), sample: Duration::ZERO };
        let times = race(&mut entrants, &rules);
        drop(entrants);
        assert!(times.iter().all(Option::is_some));
        // two runs before the first sample
        assert_eq!(counts.iter().map(Cell::get).collect::<Vec<_>>(), [3, 3, 3]);
    }

    #[test]
    fn the_median_is_of_the_middle() {
        assert_eq!(median(&mut [9, 1, 5]), 5);
        assert_eq!(fastest(&[None, Some(7), Some(3), Some(3)]), Some((2, 3)));
        assert_eq!(fastest(&[None]), None);
    }
}
