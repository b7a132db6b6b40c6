//! Buffers aligned to a cache line.

use memmap2::MmapMut;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// Bytes of a cache line, and of the widest vector.
pub const LINE: usize = 64;

/// Zero-initialised f32s on a 64-byte boundary (large ones on a page boundary, straight from the system, so that pages
/// which are never written cost no memory).
pub struct AlignedF32 {
    ptr: NonNull<f32>,
    len: usize,
    /// The pages that hold a large buffer.
    pages: Option<MmapMut>,
}

/// From this size on a buffer has pages of its own, huge ones where the system has them: weights are read in long
/// stretches, and fewer pages mean fewer faults and misses.
const OWN_PAGES_BYTES: usize = 2 << 20;

/// Zeroed pages for this many bytes, if the system gives them.
fn own_pages(bytes: usize) -> Option<MmapMut> {
    let pages = MmapMut::map_anon(bytes).ok()?;
    #[cfg(target_os = "linux")]
    {
        // it is advice: small pages do as well
        let _ = pages.advise(memmap2::Advice::HugePage);
    }
    Some(pages)
}

// SAFETY: it owns its memory, as a Vec does.
unsafe impl Send for AlignedF32 {}
// SAFETY: shared access only reads.
unsafe impl Sync for AlignedF32 {}

impl AlignedF32 {
    fn layout(len: usize) -> Option<Layout> {
        let bytes = len.checked_mul(4)?;
        Layout::from_size_align(bytes, LINE).ok()
    }

    /// `len` zeros. Panics only as `Vec` does: when `len * 4` overflows `isize`.
    pub fn zeros(len: usize) -> AlignedF32 {
        let Some(layout) = Self::layout(len) else { panic!("capacity overflow: {len} f32s") };
        Self::try_zeros(len).unwrap_or_else(|| handle_alloc_error(layout))
    }

    /// `len` zeros, or nothing where the system has not that much memory.
    pub fn try_zeros(len: usize) -> Option<AlignedF32> {
        if len == 0 {
            return Some(AlignedF32 { ptr: NonNull::dangling(), len, pages: None });
        }
        let layout = Self::layout(len)?;
        if layout.size() >= OWN_PAGES_BYTES
            && let Some(mut pages) = own_pages(layout.size())
            && let Some(ptr) = NonNull::new(pages.as_mut_ptr().cast::<f32>())
        {
            return Some(AlignedF32 { ptr, len, pages: Some(pages) });
        }
        // SAFETY: the layout has a nonzero size.
        let ptr = unsafe { alloc_zeroed(layout) }.cast::<f32>();
        Some(AlignedF32 { ptr: NonNull::new(ptr)?, len, pages: None })
    }

    /// The first element, for reading and writing by who has the buffer to himself.
    pub(crate) fn base(&self) -> *mut f32 {
        self.ptr.as_ptr()
    }

    /// A copy of `values`.
    pub fn from_slice(values: &[f32]) -> AlignedF32 {
        let mut a = AlignedF32::zeros(values.len());
        a.copy_from_slice(values);
        a
    }
}

impl Drop for AlignedF32 {
    fn drop(&mut self) {
        if self.pages.is_some() {
            return;
        }
        if let Some(layout) = Self::layout(self.len).filter(|l| l.size() > 0) {
            // SAFETY: allocated in `zeros` with this layout, not in pages of its own.
            unsafe { dealloc(self.ptr.as_ptr().cast(), layout) }
        }
    }
}

impl Deref for AlignedF32 {
    type Target = [f32];
    fn deref(&self) -> &[f32] {
        // SAFETY: `len` initialised f32s (zeroed at allocation, in pages that live as long as this), or a dangling
        // pointer with len 0.
        unsafe { std::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedF32 {
    fn deref_mut(&mut self) -> &mut [f32] {
        // SAFETY: as in `deref`, and `&mut self` is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}
