//! Instruction-set levels, detected at run time and limited by the user.

use super::amx;
use std::{fmt, str::FromStr, sync::OnceLock};

/// The variable of the environment that limits what is detected, to the name of a level: this process then runs as on a
/// machine that has no more. With `avx2` and below the CPU counts as one without VNNI, with `baseline` Cranelift uses
/// SSE4.2 at most. Read once, when a level is first asked for; a name that is no level's is an error of whatever compiles.
pub const MAX_ISA: &str = "FCC_MAX_ISA";

/// What the generated kernels may use. Levels are ordered: a machine that has one has all before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// 128-bit vectors written in CLIF: any CPU that Cranelift targets.
    Baseline,
    /// 256-bit vectors, AVX2 and FMA.
    Avx2,
    /// 512-bit vectors, AVX-512 F, VL, BW and DQ.
    Avx512,
    /// The vectors of [`Isa::Avx512`], and AMX tiles of bf16 and of bytes for products. Only used where it is asked for
    /// by name: the system must permit it, and whether it is faster depends on the host.
    Amx,
}

impl Isa {
    /// All levels, lowest first.
    pub const ALL: [Isa; 4] = [Isa::Baseline, Isa::Avx2, Isa::Avx512, Isa::Amx];

    /// The level that [`MAX_ISA`] names, by default the highest.
    ///
    /// # Errors
    /// Where it names none.
    pub fn allowed() -> Result<Isa, String> {
        static ALLOWED: OnceLock<Result<Isa, String>> = OnceLock::new();
        let read = || match std::env::var_os(MAX_ISA) {
            None => Ok(Isa::Amx),
            Some(name) => name.to_string_lossy().parse().map_err(|why| format!("{MAX_ISA}: {why}")),
        };
        ALLOWED.get_or_init(read).clone()
    }

    /// The best level of the CPU that runs this, short of [`Isa::Amx`], for which the system is asked first; no more than
    /// [`MAX_ISA`] allows.
    pub fn detect() -> Isa {
        // where the variable names no level, what compiles has said so
        Isa::of_cpu().min(Isa::allowed().unwrap_or(Isa::Baseline).vectors())
    }

    fn of_cpu() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq");
            return match (avx2, avx512) {
                (true, true) => Isa::Avx512,
                (true, false) => Isa::Avx2,
                (false, _) => Isa::Baseline,
            };
        }
        #[allow(unreachable_code)]
        Isa::Baseline
    }

    /// The best level of this CPU that is at most `limit`: [`Isa::Amx`] where that is asked for and there.
    pub fn within(limit: Isa) -> Isa {
        match limit {
            Isa::Amx if amx::available().is_ok() => Isa::Amx,
            _ => Isa::detect().min(limit),
        }
    }

    /// Whether kernels can be limited to this level here: [`Isa::Amx`] where the machine lacks it is an error, not a
    /// silent fallback as for wider vectors.
    ///
    /// # Errors
    /// What is missing for [`Isa::Amx`]; a [`MAX_ISA`] that names no level.
    pub fn check(self) -> Result<(), String> {
        Isa::allowed()?;
        if self == Isa::Amx { amx::available() } else { Ok(()) }
    }

    /// The level of the vectors: what kernels are told that have no tiles.
    pub const fn vectors(self) -> Isa {
        match self {
            Isa::Amx => Isa::Avx512,
            other => other,
        }
    }

    /// f32 lanes of one vector register: also the channel block of the blocked layout.
    pub const fn lanes(self) -> usize {
        match self {
            Isa::Baseline => 4,
            Isa::Avx2 => 8,
            Isa::Avx512 | Isa::Amx => 16,
        }
    }

    /// Bytes of one vector register.
    pub const fn vector_bytes(self) -> usize {
        self.lanes() * 4
    }

    /// Vector registers.
    pub const fn registers(self) -> usize {
        match self {
            Isa::Baseline | Isa::Avx2 => 16,
            Isa::Avx512 | Isa::Amx => 32,
        }
    }

    /// The name as `--isa` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Baseline => "baseline",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Amx => "amx",
        }
    }
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Isa {
    type Err = String;
    fn from_str(s: &str) -> Result<Isa, String> {
        Isa::ALL
            .into_iter()
            .find(|isa| isa.name() == s)
            .ok_or_else(|| format!("instruction set {s:?} is none of baseline, avx2, avx512, amx"))
    }
}
