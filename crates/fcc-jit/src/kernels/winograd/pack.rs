//! Weights of Winograd convolutions: transformed, and in the order in which the products read them.

use super::Winograd;
use super::bilinear::Bilinear;
use crate::asm::Isa;
use crate::error::{Error, Result};
use crate::floats::Floats;

/// Columns of the widest micro-kernel used here.
pub(super) const WIDEST: usize = 32;

impl Winograd {
    /// Elements of the packed weights.
    pub fn packed_elems(&self, isa: Isa) -> usize {
        self.conv.group * self.points() * self.in_channels() * self.blocks()[1] * isa.lanes()
    }

    /// Elements of the bias operand: whole blocks for each group.
    pub fn bias_elems(&self, isa: Isa) -> usize {
        if self.conv.bias { self.conv.group * self.blocks()[1] * isa.lanes() } else { 0 }
    }

    /// Transforms weights `[M, C/group, kH, kW]` and packs them for a kernel that is built with the same `threads`:
    /// `[group][chunk of vector groups][point][vector group][C][columns]`.
    ///
    /// # Errors
    /// When a slice has another length.
    pub fn pack_weights<'a>(
        &self,
        isa: Isa,
        threads: usize,
        w: impl Into<Floats<'a>>,
        out: &mut [f32],
    ) -> Result<()> {
        let w = w.into();
        let (ic, oc) = (self.in_channels(), self.out_channels());
        let taps = self.y.kernel * self.x.kernel;
        if w.len() != self.conv.y.c * ic * taps || out.len() != self.packed_elems(isa) {
            return Err(Error::invalid(
                "winograd",
                format!("packing {} weights into {}", w.len(), out.len()),
            ));
        }
        let (plan, points) = (self.plan(isa, threads.max(1)), self.points());
        let width = plan.nv * isa.lanes();
        let mut filters = vec![[0.0; WIDEST]; taps];
        let mut made = vec![[0.0; WIDEST]; points];
        let mut half = vec![[0.0; WIDEST]; self.y.products() * self.x.kernel];
        let group_elems = out.len() / self.conv.group;
        for (g, out) in out.chunks_exact_mut(group_elems).enumerate() {
            // A chunk is all points of some vector groups.
            for (chunk, out) in out.chunks_exact_mut(points * plan.chunk * ic * width).enumerate() {
                for (inside, c) in (0..plan.chunk).flat_map(|i| (0..ic).map(move |c| (i, c))) {
                    let first = (chunk * plan.chunk + inside) * width;
                    filters.fill([0.0; WIDEST]);
                    for column in 0..width.min(oc.saturating_sub(first)) {
                        let start = ((g * oc + first + column) * ic + c) * taps;
                        for (to, v) in filters.iter_mut().zip(w.part(start..start + taps).iter()) {
                            to[column] = v;
                        }
                    }
                    transform(&self.y, &self.x, &filters, &mut half, &mut made);
                    for (point, values) in made.iter().enumerate() {
                        let line = (point * plan.chunk + inside) * ic + c;
                        out[line * width..][..width].copy_from_slice(&values[..width]);
                    }
                }
            }
        }
        Ok(())
    }
}

/// `to += a * from`
fn add_scaled(to: &mut [f32; WIDEST], a: f32, from: &[f32; WIDEST]) {
    for (to, v) in to.iter_mut().zip(from) {
        *to += a * v;
    }
}

/// `G g Gᵀ` of many filters at once. With [`super::Scheme::Two`] the coefficients are 1 and halves, so that only sums
/// round.
fn transform(
    y: &Bilinear,
    x: &Bilinear,
    filters: &[[f32; WIDEST]],
    half: &mut [[f32; WIDEST]],
    made: &mut [[f32; WIDEST]],
) {
    half.fill([0.0; WIDEST]);
    for (u, row) in y.g.iter().enumerate() {
        for (i, &a) in row.iter().enumerate().filter(|a| *a.1 != 0.0) {
            for j in 0..x.kernel {
                add_scaled(&mut half[u * x.kernel + j], a as f32, &filters[i * x.kernel + j]);
            }
        }
    }
    made.fill([0.0; WIDEST]);
    for u in 0..y.products() {
        for (v, row) in x.g.iter().enumerate() {
            let to = &mut made[u * x.products() + v];
            for (j, &a) in row.iter().enumerate().filter(|a| *a.1 != 0.0) {
                add_scaled(to, a as f32, &half[u * x.kernel + j]);
            }
        }
    }
}
