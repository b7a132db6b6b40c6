//! Errors of the IR: each names the place, what was found and what was wanted.
//!
//! The parts may hold names out of a file; as text an error is one printable line.
use crate::limits::Stopped;
use crate::printable;

/// What went wrong while building, checking or evaluating a graph.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An error at a named place (a node, a value, an attribute).
    #[error("{}: {source}", printable(place))]
    At {
        /// Where, for example ``node `conv1` (Conv)``.
        place: String,
        /// What went wrong there.
        source: Box<Error>,
    },
    /// Something differs from what the operator or the graph needs.
    #[error("{}: got {}, wanted {}", printable(what), printable(got), printable(wanted))]
    Mismatch {
        /// The thing compared, for example `rank of w`.
        what: String,
        /// What was found.
        got: String,
        /// What was needed.
        wanted: String,
    },
    /// A valid model that fcc does not compute.
    #[error("unsupported: {}", printable(.0))]
    Unsupported(String),
    /// An invalid model or value.
    #[error("{}", printable(.0))]
    Invalid(String),
    /// A limit of [`RunLimits`](crate::RunLimits) was reached.
    #[error("{0}")]
    Stopped(Stopped),
}

/// `Result` with the IR's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Bytes of a part of a message; a list of a million numbers, or a name as long, is no line to read.
const LONGEST_PART: usize = 1000;

fn cut(mut text: String) -> String {
    if text.len() > LONGEST_PART {
        text.truncate(text.floor_char_boundary(LONGEST_PART));
        text.push('…');
    }
    text
}

impl Error {
    /// A [`Error::Mismatch`] from anything printable.
    pub fn mismatch(what: impl Into<String>, got: impl ToString, wanted: impl ToString) -> Self {
        Error::Mismatch { what: cut(what.into()), got: cut(got.to_string()), wanted: cut(wanted.to_string()) }
    }
    /// An [`Error::Invalid`] from anything printable.
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::Invalid(message.into())
    }
    /// An [`Error::Unsupported`] from anything printable.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Error::Unsupported(message.into())
    }
    /// Puts the error at a place.
    pub fn at(self, place: impl Into<String>) -> Self {
        Error::At { place: cut(place.into()), source: Box::new(self) }
    }
    /// The error without its places.
    pub fn root(&self) -> &Error {
        match self {
            Error::At { source, .. } => source.root(),
            other => other,
        }
    }
}

impl Error {
    /// The limit that was reached, where that is why a run ended.
    pub fn stopped(&self) -> Option<Stopped> {
        match self.root() {
            Error::Stopped(stopped) => Some(*stopped),
            _ => None,
        }
    }
    /// Whether a limit was reached: nothing is wrong with the model.
    pub fn is_stopped(&self) -> bool {
        self.stopped().is_some()
    }
}

/// Adds a place to the error of a `Result`.
pub trait At<T> {
    /// Puts an error at the place that `place` names.
    fn at<S: Into<String>>(self, place: impl FnOnce() -> S) -> Result<T>;
}

impl<T> At<T> for Result<T> {
    fn at<S: Into<String>>(self, place: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|e| e.at(place()))
    }
}
