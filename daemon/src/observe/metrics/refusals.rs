//! What the daemon refuses because of a rate or a limit.

use prometheus_client::registry::Registry;

use super::family::Counters;
use super::labels::label;

label! {
    /// A rate that something exceeds.
    Rate = "rate" {
        /// New connections of an address, before TLS.
        Connections = "connections",
        /// Handshakes of an address.
        Handshakes = "handshakes",
        /// Requests of a visitor.
        VisitorRequests = "visitor_requests",
        /// Requests to a tunnel.
        TunnelRequests = "tunnel_requests",
        /// Requests to the tunnels of a key.
        KeyRequests = "key_requests",
        /// Wrong keys.
        Keys = "keys",
    }
}

label! {
    /// A limit that is reached.
    Limit = "limit" {
        /// Public connections in all.
        Connections = "connections",
        /// Public connections of an address.
        AddressConnections = "address_connections",
        /// Sessions in all.
        Sessions = "sessions",
        /// Sessions of a key.
        KeySessions = "key_sessions",
        /// Tunnels of a key.
        KeyTunnels = "key_tunnels",
        /// Names in memory.
        Names = "names",
        /// Exchanges of a session or of a key.
        Exchanges = "exchanges",
        /// Exchanges that one visitor's address may have in a tunnel.
        VisitorShare = "visitor_share",
        /// Bytes that exchanges hold.
        Buffered = "buffered",
        /// Visitors that wait for one tunnel.
        Held = "held",
    }
}

/// What was refused.
#[derive(Debug, Default)]
pub(crate) struct Refusals {
    by_rate: Counters<(Rate,)>,
    by_limit: Counters<(Limit,)>,
}

impl Refusals {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let new = Self::default();
        registry.register("refused", "Refused because of a rate, by rate", new.by_rate.clone());
        registry.register("limit_refused", "Refused because a limit is reached, by limit", new.by_limit.clone());
        new
    }

    /// How much was over each rate.
    pub(crate) fn by_rate(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.by_rate.counts()
    }

    /// How much was beyond each limit.
    pub(crate) fn by_limit(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.by_limit.counts()
    }

    /// Counts something over a rate.
    pub(crate) fn over(&self, rate: Rate) {
        self.by_rate.inc((rate,));
    }

    /// Counts something beyond a limit.
    pub(crate) fn beyond(&self, limit: Limit) {
        self.by_limit.inc((limit,));
    }
}
