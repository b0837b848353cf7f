//! The allocator of cok's programs: mimalloc for small blocks, and if wanted the system's allocator for large ones.
//!
//! mimalloc needs less processor time for the many small blocks of a request. But it hands out blocks of one size in turn,
//! while glibc hands out the one that was freed last, which the processor's cache still has: a gain for the buffers of
//! bodies. On the other hand, glibc gives less of them back to the kernel after a burst.

use std::alloc::{GlobalAlloc, Layout, System};
use std::ptr;

use mimalloc::MiMalloc;

/// A limit that no block reaches.
pub const NONE: usize = usize::MAX;
/// Each block of mimalloc has at least this alignment.
const NATURAL: usize = align_of::<usize>();

/// mimalloc for blocks below `LARGE` bytes, and the system's allocator for the others.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allocator<const LARGE: usize>;

impl<const LARGE: usize> Allocator<LARGE> {
    const fn is_large(size: usize) -> bool {
        size >= LARGE
    }
}

#[expect(unsafe_code, reason = "`GlobalAlloc` is an unsafe trait")]
// SAFETY: a block's size says which allocator it is from, so each block goes back to its own. Blocks of `mi_malloc` and
// `mi_zalloc` have the natural alignment, and may be freed and resized like mimalloc's others.
unsafe impl<const LARGE: usize> GlobalAlloc for Allocator<LARGE> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if Self::is_large(layout.size()) {
            // SAFETY: the caller keeps the contract.
            return unsafe { System.alloc(layout) };
        }
        // The crate `mimalloc` passes an alignment with each request. For a size that is no power of two, mimalloc then
        // searches longer and takes a larger block, unless its page has a free one.
        if layout.align() <= NATURAL {
            // SAFETY: every size is valid, and the block has the natural alignment.
            return unsafe { libmimalloc_sys::mi_malloc(layout.size()) }.cast();
        }
        // SAFETY: the caller keeps the contract.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if Self::is_large(layout.size()) {
            // SAFETY: the caller keeps the contract.
            return unsafe { System.alloc_zeroed(layout) };
        }
        if layout.align() <= NATURAL {
            // SAFETY: every size is valid, and the block has the natural alignment.
            return unsafe { libmimalloc_sys::mi_zalloc(layout.size()) }.cast();
        }
        // SAFETY: the caller keeps the contract.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        if Self::is_large(layout.size()) {
            // SAFETY: the block is from the system, and the caller keeps the contract.
            unsafe { System.dealloc(pointer, layout) }
        } else {
            // SAFETY: the block is from mimalloc, and the caller keeps the contract.
            unsafe { MiMalloc.dealloc(pointer, layout) }
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        match (Self::is_large(layout.size()), Self::is_large(size)) {
            // SAFETY: the block is from the system and stays there, and the caller keeps the contract.
            (true, true) => unsafe { System.realloc(pointer, layout, size) },
            // SAFETY: the block is from mimalloc and stays there, and the caller keeps the contract.
            (false, false) => unsafe { MiMalloc.realloc(pointer, layout, size) },
            // SAFETY: the caller keeps the contract: the size is not 0, and no multiple of the alignment overflows. The new
            // block is another one, and both have as many bytes as are copied.
            _ => unsafe {
                let new = self.alloc(Layout::from_size_align_unchecked(size, layout.align()));
                if !new.is_null() {
                    ptr::copy_nonoverlapping(pointer, new, layout.size().min(size));
                    self.dealloc(pointer, layout);
                }
                new
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LARGE: usize = 4096;

    #[global_allocator]
    static ALLOCATOR: Allocator<LARGE> = Allocator;

    #[test]
    fn blocks_grow_and_shrink_across_the_limit() {
        let mut bytes: Vec<u8> = Vec::new();
        for size in [1, LARGE - 1, LARGE, 10 * LARGE, LARGE + 1, LARGE - 1, 7] {
            let before = bytes.len();
            bytes.resize(size, 0);
            bytes.shrink_to_fit();
            for (at, byte) in bytes.iter_mut().enumerate().skip(before) {
                *byte = at as u8;
            }
            assert!(bytes.iter().enumerate().all(|(at, byte)| *byte == at as u8), "{size}");
        }
    }

    #[test]
    fn zeroed_blocks_are_zero_and_aligned() {
        #[repr(align(64))]
        #[derive(Clone)]
        struct Line([u8; 64]);
        for count in [1, LARGE / 64 - 1, LARGE / 64, LARGE] {
            let zeroed = vec![0u8; count * 64];
            assert!(zeroed.iter().all(|byte| *byte == 0));
            let lines = vec![Line([1; 64]); count];
            assert_eq!(lines.as_ptr().addr() % 64, 0);
            assert!(lines.iter().all(|line| line.0 == [1; 64]));
        }
    }
}
