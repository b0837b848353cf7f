//! The allocator: mimalloc, asked for an alignment only where its blocks do not have it by themselves.
//!
//! Its Rust interface names an alignment each time. mimalloc then takes a longer way, and a larger block, for each size that is
//! no power of two whenever its page has no free block at hand.

use std::alloc::{GlobalAlloc, Layout};

use mimalloc::MiMalloc;

/// The alignment that each block of mimalloc has.
const NATURAL: usize = align_of::<usize>();

/// mimalloc.
pub(crate) struct Allocator;

#[expect(unsafe_code, reason = "an allocator cannot be written without")]
// SAFETY: each call goes to mimalloc. Blocks of `mi_malloc` and `mi_zalloc` have the natural alignment, and may be freed and
// resized like its others.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= NATURAL {
            // SAFETY: it takes any size.
            return unsafe { libmimalloc_sys::mi_malloc(layout.size()) }.cast();
        }
        // SAFETY: the caller keeps the contract.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.align() <= NATURAL {
            // SAFETY: it takes any size.
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
