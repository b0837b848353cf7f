//! The sockets: TCP, UDP and DNS listeners, TLS, and the redirect from plain HTTP. Connections go to `edge` or to
//! `tunnels`. This part reads no requests.

mod arrivals;
pub(crate) mod dns;
mod plain;
mod proxy_protocol;
mod quic_floods;
mod redirect;
mod reset_key;
mod seldom;
mod tcp;
mod tls;
mod udp;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use cok_transport::quic::Tuning;

pub(crate) use self::redirect::serve_http;
pub(crate) use self::reset_key::ResetKey;
pub(crate) use self::tcp::{accept, bind_all, bind_public, serve_https};
pub(crate) use self::tls::PublicTls;
pub(crate) use self::udp::serve_quic;
use crate::admission::Admission;
use crate::drain::Drain;
use crate::edge::Edge;
use crate::observe::Metrics;
use crate::startup::startup;
use crate::tunnels::Tunnels;

/// Settings of listeners.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) startup: Startup,
    pub(crate) live: Live,
}

startup! {
    /// Settings that need a restart.
    struct Startup {
        /// Where to listen.
        addresses: Addresses = "listen",
        /// QUIC and congestion control settings.
        tuning: Tuning = "transport",
    }
}

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Addresses {
    /// HTTPS for visitors and tunnels.
    pub(crate) https: Vec<SocketAddr>,
    /// Plain HTTP, which only redirects.
    pub(crate) http: Vec<SocketAddr>,
    /// Health and metrics.
    pub(crate) admin: SocketAddr,
    /// DNS over UDP and TCP, if the daemon answers for a zone itself.
    pub(crate) dns: Vec<SocketAddr>,
}

/// Settings that a reload changes, for new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    /// How long a TLS handshake may take. 1 s to 5 min, default 10 s: enough for slow mobile paths, and silent
    /// connections do not pile up.
    pub(crate) handshake_timeout: Duration,
    /// Time limit for an idle connection, and for a request head over plain HTTP.
    pub(crate) header_timeout: Duration,
    /// The initial window: body bytes in flight on an exchange before the path is measured.
    pub(crate) initial_window: u32,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(60),
            initial_window: 256 * 1024,
        }
    }
}

/// The state that all listeners share.
#[derive(Debug)]
pub(crate) struct Listen {
    config: ArcSwap<Live>,
    edge: Arc<Edge>,
    tunnels: Arc<Tunnels>,
    admission: Arc<Admission>,
    drain: Arc<Drain>,
    metrics: Arc<Metrics>,
}

impl Listen {
    /// Builds the shared state from its settings and parts.
    pub(crate) fn new(
        config: Live,
        edge: Arc<Edge>,
        tunnels: Arc<Tunnels>,
        admission: Arc<Admission>,
        drain: Arc<Drain>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new(Self { config: ArcSwap::from_pointee(config), edge, tunnels, admission, drain, metrics })
    }

    /// Applies new settings.
    pub(crate) fn reload(&self, config: Live) {
        self.config.store(Arc::new(config));
    }

    fn config(&self) -> Guard<Arc<Live>> {
        self.config.load()
    }
}
