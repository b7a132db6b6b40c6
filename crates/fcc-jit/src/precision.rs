//! How exactly kernels compute.
use std::{fmt, str::FromStr};

/// How far the kernels of a plan may depart from plain f32: products and sums in f32, in some order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Precision {
    /// Any kernel whose error against f64 is no larger than plain f32's, and that gives what plain f32 gives where
    /// Inf, NaN, huge or tiny values come in.
    #[default]
    F32,
    /// Also kernels that lose some digits for speed: Winograd convolutions with larger tiles and, at level
    /// [`crate::Isa::Amx`], products of two bf16 terms for each f32 instead of three. Sums are f32.
    Fast,
}

impl Precision {
    /// All of them.
    pub const ALL: [Precision; 2] = [Precision::F32, Precision::Fast];

    /// The name as `--precision` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Fast => "fast",
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Precision {
    type Err = String;
    fn from_str(s: &str) -> Result<Precision, String> {
        let found = Precision::ALL.into_iter().find(|p| p.name() == s);
        found.ok_or_else(|| format!("precision {s:?} is none of f32, fast"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back() {
        for precision in Precision::ALL {
            assert_eq!(precision.to_string().parse(), Ok(precision));
        }
        assert!("bf16".parse::<Precision>().is_err());
    }
}
