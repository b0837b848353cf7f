//! The TCP listeners: they bind, accept, and limit the time of TLS handshakes.

use std::io;
use std::net::{self, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use cok_transport::Congestion;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use super::{Listen, Startup, plain, udp};
use crate::edge::{self, Arrival};

/// The most connections that the kernel queues while the daemon is busy.
const BACKLOG: i32 = 4096;
/// How many ephemeral ports are tried until one is free for both TCP and UDP.
const FREE_PORT_TRIES: usize = 16;
/// The pause of `accept` when the process is out of descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

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
pub(crate) async fn accept(listener: TcpListener, mut connected: impl FnMut(TcpStream, SocketAddr)) {
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
                warn!(%error, "cannot accept connections: {error}");
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
pub(crate) async fn serve_https(listen: Arc<Listen>, listener: TcpListener, acceptor: TlsAcceptor) {
    accept(listener, |stream, peer| {
        let permit = match listen.admission.connections.acquire(peer.ip()) {
            Ok(permit) => permit,
            Err(full) => return debug!(%peer, "{full}"),
        };
        listen.metrics.connections.inc();
        let (task, acceptor) = (listen.clone(), acceptor.clone());
        let (present, fresh) = (listen.drain.visitor(), listen.drain.requests.fresh());
        let arrival = Arrival { permit, present, fresh };
        listen.drain.tasks.spawn(async move {
            let listen = task;
            let limit = listen.config().handshake_timeout;
            let handshake = async {
                if plain::is_plain_http(&stream).await? {
                    plain::answer(stream).await?;
                    return Ok(None);
                }
                Box::pin(acceptor.accept(stream)).await.map(Some)
            };
            let accepted = tokio::select! {
                accepted = tokio::time::timeout(limit, handshake) => accepted,
                () = listen.drain.first_request() => return,
            };
            match accepted {
                Ok(Ok(Some(stream))) => edge::serve(listen.edge.clone(), stream, peer, arrival).await,
                Ok(Ok(None)) => debug!(%peer, "plain HTTP on the port for HTTPS"),
                Ok(Err(error)) => debug!(%peer, %error, "TLS handshake failed: {error}"),
                Err(_) => debug!(%peer, "TLS handshake took too long"),
            }
        });
    })
    .await;
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
