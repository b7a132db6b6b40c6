//! A pool of threads that spin for a while, then park: fork and join cost under a microsecond while a model runs.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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

struct State {
    /// Counts jobs: workers wait for it to change.
    epoch: AtomicUsize,
    /// The job of the current epoch: pointer words of a `Job`, and its number of tasks.
    job: [AtomicUsize; 2],
    tasks: AtomicUsize,
    /// Workers that have not finished the current epoch.
    busy: AtomicUsize,
    threads: AtomicUsize,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

/// A fixed number of threads that run the tasks of one job at a time; the calling thread is one of them.
///
/// Tasks are dealt out statically: thread `t` of `T` runs tasks `t*n/T .. (t+1)*n/T`. A panic in a task ends that
/// thread's share and is raised again in the caller once all threads are done.
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
    fn run_share(&self, job: Job<'_>, tasks: usize, thread: usize) {
        let result = catch_unwind(AssertUnwindSafe(|| {
            share(tasks, thread, self.threads.load(Ordering::Relaxed)).for_each(job)
        }));
        if let Err(payload) = result {
            lock(&self.panic).get_or_insert(payload);
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
            let words = [self.job[0].load(Ordering::Relaxed), self.job[1].load(Ordering::Relaxed)];
            // SAFETY: `Pool::run` stored the two words of a live `Job` before it raised the epoch, and does not return
            // before `busy` is 0.
            let job = unsafe { std::mem::transmute::<[usize; 2], Job<'_>>(words) };
            self.run_share(job, self.tasks.load(Ordering::Relaxed), thread);
            self.busy.fetch_sub(1, Ordering::Release);
        }
    }
}

impl Pool {
    /// A pool of `threads` threads, the caller included: 0 counts as 1. Threads that the system refuses to start are
    /// left out.
    pub fn new(threads: usize) -> Pool {
        let state = Arc::new(State {
            epoch: AtomicUsize::new(0),
            job: [AtomicUsize::new(0), AtomicUsize::new(0)],
            tasks: AtomicUsize::new(0),
            busy: AtomicUsize::new(0),
            threads: AtomicUsize::new(1),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let (mut workers, mut handles) = (Vec::new(), Vec::new());
        for thread in 1..threads.max(1) {
            let (shared, parked) = (state.clone(), Arc::new(AtomicBool::new(false)));
            let flag = parked.clone();
            let spawned = std::thread::Builder::new()
                .name(format!("fcc-{thread}"))
                .spawn(move || shared.worker(thread, &flag));
            let Ok(handle) = spawned else { break };
            workers.push(Worker { thread: handle.thread().clone(), parked });
            handles.push(handle);
        }
        state.threads.store(workers.len() + 1, Ordering::Relaxed);
        Pool { state, workers, handles, running: Mutex::new(()) }
    }

    /// Threads, the caller included.
    pub fn threads(&self) -> usize {
        self.state.threads.load(Ordering::Relaxed)
    }

    /// Runs `job(0)` to `job(tasks - 1)`, each once, and returns when all are done. Calls from several threads wait for
    /// one another; a job must not call `run` on its own pool.
    pub fn run(&self, tasks: usize, job: &(dyn Fn(usize) + Sync)) {
        if tasks <= 1 || self.workers.is_empty() {
            (0..tasks).for_each(job);
            return;
        }
        let guard = lock(&self.running);
        let state = &*self.state;
        // SAFETY: a reference to a trait object is two words; only its lifetime is forgotten, see `worker`.
        let words = unsafe { std::mem::transmute::<Job<'_>, [usize; 2]>(job) };
        state.job[0].store(words[0], Ordering::Relaxed);
        state.job[1].store(words[1], Ordering::Relaxed);
        state.tasks.store(tasks, Ordering::Relaxed);
        state.busy.store(self.workers.len(), Ordering::Relaxed);
        self.wake();
        state.run_share(job, tasks, 0);
        let mut spins = 0u32;
        while state.busy.load(Ordering::Acquire) != 0 {
            spins = spins.saturating_add(1);
            if spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        let panic = lock(&state.panic).take();
        drop(guard);
        if let Some(payload) = panic {
            resume_unwind(payload);
        }
    }

    fn wake(&self) {
        self.state.epoch.fetch_add(1, Ordering::SeqCst);
        for worker in &self.workers {
            if worker.parked.load(Ordering::SeqCst) {
                worker.thread.unpark();
            }
        }
    }

    fn end(&mut self) {
        self.state.stop.store(true, Ordering::Release);
        self.wake();
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
