//! Instruction-set levels, detected at run time and limited by the user.

use std::{fmt, str::FromStr};

/// What the generated kernels may use. Levels are ordered: a machine that has one has all before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Isa {
    /// 128-bit vectors written in CLIF: any CPU that Cranelift targets.
    Baseline,
    /// 256-bit vectors, AVX2 and FMA.
    Avx2,
    /// 512-bit vectors, AVX-512 F, VL, BW and DQ.
    Avx512,
}

impl Isa {
    /// All levels, lowest first.
    pub const ALL: [Isa; 3] = [Isa::Baseline, Isa::Avx2, Isa::Avx512];

    /// The best level of the CPU that runs this.
    pub fn detect() -> Isa {
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

    /// The best level of this CPU that is at most `self`.
    pub fn limited_to(self, limit: Isa) -> Isa {
        self.min(limit)
    }

    /// f32 lanes of one vector register: also the channel block of the blocked layout.
    pub const fn lanes(self) -> usize {
        match self {
            Isa::Baseline => 4,
            Isa::Avx2 => 8,
            Isa::Avx512 => 16,
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
            Isa::Avx512 => 32,
        }
    }

    /// The name as `--isa` takes it.
    pub const fn name(self) -> &'static str {
        match self {
            Isa::Baseline => "baseline",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
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
            .ok_or_else(|| format!("instruction set {s:?} is none of baseline, avx2, avx512"))
    }
}
