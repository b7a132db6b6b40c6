//! A place in a text and the tokens from there. Errors name line and column, what stands there and what was wanted.

use super::{MAX_DEPTH, number::nan_bits};
use crate::{Error, Result};

/// A place in a text.
#[derive(Clone)]
pub(super) struct Cursor<'t> {
    text: &'t str,
    pos: usize,
    depth: usize,
    /// A place that is known: its offset, its line from 0, its column from 0.
    known: (usize, usize, usize),
}

/// A literal.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Literal<'t> {
    /// Digits with an optional sign.
    Int(&'t str),
    /// A number with a point or exponent, `inf`, `nan`, with an optional sign; or `nan:0x…`.
    Float(&'t str),
    /// A quoted string without its quotes and escapes.
    String(Vec<u8>),
}

impl<'t> Cursor<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Cursor { text, pos: 0, depth: 0, known: (0, 0, 0) }
    }

    fn rest(&self) -> &'t [u8] {
        self.text.as_bytes().get(self.pos..).unwrap_or_default()
    }

    /// Skips white space and comments, but for notes, which stand for themselves.
    fn skip(&mut self) {
        loop {
            let rest = self.rest();
            let space = |b: &u8| !matches!(b, b' ' | b'\t' | b'\n' | 0x0b | 0x0c | b'\r');
            self.pos += rest.iter().position(space).unwrap_or(rest.len());
            let rest = self.rest();
            if rest.first() != Some(&b'#') || rest.starts_with(b"#@") {
                return;
            }
            self.pos += rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
        }
    }

    /// The next byte that is neither white space nor comment, `#` before a note; `None` at the end.
    pub(super) fn peek(&mut self) -> Option<u8> {
        self.skip();
        self.rest().first().copied()
    }

    /// Where the next token starts, as `line 3, column 14`.
    pub(super) fn place(&mut self) -> String {
        self.skip();
        self.place_here()
    }

    fn place_here(&mut self) -> String {
        let (from, line, column) = if self.known.0 <= self.pos { self.known } else { (0, 0, 0) };
        let ahead = self.text.as_bytes().get(from..self.pos).unwrap_or_default();
        let characters = |bytes: &[u8]| bytes.iter().filter(|b| (**b as i8) >= -64).count();
        let line = line + ahead.iter().filter(|b| **b == b'\n').count();
        let column = match ahead.iter().rposition(|b| *b == b'\n') {
            Some(newline) => characters(ahead.get(newline + 1..).unwrap_or_default()),
            None => column + characters(ahead),
        };
        // the next question goes on from here, so that asking at every node stays linear
        self.known = (self.pos, line, column);
        format!("line {}, column {}", line + 1, column + 1)
    }

    /// The error of a text that has something else than `wanted` here.
    pub(super) fn wanted(&mut self, wanted: impl Into<String>) -> Error {
        self.skip();
        let from = self.text.get(self.pos..).unwrap_or_default();
        let word: String =
            from.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').take(40).collect();
        let got = match from.chars().next() {
            None => "the end".into(),
            Some(c) if word.is_empty() => format!("`{}`", c.escape_default()),
            Some(_) => format!("`{word}`"),
        };
        Error::mismatch(self.place_here(), got, wanted.into())
    }

    /// An error about what starts here.
    pub(super) fn bad(&mut self, got: impl ToString, wanted: impl ToString) -> Error {
        let place = self.place();
        Error::mismatch(place, got, wanted)
    }

    /// Takes a character if it comes next.
    pub(super) fn take(&mut self, c: u8) -> bool {
        let found = self.peek() == Some(c);
        self.pos += usize::from(found);
        found
    }

    /// Takes a character. Errors if another comes next.
    pub(super) fn expect(&mut self, c: u8) -> Result<()> {
        if self.take(c) { Ok(()) } else { Err(self.wanted(format!("`{}`", char::from(c)))) }
    }

    /// Takes `=>`.
    pub(super) fn arrow(&mut self) -> Result<()> {
        if self.peek().is_some() && self.rest().starts_with(b"=>") {
            self.pos += 2;
            return Ok(());
        }
        Err(self.wanted("`=>`"))
    }

    /// Takes the `}` that ends a graph, if it comes next. Errors at the end of the text.
    pub(super) fn take_end(&mut self) -> Result<bool> {
        if self.peek().is_none() {
            return Err(self.wanted("`}`"));
        }
        Ok(self.take(b'}'))
    }

    /// Items divided by commas up to `close`; the opening bracket is taken already.
    pub(super) fn items<T>(
        &mut self,
        close: u8,
        mut one: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        let mut items = vec![];
        if self.take(close) {
            return Ok(items);
        }
        loop {
            items.push(one(self)?);
            if !self.take(b',') {
                break;
            }
        }
        if self.take(close) {
            return Ok(items);
        }
        Err(self.wanted(format!("`,` or `{}`", char::from(close))))
    }

    /// The identifier that comes next, if one does; it is not taken.
    pub(super) fn peek_identifier(&mut self) -> Option<&'t str> {
        let start = self.peek()?;
        if !(start.is_ascii_alphabetic() || start == b'_') {
            return None;
        }
        let rest = self.rest();
        let len = rest.iter().position(|b| !(b.is_ascii_alphanumeric() || *b == b'_')).unwrap_or(rest.len());
        // `b"…"` is a string
        if len == 1 && start == b'b' && rest.get(1) == Some(&b'"') {
            return None;
        }
        self.text.get(self.pos..self.pos + len)
    }

    /// Takes an identifier if one comes next.
    pub(super) fn identifier(&mut self) -> Option<&'t str> {
        let word = self.peek_identifier()?;
        self.pos += word.len();
        Some(word)
    }

    /// Takes an identifier if it is this one.
    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let found = self.peek_identifier() == Some(word);
        if found {
            self.pos += word.len();
        }
        found
    }

    /// Whether a quoted string comes next.
    pub(super) fn at_string(&mut self) -> bool {
        self.peek() == Some(b'"') || self.rest().starts_with(b"b\"")
    }

    /// Takes a name: an identifier or a quoted string. `None` if neither comes next.
    pub(super) fn optional_name(&mut self) -> Result<Option<String>> {
        if self.at_string() {
            return Ok(Some(self.text_string()?));
        }
        Ok(self.identifier().map(Into::into))
    }

    /// Takes a name. Errors if none comes next.
    pub(super) fn name(&mut self, what: &str) -> Result<String> {
        match self.optional_name()? {
            Some(name) => Ok(name),
            None => Err(self.wanted(what)),
        }
    }

    /// Takes a quoted string that must be UTF-8.
    pub(super) fn text_string(&mut self) -> Result<String> {
        let place = self.place();
        String::from_utf8(self.byte_string()?)
            .map_err(|_| Error::mismatch(place, "bytes that are not UTF-8", "UTF-8"))
    }

    /// Takes a quoted string of any bytes.
    pub(super) fn byte_string(&mut self) -> Result<Vec<u8>> {
        if !self.at_string() {
            return Err(self.wanted("a quoted string"));
        }
        let mut start = self.clone();
        let escapes = self.rest().first() == Some(&b'b');
        self.pos += 1 + usize::from(escapes);
        let mut value = vec![];
        loop {
            let rest = self.rest();
            let plain = rest.iter().position(|b| matches!(b, b'"' | b'\\')).unwrap_or(rest.len());
            value.extend_from_slice(&rest[..plain]);
            self.pos += plain;
            match self.rest() {
                [b'"', ..] => {
                    self.pos += 1;
                    return Ok(value);
                }
                [b'\\', b'x', hi, lo, ..] if escapes => {
                    let digit = |b: &u8| char::from(*b).to_digit(16);
                    let Some((hi, lo)) = digit(hi).zip(digit(lo)) else {
                        return Err(self.wanted("two hexadecimal digits behind `\\x`"));
                    };
                    value.push((hi * 16 + lo) as u8);
                    self.pos += 4;
                }
                // a whole character, so that the cursor stays between characters
                [b'\\', _, ..] => {
                    self.pos += 1;
                    if let Some(c) = self.text.get(self.pos..).and_then(|t| t.chars().next()) {
                        value.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                        self.pos += c.len_utf8();
                    }
                }
                _ => return Err(Error::mismatch(start.place_here(), "a string without its end", "`\"`")),
            }
        }
    }

    /// Takes a literal if one comes next.
    pub(super) fn literal(&mut self) -> Result<Option<Literal<'t>>> {
        if self.at_string() {
            return Ok(Some(Literal::String(self.byte_string()?)));
        }
        let rest = self.rest();
        let sign = usize::from(rest.first() == Some(&b'-'));
        let word = self.text.get(self.pos + sign..).unwrap_or_default();
        let letters = word.bytes().take_while(u8::is_ascii_alphabetic).count();
        let special = ["inf", "infinity", "nan"].contains(&word[..letters].to_ascii_lowercase().as_str());
        let after = word.as_bytes().get(letters);
        if special && !after.is_some_and(|b| b.is_ascii_alphanumeric() || *b == b'_') {
            let mut len = sign + letters;
            if let Some((_, digits)) = nan_bits(&word[letters..]).filter(|_| sign == 0) {
                len += digits;
            }
            return Ok(Some(Literal::Float(self.slice(len))));
        }
        if !word.starts_with(|c: char| c.is_ascii_digit()) {
            return if sign == 1 { Err(self.wanted("a number")) } else { Ok(None) };
        }
        let bytes = word.as_bytes();
        let digits = |from: usize| bytes[from..].iter().take_while(|b| b.is_ascii_digit()).count();
        let mut len = digits(0);
        let mut float = false;
        if bytes.get(len) == Some(&b'.') {
            float = true;
            len += 1 + digits(len + 1);
        }
        if matches!(bytes.get(len), Some(b'e' | b'E')) {
            float = true;
            len += 1;
            len += usize::from(matches!(bytes.get(len), Some(b'+' | b'-')));
            len += digits(len);
        }
        let number = self.slice(sign + len);
        Ok(Some(if float { Literal::Float(number) } else { Literal::Int(number) }))
    }

    fn slice(&mut self, len: usize) -> &'t str {
        let slice = self.text.get(self.pos..self.pos + len).unwrap_or_default();
        self.pos += slice.len();
        slice
    }

    /// Takes an integer in the range of `T`.
    pub(super) fn int<T: std::str::FromStr>(&mut self, what: &str) -> Result<T> {
        let start = self.clone();
        match self.literal()? {
            Some(Literal::Int(digits)) => {
                digits.parse().map_err(|_| start.clone().bad(format!("`{digits}`"), what))
            }
            _ => Err(start.clone().wanted(what)),
        }
    }

    /// Takes a note `#@ key b"…" …`, which comes next: its key and the strings on the rest of its line.
    pub(super) fn note(&mut self) -> Result<(&'t str, Vec<Vec<u8>>)> {
        self.pos += 2;
        self.space_in_line();
        // what is on another line is no key
        let here = self.rest().first().is_some_and(|b| b.is_ascii_alphabetic());
        let Some(key) = here.then(|| self.identifier()).flatten() else {
            return Err(self.wanted("a note's key"));
        };
        let mut values = vec![];
        loop {
            self.space_in_line();
            match self.rest() {
                [] | [b'\n', ..] | [b'\r', b'\n', ..] => return Ok((key, values)),
                [b'"', ..] | [b'b', b'"', ..] => values.push(self.byte_string()?),
                _ => return Err(self.wanted("a quoted string or the end of the line")),
            }
        }
    }

    fn space_in_line(&mut self) {
        self.pos += self.rest().iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
    }

    /// Whether `hash 0x…`, the stand-in of an abbreviated constant, comes next.
    pub(super) fn at_hash(&mut self) -> bool {
        self.peek_identifier() == Some("hash") && self.text[self.pos + 4..].trim_start().starts_with("0x")
    }

    /// Runs `inner` one level deeper. Errors at the limit.
    pub(super) fn deeper<T>(&mut self, inner: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= MAX_DEPTH {
            return Err(self.bad("a nesting deeper", format!("at most {MAX_DEPTH} levels")));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }
}
