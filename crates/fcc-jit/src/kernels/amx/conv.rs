//! Convolutions of f32 by tiles of bf16 terms.

use super::regroup::{Regroup, Values};
use super::tiles::{self, Tiles};
use super::{CHANNELS, MOST_TERMS, Panels, Terms};
use crate::asm::{Isa, TILE_BYTES};
use crate::error::{Error, Result};
use crate::floats::Floats;
use crate::kernels::conv::{Conv, Part};
use crate::kernels::nest::{BiasKind, Nest, Reduction};
use crate::kernels::split::Split;
use crate::kernels::tile::Tiling;
use crate::module::{Emitter, Kernel, Operand};
use cranelift_module::Module;

/// A convolution whose input a step of its own has put into terms.
#[derive(Clone, Debug, PartialEq)]
pub struct AmxConv {
    conv: Conv,
    terms: Terms,
}

/// Taps of a kernel row that are unrolled.
const MAX_UNROLLED: usize = 8;

impl AmxConv {
    /// The convolution by these terms.
    ///
    /// # Errors
    /// Why it has not the form: blocked input, groups of whole tiles, offsets that an instruction holds.
    pub fn new(conv: &Conv, terms: Terms) -> std::result::Result<AmxConv, String> {
        let (ic, oc) = (conv.ic_per_group(), conv.oc_per_group());
        if conv.x.cb != 16 {
            return Err(format!("no AMX: input in blocks of {}, need 16", conv.x.cb));
        }
        if conv.group > 1 && !(ic.is_multiple_of(CHANNELS) && oc.is_multiple_of(16)) {
            return Err(format!("no AMX: {} groups of {ic} to {oc} channels, need whole tiles", conv.group));
        }
        let reach = conv.x.block_bytes().saturating_mul(terms.parts() + 1);
        if ic * conv.taps() > MOST_TERMS || reach > i32::MAX as usize {
            return Err(format!("no AMX: {} terms of {reach} bytes", ic * conv.taps()));
        }
        Ok(AmxConv { conv: conv.clone(), terms })
    }

    /// The convolution by these terms where that may pay.
    ///
    /// # Errors
    /// Why not: as [`AmxConv::new`], and too few channels.
    pub fn choose(conv: &Conv, terms: Terms) -> std::result::Result<AmxConv, String> {
        let least = super::LEAST_CHANNELS;
        match conv.ic_per_group() {
            ic if ic < least => Err(format!("no AMX: {ic} input channels in a group, need {least}")),
            _ => AmxConv::new(conv, terms),
        }
    }

    /// The step that puts its input into terms: what the convolution reads.
    pub fn regroup(&self) -> Regroup {
        Regroup::activation(&self.conv.x, Values::Terms(self.terms.parts()))
    }

    /// Groups of 32 channels of one group of the convolution.
    fn steps(&self) -> usize {
        self.conv.ic_per_group().div_ceil(CHANNELS)
    }
    fn vectors(&self) -> usize {
        self.conv.oc_per_group().div_ceil(16)
    }
    fn tiling(&self) -> Tiling {
        let [_, h, w] = self.conv.output_plane();
        tiles::tiling(h, w, self.vectors())
    }
    fn panel_elems(&self) -> usize {
        Panels::elems(self.terms, self.conv.ic_per_group(), self.conv.taps(), self.vectors())
    }
    /// Floats of what the columns of a group have.
    fn column_elems(&self) -> usize {
        2 * 16 * self.vectors()
    }

    /// Floats of the packed weights: what the columns of all groups have, then panels.
    pub fn packed_elems(&self) -> usize {
        self.conv.group * (self.column_elems() + self.panel_elems())
    }

    /// Packs weights `[M, C/group, kD, kH, kW]`, all finite, and the bias of each M.
    ///
    /// # Errors
    /// When a slice has another length.
    pub fn pack<'a>(&self, w: impl Into<Floats<'a>>, bias: Option<&[f32]>, out: &mut [f32]) -> Result<()> {
        let w = w.into();
        let (ic, oc, taps, group) =
            (self.conv.ic_per_group(), self.conv.oc_per_group(), self.conv.taps(), self.conv.group);
        if w.len() != group * oc * ic * taps
            || bias.is_some_and(|b| b.len() != group * oc)
            || out.len() != self.packed_elems()
        {
            let got = format!("{} weights, {:?} biases, {}", w.len(), bias.map(<[f32]>::len), out.len());
            return Err(Error::invalid("amx conv", format!("packing {got}")));
        }
        let (columns, panels) = out.split_at_mut(group * self.column_elems());
        let each =
            columns.chunks_exact_mut(self.column_elems()).zip(panels.chunks_exact_mut(self.panel_elems()));
        for (g, (columns, panels)) in each.enumerate() {
            let at = |c: usize, tap: usize, n: usize| w.at(((g * oc + n) * ic + c) * taps + tap);
            let matrix = Panels {
                terms: self.terms,
                channels: ic,
                taps,
                n: oc,
                vectors: self.tiling().vectors,
                at: &at,
                bias: bias.map(|b| &b[g * oc..][..oc]),
            };
            super::pack(&matrix, columns, panels);
        }
        Ok(())
    }

    fn reduction(&self, tiling: &Tiling) -> Reduction {
        let (loops, taps) = self.conv.window(MAX_UNROLLED);
        let parts = self.terms.parts();
        let (products, blocks) = (self.conv.taps(), self.steps());
        let block_bytes = products * parts * tiling.vectors.size(0) * TILE_BYTES;
        Reduction {
            chunks: Split::at_most(blocks, Conv::blocks_at_once(tiling, blocks, block_bytes)),
            x_step: self.regroup().group_bytes() as i64,
            products,
            straight: false,
            loops,
            taps,
            k: 1,
            head: None,
            tail_k: 0,
            a_step: 0,
        }
    }

    /// The plain convolution's nest over other operands: pixels are 64 bytes here as there.
    fn nest(&self, isa: Isa, threads: usize, part: &Part) -> Nest {
        let tiling = self.tiling();
        let mut nest = self.conv.nest_of(
            isa,
            threads,
            part,
            4 * self.conv.group * self.column_elems(),
            tiling,
            self.reduction(&tiling),
        );
        let (from, parts) = (self.regroup(), self.terms.parts());
        let vector = (self.steps() * self.conv.taps() * parts * TILE_BYTES) as i64;
        let record = 2 * isa.vector_bytes() as i64;
        let [image, group, _] = &mut nest.batch[..] else { return nest };
        image.1.x = from.outer_bytes() as i64;
        group.1.x = (self.steps() * from.group_bytes()) as i64;
        (group.1.w, group.1.bias) = (self.vectors() as i64 * vector, self.vectors() as i64 * record);
        (nest.vector.w, nest.vector.bias) = (vector, record);
        nest.epilogue.bias = BiasKind::Scaled;
        nest.prefetch = 0;
        nest.tiles = Some(Tiles::Bf16 { terms: self.terms, part: from.part_bytes() as i32 });
        nest
    }

    /// The step function; operands `x` (of [`AmxConv::regroup`]), `w` (packed), `residual` (if any), `y`. The halo of `y`
    /// is zeroed too.
    ///
    /// # Errors
    /// [`Error::Unsupported`] without AVX-512, [`Error::Invalid`] for layouts that do not fit.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        let isa = e.isa();
        if !e.has_tiles() {
            return Err(Error::unsupported("amx conv", format!("level {isa}")));
        }
        self.conv.check(isa)?;
        let part = self.conv.part(isa, 0);
        let nest = self.nest(isa, threads.max(1), &part);
        let kernels = nest.define_kernels(e)?;
        let operands =
            vec![Operand::read("x", self.regroup().bytes()), Operand::read("w", 4 * self.packed_elems())];
        self.conv.finish(e, threads, &[(part, nest, kernels)], operands, 1)
    }
}
