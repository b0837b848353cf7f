//! The UDP side of the public port: one QUIC endpoint for visitors (`h3`) and tunnels (`cok/1`). ALPN distinguishes
//! them.
//!
//! Several sockets on one port would break connection migration, so each address has one endpoint. A handshake costs
//! the daemon more than the peer, so handshakes are limited. If many are in progress from unvalidated addresses, every
//! further peer must validate its address first (RFC 9000, section 8.1).

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use cok_transport::quic::{self, LayeredSocket, Tuning};
use quinn::crypto::rustls::{HandshakeData, QuicServerConfig};
use quinn::{Endpoint, EndpointConfig, Incoming, ServerConfig};
use quinn_proto::HashedConnectionIdGenerator;
use tracing::{debug, info, warn};

use super::arrivals::refused;
use super::quic_floods::Floods;
use super::reset_key::ResetKey;
use super::{Listen, Live};
use crate::admission::rates::Turn;
use crate::admission::{ConnectionPermit, Full, Waiting};
use crate::drain::Port;
use crate::drain::detached::Connections;
use crate::drain::initials::{self, FirstPacket};
use crate::edge::{Arrival, http3};
use crate::observe::{HandshakeOutcome, Limit, Rate, Security};

/// HTTP/3's name in the TLS handshake (RFC 9114, section 3.1).
pub(super) const H3: &[u8] = b"h3";

/// The most handshakes in progress from unvalidated addresses. Beyond it, further peers get a Retry. An honest crowd,
/// as after a restart, pays one round trip for it.
const UNPROVED_HANDSHAKES: usize = 64;
/// The most handshakes in progress. Each holds some 50 KiB and still needs a few hundred microseconds of processor
/// time.
const MOST_HANDSHAKES: usize = 1024;
/// The most Initials that wait for a handshake, and the most bytes for each and for all of them.
const WAITING: (usize, u64, u64) = (1024, 64 * 1024, 16 * 1024 * 1024);
/// The pause between stateless resets: none. After a kill, the next daemon finds packets of all clients in the socket's
/// queue. A limit would leave all but one of them waiting. Each reset is smaller than the packet that caused it, so
/// resets neither amplify nor loop (RFC 9000, section 10.3.3).
const RESET_INTERVAL: Duration = Duration::ZERO;
/// A smaller buffer, in bytes, loses bursts while the process is busy.
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

/// Makes an endpoint from a socket, and logs what the kernel grants. It starts with the parked packets in `before`.
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
    quic::take_large_datagrams(&mut shared);
    let socket = initials::Socket::new(socket, before).context("cannot use the UDP socket")?;
    let socket = LayeredSocket::new(socket);
    let endpoint = Endpoint::new_with_abstract_socket(shared, Some(server), socket.clone(), quic::runtime());
    Ok(Port { endpoint: endpoint.context("cannot start QUIC")?, socket, connections: Arc::default() })
}

/// The QUIC settings of new connections, for visitors and tunnels.
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
        // After a change of network, a client keeps its session and a visitor its download.
        .migration(true)
        .max_incoming(WAITING.0)
        .incoming_buffer_size(WAITING.1)
        .incoming_buffer_size_total(WAITING.2);
    Ok(server)
}

/// Adapts the TLS settings of TCP to QUIC. 0-RTT stays off, since a request must not be replayed.
pub(super) fn for_quic(mut tls: rustls::ServerConfig) -> rustls::ServerConfig {
    tls.alpn_protocols = vec![H3.to_vec(), quic::ALPN.to_vec()];
    tls.max_early_data_size = 0;
    tls
}

/// Serves visitors and tunnels until the daemon stops.
pub(crate) async fn serve_quic(listen: Arc<Listen>, endpoint: Endpoint, connections: Arc<Connections>) {
    let handshakes = Arc::new(Handshakes::default());
    let _until_the_end = Floods::watch(connections.clone());
    while let Some(incoming) = endpoint.accept().await {
        begin(&listen, &handshakes, &connections, incoming);
    }
}

/// Accepts, refuses or validates a new peer.
fn begin(listen: &Arc<Listen>, handshakes: &Arc<Handshakes>, connections: &Arc<Connections>, incoming: Incoming) {
    let peer = incoming.remote_address();
    let proved = incoming.remote_address_validated();
    let rates = &listen.admission.rates;
    // Anyone can send from any address. So the rates of an address count only who has proved that it is theirs.
    if !proved
        && (handshakes.unproved.load(Ordering::Relaxed) >= UNPROVED_HANDSHAKES
            || rates.unproved_handshake(peer.ip()).is_err())
    {
        listen.metrics.arrivals.retries.inc();
        if incoming.retry().is_err() {
            debug!(%peer, "no Retry for a peer that has had one");
        }
        return;
    }
    if handshakes.all.load(Ordering::Relaxed) >= MOST_HANDSHAKES {
        return incoming.ignore();
    }
    let limit = listen.config().handshake_timeout;
    let wait = if proved {
        match rates.connection(peer.ip()).and_then(|()| rates.handshake(peer.ip(), limit / 2)) {
            Ok(wait) => wait,
            Err(error) => {
                listen.metrics.refusals.over(Rate::Handshakes);
                listen.metrics.arrivals.handshake(Security::Quic, HandshakeOutcome::Refused);
                debug!(%peer, "{error}");
                return incoming.refuse();
            }
        }
    } else {
        Duration::ZERO
    };
    let entry = match listen.admission.connections.acquire(peer.ip()) {
        Ok(permit) => Entry::Admitted(permit),
        Err(Full::InAll) => {
            let Some(waiting) = listen.admission.connections.wait(false) else {
                listen.metrics.refusals.beyond(Limit::Connections);
                return incoming.ignore();
            };
            Entry::Waits(waiting)
        }
        Err(full) => {
            refused(listen, peer, full);
            return incoming.refuse();
        }
    };
    let under_way = handshakes.count(proved);
    listen.metrics.arrivals.connections.inc();
    let (task, connections) = (listen.clone(), connections.clone());
    let (present, fresh) = (listen.drain.visitor(), listen.drain.requests.fresh());
    listen.drain.tasks.spawn(async move {
        let listen = task;
        let entered = tokio::select! {
            entered = Box::pin(enter(&listen, peer.ip(), entry, wait)) => entered,
            // The next daemon gets the packet when the peer sends it again.
            () = listen.drain.first_request() => return incoming.ignore(),
        };
        let (permit, turn) = match entered {
            Ok(entered) => entered,
            Err(full) => {
                refused(&listen, peer, full);
                return incoming.refuse();
            }
        };
        let arrival = Arrival { permit, present, fresh };
        let connecting = incoming.accept();
        drop(turn);
        let count = |outcome| listen.metrics.arrivals.handshake(Security::Quic, outcome);
        let connecting = match connecting {
            Ok(connecting) => connecting,
            Err(error) => {
                count(HandshakeOutcome::Failed);
                return debug!(%peer, %error, "QUIC handshake failed");
            }
        };
        let connected = tokio::select! {
            () = arrival.permit.member().is_shed() => return,
            connected = tokio::time::timeout(limit, connecting) => connected,
            () = listen.drain.first_request() => return,
        };
        let connection = match connected {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => {
                count(HandshakeOutcome::Failed);
                return debug!(%peer, %error, "QUIC handshake failed");
            }
            Err(_) => {
                count(HandshakeOutcome::TimedOut);
                return debug!(%peer, "QUIC handshake took too long");
            }
        };
        count(HandshakeOutcome::Done);
        drop(under_way);
        let _member = connections.insert(connection.clone());
        let data = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
        if data.and_then(|data| data.protocol).as_deref() == Some(quic::ALPN) {
            let Arrival { permit, present, fresh } = arrival;
            // A client does not count as a visitor.
            drop((present, fresh));
            listen.tunnels.over_quic(connection, permit).await;
        } else {
            // Boxed, so that a tunnel does not hold as much memory as a visitor needs.
            Box::pin(http3::serve(listen.edge.clone(), connection, arrival)).await;
        }
    });
}

/// A handshake that may begin, or has to wait.
enum Entry {
    Admitted(ConnectionPermit),
    /// It waits until idle connections make room.
    Waits(Waiting),
}

/// Waits for room, for the rate of the address, and for a turn.
async fn enter(
    listen: &Listen,
    address: IpAddr,
    entry: Entry,
    wait: Duration,
) -> Result<(ConnectionPermit, Turn), Full> {
    let connections = &listen.admission.connections;
    let permit = match entry {
        Entry::Admitted(permit) => permit,
        Entry::Waits(waiting) => {
            let mut permit = waiting.room().await?;
            permit.count(connections, address)?;
            permit
        }
    };
    if !wait.is_zero() {
        tokio::time::sleep(wait).await;
    }
    Ok((permit, listen.admission.rates.turn(address).await))
}

/// The handshakes in progress.
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
