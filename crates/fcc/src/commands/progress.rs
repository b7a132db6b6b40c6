//! Progress of long work: one line on a terminal, nothing in a pipe.
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

/// A line on standard error that is written over, and gone at the end.
pub struct Progress {
    terminal: bool,
    shown: Option<Instant>,
}

impl Progress {
    /// Nothing shown yet.
    pub fn new() -> Self {
        Progress { terminal: std::io::stderr().is_terminal(), shown: None }
    }
    /// Shows what is going on, at most ten times a second.
    pub fn show(&mut self, what: impl FnOnce() -> String) {
        let soon = self.shown.is_some_and(|at| at.elapsed() < Duration::from_millis(100));
        if !self.terminal || soon {
            return;
        }
        self.shown = Some(Instant::now());
        let text: String = fcc_ir::printable(&what()).chars().take(78).collect();
        let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
    }
    /// Takes the line away.
    pub fn clear(&mut self) {
        if self.shown.take().is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}
