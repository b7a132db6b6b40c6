//! What a kernel does, kept as a list: the form that becomes CLIF at the baseline.

use super::reg::{Mem, Reg};
use super::wide::{Cmp, Src};
use std::rc::Rc;

/// Two vectors to one, lane by lane unless said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub(crate) enum Op3 {
    add,
    sub,
    mul,
    div,
    min,
    max,
    /// `d = x * y + d`
    fma,
    /// `d = d * x + y`
    fma213,
    /// `d = d - x * y`
    fnma,
    /// `d = y - d * x`
    fnma213,
    and,
    andnot,
    or,
    xor,
    addi,
    subi,
    unpacklo,
    unpackhi,
    unpacklo64,
    unpackhi64,
}

impl Op3 {
    /// Whether what `d` held before matters.
    pub fn accumulates(self) -> bool {
        matches!(self, Op3::fma | Op3::fma213 | Op3::fnma | Op3::fnma213)
    }
}

/// One vector to another, lane by lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(non_camel_case_types)]
pub(crate) enum Op2 {
    sqrt,
    to_int,
    from_int,
}

/// When a branch is taken: comparisons of signed numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cond {
    /// Equal.
    Eq,
    /// Not equal.
    Ne,
    /// Less than.
    Lt,
    /// Less than or equal.
    Le,
    /// Greater than or equal.
    Ge,
}

/// One instruction. Vector registers are numbers; `lanes` counts the first lanes that are touched.
#[derive(Clone, Debug)]
pub(crate) enum Ins {
    Op3(Op3, usize, usize, Src),
    Op2(Op2, usize, Src),
    Mov(usize, usize),
    /// A bit pattern in every lane.
    Splat(usize, u32),
    /// The f32 at an address in every lane.
    Broadcast(usize, Mem),
    BroadcastLane0(usize, usize),
    /// See [`super::Asm::round`].
    Round(usize, usize, u8),
    ShiftLeft(usize, usize, u8),
    ShiftRight(usize, usize, u8),
    Select {
        d: usize,
        cmp: Cmp,
        x: usize,
        y: Src,
        yes: usize,
        no: usize,
    },
    /// Lanes that are not loaded become 0.
    Load {
        d: usize,
        at: Mem,
        lanes: usize,
    },
    Store {
        at: Mem,
        s: usize,
        lanes: usize,
    },
    /// Lanes of `other` beyond the first `lanes`.
    Blend {
        d: usize,
        other: usize,
        lanes: usize,
    },
    /// `d[i] = y[table[i]]`
    Permute(usize, Rc<[u32]>, Src),
    /// `d[i] = table[i] < 4 ? d[i] : at[table[i] - 4]`
    Take(usize, Rc<[u32]>, Mem),
    /// `d[i]` is the f32 at `base + offset + table[i]`.
    Gather(usize, Mem, Rc<[u32]>),
    /// All lanes become the sum.
    SumLanes(usize),
    /// All lanes become the largest.
    MaxLanes(usize),
    /// Writes 1 to the word at an address where a lane is NaN.
    MarkNan(usize, Mem),
    Set(Reg, i64),
    /// The pointer at an address.
    LoadPointer(Reg, Mem),
    Copy(Reg, Reg),
    AddImm(Reg, i64),
    Add(Reg, Reg),
    MulImm(Reg, Reg, i64),
    Neg(Reg),
    Bind(usize),
    /// To a label, if the register compares so with the number.
    Branch(Reg, Cond, i64, usize),
}
