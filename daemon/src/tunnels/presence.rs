//! A tunnel as its visitors see it: which session serves it now, and how many visitors wait for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cok_transport::Transport;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::directory::Owner;

/// A session that serves a name.
#[derive(Debug)]
pub(crate) struct Live {
    /// The session's id.
    pub(crate) session: String,
    /// The transport on which exchanges are opened.
    pub(crate) transport: Arc<dyn Transport>,
    pub(super) owner: Owner,
}

/// Whether a tunnel can be reached.
#[derive(Clone, Debug)]
pub(crate) enum Presence {
    /// This session serves it.
    Online(Arc<Live>),
    /// This session serves it, but its client has not answered a probe since then.
    Silent(Arc<Live>, Instant),
    /// No session has served it since then.
    Away(Instant),
}

/// A public name and what serves it.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(super) presence: watch::Sender<Presence>,
    owner: Mutex<Owner>,
    held: AtomicUsize,
}

impl Tunnel {
    pub(super) fn new(presence: Presence, owner: Owner) -> Arc<Self> {
        let (presence, owner) = (watch::Sender::new(presence), Mutex::new(owner));
        Arc::new(Self { presence, owner, held: AtomicUsize::new(0) })
    }

    /// Watches whether it can be reached.
    pub(crate) fn presence(&self) -> watch::Receiver<Presence> {
        self.presence.subscribe()
    }

    /// The session that serves it now.
    pub(crate) fn live(&self) -> Option<Arc<Live>> {
        match &*self.presence.borrow() {
            Presence::Online(live) => Some(live.clone()),
            Presence::Silent(..) | Presence::Away(_) => None,
        }
    }

    /// Counts a visitor that waits for the tunnel. `None` if `most` wait already.
    pub(crate) fn hold(self: &Arc<Self>, most: usize) -> Option<Held> {
        let taken =
            self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| (held < most).then_some(held + 1));
        taken.is_ok().then(|| Held(self.clone()))
    }

    pub(super) fn owner(&self) -> Owner {
        self.owner.lock().clone()
    }

    pub(super) fn set_owner(&self, owner: Owner) {
        *self.owner.lock() = owner;
    }
}

/// A guard for a visitor that waits for a tunnel.
#[derive(Debug)]
pub(crate) struct Held(Arc<Tunnel>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}
