//! What is known of an exchange while it lasts: both halves write it, and viewers read it at any time.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use cok_proto::ResetCode;

use super::queue::News;
use crate::event::TunnelHandle;
use crate::exchange::Spoken;

/// A direction of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    /// From the visitor to the service.
    Request,
    /// From the service to the visitor.
    Response,
}

/// An exchange from its beginning on.
#[derive(Debug)]
pub(super) struct Live {
    /// Its number.
    pub(super) id: u64,
    /// Its tunnel.
    pub(super) tunnel: TunnelHandle,
    /// The exchange that it repeats.
    pub(super) replay_of: Option<u64>,
    /// The request's head, in the form of the tunnel. It shares no memory with the session's buffers.
    pub(super) head: Bytes,
    /// The request has no body.
    pub(super) is_bodiless: bool,
    /// When it began.
    pub(super) began: Instant,
    pub(super) began_at: SystemTime,
    /// The bytes of the bodies, whether they were captured or not.
    pub(super) request_bytes: AtomicU64,
    pub(super) response_bytes: AtomicU64,
    /// Part of it was not captured, since the inspector fell behind.
    pub(super) is_lost: AtomicBool,
    /// It lasts, so its bytes are captured beyond the limit of a body.
    pub(super) is_stream: AtomicBool,
    /// The store has let go of it. Nothing more need be captured.
    pub(super) is_evicted: AtomicBool,
    /// The request came to its end.
    pub(super) is_request_complete: AtomicBool,
    /// The request's half is gone.
    pub(super) is_request_over: AtomicBool,
    /// The protocol that the service was asked in; see [`Live::protocol`].
    pub(super) protocol: AtomicU8,
    /// Why it failed, in words.
    pub(super) failure: OnceLock<String>,
    /// How it ended.
    pub(super) ended: OnceLock<Ended>,
    /// What the recorder has not taken yet.
    pub(super) news: News,
}

/// How an exchange ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    /// The time since its beginning.
    pub(super) after: Duration,
    /// The response was passed on to its end.
    pub(super) is_complete: bool,
    /// Who broke it off, and the code.
    pub(super) reset: Option<Reset>,
}

/// Why an exchange broke off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reset {
    /// The visitor's side: it left, or the daemon abandoned the exchange.
    Visitor(ResetCode),
    /// The session with the daemon ended.
    Session,
    /// The service's side.
    Service(ResetCode),
}

impl Live {
    /// An exchange that begins now. `head` is the request's, in the form of the tunnel.
    pub(super) fn new(id: u64, tunnel: TunnelHandle, head: Bytes) -> Self {
        Self {
            id,
            tunnel,
            replay_of: None,
            head,
            is_bodiless: false,
            began: Instant::now(),
            began_at: SystemTime::now(),
            request_bytes: AtomicU64::new(0),
            response_bytes: AtomicU64::new(0),
            is_lost: AtomicBool::new(false),
            is_stream: AtomicBool::new(false),
            is_evicted: AtomicBool::new(false),
            is_request_complete: AtomicBool::new(false),
            is_request_over: AtomicBool::new(false),
            protocol: AtomicU8::new(0),
            failure: OnceLock::new(),
            ended: OnceLock::new(),
            news: News::default(),
        }
    }

    /// The count of a direction's bytes.
    pub(super) fn bytes(&self, side: Side) -> &AtomicU64 {
        match side {
            Side::Request => &self.request_bytes,
            Side::Response => &self.response_bytes,
        }
    }

    /// Adds to the count of a direction. Only one task does so.
    pub(super) fn count(&self, side: Side, bytes: usize) {
        let count = self.bytes(side);
        count.store(count.load(Ordering::Relaxed) + bytes as u64, Ordering::Relaxed);
    }

    /// Whether nothing follows.
    pub(super) fn is_over(&self) -> bool {
        self.ended.get().is_some() && self.is_request_over.load(Ordering::Acquire)
    }

    /// The protocol that the service was asked in; `None` before a connection.
    pub(super) fn protocol(&self) -> Option<&'static str> {
        const NAMES: [(Spoken, &str); 3] =
            [(Spoken::Http1, "HTTP/1.1"), (Spoken::Http2, "HTTP/2"), (Spoken::InProcess, "in process")];
        let protocol = self.protocol.load(Ordering::Relaxed);
        NAMES.iter().find(|(spoken, _)| *spoken as u8 == protocol).map(|(_, name)| *name)
    }
}

impl std::fmt::Display for Reset {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Visitor(ResetCode::Cancelled | ResetCode::NoError) => f.write_str("the visitor left"),
            Self::Visitor(code) => write!(f, "the visitor's side broke off: {code}"),
            Self::Session => f.write_str("the session with the server ended"),
            Self::Service(code) => write!(f, "{code}"),
        }
    }
}
