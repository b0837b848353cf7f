//! What operators see of tunnels and sessions, at one moment.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use cok_proto::{ErrorCode, ErrorMessage};
use tokio::time::Instant;

use super::Tunnels;
use super::presence::{Live, Presence, Tunnel};
use super::session::Session;
use crate::admission::KeyRecord;
use crate::names::Subdomain;

/// Whether a tunnel can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// A session serves it.
    Online,
    /// A session serves it, whose client gives no sign of life.
    Silent,
    /// No session serves it. It may come back.
    Away,
    /// Its client has ended it.
    Closed,
}

/// One tunnel.
#[derive(Clone, Debug)]
pub(crate) struct TunnelView {
    pub(crate) name: Subdomain,
    pub(crate) url: String,
    pub(crate) state: State,
    /// Since when it has been in that state.
    pub(crate) since: Instant,
    /// The id of its key.
    pub(crate) key: Arc<str>,
    /// The name of its key, if that is still valid.
    pub(crate) key_name: Option<Arc<str>>,
    /// Its session, unless it is away.
    pub(crate) served: Option<Served>,
    pub(crate) traffic: TrafficView,
}

/// Who serves a tunnel.
#[derive(Clone, Debug)]
pub(crate) struct Served {
    pub(crate) session: String,
    pub(crate) client: ClientView,
}

/// A client and its way to the daemon.
#[derive(Clone, Debug)]
pub(crate) struct ClientView {
    pub(crate) address: IpAddr,
    /// Its name and version, as it says.
    pub(crate) version: String,
    pub(crate) transport: &'static str,
    pub(crate) round_trip: Option<Duration>,
}

/// What a tunnel has carried in the life of the process.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct TrafficView {
    pub(crate) requests: u64,
    /// Exchanges that are open.
    pub(crate) open: usize,
    /// Bytes of bodies from visitors, and to them.
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// Requests per second.
    pub(crate) rate: f64,
}

/// One session.
#[derive(Clone, Debug)]
pub(crate) struct SessionView {
    pub(crate) id: String,
    pub(crate) key: Arc<KeyRecord>,
    pub(crate) client: ClientView,
    pub(crate) since: Instant,
    pub(crate) tunnels: Vec<Subdomain>,
}

impl Tunnels {
    /// All tunnels that are known, in no order.
    pub(crate) fn views(&self) -> Vec<TunnelView> {
        let (all, now) = (self.directory.tunnels.pin(), Instant::now());
        all.iter().map(|(name, tunnel)| self.tunnel_view(name, tunnel, now)).collect()
    }

    /// The tunnel with this name.
    pub(crate) fn view(&self, name: &Subdomain) -> Option<TunnelView> {
        self.find(name).map(|tunnel| self.tunnel_view(name, &tunnel, Instant::now()))
    }

    fn tunnel_view(&self, name: &Subdomain, tunnel: &Tunnel, now: Instant) -> TunnelView {
        let (state, since, live) = match &*tunnel.presence.borrow() {
            Presence::Online(live) => (State::Online, live.began, Some(live.clone())),
            Presence::Silent(live, since) => (State::Silent, *since, Some(live.clone())),
            Presence::Away(since) => (State::Away, *since, None),
            Presence::Closed(since) => (State::Closed, *since, None),
        };
        let key = tunnel.owner().key;
        TunnelView {
            name: name.clone(),
            url: self.address.url(name),
            state,
            since,
            key_name: self.admission.keys.name_of(&key),
            key,
            served: live.map(|live| live.served()),
            traffic: tunnel.traffic(now),
        }
    }

    /// All sessions, in no order.
    pub(crate) fn session_views(&self) -> Vec<SessionView> {
        self.directory.sessions().iter().map(|session| session.view()).collect()
    }

    /// The session with this id.
    pub(crate) fn session_view(&self, id: &str) -> Option<SessionView> {
        self.directory.session(id).map(|session| session.view())
    }

    /// Ends a session, whose client may connect again. Returns what it was; `None` if there is none with this id.
    pub(crate) fn end_session_by_hand(&self, id: &str) -> Option<SessionView> {
        let session = self.directory.session(id)?;
        let view = session.view();
        session.transport.close(ErrorMessage {
            code: ErrorCode::Shutdown,
            message: "the server's operator has ended the session".to_owned(),
            retryable: true,
        });
        Some(view)
    }
}

impl Live {
    fn served(&self) -> Served {
        let client = self.client.view(self.transport.round_trip());
        Served { session: self.client.session.clone(), client }
    }
}

impl Tunnel {
    fn traffic(&self, now: Instant) -> TrafficView {
        let Some(places) = self.known_places() else { return TrafficView::default() };
        let traffic = &places.traffic;
        TrafficView {
            requests: traffic.requests(),
            open: places.open(),
            received: traffic.carried().received(),
            sent: traffic.carried().sent(),
            rate: traffic.rate(now),
        }
    }
}

impl Session {
    fn view(&self) -> SessionView {
        SessionView {
            id: self.client.session.clone(),
            key: self.client.key.clone(),
            client: self.client.view(self.transport.round_trip()),
            since: self.began,
            tunnels: self.tunnels().into_iter().map(|(_, name)| name).collect(),
        }
    }
}
