//! The assembler itself.

use super::Isa;
use super::encode::{BROADCAST, Bytes, Code, FMA, Jump, LOAD, Last, MOVE, Opcode, STORE};
use super::ins::{Ins, Op2, Op3};
use super::reg::{Mem, Reg};
use crate::error::{Error, Result};
use iced_x86::Encoder;
use iced_x86::code_asm::registers::*;
use iced_x86::code_asm::{
    AsmMemoryOperand, AsmRegisterK, AsmRegisterXmm, AsmRegisterYmm, AsmRegisterZmm, CodeAssembler, CodeLabel,
    dword_bcst, dword_ptr, ymmword_ptr, zmmword_ptr,
};
use std::collections::BTreeMap;
use std::rc::Rc;

pub(super) const ZMM: [AsmRegisterZmm; 32] = [
    zmm0, zmm1, zmm2, zmm3, zmm4, zmm5, zmm6, zmm7, zmm8, zmm9, zmm10, zmm11, zmm12, zmm13, zmm14, zmm15,
    zmm16, zmm17, zmm18, zmm19, zmm20, zmm21, zmm22, zmm23, zmm24, zmm25, zmm26, zmm27, zmm28, zmm29, zmm30,
    zmm31,
];
pub(super) const YMM: [AsmRegisterYmm; 32] = [
    ymm0, ymm1, ymm2, ymm3, ymm4, ymm5, ymm6, ymm7, ymm8, ymm9, ymm10, ymm11, ymm12, ymm13, ymm14, ymm15,
    ymm16, ymm17, ymm18, ymm19, ymm20, ymm21, ymm22, ymm23, ymm24, ymm25, ymm26, ymm27, ymm28, ymm29, ymm30,
    ymm31,
];
pub(super) const XMM: [AsmRegisterXmm; 16] =
    [xmm0, xmm1, xmm2, xmm3, xmm4, xmm5, xmm6, xmm7, xmm8, xmm9, xmm10, xmm11, xmm12, xmm13, xmm14, xmm15];
pub(super) const K: [AsmRegisterK; 7] = [k1, k2, k3, k4, k5, k6, k7];

/// The second source of an instruction.
#[derive(Clone, Copy, Debug)]
pub enum Src {
    /// A vector register.
    Reg(usize),
    /// A whole vector in memory, of any alignment.
    Mem(Mem),
    /// One f32 in memory for every lane (embedded broadcast): AVX-512 only, see [`Asm::broadcast`].
    Each(Mem),
    /// A constant for every lane.
    Const(f32),
    /// A constant bit pattern for every lane.
    Bits(u32),
}

impl From<Mem> for Src {
    fn from(m: Mem) -> Src {
        Src::Mem(m)
    }
}
impl From<usize> for Src {
    fn from(r: usize) -> Src {
        Src::Reg(r)
    }
}
impl From<f32> for Src {
    fn from(c: f32) -> Src {
        Src::Const(c)
    }
}

/// Which lanes of a vector a load or store touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lanes {
    /// Every lane.
    All,
    /// The lanes of a mask set up by [`Asm::lanes`] or [`Asm::lane_range`]; others read as 0 and are not written.
    Masked(Mask),
}

/// A mask of the first lanes: an index into the AVX-512 mask registers, a vector register on AVX2, the number of lanes at
/// the baseline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mask(pub(super) usize);

/// Comparison predicates (ordered: false when an operand is NaN).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cmp {
    /// Equal.
    Eq,
    /// Less than.
    Lt,
    /// Less than or equal.
    Le,
    /// An operand is NaN.
    Unordered,
    /// Greater than or equal.
    Ge,
    /// Greater than.
    Gt,
}
impl Cmp {
    fn imm(self) -> i32 {
        match self {
            Cmp::Eq => 0,
            Cmp::Lt => 0x11,
            Cmp::Le => 0x12,
            Cmp::Unordered => 3,
            Cmp::Ge => 0x1d,
            Cmp::Gt => 0x1e,
        }
    }
}

/// A place in the code to branch to.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    pub(super) number: usize,
}

/// A vector of constant words, with the register that holds it.
#[derive(Clone, Debug)]
pub struct Table {
    words: Rc<[u32]>,
    reg: usize,
}

/// A finished function: see [`crate::module::Emitter::assembled`].
pub struct Assembled(pub(crate) Form);

pub(crate) enum Form {
    /// Position independent x86-64 code.
    Bytes(Vec<u8>),
    /// What is to become CLIF.
    Portable(Vec<Ins>),
}

impl std::fmt::Debug for Assembled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Form::Bytes(bytes) => write!(f, "{} bytes of x86-64 code", bytes.len()),
            Form::Portable(code) => write!(f, "{} portable instructions", code.len()),
        }
    }
}

impl Assembled {
    /// The x86-64 code, of a level above the baseline.
    pub fn bytes(&self) -> Option<&[u8]> {
        match &self.0 {
            Form::Bytes(bytes) => Some(bytes),
            Form::Portable(_) => None,
        }
    }
}

/// Emits one function at one vector width.
pub struct Asm {
    /// iced's assembler, for instructions of x86-64 that have no method here: a kernel that uses it has no baseline.
    /// Its instructions are encoded when one of another kind follows.
    pub a: CodeAssembler,
    /// How many of them are.
    encoded: usize,
    encoder: Encoder,
    code: Code,
    /// The instructions so far at the baseline.
    portable: Vec<Ins>,
    pub(super) labels: usize,
    pub(super) isa: Isa,
    constants: BTreeMap<u32, Constant>,
    tables: BTreeMap<Vec<u32>, Constant>,
    reserved: usize,
    kmasks: usize,
}

/// Three-operand arithmetic at both widths.
macro_rules! op3 {
    ($($(#[$doc:meta])* $name:ident => $ins:ident $code:expr;)*) => {
        $(
            $(#[$doc])*
            pub fn $name(&mut self, d: usize, x: usize, y: impl Into<Src>) -> Result<()> {
                let y = y.into();
                if self.records() {
                    return self.record(Ins::Op3(Op3::$name, d, x, y));
                }
                let y = self.last(y)?;
                let isa = self.isa;
                self.code()?.vector(isa, $code, d, Some(x), y);
                Ok(())
            }
        )*
        /// Each of them as iced has it, for comparison.
        #[cfg(test)]
        pub(super) const OP3: &[(Opcode, IcedOp3)] = &[$(($code, |a, isa, d, x, y| match (isa, y) {
            (Isa::Avx512, Operand::Reg(y)) => a.$ins(ZMM[d], ZMM[x], ZMM[y]),
            (Isa::Avx512, Operand::Mem(y)) => a.$ins(ZMM[d], ZMM[x], y),
            (_, Operand::Reg(y)) => a.$ins(YMM[d], YMM[x], YMM[y]),
            (_, Operand::Mem(y)) => a.$ins(YMM[d], YMM[x], y),
        })),*];
    };
}

/// Two-operand instructions at both widths.
macro_rules! op2 {
    ($($(#[$doc:meta])* $name:ident => $ins:ident;)*) => { $(
        $(#[$doc])*
        pub fn $name(&mut self, d: usize, x: impl Into<Src>) -> Result<()> {
            let x = x.into();
            if self.records() {
                return self.record(Ins::Op2(Op2::$name, d, x));
            }
            let x = self.operand(x)?;
            match (self.isa, x) {
                (Isa::Avx512, Operand::Reg(x)) => self.a.$ins(ZMM[d], ZMM[x])?,
                (Isa::Avx512, Operand::Mem(x)) => self.a.$ins(ZMM[d], x)?,
                (_, Operand::Reg(x)) => self.a.$ins(YMM[d], YMM[x])?,
                (_, Operand::Mem(x)) => self.a.$ins(YMM[d], x)?,
            }
            Ok(())
        }
    )* };
}

/// A label of constants behind the code, as each of the two encoders knows it.
#[derive(Clone, Copy)]
pub(super) struct Constant {
    number: usize,
    pub(super) iced: CodeLabel,
    /// The number that iced has for it: it counts its labels from 1, and only constants are labels to it.
    id: u64,
}

impl Constant {
    /// A new label after `before` others.
    fn new(a: &mut CodeAssembler, code: &mut Code, before: usize) -> Constant {
        Constant { number: code.label(), iced: a.create_label(), id: before as u64 + 1 }
    }
}

#[cfg(test)]
type IcedOp3 =
    fn(&mut CodeAssembler, Isa, usize, usize, Operand) -> std::result::Result<(), iced_x86::IcedError>;

pub(super) enum Operand {
    Reg(usize),
    Mem(AsmMemoryOperand),
}

impl Asm {
    /// An assembler for `isa`; at the baseline it keeps a list of instructions, which becomes CLIF.
    pub fn new(isa: Isa) -> Result<Asm> {
        let isa = isa.vectors();
        Ok(Asm {
            a: CodeAssembler::new(64)?,
            encoded: 0,
            encoder: Encoder::try_new(64)?,
            code: Code::default(),
            portable: Vec::new(),
            labels: 0,
            isa,
            constants: BTreeMap::new(),
            tables: BTreeMap::new(),
            reserved: 0,
            kmasks: 0,
        })
    }

    pub(super) fn records(&self) -> bool {
        self.isa == Isa::Baseline
    }
    pub(super) fn record(&mut self, ins: Ins) -> Result<()> {
        self.portable.push(ins);
        Ok(())
    }

    /// The level this emits for.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Vector registers that are free to use: masks of AVX2 take some from the top.
    pub fn regs(&self) -> usize {
        self.isa.registers() - self.reserved
    }

    /// Bytes of a vector, for address arithmetic.
    pub fn vb(&self) -> i32 {
        self.isa.vector_bytes() as i32
    }

    /// The code so far, to be written on.
    pub(super) fn code(&mut self) -> Result<&mut Code> {
        if self.encoded < self.a.instructions().len() {
            self.encode()?;
        }
        Ok(&mut self.code)
    }

    /// A label of x86-64 code.
    pub(super) fn new_label(&mut self) -> usize {
        self.code.label()
    }

    /// Encodes what iced's assembler holds.
    fn encode(&mut self) -> Result<()> {
        let mut start = self.code.bytes.len();
        self.encoder.set_buffer(std::mem::take(&mut self.code.bytes));
        let mut holes = vec![];
        for ins in &self.a.instructions()[self.encoded..] {
            let len = self.encoder.encode(ins, start as u64)?;
            if ins.is_ip_rel_memory_operand() {
                let at = start + self.encoder.get_constant_offsets().displacement_offset();
                holes.push((at, start + len, ins.memory_displacement64()));
            }
            start += len;
        }
        self.encoded = self.a.instructions().len();
        self.code.bytes = self.encoder.take_buffer();
        for (at, from, iced) in holes {
            // iced's labels are numbered as they are made
            let mut all = self.constants.values().chain(self.tables.values());
            let found = all.find(|c| c.id == iced);
            let found = found.ok_or_else(|| Error::Codegen("a label of nothing".into()))?;
            self.code.hole(at, from, found.number);
        }
        Ok(())
    }

    pub(super) fn operand(&mut self, s: Src) -> Result<Operand> {
        Ok(match s {
            Src::Reg(r) => Operand::Reg(r),
            Src::Mem(m) if self.isa == Isa::Avx512 => Operand::Mem(zmmword_ptr(m.x86())),
            Src::Mem(m) => Operand::Mem(ymmword_ptr(m.x86())),
            Src::Each(m) if self.isa == Isa::Avx512 => Operand::Mem(dword_bcst(m.x86())),
            Src::Each(_) => return Err(Error::Codegen("embedded broadcast needs AVX-512".into())),
            Src::Const(c) => self.constant(c.to_bits()),
            Src::Bits(b) => self.constant(b),
        })
    }

    fn constant(&mut self, bits: u32) -> Operand {
        let label = self.constant_label(bits).iced;
        Operand::Mem(match self.isa {
            Isa::Avx512 => dword_bcst(label),
            _ => ymmword_ptr(label),
        })
    }

    /// The same for instructions that are encoded here.
    pub(super) fn last(&mut self, s: Src) -> Result<Last> {
        let whole = if self.isa == Isa::Avx512 { Bytes::Each } else { Bytes::Vector };
        Ok(match s {
            Src::Reg(r) => Last::Reg(r),
            Src::Mem(m) => Last::Mem(m, Bytes::Vector),
            Src::Each(m) if self.isa == Isa::Avx512 => Last::Mem(m, Bytes::Each),
            Src::Each(_) => return Err(Error::Codegen("embedded broadcast needs AVX-512".into())),
            Src::Const(c) => Last::Label(self.constant_label(c.to_bits()).number, whole),
            Src::Bits(b) => Last::Label(self.constant_label(b).number, whole),
        })
    }

    fn constant_label(&mut self, bits: u32) -> Constant {
        let (a, code, next) = (&mut self.a, &mut self.code, self.constants.len() + self.tables.len());
        *self.constants.entry(bits).or_insert_with(|| Constant::new(a, code, next))
    }

    /// A constant vector (`lanes` words, repeated or cut to the width by the caller) behind the code.
    pub(super) fn table(&mut self, words: &[u32]) -> Constant {
        let (a, code, next) = (&mut self.a, &mut self.code, self.constants.len() + self.tables.len());
        *self.tables.entry(words.to_vec()).or_insert_with(|| Constant::new(a, code, next))
    }

    /// `d = ` one word for each lane, for [`Asm::permute`] and [`Asm::gather`].
    pub fn load_table(&mut self, d: usize, words: &[u32]) -> Result<Table> {
        if !self.records() {
            let table = self.table(words).number;
            let isa = self.isa;
            self.code()?.vector(isa, LOAD, d, None, Last::Label(table, Bytes::Vector));
        }
        Ok(Table { words: words.into(), reg: d })
    }

    op3! {
        /// `d = x + y`
        add => vaddps Opcode::new(1, 0, 0x58);
        /// `d = x - y`
        sub => vsubps Opcode::new(1, 0, 0x5c);
        /// `d = x * y`
        mul => vmulps Opcode::new(1, 0, 0x59);
        /// `d = x / y`
        div => vdivps Opcode::new(1, 0, 0x5e);
        /// `d = x < y ? x : y`: `y` when either is NaN, or both are zeros.
        min => vminps Opcode::new(1, 0, 0x5d);
        /// `d = x > y ? x : y`: `y` when either is NaN, or both are zeros.
        max => vmaxps Opcode::new(1, 0, 0x5f);
        /// `d = x * y + d`
        fma => vfmadd231ps FMA;
        /// `d = d * x + y`
        fma213 => vfmadd213ps Opcode::new(2, 1, 0xa8);
        /// `d = d - x * y`
        fnma => vfnmadd231ps Opcode::new(2, 1, 0xbc);
        /// `d = y - d * x`
        fnma213 => vfnmadd213ps Opcode::new(2, 1, 0xac);
        /// Bitwise and.
        and => vandps Opcode::new(1, 0, 0x54);
        /// `d = !x & y`
        andnot => vandnps Opcode::new(1, 0, 0x55);
        /// Bitwise or.
        or => vorps Opcode::new(1, 0, 0x56);
        /// Bitwise exclusive or.
        xor => vxorps Opcode::new(1, 0, 0x57);
        /// Integer `d = x + y` in each 32-bit lane.
        addi => vpaddd Opcode::new(1, 1, 0xfe);
        /// Integer `d = x - y` in each 32-bit lane.
        subi => vpsubd Opcode::new(1, 1, 0xfa);
        /// Interleaves the low halves of each 128-bit block.
        unpacklo => vunpcklps Opcode::new(1, 0, 0x14);
        /// Interleaves the high halves of each 128-bit block.
        unpackhi => vunpckhps Opcode::new(1, 0, 0x15);
        /// Interleaves the low 64 bits of each 128-bit block.
        unpacklo64 => vunpcklpd Opcode::new(1, 1, 0x14).of_64_bits();
        /// Interleaves the high 64 bits of each 128-bit block.
        unpackhi64 => vunpckhpd Opcode::new(1, 1, 0x15).of_64_bits();
    }
    op2! {
        /// `d = sqrt(x)`
        sqrt => vsqrtps;
        /// f32 to i32, of magnitudes below 2^22, rounding to nearest even.
        to_int => vcvtps2dq;
        /// i32 to f32.
        from_int => vcvtdq2ps;
    }

    /// `d = x * y + d` in the lower half of the lanes; AVX-512 clears the upper half. CPUs whose units are 256 bits wide
    /// do it in half the time.
    pub fn fma_low(&mut self, d: usize, x: usize, y: impl Into<Src>) -> Result<()> {
        let y = y.into();
        if self.isa != Isa::Avx512 {
            return self.fma(d, x, y);
        }
        let y = self.last(y)?;
        self.code()?.low_half(FMA, d, x, y);
        Ok(())
    }

    /// Permutes lanes: `d[i] = y[table[i]]`.
    pub fn permute(&mut self, d: usize, table: &Table, y: impl Into<Src>) -> Result<()> {
        let (y, x) = (y.into(), table.reg);
        if self.records() {
            return self.record(Ins::Permute(d, table.words.clone(), y));
        }
        let y = self.operand(y)?;
        match (self.isa, y) {
            (Isa::Avx512, Operand::Reg(y)) => self.a.vpermps(ZMM[d], ZMM[x], ZMM[y])?,
            (Isa::Avx512, Operand::Mem(y)) => self.a.vpermps(ZMM[d], ZMM[x], y)?,
            (_, Operand::Reg(y)) => self.a.vpermps(YMM[d], YMM[x], YMM[y])?,
            (_, Operand::Mem(y)) => self.a.vpermps(YMM[d], YMM[x], y)?,
        }
        Ok(())
    }

    /// Takes lanes of the vector at `m`: `d[i] = m[table[i] - lanes]`, and stays as it is where `table[i] == i`; `t` is
    /// overwritten on AVX2.
    pub fn take(&mut self, d: usize, table: &Table, m: Mem, t: usize) -> Result<()> {
        let x = table.reg;
        match self.isa {
            Isa::Baseline => self.record(Ins::Take(d, table.words.clone(), m))?,
            Isa::Avx512 | Isa::Amx => self.a.vpermt2ps(ZMM[d], ZMM[x], zmmword_ptr(m.x86()))?,
            Isa::Avx2 => {
                // the upper bits of an index do not matter
                self.a.vpermps(YMM[t], YMM[x], ymmword_ptr(m.x86()))?;
                let taken = (0..8).filter(|i| table.words.get(*i).is_some_and(|w| *w >= 8));
                self.a.vblendps(YMM[d], YMM[d], YMM[t], taken.map(|i| 1 << i).sum::<i32>())?;
            }
        }
        Ok(())
    }

    /// `d = x`
    pub fn mov(&mut self, d: usize, x: usize) -> Result<()> {
        match self.isa {
            Isa::Baseline => self.record(Ins::Mov(d, x))?,
            isa => self.code()?.vector(isa, MOVE, d, None, Last::Reg(x)),
        }
        Ok(())
    }

    /// `d = 0`
    pub fn zero(&mut self, d: usize) -> Result<()> {
        match self.isa {
            Isa::Baseline => self.record(Ins::Splat(d, 0))?,
            Isa::Avx512 => self.a.vpxord(ZMM[d], ZMM[d], ZMM[d])?,
            _ => self.a.vxorps(YMM[d], YMM[d], YMM[d])?,
        }
        Ok(())
    }

    /// `d = c` in every lane.
    pub fn splat(&mut self, d: usize, c: f32) -> Result<()> {
        if c.to_bits() == 0 {
            return self.zero(d);
        }
        if self.records() {
            return self.record(Ins::Splat(d, c.to_bits()));
        }
        let (isa, label) = (self.isa, self.constant_label(c.to_bits()).number);
        self.code()?.vector(isa, BROADCAST, d, None, Last::Label(label, Bytes::One));
        Ok(())
    }

    /// `d = f32 at m` in every lane.
    pub fn broadcast(&mut self, d: usize, m: Mem) -> Result<()> {
        if self.records() {
            return self.record(Ins::Broadcast(d, m));
        }
        let isa = self.isa;
        self.code()?.vector(isa, BROADCAST, d, None, Last::Mem(m, Bytes::One));
        Ok(())
    }

    /// `d = lane 0 of x` in every lane; `x` below 16.
    pub fn broadcast_lane0(&mut self, d: usize, x: usize) -> Result<()> {
        match self.isa {
            Isa::Baseline => self.record(Ins::BroadcastLane0(d, x))?,
            Isa::Avx512 => self.a.vbroadcastss(ZMM[d], XMM[x])?,
            _ => self.a.vbroadcastss(YMM[d], XMM[x])?,
        }
        Ok(())
    }

    /// Rounds to an integral value: `mode` 0 nearest even, 1 down, 2 up, 3 towards zero.
    pub fn round(&mut self, d: usize, x: usize, mode: u8) -> Result<()> {
        let imm = i32::from(mode & 3) | 8;
        match self.isa {
            Isa::Baseline => self.record(Ins::Round(d, x, mode))?,
            Isa::Avx512 => self.a.vrndscaleps(ZMM[d], ZMM[x], imm)?,
            _ => self.a.vroundps(YMM[d], YMM[x], imm)?,
        }
        Ok(())
    }

    /// Shifts each 32-bit lane left.
    pub fn shift_left(&mut self, d: usize, x: usize, bits: u8) -> Result<()> {
        match self.isa {
            Isa::Baseline => self.record(Ins::ShiftLeft(d, x, bits))?,
            Isa::Avx512 => self.a.vpslld(ZMM[d], ZMM[x], i32::from(bits))?,
            _ => self.a.vpslld(YMM[d], YMM[x], i32::from(bits))?,
        }
        Ok(())
    }

    /// Shifts each 32-bit lane right, keeping its sign.
    pub fn shift_right_arithmetic(&mut self, d: usize, x: usize, bits: u8) -> Result<()> {
        match self.isa {
            Isa::Baseline => self.record(Ins::ShiftRight(d, x, bits))?,
            Isa::Avx512 => self.a.vpsrad(ZMM[d], ZMM[x], i32::from(bits))?,
            _ => self.a.vpsrad(YMM[d], YMM[x], i32::from(bits))?,
        }
        Ok(())
    }

    /// `d = cmp(x, y) ? yes : no`. `t` is overwritten on AVX2; the last mask register on AVX-512.
    pub fn select(
        &mut self,
        d: usize,
        cmp: Cmp,
        x: usize,
        y: impl Into<Src>,
        yes: usize,
        no: usize,
        t: usize,
    ) -> Result<()> {
        let y = y.into();
        if self.records() {
            return self.record(Ins::Select { d, cmp, x, y, yes, no });
        }
        let y = self.operand(y)?;
        match self.isa {
            Isa::Avx512 => {
                match y {
                    Operand::Reg(y) => self.a.vcmpps(k7, ZMM[x], ZMM[y], cmp.imm())?,
                    Operand::Mem(y) => self.a.vcmpps(k7, ZMM[x], y, cmp.imm())?,
                }
                self.a.vblendmps(ZMM[d].k7(), ZMM[no], ZMM[yes])?;
            }
            _ => {
                match y {
                    Operand::Reg(y) => self.a.vcmpps(YMM[t], YMM[x], YMM[y], cmp.imm())?,
                    Operand::Mem(y) => self.a.vcmpps(YMM[t], YMM[x], y, cmp.imm())?,
                }
                self.a.vblendvps(YMM[d], YMM[no], YMM[yes], YMM[t])?;
            }
        }
        Ok(())
    }

    /// Writes 1 to the 32-bit word at `at` where a lane of `x` is NaN. `t` is overwritten on AVX2.
    pub fn mark_nan(&mut self, x: usize, t: usize, at: Mem) -> Result<()> {
        let skip = self.label();
        match self.isa {
            Isa::Avx512 | Isa::Amx => {
                self.a.vcmpps(k7, ZMM[x], ZMM[x], Cmp::Unordered.imm())?;
                self.a.kortestw(k7, k7)?;
            }
            Isa::Avx2 => {
                self.a.vcmpps(YMM[t], YMM[x], YMM[x], Cmp::Unordered.imm())?;
                self.a.vptest(YMM[t], YMM[t])?;
            }
            Isa::Baseline => return self.record(Ins::MarkNan(x, at)),
        }
        self.code()?.jump(Jump::Equal, skip.number);
        self.a.mov(dword_ptr(at.x86()), 1)?;
        self.bind(skip)
    }

    /// `d = the vector at m`
    pub fn load(&mut self, d: usize, m: Mem) -> Result<()> {
        self.load_lanes(d, m, Lanes::All)
    }

    /// The vector at `m = s`
    pub fn store(&mut self, m: Mem, s: usize) -> Result<()> {
        self.store_lanes(m, s, Lanes::All)
    }

    /// A mask of lanes `from..to` (a part of the width), kept for the rest of the function: takes a mask register (six at
    /// most) on AVX-512, the topmost free vector register on AVX2. Call it before registers are assigned.
    fn set_mask(&mut self, from: usize, to: usize) -> Result<Mask> {
        match self.isa {
            Isa::Baseline if from == 0 => Ok(Mask(to)),
            Isa::Baseline => Err(Error::unsupported("kernel", "a mask of inner lanes at the baseline")),
            Isa::Avx512 => {
                let k = *K
                    .get(self.kmasks)
                    .filter(|_| self.kmasks < 6)
                    .ok_or_else(|| Error::Codegen("out of masks".into()))?;
                self.a.mov(eax, ((1u64 << to) - (1u64 << from)) as u32)?;
                self.a.kmovw(k, eax)?;
                self.kmasks += 1;
                Ok(Mask(self.kmasks - 1))
            }
            _ => {
                let words: Vec<u32> =
                    (0..8).map(|i| if (from..to).contains(&i) { u32::MAX } else { 0 }).collect();
                let table = self.table(&words).number;
                self.reserved += 1;
                let r = self.regs();
                self.code()?.vector(Isa::Avx2, LOAD, r, None, Last::Label(table, Bytes::Vector));
                Ok(Mask(r))
            }
        }
    }

    /// `All` when `lanes` fills the vector, else a new mask.
    pub fn lanes(&mut self, lanes: usize) -> Result<Lanes> {
        self.lane_range(0, lanes)
    }

    /// `All` when lanes `from..to` are all, else a new mask of them.
    pub fn lane_range(&mut self, from: usize, to: usize) -> Result<Lanes> {
        let all = from == 0 && to == self.isa.lanes();
        if all { Ok(Lanes::All) } else { Ok(Lanes::Masked(self.set_mask(from, to)?)) }
    }

    /// Loads some lanes; the others become 0 and are not read.
    pub fn load_lanes(&mut self, d: usize, m: Mem, lanes: Lanes) -> Result<()> {
        if self.records() {
            let lanes = self.count(lanes);
            return self.record(Ins::Load { d, at: m, lanes });
        }
        let (at, m) = (m, m.x86());
        match (self.isa, lanes) {
            (isa, Lanes::All) => self.code()?.vector(isa, LOAD, d, None, Last::Mem(at, Bytes::Vector)),
            (Isa::Avx512, Lanes::Masked(Mask(k))) => {
                let dst = [ZMM[d].k1(), ZMM[d].k2(), ZMM[d].k3(), ZMM[d].k4(), ZMM[d].k5(), ZMM[d].k6()][k];
                self.a.vmovups(dst.z(), zmmword_ptr(m))?;
            }
            (_, Lanes::Masked(Mask(r))) => self.a.vmaskmovps(YMM[d], YMM[r], ymmword_ptr(m))?,
        }
        Ok(())
    }

    /// The number of lanes, at the baseline.
    fn count(&self, lanes: Lanes) -> usize {
        match lanes {
            Lanes::All => self.isa.lanes(),
            Lanes::Masked(Mask(n)) => n,
        }
    }

    /// Puts `other` into the lanes of `d` that a mask leaves out.
    pub fn blend_lanes(&mut self, d: usize, other: usize, lanes: Lanes) -> Result<()> {
        match (self.isa, lanes) {
            (_, Lanes::All) => {}
            (Isa::Baseline, Lanes::Masked(Mask(lanes))) => self.record(Ins::Blend { d, other, lanes })?,
            (Isa::Avx512, Lanes::Masked(Mask(k))) => {
                let dst = [ZMM[d].k1(), ZMM[d].k2(), ZMM[d].k3(), ZMM[d].k4(), ZMM[d].k5(), ZMM[d].k6()][k];
                self.a.vblendmps(dst, ZMM[other], ZMM[d])?;
            }
            (_, Lanes::Masked(Mask(r))) => self.a.vblendvps(YMM[d], YMM[other], YMM[d], YMM[r])?,
        }
        Ok(())
    }

    /// Stores some lanes; the others are not written.
    pub fn store_lanes(&mut self, m: Mem, s: usize, lanes: Lanes) -> Result<()> {
        if self.records() {
            let lanes = self.count(lanes);
            return self.record(Ins::Store { at: m, s, lanes });
        }
        let (at, m) = (m, m.x86());
        match (self.isa, lanes) {
            (isa, Lanes::All) => self.code()?.vector(isa, STORE, s, None, Last::Mem(at, Bytes::Vector)),
            (Isa::Avx512, Lanes::Masked(Mask(k))) => {
                let m = zmmword_ptr(m);
                let dst = [m.k1(), m.k2(), m.k3(), m.k4(), m.k5(), m.k6()][k];
                self.a.vmovups(dst, ZMM[s])?;
            }
            (_, Lanes::Masked(Mask(r))) => self.a.vmaskmovps(ymmword_ptr(m), YMM[r], YMM[s])?,
        }
        Ok(())
    }

    /// `d[i] = f32 at base + offset + table[i]` for every lane, all in bytes; `t` is overwritten on AVX2.
    pub fn gather(&mut self, d: usize, base: Reg, offset: i32, table: &Table, t: usize) -> Result<()> {
        let (from, index) = (base.x86(), table.reg);
        match self.isa {
            Isa::Baseline => self.record(Ins::Gather(d, base + offset, table.words.clone()))?,
            Isa::Avx512 | Isa::Amx => {
                self.a.kxnorw(k7, k7, k7)?;
                self.a.vgatherdps(ZMM[d].k7(), dword_ptr(from + ZMM[index] + offset))?;
            }
            Isa::Avx2 => {
                self.a.vpcmpeqd(YMM[t], YMM[t], YMM[t])?;
                self.a.vgatherdps_3(YMM[d], dword_ptr(from + YMM[index] + offset), YMM[t])?;
            }
        }
        Ok(())
    }

    /// Shuffles 128-bit blocks; AVX-512: `imm` picks two blocks of `x`, then two of `y`; AVX2: as `vperm2f128`. There is
    /// only one at the baseline.
    pub fn shuffle_blocks(&mut self, d: usize, x: usize, y: usize, imm: i32) -> Result<()> {
        match self.isa {
            Isa::Baseline => return Err(Error::Codegen("blocks of one vector are shuffled".into())),
            Isa::Avx512 => self.a.vshuff32x4(ZMM[d], ZMM[x], ZMM[y], imm)?,
            _ => self.a.vperm2f128(YMM[d], YMM[x], YMM[y], imm)?,
        }
        Ok(())
    }

    /// Sums the lanes of `x` into lane 0 of `x`; `x` and `t` below 16.
    pub fn sum_lanes(&mut self, x: usize, t: usize) -> Result<()> {
        if self.records() {
            return self.record(Ins::SumLanes(x));
        }
        if self.isa == Isa::Avx512 {
            self.a.vextractf64x4(YMM[t], ZMM[x], 1)?;
            self.a.vaddps(YMM[x], YMM[x], YMM[t])?;
        }
        self.a.vextractf128(XMM[t], YMM[x], 1)?;
        self.a.vaddps(XMM[x], XMM[x], XMM[t])?;
        self.a.vshufps(XMM[t], XMM[x], XMM[x], 0b01_00_11_10)?;
        self.a.vaddps(XMM[x], XMM[x], XMM[t])?;
        self.a.vshufps(XMM[t], XMM[x], XMM[x], 0b10_11_00_01)?;
        self.a.vaddps(XMM[x], XMM[x], XMM[t])?;
        Ok(())
    }

    /// The largest lane of `x` into lane 0 of `x`; NaN is not kept for certain; `x` and `t` below 16.
    pub fn max_lanes(&mut self, x: usize, t: usize) -> Result<()> {
        if self.records() {
            return self.record(Ins::MaxLanes(x));
        }
        if self.isa == Isa::Avx512 {
            self.a.vextractf64x4(YMM[t], ZMM[x], 1)?;
            self.a.vmaxps(YMM[x], YMM[x], YMM[t])?;
        }
        self.a.vextractf128(XMM[t], YMM[x], 1)?;
        self.a.vmaxps(XMM[x], XMM[x], XMM[t])?;
        self.a.vshufps(XMM[t], XMM[x], XMM[x], 0b01_00_11_10)?;
        self.a.vmaxps(XMM[x], XMM[x], XMM[t])?;
        self.a.vshufps(XMM[t], XMM[x], XMM[x], 0b10_11_00_01)?;
        self.a.vmaxps(XMM[x], XMM[x], XMM[t])?;
        Ok(())
    }

    /// Stores lane 0 of `s` (below 16).
    pub fn store_lane0(&mut self, m: Mem, s: usize) -> Result<()> {
        if self.records() {
            return self.record(Ins::Store { at: m, s, lanes: 1 });
        }
        Ok(self.a.vmovss(dword_ptr(m.x86()), XMM[s])?)
    }

    /// `2^n * x` by exponent arithmetic needs AVX-512: `d = x * 2^floor(y)`.
    pub(crate) fn scale_by_power(&mut self, d: usize, x: usize, y: usize) -> Result<()> {
        Ok(self.a.vscalefps(ZMM[d], ZMM[x], ZMM[y])?)
    }

    /// Asks for the cache line at `m`; CLIF has no such instruction.
    pub fn prefetch(&mut self, m: Mem) -> Result<()> {
        match self.records() {
            true => Ok(()),
            false => {
                self.code()?.prefetch(m);
                Ok(())
            }
        }
    }

    /// Ends the function with `vzeroupper; ret` and puts the constants behind it; at the baseline gives the list.
    ///
    /// # Errors
    /// When a baseline kernel used [`Asm::a`].
    pub fn finish(mut self) -> Result<Assembled> {
        if self.records() {
            return match self.a.instructions() {
                [] => Ok(Assembled(Form::Portable(self.portable))),
                _ => Err(Error::unsupported("assembled kernel", "it is written for x86-64 only")),
            };
        }
        self.a.vzeroupper()?;
        self.a.ret()?;
        self.encode()?;
        let (mut code, width) = (self.code, if self.isa == Isa::Avx512 { 1 } else { 8 });
        for (bits, constant) in self.constants {
            code.bind(constant.number);
            code.bytes.extend(std::iter::repeat_n(bits.to_le_bytes(), width).flatten());
        }
        for (words, table) in self.tables {
            code.bind(table.number);
            code.bytes.extend(words.iter().flat_map(|w| w.to_le_bytes()));
        }
        Ok(Assembled(Form::Bytes(code.finish()?)))
    }
}
