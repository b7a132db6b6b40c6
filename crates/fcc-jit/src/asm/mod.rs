//! A width-neutral assembler: the same kernel becomes AVX2 (ymm) or AVX-512 (zmm) code, or 128-bit CLIF.
//!
//! Vector registers are numbers (`0..regs()`); memory operands are built with register arithmetic (`rdi + 64`). At the
//! baseline the instructions are kept as a list (`ins.rs`), from which `clif.rs` makes a function whose registers are
//! variables: Cranelift's own register allocation and selection take it from there, on every CPU that it knows.
//!
//! Of x86-64 code: float constants live in a pool behind the function's `ret`, read relative to `rip`, so that the
//! bytes are position independent. [`Asm::finish`] puts `vzeroupper; ret` at the end: CLIF around the kernels uses
//! legacy-SSE moves, which stall for hundreds of cycles while upper halves are dirty.

mod amx;
mod bytes;
mod clif;
mod encode;
mod ins;
mod isa;
pub mod math;
pub mod reg;
mod scalar;
mod terms;
mod wide;

#[doc(hidden)]
pub use amx::assume_amx_is_emulated;
pub use amx::{TILE_BYTES, TILE_ROW_BYTES, TILE_ROWS, TileProduct};
pub use bytes::Dot;
pub(crate) use clif::{Target, emit};
pub use ins::Cond;
pub use isa::{Isa, MAX_ISA};
pub use reg::{Mem, Reg};
pub(crate) use wide::Form;
pub use wide::{Asm, Assembled, Cmp, Label, Lanes, Mask, Src, Table};
