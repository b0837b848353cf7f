//! One exchange on its stream. Its two directions, as their user holds them, are in `handles`.
//!
//! Frames that quinn does not take at once wait here, at most what was handed over after one `poll_ready`; every poll of
//! either direction moves them on. Nothing is copied towards quinn; from it, pieces that are ready together are joined.

mod buffers;
mod handles;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use cok_proto::frame;
use cok_proto::stream::{Arrived, ExchangeReader};
use cok_proto::{RequestHead, ResetCode, Role};
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, StoppedError, VarInt, WriteError};

use self::buffers::{Joined, MOST_JOINED, Outbox};
use self::handles::{QuicRecv, QuicSend};
use super::shared::{Shared, Slot};
use crate::{ExchangeError, Received};

/// Pieces that are taken from quinn under one lock: a full Data frame in packets of 1,200 bytes and more.
const PIECES: usize = 14;

/// The stream to be opened, while the peer grants none.
type Opening = Pin<Box<dyn Future<Output = Result<(SendStream, RecvStream), ConnectionError>> + Send>>;
type Stopped = Pin<Box<dyn Future<Output = Result<Option<VarInt>, StoppedError>> + Send + Sync>>;

/// What the two directions share.
pub(super) struct Exchange {
    role: Role,
    /// Dropped last: a draining session waits for it.
    slot: Slot,
    inner: Mutex<Inner>,
}

struct Inner {
    opening: Option<(Opening, Arc<RequestHead>)>,
    send: Option<SendStream>,
    recv: Option<RecvStream>,
    id: u32,
    reader: ExchangeReader,
    /// Pieces taken from quinn and not yet read.
    pieces: VecDeque<Bytes>,
    /// What came behind joined body bytes.
    next: Option<Received>,
    outbox: Outbox,
    final_head_sent: bool,
    interim_heads: u8,
    /// Everything was handed over: FIN follows the outbox.
    finished: bool,
    fin_sent: bool,
    /// The peer wants no more of our body, though the other direction goes on.
    send_stopped: bool,
    recv_ended: bool,
    broken: Option<ExchangeError>,
    stopped: Option<Stopped>,
    /// quinn forgets who waits when we reset a stream ourselves, so they are known here too.
    recv_waker: Option<Waker>,
    send_waker: Option<Waker>,
}

/// How the client's or the daemon's side of a new exchange begins.
pub(super) enum Begin {
    /// Daemon: the stream is there.
    Opened(SendStream, RecvStream),
    /// Daemon: the peer grants no stream at the moment.
    Opening(Opening),
}

impl Exchange {
    /// Daemon: an exchange for this request. With `end`, it has no body.
    pub(super) fn request(begin: Begin, head: Arc<RequestHead>, end: bool, slot: Slot) -> crate::Exchange {
        let mut inner = Inner::new(Role::Daemon, 0);
        inner.finished = end;
        match begin {
            Begin::Opened(send, recv) => inner.opened(send, recv, &head),
            Begin::Opening(opening) => inner.opening = Some((opening, head)),
        }
        let exchange = Arc::new(Self { role: Role::Daemon, slot, inner: Mutex::new(inner) });
        exchange.lock().try_flush(&exchange);
        Self::halves(exchange)
    }

    /// Client: an exchange whose request has been read off its stream.
    pub(super) fn response(arrived: Accepted, end: bool, slot: Slot) -> crate::Exchange {
        let Accepted { send, recv, reader, id } = arrived;
        let mut inner = Inner::new(Role::Client, id);
        (inner.send, inner.recv, inner.reader) = (Some(send), Some(recv), reader);
        inner.recv_ended = end;
        Self::halves(Arc::new(Self { role: Role::Client, slot, inner: Mutex::new(inner) }))
    }

    fn halves(exchange: Arc<Self>) -> crate::Exchange {
        crate::Exchange { send: Box::new(QuicSend(exchange.clone())), recv: Box::new(QuicRecv(exchange)) }
    }

    /// No code panics while it holds the lock; should it ever happen, the exchange goes on rather than the process down.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self) -> &Arc<Shared> {
        self.slot.session()
    }
}

/// A stream that the daemon opened, up to and with the request's head.
pub(super) struct Accepted {
    pub(super) send: SendStream,
    pub(super) recv: RecvStream,
    pub(super) reader: ExchangeReader,
    pub(super) id: u32,
}

impl Inner {
    fn new(role: Role, id: u32) -> Self {
        Self {
            opening: None,
            send: None,
            recv: None,
            id,
            reader: ExchangeReader::new(role, id),
            pieces: VecDeque::new(),
            next: None,
            outbox: Outbox::default(),
            final_head_sent: false,
            interim_heads: 0,
            finished: false,
            fin_sent: false,
            send_stopped: false,
            recv_ended: false,
            broken: None,
            stopped: None,
            recv_waker: None,
            send_waker: None,
        }
    }

    /// The stream is there: it says which exchange this is.
    fn opened(&mut self, send: SendStream, recv: RecvStream, head: &RequestHead) {
        self.id = exchange_id(&send);
        self.reader = ExchangeReader::new(Role::Daemon, self.id);
        let mut first = BytesMut::new();
        frame::put_request(&mut first, self.id, head, self.finished);
        self.outbox.chunks.push_back(first.freeze());
        (self.send, self.recv) = (Some(send), Some(recv));
        wake(&mut self.send_waker);
        wake(&mut self.recv_waker);
    }

    fn poll_open(&mut self, cx: &mut Context<'_>, exchange: &Exchange) -> Poll<()> {
        let Some((opening, head)) = &mut self.opening else { return Poll::Ready(()) };
        let head = head.clone();
        let opened = ready!(opening.as_mut().poll(cx));
        self.opening = None;
        match opened {
            Ok((send, recv)) => {
                exchange.session().note_opened(exchange_id(&send));
                self.opened(send, recv, &head);
            }
            // The peer has never heard of it.
            Err(_) => self.breaks(ExchangeError::Reset(ResetCode::Unprocessed)),
        }
        Poll::Ready(())
    }

    fn has_unsent(&self) -> bool {
        self.opening.is_some() || !self.outbox.chunks.is_empty() || !self.outbox.scratch.is_empty()
    }

    fn try_flush(&mut self, exchange: &Exchange) {
        let _waits = self.flush(&mut Context::from_waker(Waker::noop()), exchange);
    }

    /// Hands over to quinn what waits; ready once nothing does.
    fn flush(&mut self, cx: &mut Context<'_>, exchange: &Exchange) -> Poll<()> {
        ready!(self.poll_open(cx, exchange));
        let Some(send) = &mut self.send else { return Poll::Ready(()) };
        self.outbox.seal();
        while !self.outbox.chunks.is_empty() {
            let polled = {
                let chunks = self.outbox.chunks.make_contiguous();
                pin!(send.write_chunks(chunks)).poll(cx)
            };
            match ready!(polled) {
                Ok(written) => drop(self.outbox.chunks.drain(..written.chunks)),
                Err(error) => {
                    self.write_failed(&error, exchange.role);
                    return Poll::Ready(());
                }
            }
        }
        if self.finished && !self.fin_sent {
            self.fin_sent = true;
            // What the peer has stopped is no error here; whoever reads the other direction hears of it.
            let _stopped = send.finish();
        }
        Poll::Ready(())
    }

    fn write_failed(&mut self, error: &WriteError, role: Role) {
        match *error {
            WriteError::Stopped(code) => self.was_stopped(code, role),
            // Ours: it was reset before.
            WriteError::ClosedStream => self.outbox = Outbox::default(),
            WriteError::ConnectionLost(_) | WriteError::ZeroRttRejected => self.breaks(ExchangeError::SessionLost),
        }
    }

    /// The peer has sent STOP_SENDING: of a client, NO_ERROR leaves the response standing.
    fn was_stopped(&mut self, code: VarInt, role: Role) {
        self.outbox = Outbox::default();
        let reset = reset_code(code);
        if role == Role::Daemon && reset == ResetCode::NoError {
            self.send_stopped = true;
            if let Some(send) = &mut self.send {
                let _closed = send.reset(code);
            }
        } else {
            self.abandon(reset);
        }
    }

    /// Ends both directions: RESET_STREAM and STOP_SENDING together.
    fn abandon(&mut self, code: ResetCode) {
        let number = VarInt::from_u32(code.to_u32());
        if let Some(send) = &mut self.send {
            let _closed = send.reset(number);
        }
        if let Some(recv) = self.recv.as_mut().filter(|_| !self.recv_ended) {
            let _closed = recv.stop(number);
        }
        self.breaks(ExchangeError::Reset(code));
    }

    fn breaks(&mut self, error: ExchangeError) {
        self.broken.get_or_insert(error);
        (self.opening, self.outbox, self.next) = (None, Outbox::default(), None);
        self.pieces.clear();
        wake(&mut self.send_waker);
        wake(&mut self.recv_waker);
    }

    /// Abandons an exchange that is not over. NO_ERROR would not abandon it, so it goes out as CANCELLED.
    fn reset(&mut self, code: ResetCode) {
        if self.broken.is_none() && !(self.recv_ended && self.fin_sent) {
            self.abandon(if code == ResetCode::NoError { ResetCode::Cancelled } else { code });
        }
    }

    /// Whether more may be sent; a body only behind a final head.
    fn may_send(&mut self, role: Role, body: bool) -> bool {
        if self.broken.is_some() || self.send_stopped || self.finished {
            return false;
        }
        // Before the stream is there, no poll has said that body bytes may come.
        if body && (self.opening.is_some() || role == Role::Client && !self.final_head_sent) {
            self.reset(ResetCode::LocalBroken);
            return false;
        }
        true
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, exchange: &Exchange) -> Poll<Result<Received, ExchangeError>> {
        let mut joined = Joined::default();
        loop {
            if let Some(next) = self.next.take() {
                return Poll::Ready(Ok(next));
            }
            if let Some(error) = self.broken {
                return Poll::Ready(Err(error));
            }
            let arrived = match self.reader.read() {
                Ok(arrived) => arrived,
                Err(error) => {
                    exchange.session().fail(&(&error).into());
                    self.breaks(ExchangeError::SessionLost);
                    continue;
                }
            };
            match arrived {
                Some(Arrived::Part(Received::Data { data, end })) => {
                    joined.push(data);
                    if end || joined.len() >= MOST_JOINED {
                        self.note_end();
                        return Poll::Ready(Ok(Received::Data { data: joined.take(), end }));
                    }
                    continue;
                }
                Some(Arrived::Part(part)) => {
                    self.note_end();
                    if joined.is_empty() {
                        return Poll::Ready(Ok(part));
                    }
                    self.next = Some(part);
                }
                // The reader lets no second request come.
                Some(Arrived::Request { .. }) => continue,
                None => match self.poll_pieces(cx, exchange) {
                    Poll::Ready(()) if joined.is_empty() || !self.pieces.is_empty() => {
                        if let Some(piece) = self.pieces.pop_front() {
                            self.reader.push(piece);
                        }
                        continue;
                    }
                    Poll::Pending if joined.is_empty() => return Poll::Pending,
                    _ => {}
                },
            }
            // What was joined goes first; the rest is found at the next call.
            return Poll::Ready(Ok(Received::Data { data: joined.take(), end: false }));
        }
    }

    /// Takes FIN off a stream whose last frame has come, so that quinn may forget it.
    fn note_end(&mut self) {
        if self.reader.has_ended() && !self.recv_ended {
            self.recv_ended = true;
            if let Some(recv) = &mut self.recv {
                let _fin = pin!(recv.read_chunks(&mut [Bytes::new()])).poll(&mut Context::from_waker(Waker::noop()));
            }
        }
    }

    /// Ready once there is a piece, or the exchange is broken.
    fn poll_pieces(&mut self, cx: &mut Context<'_>, exchange: &Exchange) -> Poll<()> {
        if !self.pieces.is_empty() {
            return Poll::Ready(());
        }
        ready!(self.poll_open(cx, exchange));
        let Some(recv) = &mut self.recv else { return Poll::Ready(()) };
        let mut pieces = [const { Bytes::new() }; PIECES];
        let polled = { pin!(recv.read_chunks(&mut pieces)).poll(cx) };
        match ready!(polled) {
            Ok(Some(count)) => self.pieces.extend(pieces.into_iter().take(count)),
            // FIN without END.
            Ok(None) => self.abandon(match exchange.role {
                Role::Daemon => ResetCode::LocalBroken,
                Role::Client => ResetCode::Cancelled,
            }),
            Err(ReadError::Reset(code)) => self.abandon(reset_code(code)),
            Err(ReadError::ConnectionLost(_)) => self.breaks(ExchangeError::SessionLost),
            Err(ReadError::ClosedStream | ReadError::IllegalOrderedRead | ReadError::ZeroRttRejected) => {
                self.breaks(ExchangeError::Reset(ResetCode::Cancelled));
            }
        }
        Poll::Ready(())
    }
}

impl Drop for Exchange {
    /// Both directions are let go of. What the caller has finished still goes out.
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        if inner.broken.is_some() || !inner.finished || inner.fin_sent {
            return;
        }
        let Some(mut send) = inner.send.take() else { return };
        let mut chunks: Vec<Bytes> = inner.outbox.chunks.drain(..).collect();
        let slot = self.slot.share();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if send.write_all_chunks(&mut chunks).await.is_ok() {
                    let _stopped = send.finish();
                }
                drop(slot);
            });
        }
    }
}

/// Exchange ids count the daemon's streams from 1.
pub(super) fn exchange_id(send: &SendStream) -> u32 {
    u32::try_from(send.id().index() + 1).unwrap_or(u32::MAX)
}

/// A stream's error code as a reset code. Codes beyond 32 bits are none of ours.
fn reset_code(code: VarInt) -> ResetCode {
    u32::try_from(code.into_inner()).map_or(ResetCode::Cancelled, ResetCode::from)
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
