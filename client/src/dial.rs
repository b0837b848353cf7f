//! The ways to the daemon: over QUIC, over a WebSocket, or over whichever proves itself first. Nothing is claimed on them
//! before [`Path::connect`].

mod addresses;
mod race;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use cok_proto::{Connect, ConnectAck};
use cok_transport::{Config, HandshakeError, Transport, quic, tcp, ws};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tracing::debug;

use self::race::Winner;
use crate::server::resolve;
use crate::tunnel::Options;

pub(crate) use self::addresses::first_of;

/// For a QUIC handshake with one address: three first packets may get lost (they are repeated after 0.3, 0.9 and 2.1 s).
const QUIC_HANDSHAKE: Duration = Duration::from_secs(4);
/// For the echo that shows that a QUIC connection carries data: a round trip, with room for a lost packet on a slow path.
const ECHO: Duration = Duration::from_secs(2);
/// For a TCP connection to one address.
const TCP: Duration = Duration::from_secs(10);
/// For the TLS handshake.
const TLS: Duration = Duration::from_secs(10);
/// For the upgrade to a WebSocket.
const UPGRADE: Duration = Duration::from_secs(10);
/// For the answer to Connect.
const CONNECT: Duration = Duration::from_secs(10);

/// A connection that has been shown to carry data both ways.
#[derive(Debug)]
pub(crate) enum Path {
    /// A QUIC connection.
    Quic(Box<quic::Link>),
    /// An upgraded WebSocket.
    Ws(Box<ws::Socket<TlsStream<TcpStream>>>),
}

/// A path, and why it was taken.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) path: Path,
    pub(crate) reason: String,
}

impl Path {
    /// With the reason why it was taken.
    pub(crate) fn because(self, reason: impl Into<String>) -> Opened {
        Opened { path: self, reason: reason.into() }
    }

    pub(crate) fn is_quic(&self) -> bool {
        matches!(self, Self::Quic(_))
    }

    /// Asks for a session. Over QUIC, it comes with a watch over the path.
    pub(crate) async fn connect(
        self,
        config: Config,
        ask: &Connect,
    ) -> Result<(Arc<dyn Transport>, ConnectAck, Option<quic::PathLiveness>), HandshakeError> {
        match self {
            Self::Quic(link) => {
                let quic::Session { transport, ack, path: health } = link.connect(config, ask, CONNECT).await?;
                Ok((transport, ack, Some(health)))
            }
            Self::Ws(socket) => {
                let (transport, ack) = ws::connect(*socket, config, ask, CONNECT).await?;
                Ok((transport, ack, None))
            }
        }
    }
}

/// Opens QUIC or a WebSocket, whichever proves itself first.
pub(crate) async fn race(options: &Options) -> anyhow::Result<Opened> {
    let addresses = addresses(options).await?;
    let race = race::race(handshake(options, &addresses), echo, upgrade(options, &addresses));
    Ok(match Box::pin(race).await? {
        Winner::Quic(link) => Path::Quic(link).because("QUIC answered first"),
        Winner::Ws(socket, why_not_quic) => Path::Ws(socket).because(why_not_quic),
    })
}

/// Opens a QUIC connection.
pub(crate) async fn quic(options: &Options) -> anyhow::Result<Path> {
    let addresses = addresses(options).await?;
    let link = async { echo(handshake(options, &addresses).await?).await };
    Ok(Path::Quic(link.await.with_context(|| format!("cannot reach {} over QUIC", options.server))?))
}

/// Opens a WebSocket.
pub(crate) async fn ws(options: &Options) -> anyhow::Result<Path> {
    Ok(Path::Ws(upgrade(options, &addresses(options).await?).await?))
}

async fn addresses(options: &Options) -> anyhow::Result<Vec<SocketAddr>> {
    if let Some(address) = options.connect_to {
        return Ok(vec![address]);
    }
    let (host, port) = (options.server.host(), options.server.port());
    resolve(host, port).await.with_context(|| format!("cannot resolve {host}"))
}

async fn handshake(options: &Options, addresses: &[SocketAddr]) -> anyhow::Result<Box<quic::Link>> {
    let name = options.server.host();
    let dial = async |address| Ok(options.quic.dial(address, name, QUIC_HANDSHAKE).await?);
    first_of(addresses, dial).await.map(Box::new)
}

async fn echo(mut link: Box<quic::Link>) -> anyhow::Result<Box<quic::Link>> {
    link.echo(ECHO).await.context("the handshake succeeded, but no data came back")?;
    Ok(link)
}

async fn upgrade(options: &Options, addresses: &[SocketAddr]) -> anyhow::Result<Box<ws::Socket<TlsStream<TcpStream>>>> {
    let stream = tls(options, addresses).await?;
    Ok(Box::new(ws::open(stream, &options.server.authority(), UPGRADE).await?))
}

async fn tls(options: &Options, addresses: &[SocketAddr]) -> anyhow::Result<TlsStream<TcpStream>> {
    let Options { server, tls, congestion, .. } = options;
    let stream = first_of(addresses, async |address| match timeout(TCP, TcpStream::connect(address)).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer from {address}"))),
    });
    let stream = stream.await.with_context(|| format!("cannot connect to {server}"))?;
    tcp::tune(&stream)?;
    tcp::tune_tunnel(&stream)?;
    if let Err(error) = tcp::set_congestion(&stream, *congestion) {
        debug!(%congestion, %error, "the kernel's own congestion control stays");
    }
    let host = server.host();
    let name = ServerName::try_from(host.to_owned()).with_context(|| format!("\"{host}\" is not a server name"))?;
    match timeout(TLS, TlsConnector::from(tls.clone()).connect(name, stream)).await {
        Ok(result) => result.with_context(|| format!("TLS with {server} failed")),
        Err(_) => bail!("TLS with {server} took longer than {} s", TLS.as_secs()),
    }
}
