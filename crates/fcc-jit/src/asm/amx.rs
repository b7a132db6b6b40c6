//! AMX: whether it may be used, and its instructions.
//!
//! Eight tile registers of up to 16 rows of 64 bytes. A configuration says how many rows and bytes each has; here all
//! rows are whole. Tiles are state of a thread: who configures them releases them before it returns.

use super::reg::{Mem, Reg};
use super::wide::Asm;
use crate::error::{Error, Result};
use iced_x86::code_asm::registers::*;
use iced_x86::code_asm::{AsmMemoryOperand, AsmRegisterTmm, ptr, zmmword_ptr};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Rows of a tile register.
pub const TILE_ROWS: usize = 16;
/// Bytes of a row.
pub const TILE_ROW_BYTES: usize = 64;
/// Bytes of a tile register.
pub const TILE_BYTES: usize = TILE_ROWS * TILE_ROW_BYTES;

const TMM: [AsmRegisterTmm; 8] = [tmm0, tmm1, tmm2, tmm3, tmm4, tmm5, tmm6, tmm7];

/// Set by tests that catch the instructions of a CPU without AMX.
static EMULATED: AtomicBool = AtomicBool::new(false);

/// Has [`super::Isa::Amx`] pass for available on a CPU without it.
///
/// # Safety
/// From now on tile instructions may be executed: a handler of SIGILL that does what they would is installed for every
/// thread that runs compiled code, for as long as the process lives.
#[doc(hidden)]
pub unsafe fn assume_amx_is_emulated() {
    EMULATED.store(true, Ordering::SeqCst);
}

/// Whether AMX with bf16 and int8 may be used, asking the system for leave the first time.
///
/// # Errors
/// What is missing.
pub(super) fn available() -> std::result::Result<(), String> {
    static FOUND: OnceLock<std::result::Result<(), String>> = OnceLock::new();
    use super::isa::{Isa, MAX_ISA};
    let allowed = Isa::allowed()?;
    if allowed < Isa::Avx512 {
        return Err(format!("AMX is used beside AVX-512, which {MAX_ISA}={allowed} does not allow"));
    }
    if Isa::detect() < Isa::Avx512 {
        return Err("AMX is used beside AVX-512, which this CPU does not have".into());
    }
    if EMULATED.load(Ordering::SeqCst) {
        return Ok(());
    }
    if allowed < Isa::Amx {
        return Err(format!("{MAX_ISA}={allowed} does not allow AMX"));
    }
    FOUND.get_or_init(ask).clone()
}

#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn ask() -> std::result::Result<(), String> {
    use std::arch::x86_64::{__cpuid, __cpuid_count};
    const NEEDED: [(u32, &str); 3] = [(22, "AMX-BF16"), (24, "AMX-TILE"), (25, "AMX-INT8")];
    const TILE_STATE: u64 = 3 << 17;
    const OSXSAVE: u32 = 1 << 27;
    let (most, features) = (__cpuid(0).eax, __cpuid_count(7, 0));
    if let Some((_, name)) = NEEDED.iter().find(|(bit, _)| most < 0x1d || features.edx >> bit & 1 == 0) {
        return Err(format!("this CPU has no {name}"));
    }
    let palette = __cpuid_count(0x1d, 1);
    let (row_bytes, names, rows) = (palette.ebx & 0xffff, palette.ebx >> 16, palette.ecx & 0xffff);
    if (row_bytes, names, rows) != (64, 8, 16) {
        return Err(format!(
            "the tiles of this CPU are {names} of {rows} rows of {row_bytes} bytes, not 8 of 16 of 64"
        ));
    }
    if __cpuid(1).ecx & OSXSAVE == 0 || xcr0() & TILE_STATE != TILE_STATE {
        return Err("the system does not keep the state of AMX tiles (XCR0)".into());
    }
    permission()
}

#[cfg(not(all(target_arch = "x86_64", target_os = "linux")))]
fn ask() -> std::result::Result<(), String> {
    Err("AMX needs Linux on x86-64".into())
}

/// Which state the system keeps for threads.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn xcr0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: CPUID has said that the system uses XSAVE, so the instruction exists; it only reads.
    unsafe {
        std::arch::asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nomem, nostack));
    }
    u64::from(high) << 32 | u64::from(low)
}

/// Linux lets a process use tiles only after it has asked.
#[cfg(all(target_arch = "x86_64", target_os = "linux"))]
fn permission() -> std::result::Result<(), String> {
    unsafe extern "C" {
        fn syscall(number: i64, ...) -> i64;
    }
    const ARCH_PRCTL: i64 = 158;
    const ARCH_REQ_XCOMP_PERM: i64 = 0x1023;
    const TILE_DATA: i64 = 18;
    // SAFETY: arch_prctl with this request takes a number and touches no memory of the process.
    if unsafe { syscall(ARCH_PRCTL, ARCH_REQ_XCOMP_PERM, TILE_DATA) } == 0 {
        return Ok(());
    }
    let why = std::io::Error::last_os_error();
    Err(format!("the system does not permit AMX tiles (arch_prctl ARCH_REQ_XCOMP_PERM: {why})"))
}

/// What a product of tiles multiplies and adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TileProduct {
    /// Pairs of bf16, added to f32.
    Bf16,
    /// Four bytes each, added to int32; those of the second tile are signed.
    Bytes {
        /// Whether those of the first tile are.
        signed: bool,
    },
}

impl Asm {
    /// Configures the tiles: whole rows, so many of each (16 at most, 0 for a tile that is not used).
    pub fn tile_config(&mut self, rows: [u8; 8]) -> Result<()> {
        if rows.iter().any(|r| usize::from(*r) > TILE_ROWS) {
            return Err(Error::Codegen(format!("tiles of {rows:?} rows")));
        }
        let mut config = [0u8; 64];
        // the palette
        config[0] = 1;
        for (i, r) in rows.into_iter().enumerate().filter(|(_, r)| *r > 0) {
            config[16 + 2 * i] = TILE_ROW_BYTES as u8;
            config[48 + i] = r;
        }
        let words: Vec<u32> =
            config.chunks_exact(4).map(|c| u32::from_le_bytes([c[0], c[1], c[2], c[3]])).collect();
        let m = self.tile_operand(&words)?;
        Ok(self.a.ldtilecfg(zmmword_ptr(m))?)
    }

    fn tile_operand(&mut self, words: &[u32]) -> Result<AsmMemoryOperand> {
        match self.isa {
            super::Isa::Avx512 => Ok(self.table(words).iced.into()),
            other => Err(Error::unsupported("tiles", format!("no AMX beside vectors of {other}"))),
        }
    }

    /// Gives the tiles up.
    pub fn tile_release(&mut self) -> Result<()> {
        Ok(self.a.tilerelease()?)
    }

    /// `t = 0`
    pub fn tile_zero(&mut self, t: usize) -> Result<()> {
        Ok(self.a.tilezero(TMM[t])?)
    }

    /// `t` = rows of 64 bytes from `m` on, the bytes in `stride` apart.
    pub fn tile_load(&mut self, t: usize, m: Mem, stride: Reg) -> Result<()> {
        let rows = m.base.x86() + stride.x86() + m.offset;
        Ok(self.a.tileloadd(TMM[t], ptr(rows))?)
    }

    /// Rows from `m` on, the bytes in `stride` apart, = `t`
    pub fn tile_store(&mut self, m: Mem, stride: Reg, t: usize) -> Result<()> {
        let rows = m.base.x86() + stride.x86() + m.offset;
        Ok(self.a.tilestored(ptr(rows), TMM[t])?)
    }

    /// `d += x * y`: a row of `y` has the second factors of neighbouring products for 16 columns.
    pub fn tile_product(&mut self, d: usize, x: usize, y: usize, how: TileProduct) -> Result<()> {
        let [d, x, y] = [d, x, y].map(|t| TMM[t]);
        match how {
            TileProduct::Bf16 => self.a.tdpbf16ps(d, x, y)?,
            TileProduct::Bytes { signed: true } => self.a.tdpbssd(d, x, y)?,
            TileProduct::Bytes { signed: false } => self.a.tdpbusd(d, x, y)?,
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::asm::Isa;

    #[test]
    fn amx_is_used_only_where_it_is_asked_for_and_there() {
        assert!(Isa::detect() < Isa::Amx);
        for limit in [Isa::Baseline, Isa::Avx2, Isa::Avx512] {
            assert!(Isa::within(limit) <= limit && limit.check().is_ok());
        }
        match Isa::Amx.check() {
            Ok(()) => assert_eq!(Isa::within(Isa::Amx), Isa::Amx),
            Err(why) => {
                assert_eq!(Isa::within(Isa::Amx), Isa::detect());
                assert!(why.contains("AMX"), "{why}");
            }
        }
    }
}
