//! Connections to the daemon: over QUIC, over a WebSocket, or over the one that proves itself first. They ask for no name
//! before [`Path::connect`].

mod diagnosis;
mod failure;
mod http_connect;
mod look;
mod proxy_failure;
mod race;
mod socks;
mod through;
mod validity;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use cok_host::dial::first_of;
use cok_proto::{Connect, ConnectAck, FallbackReason};
use cok_transport::{Congestion, HandshakeError, Transport, quic, tcp, ws};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;
use tracing::debug;

use self::race::Winner;
use crate::outbound::Outbound;
use crate::server::{Server, resolve};
use crate::text::io_reason;
use crate::transport::TransportChoice;

#[cfg(feature = "program")]
pub(crate) use self::failure::User;
pub(crate) use self::failure::{Cause, Unreachable};
#[cfg(feature = "program")]
pub(crate) use self::look::{date, name_of_issuer, untrusting};

/// Timeout of a QUIC handshake with one address. It survives three lost first packets: QUIC repeats them after 0.3, 0.9
/// and 2.1 s.
const QUIC_HANDSHAKE: Duration = Duration::from_secs(4);
/// Timeout of the echo that proves that a QUIC connection carries data. It leaves room for a lost packet on a slow path.
const ECHO: Duration = Duration::from_secs(2);
/// Timeout of a TCP connection to one address.
const TCP: Duration = Duration::from_secs(10);
/// Timeout of the TLS handshake.
const TLS: Duration = Duration::from_secs(10);
/// Timeout of the upgrade to a WebSocket.
pub(crate) const UPGRADE: Duration = Duration::from_secs(10);
/// Timeout of the answer to Connect.
const CONNECT: Duration = Duration::from_secs(10);

/// What connections to the daemon need.
#[derive(Debug)]
pub(crate) struct Config {
    pub(crate) server: Server,
    /// Dialled instead of the server's resolved address, over TCP and UDP alike.
    pub(crate) connect_to: Option<SocketAddr>,
    /// Carries the connections, all of them over TCP.
    pub(crate) proxy: Option<Outbound>,
    pub(crate) tls: Arc<ClientConfig>,
    /// The user's choice. Here it only decides what a failure advises.
    pub(crate) transport: TransportChoice,
    /// Where QUIC connections are made.
    pub(crate) quic: quic::Dialer,
    /// The congestion controller over TCP.
    pub(crate) congestion: Congestion,
}

/// A connection towards the daemon: TCP, or TLS with a proxy on the way.
pub(crate) type Stream = Either<TcpStream, Box<TlsStream<TcpStream>>>;

/// A connection that is proven to carry data both ways.
#[derive(Debug)]
pub(crate) enum Path {
    /// A QUIC connection.
    Quic(Box<quic::Link>),
    /// An upgraded WebSocket.
    Ws(Box<ws::Socket<TlsStream<Stream>>>),
}

/// A path, and the reason for its choice.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) path: Path,
    pub(crate) reason: String,
    /// Why it is not QUIC, if that was wanted. For the daemon.
    pub(crate) fallback: Option<FallbackReason>,
}

impl Path {
    /// Adds the reason for the choice of this path.
    pub(crate) fn because(self, reason: impl Into<String>) -> Opened {
        Opened { path: self, reason: reason.into(), fallback: None }
    }

    /// Adds the reason why it is this path and not QUIC.
    pub(crate) fn in_place_of_quic(self, reason: String, fallback: FallbackReason) -> Opened {
        Opened { path: self, reason, fallback: Some(fallback) }
    }

    pub(crate) fn is_quic(&self) -> bool {
        matches!(self, Self::Quic(_))
    }

    /// Asks for a session, to which the tunnels `moving` may move from the one that it replaces. Over QUIC, the result
    /// includes the liveness of the path.
    pub(crate) async fn connect(
        self,
        limits: cok_transport::Config,
        ask: &Connect,
        moving: &[u32],
    ) -> Result<(Arc<dyn Transport>, ConnectAck, Option<quic::PathLiveness>), HandshakeError> {
        match self {
            Self::Quic(link) => {
                let quic::Session { transport, ack, path: health } = link.connect(limits, ask, moving, CONNECT).await?;
                Ok((transport, ack, Some(health)))
            }
            Self::Ws(socket) => {
                let (transport, ack) = ws::connect(*socket, limits, ask, moving, CONNECT).await?;
                Ok((transport, ack, None))
            }
        }
    }
}

/// Opens QUIC and a WebSocket, and takes the one that proves itself first.
pub(crate) async fn race(config: &Config) -> Result<Opened, Unreachable> {
    let opened = async {
        let addresses = addresses(config).await?;
        let race = race::race(handshake(config, &addresses), echo, upgrade(config, &addresses));
        Ok(match Box::pin(race).await? {
            Winner::Quic(link) => Path::Quic(link).because("QUIC answered first"),
            Winner::Ws(socket, why) => Path::Ws(socket).in_place_of_quic(format!("QUIC: {why}"), why.fallback()),
        })
    };
    diagnosed(config, opened.await).await
}

/// Opens a QUIC connection.
pub(crate) async fn quic(config: &Config) -> Result<Path, Unreachable> {
    let link = async { echo(handshake(config, &addresses(config).await?).await?).await };
    diagnosed(config, link.await.map(Path::Quic)).await
}

/// Opens a WebSocket.
pub(crate) async fn ws(config: &Config) -> Result<Path, Unreachable> {
    let socket = async { upgrade(config, &addresses(config).await?).await };
    diagnosed(config, socket.await.map(Path::Ws)).await
}

/// Looks closer where the server's certificate was refused.
async fn diagnosed<T>(config: &Config, opened: Result<T, Cause>) -> Result<T, Unreachable> {
    match opened {
        Ok(opened) => Ok(opened),
        Err(cause) => Err(Unreachable::new(config, Box::pin(diagnosis::look_closer(config, cause)).await)),
    }
}

pub(crate) async fn addresses(config: &Config) -> Result<Vec<SocketAddr>, Cause> {
    if let Some(address) = config.connect_to {
        return Ok(vec![address]);
    }
    // The proxy resolves the name, or this machine does for the proxy.
    if config.proxy.is_some() {
        return Ok(Vec::new());
    }
    let (host, port) = (config.server.host(), config.server.port());
    resolve(host, port).await.map_err(|error| Cause::of_lookup(&error))
}

/// The most telling of all addresses' failures: the first of those that got furthest.
pub(crate) fn furthest(failures: Vec<Cause>) -> Cause {
    let furthest = failures.into_iter().rev().max_by_key(Cause::step);
    furthest.unwrap_or_else(|| Cause::Unresolved("it has no address".to_owned()))
}

pub(crate) async fn handshake(config: &Config, addresses: &[SocketAddr]) -> Result<Box<quic::Link>, Cause> {
    let name = config.server.host();
    let dial = async |address| {
        let link = config.quic.dial(address, name, QUIC_HANDSHAKE).await;
        link.map_err(|error| Cause::of_quic(error, address))
    };
    first_of(addresses, dial).await.map(Box::new).map_err(furthest)
}

pub(crate) async fn echo(mut link: Box<quic::Link>) -> Result<Box<quic::Link>, Cause> {
    link.echo(ECHO).await.map_err(|error| Cause::of_echo(&error))?;
    Ok(link)
}

async fn upgrade(config: &Config, addresses: &[SocketAddr]) -> Result<Box<ws::Socket<TlsStream<Stream>>>, Cause> {
    let stream = tls(config, addresses, &config.tls).await?;
    ws::open(stream, &config.server.authority(), UPGRADE).await.map(Box::new).map_err(Cause::of_upgrade)
}

/// Opens TLS with the daemon. `trust` decides about its certificate.
pub(crate) async fn tls(
    config: &Config,
    addresses: &[SocketAddr],
    trust: &Arc<ClientConfig>,
) -> Result<TlsStream<Stream>, Cause> {
    let stream = stream(config, addresses).await?;
    let name =
        ServerName::try_from(config.server.host().to_owned()).map_err(|error| Cause::BadName(error.to_string()))?;
    match timeout(TLS, TlsConnector::from(trust.clone()).connect(name, stream)).await {
        Ok(result) => result.map_err(|error| Cause::of_tls(&error)),
        Err(_) => Err(Cause::Silent { step: "the TLS handshake", within: TLS }),
    }
}

/// A connection towards the daemon, without TLS.
pub(crate) async fn stream(config: &Config, addresses: &[SocketAddr]) -> Result<Stream, Cause> {
    let stream = match &config.proxy {
        Some(outbound) => through::open(outbound, config.server.address(), config.connect_to).await?,
        None => Either::Left(first_of(addresses, dial_tcp).await.map_err(furthest)?),
    };
    let tcp = through::tcp(&stream);
    tcp::tune(tcp).map_err(|error| Cause::Broken(format!("the connection broke: {}", io_reason(&error))))?;
    let congestion = config.congestion;
    if let Err(error) = tcp::set_congestion(tcp, congestion) {
        debug!(%congestion, %error, "the kernel's own congestion control stays, since {congestion} fails: {error}");
    }
    Ok(stream)
}

pub(crate) async fn dial_tcp(address: SocketAddr) -> Result<TcpStream, Cause> {
    match timeout(TCP, TcpStream::connect(address)).await {
        Ok(result) => result.map_err(|error| Cause::of_tcp(&error, address)),
        Err(_) => Err(Cause::NoAnswer { from: Some(address), within: TCP }),
    }
}
