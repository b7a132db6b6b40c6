//! Bytes: loading them as 32-bit integers, storing 32-bit integers as bytes, and dot products of bytes.

use super::wide::{Mask, Operand, XMM, YMM, ZMM};
use super::{Asm, Isa, Lanes, Mem, Src};
use crate::error::{Error, Result};
use iced_x86::code_asm::registers::rsp;
use iced_x86::code_asm::{
    AsmMemoryOperand, byte_ptr, dword_ptr, qword_ptr, word_ptr, xmmword_ptr, ymmword_ptr, zmmword_ptr,
};

/// How products of bytes are summed. Both ways are exact.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dot {
    /// Bytes are widened to 16 bits, pairs of them multiplied and added (`vpmaddwd`): every CPU of these levels.
    /// (`vpmaddubsw`, which takes bytes, saturates its 16-bit sums.)
    Words,
    /// Four unsigned bytes times four signed ones, added to 32 bits (`vpdpbusd`): AVX-512 VNNI or AVX-VNNI.
    Bytes,
    /// AMX tiles: 16 steps of four bytes at a time, from activations in blocks of 64. Chosen for a product, never by
    /// [`Dot::detect`].
    Tiles,
}

impl Dot {
    /// The best way of vectors on the CPU that runs this, at a level that it has.
    pub fn detect(isa: Isa) -> Dot {
        #[cfg(target_arch = "x86_64")]
        if Isa::allowed().is_ok_and(|allowed| allowed >= Isa::Avx512) {
            let evex = is_x86_feature_detected!("avx512vnni") && is_x86_feature_detected!("avx512vl");
            let has = match isa {
                Isa::Avx512 | Isa::Amx => is_x86_feature_detected!("avx512vnni"),
                Isa::Avx2 => is_x86_feature_detected!("avxvnni") || evex,
                Isa::Baseline => false,
            };
            if has {
                return Dot::Bytes;
            }
        }
        let _ = isa;
        Dot::Words
    }

    /// Bytes of packed weights for four products in each of `lanes` columns.
    pub const fn step_bytes(self, lanes: usize) -> usize {
        match self {
            Dot::Words => 8 * lanes,
            Dot::Bytes | Dot::Tiles => 4 * lanes,
        }
    }
}

/// Whether 256-bit `vpdpbusd` has its own short encoding on this CPU, which has no AVX-512 then, perhaps.
fn has_avx_vnni() -> bool {
    #[cfg(target_arch = "x86_64")]
    {
        is_x86_feature_detected!("avxvnni")
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        false
    }
}

/// Three-operand integer arithmetic at both widths.
macro_rules! op3 {
    ($($(#[$doc:meta])* $name:ident => $ins:ident;)*) => { $(
        $(#[$doc])*
        pub fn $name(&mut self, d: usize, x: usize, y: impl Into<Src>) -> Result<()> {
            self.above_baseline()?;
            let y = self.operand(y.into())?;
            match (self.isa, y) {
                (Isa::Avx512, Operand::Reg(y)) => self.a.$ins(ZMM[d], ZMM[x], ZMM[y])?,
                (Isa::Avx512, Operand::Mem(y)) => self.a.$ins(ZMM[d], ZMM[x], y)?,
                (_, Operand::Reg(y)) => self.a.$ins(YMM[d], YMM[x], YMM[y])?,
                (_, Operand::Mem(y)) => self.a.$ins(YMM[d], YMM[x], y)?,
            }
            Ok(())
        }
    )* };
}

/// Shifts by a constant at both widths.
macro_rules! shifts {
    ($($(#[$doc:meta])* $name:ident => $ins:ident;)*) => { $(
        $(#[$doc])*
        pub fn $name(&mut self, d: usize, x: usize, bits: u8) -> Result<()> {
            self.above_baseline()?;
            match self.isa {
                Isa::Avx512 => self.a.$ins(ZMM[d], ZMM[x], i32::from(bits))?,
                _ => self.a.$ins(YMM[d], YMM[x], i32::from(bits))?,
            }
            Ok(())
        }
    )* };
}

impl Asm {
    op3! {
        /// Products of 32-bit integers, their low halves.
        muli => vpmulld;
        /// Products of pairs of signed 16-bit integers, added in each 32-bit lane.
        multiply_pairs => vpmaddwd;
    }
    shifts! {
        /// Shifts each 32-bit lane right, filling with zeros.
        shift_right => vpsrld;
        /// Shifts each 16-bit lane left.
        shift_words_left => vpsllw;
        /// Shifts each 16-bit lane right, filling with zeros.
        shift_words_right => vpsrlw;
        /// Shifts each 16-bit lane right, keeping its sign.
        shift_words_right_arithmetic => vpsraw;
    }

    /// `d += Σ x[4 i..] * y[4 i..]`, x unsigned bytes, y signed ones: needs [`Dot::Bytes`].
    pub fn dot_bytes(&mut self, d: usize, x: usize, y: impl Into<Src>) -> Result<()> {
        self.above_baseline()?;
        let y = self.operand(y.into())?;
        self.a.set_prefer_vex(has_avx_vnni());
        match (self.isa, y) {
            (Isa::Avx512, Operand::Reg(y)) => self.a.vpdpbusd(ZMM[d], ZMM[x], ZMM[y])?,
            (Isa::Avx512, Operand::Mem(y)) => self.a.vpdpbusd(ZMM[d], ZMM[x], y)?,
            (_, Operand::Reg(y)) => self.a.vpdpbusd(YMM[d], YMM[x], YMM[y])?,
            (_, Operand::Mem(y)) => self.a.vpdpbusd(YMM[d], YMM[x], y)?,
        }
        self.a.set_prefer_vex(true);
        Ok(())
    }

    /// The first `count` (1, 2 or 4) bytes at `m`, repeated over all of `d`.
    pub fn repeat_bytes(&mut self, d: usize, m: Mem, count: usize) -> Result<()> {
        self.above_baseline()?;
        let from = m.x86();
        match (self.isa, count) {
            (_, 4) => self.broadcast(d, m)?,
            (Isa::Avx512, 2) => self.a.vpbroadcastw(ZMM[d], word_ptr(from))?,
            (_, 2) => self.a.vpbroadcastw(YMM[d], word_ptr(from))?,
            (Isa::Avx512, _) => self.a.vpbroadcastb(ZMM[d], byte_ptr(from))?,
            (_, _) => self.a.vpbroadcastb(YMM[d], byte_ptr(from))?,
        }
        Ok(())
    }

    /// The byte at `m` as a 32-bit integer in every lane.
    pub fn broadcast_byte(&mut self, d: usize, m: Mem, signed: bool) -> Result<()> {
        self.repeat_bytes(d, m, 1)?;
        self.shift_left(d, d, 24)?;
        if signed { self.shift_right_arithmetic(d, d, 24) } else { self.shift_right(d, d, 24) }
    }

    /// Bytes at `m` as 32-bit integers; `count` says how many lanes a mask leaves (others become 0 and are not read).
    pub fn load_bytes(&mut self, d: usize, m: Mem, signed: bool, lanes: Lanes, count: usize) -> Result<()> {
        self.above_baseline()?;
        let (a, m) = (&mut self.a, m.x86());
        match (self.isa, lanes) {
            (Isa::Avx512, _) => {
                let to = match lanes {
                    Lanes::All => ZMM[d],
                    Lanes::Masked(Mask(k)) => {
                        [ZMM[d].k1(), ZMM[d].k2(), ZMM[d].k3(), ZMM[d].k4(), ZMM[d].k5(), ZMM[d].k6()][k].z()
                    }
                };
                if signed { a.vpmovsxbd(to, xmmword_ptr(m))? } else { a.vpmovzxbd(to, xmmword_ptr(m))? }
            }
            (_, Lanes::All) if signed => a.vpmovsxbd(YMM[d], qword_ptr(m))?,
            (_, Lanes::All) => a.vpmovzxbd(YMM[d], qword_ptr(m))?,
            (_, Lanes::Masked(_)) => {
                // AVX2 masks no bytes: what is there is gathered
                let x = XMM[d];
                let mut next = 0;
                if count >= 4 {
                    a.vmovd(x, dword_ptr(m))?;
                    next = 4;
                } else {
                    a.vpxor(x, x, x)?;
                }
                for i in next..count {
                    a.vpinsrb(x, x, byte_ptr(m + i as i32), i as i32)?;
                }
                if signed { a.vpmovsxbd(YMM[d], x)? } else { a.vpmovzxbd(YMM[d], x)? }
            }
        }
        Ok(())
    }

    /// Stores 32-bit integers in `s`, which lie in the range of a byte, as bytes. `s` and `t` are overwritten on AVX2.
    pub fn store_bytes(
        &mut self,
        m: Mem,
        s: usize,
        signed: bool,
        lanes: Lanes,
        count: usize,
        t: usize,
    ) -> Result<()> {
        self.above_baseline()?;
        let (a, m) = (&mut self.a, m.x86());
        match (self.isa, lanes) {
            (Isa::Avx512, Lanes::All) => a.vpmovdb(xmmword_ptr(m), ZMM[s])?,
            (Isa::Avx512, Lanes::Masked(Mask(k))) => {
                let m = xmmword_ptr(m);
                a.vpmovdb([m.k1(), m.k2(), m.k3(), m.k4(), m.k5(), m.k6()][k], ZMM[s])?;
            }
            (_, lanes) => {
                a.vextracti128(XMM[t], YMM[s], 1)?;
                a.vpackssdw(XMM[s], XMM[s], XMM[t])?;
                if signed {
                    a.vpacksswb(XMM[s], XMM[s], XMM[s])?
                } else {
                    a.vpackuswb(XMM[s], XMM[s], XMM[s])?
                }
                if lanes == Lanes::All {
                    a.vmovq(qword_ptr(m), XMM[s])?;
                    return Ok(());
                }
                let mut next = 0;
                if count >= 4 {
                    a.vmovd(dword_ptr(m), XMM[s])?;
                    next = 4;
                }
                for i in next..count {
                    a.vpextrb(byte_ptr(m + i as i32), XMM[s], i as i32)?;
                }
            }
        }
        Ok(())
    }

    /// There are no bytes in portable code: kernels of bytes are refused at the baseline before they come here.
    fn above_baseline(&self) -> Result<()> {
        match self.records() {
            true => Err(Error::unsupported("kernel of bytes", "the baseline has none")),
            false => Ok(()),
        }
    }

    /// Makes room for whole vectors on the stack.
    pub fn open_spills(&mut self, count: usize) -> Result<()> {
        self.above_baseline()?;
        Ok(self.a.sub(rsp, count as i32 * self.vb())?)
    }
    /// Gives that room back.
    pub fn close_spills(&mut self, count: usize) -> Result<()> {
        self.above_baseline()?;
        Ok(self.a.add(rsp, count as i32 * self.vb())?)
    }
    fn spill_at(&self, i: usize) -> AsmMemoryOperand {
        rsp + i as i32 * self.vb()
    }
    /// Keeps `s` in room `i`.
    pub fn spill(&mut self, i: usize, s: usize) -> Result<()> {
        self.above_baseline()?;
        let m = self.spill_at(i);
        match self.isa {
            Isa::Avx512 => self.a.vmovups(zmmword_ptr(m), ZMM[s])?,
            _ => self.a.vmovups(ymmword_ptr(m), YMM[s])?,
        }
        Ok(())
    }
    /// `d` = what room `i` keeps.
    pub fn unspill(&mut self, d: usize, i: usize) -> Result<()> {
        self.above_baseline()?;
        let m = self.spill_at(i);
        match self.isa {
            Isa::Avx512 => self.a.vmovups(ZMM[d], zmmword_ptr(m))?,
            _ => self.a.vmovups(YMM[d], ymmword_ptr(m))?,
        }
        Ok(())
    }
}
