//! The allocator: mimalloc, asked for an alignment only where its blocks do not have it by themselves.
//!
//! The crate `mimalloc` passes an alignment with each request. For a size that is no power of two, mimalloc then searches
//! longer and takes a larger block, unless its page has a free one.

use std::alloc::{GlobalAlloc, Layout};

use mimalloc::MiMalloc;

/// Each block of mimalloc has at least this alignment.
const NATURAL: usize = align_of::<usize>();

/// Asks mimalloc, with an alignment only where it is needed.
pub(crate) struct Allocator;

#[expect(unsafe_code, reason = "`GlobalAlloc` is an unsafe trait")]
// SAFETY: each call goes to mimalloc. Blocks of `mi_malloc` and `mi_zalloc` have the natural alignment, and may be freed and
// resized like its others.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= NATURAL {
            // SAFETY: every size is valid, and the block has the natural alignment.
            return unsafe { libmimalloc_sys::mi_malloc(layout.size()) }.cast();
        }
        // SAFETY: the caller keeps the contract.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= NATURAL {
            // SAFETY: every size is valid, and the block has the natural alignment.
            return unsafe { libmimalloc_sys::mi_zalloc(layout.size()) }.cast();
        }
        // SAFETY: the caller keeps the contract.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller keeps the contract.
        unsafe { MiMalloc.realloc(pointer, layout, size) }
    }
}
