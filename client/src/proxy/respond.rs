//! Response heads for the tunnel, from either version of HTTP.

use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use cok_http::hop_by_hop::{retain, strip_response};
use cok_http::is_event_stream;
use cok_proto::ResponseHead;
use cok_transport::SendHalf;
use http::header::{CONTENT_LENGTH, HeaderMap};
use http::{StatusCode, response};
use hyper::ext::ReasonPhrase;
use parking_lot::Mutex;
use tracing::debug;

/// The most interim heads that one exchange passes on; more are dropped. The protocol ends a session after more than 16.
const MAX_INTERIM: u8 = 12;

/// The most interim heads that are read before a final one. A service that sends more never means to answer.
const INTERIM_FLOOD: u32 = 1000;

/// The head for the tunnel, without fields that concern only the connection to the service (RFC 9110, section 7.6.1).
pub(super) fn head_of(parts: response::Parts) -> ResponseHead {
    let response::Parts { status, mut headers, extensions, .. } = parts;
    if status.is_informational() {
        retain(&mut headers, |name| *name != CONTENT_LENGTH);
    }
    strip_response(status, &mut headers);
    let mut head = ResponseHead::new(status, headers);
    // The HTTP library keeps the phrases that differ from the usual one.
    if let Some(reason) = extensions.get::<ReasonPhrase>() {
        head.reason = Bytes::copy_from_slice(reason.as_bytes());
    }
    head
}

/// Whether a response is an event stream without a length, which may end anywhere. A visitor drops an unfinished event
/// (WHATWG HTML, section 9.2.6), but would miss the rest of an announced length.
pub(super) fn is_endless(headers: &HeaderMap) -> bool {
    is_event_stream(headers) && !headers.contains_key(CONTENT_LENGTH)
}

/// Interim responses on their way to the tunnel.
#[derive(Debug, Default)]
pub(super) struct Interim {
    waiting: Mutex<Vec<ResponseHead>>,
    count: AtomicU32,
}

impl Interim {
    /// Adds an interim response.
    pub(super) fn push(&self, status: StatusCode, headers: &HeaderMap) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut waiting = self.waiting.lock();
        if waiting.len() < usize::from(MAX_INTERIM) {
            let (mut parts, ()) = http::Response::new(()).into_parts();
            parts.status = status;
            parts.headers = headers.clone();
            waiting.push(head_of(parts));
        }
    }

    /// Passes the waiting ones on. `passed` counts over the whole exchange.
    pub(super) fn pass_on(&self, send: &mut Box<dyn SendHalf>, passed: &mut u8) {
        let mut waiting = self.waiting.lock();
        for head in waiting.drain(..) {
            if !head.is_interim() || *passed >= MAX_INTERIM {
                continue;
            }
            *passed += 1;
            // One that is too large can be left out: the final head says everything.
            if send.send_response(head, false).is_err() {
                debug!("an interim response was too large for the tunnel");
            }
        }
    }

    /// Whether the service has sent so many that it never means to answer.
    pub(super) fn is_flood(&self) -> bool {
        self.count.load(Ordering::Relaxed) > INTERIM_FLOOD
    }

    /// Starts over for another request.
    pub(super) fn clear(&self) {
        self.count.store(0, Ordering::Relaxed);
        self.waiting.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn head(status: StatusCode, fields: &[(&'static str, &'static str)]) -> Vec<String> {
        let (mut parts, ()) = http::Response::new(()).into_parts();
        parts.status = status;
        for (name, value) in fields {
            parts.headers.append(*name, HeaderValue::from_static(value));
        }
        let mut names: Vec<_> = head_of(parts).headers.keys().map(|name| name.as_str().to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn what_concerns_the_connection_stays_here() {
        let fields = [
            ("connection", "close, x-private, content-length"),
            ("x-private", "1"),
            ("content-length", "3"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("trailer", "x-sum"),
        ];
        assert_eq!(head(StatusCode::OK, &fields), ["content-length", "trailer"]);
    }

    #[test]
    fn a_101_says_what_it_switches_to() {
        let fields = [("connection", "Upgrade"), ("upgrade", "websocket"), ("sec-websocket-accept", "x")];
        assert_eq!(head(StatusCode::SWITCHING_PROTOCOLS, &fields), ["sec-websocket-accept", "upgrade"]);
    }
}
