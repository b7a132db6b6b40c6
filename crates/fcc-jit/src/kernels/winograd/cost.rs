//! Which algorithm a convolution should use: a count of vector instructions and of weights streamed.

use super::bilinear::{Bilinear, Scheme};
use super::{L2_WEIGHT_BYTES, Winograd};
use crate::asm::Isa;
use crate::kernels::conv::Conv;

/// Bytes of weights that memory gives in the time of one vector multiply-add, when they are not in L2.
const STREAM_BYTES: f64 = 3.3;
/// What a scheme must save to be chosen over a more accurate one.
const MARGIN: f64 = 0.93;

fn nonzero(rows: &[Vec<f32>]) -> usize {
    rows.iter().flatten().filter(|v| **v != 0.0).count()
}

/// Time of products over weights of this many bytes: what is not in L2 has to come.
fn with_stream(products: f64, weight_bytes: usize) -> f64 {
    let stream = if weight_bytes > L2_WEIGHT_BYTES { weight_bytes as f64 / STREAM_BYTES } else { 0.0 };
    products.max(stream)
}

/// Vector multiply-adds, or as much time, of the direct kernel.
pub(super) fn direct(conv: &Conv, isa: Isa) -> f64 {
    let vectors = conv.group * (conv.y.c / conv.group).div_ceil(isa.lanes());
    let k = conv.x.c / conv.group * conv.kernel.iter().product::<usize>();
    let pixels = conv.y.n * conv.y.spatial.iter().product::<usize>();
    let bytes = vectors * k * isa.vector_bytes();
    with_stream((pixels * vectors * k) as f64 * 1.03, bytes)
}

impl Winograd {
    /// The same of this algorithm.
    pub(super) fn cost(&self, isa: Isa) -> f64 {
        let [_, h, w] = self.conv.y.spatial;
        let across = w.div_ceil(self.x.outputs);
        let tiles = self.conv.y.n * h.div_ceil(self.y.outputs) * across;
        let [in_blocks, out_blocks] = self.blocks();
        let group = self.conv.group;
        let products = self.points() * tiles * self.in_channels() * out_blocks * group;
        let (input, output) = (ops_in(&self.y, &self.x), ops_out(&self.y, &self.x));
        // stores take twice the time of other instructions
        let transforms = tiles * group * (in_blocks * input + out_blocks * output);
        // what surrounds the kernels, for each row of tiles, and for each product's call
        let calls = (tiles / across.max(1) * (in_blocks + out_blocks) * 20
            + self.points() * tiles.div_ceil(14) * out_blocks * 12)
            * group;
        let bytes = 4 * self.packed_elems(isa);
        with_stream(products as f64 * 1.03, bytes) + (transforms + calls) as f64
    }

    /// The time that it should take, as a share of the direct kernel's.
    pub fn estimate(&self, isa: Isa) -> f64 {
        self.cost(isa) / direct(&self.conv, isa)
    }

    /// The best algorithm for a convolution. `wide` allows schemes whose error is larger than that of plain sums.
    pub fn choose(conv: &Conv, isa: Isa, wide: bool) -> Choice {
        let dims = [1, 2].map(|d| {
            let mut schemes = vec![Scheme::Direct];
            // pairs of taps alone are no more accurate than plain sums
            if conv.kernel[d] > 2 || (conv.kernel[d] == 2 && wide) {
                schemes.extend(if wide { vec![Scheme::Two, Scheme::Four] } else { vec![Scheme::Two] });
            }
            schemes
        });
        let plain = direct(conv, isa);
        let mut best: Option<(f64, Winograd)> = None;
        let mut least = f64::INFINITY;
        for schemes in dims[0].iter().flat_map(|y| dims[1].iter().map(move |x| [*y, *x])).skip(1) {
            let Some(w) = Winograd::new(conv, isa, schemes) else { continue };
            let cost = w.cost(isa);
            least = least.min(cost);
            if cost < MARGIN * best.as_ref().map_or(plain, |b| b.0) {
                best = Some((cost, w));
            }
        }
        if let Some((cost, w)) = best {
            let tile = format!("{}x{}", w.y.outputs, w.x.outputs);
            let why = format!("Winograd {tile}: {:.2} of direct sums' time by count", cost / plain);
            return Choice { winograd: Some(w), why };
        }
        if least.is_finite() {
            let share = least / plain;
            return Choice::direct(format!("direct: Winograd would take {share:.2} of its time by count"));
        }
        let by = |n: [usize; 3]| n.map(|n| n.to_string()).join("x");
        Choice::direct(format!(
            "direct: no Winograd for kernel {}, dilations {}, group {}, input in blocks of {}",
            by(conv.kernel),
            by(conv.dilations),
            conv.group,
            conv.x.cb
        ))
    }
}

/// An algorithm, and why it was chosen.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    /// `None` for the direct kernel.
    pub winograd: Option<Winograd>,
    /// The reason, for people.
    pub why: String,
}

impl Choice {
    /// The direct kernel, for a reason.
    pub fn direct(why: impl Into<String>) -> Choice {
        Choice { winograd: None, why: why.into() }
    }
}

fn ops_in(y: &Bilinear, x: &Bilinear) -> usize {
    nonzero(&y.bt) * x.inputs() + y.products() * nonzero(&x.bt) + 2 * y.products() * x.products()
}

fn ops_out(y: &Bilinear, x: &Bilinear) -> usize {
    nonzero(&y.at) * x.products() + y.outputs * nonzero(&x.at) + 6 * y.outputs * x.outputs
}
