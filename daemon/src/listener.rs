//! The TCP listeners: accepting, TLS handshakes within their time, and the redirect from port 80. The UDP side is in
//! [`quic`].

pub(crate) mod dns;
pub mod first_packets;
pub mod leaving;
pub mod quic;

use std::convert::Infallible;
use std::io;
use std::net::{self, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use http::header::{HOST, LOCATION};
use http::uri::Authority;
use http::{HeaderValue, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tracing::{debug, warn};

use crate::config::Config;
use crate::daemon::Daemon;
use crate::edge;
use crate::edge::body::Body;
use crate::router::{Route, route};

/// Connections that the kernel holds while we are busy.
const BACKLOG: i32 = 4096;
/// How many free ports are tried until one is free for TCP and UDP alike.
const FREE_PORT_TRIES: usize = 16;
/// How long accepting pauses when the process is out of descriptors.
const EXHAUSTED_PAUSE: Duration = Duration::from_millis(100);

/// Binds a listener; the error names the address. An IPv6 wildcard takes IPv4 as well.
pub fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
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

/// Binds listeners, unless some were handed over.
pub fn bind_all(addresses: &[SocketAddr], inherited: Vec<net::TcpListener>) -> anyhow::Result<Vec<TcpListener>> {
    if inherited.is_empty() {
        return addresses.iter().copied().map(bind).collect();
    }
    inherited
        .into_iter()
        .map(|listener| TcpListener::from_std(listener).context("a socket that was handed over"))
        .collect()
}

/// Binds the public addresses: each for TCP, and for UDP where there is any. Port 0 becomes the same number for both.
/// Sockets that were handed over take their place; where only those for TCP were, UDP is bound beside them, and where only
/// those for UDP were, TCP.
pub fn bind_public(
    config: &Config,
    https: Vec<net::TcpListener>,
    quic: Vec<UdpSocket>,
) -> anyhow::Result<(Vec<TcpListener>, Vec<UdpSocket>)> {
    let (mut listeners, mut sockets) = (bind_all(&[], https)?, quic);
    let (handed_over, has_udp) = (!listeners.is_empty(), !sockets.is_empty());
    if handed_over && !has_udp {
        for listener in &listeners {
            sockets.extend(quic::bind(listener.local_addr()?)?);
        }
    }
    for listener in &listeners {
        set_congestion(config, listener);
    }
    for address in config.listen.https.iter().filter(|_| !handed_over) {
        let mut tries = if address.port() == 0 { FREE_PORT_TRIES } else { 1 };
        let (listener, socket) = loop {
            tries -= 1;
            let listener = bind(*address)?;
            if has_udp {
                break (listener, None);
            }
            match quic::bind(listener.local_addr()?) {
                Ok(socket) => break (listener, socket),
                // Another program has this number for UDP.
                Err(_) if tries > 0 => {}
                Err(error) => return Err(error),
            }
        };
        set_congestion(config, &listener);
        listeners.push(listener);
        sockets.extend(socket);
    }
    Ok((listeners, sockets))
}

fn set_congestion(config: &Config, listener: &TcpListener) {
    let wanted = config.tuning.congestion;
    if let Err(error) = cok_transport::tcp::set_congestion(listener, wanted) {
        warn!(%error, "no congestion controller {wanted} for TCP, so the kernel's own stays: {error}");
    }
}

/// Hands out connections for ever. Errors of single connections are nobody's concern; being out of descriptors passes.
pub async fn accept(listener: &TcpListener, mut connected: impl FnMut(TcpStream, SocketAddr)) {
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

/// As [`accept`], for a task that owns its listener.
pub async fn accept_owned(listener: TcpListener, connected: impl FnMut(TcpStream, SocketAddr)) {
    accept(&listener, connected).await;
}

fn is_of_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// Serves visitors and tunnels until the daemon stops.
pub async fn https(daemon: Arc<Daemon>, listener: TcpListener, acceptor: TlsAcceptor) {
    accept(&listener, |stream, peer| {
        let place = match daemon.places.take(peer.ip()) {
            Ok(place) => place,
            Err(full) => return debug!(%peer, "{full}"),
        };
        daemon.metrics.connections.inc();
        let (daemon, acceptor) = (daemon.clone(), acceptor.clone());
        let (visitor, fresh) = (daemon.visitors.token(), daemon.running.fresh());
        daemon.tasks.clone().spawn(async move {
            let _visitor = visitor;
            let limit = daemon.config().limits.handshake_timeout;
            let accepted = tokio::select! {
                accepted = tokio::time::timeout(limit, Box::pin(acceptor.accept(stream))) => accepted,
                () = daemon.shutdown.first_request() => return,
            };
            match accepted {
                Ok(Ok(stream)) => edge::serve(daemon, stream, peer, place, fresh).await,
                Ok(Err(error)) => debug!(%peer, %error, "TLS handshake failed"),
                Err(_) => debug!(%peer, "TLS handshake took too long"),
            }
        });
    })
    .await;
}

/// Redirects plain HTTP to HTTPS until the daemon stops. `port` is where HTTPS is, from outside.
pub async fn http(daemon: Arc<Daemon>, listener: TcpListener, port: u16) {
    accept(&listener, |stream, peer| {
        let Ok(place) = daemon.places.take(peer.ip()) else { return };
        daemon.metrics.connections.inc();
        let (daemon, visitor) = (daemon.clone(), daemon.visitors.token());
        tokio::spawn(async move {
            let (_place, _visitor) = (place, visitor);
            let limit = daemon.config().limits.header_timeout;
            let service = service_fn(|request: Request<Incoming>| {
                let response = redirect(&daemon, &request, port);
                async move { Ok::<_, Infallible>(response) }
            });
            // Whoever is redirected has nothing else to do here.
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(limit)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            let result = tokio::select! {
                result = connection => result,
                () = daemon.shutdown.first_request() => Ok(()),
            };
            if let Err(error) = result {
                debug!(%peer, %error, "connection ended");
            }
        });
    })
    .await;
}

/// 308 keeps the method and the body (RFC 9110, section 15.4.9). Only our own names are redirected to.
fn redirect(daemon: &Daemon, request: &Request<Incoming>, port: u16) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::MISDIRECTED_REQUEST;
    let named = request.headers().get(HOST).and_then(|host| host.to_str().ok()?.parse::<Authority>().ok());
    let Some(authority) = request.uri().authority().cloned().or(named) else {
        *response.status_mut() = StatusCode::BAD_REQUEST;
        return response;
    };
    let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    if !matches!(route(&daemon.domain, authority.host()), Route::Foreign)
        && let Ok(location) = HeaderValue::try_from(format!("https://{}{port}{target}", authority.host()))
    {
        *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_was_not_handed_over_is_bound() {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        let text = format!("domain = \"a.example\"\ntls.mode = \"self-signed\"\nlisten.https = [\"{address}\"]\n");
        let config = Config::parse(&text, "cokd.toml").unwrap();
        let (https, quic) = bind_public(&config, Vec::new(), vec![udp]).unwrap();
        assert_eq!((https[0].local_addr().unwrap(), https.len(), quic.len()), (address, 1, 1));
        drop(quic);
        let handed_over = https.into_iter().map(|listener| listener.into_std().unwrap()).collect();
        let (https, quic) = bind_public(&config, handed_over, Vec::new()).unwrap();
        assert_eq!((https.len(), quic[0].local_addr().unwrap(), quic.len()), (1, address, 1));
    }
}
