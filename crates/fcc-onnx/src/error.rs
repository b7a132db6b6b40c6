//! The error of reading and writing: one line that names the file, the place, what was got and wanted.

use std::fmt;
use std::path::{Path, PathBuf};

/// What kind of thing went wrong; the message has the details.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The system could not read or write a file.
    Io,
    /// The bytes are not the protobuf message (or npy array) they should be.
    Malformed,
    /// The message is readable, but what it says is not a valid model or value.
    Invalid,
    /// External data that is missing, outside the model's folder, or not as described.
    ExternalData,
    /// External data behind a link, which [`LoadOptions::follow_links`](crate::LoadOptions::follow_links) lets in.
    Linked,
    /// Valid, but beyond what fcc or the target format can hold.
    Unsupported,
}

/// Why a file could not be read or written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    file: Option<PathBuf>,
    /// From the outside in: ``graph `main` ``, ``node `conv1` (Conv)``, ``attribute `pads` ``.
    places: Vec<String>,
    message: String,
}

/// `Result` with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl Error {
    /// An error with a message and no place yet.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Error { kind, file: None, places: Vec::new(), message: message.into() }
    }
    /// Something that differs from what is needed.
    pub(crate) fn mismatch(
        kind: ErrorKind,
        what: impl fmt::Display,
        got: impl fmt::Display,
        wanted: impl fmt::Display,
    ) -> Self {
        Error::new(kind, format!("{what}: got {got}, wanted {wanted}"))
    }
    /// An [`ErrorKind::Invalid`] error that says what was got and wanted.
    pub(crate) fn invalid(
        what: impl fmt::Display,
        got: impl fmt::Display,
        wanted: impl fmt::Display,
    ) -> Self {
        Error::mismatch(ErrorKind::Invalid, what, got, wanted)
    }
    /// What the system said about `file`; `doing` is a verb such as `read`.
    pub(crate) fn io(doing: &str, file: &Path, error: &std::io::Error) -> Self {
        Error::new(ErrorKind::Io, format!("cannot {doing}: {error}")).in_file(file)
    }
    /// Puts the error at a place; outer places are added later and stand first.
    pub(crate) fn at(mut self, place: impl Into<String>) -> Self {
        self.places.insert(0, place.into());
        self
    }
    /// Names the file, unless an inner file (external data) is named already.
    pub(crate) fn in_file(mut self, file: &Path) -> Self {
        self.file.get_or_insert_with(|| file.to_path_buf());
        self
    }
    pub(crate) fn set_kind(&mut self, kind: ErrorKind) {
        self.kind = kind;
    }
    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
    /// The file that the error is about, if there is one.
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = String::new();
        if let Some(file) = &self.file {
            line.push_str(&file.display().to_string());
            line.push_str(": ");
        }
        for place in &self.places {
            line.push_str(place);
            line.push_str(": ");
        }
        line.push_str(&self.message);
        // names and messages may come out of a hostile file
        f.write_str(&fcc_ir::printable(&line))
    }
}

impl std::error::Error for Error {}

impl From<fcc_ir::Error> for Error {
    fn from(error: fcc_ir::Error) -> Self {
        Error::new(ErrorKind::Invalid, error.to_string())
    }
}

/// Adds a place to the error of a `Result`.
pub(crate) trait At<T> {
    /// Puts an error at the place that `place` names.
    fn at<S: Into<String>>(self, place: impl FnOnce() -> S) -> Result<T>;
}

impl<T> At<T> for Result<T> {
    fn at<S: Into<String>>(self, place: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| e.at(place()))
    }
}

/// A name as it stands in messages: in backticks, shortened when a hostile file made it huge.
pub(crate) fn quoted(name: &str) -> String {
    const LONGEST: usize = 120;
    if name.len() <= LONGEST {
        return format!("`{name}`");
    }
    let cut = name.char_indices().map(|(i, _)| i).take_while(|&i| i <= LONGEST).last().unwrap_or(0);
    format!("`{}…`", &name[..cut])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_one_line_from_outside_in() {
        let error = Error::invalid("dims", "-1", "0 or more")
            .at("initializer `w\n`")
            .at("graph `g`")
            .in_file(Path::new("m.onnx"));
        assert_eq!(
            error.to_string(),
            r"m.onnx: graph `g`: initializer `w\n`: dims: got -1, wanted 0 or more"
        );
    }

    #[test]
    fn huge_names_are_cut_between_characters() {
        let name = "é".repeat(1000);
        assert!(quoted(&name).len() < 130);
    }
}
