//! How a kernel cuts its problem, as a value: what a model of its time decides, and a measurement can override.

use super::brgemm::max_rows;
use crate::asm::Isa;
use std::{fmt, str::FromStr};

/// The sizes that are free. Whatever they are, the result is the same sums in the same kernels' words; only the time, and
/// the order in which terms are added, is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cut {
    /// The largest tile: output rows, output columns, column vectors. Of a matrix product: rows of Y, 1, vectors. Of a
    /// Winograd convolution: rows and columns of tiles in a unit of work, and the vectors of its products.
    pub tile: [usize; 3],
    /// Most of the reduction in one call of the micro-kernel: channel blocks of a convolution, k of a product. Of a
    /// Winograd convolution: groups of vectors whose products are kept at a time.
    pub chunk: usize,
    /// Blocks that are dealt out at least: of output rows of a convolution, of panels of a product. Winograd: 1.
    pub blocks: usize,
    /// Bytes ahead in the weights that are fetched into the cache; 0 for none.
    pub ahead: usize,
}

/// Sizes above this are none: offsets are counted in 64 bits, and no tensor has so many rows.
const LARGEST: usize = 1 << 31;
/// What is fetched this far ahead is out of the cache again when it is used.
const FARTHEST: usize = 1 << 16;
/// Distances that are tried.
const DISTANCES: [usize; 5] = [0, 512, 1024, 2048, 4096];

impl Cut {
    /// Errors where a size is 0 or beyond any tensor's.
    pub(crate) fn check_sizes(&self) -> Result<(), String> {
        let sizes = self.tile.into_iter().chain([self.chunk, self.blocks]);
        if let Some(n) = sizes.into_iter().find(|n| !(1..=LARGEST).contains(n)) {
            return Err(format!("got a size of {n}, wanted 1 to {LARGEST}"));
        }
        if self.ahead > FARTHEST {
            return Err(format!("got {} bytes ahead, wanted at most {FARTHEST}", self.ahead));
        }
        Ok(())
    }

    /// The same with weights fetched from elsewhere.
    pub(crate) fn other_distances(self) -> impl Iterator<Item = Cut> {
        DISTANCES.into_iter().filter(move |n| *n != self.ahead).map(move |ahead| Cut { ahead, ..self })
    }

    /// Errors where the tile does not fit the registers of the micro-kernel.
    pub(crate) fn check_tile(&self, isa: Isa) -> Result<(), String> {
        self.check_sizes()?;
        let [rows, cols, vectors] = self.tile;
        let most = max_rows(isa, vectors);
        if rows * cols <= most {
            return Ok(());
        }
        Err(format!("got a tile of {rows}x{cols} pixels by {vectors} vectors, wanted at most {most} pixels"))
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [rows, cols, vectors] = self.tile;
        let Cut { chunk, blocks, ahead, .. } = self;
        write!(f, "{rows}x{cols}x{vectors} chunk {chunk} blocks {blocks} ahead {ahead}")
    }
}

impl FromStr for Cut {
    type Err = String;
    fn from_str(text: &str) -> Result<Cut, String> {
        let wanted = || format!("got `{text}`, wanted sizes such as `2x7x2 chunk 4 blocks 1 ahead 1024`");
        let words: Vec<&str> = text.split_whitespace().collect();
        let [tile, "chunk", chunk, "blocks", blocks, "ahead", ahead] = words[..] else {
            return Err(wanted());
        };
        let number = |text: &str| text.parse::<usize>().map_err(|_| wanted());
        let tile: Vec<usize> = tile.split('x').map(number).collect::<Result<_, _>>()?;
        let tile = tile.try_into().map_err(|_| wanted())?;
        let cut = Cut { tile, chunk: number(chunk)?, blocks: number(blocks)?, ahead: number(ahead)? };
        cut.check_sizes().map(|()| cut)
    }
}
