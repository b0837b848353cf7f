//! A visitor: the other side of one public connection, over any version of HTTP.

use std::future::pending;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use http::uri::Authority;
use parking_lot::Mutex;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::known::Known;
use super::parts::Edge;
use crate::admission::{Busy, ConnectionPermit};
use crate::host::flushes::Flushes;

/// How many round trips a GOAWAY and the requests that cross it may take, and the longest time for that.
const CROSSING: (u32, Duration) = (3, Duration::from_secs(1));

/// The other side of a connection.
#[derive(Debug)]
pub(crate) struct Visitor {
    /// The edge that serves it.
    pub(super) edge: Arc<Edge>,
    /// The flushes of its connection over TCP.
    pub(super) flushes: Flushes,
    /// Ends its connection.
    pub(super) end: CancellationToken,
    peer: Peer,
    /// How many requests have come.
    requests: AtomicU64,
    /// How many of them have a complete response.
    answered: AtomicU64,
    /// True from an Upgrade request until its response, and after a 101.
    upgrading: AtomicBool,
    /// The response over HTTP/1.1 may wait for its visitor for as long as it likes.
    pauses: AtomicBool,
    /// What is known of its latest request.
    latest: Mutex<Option<Arc<Known>>>,
    permit: ConnectionPermit,
    /// Keeps the visitor counted as present, also after it has left HTTP.
    _present: TaskTrackerToken,
}

/// Where a visitor is.
#[derive(Debug)]
pub(crate) enum Peer {
    /// At one address for as long as its connection lasts.
    Fixed(IpAddr),
    /// Wherever its QUIC connection has migrated to.
    Moving(quinn::Connection),
}

/// What a connection holds from its acceptance on.
#[derive(Debug)]
pub(crate) struct Arrival {
    /// Its permit among the public connections.
    pub(crate) permit: ConnectionPermit,
    /// Keeps its visitor counted as present.
    pub(crate) present: TaskTrackerToken,
    /// Keeps it counted as fresh until its first request.
    pub(crate) fresh: TaskTrackerToken,
}

impl Visitor {
    /// The other side of a fresh connection.
    pub(super) fn new(edge: Arc<Edge>, peer: Peer, permit: ConnectionPermit, present: TaskTrackerToken) -> Arc<Self> {
        Arc::new(Self {
            edge,
            flushes: Flushes::default(),
            end: CancellationToken::new(),
            peer,
            requests: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            upgrading: AtomicBool::new(false),
            pauses: AtomicBool::new(false),
            latest: Mutex::default(),
            permit,
            _present: present,
        })
    }

    /// Its current address.
    pub(super) fn address(&self) -> IpAddr {
        match &self.peer {
            Peer::Fixed(address) => *address,
            Peer::Moving(connection) => connection.remote_address().ip().to_canonical(),
        }
    }

    /// What is known of its latest request.
    pub(super) fn latest(&self) -> Option<Arc<Known>> {
        self.latest.lock().clone()
    }

    /// What is known of its request to this authority.
    pub(super) fn knows(&self, authority: Authority) -> Arc<Known> {
        let peer = self.address();
        if let Some(latest) = self.latest().filter(|latest| latest.is_about(peer, &authority)) {
            return latest;
        }
        let known = Arc::new(Known::new(peer, authority, &self.edge.domain));
        if known.may_stay() {
            *self.latest.lock() = Some(known.clone());
        }
        known
    }

    /// How long a GOAWAY may be under way, and requests that were sent before it arrived. Zero over TCP, where the HTTP
    /// library takes care of it.
    pub(super) fn crossing_time(&self) -> Duration {
        match &self.peer {
            Peer::Fixed(_) => Duration::ZERO,
            Peer::Moving(connection) => (connection.rtt() * CROSSING.0).min(CROSSING.1),
        }
    }

    /// Whether a request has come.
    pub(super) fn has_asked(&self) -> bool {
        self.requests.load(Ordering::Relaxed) > 0
    }

    /// Notes that a request has come.
    pub(super) fn asked(&self) {
        self.permit.member().begin();
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.pauses.store(false, Ordering::Relaxed);
    }

    /// Notes that the visitor may leave bytes of its response waiting, which is the only one of its connection.
    pub(super) fn set_pauses(&self) {
        self.pauses.store(true, Ordering::Relaxed);
    }

    /// Whether it may leave written bytes waiting.
    pub(super) fn may_pause(&self) -> bool {
        self.pauses.load(Ordering::Relaxed)
    }

    /// Whether it is about to leave HTTP/1.1, as far as one can know.
    pub(super) fn is_upgrading(&self) -> bool {
        self.upgrading.load(Ordering::Relaxed)
    }

    /// Notes an Upgrade request, or that the response to it was no 101.
    pub(super) fn set_upgrading(&self, upgrading: bool) {
        self.upgrading.store(upgrading, Ordering::Relaxed);
    }

    /// Counts a request that is over, whether or not it got a response.
    pub(super) fn answered(&self) {
        self.permit.member().end();
        self.answered.fetch_add(1, Ordering::Relaxed);
    }

    /// Keeps its connection from making room for others, for what outlasts its request.
    pub(super) fn keep(&self) -> Busy {
        self.permit.member().keep()
    }

    /// Ready once its connection has to make room for others.
    pub(super) fn poll_shed(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.permit.member().poll_shed(cx)
    }

    /// Resolves if no request comes within the time for a head, or for the first request of a daemon that goes away. For
    /// connections that have not even begun to speak HTTP/2 and cannot be told to finish.
    pub(super) async fn never_asked(&self) {
        let limit = self.edge.config().header_timeout;
        tokio::select! {
            () = sleep(limit) => {}
            () = self.edge.drain.first_request() => {}
        }
        if self.has_asked() {
            pending::<()>().await;
        }
    }

    /// Whether each request that has come is answered.
    pub(super) fn is_answered(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == self.answered.load(Ordering::Relaxed)
    }

    /// Resolves once nothing has been in flight for as long as a connection may be idle.
    pub(super) async fn idle(&self) {
        let mut before = None;
        loop {
            let requests = self.requests.load(Ordering::Relaxed);
            if before == Some(requests) && self.is_answered() {
                return;
            }
            before = Some(requests);
            let limit = self.edge.config().header_timeout;
            sleep(limit).await;
        }
    }
}
