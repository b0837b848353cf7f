//! Whether an exchange is finite or long-lived, and how it ends when the daemon goes away: the one place that decides it.

use cok_http::is_event_stream;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Version};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::grpc::is_grpc;
use crate::drain::{Drain, Phase, Watch};
use crate::observe::Lasting;

/// How long an exchange lasts by its nature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lifetime {
    /// It ends by itself. Cut short it must not look whole, so it breaks off.
    Finite,
    /// A gRPC call over HTTP/2 or HTTP/3. It ends by itself; cut short it gets trailers that say so.
    Grpc,
    /// A stream of server-sent events. Its visitor comes back when it ends, so it may end anywhere.
    EventStream,
    /// A WebSocket. Cut short it gets a Close frame.
    WebSocket,
    /// A connection that has left HTTP for another protocol.
    Upgraded,
}

impl Lifetime {
    /// Of a response with these fields, to a visitor over `version`.
    pub(super) fn of_response(version: Version, headers: &HeaderMap) -> Self {
        // Over HTTP/1.1 a visitor would not see the trailers, and take the body for whole.
        if version >= Version::HTTP_2 && is_grpc(headers) {
            Self::Grpc
        } else if !headers.contains_key(CONTENT_LENGTH) && is_event_stream(headers) {
            Self::EventStream
        } else {
            Self::Finite
        }
    }

    /// Of a connection that leaves HTTP.
    pub(super) fn of_upgrade(is_websocket: bool) -> Self {
        if is_websocket { Self::WebSocket } else { Self::Upgraded }
    }

    /// Whether it goes on until one of its ends closes it.
    pub(super) fn is_long_lived(self) -> bool {
        matches!(self, Self::EventStream | Self::WebSocket | Self::Upgraded)
    }

    /// What it is to observers, if it is long-lived.
    pub(super) fn lasting(self) -> Option<Lasting> {
        match self {
            Self::Finite | Self::Grpc => None,
            Self::EventStream => Some(Lasting::EventStream),
            Self::WebSocket => Some(Lasting::WebSocket),
            Self::Upgraded => Some(Lasting::Upgrade),
        }
    }

    /// Whether its visitor may be silent for as long as it likes.
    pub(super) fn may_pause(self) -> bool {
        self.is_long_lived() || self == Self::Grpc
    }

    /// Keeps it counted as in flight.
    pub(super) fn token(self, drain: &Drain) -> TaskTrackerToken {
        if self.is_long_lived() { drain.requests.long_lived() } else { drain.requests.finite() }
    }

    /// When the daemon ends it properly; `None` if it is cut without a word.
    pub(super) fn farewell(self, drain: &Drain) -> Option<Watch> {
        match self {
            Self::Finite | Self::Upgraded => None,
            Self::Grpc => Some(drain.watch(Phase::Cut)),
            Self::EventStream | Self::WebSocket => Some(drain.watch(Phase::Farewell)),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::CONTENT_TYPE;

    use super::*;

    #[test]
    fn event_streams_are_known_by_their_type() {
        let is = |kind: &'static str| {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
            Lifetime::of_response(Version::HTTP_11, &headers) == Lifetime::EventStream
        };
        assert!(is("text/event-stream"));
        assert!(is("Text/Event-Stream ; charset=utf-8"));
        assert!(!is("text/event-streams"));
        assert!(!is("text/plain; of=text/event-stream"));
        assert_eq!(Lifetime::of_response(Version::HTTP_11, &HeaderMap::new()), Lifetime::Finite);
    }

    #[test]
    fn a_length_makes_events_finite_and_grpc_needs_trailers() {
        let kind = (CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        let sized = HeaderMap::from_iter([kind, (CONTENT_LENGTH, HeaderValue::from_static("1"))]);
        assert_eq!(Lifetime::of_response(Version::HTTP_2, &sized), Lifetime::Finite);
        let grpc = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/grpc"))]);
        assert_eq!(Lifetime::of_response(Version::HTTP_11, &grpc), Lifetime::Finite);
        assert_eq!(Lifetime::of_response(Version::HTTP_3, &grpc), Lifetime::Grpc);
    }
}
