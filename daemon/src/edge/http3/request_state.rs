//! The state that the two directions of one request share.

use std::sync::{Arc, OnceLock};

use h3::error::Code;
use tokio::sync::Notify;

use crate::edge::interim::InterimHeads;

/// Shared by the task that answers a request and the reader of its body.
#[derive(Debug)]
pub(super) struct RequestState {
    /// The code with which the request is reset, if it ends early.
    aborted: OnceLock<Code>,
    /// Interim heads for the visitor.
    pub(super) interim: Arc<InterimHeads>,
    changed: Arc<Notify>,
}

impl RequestState {
    /// For a request that has just come.
    pub(super) fn new() -> Arc<Self> {
        let changed = Arc::<Notify>::default();
        let interim = Arc::new(InterimHeads::new(changed.clone()));
        Arc::new(Self { aborted: OnceLock::new(), interim, changed })
    }

    /// Abandons the request: both directions are reset with this code. The first code counts.
    pub(super) fn abort(&self, code: Code) {
        let _ = self.aborted.set(code);
        self.changed.notify_one();
    }

    /// The code with which the request was abandoned.
    pub(super) fn aborted(&self) -> Option<Code> {
        self.aborted.get().copied()
    }

    /// Waits until the request is aborted or an interim head has come. Only for the task that answers.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }
}
