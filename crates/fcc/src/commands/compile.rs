//! How to compile: the options that every command with compiled code shares.
use super::failure::Failure;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use fcc_jit::{Isa, Options, Precision, Release};

/// `--threads`, `--isa` and `--precision`.
#[derive(Debug, Clone, clap::Args)]
pub struct CompileArgs {
    /// Threads of the compiled code [default: all cores]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// The widest instructions that compiled code may use [default: the widest vectors that this CPU has]
    #[arg(long, value_name = "LEVEL", value_parser = isa())]
    isa: Option<Isa>,
    /// How far compiled code may depart from plain f32
    #[arg(long, value_name = "PRECISION", value_parser = precision(), default_value_t)]
    precision: Precision,
}

fn isa() -> impl TypedValueParser<Value = Isa> {
    let value = |isa: Isa| {
        PossibleValue::new(isa.name()).help(match isa {
            Isa::Baseline => "What any CPU has",
            Isa::Avx2 => "256-bit vectors: AVX2 and FMA",
            Isa::Avx512 => "512-bit vectors: AVX-512 F, VL, BW and DQ",
            Isa::Amx => "AVX-512, and AMX tiles for products; an error where this machine has none",
        })
    };
    PossibleValuesParser::new(Isa::ALL.map(value)).try_map(|name| name.parse::<Isa>())
}

fn precision() -> impl TypedValueParser<Value = Precision> {
    let value = |precision: Precision| {
        PossibleValue::new(precision.name()).help(match precision {
            Precision::F32 => {
                "Kernels with no larger an error than plain f32, that treat Inf, NaN, huge and tiny values as it does"
            }
            Precision::Fast => "Also Winograd convolutions with larger tiles, and at level amx two bf16 terms for each f32: both lose some digits; sums are still f32",
        })
    };
    PossibleValuesParser::new(Precision::ALL.map(value)).try_map(|name| name.parse::<Precision>())
}

impl CompileArgs {
    /// The options of the code generator.
    ///
    /// # Errors
    /// A level that this machine does not have and that nothing may stand in for; an `FCC_MAX_ISA` that names none.
    pub fn options(&self) -> Result<Options, Failure> {
        let mut options = self.threads.map_or_else(Options::default, |n| Options::with_threads(n.into()));
        options.isa = self.isa.unwrap_or(options.isa);
        Isa::allowed().map_err(Failure::input)?;
        options.isa.check().map_err(|why| Failure::input(format!("--isa {}: {why}", options.isa)))?;
        options.precision = self.precision;
        // weights that were packed need not stay in memory a second time
        options.release = Some(Release::new(fcc_onnx::release));
        Ok(options)
    }
}
