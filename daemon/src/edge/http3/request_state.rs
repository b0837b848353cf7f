//! What the two directions of one request share.

use std::sync::{Arc, OnceLock};

use h3::error::Code;
use tokio::sync::Notify;

use crate::edge::interim::InterimHeads;

/// One request, seen by the task that answers it and by the reader of its body.
#[derive(Debug)]
pub(super) struct RequestState {
    /// Why it is to end early.
    aborted: OnceLock<Code>,
    /// Interim heads for the visitor.
    pub(super) interim: Arc<InterimHeads>,
    changed: Arc<Notify>,
}

impl RequestState {
    /// Of a request that has just come.
    pub(super) fn new() -> Arc<Self> {
        let changed = Arc::<Notify>::default();
        let interim = Arc::new(InterimHeads::new(changed.clone()));
        Arc::new(Self { aborted: OnceLock::new(), interim, changed })
    }

    /// Gives the request up: what is left of it is reset with this code. The first code counts.
    pub(super) fn abort(&self, code: Code) {
        let _ = self.aborted.set(code);
        self.changed.notify_one();
    }

    /// The code with which it was given up.
    pub(super) fn aborted(&self) -> Option<Code> {
        self.aborted.get().copied()
    }

    /// Waits until the request is aborted or an interim head has come. Only for the task that answers.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}
