//! A width-neutral assembler: the same emitter makes AVX2 (ymm) and AVX-512 (zmm) kernels.
//!
//! Vector registers are numbers (`0..regs()`); memory operands are built with iced's register arithmetic
//! (`rdi + 64`). Float constants live in a pool behind the function's `ret`, read relative to `rip`, so that the
//! bytes are position independent. [`Asm::finish`] puts `vzeroupper; ret` at the end: CLIF around the kernels uses
//! legacy-SSE moves, which stall for hundreds of cycles while upper halves are dirty.

mod bytes;
mod isa;
pub mod math;
mod wide;

pub use bytes::Dot;
pub use isa::Isa;
pub use wide::{Asm, Cmp, Lanes, Mask, Src};
