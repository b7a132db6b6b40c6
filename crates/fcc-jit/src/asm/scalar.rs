//! Counting, addressing and branching.

use super::encode::Jump;
use super::ins::{Cond, Ins};
use super::reg::{Mem, Reg};
use super::wide::{Asm, Label};
use crate::error::{Error, Result};
use iced_x86::code_asm::registers::rsp;
use iced_x86::code_asm::{AsmMemoryOperand, qword_ptr};

/// A number that an instruction can hold.
fn small(n: i64) -> Result<i32> {
    i32::try_from(n).map_err(|_| Error::unsupported("kernel", format!("the number {n} does not fit 32 bits")))
}

/// In portable code a slot is one more register.
fn slot_reg(i: usize) -> Reg {
    Reg(16 + i as u8)
}
fn slot_at(i: usize) -> AsmMemoryOperand {
    qword_ptr(rsp + 8 * i as i32)
}

impl Asm {
    /// `r = n`
    pub fn set(&mut self, r: Reg, n: u32) -> Result<()> {
        if self.records() {
            return self.record(Ins::Set(r, n.into()));
        }
        match n {
            0 => self.a.xor(r.x86_half(), r.x86_half())?,
            _ => self.a.mov(r.x86_half(), n)?,
        }
        Ok(())
    }

    /// `d = s`
    pub fn copy(&mut self, d: Reg, s: Reg) -> Result<()> {
        if self.records() {
            return self.record(Ins::Copy(d, s));
        }
        Ok(self.a.mov(d.x86(), s.x86())?)
    }

    /// `d = ` the address
    pub fn lea(&mut self, d: Reg, m: Mem) -> Result<()> {
        if !self.records() {
            return Ok(self.a.lea(d.x86(), m.x86())?);
        }
        let other = m.index.filter(|i| *i == d);
        self.record(Ins::Copy(d, m.base))?;
        match (other, m.index) {
            (Some(_), _) => return Err(Error::Codegen("an address is put into its own index".into())),
            (None, Some(i)) => self.record(Ins::Add(d, i))?,
            (None, None) => {}
        }
        self.record(Ins::AddImm(d, m.offset.into()))
    }

    /// `r += n`
    pub fn add_imm(&mut self, r: Reg, n: i64) -> Result<()> {
        let imm = small(n)?;
        if imm == 0 {
            return Ok(());
        }
        if self.records() {
            return self.record(Ins::AddImm(r, n));
        }
        Ok(self.a.add(r.x86(), imm)?)
    }

    /// `d += s`
    pub fn add_reg(&mut self, d: Reg, s: Reg) -> Result<()> {
        if self.records() {
            return self.record(Ins::Add(d, s));
        }
        Ok(self.a.add(d.x86(), s.x86())?)
    }

    /// `d = s * n`
    pub fn mul_imm(&mut self, d: Reg, s: Reg, n: i64) -> Result<()> {
        let imm = small(n)?;
        if self.records() {
            return self.record(Ins::MulImm(d, s, n));
        }
        Ok(self.a.imul_3(d.x86(), s.x86(), imm)?)
    }

    /// `r = -r`
    pub fn neg(&mut self, r: Reg) -> Result<()> {
        if self.records() {
            return self.record(Ins::Neg(r));
        }
        Ok(self.a.neg(r.x86())?)
    }

    /// A label, to be bound once.
    pub fn label(&mut self) -> Label {
        self.labels += 1;
        Label { number: if self.records() { self.labels - 1 } else { self.new_label() } }
    }

    /// Puts a label here.
    pub fn bind(&mut self, label: Label) -> Result<()> {
        if self.records() {
            return self.record(Ins::Bind(label.number));
        }
        self.code()?.bind(label.number);
        Ok(())
    }

    /// A label put here: the top of a loop.
    pub fn here(&mut self) -> Result<Label> {
        let label = self.label();
        self.bind(label)?;
        Ok(label)
    }

    /// Goes to `to` if the signed comparison of `r` with `n` holds.
    pub fn branch(&mut self, r: Reg, cond: Cond, n: i64, to: Label) -> Result<()> {
        let imm = small(n)?;
        if self.records() {
            return self.record(Ins::Branch(r, cond, n, to.number));
        }
        self.a.cmp(r.x86(), imm)?;
        self.jump(cond, to)
    }

    fn jump(&mut self, cond: Cond, to: Label) -> Result<()> {
        let condition = match cond {
            Cond::Eq => Jump::Equal,
            Cond::Ne => Jump::NotEqual,
            Cond::Lt => Jump::Less,
            Cond::Le => Jump::LessOrEqual,
            Cond::Ge => Jump::GreaterOrEqual,
        };
        self.code()?.jump(condition, to.number);
        Ok(())
    }

    /// `r -= n`, then goes to `to` if the signed comparison of `r` with 0 holds.
    pub fn sub_branch(&mut self, r: Reg, n: i64, cond: Cond, to: Label) -> Result<()> {
        let imm = small(n)?;
        if self.records() {
            self.record(Ins::AddImm(r, -n))?;
            return self.record(Ins::Branch(r, cond, 0, to.number));
        }
        self.a.sub(r.x86(), imm)?;
        self.jump(cond, to)
    }

    /// Begins a loop of `n` turns (at least 1) that `r` counts; [`Asm::again`] ends it.
    pub fn repeat(&mut self, r: Reg, n: usize) -> Result<Label> {
        let n =
            u32::try_from(n).map_err(|_| Error::unsupported("kernel", format!("{n} turns of one loop")))?;
        self.set(r, n)?;
        self.here()
    }

    /// The end of a loop that `r` counts down.
    pub fn again(&mut self, r: Reg, top: Label) -> Result<()> {
        if self.records() {
            return self.sub_branch(r, 1, Cond::Ne, top);
        }
        self.a.dec(r.x86_half())?;
        self.jump(Cond::Ne, top)
    }

    /// The same where the counter may have 64 bits.
    pub fn again_wide(&mut self, r: Reg, top: Label) -> Result<()> {
        if self.records() {
            return self.sub_branch(r, 1, Cond::Ne, top);
        }
        self.a.dec(r.x86())?;
        self.jump(Cond::Ne, top)
    }

    /// The end of a loop in which `r` goes by `step` up to `end`.
    pub fn until(&mut self, r: Reg, step: i32, end: i32, top: Label) -> Result<()> {
        self.add_imm(r, step.into())?;
        self.branch(r, Cond::Ne, end.into(), top)
    }

    /// Keeps what `saved` holds, and makes room for some slots of 64 bits.
    pub fn enter(&mut self, saved: &[Reg], slots: usize) -> Result<()> {
        if self.records() {
            return Ok(());
        }
        for r in saved {
            self.a.push(r.x86())?;
        }
        Ok(self.a.sub(rsp, 8 * slots as i32)?)
    }

    /// Undoes [`Asm::enter`].
    pub fn leave(&mut self, saved: &[Reg], slots: usize) -> Result<()> {
        if self.records() {
            return Ok(());
        }
        self.a.add(rsp, 8 * slots as i32)?;
        for r in saved.iter().rev() {
            self.a.pop(r.x86())?;
        }
        Ok(())
    }

    /// Slot `i` = `n`
    pub fn set_slot(&mut self, i: usize, n: i64) -> Result<()> {
        let imm = small(n)?;
        if self.records() {
            return self.record(Ins::Set(slot_reg(i), n));
        }
        Ok(self.a.mov(slot_at(i), imm)?)
    }

    /// Slot `i` = `r`
    pub fn store_slot(&mut self, i: usize, r: Reg) -> Result<()> {
        if self.records() {
            return self.record(Ins::Copy(slot_reg(i), r));
        }
        Ok(self.a.mov(slot_at(i), r.x86())?)
    }

    /// `r` = slot `i`
    pub fn load_slot(&mut self, r: Reg, i: usize) -> Result<()> {
        if self.records() {
            return self.record(Ins::Copy(r, slot_reg(i)));
        }
        Ok(self.a.mov(r.x86(), slot_at(i))?)
    }

    /// The end of a loop that slot `i` counts down.
    pub fn again_slot(&mut self, i: usize, top: Label) -> Result<()> {
        if self.records() {
            return self.sub_branch(slot_reg(i), 1, Cond::Ne, top);
        }
        self.a.dec(slot_at(i))?;
        self.jump(Cond::Ne, top)
    }

    /// `r` = the pointer at `base`.
    pub fn load_pointer(&mut self, r: Reg, at: Mem) -> Result<()> {
        if self.records() {
            return self.record(Ins::LoadPointer(r, at));
        }
        Ok(self.a.mov(r.x86(), qword_ptr(at.x86()))?)
    }
}
