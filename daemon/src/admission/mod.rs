//! Who gets in, and how much of the daemon each may use: connection limits, tunnel quotas and API keys. This part
//! decides; the caller answers the refused party.

mod connections;
mod keys;
mod limits;
mod quota;
pub(crate) mod rates;
mod wrong_keys;

use std::sync::Arc;

use ipnet::IpNet;

pub(crate) use self::connections::{ConnectionLimiter, ConnectionPermit};
pub(crate) use self::keys::{KeyRecord, KeyStore, filler};
pub(crate) use self::limits::{KeyLimits, Rate};
pub(crate) use self::quota::{TunnelPermit, TunnelQuota};
pub(crate) use self::rates::Rates;
pub(crate) use self::wrong_keys::WrongKeys;
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
    /// Rates of requests, bytes, connections and handshakes.
    pub(crate) rates: rates::Config,
}

impl Default for Startup {
    fn default() -> Self {
        Self { max_connections: 20_000 }
    }
}

impl Default for Live {
    fn default() -> Self {
        Self {
            max_connections_per_address: 2000,
            exempt: Vec::new(),
            keys: Vec::new(),
            rates: rates::Config::default(),
        }
    }
}

/// The limits and keys of one daemon.
#[derive(Debug)]
pub(crate) struct Admission {
    /// The connection limit.
    pub(crate) connections: ConnectionLimiter,
    /// The tunnel quota of each key.
    pub(crate) tunnels: Arc<TunnelQuota>,
    /// All keys.
    pub(crate) keys: KeyStore,
    /// The refusals of wrong keys.
    pub(crate) wrong_keys: WrongKeys,
    /// All rates.
    pub(crate) rates: Arc<Rates>,
}

impl Admission {
    /// Builds admission from its settings.
    pub(crate) fn new(config: Config) -> Arc<Self> {
        let Config { startup, live } = config;
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let rates = Rates::new(live.rates, live.exempt.clone(), processors);
        Arc::new(Self {
            connections: ConnectionLimiter::new(startup.max_connections, live.max_connections_per_address, live.exempt),
            tunnels: Arc::default(),
            keys: KeyStore::new(live.keys),
            wrong_keys: WrongKeys::new(rates.clone()),
            rates,
        })
    }

    /// Applies new settings. Open connections and tunnels stay open.
    pub(crate) fn reload(&self, live: Live) {
        self.rates.reload(live.rates, live.exempt.clone());
        self.connections.set_share(live.max_connections_per_address, live.exempt);
        self.keys.replace(live.keys);
    }
}
