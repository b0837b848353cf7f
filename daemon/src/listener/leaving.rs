//! The UDP side of a daemon that leaves: it goes on with the peers that it still serves, and lets go of the port.
//!
//! The next daemon wants the port at once, while this one may still have half a minute of downloads to finish. So each
//! peer gets a socket of its own, connected to it: the kernel gives a connected socket what comes from its peer, and
//! everything else to whoever has the port. Where such a socket would block, its packet is dropped, which QUIC repairs.

use std::collections::HashSet;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use cok_transport::quic;
use quinn::udp::{RecvMeta, Transmit};
use quinn::{AsyncUdpSocket, Connection, Endpoint, Runtime as _, TokioRuntime, UdpPoller};
use slab::Slab;
use tracing::{debug, warn};

/// Each peer costs a file descriptor; whoever is beyond this loses its connection, as all did without this.
const MOST_PEERS: usize = 4096;

/// The connections of an endpoint.
#[derive(Debug, Default)]
pub struct Connections(Mutex<Slab<Connection>>);

/// Keeps a connection among those of its endpoint.
#[derive(Debug)]
pub struct Member {
    connections: Arc<Connections>,
    index: usize,
}

impl Connections {
    /// Takes a connection in for as long as the guard lives.
    pub fn insert(self: &Arc<Self>, connection: Connection) -> Member {
        let index = self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(connection);
        Member { connections: self.clone(), index }
    }

    /// Where each is, and at which of our addresses it arrived.
    fn peers(&self) -> HashSet<(SocketAddr, Option<IpAddr>)> {
        let connections = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let open = connections.iter().filter(|(_, connection)| connection.close_reason().is_none());
        open.map(|(_, connection)| (connection.remote_address(), connection.local_ip())).collect()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.connections.0.lock().unwrap_or_else(PoisonError::into_inner).try_remove(self.index);
    }
}

/// Leaves the port to whoever comes next, and goes on with the peers of these connections.
pub fn leave(endpoint: &Endpoint, connections: &Connections) -> io::Result<()> {
    let local = endpoint.local_addr()?;
    let mut peers = connections.peers();
    if peers.len() > MOST_PEERS {
        warn!(peers = peers.len(), "too many QUIC peers to go on with all; {MOST_PEERS} are kept");
        peers = peers.into_iter().take(MOST_PEERS).collect();
    }
    let mut sockets = Vec::with_capacity(peers.len());
    for (peer, ip) in peers {
        match connected(local, ip, peer) {
            Ok(socket) => sockets.push((peer, socket)),
            Err(error) => debug!(%peer, %error, "cannot go on with a QUIC peer"),
        }
    }
    let sockets = quic::split_gro(Arc::new(PeerSockets { local, sockets }));
    // The endpoint keeps the socket before the last, in case that something still comes there.
    endpoint.rebind_abstract(sockets.clone())?;
    endpoint.rebind_abstract(sockets)
}

fn connected(local: SocketAddr, ip: Option<IpAddr>, peer: SocketAddr) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    // An IPv6 wildcard sees IPv4 as mapped addresses, and so must a socket that takes its place.
    let at = match ip {
        Some(IpAddr::V4(ip)) if local.is_ipv6() => IpAddr::V6(ip.to_ipv6_mapped()),
        Some(ip) => ip,
        None => local.ip(),
    };
    let socket = quic::bind(SocketAddr::new(at, local.port()))?;
    socket.connect(peer)?;
    TokioRuntime.wrap_udp_socket(socket)
}

/// A socket for each peer, as one.
#[derive(Debug)]
struct PeerSockets {
    local: SocketAddr,
    sockets: Vec<(SocketAddr, Arc<dyn AsyncUdpSocket>)>,
}

impl AsyncUdpSocket for PeerSockets {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(AlwaysWritable)
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        let Some((_, socket)) = self.sockets.iter().find(|(peer, _)| *peer == transmit.destination) else {
            return Ok(());
        };
        match socket.try_send(transmit) {
            // Nobody is there any more; the connection times out.
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
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        for (_, socket) in &self.sockets {
            match socket.poll_recv(cx, buffers, meta) {
                // The peer's host says that nobody listens there any more; that is no reason to end the others.
                Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    cx.waker().wake_by_ref();
                }
                Poll::Ready(result) => return Poll::Ready(result),
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn max_transmit_segments(&self) -> usize {
        self.sockets.iter().map(|(_, socket)| socket.max_transmit_segments()).min().unwrap_or(1)
    }

    fn may_fragment(&self) -> bool {
        self.sockets.iter().any(|(_, socket)| socket.may_fragment())
    }
}

/// What can't be sent is dropped, so nobody ever waits.
#[derive(Debug)]
struct AlwaysWritable;

impl UdpPoller for AlwaysWritable {
    fn poll_writable(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
