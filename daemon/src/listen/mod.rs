//! The sockets: TCP, UDP and DNS listeners, TLS, and the redirect from plain HTTP. Connections go to `edge` or to
//! `tunnels`; what they say is not looked at here.

pub(crate) mod dns;
mod redirect;
mod reset_key;
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
    /// What only a restart can change.
    struct Startup {
        /// Where to listen.
        addresses: Addresses = "listen",
        /// How QUIC and the congestion controllers behave.
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
    /// DNS over UDP and TCP, where the daemon answers for a zone itself.
    pub(crate) dns: Vec<SocketAddr>,
}

/// What a reload changes, for connections that begin later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Live {
    /// How long a TLS handshake may take. 1 s to 5 min, default 10 s: slow mobile paths pass, silent connections do not
    /// pile up.
    pub(crate) handshake_timeout: Duration,
    /// How long a connection may be idle, and how long a head of plain HTTP may take.
    pub(crate) header_timeout: Duration,
    /// Body bytes that may be under way on a QUIC stream.
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

/// What all listeners need.
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
    /// With these settings, for these parts.
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

    /// Takes new settings.
    pub(crate) fn reload(&self, config: Live) {
        self.config.store(Arc::new(config));
    }

    fn config(&self) -> Guard<Arc<Live>> {
        self.config.load()
    }
}
