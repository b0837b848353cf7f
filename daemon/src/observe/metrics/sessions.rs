//! Sessions and their tunnels: how they begin, return and end.

use cok_proto::{ErrorCode, FallbackReason, SessionError};
use cok_transport::CloseReason;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::family::{Counted, Counters, Gauges};
use super::labels::{Transport, label};

label! {
    /// What came of a client's wish for a session.
    Greeting = "outcome" {
        /// It has its session.
        Accepted = "accepted",
        /// It was refused.
        Refused = "refused",
        /// It left, fell silent or broke the protocol before it had an answer.
        Unfinished = "unfinished",
    }
}

label! {
    /// Why a session, or one of its tunnels, was refused.
    RefusalCode = "code" {
        /// The key is unknown or has expired.
        Unauthorized = "unauthorized",
        /// The key may not have the name.
        NameForbidden = "name_forbidden",
        /// Another client has the name.
        NameTaken = "name_taken",
        /// A limit is reached.
        LimitReached = "limit_reached",
        /// The tunnel's kind or a rule is unknown.
        Unsupported = "unsupported",
        /// The tunnels have just moved to another session, or to a later Bind.
        Moved = "moved",
        /// Anything else.
        Other = "other",
    }
}

impl From<&ErrorCode> for RefusalCode {
    fn from(code: &ErrorCode) -> Self {
        match code {
            ErrorCode::Unauthorized => Self::Unauthorized,
            ErrorCode::NameForbidden => Self::NameForbidden,
            ErrorCode::NameTaken => Self::NameTaken,
            ErrorCode::LimitReached => Self::LimitReached,
            ErrorCode::Unsupported => Self::Unsupported,
            ErrorCode::Moved | ErrorCode::Replaced => Self::Moved,
            _ => Self::Other,
        }
    }
}

label! {
    /// How the tunnels of a session came from an earlier one of the same client.
    Return = "how" {
        /// They moved from a session that was still there.
        Moved = "moved",
        /// The client asked for them again by name.
        Reclaimed = "reclaimed",
    }
}

label! {
    /// Why a session has ended.
    SessionEnd = "reason" {
        /// It has drained: its client has stopped or has another one, or the daemon stops.
        Drained = "drained",
        /// The client has closed the connection or has sent an error.
        Closed = "closed",
        /// The connection broke.
        Lost = "lost",
        /// The client was silent for too long.
        Silent = "silent",
        /// The client broke the protocol.
        Protocol = "protocol",
        /// The daemon has ended it: its key is revoked, or another client has its name.
        Ended = "ended",
    }
}

impl From<&CloseReason> for SessionEnd {
    fn from(reason: &CloseReason) -> Self {
        match reason {
            CloseReason::Drained => Self::Drained,
            CloseReason::PeerClosed | CloseReason::Session(SessionError::Peer(_)) => Self::Closed,
            CloseReason::Lost(_) | CloseReason::Forgotten => Self::Lost,
            CloseReason::Session(SessionError::Silent) => Self::Silent,
            CloseReason::Session(SessionError::Protocol(_)) => Self::Protocol,
            CloseReason::Session(SessionError::Local(_)) => Self::Ended,
        }
    }
}

label! {
    /// Why a client that wanted QUIC came by WebSocket.
    Fallback = "reason" {
        /// No answer over UDP.
        NoAnswer = "no_answer",
        /// A handshake succeeded, but no data came through.
        NoData = "no_data",
        /// The client's machine has no UDP or no route.
        NoUdp = "no_udp",
        /// A proxy on the way carries only TCP.
        Proxy = "proxy",
        /// The path of a QUIC session has turned bad.
        BadPath = "bad_path",
        /// Anything else.
        Other = "other",
    }
}

impl From<&FallbackReason> for Fallback {
    fn from(reason: &FallbackReason) -> Self {
        match reason {
            FallbackReason::NoAnswer => Self::NoAnswer,
            FallbackReason::NoData => Self::NoData,
            FallbackReason::NoUdp => Self::NoUdp,
            FallbackReason::Proxy => Self::Proxy,
            FallbackReason::BadPath => Self::BadPath,
            FallbackReason::Other(_) => Self::Other,
        }
    }
}

/// Metrics of sessions and tunnels.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    /// Tunnels that are online.
    pub(super) active_tunnels: Gauge,
    open: Gauges<(Transport,)>,
    greetings: Counters<(Transport, Greeting)>,
    refusals: Counters<(RefusalCode,)>,
    returns: Counters<(Transport, Return)>,
    ends: Counters<(Transport, SessionEnd)>,
    fallbacks: Counters<(Fallback,)>,
}

impl Sessions {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let new = Self::default();
        registry.register("active_tunnels", "Tunnels that are online", new.active_tunnels.clone());
        registry.register("sessions", "Sessions of clients, by transport", new.open.clone());
        let help = "Clients that asked for a session, by transport and outcome";
        registry.register("session_handshakes", help, new.greetings.clone());
        let help = "Sessions and tunnels that were refused, by the code that the client got";
        registry.register("tunnel_refusals", help, new.refusals.clone());
        let help = "Sessions that carry on tunnels of an earlier session of the same client";
        registry.register("reconnects", help, new.returns.clone());
        registry.register("session_ends", "Sessions that ended, by transport and reason", new.ends.clone());
        let help = "Sessions over WebSocket of clients that wanted QUIC, by the reason that they give";
        registry.register("fallbacks", help, new.fallbacks.clone());
        new
    }

    /// Counts a session as open until the guard is dropped.
    pub(crate) fn open(&self, transport: &str) -> Counted<(Transport,)> {
        self.open.hold((Transport::named(transport),))
    }

    /// Counts what came of a client's wish for a session.
    pub(crate) fn greeted(&self, transport: &str, outcome: Greeting) {
        self.greetings.inc((Transport::named(transport), outcome));
    }

    /// Counts a session or tunnel that was refused.
    pub(crate) fn refused(&self, code: &ErrorCode) {
        self.refusals.inc((code.into(),));
    }

    /// Counts a session that carries on tunnels of an earlier one.
    pub(crate) fn returned(&self, transport: &str, how: Return) {
        self.returns.inc((Transport::named(transport), how));
    }

    /// Counts the end of a session.
    pub(crate) fn ended(&self, transport: &str, reason: &CloseReason) {
        self.ends.inc((Transport::named(transport), reason.into()));
    }

    /// Counts a session over WebSocket whose client wanted QUIC.
    pub(crate) fn fell_back(&self, reason: &FallbackReason) {
        self.fallbacks.inc((reason.into(),));
    }
}
