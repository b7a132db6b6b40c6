//! `DynamicQuantizeLinear`'s scale and zero point: from the least and greatest of the values and 0.

use crate::error::Result;
use crate::kernels::clif::{at, coordinates, for_n, for_range, off, share};
use crate::kernels::layout::BlockedLayout;
use crate::module::{Access, Emitter, Kernel, Operand};
use cranelift_codegen::ir::types::{F32, F32X4, I8, I32, I64};
use cranelift_codegen::ir::{InstBuilder, MemFlagsData, Value, condcodes::FloatCC};
use cranelift_frontend::FunctionBuilder;
use cranelift_module::Module;

/// Where the values are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Values {
    /// This many f32s one after another.
    Dense(usize),
    /// An activation; its halo and padding channels do not count.
    Activation(BlockedLayout),
}

/// Finds the range of all values; NaN is left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Range {
    /// The values.
    pub values: Values,
}

/// Elements below which one thread does all.
const SPLIT_ELEMS: usize = 16 << 10;
/// Bytes between what tasks find: a cache line.
const PARTIAL_BYTES: usize = 64;

/// Rows of values: a run of `count` f32s for each index of `dims`.
struct Rows {
    dims: Vec<(usize, usize)>,
    start: usize,
    count: usize,
}

impl Values {
    fn bytes(&self) -> usize {
        match self {
            Values::Dense(n) => 4 * n,
            Values::Activation(l) => l.bytes(),
        }
    }
    fn rows(&self, threads: usize) -> Vec<Rows> {
        match self {
            Values::Dense(n) => {
                let each = n / threads.max(1);
                let mut rows = vec![Rows { dims: vec![(threads.max(1), 4 * each)], start: 0, count: each }];
                let done = threads.max(1) * each;
                rows.push(Rows { dims: vec![(1, 0)], start: 4 * done, count: n - done });
                rows
            }
            Values::Activation(l) => {
                let [d, h, w] = l.spatial;
                let (whole, rest) = (l.c / l.cb, l.c % l.cb);
                let outer = |blocks: usize| {
                    vec![
                        (l.n, l.batch_bytes()),
                        (blocks, l.block_bytes()),
                        (d, l.plane_bytes()),
                        (h, l.row_bytes()),
                    ]
                };
                let mut rows = vec![];
                if whole > 0 {
                    rows.push(Rows { dims: outer(whole), start: l.origin_bytes(), count: w * l.cb });
                }
                if rest > 0 {
                    let mut dims = outer(1);
                    dims.push((w, l.pixel_bytes()));
                    let start = l.origin_bytes() + whole * l.block_bytes();
                    rows.push(Rows { dims, start, count: rest });
                }
                rows
            }
        }
    }
}

/// Least and greatest so far, four of each.
type Pair = [Value; 2];

fn flags() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}

/// The pair with `x` taken in, unless it is NaN.
fn take(b: &mut FunctionBuilder, [low, high]: Pair, x: Value) -> Pair {
    let less = b.ins().fcmp(FloatCC::LessThan, x, low);
    let more = b.ins().fcmp(FloatCC::GreaterThan, x, high);
    let wide = b.func.dfg.value_type(x) == F32X4;
    let choose = |b: &mut FunctionBuilder, c: Value, x: Value, y: Value| match wide {
        true => {
            let cast = MemFlagsData::new().with_endianness(cranelift_codegen::ir::Endianness::Little);
            let mask = b.ins().bitcast(F32X4, cast, c);
            b.ins().bitselect(mask, x, y)
        }
        false => b.ins().select(c, x, y),
    };
    [choose(b, less, x, low), choose(b, more, x, high)]
}

/// Takes `count` f32s from `p` into the pairs at `acc` (least at 0, greatest at 16).
fn run(b: &mut FunctionBuilder, p: Value, count: usize, acc: Value) {
    let load = |b: &mut FunctionBuilder, at: i32| b.ins().load(F32X4, flags(), acc, at);
    let start = [load(b, 0), load(b, 16)];
    let vectors = count / 4;
    let (top, exit) = (b.create_block(), b.create_block());
    let (i, low, high) =
        (b.append_block_param(top, I64), b.append_block_param(top, F32X4), b.append_block_param(top, F32X4));
    let (end_low, end_high) = (b.append_block_param(exit, F32X4), b.append_block_param(exit, F32X4));
    if vectors > 0 {
        let zero = b.ins().iconst(I64, 0);
        b.ins().jump(top, &[zero.into(), start[0].into(), start[1].into()]);
    } else {
        b.ins().jump(exit, &[start[0].into(), start[1].into()]);
    }
    b.switch_to_block(top);
    let q = at(b, p, i, 16);
    let x = b.ins().load(F32X4, flags(), q, 0);
    let [low, high] = take(b, [low, high], x);
    let next = b.ins().iadd_imm_s(i, 1);
    let n = b.ins().iconst(I64, vectors as i64);
    let again = b.ins().icmp(cranelift_codegen::ir::condcodes::IntCC::UnsignedLessThan, next, n);
    b.ins().brif(again, top, &[next.into(), low.into(), high.into()], exit, &[low.into(), high.into()]);
    b.switch_to_block(exit);
    b.ins().store(flags(), end_low, acc, 0);
    b.ins().store(flags(), end_high, acc, 16);
    for i in 4 * vectors..count {
        let single = |b: &mut FunctionBuilder, at: i32| b.ins().load(F32, flags(), acc, at);
        let pair = [single(b, 0), single(b, 16)];
        let x = b.ins().load(F32, flags(), p, 4 * i as i32);
        let [low, high] = take(b, pair, x);
        b.ins().store(flags(), low, acc, 0);
        b.ins().store(flags(), high, acc, 16);
    }
}

impl Range {
    fn tasks(&self, threads: usize) -> usize {
        if self.values.bytes() / 4 < SPLIT_ELEMS { 1 } else { threads.max(1) }
    }
    /// Bytes of what the first step leaves for the second.
    pub fn partial_bytes(&self, threads: usize) -> usize {
        self.tasks(threads) * PARTIAL_BYTES
    }

    /// The step that finds each task's range; operands `x`, `partial`.
    ///
    /// # Errors
    /// What code generation finds.
    pub fn build<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        let tasks = self.tasks(threads);
        let parts = self.values.rows(tasks);
        let func = e.step("range", 2, |_, b, p, task| {
            let acc = at(b, p[1], task, PARTIAL_BYTES as i64);
            let zero = b.ins().f32const(0.0);
            let zero = b.ins().splat(F32X4, zero);
            b.ins().store(flags(), zero, acc, 0);
            b.ins().store(flags(), zero, acc, 16);
            for rows in parts.iter().filter(|r| r.count > 0) {
                let units: usize = rows.dims.iter().map(|d| d.0).product();
                let counts: Vec<usize> = rows.dims.iter().map(|d| d.0).collect();
                let (low, high) = share(b, task, units, tasks);
                for_range(b, low, high, |b, u| {
                    let c = coordinates(b, u, &counts);
                    let mut q = off(b, p[0], rows.start as i64);
                    for (i, (_, step)) in c.iter().zip(&rows.dims) {
                        q = at(b, q, *i, *step as i64);
                    }
                    run(b, q, rows.count, acc);
                });
            }
            Ok(())
        })?;
        let partial = Operand { name: "partial", bytes: tasks * PARTIAL_BYTES, access: Access::Write };
        let operands = vec![Operand::read("x", self.values.bytes()), partial];
        let name = format!("range of {}", self.values.bytes() / 4);
        Ok(Kernel { func, name, operands, tasks, flops: 0 })
    }

    /// The step that makes the scale and the zero point of what tasks found; operands `partial`, `scale` (f32),
    /// `zero` (uint8).
    ///
    /// # Errors
    /// What code generation finds.
    pub fn build_end<M: Module>(&self, e: &mut Emitter<M>, threads: usize) -> Result<Kernel> {
        let tasks = self.tasks(threads);
        let func = e.step("range_end", 3, |_, b, p, task| {
            let _ = task;
            let zero = b.ins().f32const(0.0);
            // all into the first task's first lanes
            for_n(b, tasks as i64, |b, t| {
                let q = at(b, p[0], t, PARTIAL_BYTES as i64);
                for lane in 0..4 {
                    let low = b.ins().load(F32, flags(), q, 4 * lane);
                    let high = b.ins().load(F32, flags(), q, 16 + 4 * lane);
                    let best = [b.ins().load(F32, flags(), p[0], 0), b.ins().load(F32, flags(), p[0], 16)];
                    let [least, _] = take(b, best, low);
                    let [_, most] = take(b, best, high);
                    b.ins().store(flags(), least, p[0], 0);
                    b.ins().store(flags(), most, p[0], 16);
                }
            });
            let (low, high) = (b.ins().load(F32, flags(), p[0], 0), b.ins().load(F32, flags(), p[0], 16));
            let width = b.ins().fsub(high, low);
            let same = b.ins().fcmp(FloatCC::Equal, high, low);
            let one = b.ins().f32const(1.0);
            let width = b.ins().select(same, one, width);
            let top = b.ins().f32const(255.0);
            let scale = b.ins().fdiv(width, top);
            b.ins().store(flags(), scale, p[1], 0);
            let q = b.ins().fdiv(low, scale);
            let q = b.ins().fsub(zero, q);
            // NaN (of infinite ranges) becomes 0
            let more = b.ins().fcmp(FloatCC::GreaterThan, q, zero);
            let q = b.ins().select(more, q, zero);
            let less = b.ins().fcmp(FloatCC::LessThan, q, top);
            let q = b.ins().select(less, q, top);
            let q = b.ins().nearest(q);
            let q = b.ins().fcvt_to_uint_sat(I32, q);
            let q = b.ins().ireduce(I8, q);
            b.ins().store(flags(), q, p[2], 0);
            Ok(())
        })?;
        let partial = Operand { name: "partial", bytes: tasks * PARTIAL_BYTES, access: Access::ReadWrite };
        let operands = vec![partial, Operand::write("scale", 4), Operand::write("zero", 1)];
        Ok(Kernel { func, name: "range to scale and zero point".into(), operands, tasks: 1, flops: 0 })
    }
}
