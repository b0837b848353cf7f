//! Who gets in, and how much of the daemon each may use: connection limits, tunnel quotas and API keys. This part
//! decides; the caller answers the refused party.

mod connections;
mod keys;
mod limits;
mod quota;
mod sessions;

use std::sync::Arc;

use ipnet::IpNet;

pub(crate) use self::connections::{ConnectionLimiter, ConnectionPermit};
pub(crate) use self::keys::wire;
pub(crate) use self::keys::{Grant, KeyBook, KeyError, KeyRecord, KeyStore, filler, is_key_name};
pub(crate) use self::limits::{KeyLimits, MOST_REQUESTS, MOST_SESSIONS, MOST_TUNNELS, Rate};
pub(crate) use self::quota::{TunnelPermit, TunnelQuota};
pub(crate) use self::sessions::{SessionPermit, SessionQuota};
use crate::startup::startup;

/// Settings of admission.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) startup: Startup,
    pub(crate) live: Live,
}

startup! {
    /// Settings that need a restart.
    struct Startup {
        /// The most public connections over TCP and QUIC. Each holds TLS state, and over TCP a file descriptor. 1 to
        /// 10,000,000, default 20,000.
        max_connections: usize = "limits.max_connections",
    }
}

/// Settings that a reload changes.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    /// The most public connections from one IPv4 address or IPv6 /64. 1 to 10,000,000, default 2,000: enough for an
    /// office or carrier behind one address, too few for one machine to use up all connections.
    pub(crate) max_connections_per_address: usize,
    /// Networks without this limit: trusted proxies carry many visitors.
    pub(crate) exempt: Vec<IpNet>,
    /// The keys that may open tunnels.
    pub(crate) keys: Vec<KeyRecord>,
}

impl Default for Startup {
    fn default() -> Self {
        Self { max_connections: 20_000 }
    }
}

impl Default for Live {
    fn default() -> Self {
        Self { max_connections_per_address: 2000, exempt: Vec::new(), keys: Vec::new() }
    }
}

/// The limits and keys of one daemon.
#[derive(Debug)]
pub(crate) struct Admission {
    /// The connection limit.
    pub(crate) connections: ConnectionLimiter,
    /// The tunnel quota of each key.
    pub(crate) tunnels: Arc<TunnelQuota>,
    /// The session quota of each key.
    pub(crate) sessions: Arc<SessionQuota>,
    /// All keys.
    pub(crate) keys: KeyStore,
}

impl Admission {
    /// Builds admission from its settings.
    pub(crate) fn new(config: Config) -> Arc<Self> {
        let Config { startup, live } = config;
        Arc::new(Self {
            connections: ConnectionLimiter::new(startup.max_connections, live.max_connections_per_address, live.exempt),
            tunnels: Arc::default(),
            sessions: Arc::default(),
            keys: KeyStore::new(live.keys),
        })
    }

    /// Applies new settings. Open connections stay open. What a key no longer allows ends.
    pub(crate) fn reload(&self, live: Live) {
        self.connections.set_share(live.max_connections_per_address, live.exempt);
        self.keys.replace(live.keys);
    }
}
