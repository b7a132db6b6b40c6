//! Why a kernel does not fit a node.
use std::fmt;

/// Why a node is left to the interpreter, or a kernel is not chosen: what was looked at, what it is, what is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declined {
    /// What was looked at, such as `input 1` or `dilations`.
    pub what: String,
    /// What was found there.
    pub got: String,
    /// What the kernel needs.
    pub need: String,
}

impl Declined {
    /// A reason from anything printable.
    pub fn new(what: impl Into<String>, got: impl ToString, need: impl ToString) -> Declined {
        Declined { what: what.into(), got: got.to_string(), need: need.to_string() }
    }
}

impl fmt::Display for Declined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: got {}, need {}", self.what, self.got, self.need)
    }
}

impl From<fcc_ir::Error> for Declined {
    /// An attribute or a shape that cannot be read: the interpreter says in the run what is wrong with it.
    fn from(error: fcc_ir::Error) -> Declined {
        match error {
            fcc_ir::Error::Mismatch { what, got, wanted } => Declined { what, got, need: wanted },
            other => Declined::new("node", other, "one that ONNX allows and fcc knows"),
        }
    }
}
