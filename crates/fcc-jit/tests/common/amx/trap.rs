//! Tile instructions on a CPU that has none: a handler of SIGILL does what they would, on tiles of the thread.

use super::tiles::{Product, Tiles};
use fcc_jit::Isa;
use fcc_jit::asm::assume_amx_is_emulated;
use iced_x86::{Code, Decoder, DecoderOptions, Instruction, Register};
use std::cell::UnsafeCell;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

thread_local! {
    static TILES: UnsafeCell<Tiles> = const { UnsafeCell::new(Tiles::new()) };
}
/// Instructions that were emulated.
static EMULATED: AtomicUsize = AtomicUsize::new(0);

/// How tiles are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amx {
    Hardware,
    Emulated,
}

/// Makes [`Isa::Amx`] usable: by the CPU, or by the handler; `None`, said aloud, without AVX-512.
pub fn amx() -> Option<Amx> {
    static FOUND: OnceLock<Option<Amx>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        if Isa::detect() < Isa::Avx512 {
            println!("skipped: this CPU has no AVX-512");
            return None;
        }
        // a CPU that has tiles executes `ldtilecfg` also where the system has not been asked, so nothing can be emulated
        if Isa::allowed().is_ok_and(|allowed| allowed < Isa::Amx) {
            println!("skipped: {} does not allow AMX", fcc_jit::MAX_ISA);
            return None;
        }
        match Isa::Amx.check() {
            Ok(()) => Some(Amx::Hardware),
            Err(why) => {
                println!("AMX is emulated: {why}");
                install();
                Some(Amx::Emulated)
            }
        }
    })
}

/// Tile instructions that were caught so far, on all threads.
pub fn caught() -> usize {
    EMULATED.load(Ordering::SeqCst)
}

/// That this thread has given its tiles up.
pub fn assert_released() {
    // SAFETY: the handler runs on this thread only between instructions of compiled code, not here.
    assert!(!TILES.with(|t| unsafe { (*t.get()).configured() }), "tiles are still configured");
}

fn install() {
    // the decoder makes its tables when it is first used, which a handler must not do
    let _ = Decoder::with_ip(64, &[0xc3], 0, DecoderOptions::NONE).decode();
    let handler: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = on_sigill;
    // SAFETY: a zeroed sigaction is a valid one; the handler has the type that SA_SIGINFO says.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO;
        libc::sigemptyset(&mut action.sa_mask);
        assert_eq!(libc::sigaction(libc::SIGILL, &action, std::ptr::null_mut()), 0);
        assume_amx_is_emulated();
    }
}

extern "C" fn on_sigill(_: i32, _: *mut libc::siginfo_t, context: *mut libc::c_void) {
    // a panic of the emulator must not leave the handler
    let guard = Abort;
    // SAFETY: SA_SIGINFO hands the context of this thread over.
    let registers = unsafe { &mut (*context.cast::<libc::ucontext_t>()).uc_mcontext.gregs };
    let ip = registers[libc::REG_RIP as usize] as usize;
    // SAFETY: the CPU has just fetched an instruction from there; no kernel ends within 15 bytes of a tile instruction.
    let bytes = unsafe { std::slice::from_raw_parts(ip as *const u8, 15) };
    let instruction = Decoder::with_ip(64, bytes, ip as u64, DecoderOptions::NONE).decode();
    let known = TILES.with(|tiles| {
        // SAFETY: nothing else holds a reference to this thread's tiles while it is in the handler.
        let tiles = unsafe { &mut *tiles.get() };
        // SAFETY: addresses are those of compiled code, whose operands were checked.
        unsafe { emulate(&instruction, registers, tiles) }
    });
    if known {
        EMULATED.fetch_add(1, Ordering::Relaxed);
        registers[libc::REG_RIP as usize] += instruction.len() as i64;
    } else {
        // SAFETY: the default action: the instruction traps again and ends the process.
        unsafe { libc::signal(libc::SIGILL, libc::SIG_DFL) };
    }
    std::mem::forget(guard);
}

struct Abort;
impl Drop for Abort {
    fn drop(&mut self) {
        std::process::abort();
    }
}

fn general(registers: &[i64; 23], r: Register) -> i64 {
    let index = match r {
        Register::None => return 0,
        Register::RAX => libc::REG_RAX,
        Register::RBX => libc::REG_RBX,
        Register::RCX => libc::REG_RCX,
        Register::RDX => libc::REG_RDX,
        Register::RSI => libc::REG_RSI,
        Register::RDI => libc::REG_RDI,
        Register::RBP => libc::REG_RBP,
        Register::RSP => libc::REG_RSP,
        Register::R8 => libc::REG_R8,
        Register::R9 => libc::REG_R9,
        Register::R10 => libc::REG_R10,
        Register::R11 => libc::REG_R11,
        Register::R12 => libc::REG_R12,
        Register::R13 => libc::REG_R13,
        Register::R14 => libc::REG_R14,
        Register::R15 => libc::REG_R15,
        other => panic!("an address of {other:?}"),
    };
    registers[index as usize]
}

fn tile(r: Register) -> usize {
    r as usize - Register::TMM0 as usize
}

/// Does one instruction; false if it is none of tiles.
///
/// # Safety
/// Its memory operand can be read or written.
unsafe fn emulate(i: &Instruction, registers: &[i64; 23], tiles: &mut Tiles) -> bool {
    // what an address is made of, the index apart: of tiles it counts rows
    let displacement = i.memory_displacement64() as i64;
    let (base, row) = match i.memory_base() {
        Register::RIP => (displacement, 0),
        base => {
            let index = general(registers, i.memory_index()) * i64::from(i.memory_index_scale());
            (general(registers, base).wrapping_add(displacement), index)
        }
    };
    let product = |how| (tile(i.op0_register()), tile(i.op1_register()), tile(i.op2_register()), how);
    let (d, x, y, how) = match i.code() {
        Code::VEX_Ldtilecfg_m512 => {
            assert_eq!(row, 0, "a configuration at an index");
            // SAFETY: the caller's promise.
            tiles.configure(unsafe { &*(base as *const [u8; 64]) });
            return true;
        }
        Code::VEX_Tilerelease => {
            tiles.release();
            return true;
        }
        Code::VEX_Tilezero_tmm => {
            tiles.zero(tile(i.op0_register()));
            return true;
        }
        Code::VEX_Tileloadd_tmm_sibmem | Code::VEX_Tileloaddt1_tmm_sibmem => {
            // SAFETY: the caller's promise.
            unsafe { tiles.load(tile(i.op0_register()), base as *const u8, row as isize) };
            return true;
        }
        Code::VEX_Tilestored_sibmem_tmm => {
            // SAFETY: the caller's promise.
            unsafe { tiles.store(tile(i.op1_register()), base as *mut u8, row as isize) };
            return true;
        }
        Code::VEX_Tdpbf16ps_tmm_tmm_tmm => product(Product::Bf16),
        Code::VEX_Tdpbssd_tmm_tmm_tmm => product(Product::Bytes(true, true)),
        Code::VEX_Tdpbsud_tmm_tmm_tmm => product(Product::Bytes(true, false)),
        Code::VEX_Tdpbusd_tmm_tmm_tmm => product(Product::Bytes(false, true)),
        Code::VEX_Tdpbuud_tmm_tmm_tmm => product(Product::Bytes(false, false)),
        _ => return false,
    };
    tiles.product(d, x, y, how);
    true
}
