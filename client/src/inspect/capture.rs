//! Copies what passes through an exchange. It wraps both halves, so the proxy does not know of it.
//!
//! It never waits and holds nothing back: bytes go to the queue as further handles of the same buffers, and only small ones
//! are copied. A body is captured up to a limit; streams are captured to their end, since only their latest messages stay.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker, ready};
use std::time::{Instant, SystemTime};

use bytes::{Bytes, BytesMut};
use cok_http::content_length;
use cok_proto::head::{HeadTooLarge, fields_len, put_fields};
use cok_proto::{RequestHead, ResetCode, ResponseHead};
use cok_transport::{ExchangeError, ExchangeHalves, Holding, Received, RecvHalf, SendHalf};
use http::HeaderMap;

use super::kind::Kind;
use super::live::{Ended, Live, Reset, Side};
use super::queue::{Queue, What};
use crate::event::TunnelHandle;
use crate::proxy::{Origin, Spoken};

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
    /// Captures an exchange from now on. `end` says that the request has no body.
    pub(crate) fn begin(
        &self,
        head: &RequestHead,
        end: bool,
        halves: ExchangeHalves,
        origin: Origin,
    ) -> (ExchangeHalves, Captured) {
        let (id, replay_of) = match origin {
            Origin::Visitor => (self.queue.load().number(), None),
            Origin::Replay { id, of } => (id, Some(of)),
        };
        let is_grpc = Kind::of_request(&head.headers).is_some();
        let live = Arc::new(Live {
            id,
            tunnel: self.tunnel,
            replay_of,
            head: request_bytes(head),
            is_bodiless: end,
            began: Instant::now(),
            began_at: SystemTime::now(),
            request_bytes: AtomicU64::new(0),
            response_bytes: AtomicU64::new(0),
            is_lost: AtomicBool::new(false),
            is_stream: AtomicBool::new(is_grpc),
            is_evicted: AtomicBool::new(false),
            is_request_complete: AtomicBool::new(end),
            is_request_over: AtomicBool::new(false),
            protocol: AtomicU8::new(0),
            failure: OnceLock::new(),
            ended: OnceLock::new(),
        });
        self.queue.push(&live, What::Began);
        let copy = |side| Copy { live: live.clone(), queue: self.queue.clone(), side, taken: 0, is_truncated: false };
        let ExchangeHalves { send, recv } = halves;
        let is_upgrade = head.is_upgrade();
        let send = CapturedSend { send, copy: copy(Side::Response), is_complete: false, broken: None, code: None };
        let announced = if is_upgrade { None } else { content_length(&head.headers) };
        let recv = CapturedRecv { recv, copy: copy(Side::Request), is_over: end && !is_upgrade, announced };
        (ExchangeHalves { send: Box::new(send), recv: Box::new(recv) }, Captured(live))
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
struct Copy {
    live: Arc<Live>,
    queue: Arc<Queue>,
    side: Side,
    /// The bytes that were captured.
    taken: u64,
    is_truncated: bool,
}

impl Copy {
    fn data(&mut self, data: &Bytes) {
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
        self.taken += take as u64;
        if take > 0 {
            self.queue.push(&self.live, What::Data(self.side, taken));
        }
        if take < data.len() {
            self.is_truncated = true;
            self.queue.push(&self.live, What::Truncated(self.side));
        }
    }

    fn trailers(&self, fields: &HeaderMap) {
        if let Ok(length) = fields_len(fields) {
            let mut bytes = BytesMut::with_capacity(length);
            put_fields(&mut bytes, fields);
            self.queue.push(&self.live, What::Trailers(self.side, bytes.freeze()));
        }
    }
}

/// The response's half.
#[derive(Debug)]
struct CapturedSend {
    send: Box<dyn SendHalf>,
    copy: Copy,
    is_complete: bool,
    /// What the peer has done.
    broken: Option<ExchangeError>,
    /// What this side has done.
    code: Option<ResetCode>,
}

impl SendHalf for CapturedSend {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        let polled = self.send.poll_ready(cx);
        if let Poll::Ready(Err(error)) = polled {
            self.broken.get_or_insert(error);
        }
        polled
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<ExchangeError> {
        let error = ready!(self.send.poll_broken(cx));
        self.broken.get_or_insert(error);
        Poll::Ready(error)
    }

    fn send_response(&mut self, head: ResponseHead, end: bool) -> Result<(), HeadTooLarge> {
        let (live, is_interim) = (&self.copy.live, head.is_interim());
        if !is_interim
            && Kind::of_response(head.status, &head.headers, live.is_stream.load(Ordering::Relaxed)).is_some()
        {
            live.is_stream.store(true, Ordering::Relaxed);
        }
        let bytes = response_bytes(&head);
        self.send.send_response(head, end)?;
        if let Some(head) = bytes {
            self.copy.queue.push(live, What::Head { head, after: live.began.elapsed() });
        }
        self.is_complete |= end && !is_interim;
        Ok(())
    }

    fn send_data(&mut self, data: Bytes, end: bool) {
        self.copy.data(&data);
        self.is_complete |= end;
        self.send.send_data(data, end);
    }

    fn send_trailers(&mut self, fields: HeaderMap) -> Result<(), HeadTooLarge> {
        self.copy.trailers(&fields);
        self.send.send_trailers(fields)?;
        self.is_complete = true;
        Ok(())
    }

    fn break_off(&mut self, code: ResetCode) {
        self.code = Some(code);
        self.send.break_off(code);
    }

    fn reset(&mut self, code: ResetCode) {
        self.code = Some(code);
        self.send.reset(code);
    }
}

impl Drop for CapturedSend {
    fn drop(&mut self) {
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
    recv: Box<dyn RecvHalf>,
    copy: Copy,
    /// Nothing follows, or what follows cannot be read.
    is_over: bool,
    /// The length that the head announces.
    announced: Option<u64>,
}

impl CapturedRecv {
    fn note(&mut self, received: &Result<Received, ExchangeError>) {
        match received {
            Ok(Received::Data { data, end }) => {
                self.copy.data(data);
                let is_whole =
                    *end || self.announced == Some(self.copy.live.bytes(Side::Request).load(Ordering::Relaxed));
                self.copy.live.is_request_complete.fetch_or(is_whole, Ordering::Relaxed);
                self.is_over = *end;
            }
            Ok(Received::Trailers(fields)) => {
                self.copy.trailers(fields);
                self.copy.live.is_request_complete.store(true, Ordering::Relaxed);
                self.is_over = true;
            }
            Ok(Received::Head { .. }) => {}
            Err(_) => self.is_over = true,
        }
    }

    /// Takes what has come already of a body that the service did not read, such as one that is down. Such a request can then
    /// be replayed. It does not wait for more.
    fn take_rest(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        while !self.is_over && self.announced.is_some_and(|length| self.copy.taken < length) {
            let Poll::Ready(received) = self.recv.poll_recv(&mut cx) else { return };
            self.note(&received);
        }
    }
}

impl RecvHalf for CapturedRecv {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, ExchangeError>> {
        let received = ready!(self.recv.poll_recv(cx));
        self.note(&received);
        Poll::Ready(received)
    }

    fn reset(&mut self, code: ResetCode) {
        self.is_over = true;
        self.recv.reset(code);
    }

    fn charge_to(&mut self, holding: Arc<Holding>) {
        self.recv.charge_to(holding);
    }
}

impl Drop for CapturedRecv {
    fn drop(&mut self) {
        if self.announced.is_some_and(|length| length <= MAX_BODY) {
            self.take_rest();
        }
        self.copy.live.is_request_over.store(true, Ordering::Release);
        self.copy.queue.push(&self.copy.live, What::Over(Side::Request));
    }
}
