//! One exchange on its stream, and its two directions as their user holds them.
//!
//! Frames that quinn does not take at once wait here, at most what was handed over after one `poll_ready`; every poll of
//! either direction moves them on. Nothing is copied towards quinn; from it, pieces that are ready together are joined.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use cok_proto::frame::{self, DATA_CHUNK, ID_LEN, MAX_HEAD};
use cok_proto::head::{HeadTooLarge, fields_len};
use cok_proto::mux::{MAX_INTERIM_HEADS, Role};
use cok_proto::stream::{Arrived, ExchangeReader};
use cok_proto::{RequestHead, ResetCode, ResponseHead};
use http::HeaderMap;
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, StoppedError, VarInt, WriteError};

use super::shared::{Shared, Slot};
use crate::{ExchangeError, Received, RecvHalf, SendHalf};

/// Pieces that are taken from quinn under one lock: a full Data frame in packets of 1,200 bytes and more.
const PIECES: usize = 14;
/// Body bytes that are joined before they are handed on: a full Data frame.
const MOST_JOINED: usize = 16 * 1024;
/// Body bytes up to here are copied behind their frame's header; longer ones stay where they are.
const COPY_BELOW: usize = 1024;

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

/// Frames that quinn has not taken yet.
#[derive(Default)]
struct Outbox {
    chunks: VecDeque<Bytes>,
    /// Where headers and short bodies are written; handed over in parts.
    scratch: BytesMut,
}

impl Outbox {
    /// Moves what was written to the scratch space into the queue.
    fn seal(&mut self) {
        if !self.scratch.is_empty() {
            self.chunks.push_back(self.scratch.split().freeze());
        }
    }

    fn push_data(&mut self, id: u32, mut data: Bytes, end: bool) {
        loop {
            let chunk = data.split_to(data.len().min(DATA_CHUNK));
            let last = data.is_empty();
            frame::put_data_header(&mut self.scratch, id, chunk.len(), end && last);
            if chunk.len() <= COPY_BELOW {
                self.scratch.extend_from_slice(&chunk);
            } else {
                self.seal();
                self.chunks.push_back(chunk);
            }
            if last {
                return self.seal();
            }
        }
    }
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

/// Body bytes that are ready together, in one piece of memory.
#[derive(Default)]
struct Joined {
    first: Bytes,
    more: BytesMut,
}

impl Joined {
    fn push(&mut self, data: Bytes) {
        if self.first.is_empty() && self.more.is_empty() {
            self.first = data;
            return;
        }
        if self.more.is_empty() {
            self.more.reserve(MOST_JOINED + self.first.len());
            self.more.extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.more.extend_from_slice(&data);
    }

    fn len(&self) -> usize {
        self.first.len() + self.more.len()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn take(&mut self) -> Bytes {
        if self.more.is_empty() { std::mem::take(&mut self.first) } else { self.more.split().freeze() }
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

/// The direction towards the peer.
struct QuicSend(Arc<Exchange>);

impl SendHalf for QuicSend {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        let mut inner = self.0.lock();
        let waits = inner.flush(cx, &self.0).is_pending();
        if let Some(error) = inner.broken {
            return Poll::Ready(Err(error));
        }
        if inner.send_stopped {
            return Poll::Ready(Err(ExchangeError::Reset(ResetCode::NoError)));
        }
        if waits {
            set_waker(&mut inner.send_waker, cx);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<ExchangeError> {
        let mut inner = self.0.lock();
        let opening = inner.flush(cx, &self.0).is_pending() && inner.send.is_none();
        if let Some(error) = inner.broken {
            return Poll::Ready(error);
        }
        if inner.send_stopped {
            return Poll::Ready(ExchangeError::Reset(ResetCode::NoError));
        }
        set_waker(&mut inner.send_waker, cx);
        if opening {
            return Poll::Pending;
        }
        if inner.stopped.is_none() {
            let stopped = inner.send.as_ref().map(SendStream::stopped);
            inner.stopped = stopped.map(|stopped| Box::pin(stopped) as Stopped);
        }
        let Some(stopped) = &mut inner.stopped else { return Poll::Pending };
        match ready!(stopped.as_mut().poll(cx)) {
            Ok(Some(code)) => inner.was_stopped(code, self.0.role),
            // All is delivered; what else may happen, the other direction shows.
            Ok(None) => {
                inner.stopped = Some(Box::pin(std::future::pending()));
                return Poll::Pending;
            }
            Err(_) => inner.breaks(ExchangeError::SessionLost),
        }
        Poll::Ready(inner.broken.unwrap_or(ExchangeError::Reset(ResetCode::NoError)))
    }

    fn send_response(&mut self, head: ResponseHead, end: bool) -> Result<(), HeadTooLarge> {
        if head.encoded_len()? > MAX_HEAD - ID_LEN {
            return Err(HeadTooLarge);
        }
        let mut inner = self.0.lock();
        if !inner.may_send(self.0.role, false) {
            return Ok(());
        }
        if self.0.role == Role::Daemon || inner.final_head_sent {
            inner.reset(ResetCode::LocalBroken);
            return Ok(());
        }
        let end = end && !head.is_interim();
        if !head.is_interim() {
            inner.final_head_sent = true;
        } else if inner.interim_heads == MAX_INTERIM_HEADS {
            return Ok(());
        } else {
            inner.interim_heads += 1;
        }
        let id = inner.id;
        frame::put_response(&mut inner.outbox.scratch, id, &head, end);
        inner.finished = end;
        // A head that is not the end waits for its body's first bytes, until the next poll at the latest.
        if end {
            inner.try_flush(&self.0);
        }
        Ok(())
    }

    fn send_data(&mut self, data: Bytes, end: bool) {
        let mut inner = self.0.lock();
        if inner.may_send(self.0.role, true) && (end || !data.is_empty()) {
            let id = inner.id;
            inner.outbox.push_data(id, data, end);
            inner.finished = end;
            inner.try_flush(&self.0);
        }
    }

    fn send_trailers(&mut self, fields: HeaderMap) -> Result<(), HeadTooLarge> {
        if fields_len(&fields)? > MAX_HEAD - ID_LEN {
            return Err(HeadTooLarge);
        }
        let mut inner = self.0.lock();
        if inner.may_send(self.0.role, true) {
            let id = inner.id;
            frame::put_trailers(&mut inner.outbox.scratch, id, &fields);
            inner.finished = true;
            inner.try_flush(&self.0);
        }
        Ok(())
    }

    fn reset(&mut self, code: ResetCode) {
        self.0.lock().reset(code);
    }
}

impl Drop for QuicSend {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.send_waker = None;
        if !inner.finished && !inner.send_stopped {
            inner.reset(match self.0.role {
                Role::Daemon => ResetCode::Cancelled,
                Role::Client => ResetCode::LocalBroken,
            });
        }
    }
}

impl fmt::Debug for QuicSend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QuicSend").field(&self.0.lock().id).finish()
    }
}

/// The direction from the peer.
struct QuicRecv(Arc<Exchange>);

impl RecvHalf for QuicRecv {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, ExchangeError>> {
        let mut inner = self.0.lock();
        if inner.has_unsent() && inner.flush(cx, &self.0).is_ready() {
            // quinn keeps one waker a stream, and it may have been ours.
            wake(&mut inner.send_waker);
        }
        let polled = inner.poll_recv(cx, &self.0);
        self.0.slot.note_read(polled.is_pending());
        if polled.is_pending() {
            set_waker(&mut inner.recv_waker, cx);
        }
        polled
    }

    fn reset(&mut self, code: ResetCode) {
        self.0.lock().reset(code);
    }
}

impl Drop for QuicRecv {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.recv_waker = None;
        // Should quinn know only of us that we wait for room, the sender has to ask again.
        wake(&mut inner.send_waker);
        self.0.slot.note_read(true);
        if inner.recv_ended {
            return;
        }
        match self.0.role {
            Role::Daemon => inner.reset(ResetCode::Cancelled),
            Role::Client => {
                if let Some(recv) = &mut inner.recv {
                    let _closed = recv.stop(VarInt::from_u32(ResetCode::NoError.to_u32()));
                }
                inner.recv_ended = true;
            }
        }
    }
}

impl fmt::Debug for QuicRecv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QuicRecv").field(&self.0.lock().id).finish()
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

fn set_waker(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) => waker.clone_from(cx.waker()),
        None => *slot = Some(cx.waker().clone()),
    }
}
