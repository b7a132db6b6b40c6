//! The loops around the innermost products of a micro-kernel: what they are reduced over, in order.

use crate::asm::Asm;
use crate::asm::reg::{Reg, rdi};
use crate::error::{Error, Result};

/// A reduction as nested loops over A, which `rdi` points to.
pub(crate) struct Loops<'a> {
    /// `(count, bytes to advance in A)`, outermost first.
    pub loops: &'a [(usize, i32)],
    /// Products for each tap.
    pub k: usize,
    /// Products for each tap in one turn of the outermost loop before its first, and what A moves after it.
    pub head: Option<(usize, i32)>,
    /// Products for each tap in one more turn of the outermost loop after its last; 0 for no such turn.
    pub tail_k: usize,
}

/// What stands inside the loops.
pub(crate) trait Products {
    /// The assembler.
    fn asm(&mut self) -> &mut Asm;
    /// Emits all taps with `k` products each; returns how far A has moved when they are done.
    fn body(&mut self, k: usize, counters: &mut Vec<Reg>) -> Result<i64>;
}

/// Emits the loops; each that turns more than once takes one of `counters`.
pub(crate) fn walk(e: &mut impl Products, l: &Loops<'_>, counters: &[Reg]) -> Result<()> {
    let mut counters = counters.to_vec();
    if let Some((k, advance)) = l.head {
        let moved = level(e, l.loops, 1, k, &mut counters)?;
        e.asm().add_imm(rdi, i64::from(advance) - moved)?;
    }
    let moved = level(e, l.loops, 0, l.k, &mut counters)?;
    if l.tail_k == 0 {
        return Ok(());
    }
    if let Some(&(1, step)) = l.loops.first() {
        e.asm().add_imm(rdi, i64::from(step) - moved)?;
    }
    level(e, l.loops, 1, l.tail_k, &mut counters).map(|_| ())
}

/// Emits loop `i` and all inside it; returns how far A has moved when it is done.
fn level(
    e: &mut impl Products,
    loops: &[(usize, i32)],
    i: usize,
    k: usize,
    counters: &mut Vec<Reg>,
) -> Result<i64> {
    let Some(&(count, step)) = loops.get(i) else { return e.body(k, counters) };
    if count == 1 {
        return level(e, loops, i + 1, k, counters);
    }
    counted(e, count, counters, |e, counters| {
        let inner = level(e, loops, i + 1, k, counters)?;
        e.asm().add_imm(rdi, i64::from(step) - inner)
    })?;
    Ok(count as i64 * i64::from(step))
}

/// `count` turns of `body`.
pub(crate) fn counted<E: Products>(
    e: &mut E,
    count: usize,
    counters: &mut Vec<Reg>,
    body: impl FnOnce(&mut E, &mut Vec<Reg>) -> Result<()>,
) -> Result<()> {
    let counter = counters.pop().ok_or_else(|| Error::Codegen("too many loops in a micro-kernel".into()))?;
    let top = e.asm().repeat(counter, count)?;
    body(e, counters)?;
    e.asm().again(counter, top)?;
    counters.push(counter);
    Ok(())
}
