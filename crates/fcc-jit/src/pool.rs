//! A pool of threads that spin for a while, then park: fork and join cost under a microsecond while a model runs.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread};

/// Polls of the start signal before a worker parks: some 50 to 100 µs.
const SPINS: u32 = 20_000;

type Job<'a> = &'a (dyn Fn(usize) + Sync);

thread_local! {
    /// Which thread of its pool this is.
    static THREAD: Cell<usize> = const { Cell::new(0) };
}

/// The number of this thread in its pool; 0 for every thread that is no worker, which then is the caller.
pub fn current_thread() -> usize {
    THREAD.get()
}

struct Worker {
    thread: Thread,
    parked: Arc<AtomicBool>,
}

/// Bits of a [`State::shares`] word that count tasks; the rest is the number of the job.
const COUNT_BITS: u32 = 24;
const COUNT: u64 = (1 << COUNT_BITS) - 1;

/// A word in a cache line of its own.
#[repr(align(128))]
struct Share(AtomicU64);

struct State {
    /// The number of the job: workers wait for it to change.
    epoch: AtomicU64,
    /// The job of the current epoch: pointer words of a `Job`, and its number of tasks.
    job: [AtomicUsize; 2],
    tasks: AtomicUsize,
    /// For each thread the job's number, and how many tasks of its share nobody has taken yet. Whoever lowers the count
    /// runs the task; with the number in the same word, a thread that comes late takes nothing of the next job.
    shares: Vec<Share>,
    /// Tasks of the current epoch that are not done.
    left: AtomicUsize,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// A fixed number of threads that run the tasks of one job at a time; the calling thread is one of them.
///
/// Tasks are dealt out statically: thread `t` of `T` runs tasks `t*n/T .. (t+1)*n/T`, so that a thread finds in its
/// caches what it wrote in the job before. A thread that is done takes what others have not begun: one that the system
/// keeps from running, or that is still waking up, holds nobody up. A panic in a task is raised again in the caller once
/// all are done.
pub struct Pool {
    state: Arc<State>,
    workers: Vec<Worker>,
    handles: Vec<JoinHandle<()>>,
    running: Mutex<()>,
}

fn lock<T>(m: &Mutex<T>) -> MutexGuard<'_, T> {
    m.lock().unwrap_or_else(PoisonError::into_inner)
}

fn share(tasks: usize, thread: usize, threads: usize) -> std::ops::Range<usize> {
    let at = |t: usize| (tasks as u128 * t as u128 / threads as u128) as usize;
    at(thread)..at(thread + 1)
}

impl State {
    fn threads(&self) -> usize {
        self.shares.len()
    }

    /// Takes a task of `thread`'s share of job `epoch`, if one is left.
    fn take(&self, epoch: u64, thread: usize, tasks: usize) -> Option<usize> {
        let word = &self.shares[thread].0;
        let mut now = word.load(Ordering::Relaxed);
        while now >> COUNT_BITS == epoch && now & COUNT != 0 {
            match word.compare_exchange_weak(now, now - 1, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Some(share(tasks, thread, self.threads()).end - (now & COUNT) as usize),
                Err(other) => now = other,
            }
        }
        None
    }

    /// Runs tasks of job `epoch` until all are taken: those of `thread`'s share first.
    fn work(&self, epoch: u64, thread: usize) {
        let tasks = self.tasks.load(Ordering::Relaxed);
        let words = [self.job[0].load(Ordering::Relaxed), self.job[1].load(Ordering::Relaxed)];
        for t in (thread..self.threads()).chain(0..thread) {
            while let Some(task) = self.take(epoch, t, tasks) {
                // SAFETY: `Pool::run` stored the two words of a live `Job` before it raised the epoch, stores others
                // only for the next epoch, and neither does that nor returns before `left` is 0. This task was not
                // taken when `take` found it, so `left` was not 0 then, when the words had been read, and is not until
                // the task is done.
                let job = unsafe { std::mem::transmute::<[usize; 2], Job<'_>>(words) };
                if let Err(payload) = catch_unwind(AssertUnwindSafe(|| job(task))) {
                    lock(&self.panic).get_or_insert(payload);
                }
                self.left.fetch_sub(1, Ordering::Release);
            }
        }
    }

    fn worker(&self, thread: usize, parked: &AtomicBool) {
        THREAD.set(thread);
        let mut seen = 0;
        loop {
            let mut spins = 0;
            loop {
                let epoch = self.epoch.load(Ordering::Acquire);
                if epoch != seen {
                    seen = epoch;
                    break;
                }
                spins += 1;
                if spins < SPINS {
                    std::hint::spin_loop();
                } else {
                    parked.store(true, Ordering::SeqCst);
                    if self.epoch.load(Ordering::SeqCst) == seen {
                        std::thread::park();
                    }
                    parked.store(false, Ordering::SeqCst);
                }
            }
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            self.work(seen, thread);
        }
    }
}

impl Pool {
    /// A pool of `threads` threads, the caller included: 0 counts as 1. The tasks of threads that the system refuses to
    /// start are run by the others.
    pub fn new(threads: usize) -> Pool {
        let threads = threads.max(1);
        let state = Arc::new(State {
            epoch: AtomicU64::new(0),
            job: [AtomicUsize::new(0), AtomicUsize::new(0)],
            tasks: AtomicUsize::new(0),
            shares: (0..threads).map(|_| Share(AtomicU64::new(0))).collect(),
            left: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let (mut workers, mut handles) = (Vec::new(), Vec::new());
        for thread in 1..threads {
            let (shared, parked) = (state.clone(), Arc::new(AtomicBool::new(false)));
            let flag = parked.clone();
            let spawned = std::thread::Builder::new()
                .name(format!("fcc-{thread}"))
                .spawn(move || shared.worker(thread, &flag));
            let Ok(handle) = spawned else { break };
            workers.push(Worker { thread: handle.thread().clone(), parked });
            handles.push(handle);
        }
        Pool { state, workers, handles, running: Mutex::new(()) }
    }

    /// Threads, the caller included.
    pub fn threads(&self) -> usize {
        self.state.threads()
    }

    /// Runs `job(0)` to `job(tasks - 1)`, each once, and returns when all are done. Calls from several threads wait for
    /// one another; a job must not call `run` on its own pool.
    pub fn run(&self, tasks: usize, job: &(dyn Fn(usize) + Sync)) {
        if tasks <= 1 || self.workers.is_empty() || tasks as u64 > COUNT {
            (0..tasks).for_each(job);
            return;
        }
        let guard = lock(&self.running);
        let state = &*self.state;
        // SAFETY: a reference to a trait object is two words; only its lifetime is forgotten, see `State::work`.
        let words = unsafe { std::mem::transmute::<Job<'_>, [usize; 2]>(job) };
        state.job[0].store(words[0], Ordering::Relaxed);
        state.job[1].store(words[1], Ordering::Relaxed);
        state.tasks.store(tasks, Ordering::Relaxed);
        state.left.store(tasks, Ordering::Relaxed);
        let epoch = state.epoch.load(Ordering::Relaxed) + 1;
        for (thread, word) in state.shares.iter().enumerate() {
            let count = share(tasks, thread, state.threads()).len() as u64;
            word.0.store(epoch << COUNT_BITS | count, Ordering::Release);
        }
        self.wake(epoch);
        state.work(epoch, 0);
        let mut spins = 0u32;
        while state.left.load(Ordering::Acquire) != 0 {
            spins = spins.saturating_add(1);
            if spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        let panic = lock(&state.panic).take();
        drop(guard);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    fn wake(&self, epoch: u64) {
        self.state.epoch.store(epoch, Ordering::SeqCst);
        for worker in &self.workers {
            if worker.parked.load(Ordering::SeqCst) {
                worker.thread.unpark();
            }
        }
    }

    fn end(&mut self) {
        self.state.stop.store(true, Ordering::Release);
        self.wake(self.state.epoch.load(Ordering::Relaxed) + 1);
        for handle in self.handles.drain(..) {
            // A worker catches panics of its tasks, so joining cannot fail; if it did there is nothing left to do.
            let _ = handle.join();
        }
        self.workers.clear();
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_for_any_count() {
        for threads in [1, 2, 3, 5] {
            let pool = Pool::new(threads);
            for tasks in [0, 1, 2, 3, 4, 7, 64] {
                let counts: Vec<AtomicUsize> = (0..tasks).map(|_| AtomicUsize::new(0)).collect();
                pool.run(tasks, &|i| {
                    counts[i].fetch_add(1, Ordering::Relaxed);
                });
                assert!(
                    counts.iter().all(|c| c.load(Ordering::Relaxed) == 1),
                    "{threads} threads, {tasks} tasks"
                );
            }
        }
    }

    #[test]
    fn wakes_from_parking_and_survives_many_jobs() {
        let pool = Pool::new(2);
        let sum = AtomicUsize::new(0);
        for round in 0..3 {
            for _ in 0..500 {
                pool.run(2, &|i| {
                    sum.fetch_add(i + 1, Ordering::Relaxed);
                });
            }
            std::thread::sleep(std::time::Duration::from_millis(5 * round));
        }
        assert_eq!(sum.into_inner(), 3 * 500 * 3);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_goes_on() {
        let pool = Pool::new(2);
        for bad in [0, 1] {
            let caught = catch_unwind(AssertUnwindSafe(|| pool.run(2, &|i| assert!(i != bad, "task {i}"))));
            assert!(caught.is_err());
        }
        let n = AtomicUsize::new(0);
        pool.run(2, &|_| {
            n.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(n.into_inner(), 2);
    }

    #[test]
    fn a_thread_that_is_held_up_holds_up_only_its_own_task() {
        let pool = Pool::new(2);
        let (held, others) = (AtomicBool::new(false), AtomicUsize::new(0));
        let start = std::time::Instant::now();
        // tasks 4 to 7 are the worker's: whoever runs the first of them waits until all others are done
        pool.run(8, &|i| {
            if i == 4 {
                held.store(true, Ordering::Release);
                while others.load(Ordering::Acquire) < 7 && start.elapsed().as_secs() < 20 {
                    std::thread::yield_now();
                }
            } else {
                while !held.load(Ordering::Acquire) && start.elapsed().as_secs() < 20 {
                    std::thread::yield_now();
                }
                others.fetch_add(1, Ordering::Release);
            }
        });
        assert_eq!(others.into_inner(), 7);
        assert!(start.elapsed().as_secs() < 20);
    }

    #[test]
    fn jobs_of_changing_sizes_never_mix() {
        let pool = Pool::new(3);
        for round in 0..3000usize {
            let counts: Vec<AtomicUsize> = (0..round % 11).map(|_| AtomicUsize::new(0)).collect();
            pool.run(counts.len(), &|i| {
                counts[i].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1), "round {round}");
        }
    }

    #[test]
    fn is_shared_between_threads() {
        let pool = Pool::new(2);
        let sum = AtomicUsize::new(0);
        std::thread::scope(|s| {
            for _ in 0..3 {
                s.spawn(|| {
                    for _ in 0..100 {
                        pool.run(4, &|i| {
                            sum.fetch_add(i, Ordering::Relaxed);
                        });
                    }
                });
            }
        });
        assert_eq!(sum.into_inner(), 3 * 100 * 6);
    }
}
