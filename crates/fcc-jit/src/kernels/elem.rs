//! Element types of kernels' operands.

use crate::asm::{Asm, Isa, Lanes, Mem};
use crate::error::Result;

/// An element type; kernels compute in f32 and convert where they load and store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Elem {
    /// f32.
    #[default]
    F32,
    /// int32.
    I32,
    /// uint8.
    U8,
    /// int8.
    I8,
}

impl Elem {
    /// Bytes of one.
    pub const fn bytes(self) -> usize {
        match self {
            Elem::F32 | Elem::I32 => 4,
            Elem::U8 | Elem::I8 => 1,
        }
    }

    /// Loads some lanes as f32; `count` is how many of a masked vector there are.
    pub fn load(self, w: &mut Asm, d: usize, m: Mem, lanes: Lanes, count: usize) -> Result<()> {
        match self {
            Elem::F32 => return w.load_lanes(d, m, lanes),
            Elem::I32 => w.load_lanes(d, m, lanes)?,
            Elem::U8 | Elem::I8 => w.load_bytes(d, m, self == Elem::I8, lanes, count)?,
        }
        w.from_int(d, d)
    }

    /// One element as f32 in every lane.
    pub fn broadcast(self, w: &mut Asm, d: usize, m: Mem) -> Result<()> {
        match self {
            Elem::F32 => return w.broadcast(d, m),
            Elem::I32 => w.broadcast(d, m)?,
            Elem::U8 | Elem::I8 => w.broadcast_byte(d, m, self == Elem::I8)?,
        }
        w.from_int(d, d)
    }

    /// Stores some lanes of f32s, which are whole numbers in range where the type is an integer; `t` are overwritten.
    pub fn store(
        self,
        w: &mut Asm,
        m: Mem,
        s: usize,
        lanes: Lanes,
        count: usize,
        t: [usize; 2],
    ) -> Result<()> {
        if self == Elem::F32 {
            return w.store_lanes(m, s, lanes);
        }
        w.to_int(t[0], s)?;
        match self {
            Elem::U8 | Elem::I8 => w.store_bytes(m, t[0], self == Elem::I8, lanes, count, t[1]),
            _ => w.store_lanes(m, t[0], lanes),
        }
    }

    /// Lanes of the last of the vectors that cover `count` elements.
    pub fn last_lanes(isa: Isa, count: usize) -> usize {
        count.max(1).wrapping_sub(1) % isa.lanes() + 1
    }
}
