//! What stops a run: a deadline, a limit of memory, a cancellation from another thread.
//!
//! [`RunLimits::within`] puts limits in force for all that a closure does on this thread: the interpreter, compiled
//! models, compiling, tuning, rewriting, verification. Those ask [`check`] between steps and in loops, and end with
//! [`Error::Stopped`]. Nothing that was stopped is kept: the same model runs again afterwards.
//!
//! ```
//! use fcc_ir::{CancelToken, RunLimits, limits};
//! let cancel = CancelToken::new();
//! let limits = RunLimits { cancel: Some(cancel.clone()), ..RunLimits::default() };
//! cancel.cancel(); // from any thread
//! assert!(limits.within(limits::check).unwrap_err().is_stopped());
//! assert!(limits::check().is_ok(), "limits end with the closure");
//! ```
use crate::{Error, Result};
use bytes::Bytes;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// How far a run may go. The default limits nothing.
#[derive(Debug, Clone, Default)]
pub struct RunLimits {
    /// When to stop.
    pub deadline: Option<Instant>,
    /// The most bytes of tensors, arenas and packed weights that may be held at a time. What was there when the limits
    /// came into force (the model, the inputs) is not counted, nor is what operators hold while they compute.
    pub memory_bytes: Option<usize>,
    /// Stops when it is cancelled.
    pub cancel: Option<CancelToken>,
}

/// A flag that stops a run from another thread. Clones share it; it cannot be taken back.
#[derive(Debug, Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Not cancelled.
    pub fn new() -> CancelToken {
        CancelToken::default()
    }
    /// Stops every run that holds a clone.
    pub fn cancel(&self) {
        self.0.store(true, Relaxed);
    }
    /// Whether it is cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Relaxed)
    }
}

/// Which limit was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stopped {
    /// The deadline.
    Deadline {
        /// How long after the limits came into force it was.
        after: Duration,
    },
    /// The limit of memory.
    Memory {
        /// The limit.
        limit_bytes: usize,
        /// What is held.
        held_bytes: usize,
        /// What was asked for on top.
        asked_bytes: usize,
    },
    /// The token was cancelled.
    Cancelled,
}

impl fmt::Display for Stopped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: usize| decimal(bytes as f64 / f64::from(1 << 20));
        match *self {
            Stopped::Deadline { after } => {
                write!(f, "stopped: the time limit of {} s is reached", decimal(after.as_secs_f64()))
            }
            Stopped::Memory { limit_bytes, held_bytes, asked_bytes } => write!(
                f,
                "stopped: the memory limit of {} MiB is reached: {} MiB held, {} MiB asked for",
                mib(limit_bytes),
                mib(held_bytes),
                mib(asked_bytes)
            ),
            Stopped::Cancelled => f.write_str("stopped: cancelled"),
        }
    }
}

/// A number with at most three decimals.
fn decimal(v: f64) -> String {
    let text = format!("{v:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_string()
}

impl RunLimits {
    /// Does `work` under these limits, on this thread. Limits that are in force already stay so.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let RunLimits { deadline, memory_bytes, cancel } = self;
        if deadline.is_none() && memory_bytes.is_none() && cancel.is_none() {
            return work();
        }
        let outer = Watch::current().0;
        let inner = Inner {
            limits: self.clone(),
            since: Instant::now(),
            held: 0.into(),
            refused: OnceLock::new(),
            outer,
        };
        Watch(Some(Arc::new(inner))).within(work)
    }
}

/// The limits in force, to take them to another thread.
#[derive(Debug, Clone, Default)]
pub struct Watch(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    limits: RunLimits,
    since: Instant,
    /// Bytes held under these limits.
    held: AtomicUsize,
    /// Memory that was asked for and refused: nothing goes on after that, whoever did without.
    refused: OnceLock<Stopped>,
    /// The limits that were in force before.
    outer: Option<Arc<Inner>>,
}

impl Inner {
    /// These limits, then those around them.
    fn chain(&self) -> impl Iterator<Item = &Inner> {
        std::iter::successors(Some(self), |w| w.outer.as_deref())
    }
    fn add(&self, bytes: usize) {
        self.chain().for_each(|w| {
            w.held.fetch_add(bytes, Relaxed);
        });
    }
    fn release(&self, bytes: usize) {
        self.chain().for_each(|w| {
            w.held.fetch_sub(bytes, Relaxed);
        });
    }
    /// The limit that was reached: from then on it stays so.
    fn reached(&self) -> Option<Stopped> {
        self.chain().find_map(|w| {
            if let Some(refused) = w.refused.get() {
                return Some(*refused);
            }
            let RunLimits { deadline, cancel, .. } = &w.limits;
            if cancel.as_ref().is_some_and(CancelToken::is_cancelled) {
                return Some(Stopped::Cancelled);
            }
            let deadline = deadline.filter(|d| Instant::now() >= *d)?;
            Some(Stopped::Deadline { after: deadline.saturating_duration_since(w.since) })
        })
    }
    /// The limit of memory that this much more is over.
    fn full(&self, asked_bytes: usize) -> Option<Stopped> {
        self.chain().find_map(|w| {
            let held_bytes = w.held.load(Relaxed);
            let over = |limit: &usize| held_bytes.saturating_add(asked_bytes) > *limit;
            let limit_bytes = w.limits.memory_bytes.filter(over)?;
            Some(*w.refused.get_or_init(|| Stopped::Memory { limit_bytes, held_bytes, asked_bytes }))
        })
    }
}

thread_local! {
    static CURRENT: RefCell<Watch> = const { RefCell::new(Watch(None)) };
    /// Calls of [`check`] before the limits are looked at again.
    static LEFT: Cell<u32> = const { Cell::new(u32::MAX) };
    /// How many calls lie between two looks, and when the last one was.
    static PACE: Cell<(u32, Option<Instant>)> = const { Cell::new((1, None)) };
}

/// The most calls of [`check`] between two looks at the limits.
const MOST_CALLS: u32 = 256;
/// Looks at the limits come closer together when two are further apart than this.
const PATIENCE: Duration = Duration::from_millis(1);

impl Watch {
    /// The limits in force on this thread.
    pub fn current() -> Watch {
        CURRENT.with_borrow(Watch::clone)
    }
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        self.0.is_none()
    }
    /// Does `work` under these limits, on this thread.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        /// Puts back what was in force, in a panic too.
        struct Before(Watch);
        impl Drop for Before {
            fn drop(&mut self) {
                CURRENT.set(std::mem::take(&mut self.0));
                look_soon();
            }
        }
        let _before = Before(CURRENT.replace(self.clone()));
        look_soon();
        work()
    }
    /// Errors if a limit is reached.
    pub fn check(&self) -> Result<()> {
        self.unreached()?;
        self.reserve(0)
    }
    /// Errors if a limit was reached, without a look at what is held now.
    fn unreached(&self) -> Result<()> {
        error(self.0.as_deref().and_then(Inner::reached))
    }
    /// Errors if this much more memory is over the limit.
    fn reserve(&self, bytes: usize) -> Result<()> {
        error(self.0.as_deref().and_then(|w| w.full(bytes)))
    }
}

fn error(stopped: Option<Stopped>) -> Result<()> {
    stopped.map_or(Ok(()), |s| Err(Error::Stopped(s)))
}

/// Has the next call of [`check`] look at the limits: for the beginning of loops that may be slower than the last.
pub fn look_soon() {
    LEFT.set(0);
    PACE.set((1, None));
}

/// Errors if a limit in force was reached; from then on every call does. Cheap enough for loops: most calls only count,
/// and the clock is asked about once in a millisecond.
#[inline]
pub fn check() -> Result<()> {
    match LEFT.get().checked_sub(1) {
        Some(left) => {
            LEFT.set(left);
            Ok(())
        }
        None => look(),
    }
}

#[cold]
fn look() -> Result<()> {
    CURRENT.with_borrow(|watch| {
        if watch.is_none() {
            LEFT.set(u32::MAX);
            return Ok(());
        }
        watch.unreached()?;
        let (calls, last) = PACE.get();
        let now = Instant::now();
        let slow = last.is_some_and(|last| now - last > PATIENCE);
        let calls = if slow { (calls / 8).max(1) } else { (calls * 2).min(MOST_CALLS) };
        PACE.set((calls, Some(now)));
        LEFT.set(calls - 1);
        Ok(())
    })
}

/// The items up to where [`check`] errs: for loops in functions that give no `Result`. Who calls such a function asks
/// [`check_now`] afterwards, as the interpreter does after each operator, and throws away what it made.
pub fn watched<I: IntoIterator>(items: I) -> impl Iterator<Item = I::Item> {
    items.into_iter().take_while(|_| check().is_ok())
}

/// Errors if any limit in force is reached, that of memory too: for what takes a microsecond or more.
pub fn check_now() -> Result<()> {
    look_soon();
    CURRENT.with_borrow(Watch::check)
}

/// Errors if this much more memory is over the limit in force: to be asked before something large is made.
pub fn reserve(bytes: usize) -> Result<()> {
    CURRENT.with_borrow(|watch| watch.reserve(bytes))
}

/// Memory that counts as held until it is dropped.
#[derive(Debug)]
pub struct Held {
    by: Arc<Inner>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.by.release(self.bytes);
    }
}

/// What a tensor counts beside its elements: about what its own fields, its owner and its place in a list take.
pub const TENSOR_BYTES: usize = 256;

/// Counts memory that has been made; `None` where nothing is limited.
pub fn hold(bytes: usize) -> Option<Held> {
    CURRENT.with_borrow(|watch| {
        let by = watch.0.clone()?;
        by.add(bytes);
        Some(Held { by, bytes })
    })
}

/// The bytes of a tensor that was just made, counted until the last of their clones is dropped.
pub fn counted(bytes: Bytes) -> Bytes {
    struct Owner {
        bytes: Bytes,
        _held: Held,
    }
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.bytes
        }
    }
    match hold(bytes.len().saturating_add(TENSOR_BYTES)) {
        Some(held) => Bytes::from_owner(Owner { bytes, _held: held }),
        None => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Tensor;

    fn past() -> RunLimits {
        RunLimits { deadline: Some(Instant::now()), ..RunLimits::default() }
    }
    fn memory(bytes: usize) -> RunLimits {
        RunLimits { memory_bytes: Some(bytes), ..RunLimits::default() }
    }

    #[test]
    fn a_deadline_that_is_over_stops_every_check() {
        past().within(|| {
            assert!(check().is_err() && check().is_err());
            assert_eq!(watched(0..10).count(), 0);
        });
        assert!(check().is_ok());
        assert_eq!(watched(0..10).count(), 10);
    }

    #[test]
    fn a_loop_notices_a_cancellation_within_the_longest_pace() {
        let cancel = CancelToken::new();
        let limits = RunLimits { cancel: Some(cancel.clone()), ..RunLimits::default() };
        let after = limits.within(|| {
            let items = watched(0..1_000_000u32).inspect(|i| {
                if *i == 5_000 {
                    cancel.cancel()
                }
            });
            items.count()
        });
        assert!((5_000..5_002 + MOST_CALLS as usize).contains(&after), "{after}");
    }

    #[test]
    fn inner_limits_do_not_lift_outer_ones() {
        let lax = RunLimits { memory_bytes: Some(usize::MAX), ..RunLimits::default() };
        past().within(|| assert!(lax.within(check).is_err()));
        lax.within(|| {
            assert!(past().within(check).is_err());
            assert!(check().is_ok(), "what is stopped within is not stopped without");
        });
    }

    #[test]
    fn tensors_count_while_they_live() {
        memory(1000).within(|| {
            assert!(reserve(1000).is_ok());
            let a = Tensor::new([100], vec![0f32; 100]).unwrap();
            let b = a.clone();
            let left = 1000 - 400 - TENSOR_BYTES;
            assert!(reserve(left).is_ok() && reserve(left + 1).is_err(), "once, however often shared");
            drop(a);
            assert!(reserve(left + 1).is_err());
            drop(b);
            assert!(reserve(1000).is_ok());
        });
    }

    #[test]
    fn what_is_over_the_limit_stops_everything_though_nobody_asked() {
        memory(1000).within(|| {
            let large = Tensor::new([300], vec![0f32; 300]).unwrap();
            let wanted =
                Stopped::Memory { limit_bytes: 1000, held_bytes: 1200 + TENSOR_BYTES, asked_bytes: 0 };
            assert_eq!(check_now().unwrap_err(), Error::Stopped(wanted));
            drop(large);
            assert!(check().is_err() && check_now().is_err(), "it stays so");
        });
    }

    #[test]
    fn memory_that_was_refused_stops_everything_though_somebody_did_without() {
        memory(1000).within(|| {
            assert!(check_now().is_ok());
            let _ = reserve(1001);
            let wanted = Stopped::Memory { limit_bytes: 1000, held_bytes: 0, asked_bytes: 1001 };
            assert_eq!(check_now().unwrap_err(), Error::Stopped(wanted));
        });
        assert!(check_now().is_ok());
    }

    #[test]
    fn limits_go_to_another_thread_by_hand() {
        let reached = past().within(|| {
            let watch = Watch::current();
            std::thread::spawn(move || (check().is_ok(), watch.within(check).is_err())).join().unwrap()
        });
        assert_eq!(reached, (true, true));
    }

    #[test]
    fn messages_name_the_limit() {
        let texts = [
            Stopped::Deadline { after: Duration::from_millis(1500) },
            Stopped::Memory { limit_bytes: 64 << 20, held_bytes: 60 << 20, asked_bytes: 12_500_000 },
            Stopped::Cancelled,
        ]
        .map(|s| s.to_string());
        assert_eq!(texts[0], "stopped: the time limit of 1.5 s is reached");
        assert_eq!(
            texts[1],
            "stopped: the memory limit of 64 MiB is reached: 60 MiB held, 11.921 MiB asked for"
        );
        assert_eq!(texts[2], "stopped: cancelled");
    }
}
