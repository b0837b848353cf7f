//! The settings of a client and its tunnels.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cok_proto::Rules;
use cok_transport::{Congestion, quic};
use rustls::ClientConfig;

use crate::outbound::Outbound;
use crate::server::Server;
use crate::target::Target;
use crate::target_trust::TargetTrust;
use crate::transport::TransportChoice;
use crate::upgrades::Upgrades;

/// The default of [`ClientOptions::name_timeout`]. The daemon needs up to 36 s to notice that a client over QUIC has vanished, and
/// keeps its name until then.
pub const NAME_TIMEOUT: Duration = Duration::from_secs(45);

/// The settings of one client.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// The daemon.
    pub server: Server,
    /// An address to dial instead of the daemon's resolved one, over TCP and UDP.
    pub connect_to: Option<SocketAddr>,
    /// The proxy through which to reach it. It carries only TCP, so no QUIC passes.
    pub proxy: Option<Outbound>,
    /// Whom to trust: [`crate::trust_system`] or [`crate::trust_file`].
    pub tls: Arc<ClientConfig>,
    /// How to reach it.
    pub transport: TransportChoice,
    /// Opens QUIC connections. Clones share their sockets.
    pub quic: quic::Dialer,
    /// The congestion controller over TCP. Over QUIC, [`quic::Tuning`] sets it.
    pub congestion: Congestion,
    /// With [`TransportChoice::Auto`], the wait until a client on WebSocket tries QUIC again. It must be more than zero.
    /// It doubles with every failed try, up to ten minutes. [`crate::PROBE_INTERVAL`] is a good choice.
    pub probe_interval: Duration,
    /// The API key.
    pub key: String,
    /// How long to ask for a name that another client has. Zero asks once. [`NAME_TIMEOUT`] is a good choice.
    pub name_timeout: Duration,
    /// Whether to ask again every few minutes after each refusal that may pass, such as one of the key.
    pub keep_trying: bool,
    /// Whether log lines about requests name their queries, which may hold secrets.
    pub log_queries: bool,
    /// This installation, see [`crate::instance_id`].
    pub instance: String,
}

/// The settings of one tunnel.
#[derive(Clone, Debug)]
pub struct TunnelOptions {
    /// The user's name for the tunnel, for messages.
    pub label: Option<String>,
    /// The wanted name; without one the daemon picks.
    pub subdomain: Option<String>,
    /// Which visitors the daemon lets in.
    pub rules: Rules,
    /// The local service.
    pub target: Target,
    /// What the service sees as Host.
    pub host_header: HostHeader,
    /// Which certificates an `https://` target on another machine may show.
    pub target_trust: TargetTrust,
    /// Which protocols the service may switch to.
    pub upgrades: Upgrades,
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
    /// This value.
    Value(http::HeaderValue),
}

impl std::str::FromStr for HostHeader {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "preserve" => Ok(Self::Preserve),
            "rewrite" => Ok(Self::Rewrite),
            // Over HTTP/2 the value becomes the authority.
            value => match value.parse::<http::uri::Authority>() {
                Ok(_) => http::HeaderValue::from_str(value).map(Self::Value).map_err(|error| error.to_string()),
                Err(_) => Err(format!("\"{value}\" is not \"preserve\", \"rewrite\" or a host")),
            },
        }
    }
}
