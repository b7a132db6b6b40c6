//! Finds that are known and not mended yet: a run goes on behind them. A mend takes its row out.
use crate::check::Failure;

/// The law that fails, part of what is said, and what it is.
pub const OPEN: &[(&str, &str, &str)] = &[(
    "jit baseline differs",
    "`v70`: element 890 of 2992: got NaN, wanted 10",
    "number 3523: a quotient by what rounding may make 0; the comparison disturbs it and misses the 0",
)];

/// Whether a failure is one of those.
pub fn is_open(failure: &Failure) -> bool {
    OPEN.iter().any(|(kind, part, _)| failure.kind == *kind && failure.why.contains(part))
}
