//! Connections that leave HTTP: Upgrade over HTTP/1.1 (RFC 9110, section 7.8) and WebSockets over HTTP/2 (RFC 8441).
//! Inside the tunnel both are a GET with `upgrade`. HTTP/3 has no WebSockets here (RFC 9220).

use std::future::poll_fn;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cok_http::pump::{Pump, PumpError, Visitor};
use cok_http::websocket::{Farewell, WEBSOCKET, going_away, is_websocket};
use cok_transport::{RecvHalf, SendHalf, ws};
use http::header::{
    CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, TRANSFER_ENCODING,
    UPGRADE,
};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use super::body::Body;
use super::pages::Problem;
use super::request::RequestBody;
use crate::drain::Watch;

/// Why the daemon closes a WebSocket: the text in the visitor's Close frame.
const RESTARTING: &str = "the server is restarting";

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

    /// Whether the request asks for a WebSocket.
    pub(super) fn is_websocket(&self) -> bool {
        match self {
            Self::None => false,
            Self::Http1(protocol) => is_websocket(protocol.as_bytes()),
            Self::Http2 { .. } => true,
        }
    }

    /// Adds the fields that an upgrade has inside the tunnel.
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

    /// Turns the service's 101 into the visitor's response. `None` if the 101 does not match the request.
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

/// Carries raw bytes both ways until both have ended or one has broken. A WebSocket has a `farewell`: the phase in which
/// its visitor gets a Close frame.
pub(super) async fn splice(
    visitor: OnUpgrade,
    send: Box<dyn SendHalf>,
    recv: Box<dyn RecvHalf>,
    farewell: Option<Watch>,
) {
    let upgraded = match visitor.await {
        Ok(upgraded) => upgraded,
        Err(error) => return debug!(%error, "the visitor left before the upgrade"),
    };
    if let Err(error) = carry(TokioIo::new(upgraded), send, recv, farewell).await {
        debug!(%error, "upgraded connection ended");
    }
}

async fn carry(
    connection: impl AsyncRead + AsyncWrite + Unpin,
    mut send: Box<dyn SendHalf>,
    recv: Box<dyn RecvHalf>,
    mut farewell: Option<Watch>,
) -> Result<(), PumpError> {
    let close = farewell.is_some().then(|| Farewell::new(going_away(RESTARTING)));
    let mut pump = Pump::new(connection, Bytes::new(), &mut *send, recv, Visitor::Connection, close);
    poll_fn(|cx| {
        if farewell.as_mut().is_some_and(|farewell| farewell.poll(cx).is_ready()) {
            pump.close_websocket();
        }
        pump.poll(cx)
    })
    .await
}

#[cfg(test)]
mod tests;
