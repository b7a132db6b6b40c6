//! Resizing of blocked activations: every output pixel is a weighted sum of input pixels, with the positions and weights
//! of each dim in a table.

use super::clif::{at, coordinates, for_n, for_range, off, share};
use super::layout::BlockedLayout;
use crate::error::{Error, Result};
use crate::module::{Emitter, Kernel, Operand};
use cranelift_codegen::ir::types::{F32, F32X4, I32, I64};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value};
use cranelift_frontend::FunctionBuilder;
use cranelift_module::Module;

/// A resize of the spatial dims.
#[derive(Clone, Debug, PartialEq)]
pub struct Resize {
    /// Input, blocked.
    pub x: BlockedLayout,
    /// Output, blocked alike; its halo is left as it is.
    pub y: BlockedLayout,
    /// For D, H and W, for each output position, the input positions and their weights.
    pub taps: [Vec<Vec<(usize, f32)>>; 3],
}

impl Resize {
    fn most(&self, d: usize) -> usize {
        self.taps[d].iter().map(Vec::len).max().unwrap_or(0)
    }
    fn copies(&self) -> bool {
        self.taps.iter().flatten().all(|t| matches!(t[..], [(_, w)] if w == 1.0))
    }

    /// Elements of the table operand.
    pub fn table_elems(&self) -> usize {
        (0..3).map(|d| 2 * self.most(d) * self.taps[d].len()).sum()
    }

    /// The table: for each dim and output position pairs of a byte offset (as bits) and a weight,
    /// as many for each.
    pub fn table(&self) -> Vec<f32> {
        let step = [self.x.plane_bytes(), self.x.row_bytes(), self.x.pixel_bytes()];
        let mut out = Vec::with_capacity(self.table_elems());
        for (d, step) in step.into_iter().enumerate() {
            for taps in &self.taps[d] {
                for i in 0..self.most(d) {
                    // all positions have as many taps, see `check`: nothing is padded in what is built
                    let (p, w) = taps.get(i).copied().unwrap_or((taps.last().map_or(0, |t| t.0), 0.0));
                    out.push(f32::from_bits((p * step) as u32));
                    out.push(w);
                }
            }
        }
        out
    }

    fn check(&self) -> Result<()> {
        let (x, y) = (&self.x, &self.y);
        x.check("resize")?;
        y.check("resize")?;
        let inside = (0..3).all(|d| {
            self.taps[d].len() == y.spatial[d]
                && self.taps[d].iter().all(|t| !t.is_empty() && t.iter().all(|(p, _)| *p < x.spatial[d]))
        });
        if (x.n, x.c, x.cb) != (y.n, y.c, y.cb) || !inside {
            return Err(Error::invalid("resize", format!("{x:?} to {y:?}")));
        }
        let even = (0..3).all(|d| self.taps[d].iter().all(|t| t.len() == self.most(d)));
        if !x.cb.is_multiple_of(4) || !even || self.most(0) * self.most(1) * self.most(2) > 64 {
            return Err(Error::unsupported("resize", "taps of different number, or too many"));
        }
        if x.block_bytes() > i32::MAX as usize {
            return Err(Error::unsupported("resize", "a plane above 2 GiB"));
        }
        Ok(())
    }

    /// The step function; operands `x`, `table`, `y`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for layouts that do not fit, [`Error::Unsupported`] for irregular taps.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        self.check()?;
        let (x, y) = (self.x, self.y);
        let [d, h, w] = y.spatial;
        let units = y.n * y.blocks() * d * h;
        let tasks = if y.bytes() < 1 << 16 { 1 } else { threads.max(1).min(units.max(1)) };
        let func = e.step("resize", 3, |_, b, p, task| {
            let (low, high) = share(b, task, units, tasks);
            let starts = self.starts();
            for_range(b, low, high, |b, u| {
                let c = coordinates(b, u, &[y.n, y.blocks(), d, h]);
                let src = at(b, p[0], c[0], x.batch_bytes() as i64);
                let src = at(b, src, c[1], x.block_bytes() as i64);
                let src = off(b, src, x.origin_bytes() as i64);
                let dst = at(b, p[2], c[0], y.batch_bytes() as i64);
                let dst = at(b, dst, c[1], y.block_bytes() as i64);
                let dst = at(b, dst, c[2], y.plane_bytes() as i64);
                let dst = at(b, dst, c[3], y.row_bytes() as i64);
                let dst = off(b, dst, y.origin_bytes() as i64);
                let mut rows = vec![(src, None)];
                for (dim, index) in [(0, c[2]), (1, c[3])] {
                    rows = self.spread(b, p[1], starts[dim], dim, index, rows);
                }
                for_n(b, w as i64, |b, i| {
                    let pixels = self.spread(b, p[1], starts[2], 2, i, rows.clone());
                    let dst = at(b, dst, i, y.pixel_bytes() as i64);
                    self.pixel(b, &pixels, dst);
                });
            });
            Ok(())
        })?;
        let operands = vec![
            Operand::read("x", x.bytes()),
            Operand::read("table", 4 * self.table_elems()),
            Operand::write("y", y.bytes()),
        ];
        let taps = self.most(0) * self.most(1) * self.most(2);
        let name =
            format!("resize {}x{} to {h}x{w} of {} channels, {taps} taps", x.spatial[1], x.spatial[2], x.c);
        Ok(Kernel { func, name, operands, tasks, flops: (2 * taps * y.bytes() / 4) as u64 })
    }

    /// Byte offsets of the dims' tables.
    fn starts(&self) -> [usize; 3] {
        let size = |d: usize| 8 * self.most(d) * self.taps[d].len();
        [0, size(0), size(0) + size(1)]
    }

    /// Each source with each tap of position `index` along `dim`: pointer and weight.
    fn spread(
        &self,
        b: &mut FunctionBuilder,
        table: Value,
        start: usize,
        dim: usize,
        index: Value,
        from: Vec<(Value, Option<Value>)>,
    ) -> Vec<(Value, Option<Value>)> {
        let flags = MemFlagsData::new().with_notrap();
        let most = self.most(dim);
        // a dim that stays needs no table
        let entry = at(b, table, index, 8 * most as i64);
        let mut out = Vec::with_capacity(from.len() * most);
        for t in 0..most {
            let offset = b.ins().load(I32, flags, entry, (start + 8 * t) as i32);
            let offset = b.ins().uextend(I64, offset);
            let weight = if self.copies() {
                None
            } else {
                Some(b.ins().load(F32, flags, entry, (start + 8 * t + 4) as i32))
            };
            for (p, w) in &from {
                let p = b.ins().iadd(*p, offset);
                let w = match (*w, weight) {
                    (Some(a), Some(c)) => Some(b.ins().fmul(a, c)),
                    (a, c) => a.or(c),
                };
                out.push((p, w));
            }
        }
        out
    }

    fn pixel(&self, b: &mut FunctionBuilder, sources: &[(Value, Option<Value>)], dst: Value) {
        let flags = MemFlagsData::new().with_notrap();
        let splats: Vec<Option<Value>> =
            sources.iter().map(|(_, w)| w.map(|w| b.ins().splat(F32X4, w))).collect();
        for lane in 0..self.x.cb as i32 / 4 {
            let mut sum: Option<Value> = None;
            for ((p, _), w) in sources.iter().zip(&splats) {
                let v = b.ins().load(F32X4, flags, *p, 16 * lane);
                let v = match w {
                    Some(w) => b.ins().fmul(v, *w),
                    None => v,
                };
                sum = Some(match sum {
                    Some(s) => b.ins().fadd(s, v),
                    None => v,
                });
            }
            if let Some(s) = sum {
                b.ins().store(flags, s, dst, 16 * lane);
            }
        }
    }
}
