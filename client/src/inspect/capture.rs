//! Copies what passes through an exchange. It wraps both halves, so the proxy does not know of it.
//!
//! It never waits and holds nothing back: bytes go to the queue as further handles of the same buffers, and only small ones
//! are copied. A body is captured up to a limit; streams are captured to their end, since only their latest messages stay.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use cok_http::{content_length, expects_continue};
use cok_proto::head::{HeadTooLarge, fields_len, put_fields};
use cok_proto::{RequestHead, ResetCode, ResponseHead};
use cok_transport::{ExchangeError, ExchangeHalves, Holding, Received, RecvHalf, SendHalf};
use http::HeaderMap;

use super::kind::Kind;
use super::live::{Ended, Live, Reset, Side};
use super::queue::{Queue, What};
use super::rest::{BROKEN_OFF, Reader, Rest};
use crate::event::TunnelHandle;
use crate::exchange::{Origin, Spoken};

/// The most bytes that are captured of one body.
pub(super) const MAX_BODY: u64 = 16 * 1024 * 1024;
/// Pieces up to this size are copied. A handle of a small piece would keep a whole buffer in memory.
const SMALL: usize = 2048;

/// Captures the exchanges of one tunnel.
#[derive(Clone, Debug)]
pub(crate) struct Tap {
    pub(super) queue: Arc<Queue>,
    pub(super) tunnel: TunnelHandle,
}

/// Takes what only the proxy knows of a captured exchange.
#[derive(Clone, Debug)]
pub(crate) struct Captured(Arc<Live>);

impl Captured {
    /// Notes why the exchange failed.
    pub(crate) fn failed(&self, why: String) {
        let _first = self.0.failure.set(why);
    }

    /// Notes the protocol that the service is asked in.
    pub(crate) fn speaks(&self, protocol: Spoken) {
        self.0.protocol.store(protocol as u8, Ordering::Relaxed);
    }
}

impl Tap {
    /// Captures an exchange from now on, unless there are too many. `end` says that the request has no body.
    pub(crate) fn begin(
        &self,
        head: &RequestHead,
        end: bool,
        halves: ExchangeHalves,
        origin: Origin,
    ) -> (ExchangeHalves, Option<Captured>) {
        let (id, replay_of) = match origin {
            Origin::Visitor if !self.queue.admits_request() => return (halves, None),
            Origin::Visitor => (self.queue.load().number(), None),
            Origin::Replay { id, of } => (id, Some(of)),
        };
        let kind = Kind::of_request(&head.headers);
        let announced = content_length(&head.headers);
        let live = Live::new(id, self.tunnel, request_bytes(head));
        let is_complete = AtomicBool::new(end || announced == Some(0));
        let live = Arc::new(Live {
            replay_of,
            is_bodiless: end,
            is_stream: AtomicBool::new(kind.is_some()),
            is_request_complete: is_complete,
            ..live
        });
        self.queue.push(&live, What::Began(kind));
        let copy = |side| Copy { live: live.clone(), queue: self.queue.clone(), side, taken: 0, is_truncated: false };
        let ExchangeHalves { send, recv } = halves;
        let rest = Arc::<Rest>::default();
        let send = CapturedSend {
            send: Some(send),
            copy: copy(Side::Response),
            rest: rest.clone(),
            is_complete: false,
            broken: None,
            code: None,
        };
        // A visitor that waits for a 100 sends no body to a service that is down, and behind an upgrade come raw bytes.
        let is_plain = !head.is_upgrade() && !expects_continue(&head.headers);
        let announced = if is_plain { announced } else { None };
        let reader = Reader { recv, copy: copy(Side::Request), is_over: end && is_plain, announced };
        let recv = CapturedRecv { reader: Some(reader), rest };
        (ExchangeHalves { send: Box::new(send), recv: Box::new(recv) }, Some(Captured(live)))
    }
}

/// A head in the form of the tunnel, in memory of its own.
fn request_bytes(head: &RequestHead) -> Bytes {
    // It came through the tunnel, so the tunnel can carry it.
    let Ok(length) = head.encoded_len() else { return Bytes::new() };
    let mut bytes = BytesMut::with_capacity(length);
    head.encode(&mut bytes);
    bytes.freeze()
}

fn response_bytes(head: &ResponseHead) -> Option<Bytes> {
    let mut bytes = BytesMut::with_capacity(head.encoded_len().ok()?);
    head.encode(&mut bytes);
    Some(bytes.freeze())
}

/// Copies one direction.
#[derive(Debug)]
pub(super) struct Copy {
    pub(super) live: Arc<Live>,
    queue: Arc<Queue>,
    side: Side,
    /// The bytes that were captured.
    taken: u64,
    is_truncated: bool,
}

impl Copy {
    /// Copies bytes of a body.
    pub(super) fn data(&mut self, data: &Bytes) {
        if data.is_empty() {
            return;
        }
        self.live.count(self.side, data.len());
        if self.is_truncated
            || self.live.is_lost.load(Ordering::Relaxed)
            || self.live.is_evicted.load(Ordering::Relaxed)
        {
            return;
        }
        let is_stream = self.live.is_stream.load(Ordering::Relaxed);
        let left = if is_stream { u64::MAX } else { MAX_BODY.saturating_sub(self.taken) };
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(data.len());
        let taken = if take <= SMALL { Bytes::copy_from_slice(&data[..take]) } else { data.slice(..take) };
        if take > 0 {
            self.queue.push_data(&self.live, self.side, taken, self.taken);
        }
        self.taken += take as u64;
        if take < data.len() {
            self.is_truncated = true;
            self.queue.push(&self.live, What::Truncated(self.side));
        }
    }

    /// Copies trailers.
    pub(super) fn trailers(&self, fields: &HeaderMap) {
        if let Ok(length) = fields_len(fields) {
            let mut bytes = BytesMut::with_capacity(length);
            put_fields(&mut bytes, fields);
            self.queue.push(&self.live, What::Trailers(self.side, bytes.freeze()));
        }
    }

    /// Ends the request's direction.
    pub(super) fn end_request(&self) {
        self.live.is_request_over.store(true, Ordering::Release);
        self.queue.push(&self.live, What::Over(Side::Request));
    }
}

/// The response's half.
#[derive(Debug)]
struct CapturedSend {
    /// `None` once it waits for the rest of a request.
    send: Option<Box<dyn SendHalf>>,
    copy: Copy,
    rest: Arc<Rest>,
    is_complete: bool,
    /// What the peer has done.
    broken: Option<ExchangeError>,
    /// What this side has done.
    code: Option<ResetCode>,
}

impl SendHalf for CapturedSend {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        let Some(send) = &mut self.send else { return Poll::Ready(Err(BROKEN_OFF)) };
        let polled = send.poll_ready(cx);
        if let Poll::Ready(Err(error)) = polled {
            self.broken.get_or_insert(error);
        }
        polled
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<ExchangeError> {
        let Some(send) = &mut self.send else { return Poll::Ready(BROKEN_OFF) };
        let error = ready!(send.poll_broken(cx));
        self.broken.get_or_insert(error);
        Poll::Ready(error)
    }

    fn send_response(&mut self, head: ResponseHead, end: bool) -> Result<(), HeadTooLarge> {
        let Some(send) = &mut self.send else { return Ok(()) };
        let (live, is_interim) = (&self.copy.live, head.is_interim());
        let mut kind = None;
        if !is_interim {
            drop(self.rest.answered());
            let is_grpc = live.is_stream.load(Ordering::Relaxed);
            kind = Kind::of_response(head.status, &head.headers, is_grpc);
            live.is_stream.store(kind.is_some(), Ordering::Relaxed);
        }
        let bytes = response_bytes(&head);
        send.send_response(head, end)?;
        if let Some(head) = bytes {
            let after = live.began.elapsed();
            let what = if is_interim { What::Interim { head, after } } else { What::Head { head, kind, after } };
            self.copy.queue.push(live, what);
        }
        self.is_complete |= end && !is_interim;
        Ok(())
    }

    fn send_data(&mut self, data: Bytes, end: bool) {
        self.copy.data(&data);
        self.is_complete |= end;
        if let Some(send) = &mut self.send {
            send.send_data(data, end);
        }
    }

    fn send_trailers(&mut self, fields: HeaderMap) -> Result<(), HeadTooLarge> {
        self.copy.trailers(&fields);
        if let Some(send) = &mut self.send {
            send.send_trailers(fields)?;
        }
        self.is_complete = true;
        Ok(())
    }

    fn break_off(&mut self, code: ResetCode) {
        self.code = Some(code);
        let Some(mut send) = self.send.take() else { return };
        if let Some(rest) = self.rest.answered() {
            tokio::spawn(rest.read_before(send, code));
        } else {
            send.break_off(code);
            self.send = Some(send);
        }
    }

    fn reset(&mut self, code: ResetCode) {
        self.code = Some(code);
        if let Some(send) = &mut self.send {
            send.reset(code);
        }
    }
}

impl Drop for CapturedSend {
    fn drop(&mut self) {
        drop(self.rest.answered());
        let live = &self.copy.live;
        let is_complete = self.is_complete && self.code.is_none();
        let reset = match (self.broken, self.code) {
            _ if is_complete => None,
            (Some(ExchangeError::Reset(code)), _) => Some(Reset::Visitor(code)),
            (Some(ExchangeError::SessionLost), _) => Some(Reset::Session),
            (None, Some(code)) => Some(Reset::Service(code)),
            (None, None) => Some(Reset::Service(ResetCode::LocalBroken)),
        };
        let _first = live.ended.set(Ended { after: live.began.elapsed(), is_complete, reset });
        self.copy.queue.push(live, What::Over(Side::Response));
    }
}

/// The request's half.
#[derive(Debug)]
struct CapturedRecv {
    /// `None` only while it is dropped.
    reader: Option<Reader>,
    rest: Arc<Rest>,
}

impl RecvHalf for CapturedRecv {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, ExchangeError>> {
        match &mut self.reader {
            Some(reader) => reader.poll(cx),
            None => Poll::Ready(Err(BROKEN_OFF)),
        }
    }

    fn reset(&mut self, code: ResetCode) {
        if let Some(reader) = &mut self.reader {
            reader.is_over = true;
            reader.recv.reset(code);
        }
    }

    fn charge_to(&mut self, holding: Arc<Holding>) {
        if let Some(reader) = &mut self.reader {
            reader.recv.charge_to(holding);
        }
    }
}

impl Drop for CapturedRecv {
    fn drop(&mut self) {
        if let Some(reader) = self.reader.take() {
            self.rest.left(reader);
        }
    }
}
