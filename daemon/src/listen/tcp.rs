//! The TCP listeners: they bind, accept, and limit the time of TLS handshakes.

use std::io;
use std::net::{self, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cok_transport::Congestion;
use rustls::server::Acceptor;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::{debug, warn};

use super::arrivals::{Entry, enter};
use super::seldom::Seldom;
use super::tls::PublicTls;
use super::{Listen, Startup, plain, udp};
use crate::admission::ConnectionPermit;
use crate::edge::{self, Arrival};
use crate::observe::{HandshakeOutcome, Rate, Security};

/// The most connections that the kernel queues while the daemon is busy.
const BACKLOG: i32 = 4096;
/// How many ephemeral ports are tried until one is free for both TCP and UDP.
const FREE_PORT_TRIES: usize = 16;
/// The pause of `accept` when the process is out of descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(20);
/// When the log said so last, for all listeners.
static TOLD: Seldom = Seldom::new();

/// Binds a listener. The error names the address. An IPv6 wildcard accepts IPv4 as well.
fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let bind = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        if address.is_ipv6() {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(true)?;
        socket.set_nonblocking(true)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    bind().map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::AddrInUse => "; another program has it, choose another address or stop that program",
            io::ErrorKind::PermissionDenied => "; ports below 1024 need the right to bind them",
            _ => "",
        };
        anyhow::anyhow!("cannot listen on {address}: {error}{hint}")
    })
}

/// Binds listeners, unless some were passed in.
pub(crate) fn bind_all(addresses: &[SocketAddr], inherited: Vec<net::TcpListener>) -> anyhow::Result<Vec<TcpListener>> {
    if inherited.is_empty() {
        return addresses.iter().copied().map(bind).collect();
    }
    inherited
        .into_iter()
        .map(|listener| TcpListener::from_std(listener).context("a socket that was handed over"))
        .collect()
}

/// Binds the public addresses for TCP, and for UDP if available. Port 0 becomes the same number for both. Passed
/// sockets replace them. If only TCP sockets were passed, UDP is bound as well, and the other way round.
pub(crate) fn bind_public(
    startup: &Startup,
    https: Vec<net::TcpListener>,
    quic: Vec<UdpSocket>,
) -> anyhow::Result<(Vec<TcpListener>, Vec<UdpSocket>)> {
    let (mut listeners, mut sockets) = (bind_all(&[], https)?, quic);
    let wanted = startup.tuning.congestion;
    let (handed_over, has_udp) = (!listeners.is_empty(), !sockets.is_empty());
    if handed_over && !has_udp {
        for listener in &listeners {
            sockets.extend(udp::bind(listener.local_addr()?)?);
        }
    }
    for listener in &listeners {
        set_congestion(wanted, listener);
    }
    for address in startup.addresses.https.iter().filter(|_| !handed_over) {
        let mut tries = if address.port() == 0 { FREE_PORT_TRIES } else { 1 };
        let (listener, socket) = loop {
            tries -= 1;
            let listener = bind(*address)?;
            if has_udp {
                break (listener, None);
            }
            match udp::bind(listener.local_addr()?) {
                Ok(socket) => break (listener, socket),
                // Another program has this number for UDP.
                Err(_) if tries > 0 => {}
                Err(error) => return Err(error),
            }
        };
        set_congestion(wanted, &listener);
        listeners.push(listener);
        sockets.extend(socket);
    }
    Ok((listeners, sockets))
}

fn set_congestion(wanted: Congestion, listener: &TcpListener) {
    if let Err(error) = cok_transport::tcp::set_congestion(listener, wanted) {
        warn!(%error, "no congestion controller {wanted} for TCP, so the kernel's own stays: {error}");
    }
}

/// Accepts connections until it is dropped. An error of one connection ends only that one. A lack of descriptors only
/// pauses it.
pub(crate) async fn accept(listener: TcpListener, connected: impl FnMut(TcpStream, SocketAddr)) {
    accept_or(listener, || {}, connected).await;
}

/// Accepts connections until it is dropped, and calls `exhausted` as long as the process is out of descriptors.
pub(super) async fn accept_or(
    listener: TcpListener,
    exhausted: impl Fn(),
    mut connected: impl FnMut(TcpStream, SocketAddr),
) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Err(error) = cok_transport::tcp::tune(&stream) {
                    debug!(%peer, %error, "connection gone at once");
                    continue;
                }
                connected(stream, peer);
            }
            Err(error) if is_of_connection(&error) => debug!(%error, "connection gone before it was accepted"),
            Err(error) => {
                if TOLD.is_due() {
                    warn!(event = "cannot_accept", %error, "cannot accept connections: {error}; idle ones are closed");
                }
                exhausted();
                tokio::time::sleep(EXHAUSTED_PAUSE).await;
            }
        }
    }
}

fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Serves visitors and tunnels over TCP. Runs until it is dropped.
pub(crate) async fn serve_https(listen: Arc<Listen>, listener: TcpListener, tls: Arc<PublicTls>) {
    let connections = listen.admission.connections.clone();
    let connected = |stream, peer| {
        let Some(entry) = enter(&listen, peer) else { return };
        listen.metrics.arrivals.connections.inc();
        let (task, tls) = (listen.clone(), tls.clone());
        let (present, fresh) = (listen.drain.visitor(), listen.drain.requests.fresh());
        listen.drain.tasks.spawn(async move {
            let listen = task;
            // Boxed, so that what only the beginning needs does not stay in memory for as long as the connection.
            let arrived = Box::pin(arrive(&listen, stream, peer, entry, &tls)).await;
            drop(tls);
            let served = arrived.map(|Arrived { stream, peer, permit }| {
                edge::serve(listen.edge.clone(), stream, peer, Arrival { permit, present, fresh })
            });
            if let Some(served) = served {
                drop(listen);
                if let Err(error) = served.await {
                    debug!(%peer, %error, "visitor's connection ended: {error}");
                }
            }
        });
    };
    accept_or(listener, move || connections.free_descriptors(), connected).await;
}

/// A connection after its TLS handshake.
struct Arrived {
    stream: TlsStream<TcpStream>,
    peer: SocketAddr,
    permit: ConnectionPermit,
}

/// Lets a connection in and secures it, within the time for a handshake. `None` if it does not get that far.
async fn arrive(
    listen: &Listen,
    stream: TcpStream,
    peer: SocketAddr,
    entry: Entry,
    tls: &PublicTls,
) -> Option<Arrived> {
    let limit = listen.config().handshake_timeout;
    let accepted = tokio::select! {
        accepted = tokio::time::timeout(limit, handshake(listen, stream, peer, entry, tls)) => accepted,
        () = listen.drain.first_request() => return None,
    };
    let count = |outcome| listen.metrics.arrivals.handshake(Security::Tls, outcome);
    match accepted {
        Ok(Ok(arrived)) => arrived.inspect(|_| count(HandshakeOutcome::Done)),
        Ok(Err(error)) => {
            count(HandshakeOutcome::Failed);
            debug!(%peer, %error, "TLS handshake failed: {error}");
            None
        }
        Err(_) => {
            count(HandshakeOutcome::TimedOut);
            debug!(%peer, "TLS handshake took too long");
            None
        }
    }
}

/// Lets a connection in and secures it. `None` if it is not wanted.
async fn handshake(
    listen: &Listen,
    mut stream: TcpStream,
    peer: SocketAddr,
    entry: Entry,
    tls: &PublicTls,
) -> io::Result<Option<Arrived>> {
    let Some((permit, peer)) = entry.admit(listen, &mut stream, peer).await else { return Ok(None) };
    let secured = async {
        if plain::is_plain_http(&stream).await? {
            listen.metrics.arrivals.handshake(Security::Tls, HandshakeOutcome::PlainHttp);
            debug!(%peer, "plain HTTP on the port for HTTPS");
            plain::answer(stream).await?;
            return Ok(None);
        }
        // The other half is for the handshake itself.
        let limit = listen.config().handshake_timeout / 2;
        match listen.admission.rates.handshake(peer.ip(), limit) {
            Ok(wait) if wait.is_zero() => {}
            Ok(wait) => tokio::time::sleep(wait).await,
            Err(_) => {
                listen.metrics.refusals.over(Rate::Handshakes);
                listen.metrics.arrivals.handshake(Security::Tls, HandshakeOutcome::Refused);
                debug!(%peer, "too many handshakes from one address");
                return Ok(None);
            }
        }
        let hello = LazyConfigAcceptor::new(Acceptor::default(), stream).await?;
        // What follows of the handshake costs little, and waits for the peer.
        let turn = listen.admission.rates.turn(peer.ip()).await;
        let settings = tls.answering(&hello.client_hello());
        let rest = hello.into_stream(settings);
        drop(turn);
        rest.await.map(Some)
    };
    let stream = tokio::select! {
        stream = secured => stream?,
        () = permit.member().is_shed() => None,
    };
    Ok(stream.map(|stream| Arrived { stream, peer, permit }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_was_not_handed_over_is_bound() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        let text = format!("domain = \"a.example\"\ntls.mode = \"self-signed\"\nlisten.https = [\"{address}\"]\n");
        let config = crate::config::Config::parse(&text, "cokd.toml").unwrap().listen.startup;
        let (https, quic) = bind_public(&config, Vec::new(), vec![udp]).unwrap();
        assert_eq!((https[0].local_addr().unwrap(), https.len(), quic.len()), (address, 1, 1));
        drop(quic);
        let handed_over = https.into_iter().map(|listener| listener.into_std().unwrap()).collect();
        let (https, quic) = bind_public(&config, handed_over, Vec::new()).unwrap();
        assert_eq!((https.len(), quic[0].local_addr().unwrap(), quic.len()), (1, address, 1));
    }
}
