//! Connections that leave HTTP: Upgrade over HTTP/1.1 (RFC 9110, section 7.8) and WebSockets over HTTP/2 (RFC 8441).
//! Inside the tunnel both are a GET with `upgrade`. HTTP/3 has no WebSockets here (RFC 9220).

mod farewell;

use std::future::poll_fn;
use std::task::Poll;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use cok_http::websocket::{WEBSOCKET, is_websocket};
use cok_transport::{Received, RecvHalf, SendHalf, ws};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::ext::Protocol;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tracing::debug;

use self::farewell::TimedFarewell;
use super::body::Body;
use super::pages::Problem;
use super::request::RequestBody;
use crate::drain::Watch;

/// What an upgraded connection reads at once, and holds while idle.
const READ_BUFFER: usize = 16 * 1024;

/// How a request asks to leave HTTP.
#[derive(Debug)]
pub(super) enum Upgrade {
    /// Not at all.
    None,
    /// By Upgrade over HTTP/1.1, to this protocol.
    Http1(HeaderValue),
    /// By extended CONNECT, to WebSocket. The key is ours, since HTTP/2 has none.
    Http2 { key: String },
}

impl Upgrade {
    /// Reads it from a request. CONNECT is only for WebSockets; this is no forward proxy.
    pub(super) fn of(request: &Request<RequestBody>) -> Result<Self, Problem> {
        let headers = request.headers();
        if *request.method() == Method::CONNECT {
            let protocol = request.extensions().get::<Protocol>().map(Protocol::as_str);
            return match protocol {
                Some(WEBSOCKET) => Ok(Self::Http2 { key: STANDARD.encode(fastrand::u128(..).to_be_bytes()) }),
                _ => Err(Problem::MethodNotAllowed),
            };
        }
        let listed = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        let asked = listed.flat_map(|value| value.split(',')).any(|name| name.trim().eq_ignore_ascii_case("upgrade"));
        match headers.get(UPGRADE) {
            // An upgrade is an offer: one that the tunnel can't carry is declined by answering without it.
            Some(protocol)
                if asked
                    && *request.method() == Method::GET
                    && request.version() == Version::HTTP_11
                    && !headers.contains_key(CONTENT_LENGTH)
                    && !headers.contains_key(TRANSFER_ENCODING)
                    && !protocol.as_bytes().eq_ignore_ascii_case(b"h2c") =>
            {
                Ok(Self::Http1(protocol.clone()))
            }
            _ => Ok(Self::None),
        }
    }

    pub(super) fn is_some(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// Whether it is to a WebSocket, if the service agrees.
    pub(super) fn is_websocket(&self) -> bool {
        match self {
            Self::None => false,
            Self::Http1(protocol) => is_websocket(protocol.as_bytes()),
            Self::Http2 { .. } => true,
        }
    }

    /// Puts into a request's fields what the tunnel expects.
    pub(super) fn prepare(&self, headers: &mut HeaderMap) {
        match self {
            Self::None => {}
            Self::Http1(protocol) => {
                headers.insert(UPGRADE, protocol.clone());
            }
            Self::Http2 { key } => {
                headers.insert(UPGRADE, HeaderValue::from_static(WEBSOCKET));
                if let Ok(key) = HeaderValue::from_str(key) {
                    headers.insert(SEC_WEBSOCKET_KEY, key);
                }
            }
        }
    }

    /// Turns the service's 101 into what the visitor expects; `None` if the service did not do as it was asked.
    pub(super) fn complete(&self, mut headers: HeaderMap, protocol: Option<HeaderValue>) -> Option<Response<Body>> {
        let mut response = Response::new(Body::empty());
        match self {
            Self::None => return None,
            Self::Http1(_) => {
                headers.insert(UPGRADE, protocol?);
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            }
            Self::Http2 { key } => {
                let accepted = headers.remove(SEC_WEBSOCKET_ACCEPT)?;
                if accepted.as_bytes() != ws::accept_key(key.as_bytes()).as_bytes() {
                    return None;
                }
            }
        }
        *response.headers_mut() = headers;
        Some(response)
    }
}

/// Carries raw bytes both ways until both have ended or one has broken. A WebSocket has a `time`: when that is up, the
/// visitor hears that we go away.
pub(super) async fn splice(visitor: OnUpgrade, send: Box<dyn SendHalf>, recv: Box<dyn RecvHalf>, time: Option<Watch>) {
    let upgraded = match visitor.await {
        Ok(upgraded) => upgraded,
        Err(error) => return debug!(%error, "the visitor left before the upgrade"),
    };
    let (reader, writer) = tokio::io::split(TokioIo::new(upgraded));
    let farewell = time.map(TimedFarewell::new);
    let result = tokio::try_join!(to_tunnel(reader, send), to_visitor(recv, writer, farewell));
    if let Err(error) = result {
        debug!(%error, "upgraded connection ended");
    }
}

async fn to_tunnel(
    mut reader: tokio::io::ReadHalf<TokioIo<Upgraded>>,
    mut send: Box<dyn SendHalf>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut buffer = BytesMut::new();
    loop {
        send.ready().await?;
        buffer.reserve(READ_BUFFER);
        let read = tokio::select! {
            read = reader.read_buf(&mut buffer) => read?,
            error = poll_fn(|cx| send.poll_broken(cx)) => return Err(error.into()),
        };
        if read == 0 {
            send.send_data(Bytes::new(), true);
            return Ok(());
        }
        send.send_data(buffer.split().freeze(), false);
    }
}

async fn to_visitor(
    mut recv: Box<dyn RecvHalf>,
    mut writer: tokio::io::WriteHalf<TokioIo<Upgraded>>,
    mut timed: Option<TimedFarewell>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    loop {
        let received = poll_fn(|cx| {
            if timed.as_mut().is_some_and(|timed| timed.poll_due(cx).is_ready()) {
                return Poll::Ready(Ok(None));
            }
            recv.poll_recv(cx).map_ok(Some)
        });
        let end = match received.await? {
            Some(Received::Data { data, end }) => {
                let data = match &mut timed {
                    Some(timed) => timed.farewell.pass(data),
                    None => data,
                };
                writer.write_all(&data).await?;
                end
            }
            Some(Received::Trailers(_)) => true,
            Some(Received::Head { .. }) | None => false,
        };
        if let Some(close) = timed.as_mut().and_then(|timed| timed.farewell.close()) {
            writer.write_all(&close).await?;
        }
        writer.flush().await?;
        if end {
            writer.shutdown().await?;
            return Ok(());
        }
    }
}
