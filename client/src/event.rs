//! The events of a client and its tunnels, as their user sees them.

use std::time::Duration;

use cok_proto::{ErrorCode, ErrorMessage};
use http::Method;

use crate::text::quoted;

/// Names a tunnel of a client, from its opening until the client ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TunnelHandle(pub(crate) u64);

/// Where a tunnel stands.
#[derive(Clone, Debug)]
pub struct TunnelStatus {
    /// The tunnel.
    pub tunnel: TunnelHandle,
    /// The user's name for it.
    pub label: Option<String>,
    /// Its latest public address.
    pub url: Option<String>,
    /// Whether it can be reached.
    pub state: TunnelState,
}

/// Whether a tunnel can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TunnelState {
    /// It can.
    Online,
    /// It waits for the daemon.
    Connecting,
    /// The daemon has refused it, for this reason.
    Refused(String),
}

/// A change in the life of a client or of one of its tunnels.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// The client is about to connect for the first time.
    Connecting {
        /// The daemon.
        server: String,
    },
    /// A tunnel is online.
    Connected {
        /// The tunnel.
        tunnel: TunnelHandle,
        /// The user's name for it.
        label: Option<String>,
        /// The transport that carries it: `quic` or `ws`.
        transport: &'static str,
        /// Its public address.
        url: String,
        /// The session's id.
        session: String,
        /// Why it takes this transport.
        reason: String,
    },
    /// The client falls back to a transport that is not the wanted one. [`Event::Connected`] follows.
    Fallback {
        /// The wanted transport.
        from: &'static str,
        /// The one that carries it.
        to: &'static str,
        /// Why.
        reason: String,
    },
    /// The client is offline, with all its tunnels.
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
        /// The tunnel.
        tunnel: TunnelHandle,
        /// The user's name for it.
        label: Option<String>,
        /// The wanted name; `None` if the daemon was to pick one.
        name: Option<String>,
        /// Why it was refused.
        reason: String,
        /// For how long it asks again, at most.
        within: Duration,
    },
    /// The daemon refuses a tunnel. The others go on.
    Refused {
        /// The tunnel.
        tunnel: TunnelHandle,
        /// The user's name for it.
        label: Option<String>,
        /// The kind of refusal.
        code: ErrorCode,
        /// Why.
        reason: String,
        /// How long it waits until it asks again; `None` if asking again cannot help.
        retry_in: Option<Duration>,
    },
    /// Another client of this installation has taken a tunnel's name over.
    Displaced {
        /// The tunnel.
        tunnel: TunnelHandle,
        /// The user's name for it.
        label: Option<String>,
        /// Its public address.
        url: Option<String>,
        /// Where the other client connects from.
        address: Option<String>,
        /// The other client's version.
        version: Option<String>,
        /// How long it waits until it asks again. It does not displace the other client then.
        retry_in: Duration,
    },
    /// A visitor's request has come. Requests are reported only while somebody listens.
    RequestBegan {
        /// The tunnel.
        tunnel: TunnelHandle,
        /// Names the request in the event of its end.
        request: u64,
        /// Its method.
        method: Method,
        /// Its path.
        path: String,
        /// Its query, which may hold secrets.
        query: Option<String>,
    },
    /// A request has become a stream, which lasts until one side ends it. [`Event::RequestEnded`] follows then.
    RequestLasts {
        /// The tunnel.
        tunnel: TunnelHandle,
        /// The request.
        request: u64,
        /// What it has become.
        what: Lasting,
        /// The status of the response.
        status: u16,
        /// The time from the request's beginning.
        after: Duration,
    },
    /// A request has ended.
    RequestEnded {
        /// The tunnel.
        tunnel: TunnelHandle,
        /// The request.
        request: u64,
        /// The status of the response; `None` if there was none.
        status: Option<u16>,
        /// The bytes of the response's body, or all to the visitor after an upgrade.
        bytes: u64,
        /// The bytes that came of the request's body, or all from the visitor after an upgrade.
        received: u64,
        /// The time from its beginning to its end.
        time: Duration,
        /// The response was passed on to its end.
        complete: bool,
        /// Why it was not: what has failed, with the service's address, or that the visitor left.
        failure: Option<String>,
    },
    /// The service takes no requests for the visitors' host. It is reported once for a tunnel.
    BlockedHost {
        /// The tunnel.
        tunnel: TunnelHandle,
        /// The program that refuses them.
        by: &'static str,
        /// The host.
        host: String,
    },
    /// The client stops while exchanges are under way. Without any, it stops without an event.
    Stopping {
        /// The number of requests that may finish.
        requests: usize,
        /// The number of WebSockets and event streams, which are closed now.
        streams: usize,
        /// How long the requests may take.
        within: Duration,
    },
}

impl Event {
    /// The tunnel that it is about; `None` if it is about the client.
    pub fn tunnel(&self) -> Option<TunnelHandle> {
        match self {
            Self::Connected { tunnel, .. }
            | Self::NameTaken { tunnel, .. }
            | Self::Refused { tunnel, .. }
            | Self::Displaced { tunnel, .. }
            | Self::RequestBegan { tunnel, .. }
            | Self::RequestLasts { tunnel, .. }
            | Self::BlockedHost { tunnel, .. }
            | Self::RequestEnded { tunnel, .. } => Some(*tunnel),
            Self::Connecting { .. } | Self::Fallback { .. } | Self::Disconnected { .. } | Self::Stopping { .. } => None,
        }
    }
}

/// What lasts until one side ends it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Lasting {
    /// A WebSocket.
    WebSocket,
    /// An event stream of HTTP.
    EventStream,
    /// Another protocol that the service has switched to.
    Upgrade(String),
}

impl std::fmt::Display for Lasting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::WebSocket => f.write_str("WebSocket"),
            Self::EventStream => f.write_str("event stream"),
            Self::Upgrade(protocol) => f.write_str(protocol),
        }
    }
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
