//! What both ends of cok do to HTTP alike. It opens no sockets, starts no tasks and reads no clock.
//!
//! - [`TunnelBody`]: one direction of an exchange as an HTTP body.
//! - [`hop_by_hop`]: the header fields that end at each hop.
//! - [`html`]: text of others in pages.
//! - [`name`]: the rules for the names of tunnels.
//! - [`pump`]: raw bytes between a connection and an exchange that has left HTTP.
//! - [`visitor`]: which addresses count as one visitor.
//! - [`websocket`]: where the frames of a WebSocket end, and how it is closed between two of them.
//! - [`is_event_stream`]: which responses last until one side ends them.
//! - [`expects_continue`]: which requests hold their body back.

mod body;
pub mod hop_by_hop;
pub mod html;
pub mod name;
pub mod pump;
pub mod visitor;
pub mod websocket;

pub use self::body::{TunnelBody, content_length};

use http::HeaderMap;
use http::header::{CONTENT_TYPE, EXPECT};

/// Whether a response is a stream of server-sent events (WHATWG HTML, section 9.2), whose visitor comes back by itself when
/// it ends.
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.as_bytes().split(|byte| *byte == b';').next());
    kind.is_some_and(|kind| kind.trim_ascii().eq_ignore_ascii_case(b"text/event-stream"))
}

/// Whether a request's sender may wait for a 100 before it sends the body (RFC 9110, section 10.1.1). Other expectations have
/// no effect on the way; the service judges them.
pub fn expects_continue(headers: &HeaderMap) -> bool {
    headers.get(EXPECT).is_some_and(|expectation| expectation.as_bytes().eq_ignore_ascii_case(b"100-continue"))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn event_streams_are_known_by_their_type() {
        let is = |kind: &'static str| {
            is_event_stream(&HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]))
        };
        assert!(is("text/event-stream"));
        assert!(is("Text/Event-Stream ; charset=utf-8"));
        assert!(!is("text/event-streams"));
        assert!(!is("text/plain; of=text/event-stream"));
        assert!(!is_event_stream(&HeaderMap::new()));
    }

    #[test]
    fn only_one_expectation_is_known() {
        let expects = |value| expects_continue(&HeaderMap::from_iter([(EXPECT, HeaderValue::from_static(value))]));
        assert!(expects("100-continue") && expects("100-Continue"));
        assert!(!expects("foo") && !expects(""));
        assert!(!expects_continue(&HeaderMap::new()));
    }
}
