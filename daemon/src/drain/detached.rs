//! Detached peers: a daemon that stops gives up its UDP port, and keeps serving the peers it has.
//!
//! The next daemon needs the port at once, while this one may still serve downloads for half a minute. So each peer
//! gets its own connected socket. The kernel delivers a peer's packets to its connected socket, and all others to the
//! process that owns the port. If such a socket would block, its packet is dropped, and QUIC repairs the loss.

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use cok_transport::quic::{self, LayeredSocket, UdpLayer};
use parking_lot::Mutex;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Connection, Endpoint, Runtime as _, TokioRuntime};
use slab::Slab;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tracing::{debug, warn};

/// The most detached peers. Each costs a file descriptor. Further peers lose their connections.
const MOST_PEERS: usize = 4096;

/// The most datagrams that wait to be read, over all peers. Further ones stay in the kernel, which drops what does not
/// fit.
const QUEUE: usize = 256;
/// The longest datagram, or batch of datagrams, that the kernel returns, in bytes.
const LONGEST: usize = 65_535;

/// The connections of an endpoint.
#[derive(Debug, Default)]
pub(crate) struct Connections(Mutex<Slab<Connection>>);

/// A guard that keeps a connection registered with its endpoint.
#[derive(Debug)]
pub(crate) struct Member {
    connections: Arc<Connections>,
    index: usize,
}

impl Connections {
    /// Registers a connection until the guard is dropped.
    pub(crate) fn insert(self: &Arc<Self>, connection: Connection) -> Member {
        let index = self.0.lock().insert(connection);
        Member { connections: self.clone(), index }
    }

    /// All that are open.
    pub(crate) fn open(&self) -> Vec<Connection> {
        let connections = self.0.lock();
        let open = connections.iter().filter(|(_, connection)| connection.close_reason().is_none());
        open.map(|(_, connection)| connection.clone()).collect()
    }

    /// Each peer's address, with the local address that it uses.
    fn peers(&self) -> HashSet<(SocketAddr, Option<IpAddr>)> {
        let connections = self.0.lock();
        let open = connections.iter().filter(|(_, connection)| connection.close_reason().is_none());
        open.map(|(_, connection)| (connection.remote_address(), connection.local_ip())).collect()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.connections.0.lock().try_remove(self.index);
    }
}

/// Gives the port to the next process, and keeps serving the peers of these connections.
pub(super) fn detach(endpoint: &Endpoint, connections: &Connections) -> io::Result<()> {
    let local = endpoint.local_addr()?;
    let mut peers = connections.peers();
    if peers.len() > MOST_PEERS {
        let count = peers.len();
        warn!(peers = count, "{count} QUIC peers are too many to go on with all; {MOST_PEERS} are kept");
        peers = peers.into_iter().take(MOST_PEERS).collect();
    }
    let mut sockets = HashMap::with_capacity(peers.len());
    for (peer, ip) in peers {
        match connected(local, ip, peer) {
            Ok(socket) => {
                sockets.insert(peer, socket);
            }
            Err(error) => debug!(%peer, %error, "cannot go on with a QUIC peer"),
        }
    }
    let sockets = quic::split_gro(LayeredSocket::new(PeerSockets::new(local, sockets)));
    // The endpoint also keeps its previous socket, for late packets. The second call replaces that one, too.
    endpoint.rebind_abstract(sockets.clone())?;
    endpoint.rebind_abstract(sockets)
}

fn connected(local: SocketAddr, ip: Option<IpAddr>, peer: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    // An IPv6 wildcard socket sees IPv4 peers as mapped addresses. A socket that replaces it must do the same.
    let at = match ip {
        Some(IpAddr::V4(ip)) if local.is_ipv6() => IpAddr::V6(ip.to_ipv6_mapped()),
        Some(ip) => ip,
        None => local.ip(),
    };
    let socket = quic::bind(SocketAddr::new(at, local.port()))?;
    socket.connect(peer)?;
    TokioRuntime.wrap_udp_socket(socket)
}

/// The sockets of all peers as one. The work for each packet does not depend on the number of peers. A map finds the
/// socket to send on, and a task for each socket puts received datagrams into one queue.
#[derive(Debug)]
struct PeerSockets {
    local: SocketAddr,
    sockets: HashMap<SocketAddr, Arc<dyn AsyncUdpSocket>>,
    received: Mutex<mpsc::Receiver<Datagram>>,
    /// Receives until it is dropped.
    _receivers: JoinSet<()>,
}

/// A datagram, or a batch of datagrams of equal length, from one peer.
#[derive(Debug)]
struct Datagram {
    meta: RecvMeta,
    data: Vec<u8>,
}

impl PeerSockets {
    fn new(local: SocketAddr, sockets: HashMap<SocketAddr, Arc<dyn AsyncUdpSocket>>) -> Self {
        let (sender, received) = mpsc::channel(QUEUE);
        let (mut receivers, buffer) = (JoinSet::new(), Arc::new(Mutex::new(vec![0; LONGEST])));
        for socket in sockets.values() {
            receivers.spawn(receive(socket.clone(), buffer.clone(), sender.clone()));
        }
        Self { local, sockets, received: Mutex::new(received), _receivers: receivers }
    }
}

/// Moves datagrams from one socket to the queue until the queue is closed. All tasks share one buffer, which is in use
/// only within a poll.
async fn receive(socket: Arc<dyn AsyncUdpSocket>, buffer: Arc<Mutex<Vec<u8>>>, queue: mpsc::Sender<Datagram>) {
    loop {
        let received = poll_fn(|cx| {
            let (mut buffer, mut meta) = (buffer.lock(), [RecvMeta::default()]);
            let count = ready!(socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buffer)], &mut meta))?;
            let [meta] = meta;
            let data = buffer.get(..meta.len).unwrap_or_default().to_vec();
            Poll::Ready(io::Result::Ok((count > 0).then_some(Datagram { meta, data })))
        });
        match received.await {
            Ok(None) => {}
            Ok(Some(datagram)) => {
                if queue.send(datagram).await.is_err() {
                    return;
                }
            }
            // The peer's port is closed. Its connection times out.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(error) => return debug!(%error, "a QUIC peer's socket failed: {error}"),
        }
    }
}

impl UdpLayer for PeerSockets {
    fn below(&self) -> Option<&Arc<dyn AsyncUdpSocket>> {
        self.sockets.values().next()
    }

    /// Packets that can't be sent are dropped, so no sender waits.
    fn sender_waits(&self) -> bool {
        false
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some(socket) = self.sockets.get(&transmit.destination) else { return Ok(()) };
        match socket.try_send(transmit) {
            // The peer's port is closed; the connection times out.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionRefused) => {
                Ok(())
            }
            sent => sent,
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        buffers: &mut [IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let mut received = self.received.lock();
        let mut count = 0;
        for (buffer, meta) in buffers.iter_mut().zip(metas) {
            match received.poll_recv(cx) {
                Poll::Ready(Some(datagram)) => {
                    let length = datagram.data.len().min(buffer.len());
                    buffer[..length].copy_from_slice(&datagram.data[..length]);
                    *meta = RecvMeta { len: length, ..datagram.meta };
                    count += 1;
                }
                Poll::Ready(None) | Poll::Pending => break,
            }
        }
        if count == 0 { Poll::Pending } else { Poll::Ready(Ok(count)) }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}
