//! The text form of a table of choices.
//!
//! ```text
//! fcc choices 0.1.0
//! machine AMD EPYC 9654 96-Core Processor, avx512
//! # level threads precision | problem | choice | µs | the estimate's choice | µs
//! avx512 2 f32 | gemm 64x64x64 | direct 14x1x2 chunk 64 blocks 1 ahead 1024 | 2.125 | direct 7x1x4 chunk 64 blocks 1 ahead 1024 | 2.250
//! ```
use super::machine::machine;
use super::{Choice, Choices, Key};
use fcc_ir::{Error, Result};
use std::{fmt, str::FromStr};

/// The code generator's version: another one may have other kernels.
const VERSION: &str = env!("CARGO_PKG_VERSION");
const TITLE: &str = "fcc choices ";
const MACHINE: &str = "machine ";

impl fmt::Display for Choices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{TITLE}{VERSION}")?;
        writeln!(f, "{MACHINE}{}", machine())?;
        writeln!(f, "# level threads precision | problem | choice | µs | the estimate's choice | µs")?;
        for (k, c) in &self.of {
            let Key { isa, threads, precision, problem } = k;
            write!(f, "{isa} {threads} {precision} | {problem} | ")?;
            writeln!(f, "{} | {} | {} | {}", c.way, Us(c.ns), c.estimate, Us(c.estimate_ns))?;
        }
        Ok(())
    }
}

/// Nanoseconds, written as microseconds.
struct Us(u64);
impl fmt::Display for Us {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

fn nanoseconds(text: &str) -> Option<u64> {
    let (whole, part) = text.split_once('.')?;
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if !digits(whole) || !digits(part) || part.len() != 3 {
        return None;
    }
    whole.parse::<u64>().ok()?.checked_mul(1000)?.checked_add(part.parse().ok()?)
}

impl FromStr for Choices {
    type Err = Error;

    /// Reads the text form.
    ///
    /// # Errors
    /// A table of another machine or another version, and the first line that is none, with its number.
    fn from_str(text: &str) -> Result<Choices> {
        let mut lines = text.lines();
        let title = lines.next().unwrap_or_default();
        let wanted = format!("`{TITLE}{VERSION}`");
        match title.strip_prefix(TITLE) {
            Some(VERSION) => {}
            Some(_) => return Err(Error::mismatch("version of the choices", format!("`{title}`"), wanted)),
            None => return Err(Error::mismatch("line 1", shown(title), wanted)),
        }
        let second = lines.next().unwrap_or_default();
        let (here, there) = (machine(), second.strip_prefix(MACHINE));
        let there = there.ok_or_else(|| Error::mismatch("line 2", shown(second), format!("`{MACHINE}…`")))?;
        if there != here {
            return Err(Error::mismatch("machine of the choices", format!("`{there}`"), format!("`{here}`")));
        }
        let mut choices = Choices::new();
        for (at, line) in lines.enumerate().map(|(i, l)| (i + 3, l)) {
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (key, choice) = entry(line, at).map_err(|e| Error::invalid(format!("line {at}: {e}")))?;
            if choices.get(&key).is_some() {
                return Err(Error::mismatch(
                    format!("line {at}"),
                    "a problem that stands above",
                    "each once",
                ));
            }
            choices.insert(key, choice);
        }
        Ok(choices)
    }
}

/// The start of a line, for messages.
fn shown(line: &str) -> String {
    format!("`{}`", line.chars().take(40).collect::<String>())
}

fn entry(text: &str, line: usize) -> std::result::Result<(Key, Choice), String> {
    let fields: Vec<&str> = text.split(" | ").collect();
    let [setting, problem, way, time, estimate, estimate_time] = fields[..] else {
        return Err(format!("got {} fields between ` | `, wanted 6", fields.len()));
    };
    let words: Vec<&str> = setting.split(' ').collect();
    let [isa, threads, precision] = words[..] else {
        return Err(format!("got {}, wanted a level, threads and a precision", shown(setting)));
    };
    let threads = threads.parse().ok().filter(|n| *n > 0);
    let threads = threads.ok_or_else(|| format!("got {}, wanted a number of threads", shown(setting)))?;
    if problem.is_empty() {
        return Err("got an empty problem, wanted its sizes".into());
    }
    let ns = |text: &str| {
        nanoseconds(text).ok_or_else(|| format!("got time {}, wanted µs such as 12.345", shown(text)))
    };
    let key = Key { isa: isa.parse()?, threads, precision: precision.parse()?, problem: problem.into() };
    let (way, estimate) = (way.parse()?, estimate.parse()?);
    Ok((key, Choice { way, ns: ns(time)?, estimate, estimate_ns: ns(estimate_time)?, line }))
}
