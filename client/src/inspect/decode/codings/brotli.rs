//! The content coding `br` (RFC 7932).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use brotli_decompressor::{
    Allocator, BrotliDecompressStream, BrotliResult, BrotliState, SliceWrapper as _, StandardAlloc,
};

use super::{Coding, Trouble};

/// What a decoder's tables may take besides its window. The format allows 256 codes each for literals, commands and distances.
/// Real data takes 100 KiB.
const TABLES: usize = 4 << 20;

/// Undoes `br`.
pub(super) struct Brotli {
    state: BrotliState<Pool, Pool, Pool>,
    pool: Pool,
    total: usize,
    ended: bool,
}

/// Counts what the decoder allocates, and refuses more than the limit.
#[derive(Clone)]
struct Pool {
    limit: usize,
    held: Arc<AtomicUsize>,
    refused: Arc<AtomicBool>,
}

impl<T: Clone + Default> Allocator<T> for Pool
where
    StandardAlloc: Allocator<T>,
{
    type AllocatedMemory = <StandardAlloc as Allocator<T>>::AllocatedMemory;

    fn alloc_cell(&mut self, length: usize) -> Self::AllocatedMemory {
        let size = length.saturating_mul(size_of::<T>());
        if self.held.load(Ordering::Relaxed).saturating_add(size) > self.limit {
            self.refused.store(true, Ordering::Relaxed);
            return Self::AllocatedMemory::default();
        }
        self.held.fetch_add(size, Ordering::Relaxed);
        StandardAlloc::default().alloc_cell(length)
    }

    fn free_cell(&mut self, memory: Self::AllocatedMemory) {
        self.held.fetch_sub(size_of_val(memory.slice()), Ordering::Relaxed);
    }
}

impl Brotli {
    pub(super) fn new(window: usize) -> Self {
        // The old window lives until the larger one is filled from it.
        let limit = window.saturating_mul(2).saturating_add(TABLES);
        let pool = Pool { limit, held: Arc::default(), refused: Arc::default() };
        Self { state: BrotliState::new_strict(pool.clone(), pool.clone(), pool.clone()), pool, total: 0, ended: false }
    }

    /// How much it took and made. What comes behind the end is dropped.
    pub(super) fn step(&mut self, input: &[u8], out: &mut [u8]) -> Result<(usize, usize), Trouble> {
        if self.ended {
            return Ok((input.len(), 0));
        }
        let (mut taken, mut made) = (0, 0);
        let (mut left, mut room) = (input.len(), out.len());
        let result = BrotliDecompressStream(
            &mut left,
            &mut taken,
            input,
            &mut room,
            &mut made,
            out,
            &mut self.total,
            &mut self.state,
        );
        match result {
            BrotliResult::ResultFailure if self.pool.refused.load(Ordering::Relaxed) => {
                Err(Trouble::TooMuchMemory(Coding::Brotli))
            }
            BrotliResult::ResultFailure => Err(Trouble::Damaged(Coding::Brotli, "it breaks the rules of brotli")),
            BrotliResult::ResultSuccess => {
                self.ended = true;
                Ok((taken, made))
            }
            BrotliResult::NeedsMoreInput | BrotliResult::NeedsMoreOutput => Ok((taken, made)),
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.ended || self.total == 0 && self.pool.held.load(Ordering::Relaxed) == 0
    }

    pub(super) fn memory(&self) -> usize {
        size_of::<Self>() + self.pool.held.load(Ordering::Relaxed)
    }
}

impl fmt::Debug for Brotli {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Brotli").field("total", &self.total).field("ended", &self.ended).finish_non_exhaustive()
    }
}
