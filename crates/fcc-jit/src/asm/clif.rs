//! From the list of instructions to CLIF: each register, vector or general, is a variable.
//!
//! Two habits make Cranelift's selection find the good instructions: what a load feeds stands directly behind it (then it
//! becomes a memory operand), and a product takes its broadcast as it is (then aarch64 multiplies by element).

use super::ins::{Cond, Ins, Op2, Op3};
use super::reg::{ARGUMENTS, Mem, Reg};
use super::wide::{Cmp, Src};
use crate::error::{Error, Result};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::types::{F32, F32X4, I8X16, I32, I32X4, I64, I64X2};
use cranelift_codegen::ir::{Block, ConstantData, Endianness, InstBuilder, MemFlagsData, Type, Value};
use cranelift_codegen::isa::TargetIsa;
use cranelift_frontend::{FuncInstBuilder, FunctionBuilder, Variable};
use std::collections::HashMap;

/// What portable code needs to know of the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Target {
    /// It multiplies and adds with one rounding; else products are rounded before they are added.
    fused: bool,
}

impl Target {
    /// What a Cranelift target has.
    ///
    /// # Errors
    /// [`Error::Unsupported`] on x86-64 without SSE4.1, whose vectors do not round to integers.
    pub fn of(isa: &dyn TargetIsa) -> Result<Target> {
        if isa.name() != "x64" {
            return Ok(Target { fused: true });
        }
        let has = |name: &str| isa.isa_flags().iter().any(|f| f.name == name && f.as_bool() == Some(true));
        match has("has_sse41") {
            true => Ok(Target { fused: has("has_fma") }),
            false => Err(Error::unsupported("portable kernel", "the CPU has no SSE4.1")),
        }
    }
}

/// Adding this to a number below 2^22 puts the nearest integer into the low bits of the sum.
const ROUNDER: f32 = 12_582_912.0;

struct Translate<'a, 'b> {
    b: &'a mut FunctionBuilder<'b>,
    target: Target,
    general: HashMap<Reg, Variable>,
    vectors: HashMap<usize, Variable>,
    labels: HashMap<usize, Block>,
}

/// Emits the instructions of a function whose arguments are `args`.
pub(crate) fn emit(b: &mut FunctionBuilder, args: &[Value], code: &[Ins], target: Target) {
    let (general, vectors, labels) = (HashMap::new(), HashMap::new(), HashMap::new());
    let mut t = Translate { b, target, general, vectors, labels };
    for (&reg, &value) in ARGUMENTS.iter().zip(args) {
        t.set_general(reg, value);
    }
    code.iter().for_each(|i| t.instruction(i));
}

fn flags() -> MemFlagsData {
    MemFlagsData::new().with_notrap()
}

impl Translate<'_, '_> {
    fn general_var(&mut self, r: Reg) -> Variable {
        let b = &mut self.b;
        *self.general.entry(r).or_insert_with(|| b.declare_var(I64))
    }
    fn general(&mut self, r: Reg) -> Value {
        let v = self.general_var(r);
        self.b.use_var(v)
    }
    fn set_general(&mut self, r: Reg, value: Value) {
        let v = self.general_var(r);
        self.b.def_var(v, value);
    }
    fn vector_var(&mut self, r: usize) -> Variable {
        let b = &mut self.b;
        *self.vectors.entry(r).or_insert_with(|| b.declare_var(F32X4))
    }
    fn vector(&mut self, r: usize) -> Value {
        let v = self.vector_var(r);
        self.b.use_var(v)
    }
    fn set_vector(&mut self, r: usize, value: Value) {
        let value = self.cast(value, F32X4);
        let v = self.vector_var(r);
        self.b.def_var(v, value);
    }
    fn block(&mut self, label: usize) -> Block {
        let b = &mut self.b;
        *self.labels.entry(label).or_insert_with(|| b.create_block())
    }

    fn cast(&mut self, v: Value, ty: Type) -> Value {
        if self.b.func.dfg.value_type(v) == ty {
            return v;
        }
        self.b.ins().bitcast(ty, MemFlagsData::new().with_endianness(Endianness::Little), v)
    }
    fn ints(&mut self, v: Value) -> Value {
        self.cast(v, I32X4)
    }

    /// The pointer to add an offset to.
    fn pointer(&mut self, m: Mem) -> Value {
        let base = self.general(m.base);
        match m.index {
            None => base,
            Some(index) => {
                let index = self.general(index);
                self.b.ins().iadd(base, index)
            }
        }
    }
    fn load(&mut self, m: Mem, ty: Type) -> Value {
        let p = self.pointer(m);
        self.b.ins().load(ty, flags(), p, m.offset)
    }
    fn splat_load(&mut self, m: Mem) -> Value {
        let one = self.load(m, F32);
        self.b.ins().splat(F32X4, one)
    }
    fn constant(&mut self, words: [u32; 4]) -> Value {
        let bytes: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
        let c = self.b.func.dfg.constants.insert(ConstantData::from(bytes));
        self.b.ins().vconst(F32X4, c)
    }
    fn splat(&mut self, bits: u32) -> Value {
        self.constant([bits; 4])
    }
    fn source(&mut self, s: Src) -> Value {
        match s {
            Src::Reg(r) => self.vector(r),
            Src::Mem(m) => self.load(m, F32X4),
            Src::Each(m) => self.splat_load(m),
            Src::Const(c) => self.splat(c.to_bits()),
            Src::Bits(bits) => self.splat(bits),
        }
    }

    /// `out[i]` is lane `lanes[i]` of `x` (0 to 3) or of `y` (4 to 7).
    fn shuffle(&mut self, x: Value, y: Value, lanes: [u32; 4]) -> Value {
        let mask: Vec<u8> = lanes.iter().flat_map(|l| (0..4).map(move |i| (4 * l + i) as u8)).collect();
        let mask = self.b.func.dfg.immediates.push(ConstantData::from(mask));
        let (x, y) = (self.cast(x, I8X16), self.cast(y, I8X16));
        let out = self.b.ins().shuffle(x, y, mask);
        self.cast(out, F32X4)
    }
    /// `yes` where `x cmp y`, else `no`.
    fn pick(&mut self, cc: FloatCC, x: Value, y: Value, yes: Value, no: Value) -> Value {
        let mask = self.b.ins().fcmp(cc, x, y);
        let mask = self.cast(mask, F32X4);
        self.b.ins().bitselect(mask, yes, no)
    }

    /// `x * y + z`, where `minus` negates the product.
    fn multiply_add(&mut self, x: Value, y: Value, z: Value, minus: bool) -> Value {
        if self.target.fused {
            let x = if minus { self.b.ins().fneg(x) } else { x };
            return self.b.ins().fma(x, y, z);
        }
        let product = self.b.ins().fmul(x, y);
        match minus {
            true => self.b.ins().fsub(z, product),
            false => self.b.ins().fadd(product, z),
        }
    }

    fn op3(&mut self, op: Op3, d: usize, x: usize, y: Src) {
        let x = self.vector(x);
        let old = if op.accumulates() { self.vector(d) } else { x };
        let y = self.source(y);
        let value = match op {
            Op3::add => self.b.ins().fadd(x, y),
            Op3::sub => self.b.ins().fsub(x, y),
            Op3::mul => self.b.ins().fmul(x, y),
            Op3::div => self.b.ins().fdiv(x, y),
            Op3::min => self.pick(FloatCC::LessThan, x, y, x, y),
            Op3::max => self.pick(FloatCC::LessThan, y, x, x, y),
            Op3::fma => self.multiply_add(x, y, old, false),
            Op3::fnma => self.multiply_add(x, y, old, true),
            Op3::fma213 => self.multiply_add(old, x, y, false),
            Op3::fnma213 => self.multiply_add(old, x, y, true),
            Op3::and => self.ints_of(x, y, |b, x, y| b.band(x, y)),
            Op3::andnot => self.ints_of(x, y, |b, x, y| b.band_not(y, x)),
            Op3::or => self.ints_of(x, y, |b, x, y| b.bor(x, y)),
            Op3::xor => self.ints_of(x, y, |b, x, y| b.bxor(x, y)),
            Op3::addi => self.ints_of(x, y, |b, x, y| b.iadd(x, y)),
            Op3::subi => self.ints_of(x, y, |b, x, y| b.isub(x, y)),
            Op3::unpacklo => self.shuffle(x, y, [0, 4, 1, 5]),
            Op3::unpackhi => self.shuffle(x, y, [2, 6, 3, 7]),
            Op3::unpacklo64 => self.shuffle(x, y, [0, 1, 4, 5]),
            Op3::unpackhi64 => self.shuffle(x, y, [2, 3, 6, 7]),
        };
        self.set_vector(d, value);
    }
    fn ints_of(
        &mut self,
        x: Value,
        y: Value,
        op: impl FnOnce(FuncInstBuilder, Value, Value) -> Value,
    ) -> Value {
        let (x, y) = (self.ints(x), self.ints(y));
        op(self.b.ins(), x, y)
    }

    fn op2(&mut self, op: Op2, d: usize, x: Src) {
        let x = self.source(x);
        let value = match op {
            Op2::sqrt => self.b.ins().sqrt(x),
            Op2::from_int => {
                let x = self.ints(x);
                self.b.ins().fcvt_from_sint(F32X4, x)
            }
            Op2::to_int => {
                let rounder = self.splat(ROUNDER.to_bits());
                let sum = self.b.ins().fadd(x, rounder);
                let (sum, rounder) = (self.ints(sum), self.ints(rounder));
                self.b.ins().isub(sum, rounder)
            }
        };
        self.set_vector(d, value);
    }

    fn load_lanes(&mut self, at: Mem, lanes: usize) -> Value {
        if lanes == 4 {
            return self.load(at, F32X4);
        }
        if lanes == 1 {
            let one = self.load(at, F32);
            return self.b.ins().scalar_to_vector(F32X4, one);
        }
        let pair = self.load(at, I64);
        let pair = self.b.ins().scalar_to_vector(I64X2, pair);
        let pair = self.cast(pair, F32X4);
        if lanes == 2 {
            return pair;
        }
        let third = self.load(at + 8, F32);
        self.b.ins().insertlane(pair, third, 2)
    }
    fn store_lanes(&mut self, at: Mem, s: Value, lanes: usize) {
        let p = self.pointer(at);
        if lanes == 4 {
            self.b.ins().store(flags(), s, p, at.offset);
            return;
        }
        let mut done = 0;
        if lanes >= 2 {
            let pair = self.cast(s, I64X2);
            let pair = self.b.ins().extractlane(pair, 0);
            self.b.ins().store(flags(), pair, p, at.offset);
            done = 2;
        }
        if lanes > done {
            let one = self.b.ins().extractlane(s, done as u8);
            self.b.ins().store(flags(), one, p, at.offset + 4 * done as i32);
        }
    }

    fn fold(&mut self, r: usize, join: impl Fn(&mut Self, Value, Value) -> Value) {
        let x = self.vector(r);
        let halves = self.shuffle(x, x, [2, 3, 0, 1]);
        let x = join(self, x, halves);
        let pairs = self.shuffle(x, x, [1, 0, 3, 2]);
        let x = join(self, x, pairs);
        self.set_vector(r, x);
    }

    fn gather(&mut self, at: Mem, table: &[u32]) -> Value {
        let zero = self.splat(0);
        let mut out = zero;
        for (lane, &offset) in (0..4).zip(table) {
            let one = self.load(at + offset as i32, F32);
            out = self.b.ins().insertlane(out, one, lane);
        }
        out
    }

    fn instruction(&mut self, ins: &Ins) {
        match *ins {
            Ins::Op3(op, d, x, y) => self.op3(op, d, x, y),
            Ins::Op2(op, d, x) => self.op2(op, d, x),
            Ins::Mov(d, x) => {
                let value = self.vector(x);
                self.set_vector(d, value);
            }
            Ins::Splat(d, bits) => {
                let value = self.splat(bits);
                self.set_vector(d, value);
            }
            Ins::Broadcast(d, m) => {
                let value = self.splat_load(m);
                self.set_vector(d, value);
            }
            Ins::BroadcastLane0(d, x) => {
                let x = self.vector(x);
                let value = self.shuffle(x, x, [0; 4]);
                self.set_vector(d, value);
            }
            Ins::Round(d, x, mode) => {
                let x = self.vector(x);
                let value = match mode {
                    0 => self.b.ins().nearest(x),
                    1 => self.b.ins().floor(x),
                    2 => self.b.ins().ceil(x),
                    _ => self.b.ins().trunc(x),
                };
                self.set_vector(d, value);
            }
            Ins::ShiftLeft(d, x, bits) => {
                let x = self.vector(x);
                let x = self.ints(x);
                let value = self.b.ins().ishl_imm_u(x, i64::from(bits));
                self.set_vector(d, value);
            }
            Ins::ShiftRight(d, x, bits) => {
                let x = self.vector(x);
                let x = self.ints(x);
                let value = self.b.ins().sshr_imm_u(x, i64::from(bits));
                self.set_vector(d, value);
            }
            Ins::Select { d, cmp, x, y, yes, no } => {
                let (yes, no, x) = (self.vector(yes), self.vector(no), self.vector(x));
                let y = self.source(y);
                let value = self.pick(float_cc(cmp), x, y, yes, no);
                self.set_vector(d, value);
            }
            Ins::Load { d, at, lanes } => {
                let value = self.load_lanes(at, lanes);
                self.set_vector(d, value);
            }
            Ins::Store { at, s, lanes } => {
                let value = self.vector(s);
                self.store_lanes(at, value, lanes);
            }
            Ins::MarkNan(x, at) => {
                let x = self.vector(x);
                let nan = self.b.ins().fcmp(FloatCC::Unordered, x, x);
                let any = self.b.ins().vany_true(nan);
                let (mark, next) = (self.b.create_block(), self.b.create_block());
                self.b.ins().brif(any, mark, &[], next, &[]);
                self.b.switch_to_block(mark);
                let (p, one) = (self.pointer(at), self.b.ins().iconst(I32, 1));
                self.b.ins().store(flags(), one, p, at.offset);
                self.b.ins().jump(next, &[]);
                self.b.switch_to_block(next);
            }
            Ins::Blend { d, other, lanes } => {
                let (own, other) = (self.vector(d), self.vector(other));
                let mask = self.constant([0, 1, 2, 3].map(|i| if i < lanes { u32::MAX } else { 0 }));
                let value = self.b.ins().bitselect(mask, own, other);
                self.set_vector(d, value);
            }
            Ins::Permute(d, ref table, y) => {
                let y = self.source(y);
                let lanes = [0, 1, 2, 3].map(|i| table.get(i).map_or(0, |l| l % 4));
                let value = self.shuffle(y, y, lanes);
                self.set_vector(d, value);
            }
            Ins::Take(d, ref table, at) => {
                let (own, other) = (self.vector(d), self.load(at, F32X4));
                let lanes = [0, 1, 2, 3].map(|i| table.get(i).map_or(i as u32, |l| l % 8));
                let value = self.shuffle(own, other, lanes);
                self.set_vector(d, value);
            }
            Ins::Gather(d, at, ref table) => {
                let value = self.gather(at, table);
                self.set_vector(d, value);
            }
            Ins::SumLanes(r) => self.fold(r, |t, x, y| t.b.ins().fadd(x, y)),
            Ins::MaxLanes(r) => self.fold(r, |t, x, y| t.pick(FloatCC::LessThan, y, x, x, y)),
            Ins::LoadPointer(d, m) => {
                let value = self.load(m, I64);
                self.set_general(d, value);
            }
            Ins::Set(d, n) => {
                let value = self.b.ins().iconst(I64, n);
                self.set_general(d, value);
            }
            Ins::Copy(d, s) => {
                let value = self.general(s);
                self.set_general(d, value);
            }
            Ins::AddImm(d, n) => {
                let old = self.general(d);
                let value = self.b.ins().iadd_imm_s(old, n);
                self.set_general(d, value);
            }
            Ins::Add(d, s) => {
                let (old, s) = (self.general(d), self.general(s));
                let value = self.b.ins().iadd(old, s);
                self.set_general(d, value);
            }
            Ins::MulImm(d, s, n) => {
                let s = self.general(s);
                let value = self.b.ins().imul_imm_s(s, n);
                self.set_general(d, value);
            }
            Ins::Neg(d) => {
                let old = self.general(d);
                let value = self.b.ins().ineg(old);
                self.set_general(d, value);
            }
            Ins::Bind(label) => {
                let block = self.block(label);
                self.b.ins().jump(block, &[]);
                self.b.switch_to_block(block);
            }
            Ins::Branch(r, cond, n, label) => {
                let (value, to, next) = (self.general(r), self.block(label), self.b.create_block());
                let holds = self.b.ins().icmp_imm_s(int_cc(cond), value, n);
                self.b.ins().brif(holds, to, &[], next, &[]);
                self.b.switch_to_block(next);
            }
        }
    }
}

fn int_cc(cond: Cond) -> IntCC {
    match cond {
        Cond::Eq => IntCC::Equal,
        Cond::Ne => IntCC::NotEqual,
        Cond::Lt => IntCC::SignedLessThan,
        Cond::Le => IntCC::SignedLessThanOrEqual,
        Cond::Ge => IntCC::SignedGreaterThanOrEqual,
    }
}

fn float_cc(cmp: Cmp) -> FloatCC {
    match cmp {
        Cmp::Eq => FloatCC::Equal,
        Cmp::Lt => FloatCC::LessThan,
        Cmp::Le => FloatCC::LessThanOrEqual,
        Cmp::Unordered => FloatCC::Unordered,
        Cmp::Ge => FloatCC::GreaterThanOrEqual,
        Cmp::Gt => FloatCC::GreaterThan,
    }
}
