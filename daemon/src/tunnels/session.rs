//! A session: one connection of a client, and the tunnels that it carries.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cok_transport::Transport;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::origin::Origin;
use super::presence::Live;
use super::view::ClientView;
use crate::admission::{Grant, KeyRecord, SessionPermit, TunnelPermit};
use crate::names::Subdomain;
use crate::observe::{SessionOpen, TunnelOnline};

/// Who owns a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The key's id.
    pub(crate) key: Arc<str>,
    /// The client installation.
    pub(crate) instance: String,
}

/// A client as it introduced itself in Connect, with a key that is valid.
#[derive(Debug)]
pub(crate) struct Client {
    /// The id of its session.
    pub(super) session: String,
    /// The key as it was at Connect, for its id and name.
    pub(super) key: Arc<KeyRecord>,
    /// The key as it is now: what the session may do.
    pub(super) grant: Grant,
    pub(super) owner: Owner,
    pub(super) origin: Origin,
    /// Its name and version, in one line.
    pub(super) version: String,
}

impl Client {
    pub(super) fn address(&self) -> IpAddr {
        self.origin.peer
    }

    /// What operators see of it.
    pub(super) fn view(&self, round_trip: Option<Duration>) -> ClientView {
        let (address, transport) = (self.origin.peer, self.origin.transport);
        ClientView { address, version: self.version.clone(), transport, round_trip }
    }
}

/// A session that was granted. Its task owns it; others reach its tunnels through the directory.
#[derive(Debug)]
pub(crate) struct Session {
    pub(super) client: Arc<Client>,
    pub(super) transport: Arc<dyn Transport>,
    /// When it was granted.
    pub(super) began: Instant,
    /// Counts the session against its key's quota.
    pub(super) permit: SessionPermit,
    bindings: Mutex<BTreeMap<u32, Binding>>,
    /// Its tunnels have moved, or move, to a successor.
    moves: AtomicBool,
    /// It is counted as one that carries on tunnels of an earlier session.
    returns: AtomicBool,
    /// Counts it as open.
    _open: SessionOpen,
}

/// One tunnel of a session.
#[derive(Debug)]
pub(super) struct Binding {
    pub(super) name: Subdomain,
    pub(super) live: Arc<Live>,
    /// Counts the tunnel against its key's quota.
    pub(super) _permit: TunnelPermit,
    /// Counts it as online.
    pub(super) _online: TunnelOnline,
}

impl Session {
    pub(super) fn new(
        client: Arc<Client>,
        transport: Arc<dyn Transport>,
        permit: SessionPermit,
        open: SessionOpen,
    ) -> Arc<Self> {
        Arc::new(Self {
            client,
            transport,
            began: Instant::now(),
            permit,
            bindings: Mutex::default(),
            moves: AtomicBool::new(false),
            returns: AtomicBool::new(false),
            _open: open,
        })
    }

    /// Notes that it carries on a tunnel of an earlier session. `false` if that was noted before.
    pub(super) fn is_first_return(&self) -> bool {
        !self.returns.swap(true, Ordering::Relaxed)
    }

    pub(super) fn add(&self, tunnel: u32, binding: Binding) {
        self.bindings.lock().insert(tunnel, binding);
    }

    pub(super) fn remove(&self, tunnel: u32) -> Option<Binding> {
        self.bindings.lock().remove(&tunnel)
    }

    /// Ids and names of its tunnels.
    pub(super) fn tunnels(&self) -> Vec<(u32, Subdomain)> {
        self.bindings.lock().iter().map(|(id, binding)| (*id, binding.name.clone())).collect()
    }

    /// Its tunnels, as their names know them.
    pub(super) fn live(&self) -> Vec<(Subdomain, Arc<Live>)> {
        self.bindings.lock().values().map(|binding| (binding.name.clone(), binding.live.clone())).collect()
    }

    /// Whether its tunnels move to a successor, so that it gets no more.
    pub(super) fn moves(&self) -> bool {
        self.moves.load(Ordering::Acquire)
    }

    pub(super) fn set_moves(&self, moves: bool) {
        self.moves.store(moves, Ordering::Release);
    }
}
