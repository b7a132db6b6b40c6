//! The step before the products: an activation in rows of 64 bytes, as tiles read it.
//!
//! `[outer][groups of channels][parts][pixels][64 bytes]`: of f32, the terms of 32 channels as bf16, and a flag where tiles
//! would not compute as plain f32 does; of bytes, 64 channels as they are. Channels that there are not become 0.

use super::{BYTE_CHANNELS, CHANNELS, LARGEST, SMALLEST};
use crate::asm::reg::*;
use crate::asm::{Asm, Assembled, Lanes, Src, TILE_ROW_BYTES};
use crate::error::{Error, Result};
use crate::kernels::clif::{at, clip, coordinates, for_range, off, share};
use crate::kernels::layout::BlockedLayout;
use crate::module::{Access, Emitter, Kernel, Operand};
use cranelift_codegen::ir::{InstBuilder, types::I64};
use cranelift_module::{FuncId, Module};

/// What becomes of the values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Values {
    /// f32 become sums of so many bf16.
    Terms(usize),
    /// Bytes stay.
    Bytes,
}

impl Values {
    /// Channels of a group.
    fn channels(self) -> usize {
        match self {
            Values::Terms(_) => CHANNELS,
            Values::Bytes => BYTE_CHANNELS,
        }
    }
    fn parts(self) -> usize {
        match self {
            Values::Terms(parts) => parts,
            Values::Bytes => 1,
        }
    }
    fn bytes(self) -> usize {
        match self {
            Values::Terms(_) => 4,
            Values::Bytes => 1,
        }
    }
}

/// What is regrouped, in bytes of the source.
#[derive(Clone, Debug, PartialEq)]
pub struct Regroup {
    values: Values,
    /// Dims outside: count and step.
    outer: Vec<(usize, usize)>,
    /// Channels of a pixel, or columns of a row.
    channels: usize,
    /// Channels that lie side by side, and the step to the next so many: a block.
    block: (usize, usize),
    /// Pixels (rows), halo included, and the step between them.
    pixels: usize,
    pixel: usize,
    /// Bytes of the source.
    read: usize,
}

/// Pixels that one call does, about.
const PIXELS: usize = 512;

impl Regroup {
    /// An activation in blocks of 16 channels, its halo too.
    pub fn activation(x: &BlockedLayout, values: Values) -> Regroup {
        Regroup {
            values,
            outer: vec![(x.n, x.batch_bytes())],
            channels: x.c,
            block: (x.cb, x.block_bytes()),
            pixels: x.pitch().iter().product(),
            pixel: x.pixel_bytes(),
            read: x.bytes(),
        }
    }

    /// Matrices of `m` rows of `k`, `row` elements apart; `outer`: count and elements between matrices.
    pub fn matrix(m: usize, k: usize, row: usize, outer: &[(usize, usize)], values: Values) -> Regroup {
        let bytes = values.bytes();
        let last: usize = outer.iter().map(|(n, step)| (n.max(&1) - 1) * step).sum();
        Regroup {
            values,
            outer: outer.iter().map(|(n, step)| (*n, bytes * step)).collect(),
            channels: k,
            block: (values.channels(), values.channels() * bytes),
            pixels: m,
            pixel: row * bytes,
            read: bytes * (last + (m - 1) * row + k),
        }
    }

    fn groups(&self) -> usize {
        self.channels.div_ceil(self.values.channels())
    }
    fn matrices(&self) -> usize {
        self.outer.iter().map(|o| o.0).product()
    }
    /// What becomes of the values, for people.
    pub fn words(&self) -> String {
        match self.values {
            Values::Terms(parts) => format!("as {parts} bf16 each in rows of tiles"),
            Values::Bytes => "in rows of tiles".into(),
        }
    }
    /// Bytes between parts.
    pub fn part_bytes(&self) -> usize {
        self.pixels * TILE_ROW_BYTES
    }
    /// Bytes between groups of channels.
    pub fn group_bytes(&self) -> usize {
        self.values.parts() * self.part_bytes()
    }
    /// Bytes between images, or matrices.
    pub fn outer_bytes(&self) -> usize {
        self.groups() * self.group_bytes()
    }
    /// Bytes of the result.
    pub fn bytes(&self) -> usize {
        self.matrices() * self.outer_bytes()
    }

    /// The pieces of a group that lie apart in the source, a vector or less: offset and channels.
    fn pieces(&self, group: usize) -> Vec<(usize, usize)> {
        let first = group * self.values.channels();
        let end = self.channels.min(first + self.values.channels());
        let width = self.block.0.min(TILE_ROW_BYTES / self.values.bytes());
        (first..end)
            .step_by(width)
            .map(|c| {
                let place =
                    |c: usize| c / self.block.0 * self.block.1 + c % self.block.0 * self.values.bytes();
                (place(c) - place(first), width.min(end - c))
            })
            .collect()
    }

    /// The step function; operands `x`, `y`, and for f32 `flag`.
    ///
    /// # Errors
    /// Sizes that offsets cannot hold; a level without AVX-512.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        let (groups, step) = (self.groups(), self.block.1 * (self.values.channels() / self.block.0).max(1));
        if self.bytes() == 0 || self.group_bytes() > i32::MAX as usize || step > i32::MAX as usize {
            return Err(Error::unsupported("regrouping", format!("{self:?}")));
        }
        let whole = self.channels / self.values.channels();
        let kinds = [(0, whole, 0), (whole, groups, whole)].into_iter().filter(|k| k.0 < k.1);
        let kernels = kinds
            .map(|(from, to, group)| Ok((from, to, self.define(e, &self.pieces(group))?)))
            .collect::<Result<Vec<_>>>()?;
        let cuts = self.pixels.div_ceil(PIXELS);
        let mut dims: Vec<usize> = self.outer.iter().map(|o| o.0).collect();
        dims.extend([groups, cuts]);
        let units: usize = dims.iter().product();
        let tasks = units.min(threads.max(1));
        let flag = matches!(self.values, Values::Terms(_));
        let mut operands = vec![Operand::read("x", self.read), Operand::write("y", self.bytes())];
        operands.extend(flag.then_some(Operand { name: "flag", bytes: 4, access: Access::Flag }));
        let func = e.step("regroup", operands.len(), |m, b, p, task| {
            let flag = if flag { p[2] } else { p[1] };
            let (low, high) = share(b, task, units, tasks);
            for_range(b, low, high, |b, u| {
                let c = coordinates(b, u, &dims);
                let (mut x, mut image) = (p[0], b.ins().iconst(I64, 0));
                for (i, (n, bytes)) in c.iter().zip(&self.outer) {
                    x = at(b, x, *i, *bytes as i64);
                    let scaled = b.ins().imul_imm_s(image, *n as i64);
                    image = b.ins().iadd(scaled, *i);
                }
                let (group, cut) = (c[self.outer.len()], c[self.outer.len() + 1]);
                let x = at(b, x, group, step as i64);
                let y = at(b, p[1], image, self.outer_bytes() as i64);
                let y = at(b, y, group, self.group_bytes() as i64);
                let (first, behind) = share(b, cut, self.pixels, cuts);
                let (x, y) = (at(b, x, first, self.pixel as i64), at(b, y, first, TILE_ROW_BYTES as i64));
                let count = b.ins().isub(behind, first);
                for (from, to, id) in &kernels {
                    let next = off(b, group, 1);
                    let (low, high) = clip(b, (group, next), *from, *to, kernels.len() == 1);
                    for_range(b, low, high, |b, _| {
                        let f = m.declare_func_in_func(*id, b.func);
                        b.ins().call(f, &[x, y, count, flag]);
                    });
                }
            });
            Ok(())
        })?;
        let pixels = self.matrices() * self.pixels;
        let name = format!("{pixels} pixels of {} channels {}", self.channels, self.words());
        Ok(Kernel { func, name, operands, tasks, flops: 0 })
    }

    /// `fn(x, y, pixels, flag)` for one group of these pieces.
    fn define<M: Module>(&self, e: &mut Emitter<M>, pieces: &[(usize, usize)]) -> Result<FuncId> {
        let isa = e.isa();
        let key = format!("regroup {:?} {pieces:?} {} {}", self.values, self.pixel, self.part_bytes());
        e.cached(key, |e| {
            let w = Asm::new(isa)?;
            let code = match self.values {
                Values::Terms(parts) => self.assemble_terms(w, pieces, parts),
                Values::Bytes => self.assemble_bytes(w, pieces),
            }?;
            e.assembled("regroup", 4, &code)
        })
    }

    fn assemble_bytes(&self, w: Asm, pieces: &[(usize, usize)]) -> Result<Assembled> {
        let mut w = w;
        // blocks are there in whole, rows of a matrix end anywhere
        let row = (self.block.0 == BYTE_CHANNELS).then(|| pieces.iter().map(|p| p.1).sum());
        if let Some(bytes) = row {
            w.byte_row_mask(bytes)?;
        }
        let top = w.here()?;
        match row {
            Some(_) => w.load_byte_row(0, rdi + 0)?,
            None => {
                for (i, piece) in pieces.iter().enumerate() {
                    w.load_quarter(0, i, rdi + piece.0 as i32)?;
                }
            }
        }
        w.store(rsi + 0, 0)?;
        w.add_imm(rdi, self.pixel as i64)?;
        w.add_imm(rsi, TILE_ROW_BYTES as i64)?;
        w.again_wide(rdx, top)?;
        w.finish()
    }

    /// Two vectors of values in registers 0 and 1, their terms one after another.
    fn assemble_terms(&self, w: Asm, pieces: &[(usize, usize)], parts: usize) -> Result<Assembled> {
        const HIGH_WORDS: usize = 31;
        let mut w = w;
        let masks: Vec<Lanes> = pieces.iter().map(|p| w.lanes(p.1)).collect::<Result<_>>()?;
        let words: Vec<u32> = (0..16).map(|i| (4 * i + 1) | (4 * i + 3) << 16).collect();
        w.load_table(HIGH_WORDS, &words)?;
        if pieces.len() == 1 {
            w.zero(1)?;
        }
        let top = w.here()?;
        for (r, (piece, lanes)) in pieces.iter().zip(masks).enumerate() {
            w.load_lanes(r, rdi + piece.0 as i32, lanes)?;
        }
        self.check_pixel(&mut w)?;
        for part in 0..parts {
            for (x, t) in [(0, 2), (1, 3)] {
                // to the nearest bf16, ties to even, as a float
                w.shift_right(t, x, 16)?;
                w.and(t, t, Src::Bits(1))?;
                w.addi(t, t, x)?;
                w.addi(t, t, Src::Bits(0x7fff))?;
                if part + 1 < parts {
                    w.and(t, t, Src::Bits(0xffff_0000))?;
                    w.sub(x, x, t)?;
                }
            }
            w.high_words(2, HIGH_WORDS, 3)?;
            w.store(rsi + (part * self.part_bytes()) as i32, 2)?;
        }
        w.add_imm(rdi, self.pixel as i64)?;
        w.add_imm(rsi, TILE_ROW_BYTES as i64)?;
        w.again_wide(rdx, top)?;
        w.finish()
    }

    /// Raises the flag where tiles compute otherwise than plain f32: of the largest magnitude of the pixel.
    fn check_pixel(&self, w: &mut Asm) -> Result<()> {
        w.and(2, 0, Src::Bits(0x7fff_ffff))?;
        w.and(3, 1, Src::Bits(0x7fff_ffff))?;
        // as bits, NaN and infinity are the largest
        w.max_unsigned(2, 2, 3)?;
        let (flag, fine) = (w.label(), w.label());
        w.branch_any_from(2, LARGEST.to_bits(), flag)?;
        w.branch_any_from(2, SMALLEST.to_bits(), fine)?;
        w.branch_all_zero(2, fine)?;
        w.bind(flag)?;
        w.raise(rcx + 0)?;
        w.bind(fine)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_read_in_pieces_of_a_block_and_no_further() {
        let x = BlockedLayout::blocked(2, 40, [1, 3, 5], 16);
        let r = Regroup::activation(&x, Values::Terms(3));
        assert_eq!(r.pieces(0), vec![(0, 16), (x.block_bytes(), 16)]);
        assert_eq!(r.pieces(1), vec![(0, 8)]);
        assert_eq!(r.bytes(), 2 * 2 * 3 * 15 * 64);
        let m = Regroup::matrix(3, 70, 80, &[], Values::Terms(2));
        assert_eq!(m.pieces(0), vec![(0, 16), (64, 16)]);
        assert_eq!(m.pieces(2), vec![(0, 6)]);
        assert_eq!(m.read, 4 * (2 * 80 + 70));
        let bytes = Regroup::matrix(3, 70, 70, &[], Values::Bytes);
        assert_eq!(bytes.pieces(1), vec![(0, 6)]);
    }
}
