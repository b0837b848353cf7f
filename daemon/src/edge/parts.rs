//! What the edge needs to serve a visitor: its settings, and the parts that it hands requests to.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use http::HeaderValue;
use ipnet::IpNet;

use crate::admission::Rates;
use crate::drain::Drain;
use crate::exchanges::Exchanges;
use crate::names::Hostname;
use crate::observe::{Health, Observers};
use crate::tunnels::Tunnels;

/// Settings of the edge. All of them can change while the daemon runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Config {
    /// How long HTTP/3's settings may take to be exchanged.
    pub(crate) handshake_timeout: Duration,
    /// How long a request's head may take, and how long a visitor's connection may be idle (QUIC: at least 30 s). 1 s
    /// to 1 h, default 60 s.
    pub(crate) header_timeout: Duration,
    /// The longest request head in bytes; a longer one gets 431. 8 KiB to 56 KiB, default 48 KiB. The daemon adds
    /// fields, and the result must fit into a head of the wire protocol (64 KiB).
    pub(crate) max_header_bytes: u32,
    /// How much of a request body may be under way over HTTP/3, in bytes.
    pub(crate) initial_window: u32,
    /// Proxies that may report a visitor's address, host and scheme: their fields, such as `X-Forwarded-*`, are kept.
    pub(crate) trusted_proxies: Vec<IpNet>,
    /// Whether requests get a Via field. Default false: many services do not compress what goes through a proxy.
    pub(crate) via: bool,
    /// Whether responses of tunnels get a Server-Timing field. Default false: every visitor sees it, and scripts of pages do.
    pub(crate) server_timing: bool,
    /// Whether a visitor can't tell a name that is away or reserved from one that never existed: 404 for all of them.
    /// Default false, since owners and visitors then don't see that a tunnel is only away.
    pub(crate) hide_names: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            header_timeout: Duration::from_secs(60),
            max_header_bytes: 48 * 1024,
            initial_window: 256 * 1024,
            trusted_proxies: Vec::new(),
            via: false,
            server_timing: false,
            hide_names: false,
        }
    }
}

/// What the edge needs to serve a visitor.
#[derive(Debug)]
pub(crate) struct Edge {
    /// The domain that the daemon serves.
    pub(crate) domain: Hostname,
    config: ArcSwap<Config>,
    /// The Alt-Svc field that offers HTTP/3 to visitors over TCP (RFC 7838). `None` without UDP.
    pub(super) alt_svc: Option<HeaderValue>,
    pub(super) tunnels: Arc<Tunnels>,
    pub(super) drain: Arc<Drain>,
    pub(super) health: Arc<Health>,
    pub(super) observers: Arc<Observers>,
    pub(super) rates: Arc<Rates>,
    pub(super) exchanges: Arc<Exchanges>,
}

/// The parts that the edge hands requests to.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) tunnels: Arc<Tunnels>,
    pub(crate) drain: Arc<Drain>,
    pub(crate) health: Arc<Health>,
    pub(crate) observers: Arc<Observers>,
    pub(crate) rates: Arc<Rates>,
    pub(crate) exchanges: Arc<Exchanges>,
}

impl Edge {
    /// An edge for the names under `domain`.
    pub(crate) fn new(domain: Hostname, config: Config, alt_svc: Option<HeaderValue>, parts: Parts) -> Arc<Self> {
        let Parts { tunnels, drain, health, observers, rates, exchanges } = parts;
        Arc::new(Self {
            domain,
            config: ArcSwap::from_pointee(config),
            alt_svc,
            tunnels,
            drain,
            health,
            observers,
            rates,
            exchanges,
        })
    }

    /// Takes new settings, for connections and requests that begin later.
    pub(crate) fn reload(&self, config: Config) {
        self.config.store(Arc::new(config));
    }

    /// The current settings. Not to be held across an await.
    pub(super) fn config(&self) -> Guard<Arc<Config>> {
        self.config.load()
    }
}
