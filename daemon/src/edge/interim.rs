//! Interim responses (1xx) on their way to a visitor whose HTTP version can take them.

use std::collections::VecDeque;
use std::sync::Arc;

use cok_proto::ResponseHead;
use parking_lot::Mutex;
use tokio::sync::Notify;

/// How many interim heads may wait to be written. A service that sends more than its visitor takes loses them.
const MAX_WAITING: usize = 8;

/// Interim heads of one request.
#[derive(Debug, Default)]
pub(super) struct InterimHeads {
    waiting: Mutex<VecDeque<ResponseHead>>,
    /// Wakes the task that writes them.
    changed: Arc<Notify>,
}

impl InterimHeads {
    /// None yet; `changed` wakes the task that writes them.
    pub(super) fn new(changed: Arc<Notify>) -> Self {
        Self { waiting: Mutex::default(), changed }
    }

    /// Sends one to the visitor, unless too many wait.
    pub(super) fn send(&self, head: ResponseHead) {
        let mut waiting = self.waiting.lock();
        if waiting.len() < MAX_WAITING {
            waiting.push_back(head);
        }
        drop(waiting);
        self.changed.notify_one();
    }

    /// The next one to write.
    pub(super) fn next(&self) -> Option<ResponseHead> {
        self.waiting.lock().pop_front()
    }
}
