//! How a client gets a session over QUIC: handshake, echo probe, Connect. Which address to dial is the caller's choice.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use cok_proto::{Connect, ConnectAck, Frame, frame};
use parking_lot::Mutex;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, Connection, ConnectionError, Endpoint, EndpointConfig};
use tracing::debug;

use super::control::{Control, close_reason};
use super::liveness::PathLiveness;
use super::runtime::runtime;
use super::settings::{self, Tuning};
use super::{ALPN, session, socket};
use crate::{Config, HandshakeError, Transport};

/// The first error code that stands for a TLS alert (RFC 9000, section 20.1).
const CRYPTO_ERROR: u64 = 0x100;

/// Dials daemons from one UDP socket. The socket's buffers cost megabytes, so all tunnels of a process share one
/// dialer; a clone shares it too. The first dial binds the socket.
#[derive(Clone, Debug)]
pub struct Dialer {
    config: ClientConfig,
    endpoint: Arc<Mutex<Option<Endpoint>>>,
}

/// Why a dial failed.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The TLS settings cannot be used for QUIC.
    #[error("TLS for QUIC: {0}")]
    Tls(String),
    /// No UDP socket could be opened.
    #[error("cannot open a UDP socket: {0}")]
    Socket(#[from] io::Error),
    /// The address or name cannot be dialled.
    #[error("cannot dial: {0}")]
    Dial(#[from] quinn::ConnectError),
    /// TLS ended the handshake, on either side.
    #[error("QUIC handshake failed: {why}")]
    Alert {
        /// The alert (RFC 8446, section 6).
        code: u8,
        /// The peer ended it.
        by_peer: bool,
        /// The library's description.
        why: String,
    },
    /// The handshake failed otherwise.
    #[error("QUIC handshake failed: {0}")]
    Handshake(quinn::ConnectionError),
    /// The peer did not answer in time.
    #[error("no answer over UDP within {} ms", .0.as_millis())]
    TimedOut(Duration),
}

impl From<ConnectionError> for DialError {
    fn from(error: ConnectionError) -> Self {
        let (code, by_peer, why) = match &error {
            ConnectionError::TransportError(ours) => (ours.code, false, ours.to_string()),
            ConnectionError::ConnectionClosed(theirs) => (theirs.error_code, true, theirs.to_string()),
            _ => return Self::Handshake(error),
        };
        // A byte above this is TLS's (RFC 9001, section 4.8).
        match u64::from(code).checked_sub(CRYPTO_ERROR).map(u8::try_from) {
            Some(Ok(code)) => Self::Alert { code, by_peer, why },
            _ => Self::Handshake(error),
        }
    }
}

impl Dialer {
    /// A dialer with the trust roots of `tls`.
    pub fn new(tls: &rustls::ClientConfig, tuning: &Tuning) -> Result<Self, DialError> {
        let crypto = QuicClientConfig::try_from(client_tls(tls)).map_err(|error| DialError::Tls(error.to_string()))?;
        let mut config = ClientConfig::new(Arc::new(crypto));
        config.transport_config(settings::client(tuning));
        Ok(Self { config, endpoint: Arc::default() })
    }

    /// Connects to one address, which must show a certificate for `server_name`, at most for `limit`.
    pub async fn dial(&self, address: SocketAddr, server_name: &str, limit: Duration) -> Result<Link, DialError> {
        let connecting = self.endpoint()?.connect_with(self.config.clone(), address, server_name)?;
        match tokio::time::timeout(limit, connecting).await {
            Ok(connected) => Ok(Link { connection: connected?, control: None }),
            Err(_) => Err(DialError::TimedOut(limit)),
        }
    }

    /// Uses another socket from the next dial on; sessions keep theirs. A stopping daemon keeps serving the addresses
    /// of its sessions, so a dial to its successor must come from another one.
    pub fn renew(&self) {
        *self.endpoint.lock() = None;
    }

    /// Waits until connections that were closed have told their peers, at most for `limit`. A process that exits before
    /// leaves its daemon to find out by silence.
    pub async fn say_goodbye(&self, limit: Duration) {
        let endpoint = self.endpoint.lock().clone();
        if let Some(endpoint) = endpoint {
            let _late = tokio::time::timeout(limit, endpoint.wait_idle()).await;
        }
    }

    fn endpoint(&self) -> Result<Endpoint, DialError> {
        let mut slot = self.endpoint.lock();
        if let Some(endpoint) = &*slot {
            return Ok(endpoint.clone());
        }
        let socket = socket::bind_any()?;
        let buffers = socket::enlarge(&socket)?;
        let (socket, _offload) = socket::wrap(socket)?;
        let mut config = EndpointConfig::default();
        settings::take_large_datagrams(&mut config);
        let endpoint = Endpoint::new_with_abstract_socket(config, None, socket, runtime())?;
        debug!(receive_buffer = buffers.receive, send_buffer = buffers.send, "UDP socket opened");
        *slot = Some(endpoint.clone());
        Ok(endpoint)
    }
}

/// A client's TLS settings for QUIC, which needs TLS 1.3 (RFC 9001, section 4.2). Early data (0-RTT) is off, because a
/// session's first frame must not be replayed.
pub fn client_tls(tls: &rustls::ClientConfig) -> rustls::ClientConfig {
    let mut tls = tls.clone();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.enable_early_data = false;
    tls
}

/// A connection without a session. It is closed when dropped.
#[derive(Debug)]
pub struct Link {
    connection: Connection,
    control: Option<Control>,
}

/// A client's new session.
#[derive(Debug)]
pub struct Session {
    /// The session.
    pub transport: Arc<dyn Transport>,
    /// What the daemon granted.
    pub ack: ConnectAck,
    /// Reports when its path turns bad.
    pub path: PathLiveness,
}

impl Link {
    /// Sends a Ping and waits for its Pong, at most for `limit`: some paths let a handshake through and nothing else.
    /// Returns the measured round trip.
    pub async fn echo(&mut self, limit: Duration) -> Result<Duration, HandshakeError> {
        let connection = self.connection.clone();
        let echoed = async {
            let control = self.control().await?;
            let began = Instant::now();
            let mut ping = BytesMut::new();
            frame::put_ping(&mut ping, [0; 8]);
            control.send(&connection, &ping).await?;
            match control.frame(&connection).await? {
                Frame::Pong(_) => Ok(began.elapsed()),
                Frame::Error(error) => Err(cok_proto::SessionError::Peer(error).into()),
                _ => Err(crate::CloseReason::Lost("the peer answered a Ping with another frame".to_owned())),
            }
        };
        match tokio::time::timeout(limit, echoed).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(HandshakeError::TimedOut(limit)),
        }
    }

    /// The bytes of the largest datagram that is known to pass whole. It grows while the connection looks for more.
    pub fn datagram(&self) -> u16 {
        self.connection.stats().path.current_mtu
    }

    /// Asks for a session and waits for the answer, at most for `limit`. The tunnels `moving` are those of the session
    /// that it replaces.
    pub async fn connect(
        mut self,
        config: Config,
        connect: &Connect,
        moving: &[u32],
        limit: Duration,
    ) -> Result<Session, HandshakeError> {
        let granted = async {
            self.control().await?;
            let Some(control) = self.control.take() else {
                return Err(close_reason(&self.connection));
            };
            session::connect(self.connection.clone(), control, config, connect, moving).await
        };
        let (shared, transport, ack) =
            tokio::time::timeout(limit, granted).await.map_err(|_| HandshakeError::TimedOut(limit))??;
        Ok(Session { transport, ack, path: PathLiveness::new(shared) })
    }

    async fn control(&mut self) -> Result<&mut Control, crate::CloseReason> {
        let control = if let Some(control) = self.control.take() {
            control
        } else {
            let opened = self.connection.open_bi().await;
            let (send, recv) = opened.map_err(|_| close_reason(&self.connection))?;
            Control::new(send, recv)
        };
        Ok(self.control.insert(control))
    }
}
