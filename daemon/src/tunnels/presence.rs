//! A tunnel as its visitors see it: which session serves it now, and how many visitors wait for it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use cok_proto::RequestHead;
use cok_transport::{ExchangeHalves, OpenError, Transport};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::session::{Client, Owner};
use crate::admission::{Access, KeyRecord, Rate};
use crate::exchanges::{Exchanges, KeyUse, Places};

/// A tunnel in the session that serves it. A tunnel that moves to another session, or to another id, gets a new one. So
/// two are the same only if they are one allocation.
#[derive(Debug)]
pub(crate) struct Live {
    pub(super) client: Arc<Client>,
    pub(super) transport: Arc<dyn Transport>,
    /// The tunnel's id in the session.
    pub(super) tunnel: u32,
    /// When it came online.
    pub(super) began: Instant,
    /// Whom it lets in, if not everybody.
    pub(crate) access: Option<Arc<Access>>,
    /// What its key's tunnels use, from the first request on.
    pub(super) used: OnceLock<Arc<KeyUse>>,
}

impl Live {
    /// Opens an exchange. With `end`, the request has no body.
    pub(crate) fn open(&self, head: Arc<RequestHead>, end: bool) -> Result<ExchangeHalves, OpenError> {
        self.transport.open(self.tunnel, head, end)
    }

    /// The name of the transport that carries its session.
    pub(crate) fn transport_name(&self) -> &'static str {
        self.transport.name()
    }

    /// How often each visitor may ask, if its client has said so.
    pub(crate) fn visitor_rate(&self) -> Option<Rate> {
        self.access.as_ref().and_then(|access| access.rate)
    }

    /// The key of its client, as it stands now.
    fn key(&self) -> Arc<KeyRecord> {
        self.client.grant.record().unwrap_or_else(|| self.client.key.clone())
    }

    /// What the tunnels of its `key` use.
    pub(crate) fn key_use(&self, exchanges: &Exchanges, key: &KeyRecord) -> &Arc<KeyUse> {
        self.used.get_or_init(|| exchanges.key(&key.id))
    }
}

/// The key that counts for one request. It is read once for each session that the request goes to, since all requests of a
/// key share what reading it takes.
#[derive(Debug, Default)]
pub(crate) struct ServingKey(Option<(Weak<Live>, Arc<KeyRecord>)>);

impl ServingKey {
    /// The key of the session that serves the tunnel.
    pub(crate) fn of(&mut self, live: &Arc<Live>) -> &Arc<KeyRecord> {
        let (_, key) = match self.0.take() {
            Some(known) if Weak::as_ptr(&known.0) == Arc::as_ptr(live) => self.0.insert(known),
            _ => self.0.insert((Arc::downgrade(live), live.key())),
        };
        key
    }

    /// The key, if it was read.
    pub(crate) fn known(&self) -> Option<&Arc<KeyRecord>> {
        self.0.as_ref().map(|(_, key)| key)
    }

    /// The key, if it was read.
    pub(crate) fn into_key(self) -> Option<Arc<KeyRecord>> {
        self.0.map(|(_, key)| key)
    }
}

/// Whether a tunnel can be reached.
#[derive(Clone, Debug)]
pub(crate) enum Presence {
    /// This session serves it.
    Online(Arc<Live>),
    /// This session serves it, but its client has not answered a probe since then.
    Silent(Arc<Live>, Instant),
    /// No session serves it since then. It may come back.
    Away(Instant),
    /// Its client has ended it at that time, so visitors do not wait for it.
    Closed(Instant),
}

impl Presence {
    /// What serves it, whether or not its client answers.
    pub(super) fn served_by(&self) -> Option<&Arc<Live>> {
        match self {
            Self::Online(live) | Self::Silent(live, _) => Some(live),
            Self::Away(_) | Self::Closed(_) => None,
        }
    }

    /// Since when nothing serves it.
    pub(super) fn away_since(&self) -> Option<Instant> {
        match self {
            Self::Online(_) | Self::Silent(..) => None,
            Self::Away(since) | Self::Closed(since) => Some(*since),
        }
    }
}

/// A public name and what serves it.
#[derive(Debug)]
pub(crate) struct Tunnel {
    pub(super) presence: watch::Sender<Presence>,
    owner: Mutex<Owner>,
    held: AtomicUsize,
    /// Its exchanges, from the first request on.
    places: OnceLock<Arc<Places>>,
    /// The mark of how it was saved last. 0 if that is not known.
    saved: AtomicU64,
}

impl Tunnel {
    pub(super) fn new(presence: Presence, owner: Owner) -> Arc<Self> {
        let (presence, owner) = (watch::Sender::new(presence), Mutex::new(owner));
        Arc::new(Self { presence, owner, held: AtomicUsize::new(0), places: OnceLock::new(), saved: AtomicU64::new(0) })
    }

    /// Watches whether it can be reached.
    pub(crate) fn presence(&self) -> watch::Receiver<Presence> {
        self.presence.subscribe()
    }

    /// What serves it now.
    pub(crate) fn live(&self) -> Option<Arc<Live>> {
        match &*self.presence.borrow() {
            Presence::Online(live) => Some(live.clone()),
            _ => None,
        }
    }

    /// Its exchanges.
    pub(crate) fn places(&self, exchanges: &Exchanges) -> &Arc<Places> {
        self.places.get_or_init(|| exchanges.places())
    }

    /// Its exchanges, if there has been a request.
    pub(super) fn known_places(&self) -> Option<&Arc<Places>> {
        self.places.get()
    }

    /// Counts a visitor that waits for the tunnel, also in `all`. `None` if `most` wait for this one already.
    pub(super) fn hold(self: &Arc<Self>, most: usize, all: &Arc<AtomicUsize>) -> Option<Held> {
        let taken =
            self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| (held < most).then_some(held + 1));
        taken.is_ok().then(|| {
            all.fetch_add(1, Ordering::Relaxed);
            Held { tunnel: self.clone(), all: all.clone() }
        })
    }

    /// Whether an earlier session of the same client had it last.
    pub(super) fn was_anothers_of(&self, client: &Client) -> bool {
        let served = self.presence.borrow().served_by().map(|live| live.client.session.clone());
        *self.owner.lock() == client.owner && served.is_none_or(|session| session != client.session)
    }

    pub(super) fn owner(&self) -> Owner {
        self.owner.lock().clone()
    }

    pub(super) fn set_owner(&self, owner: Owner) {
        *self.owner.lock() = owner;
    }

    pub(super) fn saved(&self) -> u64 {
        self.saved.load(Ordering::Relaxed)
    }

    pub(super) fn set_saved(&self, mark: u64) {
        self.saved.store(mark, Ordering::Relaxed);
    }
}

/// A guard for a visitor that waits for a tunnel.
#[derive(Debug)]
pub(crate) struct Held {
    tunnel: Arc<Tunnel>,
    /// Visitors that wait for any tunnel.
    all: Arc<AtomicUsize>,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.tunnel.held.fetch_sub(1, Ordering::Relaxed);
        self.all.fetch_sub(1, Ordering::Relaxed);
    }
}
