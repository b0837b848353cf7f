//! The events of a tunnel, as its user sees them.

use std::time::Duration;

use cok_proto::{ErrorCode, ErrorMessage};

use crate::text::quoted;

/// A change in the life of a tunnel.
#[derive(Clone, Debug)]
pub enum Event {
    /// It is about to connect for the first time.
    Connecting {
        /// The daemon.
        server: String,
    },
    /// It is online.
    Connected {
        /// The transport that carries it: `quic` or `ws`.
        transport: &'static str,
        /// Its public address.
        url: String,
        /// The session's id.
        session: String,
        /// Why it takes this transport.
        reason: String,
    },
    /// It falls back to a transport that is not the wanted one. [`Event::Connected`] follows.
    Fallback {
        /// The wanted transport.
        from: &'static str,
        /// The one that carries it.
        to: &'static str,
        /// Why.
        reason: String,
    },
    /// It is offline.
    Disconnected {
        /// Why.
        reason: String,
        /// How long it waits until the next try.
        retry_in: Duration,
        /// It has been online before.
        was_online: bool,
    },
    /// Another client has the name, but may have vanished. So the tunnel asks again.
    NameTaken {
        /// The wanted name; `None` if the daemon was to pick one.
        name: Option<String>,
        /// Why it was refused.
        reason: String,
        /// For how long it asks again, at most.
        within: Duration,
    },
    /// It stops while exchanges are under way. Without any, it stops without an event.
    Stopping {
        /// The number of requests that may finish.
        requests: usize,
        /// The number of WebSockets and event streams, which are closed now.
        streams: usize,
        /// How long the requests may take.
        within: Duration,
    },
}

/// The daemon refuses this tunnel, and would refuse it again.
#[derive(Clone, Debug, thiserror::Error)]
#[error("refused by the server: {}", quoted(&.0.to_string()))]
pub struct Refused(pub ErrorMessage);

impl Refused {
    /// Whether another name may be granted.
    pub(crate) fn is_about_the_name(&self) -> bool {
        matches!(self.0.code, ErrorCode::NameTaken | ErrorCode::NameForbidden)
    }
}
