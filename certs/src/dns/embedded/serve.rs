//! The responder's sockets: UDP, and TCP with limits on connections and on their time.
//!
//! The answers themselves come from the responder.

use std::collections::HashMap;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::task::{AbortHandle, Id, JoinSet};
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::answer::{LONGEST_QUERY, Over};
use super::limit::{Limiter, Network};
use super::responder::Embedded;
use crate::dns::SolverError;

/// The most connections at once. Few come over TCP, since few answers are too long for UDP. Each takes a file
/// descriptor and one query.
const MOST_CONNECTIONS: usize = 64;
/// The most connections at once of one network. A resolver should use one or a few (RFC 7766, section 6.2.2).
const MOST_CONNECTIONS_EACH: usize = 16;
/// The most datagrams that are received together.
const BATCH: usize = 4;
/// Room for each datagram. The kernel may join datagrams of one sender up to this size (GRO).
const DATAGRAM: usize = 65_535;
/// How long a connection may wait for its next query, or take to accept an answer: "a few seconds" (RFC 7766, section
/// 6.2.3).
const IDLE: Duration = Duration::from_secs(5);
/// How long a connection may live. A resolver that asks endlessly must make room for others.
const LIFETIME: Duration = Duration::from_secs(30);
/// Connections that the kernel queues for us.
const BACKLOG: i32 = 128;
/// The pause after a socket's error, so that a lasting error does not take the processor.
const PAUSE: Duration = Duration::from_millis(100);

/// Both sockets of one address.
#[derive(Debug)]
pub struct Sockets {
    udp: UdpSocket,
    /// Reads the local address of each datagram, and sends from it.
    datagrams: UdpSocketState,
    tcp: TcpListener,
    /// The address. A port 0 is replaced by the chosen one.
    pub address: SocketAddr,
}

impl Sockets {
    /// Takes bound sockets, of which the stream listens. Needs a runtime.
    pub fn from_std(udp: std::net::UdpSocket, tcp: std::net::TcpListener) -> io::Result<Self> {
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        let udp = UdpSocket::from_std(udp)?;
        let datagrams = UdpSocketState::new((&udp).into())?;
        Ok(Self { address: udp.local_addr()?, datagrams, udp, tcp: TcpListener::from_std(tcp)? })
    }
}

/// Binds UDP and TCP. Needs a runtime. An IPv6 address accepts IPv4 as well. A port 0 becomes the same number for both.
pub fn bind(address: SocketAddr) -> Result<Sockets, SolverError> {
    // The port that is free for UDP may be in use for TCP.
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
    let udp = std::net::UdpSocket::from(udp);
    let address = udp.local_addr()?;
    let tcp = socket(address, Type::STREAM, Protocol::TCP)?;
    tcp.set_reuse_address(true)?;
    tcp.bind(&address.into())?;
    tcp.listen(BACKLOG)?;
    Sockets::from_std(udp, tcp.into())
}

fn socket(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind, Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    Ok(socket)
}

/// What an operator can do about it.
fn explain(address: SocketAddr, error: &io::Error) -> String {
    let advice = match error.kind() {
        io::ErrorKind::AddrInUse => {
            "another program answers DNS there; systemd-resolved and dnsmasq do so on addresses of their own, so name \
             this machine's public address instead of all of them, or stop that program"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 need a right that cokd lacks; let systemd open it: systemctl enable cokd-dns.socket && \
             systemctl restart cokd"
        }
        io::ErrorKind::AddrNotAvailable => "this machine has no such address",
        _ => return format!("cannot listen on {address} for DNS: {error}"),
    };
    format!("cannot listen on {address} for DNS: {error}: {advice}")
}

/// Answers queries until it is dropped.
pub async fn serve(responder: Arc<Embedded>, sockets: Sockets) {
    tokio::join!(serve_udp(&responder, &sockets), serve_tcp(&responder, &sockets.tcp));
}

/// Answers one datagram after the other. Each takes microseconds, and answers in a queue would only get late.
async fn serve_udp(responder: &Embedded, sockets: &Sockets) {
    let Sockets { udp, datagrams, .. } = sockets;
    let mut limiter = Limiter::new(Instant::now());
    let mut buffers = vec![0; BATCH * DATAGRAM];
    let mut metas = [RecvMeta::default(); BATCH];
    loop {
        let received = udp
            .async_io(Interest::READABLE, || {
                let mut pieces = buffers.chunks_exact_mut(DATAGRAM);
                let mut slices: [IoSliceMut<'_>; BATCH] =
                    std::array::from_fn(|_| IoSliceMut::new(pieces.next().unwrap_or_default()));
                datagrams.recv(udp.into(), &mut slices, &mut metas)
            })
            .await;
        let received = match received {
            Ok(received) => received,
            Err(error) => {
                debug!(%error, "cannot receive a DNS query");
                sleep(PAUSE).await;
                continue;
            }
        };
        let now = Instant::now();
        for (buffer, meta) in buffers.chunks_exact(DATAGRAM).zip(&metas).take(received) {
            let bytes = &buffer[..meta.len.min(DATAGRAM)];
            for query in bytes.chunks(meta.stride.max(1)) {
                // Only a forged datagram comes from port 0, and no answer can go there.
                if meta.addr.port() == 0 {
                    continue;
                }
                let whole = limiter.allows(Network::of(meta.addr.ip()), now);
                let over = if whole { Over::Udp } else { Over::LimitedUdp };
                let Some(answer) = responder.answer(query, over) else { continue };
                let (destination, contents) = (meta.addr, answer.as_slice());
                let sent = Transmit { destination, contents, src_ip: meta.dst_ip, ecn: None, segment_size: None };
                // With a full buffer the answer is lost, and the resolver asks again. Waiting would delay all others.
                if let Err(error) = udp.try_io(Interest::WRITABLE, || datagrams.try_send(udp.into(), &sent)) {
                    debug!(from = %meta.addr, %error, "cannot answer a DNS query");
                }
            }
        }
    }
}

/// A connection and its network.
struct Place {
    network: Network,
    /// Since when it has had no query; `None` while it has one.
    idle: Arc<Mutex<Option<Instant>>>,
    task: AbortHandle,
}

async fn serve_tcp(responder: &Arc<Embedded>, listener: &TcpListener) {
    let mut connections = JoinSet::new();
    let mut places: HashMap<Id, Place> = HashMap::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = connections.join_next_with_id() => {
                // A connection that was closed for another has been removed already.
                places.remove(&ended.map_or_else(|error| error.id(), |(id, ())| id));
                continue;
            }
        };
        let (stream, from) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                warn!(%error, "cannot accept a DNS connection: {error}");
                sleep(PAUSE).await;
                continue;
            }
        };
        let network = Network::of(from.ip());
        if !has_room(&mut places, network) {
            debug!(%from, "no place for a DNS connection");
            continue;
        }
        let (responder, idle) = (responder.clone(), Arc::new(Mutex::new(Some(Instant::now()))));
        let since = idle.clone();
        let task = connections.spawn(async move {
            let done = timeout(LIFETIME, connection(&responder, stream, &since)).await;
            debug!(%from, ?done, "a DNS connection has ended");
        });
        places.insert(task.id(), Place { network, idle, task });
    }
}

/// Makes room for one more connection of a network, and returns false if there is none.
///
/// The connection that has been idle for the longest is closed, which a server may do at any time (RFC 7766, section
/// 6.2.3). So idle connections keep no others out.
fn has_room(places: &mut HashMap<Id, Place>, network: Network) -> bool {
    let is_full = places.values().filter(|place| place.network == network).count() >= MOST_CONNECTIONS_EACH;
    if !is_full && places.len() < MOST_CONNECTIONS {
        return true;
    }
    let since = |place: &Place| *place.idle.lock();
    let idle = places.iter().filter(|(_, place)| !is_full || place.network == network);
    let idle = idle.filter_map(|(id, place)| Some((since(place)?, *id)));
    let Some(place) = idle.min_by_key(|(since, _)| *since).and_then(|(_, id)| places.remove(&id)) else { return false };
    place.task.abort();
    true
}

/// Answers messages one after the other, each with its length in front (RFC 1035, section 4.2.2).
async fn connection(responder: &Embedded, mut stream: TcpStream, idle: &Mutex<Option<Instant>>) -> io::Result<()> {
    loop {
        *idle.lock() = Some(Instant::now());
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
        *idle.lock() = None;
        let Some(answer) = responder.answer(&query, Over::Tcp) else { return Ok(()) };
        // Length and message in one write (RFC 7766, section 8).
        let mut framed = Vec::with_capacity(answer.len() + 2);
        framed.extend_from_slice(&(answer.len() as u16).to_be_bytes());
        framed.extend_from_slice(&answer);
        timeout(IDLE, stream.write_all(&framed)).await??;
    }
}
