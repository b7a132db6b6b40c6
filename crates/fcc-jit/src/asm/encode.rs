//! The bytes of the instructions that kernels are full of. Everything else is encoded by iced, at some twenty times the
//! cost: an unrolled kernel has hundreds of multiply-adds, and a small model a hundred kernels.
//!
//! A test compares each of these instructions, in every form, with iced's encoding of it.

use super::isa::Isa;
use super::reg::{Mem, Reg};
use crate::error::{Error, Result};

/// An instruction of vectors: its opcode in both encodings, where only the width and W differ.
#[derive(Clone, Copy, Debug)]
pub(super) struct Opcode {
    /// 1: 0F, 2: 0F 38.
    pub map: u8,
    /// Implied prefix: 0 none, 1 66, 2 F3, 3 F2.
    pub prefix: u8,
    pub code: u8,
    /// W of the EVEX encoding; the VEX encoding has none.
    pub wide: bool,
}

impl Opcode {
    pub const fn new(map: u8, prefix: u8, code: u8) -> Opcode {
        Opcode { map, prefix, code, wide: false }
    }
    /// With W in its EVEX encoding.
    pub const fn of_64_bits(self) -> Opcode {
        Opcode { wide: true, ..self }
    }
}

pub(super) const LOAD: Opcode = Opcode::new(1, 0, 0x10);
pub(super) const STORE: Opcode = Opcode::new(1, 0, 0x11);
pub(super) const MOVE: Opcode = Opcode::new(1, 0, 0x28);
pub(super) const FMA: Opcode = Opcode::new(2, 1, 0xb8);
pub(super) const BROADCAST: Opcode = Opcode::new(2, 1, 0x18);

/// The last operand of an instruction.
#[derive(Clone, Copy, Debug)]
pub(super) enum Last {
    Reg(usize),
    /// What the instruction reads or writes at an address: this many bytes.
    Mem(Mem, Bytes),
    /// The same at a label.
    Label(usize, Bytes),
}

/// How much of memory an instruction touches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bytes {
    /// A whole vector.
    Vector,
    /// One f32, which an instruction of vectors takes for every lane (EVEX).
    Each,
    /// One f32, which is all that the instruction reads.
    One,
}

/// How an instruction is encoded, and how wide it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// 256 bits of the first 16 registers.
    Vex,
    /// 256 bits of any register.
    Evex256,
    /// 512 bits of any register.
    Evex512,
}

/// Conditions of jumps, as the opcode has them.
#[derive(Clone, Copy, Debug)]
pub(super) enum Jump {
    Equal = 4,
    NotEqual = 5,
    Less = 0xc,
    GreaterOrEqual = 0xd,
    LessOrEqual = 0xe,
}

/// A distance that is known when its label is: 32 bits, counted from `from`.
struct Hole {
    at: usize,
    from: usize,
    label: usize,
}

/// Machine code while it is written.
#[derive(Default)]
pub(super) struct Code {
    pub bytes: Vec<u8>,
    /// Where labels are.
    places: Vec<Option<usize>>,
    holes: Vec<Hole>,
}

impl Code {
    /// A new label, to be bound once.
    pub fn label(&mut self) -> usize {
        self.places.push(None);
        self.places.len() - 1
    }
    /// Puts a label here.
    pub fn bind(&mut self, label: usize) {
        self.places[label] = Some(self.bytes.len());
    }
    /// Notes that the 32 bits at `at` are the distance of a label from `from`.
    pub fn hole(&mut self, at: usize, from: usize, label: usize) {
        self.holes.push(Hole { at, from, label });
    }

    /// The code, its distances filled in.
    ///
    /// # Errors
    /// When a label that is used is nowhere, or too far away.
    pub fn finish(mut self) -> Result<Vec<u8>> {
        for hole in &self.holes {
            let place = self.places[hole.label];
            let place = place.ok_or_else(|| Error::Codegen(format!("label {} is nowhere", hole.label)))?;
            let distance = i32::try_from(place as i64 - hole.from as i64);
            let distance = distance.map_err(|_| Error::Codegen("a label is too far away".into()))?;
            self.bytes[hole.at..hole.at + 4].copy_from_slice(&distance.to_le_bytes());
        }
        Ok(self.bytes)
    }

    /// Goes to a label if a condition holds.
    pub fn jump(&mut self, condition: Jump, to: usize) {
        let (code, end) = (condition as u8, self.bytes.len() as i64 + 2);
        let near = self.places[to].and_then(|place| i8::try_from(place as i64 - end).ok());
        if let Some(distance) = near {
            self.bytes.extend([0x70 | code, distance as u8]);
            return;
        }
        self.bytes.extend([0x0f, 0x80 | code, 0, 0, 0, 0]);
        let end = self.bytes.len();
        self.hole(end - 4, end, to);
    }

    /// `prefetcht0`
    pub fn prefetch(&mut self, m: Mem) {
        let (x, b) = (m.index.is_some_and(|i| i.0 >= 8), m.base.0 >= 8);
        if x || b {
            self.bytes.push(0x40 | u8::from(x) << 1 | u8::from(b));
        }
        self.bytes.extend([0x0f, 0x18]);
        self.address(1, m, 1);
    }

    /// An instruction whose registers are `d` and, if it has three operands, `v`.
    pub fn vector(&mut self, isa: Isa, op: Opcode, d: usize, v: Option<usize>, last: Last) {
        let form = if isa == Isa::Avx512 { Form::Evex512 } else { Form::Vex };
        self.instruction(form, op, d, v.unwrap_or(0), last);
    }

    /// An instruction of the lower halves of 512-bit registers, all 32 of them.
    pub fn low_half(&mut self, op: Opcode, d: usize, v: usize, last: Last) {
        self.instruction(Form::Evex256, op, d, v, last);
    }

    fn instruction(&mut self, form: Form, op: Opcode, d: usize, v: usize, last: Last) {
        let (x, b) = match last {
            Last::Reg(r) => (r & 16 != 0, r & 8 != 0),
            Last::Mem(m, _) => (m.index.is_some_and(|i| i.0 >= 8), m.base.0 >= 8),
            Last::Label(..) => (false, false),
        };
        let each = matches!(last, Last::Mem(_, Bytes::Each) | Last::Label(_, Bytes::Each));
        match form {
            Form::Vex => self.vex(op, d, v, x, b),
            Form::Evex256 => self.evex(0x20, op, d, v, x, b, each),
            Form::Evex512 => self.evex(0x40, op, d, v, x, b, each),
        }
        self.bytes.push(op.code);
        let field = d as u8 & 7;
        match last {
            Last::Reg(r) => self.bytes.push(0xc0 | field << 3 | r as u8 & 7),
            Last::Mem(m, bytes) => {
                let unit = match (form, bytes) {
                    (Form::Vex, _) => 1,
                    (Form::Evex256, Bytes::Vector) => 32,
                    (Form::Evex512, Bytes::Vector) => 64,
                    _ => 4,
                };
                self.address(field, m, unit);
            }
            Last::Label(label, _) => {
                self.bytes.extend([field << 3 | 5, 0, 0, 0, 0]);
                let end = self.bytes.len();
                self.hole(end - 4, end, label);
            }
        }
    }

    /// The prefix of instructions of AVX-512, with the bit of their length; registers are extended by inverted bits.
    fn evex(&mut self, length: u8, op: Opcode, d: usize, v: usize, x: bool, b: bool, each: bool) {
        let bit = |set: bool, at: u8| u8::from(set) << at;
        let d_low = bit(d & 8 == 0, 7) | bit(d & 16 == 0, 4);
        self.bytes.push(0x62);
        self.bytes.push(d_low | bit(!x, 6) | bit(!b, 5) | op.map);
        self.bytes.push(bit(op.wide, 7) | (!(v as u8) & 15) << 3 | 4 | op.prefix);
        self.bytes.push(length | bit(each, 4) | bit(v & 16 == 0, 3));
    }

    /// The prefix of 256-bit instructions, of two bytes where that can say it.
    fn vex(&mut self, op: Opcode, d: usize, v: usize, x: bool, b: bool) {
        let bit = |set: bool, at: u8| u8::from(set) << at;
        let last = (!(v as u8) & 15) << 3 | 4 | op.prefix;
        if op.map == 1 && !x && !b {
            self.bytes.extend([0xc5, bit(d & 8 == 0, 7) | last]);
        } else {
            self.bytes.extend([0xc4, bit(d & 8 == 0, 7) | bit(!x, 6) | bit(!b, 5) | op.map, last]);
        }
    }

    /// The bytes that say an address, whose short offsets count in `unit` bytes.
    fn address(&mut self, field: u8, m: Mem, unit: i32) {
        let low = |r: Reg| r.0 & 7;
        let short = i8::try_from(m.offset / unit).ok().filter(|_| m.offset % unit == 0);
        // rbp and r13 have no form without an offset
        let (mode, short) = match short {
            Some(0) if low(m.base) != 5 => (0, None),
            Some(n) => (0x40, Some(n)),
            None => (0x80, None),
        };
        match m.index {
            Some(index) => self.bytes.extend([mode | field << 3 | 4, low(index) << 3 | low(m.base)]),
            // rsp and r12 need the second byte
            None if low(m.base) == 4 => self.bytes.extend([mode | field << 3 | 4, 0x24]),
            None => self.bytes.push(mode | field << 3 | low(m.base)),
        }
        match (mode, short) {
            (0x40, Some(n)) => self.bytes.push(n as u8),
            (0x80, _) => self.bytes.extend(m.offset.to_le_bytes()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::reg::*;
    use super::super::wide::{Asm, Operand, YMM, ZMM};
    use super::*;
    use iced_x86::code_asm::{
        AsmMemoryOperand, CodeAssembler, byte_ptr, dword_bcst, dword_ptr, ymmword_ptr, zmmword_ptr,
    };
    use iced_x86::{Decoder, DecoderOptions, Mnemonic};

    const LEVELS: [Isa; 2] = [Isa::Avx2, Isa::Avx512];

    /// Addresses of every form: bases and indexes with and without high bits, offsets around what is short.
    fn addresses() -> Vec<Mem> {
        let bases = [rax, rcx, rbx, rbp, rsi, rdi, r8, r11, r12, r13, r15];
        let units = [1, 4, 64];
        let offsets = units.iter().flat_map(|u| [0, 1, 127, 128, -128, -129, 5000].map(|n| n * u));
        let offsets: Vec<i32> = offsets.chain([3, -1, 68, 100_000_003]).collect();
        let mut all = vec![];
        for base in bases {
            for &offset in &offsets {
                all.push(base + offset);
                all.extend([rax, rbp, r9, r12, r13].map(|index| base + index + offset));
            }
        }
        all
    }

    fn by_iced(make: impl FnOnce(&mut CodeAssembler)) -> Vec<u8> {
        let mut a = CodeAssembler::new(64).expect("assembler");
        make(&mut a);
        a.assemble(0).expect("code")
    }
    fn here(make: impl FnOnce(&mut Code)) -> Vec<u8> {
        let mut code = Code::default();
        make(&mut code);
        code.finish().expect("code")
    }
    fn whole(isa: Isa, m: Mem) -> AsmMemoryOperand {
        if isa == Isa::Avx512 { zmmword_ptr(m.x86()) } else { ymmword_ptr(m.x86()) }
    }

    #[test]
    fn three_operands_are_encoded_as_iced_does() {
        for &(op, iced) in Asm::OP3 {
            for isa in LEVELS {
                let check = |d: usize, v: usize, last: Last, operand: Operand| {
                    let want = by_iced(|a| iced(a, isa, d, v, operand).expect("instruction"));
                    let got = here(|code| code.vector(isa, op, d, Some(v), last));
                    assert_eq!(got, want, "{op:?} {isa} {d} {v} {last:?}");
                };
                let n = isa.registers();
                for (d, v, r) in (0..n).flat_map(|i| [(i, 1, 2), (1, i, n - 1), (n - 1, 2, i), (i, i, i)]) {
                    check(d, v, Last::Reg(r), Operand::Reg(r));
                }
                for m in addresses() {
                    check(n - 1, n - 2, Last::Mem(m, Bytes::Vector), Operand::Mem(whole(isa, m)));
                    // of 64-bit operations iced has a broadcast of 64 bits
                    if isa == Isa::Avx512 && !op.wide {
                        check(2, 17, Last::Mem(m, Bytes::Each), Operand::Mem(dword_bcst(m.x86())));
                    }
                }
            }
        }
    }

    #[test]
    fn moves_are_encoded_as_iced_does() {
        for isa in LEVELS {
            let wide = isa == Isa::Avx512;
            for (r, m) in (0..isa.registers()).cycle().zip(addresses()) {
                let at = whole(isa, m);
                let one = dword_ptr(m.x86());
                let iced = |which: usize| {
                    by_iced(|a| {
                        match (which, wide) {
                            (0, true) => a.vmovups(ZMM[r], at),
                            (0, false) => a.vmovups(YMM[r], at),
                            (1, true) => a.vmovups(at, ZMM[r]),
                            (1, false) => a.vmovups(at, YMM[r]),
                            (2, true) => a.vbroadcastss(ZMM[r], one),
                            (2, false) => a.vbroadcastss(YMM[r], one),
                            (3, true) => a.vmovaps(ZMM[r], ZMM[5]),
                            (3, false) => a.vmovaps(YMM[r], YMM[5]),
                            _ => a.prefetcht0(byte_ptr(m.x86())),
                        }
                        .expect("instruction");
                    })
                };
                let mem = Last::Mem(m, Bytes::Vector);
                assert_eq!(here(|c| c.vector(isa, LOAD, r, None, mem)), iced(0), "{isa} {r} {m:?}");
                assert_eq!(here(|c| c.vector(isa, STORE, r, None, mem)), iced(1), "{isa} {r} {m:?}");
                let mem = Last::Mem(m, Bytes::One);
                assert_eq!(here(|c| c.vector(isa, BROADCAST, r, None, mem)), iced(2), "{isa} {r} {m:?}");
                assert_eq!(here(|c| c.vector(isa, MOVE, r, None, Last::Reg(5))), iced(3), "{isa} {r}");
                assert_eq!(here(|c| c.prefetch(m)), iced(4), "{m:?}");
            }
        }
    }

    #[test]
    fn halves_are_encoded_as_iced_does() {
        let check = |d: usize, v: usize, last: Last, y: Operand| {
            let want = by_iced(|a| match y {
                Operand::Reg(y) => a.evex().vfmadd231ps(YMM[d], YMM[v], YMM[y]).expect("instruction"),
                Operand::Mem(y) => a.evex().vfmadd231ps(YMM[d], YMM[v], y).expect("instruction"),
            });
            assert_eq!(here(|c| c.low_half(FMA, d, v, last)), want, "{d} {v} {last:?}");
        };
        for (d, v, r) in (0..32).flat_map(|i| [(i, 1, 2), (1, i, 31), (31, 2, i), (i, i, i)]) {
            check(d, v, Last::Reg(r), Operand::Reg(r));
        }
        for m in addresses() {
            check(31, 30, Last::Mem(m, Bytes::Vector), Operand::Mem(ymmword_ptr(m.x86())));
            check(2, 17, Last::Mem(m, Bytes::Each), Operand::Mem(dword_bcst(m.x86())));
        }
    }

    #[test]
    fn jumps_and_constants_find_their_labels() {
        for padding in [0, 20, 200] {
            let code = here(|code| {
                let (top, end, constant) = (code.label(), code.label(), code.label());
                code.bind(top);
                code.jump(Jump::Equal, end);
                code.vector(Isa::Avx512, LOAD, 20, None, Last::Label(constant, Bytes::Vector));
                for _ in 0..padding {
                    code.vector(Isa::Avx2, MOVE, 1, None, Last::Reg(2));
                }
                code.jump(Jump::Less, top);
                code.bind(end);
                code.bytes.push(0xc3);
                code.bind(constant);
                code.bytes.extend([0; 64]);
            });
            let all: Vec<_> = Decoder::with_ip(64, &code, 0, DecoderOptions::NONE).into_iter().collect();
            let at = |m: Mnemonic| all.iter().find(|i| i.mnemonic() == m).expect("the instruction");
            let ret = at(Mnemonic::Ret).ip();
            assert_eq!(at(Mnemonic::Je).near_branch_target(), ret);
            assert_eq!(at(Mnemonic::Jl).near_branch_target(), 0);
            assert_eq!(at(Mnemonic::Vmovups).ip_rel_memory_address(), ret + 1);
            assert_eq!(at(Mnemonic::Jl).len(), if padding == 200 { 6 } else { 2 });
        }
    }

    #[test]
    fn a_label_that_is_nowhere_is_an_error() {
        let mut code = Code::default();
        let label = code.label();
        code.jump(Jump::Equal, label);
        assert!(code.finish().is_err());
    }
}
