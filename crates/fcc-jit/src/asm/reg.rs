//! General registers and addresses, the same for both kinds of code.
//!
//! Registers go by the names that they have on x86-64, where kernels take their arguments in `rdi`, `rsi`, `rdx`, `rcx`,
//! `r8` and `r9`. In code for other machines a name is a variable of its own and the first six are arguments just so.
#![allow(non_upper_case_globals, missing_docs)]

use iced_x86::code_asm::registers as x86;
use iced_x86::code_asm::{AsmMemoryOperand, AsmRegister32, AsmRegister64};
use std::ops::Add;

/// A general register of 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reg(pub(super) u8);

pub const rax: Reg = Reg(0);
pub const rcx: Reg = Reg(1);
pub const rdx: Reg = Reg(2);
pub const rbx: Reg = Reg(3);
pub const rbp: Reg = Reg(5);
pub const rsi: Reg = Reg(6);
pub const rdi: Reg = Reg(7);
pub const r8: Reg = Reg(8);
pub const r9: Reg = Reg(9);
pub const r10: Reg = Reg(10);
pub const r11: Reg = Reg(11);
pub const r12: Reg = Reg(12);
pub const r13: Reg = Reg(13);
pub const r14: Reg = Reg(14);
pub const r15: Reg = Reg(15);

/// The registers of a function's arguments, in order.
pub(super) const ARGUMENTS: [Reg; 6] = [rdi, rsi, rdx, rcx, r8, r9];

const WIDE: [AsmRegister64; 16] = [
    x86::rax,
    x86::rcx,
    x86::rdx,
    x86::rbx,
    x86::rsp,
    x86::rbp,
    x86::rsi,
    x86::rdi,
    x86::r8,
    x86::r9,
    x86::r10,
    x86::r11,
    x86::r12,
    x86::r13,
    x86::r14,
    x86::r15,
];
const HALF: [AsmRegister32; 16] = [
    x86::eax,
    x86::ecx,
    x86::edx,
    x86::ebx,
    x86::esp,
    x86::ebp,
    x86::esi,
    x86::edi,
    x86::r8d,
    x86::r9d,
    x86::r10d,
    x86::r11d,
    x86::r12d,
    x86::r13d,
    x86::r14d,
    x86::r15d,
];

impl Reg {
    /// iced's name of it.
    pub fn x86(self) -> AsmRegister64 {
        WIDE[usize::from(self.0)]
    }
    /// iced's name of its lower half.
    pub fn x86_half(self) -> AsmRegister32 {
        HALF[usize::from(self.0)]
    }
}

/// An address: `base + index + offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mem {
    /// A pointer.
    pub base: Reg,
    /// Bytes.
    pub index: Option<Reg>,
    /// Bytes.
    pub offset: i32,
}

impl Mem {
    /// iced's form of it.
    pub fn x86(self) -> AsmMemoryOperand {
        match self.index {
            Some(index) => self.base.x86() + index.x86() + self.offset,
            None => self.base.x86() + self.offset,
        }
    }
}

impl From<Reg> for Mem {
    fn from(base: Reg) -> Mem {
        Mem { base, index: None, offset: 0 }
    }
}
impl Add<i32> for Reg {
    type Output = Mem;
    fn add(self, offset: i32) -> Mem {
        Mem { base: self, index: None, offset }
    }
}
impl Add<Reg> for Reg {
    type Output = Mem;
    fn add(self, index: Reg) -> Mem {
        Mem { base: self, index: Some(index), offset: 0 }
    }
}
impl Add<i32> for Mem {
    type Output = Mem;
    fn add(self, offset: i32) -> Mem {
        Mem { offset: self.offset + offset, ..self }
    }
}
