//! What a tunnel's user hears about it.

use std::time::Duration;

use cok_proto::{ErrorCode, ErrorMessage};

use crate::text::quoted;

/// What happens to a tunnel.
#[derive(Clone, Debug)]
pub enum Event {
    /// It is being opened for the first time.
    Connecting {
        /// The daemon.
        server: String,
    },
    /// It is online.
    Connected {
        /// How it is carried.
        transport: &'static str,
        /// Its public address.
        url: String,
        /// The session's id.
        session: String,
        /// Why it is carried that way.
        reason: String,
    },
    /// It has settled on a transport that is not the wanted one. [`Event::Connected`] follows.
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
        /// When it tries again.
        retry_in: Duration,
        /// It has been online before.
        was_online: bool,
    },
    /// Another client has the name. It may have vanished, so the tunnel asks again.
    NameTaken {
        /// The wanted name; `None` if the daemon was to pick one.
        name: Option<String>,
        /// Why it was refused.
        reason: String,
        /// For how long it asks again, at most.
        within: Duration,
    },
    /// It is asked to stop while something is under way. Without anything, it stops in silence.
    Stopping {
        /// Requests that may finish.
        requests: usize,
        /// WebSockets and event streams, which are closed now.
        streams: usize,
        /// How long the requests may take.
        within: Duration,
    },
}

/// The daemon will not have this tunnel, now or later.
#[derive(Clone, Debug, thiserror::Error)]
#[error("refused by the server: {}", quoted(&.0.to_string()))]
pub struct Refused(pub ErrorMessage);

impl Refused {
    /// Whether another name may be granted.
    pub(crate) fn is_about_the_name(&self) -> bool {
        matches!(self.0.code, ErrorCode::NameTaken | ErrorCode::NameForbidden)
    }
}
