//! Loops and address arithmetic in CLIF.

use cranelift_codegen::ir::{InstBuilder, Value, condcodes::IntCC, types::I64};
use cranelift_frontend::FunctionBuilder;

/// `for i in 0..n`
pub fn for_n(b: &mut FunctionBuilder, n: i64, body: impl FnOnce(&mut FunctionBuilder, Value)) {
    if n <= 0 {
        return;
    }
    let zero = b.ins().iconst(I64, 0);
    if n == 1 {
        return body(b, zero);
    }
    let (top, exit) = (b.create_block(), b.create_block());
    let i = b.append_block_param(top, I64);
    b.ins().jump(top, &[zero.into()]);
    b.switch_to_block(top);
    body(b, i);
    let next = b.ins().iadd_imm_s(i, 1);
    let again = b.ins().icmp_imm_u(IntCC::UnsignedLessThan, next, n);
    b.ins().brif(again, top, &[next.into()], exit, &[]);
    b.switch_to_block(exit);
}

/// `for i in low..high`, which may be empty.
pub fn for_range(
    b: &mut FunctionBuilder,
    low: Value,
    high: Value,
    body: impl FnOnce(&mut FunctionBuilder, Value),
) {
    let (head, top, exit) = (b.create_block(), b.create_block(), b.create_block());
    let i = b.append_block_param(head, I64);
    b.ins().jump(head, &[low.into()]);
    b.switch_to_block(head);
    let again = b.ins().icmp(IntCC::UnsignedLessThan, i, high);
    b.ins().brif(again, top, &[], exit, &[]);
    b.switch_to_block(top);
    body(b, i);
    let next = b.ins().iadd_imm_s(i, 1);
    b.ins().jump(head, &[next.into()]);
    b.switch_to_block(exit);
}

/// `if a == n { body }`
pub fn if_equal(b: &mut FunctionBuilder, a: Value, n: i64, body: impl FnOnce(&mut FunctionBuilder)) {
    let (then, after) = (b.create_block(), b.create_block());
    let same = b.ins().icmp_imm_u(IntCC::Equal, a, n);
    b.ins().brif(same, then, &[], after, &[]);
    b.switch_to_block(then);
    body(b);
    b.ins().jump(after, &[]);
    b.switch_to_block(after);
}

/// `p + i * stride`
pub fn at(b: &mut FunctionBuilder, p: Value, i: Value, stride: i64) -> Value {
    if stride == 0 {
        return p;
    }
    let o = b.ins().imul_imm_s(i, stride);
    b.ins().iadd(p, o)
}

/// `p + o`
pub fn off(b: &mut FunctionBuilder, p: Value, o: i64) -> Value {
    if o == 0 { p } else { b.ins().iadd_imm_s(p, o) }
}

/// The units of `task` out of `tasks`: `task * units / tasks .. (task + 1) * units / tasks`.
pub fn share(b: &mut FunctionBuilder, task: Value, units: usize, tasks: usize) -> (Value, Value) {
    if tasks <= 1 {
        return (b.ins().iconst(I64, 0), b.ins().iconst(I64, units as i64));
    }
    let next = b.ins().iadd_imm_s(task, 1);
    let mut cut = |t: Value| {
        let n = b.ins().imul_imm_s(t, units as i64);
        let d = b.ins().iconst(I64, tasks as i64);
        b.ins().udiv(n, d)
    };
    (cut(task), cut(next))
}

/// The intersection of a run-time range with constant bounds; `whole` where it is known to lie inside them.
pub fn clip(
    b: &mut FunctionBuilder,
    range: (Value, Value),
    from: usize,
    to: usize,
    whole: bool,
) -> (Value, Value) {
    if whole {
        return range;
    }
    let from = b.ins().iconst(I64, from as i64);
    let to = b.ins().iconst(I64, to as i64);
    (b.ins().umax(range.0, from), b.ins().umin(range.1, to))
}

/// Splits index `i` into coordinates of a space of `dims`, outermost first.
pub fn coordinates(b: &mut FunctionBuilder, i: Value, dims: &[usize]) -> Vec<Value> {
    let mut rest = i;
    let mut out = Vec::with_capacity(dims.len());
    for (pos, &n) in dims.iter().enumerate().rev() {
        if n == 1 {
            out.push(b.ins().iconst(I64, 0));
        } else if pos == 0 {
            out.push(rest);
        } else {
            let d = b.ins().iconst(I64, n as i64);
            out.push(b.ins().urem(rest, d));
            rest = b.ins().udiv(rest, d);
        }
    }
    out.reverse();
    out
}
