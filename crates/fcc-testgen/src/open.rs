//! Finds that are known and not mended yet: a run goes on behind them. A mend takes its row out.
use crate::check::Failure;

/// The law that fails, part of what is said, and what it is.
pub const OPEN: &[(&str, &str, &str)] = &[
    (
        "rule linear-to-pointwise-conv refuses",
        "padded input along spatial axis",
        "a MatMul over no rows gives no rows, the Conv that it becomes refuses an image without pixels",
    ),
    (
        "inferred wrong",
        "(Loop)",
        "stacks of no iterations have the rank that the body declares; where it declares none, rank 1 is made, which \
         is not the rank that inference finds",
    ),
];

/// Whether a failure is one of those.
pub fn is_open(failure: &Failure) -> bool {
    OPEN.iter().any(|(kind, part, _)| failure.kind == *kind && failure.why.contains(part))
}
