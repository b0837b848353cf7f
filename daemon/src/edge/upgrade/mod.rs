//! Connections that leave HTTP: Upgrade over HTTP/1.1 (RFC 9110, section 7.8) and WebSockets over HTTP/2 (RFC 8441).
//! Inside the tunnel both are a request with `upgrade`. HTTP/3 has no WebSockets here (RFC 9220).

mod sending;

use std::future::poll_fn;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cok_http::pump::{Pump, PumpError, Visitor};
use cok_http::websocket::{Farewell, WEBSOCKET, going_away, is_websocket};
use cok_transport::{RecvHalf, SendHalf, ws};
use http::header::{
    CONNECTION, EXPECT, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE,
};
use http::{Method, Request, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

pub(super) use self::sending::Sending;
use super::body::Body;
use crate::drain::Watch;
use crate::observe::Ending;

/// Why the daemon closes a WebSocket: the text in the visitor's Close frame.
const RESTARTING: &str = "the server is restarting";

/// HTTP itself is never asked for in a tunnel: a visitor would speak it with the service behind all rules of the edge.
const HTTP: [&[u8]; 5] = [b"h2c", b"h2", b"h3", b"http", b"https"];

/// The fields of an upgrade to HTTP/2 (RFC 7540, section 3.2.1).
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");

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
    /// Reads it from a request that was judged. An upgrade is an offer: one that no tunnel can carry is declined by
    /// answering without it.
    pub(super) fn of<B: http_body::Body>(request: &Request<B>) -> Self {
        if *request.method() == Method::CONNECT {
            return Self::Http2 { key: STANDARD.encode(fastrand::u128(..).to_be_bytes()) };
        }
        let headers = request.headers();
        let mut protocols = headers.get_all(UPGRADE).iter();
        let (Some(protocol), None) = (protocols.next(), protocols.next()) else { return Self::None };
        let listed = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        let asked = listed.flat_map(|value| value.split(',')).any(|name| name.trim().eq_ignore_ascii_case("upgrade"));
        let is_get = *request.method() == Method::GET;
        // Until the service has said that it wants the body, nothing is read that might be raw bytes.
        let waits = headers.contains_key(EXPECT) && !request.body().is_end_stream();
        if asked
            && request.version() == Version::HTTP_11
            && is_one_protocol(protocol.as_bytes())
            && (is_get || !is_websocket(protocol.as_bytes()))
            && !headers.contains_key(HTTP2_SETTINGS)
            && !waits
        {
            Self::Http1(protocol.clone())
        } else {
            Self::None
        }
    }

    pub(super) fn is_some(&self) -> bool {
        !matches!(self, Self::None)
    }

    /// Whether it is asked for by an extended CONNECT.
    pub(super) fn is_connect(&self) -> bool {
        matches!(self, Self::Http2 { .. })
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
            Self::Http1(asked) => {
                let protocol =
                    protocol.filter(|protocol| protocol.as_bytes().eq_ignore_ascii_case(asked.as_bytes()))?;
                headers.insert(UPGRADE, protocol);
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

/// Whether the value of Upgrade names one protocol, with or without a version (RFC 9110, section 7.8), other than HTTP.
fn is_one_protocol(value: &[u8]) -> bool {
    let mut parts = value.split(|byte| *byte == b'/');
    let (name, version) = (parts.next().unwrap_or_default(), parts.next());
    let is_token = |text: &[u8]| Method::from_bytes(text).is_ok();
    is_token(name)
        && version.is_none_or(is_token)
        && parts.next().is_none()
        && !HTTP.iter().any(|http| http.eq_ignore_ascii_case(name))
}

/// Carries raw bytes both ways until both have ended or one has broken. A WebSocket has a `farewell`: the phase in which
/// its visitor gets a Close frame. Returns how it ended.
pub(super) async fn splice(
    visitor: OnUpgrade,
    send: Box<dyn SendHalf>,
    recv: Box<dyn RecvHalf>,
    farewell: Option<Watch>,
) -> Ending {
    let upgraded = match visitor.await {
        Ok(upgraded) => upgraded,
        Err(error) => {
            debug!(%error, "the visitor left before the upgrade");
            return Ending::VisitorLeft;
        }
    };
    match carry(TokioIo::new(upgraded), send, recv, farewell).await {
        Ok(ending) => ending,
        Err(error) => {
            debug!(%error, "upgraded connection ended");
            match error {
                PumpError::Connection(_) => Ending::VisitorLeft,
                PumpError::Exchange(error) => Ending::broken(error),
            }
        }
    }
}

async fn carry(
    connection: impl AsyncRead + AsyncWrite + Unpin,
    mut send: Box<dyn SendHalf>,
    recv: Box<dyn RecvHalf>,
    mut farewell: Option<Watch>,
) -> Result<Ending, PumpError> {
    let close = farewell.is_some().then(|| Farewell::new(going_away(RESTARTING)));
    let mut pump = Pump::new(connection, Bytes::new(), &mut *send, recv, Visitor::Connection, close);
    let mut ending = Ending::Complete;
    poll_fn(|cx| {
        if farewell.as_mut().is_some_and(|farewell| farewell.poll(cx).is_ready()) {
            ending = Ending::Drained;
            pump.close_websocket();
        }
        pump.poll(cx)
    })
    .await
    .map_or_else(|error| if ending == Ending::Drained { Ok(ending) } else { Err(error) }, |()| Ok(ending))
}

#[cfg(test)]
mod tests;
