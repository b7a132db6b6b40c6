//! Memory between unreadable pages, for tests of what machine code touches.
//!
//! A guarded step runs twice on copies of its operands: in one run each copy begins behind an unreadable page, in the
//! other each ends before one. A kernel that reads or writes outside an operand then ends the process with a
//! segmentation fault, whatever happens to lie there in production. Both runs must write the same bytes.

use crate::error::{Error, Result};
use crate::module::{Access, Operand};
use region::{Allocation, Protection};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Which edge of an operand lies at an unreadable page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edge {
    /// The first byte.
    First,
    /// The last byte.
    Last,
}

impl Edge {
    /// Both, in the order in which a guarded step uses them.
    pub const BOTH: [Edge; 2] = [Edge::First, Edge::Last];

    /// What lies around an operand on its own pages, and in working space: NaNs as f32, another pattern for each edge.
    const fn rest(self) -> u8 {
        match self {
            Edge::First => 0xff,
            Edge::Last => 0x7f,
        }
    }
}

static EVERY_STEP: AtomicBool = AtomicBool::new(false);

/// Has each kernel step of each compiled model of this process run guarded from now on, or no more.
pub fn every_step(on: bool) {
    EVERY_STEP.store(on, Ordering::Relaxed);
}

pub(crate) fn guards_every_step() -> bool {
    EVERY_STEP.load(Ordering::Relaxed)
}

/// What is known of a live piece of memory, to name it in a fault.
struct Named {
    first: usize,
    bytes: usize,
    /// The reservation, unreadable pages included.
    from: usize,
    to: usize,
    what: String,
}

static LIVE: Mutex<Vec<Named>> = Mutex::new(vec![]);

fn live() -> MutexGuard<'static, Vec<Named>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which guarded operand an address lies beside, in words: for a handler of segmentation faults. `None` where it lies
/// beside none, or another thread is just making one.
pub fn describe(address: usize) -> Option<String> {
    let live = LIVE.try_lock().ok()?;
    let near = live.iter().find(|n| (n.from..n.to).contains(&address))?;
    let place = match address.checked_sub(near.first) {
        None => format!("{} bytes before", near.first - address),
        Some(at) if at >= near.bytes => format!("{} bytes behind", at - near.bytes + 1),
        Some(at) => format!("at byte {at} of"),
    };
    Some(format!("{place} the {} bytes of {}", near.bytes, near.what))
}

/// A piece of memory with an unreadable page at one edge, and unreadable pages around what the other edge's page has
/// left over.
pub struct Guarded {
    _pages: Allocation,
    first: *mut u8,
    bytes: usize,
    /// The pages that can be read and written.
    open: (*mut u8, usize),
    edge: Edge,
}

impl Guarded {
    /// `bytes` bytes with `edge` at an unreadable page. `what` names them in a fault.
    ///
    /// # Errors
    /// Where the system has not that much memory.
    pub fn new(bytes: usize, edge: Edge, what: String) -> Result<Guarded> {
        let failed = |e: region::Error| Error::unsupported("guarded memory", e.to_string());
        let page = region::page::size();
        let open_bytes = bytes.next_multiple_of(page);
        let mut pages = region::alloc(open_bytes + 2 * page, Protection::NONE).map_err(failed)?;
        let base: *mut u8 = pages.as_mut_ptr();
        let open = base.wrapping_add(page);
        if bytes > 0 {
            // SAFETY: the pages lie inside the reservation, which nobody else has.
            unsafe {
                region::protect(open, open_bytes, Protection::READ_WRITE).map_err(failed)?;
                open.write_bytes(edge.rest(), open_bytes);
            }
        }
        let first = match edge {
            Edge::First => open,
            Edge::Last => open.wrapping_add(open_bytes - bytes),
        };
        let from = base as usize;
        live().push(Named { first: first as usize, bytes, from, to: from + open_bytes + 2 * page, what });
        Ok(Guarded { _pages: pages, first, bytes, open: (open, open_bytes), edge })
    }

    /// The first byte.
    pub fn ptr(&self) -> *mut u8 {
        self.first
    }

    /// Whether what lies around the bytes on their own pages is as it was made.
    fn intact(&self) -> bool {
        let (open, open_bytes) = self.open;
        let before = self.first as usize - open as usize;
        let rest = self.edge.rest();
        // SAFETY: both parts lie inside the open pages; the step that wrote them has ended.
        let (before, behind) = unsafe {
            let behind = self.first.add(self.bytes);
            (
                std::slice::from_raw_parts(open, before),
                std::slice::from_raw_parts(behind, open_bytes - before - self.bytes),
            )
        };
        before.iter().chain(behind).all(|b| *b == rest)
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        live().retain(|n| n.first != self.first as usize);
    }
}

/// Calls `run` twice with pointers to guarded copies of the operands, and gives them what it wrote.
///
/// # Errors
/// A write beside an operand, a write to an operand that is only read, and two runs that wrote different bytes.
///
/// # Safety
/// Each pointer of `args` is valid for reads, and for writes where the operand is written, of the operand's bytes, and
/// nobody else writes there.
pub(crate) unsafe fn twice(
    kernel: &str,
    operands: &[Operand],
    args: &[*mut u8],
    mut run: impl FnMut(&[*mut u8]),
) -> Result<()> {
    let wrong = |o: &Operand, what: &str| Error::Codegen(format!("{kernel}: operand {} {what}", o.name));
    let mut made: Vec<Vec<u8>> = vec![];
    for edge in Edge::BOTH {
        let mut copies = vec![];
        for (o, arg) in operands.iter().zip(args) {
            let copy = Guarded::new(o.bytes, edge, format!("operand {} of {kernel}", o.name))?;
            if o.access != Access::Scratch && o.bytes > 0 {
                // SAFETY: the caller's promise; the copy has as many bytes.
                unsafe { copy.ptr().copy_from_nonoverlapping(*arg, o.bytes) };
            }
            copies.push(copy);
        }
        let pointers: Vec<*mut u8> = copies.iter().map(Guarded::ptr).collect();
        run(&pointers);
        let mut written = vec![];
        for ((o, copy), arg) in operands.iter().zip(&copies).zip(args) {
            if !copy.intact() {
                return Err(wrong(o, "was written outside"));
            }
            // SAFETY: the copy's own bytes, and the caller's promise.
            let (now, before) = unsafe {
                let arg = if o.bytes == 0 { copy.ptr() } else { *arg };
                (std::slice::from_raw_parts(copy.ptr(), o.bytes), std::slice::from_raw_parts(arg, o.bytes))
            };
            match o.access {
                Access::Read if now != before => return Err(wrong(o, "is only read, but was written")),
                Access::Read | Access::Scratch => {}
                Access::Write | Access::ReadWrite | Access::Flag => written.push(now.to_vec()),
            }
        }
        if edge == Edge::Last && written != made {
            return Err(Error::Codegen(format!(
                "{kernel}: two runs on the same operands wrote different bytes"
            )));
        }
        made = written;
    }
    let outputs =
        operands.iter().zip(args).filter(|(o, _)| !matches!(o.access, Access::Read | Access::Scratch));
    for ((o, arg), bytes) in outputs.zip(&made) {
        // SAFETY: the caller's promise; `bytes` are the operand's.
        unsafe { arg.copy_from_nonoverlapping(bytes.as_ptr(), o.bytes) };
    }
    Ok(())
}
