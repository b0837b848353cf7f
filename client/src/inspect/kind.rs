//! What an exchange carries: a request and its response, or messages one by one.

use cok_http::websocket::is_websocket;
use http::header::{CONTENT_TYPE, UPGRADE};
use http::{HeaderMap, HeaderValue, StatusCode};

use super::decode;

/// What an exchange carries besides plain bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Server-sent events.
    EventStream,
    /// The messages of a WebSocket.
    WebSocket,
    /// The messages of gRPC or gRPC-Web.
    Grpc,
    /// A text in each line of JSON.
    JsonLines,
    /// The bytes of another protocol.
    Upgrade,
}

impl Kind {
    /// The kind that the request names already.
    pub(super) fn of_request(fields: &HeaderMap) -> Option<Self> {
        matches!(body(fields), Some(decode::Kind::Grpc { .. })).then_some(Self::Grpc)
    }

    /// The kind that follows from the response. `is_grpc` says that the request has named gRPC.
    pub(super) fn of_response(status: StatusCode, fields: &HeaderMap, is_grpc: bool) -> Option<Self> {
        if status == StatusCode::SWITCHING_PROTOCOLS {
            let protocol = fields.get(UPGRADE).map_or(&b""[..], HeaderValue::as_bytes);
            return Some(if is_websocket(protocol) { Self::WebSocket } else { Self::Upgrade });
        }
        match body(fields) {
            _ if is_grpc => Some(Self::Grpc),
            Some(decode::Kind::EventStream) => Some(Self::EventStream),
            Some(decode::Kind::Lines | decode::Kind::Sequence) => Some(Self::JsonLines),
            Some(decode::Kind::Grpc { .. }) => Some(Self::Grpc),
            Some(decode::Kind::WebSocket(_)) | None => None,
        }
    }

    /// Its name in the interface.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::EventStream => "event_stream",
            Self::WebSocket => "websocket",
            Self::Grpc => "grpc",
            Self::JsonLines => "json_lines",
            Self::Upgrade => "upgrade",
        }
    }
}

/// The messages of a body, by its type.
fn body(fields: &HeaderMap) -> Option<decode::Kind> {
    decode::Kind::of_body(fields.get(CONTENT_TYPE)?.as_bytes(), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn kinds_follow_from_the_heads() {
        let of = |status, pairs: &[_], is_grpc| {
            Kind::of_response(StatusCode::from_u16(status).unwrap(), &fields(pairs), is_grpc)
        };
        assert_eq!(of(101, &[("upgrade", "WebSocket")], false), Some(Kind::WebSocket));
        assert_eq!(of(101, &[("upgrade", "tcp")], false), Some(Kind::Upgrade));
        assert_eq!(of(200, &[("content-type", "text/event-stream; charset=utf-8")], false), Some(Kind::EventStream));
        assert_eq!(of(200, &[("content-type", "application/x-NDJSON")], false), Some(Kind::JsonLines));
        assert_eq!(of(200, &[("content-type", "text/html")], false), None);
        assert_eq!(of(200, &[], true), Some(Kind::Grpc));
        assert_eq!(Kind::of_request(&fields(&[("content-type", "application/grpc+proto")])), Some(Kind::Grpc));
        assert_eq!(Kind::of_request(&fields(&[("content-type", "application/json")])), None);
    }
}
