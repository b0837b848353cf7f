//! A session over one WebSocket (RFC 6455), on whatever byte stream carries it.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use cok_proto::frame::MAX_MESSAGE;
use cok_proto::{Connect, ConnectAck};
use futures_core::Stream;
use futures_sink::Sink;
use http::{HeaderValue, Request};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{Message, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{self, client::IntoClientRequest};

use crate::muxed::{self, Pipe};
use crate::{CloseReason, Config, Handshake, HandshakeError, Transport};

/// The path on the base domain where tunnels connect.
pub const PATH: &str = "/_cok/tunnel";
/// The WebSocket subprotocol (RFC 6455, section 1.9).
pub const SUBPROTOCOL: &str = "cok.v1";

/// The library fills its read buffer with zeros before every read and keeps it while idle, so it costs each tunnel its
/// whole size. TLS has the bytes of a record at hand already: taking them in pieces of 4 KiB instead of 16 showed no
/// difference in speed.
const READ_BUFFER: usize = 4 * 1024;
/// From here on the library writes by itself while we still feed it.
const WRITE_BUFFER: usize = 64 * 1024;
/// The library's hard limit: above what one burst can leave unwritten.
const MAX_WRITE_BUFFER: usize = WRITE_BUFFER + 4 * MAX_MESSAGE;

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(READ_BUFFER)
        .write_buffer_size(WRITE_BUFFER)
        .max_write_buffer_size(MAX_WRITE_BUFFER)
        .max_message_size(Some(MAX_MESSAGE))
        .max_frame_size(Some(MAX_MESSAGE))
}

/// The answer to an upgrade's key (RFC 6455, section 4.2.2).
pub fn accept_key(key: &[u8]) -> String {
    tungstenite::handshake::derive_accept_key(key)
}

/// Daemon: starts a session on an upgraded connection, of which `read` was read already, and waits for the client's
/// Connect, at most for `limit`.
pub async fn accept<S>(
    stream: S,
    read: Vec<u8>,
    config: Config,
    limit: Duration,
) -> Result<Box<dyn Handshake>, HandshakeError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let socket = WebSocketStream::from_partially_read(stream, read, Role::Server, Some(self::config())).await;
    muxed::accept("ws", WsPipe(socket), config, limit).await
}

/// Client: upgrades `stream`, which must lead to `authority`, and asks for a session; at most `limit` for each of the
/// two.
pub async fn connect<S>(
    stream: S,
    authority: &str,
    config: Config,
    connect: &Connect,
    limit: Duration,
) -> Result<(Arc<dyn Transport>, ConnectAck), ConnectError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let upgrade = tokio_tungstenite::client_async_with_config(request(authority)?, stream, Some(self::config()));
    let (socket, response) = match tokio::time::timeout(limit, upgrade).await {
        Err(_) => return Err(HandshakeError::TimedOut(limit).into()),
        Ok(Err(tungstenite::Error::Http(response))) => return Err(ConnectError::Status(response.status())),
        Ok(Err(error)) => return Err(ConnectError::Upgrade(error.to_string())),
        Ok(Ok(upgraded)) => upgraded,
    };
    if response.headers().get("sec-websocket-protocol").map(HeaderValue::as_bytes) != Some(SUBPROTOCOL.as_bytes()) {
        return Err(ConnectError::Upgrade(format!("the server does not speak {SUBPROTOCOL}")));
    }
    Ok(muxed::connect("ws", WsPipe(socket), config, connect, limit).await?)
}

/// Why a client got no session.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The server answered with something else than an upgrade.
    #[error("the server answered {0} instead of opening a tunnel; is it a cokd?")]
    Status(http::StatusCode),
    /// The upgrade failed.
    #[error("WebSocket upgrade failed: {0}")]
    Upgrade(String),
    /// The upgrade went through, the session did not.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
}

fn request(authority: &str) -> Result<Request<()>, ConnectError> {
    let mut request = format!("wss://{authority}{PATH}")
        .into_client_request()
        .map_err(|error| ConnectError::Upgrade(error.to_string()))?;
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
    Ok(request)
}

struct WsPipe<S>(WebSocketStream<S>);

impl<S: AsyncRead + AsyncWrite + Send + Unpin + 'static> Pipe for WsPipe<S> {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, CloseReason>>> {
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut self.0).poll_next(cx)) {
                None | Some(Ok(Message::Close(_))) => None,
                Some(Ok(Message::Binary(message))) => Some(Ok(message)),
                // The library answers pings by itself.
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                Some(Ok(Message::Text(_))) => Some(Err(CloseReason::Lost("a text message came".to_owned()))),
                Some(Err(error)) => Some(Err(lost(&error))),
            });
        }
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CloseReason>> {
        Pin::new(&mut self.0).poll_ready(cx).map_err(|error| lost(&error))
    }

    fn start_send(&mut self, message: Bytes) -> Result<(), CloseReason> {
        Pin::new(&mut self.0).start_send(Message::Binary(message)).map_err(|error| lost(&error))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CloseReason>> {
        Pin::new(&mut self.0).poll_flush(cx).map_err(|error| lost(&error))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll_close(cx).map(|_| ())
    }
}

fn lost(error: &tungstenite::Error) -> CloseReason {
    match error {
        tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed => CloseReason::PeerClosed,
        error => CloseReason::Lost(error.to_string()),
    }
}
