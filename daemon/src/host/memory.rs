//! Gives memory back to the kernel after a burst.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// How often a thread looks for pages that it can give back.
const EVERY: Duration = Duration::from_millis(500);

thread_local! {
    static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Gives back the pages of what this thread has freed. A worker calls it before it sleeps: the allocator would do it only
/// with the thread's next allocations.
#[expect(unsafe_code, reason = "the allocator has no safe interface for it")]
pub(crate) fn give_back() {
    let now = Instant::now();
    if LAST.get().is_none_or(|last| now.duration_since(last) >= EVERY) {
        LAST.set(Some(now));
        // SAFETY: it takes no pointers, and any thread may call it at any time.
        unsafe { libmimalloc_sys::mi_collect(false) }
    }
}
