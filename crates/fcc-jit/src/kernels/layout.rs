//! The blocked activation layout `[N][C / cb][D][H][W][cb]`, with a physical halo around the spatial dims.
//!
//! Invariants between kernels:
//! - A halo holds zeros whenever a kernel that pads reads it. Every kernel that writes a layout writes its halo too.
//! - When `c` is no multiple of `cb`, the last block has *padding channels*. They hold unspecified values, NaN included:
//!   no kernel lets them reach a real channel, so nobody has to keep them zero.
//! - The halo of 8-bit activations holds the zero point of the convolution that reads it, which fills it before it runs.

use super::elem::Elem;
use crate::error::{Error, Result};

/// An activation in memory. With `cb == 1` and no halo it is plain NCHW. Ranks below 3 have leading sizes of 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockedLayout {
    /// Batch.
    pub n: usize,
    /// Channels.
    pub c: usize,
    /// D, H, W.
    pub spatial: [usize; 3],
    /// Channels of a block: 1, or the lanes of the level.
    pub cb: usize,
    /// Zeros before and after each spatial dim.
    pub halo: [(usize, usize); 3],
    /// When this is a slice of channel blocks of a larger activation (an input of a Concat along channels written in
    /// place): the channel blocks of the whole. The operand pointer points to the slice's first block.
    pub parent_blocks: Option<usize>,
    /// Element type.
    pub elem: Elem,
}

impl BlockedLayout {
    /// Plain NCHW (or NCW, NCDHW) without halo.
    pub fn plain(n: usize, c: usize, spatial: [usize; 3]) -> BlockedLayout {
        BlockedLayout { n, c, spatial, cb: 1, halo: [(0, 0); 3], parent_blocks: None, elem: Elem::F32 }
    }

    /// Blocked by `cb` without halo.
    pub fn blocked(n: usize, c: usize, spatial: [usize; 3], cb: usize) -> BlockedLayout {
        BlockedLayout { cb, ..BlockedLayout::plain(n, c, spatial) }
    }

    /// The same with a halo.
    pub fn with_halo(self, halo: [(usize, usize); 3]) -> BlockedLayout {
        BlockedLayout { halo, ..self }
    }

    /// Channel blocks.
    pub fn blocks(&self) -> usize {
        self.c.div_ceil(self.cb.max(1))
    }

    /// Channels of the last block, 1 up to `cb` (0 without channels).
    pub fn last_channels(&self) -> usize {
        if self.c == 0 { 0 } else { (self.c - 1) % self.cb.max(1) + 1 }
    }

    /// D, H and W with their halo.
    pub fn pitch(&self) -> [usize; 3] {
        [0, 1, 2].map(|d| self.halo[d].0 + self.spatial[d] + self.halo[d].1)
    }

    /// True without halo.
    pub fn is_tight(&self) -> bool {
        self.halo == [(0, 0); 3]
    }

    /// Bytes between pixels of a row.
    pub fn pixel_bytes(&self) -> usize {
        self.elem.bytes() * self.cb
    }
    /// Bytes between rows.
    pub fn row_bytes(&self) -> usize {
        self.pixel_bytes() * self.pitch()[2]
    }
    /// Bytes between depth slices.
    pub fn plane_bytes(&self) -> usize {
        self.row_bytes() * self.pitch()[1]
    }
    /// Bytes between channel blocks.
    pub fn block_bytes(&self) -> usize {
        self.plane_bytes() * self.pitch()[0]
    }
    /// Bytes between images.
    pub fn batch_bytes(&self) -> usize {
        self.block_bytes() * self.parent_blocks.unwrap_or(self.blocks())
    }
    /// Byte offset of the first pixel behind the halo.
    pub fn origin_bytes(&self) -> usize {
        self.halo[0].0 * self.plane_bytes()
            + self.halo[1].0 * self.row_bytes()
            + self.halo[2].0 * self.pixel_bytes()
    }
    /// Bytes from the first to behind the last, halo included.
    pub fn bytes(&self) -> usize {
        if self.n == 0 { 0 } else { (self.n - 1) * self.batch_bytes() + self.blocks() * self.block_bytes() }
    }

    /// Checks that nothing overflows and that the whole fits in `i32` offsets per image.
    pub fn check(&self, what: &'static str) -> Result<()> {
        let dims = self.pitch().into_iter().chain([
            self.cb,
            self.parent_blocks.unwrap_or(self.blocks()),
            4,
            self.n.max(1),
        ]);
        let total = dims.clone().try_fold(1usize, |a, d| a.checked_mul(d));
        let ok = self.cb > 0
            && total.is_some_and(|t| t <= isize::MAX as usize)
            && self.parent_blocks.is_none_or(|p| p >= self.blocks());
        if !ok {
            return Err(Error::invalid(what, format!("layout {self:?} has no valid size")));
        }
        if self.block_bytes() > i32::MAX as usize {
            return Err(Error::unsupported(
                what,
                format!("one channel block of {self:?} is {} bytes, above 2 GiB", self.block_bytes()),
            ));
        }
        Ok(())
    }
}
