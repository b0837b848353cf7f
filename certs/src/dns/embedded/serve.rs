//! The responder's sockets: UDP, and TCP with bounds on connections and on their time.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::answer::{LONGEST_QUERY, Over};
use super::{Embedded, SolverError};

/// Connections at once. Few come by TCP, as few answers are too long for UDP; each holds a file descriptor and one
/// query.
const MOST_CONNECTIONS: usize = 64;
/// How long a connection may take for its next query or for taking an answer: "a few seconds" (RFC 7766, section
/// 6.2.3).
const IDLE: Duration = Duration::from_secs(5);
/// How long a connection may live: a resolver that asks on and on must make room for others.
const LIFETIME: Duration = Duration::from_secs(30);
/// Connections that the kernel holds for us.
const BACKLOG: i32 = 128;
/// The pause after a socket's error, so that one that stays does not take the processor.
const PAUSE: Duration = Duration::from_millis(100);

/// Both sockets of one address.
#[derive(Debug)]
pub struct Sockets {
    /// For datagrams.
    pub udp: UdpSocket,
    /// For connections, on the same port.
    pub tcp: TcpListener,
    /// The address, with the port that was chosen if 0 was asked for.
    pub address: SocketAddr,
}

impl Sockets {
    /// Takes sockets that somebody else has bound, made nonblocking, to one address; needs a runtime.
    pub fn from_std(udp: std::net::UdpSocket, tcp: std::net::TcpListener) -> io::Result<Self> {
        let address = udp.local_addr()?;
        Ok(Self { udp: UdpSocket::from_std(udp)?, tcp: TcpListener::from_std(tcp)?, address })
    }
}

/// Binds UDP and TCP; needs a runtime. An IPv6 address takes IPv4 as well. A port 0 gets the same number for both.
pub fn bind(address: SocketAddr) -> Result<Sockets, SolverError> {
    // A free UDP port may be taken for TCP, and then another one is chosen.
    let tries = if address.port() == 0 { 16 } else { 1 };
    let mut result = bind_both(address);
    for _ in 1..tries {
        if result.is_ok() {
            break;
        }
        result = bind_both(address);
    }
    result.map_err(|error| SolverError::Setup(explain(address, &error)))
}

fn bind_both(address: SocketAddr) -> io::Result<Sockets> {
    let udp = socket(address, Type::DGRAM, Protocol::UDP)?;
    udp.bind(&address.into())?;
    let udp = UdpSocket::from_std(udp.into())?;
    let address = udp.local_addr()?;
    let tcp = socket(address, Type::STREAM, Protocol::TCP)?;
    tcp.set_reuse_address(true)?;
    tcp.bind(&address.into())?;
    tcp.listen(BACKLOG)?;
    Ok(Sockets { udp, tcp: TcpListener::from_std(tcp.into())?, address })
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// What an operator can do about it.
fn explain(address: SocketAddr, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program answers DNS there; systemd-resolved and dnsmasq do so on addresses of their own, so name \
             this machine's public address instead of all of them, or stop that program"
        }
        io::ErrorKind::PermissionDenied => "ports below 1024 need the capability CAP_NET_BIND_SERVICE",
        io::ErrorKind::AddrNotAvailable => "this machine has no such address",
        _ => return format!("cannot listen on {address} for DNS: {error}"),
    };
    format!("cannot listen on {address} for DNS: {error}: {advice}")
}

/// Answers until it is dropped.
pub async fn serve(responder: Arc<Embedded>, sockets: Sockets) {
    tokio::join!(serve_udp(&responder, &sockets.udp), serve_tcp(&responder, &sockets.tcp));
}

/// One datagram after the other: an answer takes microseconds, and a queue of them would only grow old.
async fn serve_udp(responder: &Embedded, socket: &UdpSocket) {
    // One byte more shows which ones are too long.
    let mut query = vec![0; LONGEST_QUERY + 1];
    loop {
        match socket.recv_from(&mut query).await {
            // Nothing can be sent to port 0, which only a forged datagram has.
            Ok((length, from)) if from.port() != 0 => {
                if let Some(answer) = responder.answer(&query[..length], Over::Udp)
                    && let Err(error) = socket.try_send_to(&answer, from)
                {
                    debug!(%from, %error, "cannot answer a DNS query");
                }
            }
            Ok(_) => {}
            Err(error) => {
                debug!(%error, "cannot receive a DNS query");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn serve_tcp(responder: &Arc<Embedded>, listener: &TcpListener) {
    let places = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let accepted = listener.accept().await;
        while connections.try_join_next().is_some() {}
        match accepted {
            Ok((stream, from)) => {
                let Ok(place) = places.clone().try_acquire_owned() else {
                    debug!(%from, "no place for a DNS connection");
                    continue;
                };
                let responder = responder.clone();
                connections.spawn(async move {
                    let _place = place;
                    let done = timeout(LIFETIME, connection(&responder, stream)).await;
                    debug!(%from, ?done, "a DNS connection has ended");
                });
            }
            Err(error) => {
                warn!(%error, "cannot accept a DNS connection");
                sleep(PAUSE).await;
            }
        }
    }
}

/// Messages each with its length before it (RFC 1035, section 4.2.2), one after the other.
async fn connection(responder: &Embedded, mut stream: TcpStream) -> io::Result<()> {
    loop {
        let read = async {
            let length = usize::from(stream.read_u16().await?);
            if length > LONGEST_QUERY {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "the query is too long"));
            }
            let mut query = vec![0; length];
            stream.read_exact(&mut query).await?;
            Ok(query)
        };
        let query = match timeout(IDLE, read).await? {
            Ok(query) => query,
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        };
        let Some(answer) = responder.answer(&query, Over::Tcp) else { return Ok(()) };
        // Length and message in one write (RFC 7766, section 8).
        let mut framed = Vec::with_capacity(answer.len() + 2);
        framed.extend_from_slice(&(answer.len() as u16).to_be_bytes());
        framed.extend_from_slice(&answer);
        timeout(IDLE, stream.write_all(&framed)).await??;
    }
}
