//! The walk through time, in CLIF: states are put in working space, each step is a call of the assembled cells, what
//! is wanted of the last states is copied out.
use super::{Recurrence, padded};
use crate::asm::Isa;
use crate::error::Result;
use crate::kernels::clif::{at, for_n, for_range, off, share};
use crate::kernels::split::{Run, Split};
use crate::module::{Emitter, Operand};
use cranelift_codegen::ir::types::{F32X4, I32, I64};
use cranelift_codegen::ir::{FuncRef, InstBuilder, MemFlagsData, Value};
use cranelift_frontend::FunctionBuilder;
use cranelift_module::{FuncId, Module};

/// The operands' pointers; those that the layer has not are any pointer, and not used.
#[derive(Clone, Copy)]
struct Pointers {
    g: Value,
    r: Value,
    extra: Value,
    h0: Value,
    c0: Value,
    lens: Value,
    y: Value,
    h: Value,
    c: Value,
    work: Value,
}

/// Blocks of equally many sequences of one direction.
struct Group {
    direction: usize,
    blocks: Run,
    cells: Vec<FuncId>,
}

impl Recurrence {
    pub(super) fn walk<M: Module>(
        &self,
        e: &mut Emitter<M>,
        operands: &[Operand],
        tasks: usize,
    ) -> Result<FuncId> {
        let isa = e.isa();
        let mut groups = vec![];
        for direction in 0..self.reverse.len() {
            for blocks in Split::at_most(self.batch, self.rows(isa)).runs() {
                groups.push(Group { direction, blocks, cells: self.cells(e, direction, blocks.size)? });
            }
        }
        let place = |name: &str| operands.iter().position(|o| o.name == name).unwrap_or(0);
        e.step("recurrence", operands.len(), |m, b, p, task| {
            let get = |name: &str| p[place(name)];
            let pointers = Pointers {
                g: get("g"),
                r: get("r"),
                extra: get("extra"),
                h0: get("h0"),
                c0: get("c0"),
                lens: get("lens"),
                y: get("y"),
                h: get("h"),
                c: get("c"),
                work: get("scratch"),
            };
            for (i, group) in groups.iter().enumerate() {
                let cells: Vec<FuncRef> =
                    group.cells.iter().map(|f| m.declare_func_in_func(*f, b.func)).collect();
                // single blocks of several directions go to different tasks
                let turn = b.ins().iadd_imm_s(task, (i % tasks) as i64);
                let n = b.ins().iconst(I64, tasks as i64);
                let turn = b.ins().urem(turn, n);
                let (low, high) = share(b, turn, group.blocks.to - group.blocks.from, tasks);
                for_range(b, low, high, |b, block| {
                    let walker = Walker { spec: self, isa, group, cells: &cells };
                    walker.block(b, pointers, block);
                });
            }
            Ok(())
        })
    }
}

struct Walker<'a> {
    spec: &'a Recurrence,
    isa: Isa,
    group: &'a Group,
    cells: &'a [FuncRef],
}

impl Walker<'_> {
    fn part(&self) -> i64 {
        4 * padded(self.isa, self.spec.hidden) as i64
    }
    fn row(&self) -> i64 {
        self.spec.row_bytes(self.isa) as i64
    }

    /// All time steps of one block of sequences.
    fn block(&self, b: &mut FunctionBuilder, mut p: Pointers, block: Value) {
        let (s, d) = (self.spec, self.group.direction);
        let size = self.group.blocks.size as i64;
        let first = b.ins().imul_imm_s(block, size);
        let first = off(b, first, self.group.blocks.start as i64);
        let width = s.cell.gates() * s.hidden;
        let (state_s, state_d) = s.state_steps();
        let (_, g_s) = s.token(s.directions() * width);
        let (_, y_s, y_d) = s.y_steps();
        let move_by = |b: &mut FunctionBuilder, p: Value, each: usize, fixed: usize| {
            let p = off(b, p, 4 * fixed as i64);
            at(b, p, first, 4 * each as i64)
        };
        p.g = move_by(b, p.g, g_s, d * width);
        p.y = move_by(b, p.y, y_s, d * y_d);
        p.h0 = move_by(b, p.h0, state_s, d * state_d);
        p.c0 = move_by(b, p.c0, state_s, d * state_d);
        p.h = move_by(b, p.h, state_s, d * state_d);
        p.c = move_by(b, p.c, state_s, d * state_d);
        p.lens = at(b, p.lens, first, 8);
        p.work = off(b, p.work, (d * s.batch) as i64 * self.row());
        p.work = at(b, p.work, first, self.row());
        p.r = off(b, p.r, 4 * (d * s.packed_elems(self.isa) / s.directions()) as i64);
        p.extra = off(b, p.extra, 4 * (d * s.extra_elems(self.isa) / s.directions()) as i64);
        self.copy_states(b, size, (p.h0, 4 * state_s as i64), (p.work, self.row()));
        if s.cell.is_lstm() {
            let c = off(b, p.work, 2 * self.part());
            self.copy_states(b, size, (p.c0, 4 * state_s as i64), (c, self.row()));
        }
        let steps = match s.lens {
            true => b.ins().load(I64, MemFlagsData::trusted(), p.lens, 0),
            false => b.ins().iconst(I64, s.steps as i64),
        };
        self.steps(b, p, steps);
        if s.lens && s.wanted[0] {
            self.blank(b, p, steps);
        }
        if s.wanted[1] {
            let odd = b.ins().band_imm_u(steps, 1);
            let h = at(b, p.work, odd, self.part());
            self.copy_states(b, size, (h, self.row()), (p.h, 4 * state_s as i64));
        }
        if s.wanted[2] {
            let c = off(b, p.work, 2 * self.part());
            self.copy_states(b, size, (c, self.row()), (p.c, 4 * state_s as i64));
        }
    }

    fn steps(&self, b: &mut FunctionBuilder, p: Pointers, steps: Value) {
        let s = self.spec;
        let (g_t, _) = s.token(s.directions() * s.cell.gates() * s.hidden);
        let (y_t, _, _) = s.y_steps();
        let zero = b.ins().iconst(I64, 0);
        for_range(b, zero, steps, |b, k| {
            let t = match s.reverse[self.group.direction] {
                true => {
                    let left = b.ins().isub(steps, k);
                    b.ins().iadd_imm_s(left, -1)
                }
                false => k,
            };
            let (g, y) = (at(b, p.g, t, 4 * g_t as i64), at(b, p.y, t, 4 * y_t as i64));
            let odd = b.ins().band_imm_u(k, 1);
            let flip = b.ins().imul_imm_s(odd, self.part());
            let mut r = p.r;
            for (phase, cell) in s.cell.phases().iter().zip(self.cells) {
                b.ins().call(*cell, &[r, p.work, g, p.extra, flip, y]);
                r = off(b, r, 4 * s.phase_elems(self.isa, *phase) as i64);
            }
        });
    }

    /// Zeros behind the end of a sequence.
    fn blank(&self, b: &mut FunctionBuilder, p: Pointers, steps: Value) {
        let end = b.ins().iconst(I64, self.spec.steps as i64);
        let (y_t, _, _) = self.spec.y_steps();
        for_range(b, steps, end, |b, t| {
            let y = at(b, p.y, t, 4 * y_t as i64);
            let zero = b.ins().iconst(I32, 0);
            for_n(b, self.spec.hidden as i64, |b, i| {
                let y = at(b, y, i, 4);
                b.ins().store(MemFlagsData::trusted(), zero, y, 0);
            });
        });
    }

    /// The states of `rows` sequences from one place and pitch to another.
    fn copy_states(&self, b: &mut FunctionBuilder, rows: i64, from: (Value, i64), to: (Value, i64)) {
        let n = self.spec.hidden as i64;
        // neither side need stand on a vector's boundary
        let flags = MemFlagsData::new().with_notrap();
        for_n(b, rows, |b, row| {
            let (x, y) = (at(b, from.0, row, from.1), at(b, to.0, row, to.1));
            for_n(b, n / 4, |b, i| {
                let (x, y) = (at(b, x, i, 16), at(b, y, i, 16));
                let v = b.ins().load(F32X4, flags, x, 0);
                b.ins().store(flags, v, y, 0);
            });
            for i in n / 4 * 4..n {
                let v = b.ins().load(I32, flags, x, 4 * i as i32);
                b.ins().store(flags, v, y, 4 * i as i32);
            }
        });
    }
}
