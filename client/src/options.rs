//! What a tunnel needs from its user.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cok_transport::{Congestion, quic};
use rustls::ClientConfig;

use crate::server::Server;
use crate::target::Target;
use crate::transport::TransportChoice;

/// How long a tunnel asks for a name that another client has, unless the user says otherwise. A client that vanished over QUIC
/// keeps its name for up to 36 s, until the daemon has given it up.
pub const NAME_TIMEOUT: Duration = Duration::from_secs(45);

/// What a tunnel needs.
#[derive(Clone, Debug)]
pub struct Options {
    /// The daemon.
    pub server: Server,
    /// Dialled instead of the daemon's resolved address, over TCP and UDP alike.
    pub connect_to: Option<SocketAddr>,
    /// Whom to trust: [`crate::trust_system`] or [`crate::trust_file`].
    pub tls: Arc<ClientConfig>,
    /// How to reach it.
    pub transport: TransportChoice,
    /// Where QUIC connections are made. Clones share their sockets: one of them is for all tunnels of a process.
    pub quic: quic::Dialer,
    /// The congestion controller over TCP; over QUIC, [`quic::Tuning`] says it.
    pub congestion: Congestion,
    /// With [`TransportChoice::Auto`], the wait until a tunnel on WebSocket tries QUIC again: [`crate::PROBE_INTERVAL`].
    /// It doubles with every try that fails, up to ten minutes. More than zero.
    pub probe_interval: Duration,
    /// The API key.
    pub key: String,
    /// The wanted name; without one the daemon picks.
    pub subdomain: Option<String>,
    /// How long to ask for a name that another client has, before the refusal is final: [`NAME_TIMEOUT`]. Zero asks once.
    pub name_timeout: Duration,
    /// This installation, see [`crate::instance_id`].
    pub instance: String,
    /// The local service.
    pub target: Target,
    /// What the service sees as Host.
    pub host_header: HostHeader,
    /// How long the service may take until its response begins; `None` for no limit.
    pub response_timeout: Option<Duration>,
    /// How long a connection to the service may take.
    pub connect_timeout: Duration,
}

/// What the service sees as Host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum HostHeader {
    /// What the visitor asked for.
    #[default]
    Preserve,
    /// The target's own host and port.
    Rewrite,
    /// This.
    Value(http::HeaderValue),
}

impl std::str::FromStr for HostHeader {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "preserve" => Ok(Self::Preserve),
            "rewrite" => Ok(Self::Rewrite),
            // It becomes an authority over HTTP/2, so it has to be one.
            value => match value.parse::<http::uri::Authority>() {
                Ok(_) => http::HeaderValue::from_str(value).map(Self::Value).map_err(|error| error.to_string()),
                Err(_) => Err(format!("\"{value}\" is not \"preserve\", \"rewrite\" or a host")),
            },
        }
    }
}
