//! What the two directions of one request share.

use std::collections::VecDeque;
use std::sync::{Mutex, OnceLock, PoisonError};

use cok_proto::ResponseHead;
use h3::error::Code;
use tokio::sync::Notify;

/// How many interim heads may wait to be written; a service that sends more than its visitor takes loses them.
const MAX_INTERIM: usize = 8;

/// One request, seen by the task that answers it and by whoever reads its body.
#[derive(Debug, Default)]
pub(crate) struct Exchange {
    /// Why it is to end before its time.
    aborted: OnceLock<Code>,
    interim: Mutex<VecDeque<ResponseHead>>,
    changed: Notify,
}

impl Exchange {
    /// Gives the request up: what is left of it is reset with this code. The first one counts.
    pub(super) fn abort(&self, code: Code) {
        let _ = self.aborted.set(code);
        self.changed.notify_one();
    }

    /// The code with which it was given up.
    pub(super) fn aborted(&self) -> Option<Code> {
        self.aborted.get().copied()
    }

    /// Lets an interim head reach the visitor.
    pub(in crate::edge) fn send(&self, head: ResponseHead) {
        let mut waiting = self.interim.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < MAX_INTERIM {
            waiting.push_back(head);
        }
        drop(waiting);
        self.changed.notify_one();
    }

    /// The next interim head to write.
    pub(super) fn next_interim(&self) -> Option<ResponseHead> {
        self.interim.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Waits until something above has happened. Only for the task that answers.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}
