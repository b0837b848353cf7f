//! The UDP side of the public port: one QUIC endpoint for visitors (`h3`) and tunnels (`cok/1`), told apart by ALPN.
//!
//! Several sockets on one port would break connection migration, so there is one endpoint for each address. A handshake
//! costs the daemon more than it costs a peer to begin, so handshakes are bounded. Once many are under way from unproved
//! addresses, every further peer has to prove its address first (RFC 9000, section 8.1).

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use cok_transport::quic::{self, LayeredSocket, Tuning};
use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use quinn::{Endpoint, EndpointConfig, Incoming, ServerConfig};
use quinn_proto::HashedConnectionIdGenerator;
use tracing::{debug, info, warn};

use super::reset_key::ResetKey;
use super::{Listen, Live};
use crate::drain::Port;
use crate::drain::detached::Connections;
use crate::drain::initials::{self, FirstPacket};
use crate::edge::{Arrival, http3};

/// HTTP/3's name in the TLS handshake (RFC 9114, section 3.1).
const H3: &[u8] = b"h3";

/// Handshakes under way from unproved addresses, from which on every further address has to be proved by a Retry. An
/// honest crowd, as after a restart, pays a round trip for it.
const UNPROVED_HANDSHAKES: usize = 64;
/// Handshakes under way at all. Each holds some 50 KiB, and its few hundred microseconds of processor time are to come.
const MOST_HANDSHAKES: usize = 1024;
/// First packets that wait to be looked at, and what they may hold each and all together.
const WAITING: (usize, u64, u64) = (1024, 64 * 1024, 16 * 1024 * 1024);
/// Stateless resets are not held back. After a kill, the next daemon finds packets of all clients in the socket's queue.
/// A limit would leave all of them but one waiting. Each reset is smaller than the packet that caused it, so resets
/// neither amplify nor loop (RFC 9000, section 10.3.3).
const RESET_INTERVAL: Duration = Duration::ZERO;
/// Below this much, bursts are lost while the process is busy.
const SMALL_BUFFER: usize = 1024 * 1024;

/// Binds a UDP socket. Returns `None` and logs if UDP is unavailable: everything works over TCP. The error names the
/// address.
pub(super) fn bind(address: SocketAddr) -> anyhow::Result<Option<UdpSocket>> {
    match quic::bind(address) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
            anyhow::bail!(
                "cannot listen on {address} (UDP): {error}; another program has it, choose another address or stop \
                 that program"
            )
        }
        Err(error) => {
            warn!(%address, %error, "no UDP at {address}, so visitors get no HTTP/3, and tunnels no QUIC: {error}");
            Ok(None)
        }
    }
}

/// Makes an endpoint of a socket, and says once what the kernel gives it. It begins with the packets that came `before`.
pub(super) fn port(
    socket: UdpSocket,
    server: ServerConfig,
    reset_key: &ResetKey,
    before: &[FirstPacket],
) -> anyhow::Result<Port> {
    let address = socket.local_addr()?;
    let buffers = quic::enlarge(&socket).context("cannot look at the UDP socket")?;
    let (socket, offload) = quic::wrap(socket).context("cannot use the UDP socket")?;
    let (receive, send) = (buffers.receive, buffers.send);
    info!(
        event = "udp", %address, receive_buffer = receive, send_buffer = send,
        gso_segments = offload.send, gro_segments = offload.receive,
        "QUIC on {address} has buffers of {receive} bytes to receive and {send} to send; {} and {} datagrams pass at once",
        offload.receive, offload.send
    );
    if buffers.receive < SMALL_BUFFER {
        warn!(
            receive_buffer = receive,
            "the UDP receive buffer of {receive} bytes is small, so bursts may be lost; raise net.core.rmem_max to {}",
            quic::BUFFER
        );
    }
    if offload.send == 1 {
        warn!("the kernel has no UDP segmentation offload; QUIC costs about three times the processor time");
    }
    let mut shared = EndpointConfig::new(reset_key.reset_key());
    let key = reset_key.connection_id_key();
    shared
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(key)))
        .min_reset_interval(RESET_INTERVAL);
    let socket = initials::Socket::new(socket, before).context("cannot use the UDP socket")?;
    let socket = LayeredSocket::new(socket);
    let runtime = Arc::new(quinn::TokioRuntime);
    let endpoint = Endpoint::new_with_abstract_socket(shared, Some(server), socket.clone(), runtime);
    Ok(Port { endpoint: endpoint.context("cannot start QUIC")?, socket, connections: Arc::default() })
}

/// What connections of visitors and tunnels begin with.
pub(super) fn server_config(
    tuning: &Tuning,
    live: Live,
    tls: rustls::ServerConfig,
    reset_key: &ResetKey,
) -> anyhow::Result<ServerConfig> {
    let crypto = QuicServerConfig::try_from(for_quic(tls)).context("TLS for QUIC")?;
    let mut server = ServerConfig::new(Arc::new(crypto), reset_key.token_key());
    server
        .transport_config(quic::server_transport(tuning, live.initial_window, live.header_timeout))
        // A client that changes its network keeps its session, and a visitor its download.
        .migration(true)
        .max_incoming(WAITING.0)
        .incoming_buffer_size(WAITING.1)
        .incoming_buffer_size_total(WAITING.2);
    Ok(server)
}

/// The TLS settings of the TCP side, made fit for QUIC. 0-RTT stays off: a request must not be replayed.
pub(super) fn for_quic(mut tls: rustls::ServerConfig) -> rustls::ServerConfig {
    tls.alpn_protocols = vec![H3.to_vec(), quic::ALPN.to_vec()];
    tls.max_early_data_size = 0;
    tls
}

/// Serves visitors and tunnels until the daemon stops.
pub(crate) async fn serve_quic(listen: Arc<Listen>, endpoint: Endpoint, connections: Arc<Connections>) {
    let handshakes = Arc::new(Handshakes::default());
    while let Some(incoming) = endpoint.accept().await {
        begin(&listen, &handshakes, &connections, incoming);
    }
}

/// Decides what becomes of a peer's first packet.
fn begin(listen: &Arc<Listen>, handshakes: &Arc<Handshakes>, connections: &Arc<Connections>, incoming: Incoming) {
    let peer = incoming.remote_address();
    let proved = incoming.remote_address_validated();
    if !proved && handshakes.unproved.load(Ordering::Relaxed) >= UNPROVED_HANDSHAKES {
        listen.metrics.retries.inc();
        if incoming.retry().is_err() {
            debug!(%peer, "no Retry for a peer that has had one");
        }
        return;
    }
    if handshakes.all.load(Ordering::Relaxed) >= MOST_HANDSHAKES {
        return incoming.ignore();
    }
    let permit = match listen.admission.connections.acquire(peer.ip()) {
        Ok(permit) => permit,
        Err(full) => {
            debug!(%peer, "{full}");
            return incoming.refuse();
        }
    };
    let under_way = handshakes.count(proved);
    let connecting = match incoming.accept() {
        Ok(connecting) => connecting,
        Err(error) => return debug!(%peer, %error, "QUIC handshake failed"),
    };
    listen.metrics.connections.inc();
    let (task, connections) = (listen.clone(), connections.clone());
    let (present, fresh) = (listen.drain.visitor(), listen.drain.requests.fresh());
    let arrival = Arrival { permit, present, fresh };
    listen.drain.tasks.spawn(async move {
        let listen = task;
        let limit = listen.config().handshake_timeout;
        let connected = tokio::select! {
            connected = tokio::time::timeout(limit, connecting) => connected,
            () = listen.drain.first_request() => return,
        };
        let connection = match connected {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return debug!(%peer, %error, "QUIC handshake failed"),
            Err(_) => return debug!(%peer, "QUIC handshake took too long"),
        };
        drop(under_way);
        let _member = connections.insert(connection.clone());
        let data = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
        if data.and_then(|data| data.protocol).as_deref() == Some(quic::ALPN) {
            let Arrival { permit, present, fresh } = arrival;
            // A client is no visitor.
            drop((present, fresh));
            listen.tunnels.over_quic(connection, permit).await;
        } else {
            // In a box, so that a tunnel does not hold as much memory as a visitor needs.
            Box::pin(http3::serve(listen.edge.clone(), connection, arrival)).await;
        }
    });
}

/// Handshakes under way.
#[derive(Debug, Default)]
struct Handshakes {
    all: AtomicUsize,
    unproved: AtomicUsize,
}

impl Handshakes {
    fn count(self: &Arc<Self>, proved: bool) -> UnderWay {
        self.all.fetch_add(1, Ordering::Relaxed);
        if !proved {
            self.unproved.fetch_add(1, Ordering::Relaxed);
        }
        UnderWay { handshakes: self.clone(), proved }
    }
}

struct UnderWay {
    handshakes: Arc<Handshakes>,
    proved: bool,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.handshakes.all.fetch_sub(1, Ordering::Relaxed);
        if !self.proved {
            self.handshakes.unproved.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
