//! Who gets in, and how much of the daemon each may take: connection limits, tunnel quotas and API keys. It decides; what
//! a refused party hears is up to the caller.

mod connections;
mod keys;
mod quota;

use std::sync::Arc;

use ipnet::IpNet;

pub(crate) use self::connections::{ConnectionLimiter, ConnectionPermit};
pub(crate) use self::keys::{KeyRecord, KeyStore, filler};
pub(crate) use self::quota::{TunnelPermit, TunnelQuota};
use crate::startup::startup;

/// Settings of admission.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) startup: Startup,
    pub(crate) live: Live,
}

startup! {
    /// What only a restart can change.
    struct Startup {
        /// The most public connections over TCP and QUIC, each with TLS state and over TCP a file descriptor. 1 to
        /// 10,000,000, default 20,000.
        max_connections: usize = "limits.max_connections",
    }
}

/// What a reload changes.
#[derive(Clone, Debug)]
pub(crate) struct Live {
    /// The most public connections from one IPv4 address or IPv6 /64. 1 to 10,000,000, default 2,000: a whole office or
    /// carrier behind one address passes, one machine cannot take all places.
    pub(crate) max_connections_per_address: usize,
    /// Networks that may have any number of connections: trusted proxies speak for many visitors.
    pub(crate) exempt: Vec<IpNet>,
    /// Who may open tunnels.
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

/// All that admits.
#[derive(Debug)]
pub(crate) struct Admission {
    /// Permits for public connections.
    pub(crate) connections: ConnectionLimiter,
    /// Tunnels of each key.
    pub(crate) tunnels: Arc<TunnelQuota>,
    /// All keys.
    pub(crate) keys: KeyStore,
}

impl Admission {
    /// With these settings.
    pub(crate) fn new(config: Config) -> Arc<Self> {
        let Config { startup, live } = config;
        Arc::new(Self {
            connections: ConnectionLimiter::new(startup.max_connections, live.max_connections_per_address, live.exempt),
            tunnels: Arc::default(),
            keys: KeyStore::new(live.keys),
        })
    }

    /// Takes new settings. Connections and tunnels that are open stay open.
    pub(crate) fn reload(&self, live: Live) {
        self.connections.set_share(live.max_connections_per_address, live.exempt);
        self.keys.replace(live.keys);
    }
}
