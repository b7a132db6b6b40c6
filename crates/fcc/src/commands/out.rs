//! Standard output and error.
use super::Failure;
use std::io::{BufWriter, StdoutLock, Write};

/// Standard output, buffered. A reader that is gone is [`Failure::Closed`], not a panic.
pub struct Out(BufWriter<StdoutLock<'static>>);

impl Out {
    /// Takes standard output.
    pub fn new() -> Self {
        Out(BufWriter::with_capacity(1 << 16, std::io::stdout().lock()))
    }
    /// Writes text as it is.
    pub fn text(&mut self, text: &str) -> Result<(), Failure> {
        Ok(self.0.write_all(text.as_bytes())?)
    }
    /// Writes a line.
    pub fn line(&mut self, line: impl std::fmt::Display) -> Result<(), Failure> {
        Ok(writeln!(self.0, "{line}")?)
    }
    /// Writes a line of JSON.
    pub fn json(&mut self, value: &serde_json::Value) -> Result<(), Failure> {
        self.line(value)
    }
    /// Sends what is buffered on its way, before an error is reported; its own errors do not count.
    pub fn flush(&mut self) {
        let _ = self.0.flush();
    }
    /// Sends what is buffered on its way.
    pub fn finish(mut self) -> Result<(), Failure> {
        Ok(self.0.flush()?)
    }
}

/// Prints `fcc: error: …` as one line, whatever a hostile file put into the message.
pub fn complain(message: &str) {
    eprint_line(&format!("fcc: error: {message}"));
}

/// Prints `fcc: warning: …` as one line.
pub fn warn(message: &str) {
    eprint_line(&format!("fcc: warning: {message}"));
}

fn eprint_line(message: &str) {
    let mut line = String::with_capacity(message.len() + 1);
    for c in message.chars() {
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line.push('\n');
    // nothing can be done about a standard error that is closed
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// A number with thousands separated: `1,234,567`.
pub fn grouped(n: usize) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Rows under a head as columns; `right` says which are aligned to the right.
pub fn table(head: &[&str], rows: &[Vec<String>], right: &[bool]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count());
        cells.chain(head.get(column).map(|h| h.len())).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let mut line = String::new();
        for ((cell, w), right) in cells.zip(&widths).zip(right) {
            let pad = " ".repeat(w.saturating_sub(cell.chars().count()));
            if !line.is_empty() {
                line.push_str("  ");
            }
            if *right {
                line.push_str(&pad);
            }
            line.push_str(cell);
            if !*right {
                line.push_str(&pad);
            }
        }
        line.trim_end().to_string()
    };
    let mut lines = vec![line(&mut head.iter().copied())];
    lines.extend(rows.iter().map(|r| line(&mut r.iter().map(String::as_str))));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated() {
        let texts: Vec<String> = [0, 999, 1000, 397_510, 1_234_567].map(grouped).to_vec();
        assert_eq!(texts, ["0", "999", "1,000", "397,510", "1,234,567"]);
    }
}
