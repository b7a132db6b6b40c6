//! Text out of a model, for a terminal.
//!
//! Names, doc strings and symbols come from whoever made a file. A terminal obeys control characters, reorders text at
//! bidirectional marks and shows nothing for others, so that two names look alike or a name looks like a message.

use std::borrow::Cow;
use std::fmt::Write;

/// Whether a terminal obeys a character or shows nothing for it: Unicode's control characters, its line and paragraph
/// separators, and what it calls default ignorable (bidirectional marks, characters of no width, fillers, variation
/// selectors, tags).
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

/// The text as one printable line: what [`is_hidden`] finds stands as `\n`, `\t` or `\u{202e}`. A backslash stays one,
/// so that printable text stays as it is.
pub fn printable(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_hidden) {
        return Cow::Borrowed(text);
    }
    let mut line = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hidden(c) { line.extend(c.escape_default()) } else { line.push(c) }
    }
    Cow::Owned(line)
}

/// JSON in which strings hold nothing that [`is_hidden`] finds: there it stands as `\u202e`, which means the same. The
/// line breaks between values stay.
pub fn printable_json(json: &str) -> Cow<'_, str> {
    let hidden = |c: char| c != '\n' && is_hidden(c);
    if !json.chars().any(hidden) {
        return Cow::Borrowed(json);
    }
    let mut text = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if hidden(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        } else {
            text.push(c);
        }
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_or_hides_is_escaped() {
        let cases = [
            ("\x1b[31mred\x07\r", r"\u{1b}[31mred\u{7}\r"),
            ("a\nverified: b\t", r"a\nverified: b\t"),
            ("\u{7f}\u{9b}1m", r"\u{7f}\u{9b}1m"),
            ("a\u{202e}b\u{2066}c\u{200f}\u{61c}", r"a\u{202e}b\u{2066}c\u{200f}\u{61c}"),
            ("w\u{200b}\u{feff}\u{ad}\u{2028}\u{e0041}", r"w\u{200b}\u{feff}\u{ad}\u{2028}\u{e0041}"),
        ];
        for (text, wanted) in cases {
            assert_eq!(printable(text), wanted);
            assert_eq!(printable(wanted), wanted, "once more changes nothing");
        }
        for plain in ["", "é 名前 λ 🙂 a\\nb", "conv1/weight:0"] {
            assert!(matches!(printable(plain), Cow::Borrowed(text) if text == plain));
        }
    }

    #[test]
    fn json_means_the_same() {
        let json = "{\n  \"a\": \"\u{202e}\u{9b}\u{e0041}é\"\n}\n";
        assert_eq!(printable_json(json), "{\n  \"a\": \"\\u202e\\u009b\\udb40\\udc41é\"\n}\n");
        assert!(matches!(printable_json("{\"a\": [1]}\n"), Cow::Borrowed(_)));
    }
}
