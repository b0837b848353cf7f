//! Public connections: how they arrive, and what comes of their handshakes.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

use super::family::Counters;
use super::labels::label;

label! {
    /// What secures a connection.
    Security = "protocol" {
        /// TLS over TCP.
        Tls = "tls",
        /// TLS within QUIC.
        Quic = "quic",
    }
}

label! {
    /// How a handshake has ended.
    HandshakeOutcome = "outcome" {
        /// The connection is secured.
        Done = "ok",
        /// It broke off, or the two sides have nothing in common.
        Failed = "failed",
        /// It took too long.
        TimedOut = "timeout",
        /// Its address makes too many.
        Refused = "refused",
        /// The visitor sent plain HTTP.
        PlainHttp = "plain_http",
    }
}

/// Metrics of public connections.
#[derive(Debug, Default)]
pub(crate) struct Arrivals {
    /// Public connections accepted, over TCP and QUIC.
    pub(crate) connections: Counter,
    /// QUIC handshakes that had to prove their address first.
    pub(crate) retries: Counter,
    handshakes: Counters<(Security, HandshakeOutcome)>,
}

impl Arrivals {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let new = Self::default();
        registry.register("connections", "Public connections accepted", new.connections.clone());
        let help = "QUIC handshakes that had to prove their address first";
        registry.register("quic_retries", help, new.retries.clone());
        let help = "TLS and QUIC handshakes of public connections, by outcome";
        registry.register("handshakes", help, new.handshakes.clone());
        new
    }

    /// Counts a handshake that has ended.
    pub(crate) fn handshake(&self, security: Security, outcome: HandshakeOutcome) {
        self.handshakes.inc((security, outcome));
    }
}
