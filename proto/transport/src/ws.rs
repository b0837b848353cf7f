//! A session over one WebSocket (RFC 6455), on any byte stream. The caller does the stream's TLS and the daemon's HTTP
//! upgrade.

mod counted;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use cok_proto::budget::Spent;
use cok_proto::frame::MAX_MESSAGE;
use cok_proto::{Connect, ConnectAck, ProtocolError, SessionError};
use futures_core::Stream;
use futures_sink::Sink;
use http::header::VIA;
use http::{HeaderValue, Request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, client::IntoClientRequest};

use self::counted::Counted;
use crate::muxed::{self, Pipe};
use crate::{CloseReason, Config, Handshake, HandshakeError, Transport};

/// The path on the base domain to which tunnels connect.
pub const PATH: &str = "/_cok/tunnel";
/// The WebSocket subprotocol (RFC 6455, section 1.9).
pub const SUBPROTOCOL: &str = "cok.v1";

/// Size in bytes of a socket's read buffer. Tungstenite zeroes it before every read and keeps it while idle, so each
/// tunnel pays its whole size. TLS has a record's bytes in memory already: pieces of 4 KiB were as fast as pieces of 16
/// KiB.
const READ_BUFFER: usize = 4 * 1024;
/// Fill level in bytes at which tungstenite flushes its write buffer by itself.
const WRITE_BUFFER: usize = 64 * 1024;
/// Hard limit of the write buffer in bytes. It is above what one burst can leave unwritten.
const MAX_WRITE_BUFFER: usize = WRITE_BUFFER + 4 * MAX_MESSAGE;

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(MAX_WRITE_BUFFER)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

/// The `Sec-WebSocket-Accept` that answers a `Sec-WebSocket-Key` (RFC 6455, section 4.2.2).
pub fn accept_key(key: &[u8]) -> String {
    tungstenite::handshake::derive_accept_key(key)
}

/// Tells a count that grows with what a stream carries in either direction; 0 if that is not known.
pub type Progress<S> = fn(&S) -> u64;

/// Daemon: waits on an upgraded connection for the client's Connect, at most for `limit`. `read` is what was read from
/// the connection behind the upgrade.
pub async fn accept<S>(
    stream: S,
    read: Vec<u8>,
    progress: Progress<S>,
    config: Config,
    limit: Duration,
) -> Result<Box<dyn Handshake>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let stream = Counted::of_client(stream, &read);
    let socket = WebSocketStream::from_partially_read(stream, read, Role::Server, Some(self::config())).await;
    muxed::accept("ws", WsPipe { socket, progress }, config, limit).await
}

/// Client: upgrades `stream`, which must lead to `authority`, at most for `limit`. The daemon does not know the client
/// yet, so a dropped socket leaves no trace.
pub async fn open<S>(stream: S, authority: &str, limit: Duration) -> Result<Socket<S>, UpgradeError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let stream = Counted::of_daemon(stream);
    let upgrade = tokio_tungstenite::client_async_with_config(request(authority)?, stream, Some(config()));
    let (socket, response) = match tokio::time::timeout(limit, upgrade).await {
        Err(_) => return Err(UpgradeError::TimedOut(limit)),
        Ok(Err(tungstenite::Error::Http(response))) => {
            let via = response.headers().get(VIA).map(|via| String::from_utf8_lossy(via.as_bytes()).into_owned());
            return Err(UpgradeError::Status { status: response.status(), via });
        }
        Ok(Err(error)) => return Err(UpgradeError::Broken(error.to_string())),
        Ok(Ok(upgraded)) => upgraded,
    };
    if response.headers().get("sec-websocket-protocol").map(HeaderValue::as_bytes) != Some(SUBPROTOCOL.as_bytes()) {
        return Err(UpgradeError::Broken(format!("the server does not speak {SUBPROTOCOL}")));
    }
    Ok(Socket(socket))
}

/// Client: asks for a session on an upgraded connection and waits for the answer, at most for `limit`. The tunnels
/// `moving` are those of the session that it replaces.
pub async fn connect<S>(
    socket: Socket<S>,
    config: Config,
    connect: &Connect,
    moving: &[u32],
    limit: Duration,
) -> Result<(Arc<dyn Transport>, ConnectAck), HandshakeError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    muxed::connect("ws", WsPipe { socket: socket.0, progress: |_| 0 }, config, connect, moving, limit).await
}

/// Client: an upgraded connection without a session.
#[derive(Debug)]
pub struct Socket<S>(WebSocketStream<Counted<S>>);

/// Why a connection was not upgraded.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// The server answered with this status instead of an upgrade.
    #[error("the server answered {status} instead of opening a tunnel; is it a cokd?")]
    Status {
        /// The status.
        status: http::StatusCode,
        /// The proxies on the way, as they name themselves (RFC 9110, section 7.6.3).
        via: Option<String>,
    },
    /// The server took too long.
    #[error("no answer to the WebSocket upgrade within {} s", .0.as_secs())]
    TimedOut(Duration),
    /// The answer breaks the WebSocket protocol, or the connection broke.
    #[error("WebSocket upgrade failed: {0}")]
    Broken(String),
}

fn request(authority: &str) -> Result<Request<()>, UpgradeError> {
    let mut request = format!("wss://{authority}{PATH}")
        .into_client_request()
        .map_err(|error| UpgradeError::Broken(error.to_string()))?;
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
    Ok(request)
}

struct WsPipe<S> {
    socket: WebSocketStream<Counted<S>>,
    progress: Progress<S>,
}

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Pipe for WsPipe<S> {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, CloseReason>>> {
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut self.socket).poll_next(cx)) {
                None | Some(Ok(Message::Close(_))) => None,
                Some(Ok(Message::Binary(message))) => Some(Ok(message)),
                // tungstenite answers pings by itself.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Text(_))) => Some(Err(CloseReason::Lost("the peer sent a text message".to_owned()))),
                Some(Err(_)) if self.socket.get_ref().is_spent() => Some(Err(spent())),
                Some(Err(error)) => Some(Err(lost(&error))),
            });
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CloseReason>> {
        Pin::new(&mut self.socket).poll_ready(cx).map_err(|error| lost(&error))
    }

    fn start_send(&mut self, message: Bytes) -> Result<(), CloseReason> {
        Pin::new(&mut self.socket).start_send(Message::Binary(message)).map_err(|error| lost(&error))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CloseReason>> {
        Pin::new(&mut self.socket).poll_flush(cx).map_err(|error| lost(&error))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.socket).poll_close(cx).map(|_| ())
    }

    fn progress(&self) -> u64 {
        (self.progress)(self.socket.get_ref().get_ref())
    }
}

fn spent() -> CloseReason {
    SessionError::Protocol(ProtocolError::Spent(Spent)).into()
}

fn lost(error: &tungstenite::Error) -> CloseReason {
    match error {
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => CloseReason::PeerClosed,
        error => CloseReason::Lost(error.to_string()),
    }
}
