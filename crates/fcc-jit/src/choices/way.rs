//! One way to compute a problem, as a value with a text form.
use crate::asm::Isa;
use crate::kernels::cut::Cut;
use crate::kernels::winograd::bilinear::Scheme;
use std::{fmt, str::FromStr};

/// How products are summed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// Each term of each sum.
    Direct,
    /// Winograd's, by these schemes for height and width.
    Winograd([Scheme; 2]),
}

/// What lies side by side in a vector of a convolution's results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lanes {
    /// Channels.
    Channels,
    /// Pixels of a row: for few output channels.
    Pixels,
}

/// A way to compute a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Way {
    /// Of a convolution or a matrix product.
    Sums {
        /// The algorithm.
        algorithm: Algorithm,
        /// How it is cut.
        cut: Cut,
        /// Whether one thread does all of it.
        alone: bool,
    },
    /// Of a convolution that could have either in its lanes.
    Lanes(Lanes),
    /// Of a whole plan.
    Plan {
        /// The instructions of all its kernels.
        isa: Isa,
        /// Whether one thread runs all steps.
        alone: bool,
    },
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Algorithm::Direct => f.write_str("direct"),
            Algorithm::Winograd([y, x]) => write!(f, "winograd {}x{}", y.outputs(), x.outputs()),
        }
    }
}

impl fmt::Display for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Lanes::Channels => "channels",
            Lanes::Pixels => "pixels",
        })
    }
}

fn threads(alone: bool) -> &'static str {
    if alone { " alone" } else { "" }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Way::Sums { algorithm, cut, alone } => write!(f, "{algorithm} {cut}{}", threads(*alone)),
            Way::Lanes(lanes) => write!(f, "lanes {lanes}"),
            Way::Plan { isa, alone } => write!(f, "plan {isa}{}", threads(*alone)),
        }
    }
}

impl Way {
    /// The threads that a kernel is built for in a run of `all` threads.
    pub(crate) fn threads(&self, all: usize) -> usize {
        if matches!(self, Way::Sums { alone: true, .. }) { 1 } else { all }
    }
}

fn schemes(text: &str) -> Option<[Scheme; 2]> {
    let (y, x) = text.split_once('x')?;
    let scheme = |text: &str| Scheme::ALL.into_iter().find(|s| s.outputs().to_string() == text);
    Some([scheme(y)?, scheme(x)?]).filter(|s| *s != [Scheme::Direct; 2])
}

impl FromStr for Way {
    type Err = String;
    fn from_str(text: &str) -> Result<Way, String> {
        let wanted = || {
            format!(
                "got choice `{text}`, wanted one such as `direct 1x14x2 chunk 4 blocks 1 ahead 1024`, `winograd 2x2 …`, `lanes pixels` or `plan avx2`"
            )
        };
        let (rest, alone) = match text.strip_suffix(" alone") {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let (kind, rest) = rest.split_once(' ').ok_or_else(wanted)?;
        let sums = |algorithm, cut: &str| Ok(Way::Sums { algorithm, cut: cut.parse()?, alone });
        match kind {
            "direct" => sums(Algorithm::Direct, rest),
            "winograd" => {
                let (by, cut) = rest.split_once(' ').ok_or_else(wanted)?;
                sums(Algorithm::Winograd(schemes(by).ok_or_else(wanted)?), cut)
            }
            "lanes" if !alone && rest == "pixels" => Ok(Way::Lanes(Lanes::Pixels)),
            "lanes" if !alone && rest == "channels" => Ok(Way::Lanes(Lanes::Channels)),
            "plan" => Ok(Way::Plan { isa: rest.parse()?, alone }),
            _ => Err(wanted()),
        }
    }
}
