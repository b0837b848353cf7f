//! What the inspector holds, and what it has lost.

use serde::Serialize;

use crate::inspect::shared::Shared;
use crate::inspect::store::{DISK_ROOM, MEMORY_ROOM};

/// The state of the inspector, as its interface shows it.
#[derive(Debug, Serialize)]
pub(super) struct State {
    version: &'static str,
    /// Of the latest change, for `after` of `events`.
    revision: u64,
    requests: usize,
    memory: usize,
    memory_limit: usize,
    disk: u64,
    disk_limit: u64,
    /// Why the disk takes no bodies at the moment.
    disk_failure: Option<String>,
    /// Requests that have made room for later ones.
    evicted: u64,
    /// Parts of requests that were not captured, since there was too much.
    lost: u64,
    /// Requests that were not captured at all, since there were too many.
    skipped: u64,
}

impl State {
    pub(super) fn new(shared: &Shared) -> Self {
        let figures = shared.store.figures();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            revision: figures.revision,
            requests: figures.entries,
            memory: figures.memory,
            memory_limit: MEMORY_ROOM,
            disk: shared.store.spool.used(),
            disk_limit: DISK_ROOM,
            disk_failure: shared.store.spool.failure(),
            evicted: figures.evicted,
            lost: shared.load.lost(),
            skipped: shared.load.skipped(),
        }
    }

    /// Whether the other one has nothing new that a page shows at once.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        let shown = |state: &Self| (state.lost, state.skipped, state.disk_failure.clone(), state.evicted > 0);
        shown(self) == shown(other)
    }
}
