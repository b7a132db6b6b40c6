//! Standard output and error. Whatever goes through here is printable: text out of a model cannot command the terminal.
use super::Failure;
use fcc_ir::{printable, printable_json};
use std::io::{BufWriter, Write};

/// Standard output, buffered. A reader that is gone is [`Failure::Closed`], not a panic.
pub struct Out(BufWriter<Box<dyn Write>>);

impl Out {
    /// Takes standard output.
    pub fn new() -> Self {
        Out(BufWriter::with_capacity(1 << 16, Box::new(std::io::stdout().lock())))
    }
    /// Standard error, where standard output is taken.
    pub fn stderr() -> Self {
        Out(BufWriter::new(Box::new(std::io::stderr())))
    }
    /// Writes lines of text.
    pub fn text(&mut self, text: &str) -> Result<(), Failure> {
        text.lines().try_for_each(|line| self.line(line))
    }
    /// Writes one line.
    pub fn line(&mut self, line: impl std::fmt::Display) -> Result<(), Failure> {
        Ok(writeln!(self.0, "{}", printable(&line.to_string()))?)
    }
    /// Writes a line of JSON.
    pub fn json(&mut self, value: &serde_json::Value) -> Result<(), Failure> {
        Ok(writeln!(self.0, "{}", printable_json(&value.to_string()))?)
    }
    /// Writes text as it is: what is not out of a model, and a model's text form, where nothing but the line breaks and
    /// tabs of its strings is left unescaped.
    pub fn raw(&mut self, text: &str) -> Result<(), Failure> {
        Ok(self.0.write_all(text.as_bytes())?)
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

/// Prints `fcc: note: …` as one line: nothing is wrong, and the user may want to know.
pub fn note(message: &str) {
    eprint_line(&format!("fcc: note: {message}"));
}

fn eprint_line(message: &str) {
    let line = format!("{}\n", printable(message));
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
    let plain = |row: &Vec<String>| row.iter().map(|cell| printable(cell).into_owned()).collect();
    let rows: Vec<Vec<String>> = rows.iter().map(plain).collect();
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
