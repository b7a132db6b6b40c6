//! Zeroing the halo of a blocked activation.

use super::clif::{at, for_n, if_equal, off};
use super::layout::BlockedLayout;
use super::split::Split;
use crate::error::Result;
use crate::module::Emitter;
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value, types::F32X4};
use cranelift_frontend::FunctionBuilder;
use cranelift_module::{FuncId, Module};

/// A function that zeroes the halo of one channel block, `fn(block)`.
pub struct Halo(FuncId);

/// `count` stretches of `bytes` bytes, `stride` apart, from `start`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stretch {
    pub start: usize,
    pub bytes: usize,
    pub count: usize,
    pub stride: usize,
}

/// The stretches of one block: those outside all planes, and those of one plane.
pub(super) fn stretches(l: &BlockedLayout) -> [Vec<Stretch>; 2] {
    let [d, h, _] = l.spatial;
    let (px, row, plane) = (l.pixel_bytes(), l.row_bytes(), l.plane_bytes());
    let whole = |start: usize, bytes: usize| Stretch { start, bytes, count: 1, stride: 0 };
    let mut outer =
        vec![whole(0, l.halo[0].0 * plane), whole((l.halo[0].0 + d) * plane, l.halo[0].1 * plane)];
    let (left, right) = (l.halo[2].0 * px, l.halo[2].1 * px);
    let inner = vec![
        whole(0, l.halo[1].0 * row + left),
        Stretch {
            start: l.halo[1].0 * row + row - right,
            bytes: right + left,
            count: h.saturating_sub(1),
            stride: row,
        },
        whole((l.halo[1].0 + h) * row - right, right + l.halo[1].1 * row),
    ];
    outer.retain(|s| s.bytes > 0);
    let inner: Vec<Stretch> = inner.into_iter().filter(|s| s.bytes > 0 && s.count > 0).collect();
    [outer, inner]
}

/// Stores zeros over `bytes` (a multiple of 4) from `p`.
fn zero_bytes(b: &mut FunctionBuilder, p: Value, bytes: usize) {
    let flags = MemFlagsData::new().with_notrap();
    let zero = b.ins().f32const(0.0);
    let wide = b.ins().splat(F32X4, zero);
    let turns = bytes / 64;
    let wide_at = |b: &mut FunctionBuilder, p: Value, n: usize| {
        for i in 0..n as i32 {
            b.ins().store(flags, wide, p, 16 * i);
        }
    };
    for_n(b, turns as i64, |b, i| {
        let q = at(b, p, i, 64);
        wide_at(b, q, 4);
    });
    let p = off(b, p, 64 * turns as i64);
    let rest = bytes % 64;
    wide_at(b, p, rest / 16);
    for i in (rest / 16 * 4)..rest / 4 {
        b.ins().store(flags, zero, p, 4 * i as i32);
    }
}

impl Halo {
    /// The function for a layout; `None` without halo.
    pub fn define<M: Module>(e: &mut Emitter<M>, layout: &BlockedLayout) -> Result<Option<Halo>> {
        if layout.is_tight() {
            return Ok(None);
        }
        let one = BlockedLayout { n: 1, c: layout.cb, parent_blocks: None, ..*layout };
        let id = e.cached(format!("halo {one:?}"), |e| {
            e.clif("halo", 1, |_, b, args| {
                let parts = stretches(&one);
                for s in &parts[0] {
                    let p = off(b, args[0], s.start as i64);
                    zero_bytes(b, p, s.bytes);
                }
                let first = off(b, args[0], (one.halo[0].0 * one.plane_bytes()) as i64);
                for_n(b, one.spatial[0] as i64, |b, d| {
                    let plane = at(b, first, d, one.plane_bytes() as i64);
                    for s in &parts[1] {
                        let p = off(b, plane, s.start as i64);
                        for_n(b, s.count as i64, |b, i| {
                            let p = at(b, p, i, s.stride as i64);
                            zero_bytes(b, p, s.bytes);
                        });
                    }
                });
                Ok(())
            })
        })?;
        Ok(Some(Halo(id)))
    }

    /// Zeroes the halo of one channel block at `block`.
    pub fn call<M: Module>(&self, m: &mut M, b: &mut FunctionBuilder, block: Value) {
        let f = m.declare_func_in_func(self.0, b.func);
        b.ins().call(f, &[block]);
    }

    /// At the head of a unit of a convolution's nest (batch dims N, group, depth): zeroes the halo of the unit's output
    /// blocks if the unit is the one that has their first row.
    pub(super) fn zero_unit<M: Module>(
        &self,
        m: &mut M,
        b: &mut FunctionBuilder,
        y: &BlockedLayout,
        base: Value,
        batch: &[Value],
        row_block: Value,
        groups: (Value, Value),
        vectors: &Split,
        vectors_per_group: usize,
    ) {
        let start = |b: &mut FunctionBuilder, i: Value| {
            let v = b.ins().imul_imm_s(i, vectors.base as i64);
            let limit = b.ins().iconst(cranelift_codegen::ir::types::I64, vectors.big as i64);
            let extra = b.ins().umin(i, limit);
            b.ins().iadd(v, extra)
        };
        let first = b.ins().iadd(row_block, batch[2]);
        if_equal(b, first, 0, |b| {
            let (lo, hi) = (start(b, groups.0), start(b, groups.1));
            let image = at(b, base, batch[0], y.batch_bytes() as i64);
            let image = at(b, image, batch[1], (vectors_per_group * y.block_bytes()) as i64);
            super::clif::for_range(b, lo, hi, |b, v| {
                let block = at(b, image, v, y.block_bytes() as i64);
                self.call(m, b, block);
            });
        });
    }
}
