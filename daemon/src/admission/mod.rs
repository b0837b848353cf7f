//! Who gets in, and how much of the daemon each may use: connection limits, tunnel quotas and API keys. This part
//! decides; the caller answers the refused party.

mod access;
mod connections;
mod crowd;
mod keys;
mod limits;
mod quota;
pub(crate) mod rates;
mod sessions;
mod wrong_keys;

use std::sync::Arc;

use ipnet::IpNet;
use tracing::warn;

pub(crate) use self::access::{Access, InvalidLink, Passwords, ShareVerifier};
use self::connections::Share;
pub(crate) use self::connections::{ConnectionLimiter, ConnectionPermit, Full, MOST_WAITING, Waiting};
pub(crate) use self::crowd::Busy;
pub(crate) use self::keys::wire;
pub(crate) use self::keys::{Grant, KeyBook, KeyError, KeyRecord, KeyStore, filler, is_key_name};
pub(crate) use self::limits::{KeyLimits, MOST_EXCHANGES, MOST_SESSIONS, MOST_TUNNELS, Rate};
pub(crate) use self::quota::{TunnelPermit, TunnelQuota};
pub(crate) use self::rates::Rates;
pub(crate) use self::sessions::{SessionPermit, SessionQuota};
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
    /// Networks whose connections over TCP have to begin with the PROXY protocol, version 1 or 2. Default none. Others
    /// cannot use it.
    pub(crate) proxy_protocol: Vec<IpNet>,
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
            proxy_protocol: Vec::new(),
            keys: Vec::new(),
            rates: rates::Config::default(),
        }
    }
}

/// Descriptors apart from public connections and tunnels: for listeners, files, the admin address, and fresh connections that
/// wait for room.
const OTHER_DESCRIPTORS: usize = 64 + MOST_WAITING;
/// The part of all descriptors that tunnels may need, at most.
const TUNNELS_PART: usize = 4;

impl Startup {
    /// Lowers the number of connections to what the process has descriptors for, with room for `sessions` tunnels.
    pub(crate) fn fit(&mut self, descriptors: usize, sessions: usize) {
        let reserve = sessions.min(descriptors / TUNNELS_PART) + OTHER_DESCRIPTORS;
        let (room, wanted) = (descriptors.saturating_sub(reserve).max(1), self.max_connections);
        if room < wanted {
            warn!(
                event = "few_descriptors",
                descriptors,
                connections = room,
                wanted,
                "at most {room} public connections instead of {wanted}, since the process may have {descriptors} \
                 descriptors; raise its limit (LimitNOFILE) or lower limits.max_connections"
            );
            self.max_connections = room;
        }
    }
}

impl Live {
    fn share(&self) -> Share {
        Share {
            per_address: self.max_connections_per_address,
            exempt: self.exempt.clone(),
            proxy_protocol: self.proxy_protocol.clone(),
        }
    }
}

/// How much of something is in use, and the most that may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Fill {
    /// What is in use.
    pub(crate) used: usize,
    /// The most.
    pub(crate) most: usize,
}

/// The limits and keys of one daemon.
#[derive(Debug)]
pub(crate) struct Admission {
    /// The connection limit.
    pub(crate) connections: Arc<ConnectionLimiter>,
    /// The tunnel quota of each key.
    pub(crate) tunnels: Arc<TunnelQuota>,
    /// The session quota of each key.
    pub(crate) sessions: Arc<SessionQuota>,
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
        let share = live.share();
        let rates = Rates::new(live.rates, live.exempt, processors);
        Arc::new(Self {
            connections: ConnectionLimiter::new(startup.max_connections, share),
            tunnels: Arc::default(),
            sessions: Arc::default(),
            keys: KeyStore::new(live.keys),
            wrong_keys: WrongKeys::new(rates.clone()),
            rates,
        })
    }

    /// Applies new settings. Open connections stay open. What a key no longer allows ends.
    pub(crate) fn reload(&self, live: Live) {
        self.connections.set_share(live.share());
        self.rates.reload(live.rates, live.exempt);
        self.keys.replace(live.keys);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_leave_descriptors_for_tunnels() {
        let fit = |descriptors, sessions| {
            let mut startup = Startup::default();
            startup.fit(descriptors, sessions);
            startup.max_connections
        };
        assert_eq!(fit(524_288, 10_000), 20_000);
        assert_eq!(fit(1024, 10_000), 1024 - 256 - OTHER_DESCRIPTORS);
        assert_eq!(fit(1024, 10), 1024 - 10 - OTHER_DESCRIPTORS);
        assert_eq!(fit(16, 10), 1);
    }
}
