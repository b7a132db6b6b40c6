//! What putting values into rows of tiles needs of AVX-512, and no other kernel: at that level only.

use super::encode::Jump;
use super::reg::Mem;
use super::wide::{Asm, K, Label, Operand, XMM, ZMM};
use super::{Isa, Src};
use crate::error::{Error, Result};
use iced_x86::code_asm::registers::{k7, rax};
use iced_x86::code_asm::{dword_ptr, xmmword_ptr, zmmword_ptr};

impl Asm {
    fn above_avx2(&self) -> Result<()> {
        match self.isa {
            Isa::Avx512 => Ok(()),
            other => Err(Error::unsupported("rows of tiles", format!("needs AVX-512, the level is {other}"))),
        }
    }

    /// The larger of unsigned 32-bit lanes.
    pub fn max_unsigned(&mut self, d: usize, x: usize, y: usize) -> Result<()> {
        self.above_avx2()?;
        Ok(self.a.vpmaxud(ZMM[d], ZMM[x], ZMM[y])?)
    }

    /// The 16-bit words of `d` and `y` that the table in `index` names, of `y` from 32 on, into `d`.
    pub fn high_words(&mut self, d: usize, index: usize, y: usize) -> Result<()> {
        self.above_avx2()?;
        Ok(self.a.vpermt2w(ZMM[d], ZMM[index], ZMM[y])?)
    }

    /// Goes to `to` if an unsigned 32-bit lane of `x` is `least` or more.
    pub fn branch_any_from(&mut self, x: usize, least: u32, to: Label) -> Result<()> {
        // not less than
        const NLT: i32 = 5;
        self.above_avx2()?;
        let Operand::Mem(least) = self.operand(Src::Bits(least))? else {
            return Err(Error::Codegen("a constant in a register".into()));
        };
        self.a.vpcmpud(k7, ZMM[x], least, NLT)?;
        self.a.kortestw(k7, k7)?;
        self.code()?.jump(Jump::NotEqual, to.number);
        Ok(())
    }

    /// Goes to `to` if all of `x` is 0.
    pub fn branch_all_zero(&mut self, x: usize, to: Label) -> Result<()> {
        self.above_avx2()?;
        self.a.vptestmd(k7, ZMM[x], ZMM[x])?;
        self.a.kortestw(k7, k7)?;
        self.code()?.jump(Jump::Equal, to.number);
        Ok(())
    }

    /// The 32-bit word at `at` = 1
    pub fn raise(&mut self, at: Mem) -> Result<()> {
        self.above_avx2()?;
        Ok(self.a.mov(dword_ptr(at.x86()), 1)?)
    }

    /// A mask of the first `bytes` of 64 for [`Asm::load_byte_row`]. Overwrites `rax`.
    pub fn byte_row_mask(&mut self, bytes: usize) -> Result<()> {
        self.above_avx2()?;
        self.a.mov(rax, u64::MAX >> (64 - bytes.clamp(1, 64)))?;
        Ok(self.a.kmovq(K[0], rax)?)
    }

    /// `d` = the bytes at `m` that the mask has; the others become 0 and are not read.
    pub fn load_byte_row(&mut self, d: usize, m: Mem) -> Result<()> {
        self.above_avx2()?;
        Ok(self.a.vmovdqu8(ZMM[d].k1().z(), zmmword_ptr(m.x86()))?)
    }

    /// 16 bytes at `m` into quarter `i` of `d` (below 16); the first clears the others.
    pub fn load_quarter(&mut self, d: usize, i: usize, m: Mem) -> Result<()> {
        self.above_avx2()?;
        let m = xmmword_ptr(m.x86());
        match i {
            0 => self.a.vmovdqu(XMM[d], m)?,
            _ => self.a.vinserti32x4(ZMM[d], ZMM[d], m, i as i32)?,
        }
        Ok(())
    }
}
