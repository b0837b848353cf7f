//! One exchange on its stream. The handles of its two directions are in `handles`.
//!
//! Frames that quinn does not take at once wait here: at most those that were handed over after one `poll_ready`. Every
//! poll of either direction moves them on. Bodies are not copied on their way to quinn. From quinn, pieces that are
//! ready together are joined. The order of an exchange's parts is checked in cok-proto.

mod begin;
mod buffers;
mod handles;
mod turn;

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use cok_proto::exchange::{Handed, LINGER, MAX_CREDIT, RecvWindow, SendState};
use cok_proto::frame;
use cok_proto::stream::{Arrived, ExchangeReader};
use cok_proto::{ProtocolError, ResetCode, Role};
use parking_lot::{Mutex, MutexGuard};
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, StoppedError, VarInt, WriteError};

pub(super) use self::begin::{Accepted, Asked, Begin, exchange_id, turn_away};
use self::buffers::{Joined, MOST_JOINED, Outbox};
use self::handles::{QuicRecv, QuicSend};
use self::turn::Turn;
use super::shared::{Abandon, Shared, Slot};
use crate::{ExchangeError, Received, set_waker};

/// Pieces that are taken from quinn under one lock. This many packets of 1,200 bytes hold a full Data frame.
const PIECES: usize = 14;

/// Resolves to the stream once the peer grants one.
type Opening = Pin<Box<dyn Future<Output = Result<(SendStream, RecvStream), ConnectionError>> + Send>>;
/// Resolves once the peer stops the stream, with its code, or has everything.
type Stopped = Pin<Box<dyn Future<Output = Result<Option<VarInt>, StoppedError>> + Send + Sync>>;

/// The state that the two directions share.
pub(super) struct Exchange {
    role: Role,
    tunnel: u32,
    /// Dropped last: a draining session waits for it.
    slot: Slot,
    inner: Mutex<Inner>,
}

struct Inner {
    stream: Stream,
    state: State,
    id: u32,
    reader: ExchangeReader,
    /// Pieces taken from quinn that the reader has not got.
    pieces: VecDeque<Bytes>,
    /// What arrived behind joined body bytes: a part, or why the peer's direction broke off.
    next: Option<Result<Received, ResetCode>>,
    outbox: Outbox,
    /// Body bytes that the peer still takes.
    credit: u64,
    /// What the peer may still send.
    window: RecvWindow,
    /// Our direction ends with a break.
    broke_off: bool,
    turn: Turn,
    stopped: Option<Stopped>,
    /// The waiting tasks. Quinn forgets them when we reset a stream ourselves.
    recv_waker: Option<Waker>,
    send_waker: Option<Waker>,
}

/// The state of the stream.
enum Stream {
    /// Daemon: it opens once the peer grants it, and begins with this request.
    Opening { opening: Opening, asked: Asked },
    /// It carries both directions. It stays until the exchange is dropped, even if that is broken.
    Open { send: SendStream, recv: RecvStream },
    /// It was never opened.
    Missing,
}

/// Whether the exchange runs. The reader has the state of the direction from the peer.
#[derive(Clone, Copy)]
enum State {
    /// Each direction goes on to its own end.
    Running { send: SendState },
    /// It was abandoned, or the session ended under it.
    Broken(ExchangeError),
}

impl Exchange {
    /// Daemon: an exchange for this request.
    pub(super) fn request(begin: Begin, asked: Asked, slot: Slot) -> crate::ExchangeHalves {
        let reader = ExchangeReader::new(Role::Daemon, 0);
        let state = SendState::after_request(asked.end, asked.head.is_upgrade());
        let (mut inner, tunnel) = (Inner::new(Stream::Missing, state, 0, reader, slot.session()), asked.tunnel);
        match begin {
            Begin::Opened(send, recv) => inner.opened(send, recv, &asked, &slot),
            Begin::Opening(opening) => inner.stream = Stream::Opening { opening, asked },
        }
        let exchange = Arc::new(Self { role: Role::Daemon, tunnel, slot, inner: Mutex::new(inner) });
        // The session has to know it before its credit can come.
        let halves = Self::halves(exchange.clone());
        exchange.lock().try_flush(&exchange);
        halves
    }

    /// Client: an exchange whose request has been read off its stream.
    pub(super) fn response(arrived: Accepted, tunnel: u32, slot: Slot) -> crate::ExchangeHalves {
        let Accepted { send, recv, reader, id } = arrived;
        let stream = Stream::Open { send, recv };
        let inner = Inner::new(stream, SendState::before_response(), id, reader, slot.session());
        slot.set_id(id);
        Self::halves(Arc::new(Self { role: Role::Client, tunnel, slot, inner: Mutex::new(inner) }))
    }

    fn halves(exchange: Arc<Self>) -> crate::ExchangeHalves {
        let weak = Arc::downgrade(&exchange);
        exchange.slot.attach(weak);
        crate::ExchangeHalves { send: Box::new(QuicSend(exchange.clone())), recv: Box::new(QuicRecv(exchange)) }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    fn session(&self) -> &Arc<Shared> {
        self.slot.session()
    }

    /// Counts body bytes that go out, which justify WindowUpdates of a client.
    fn note_sent(&self, bytes: u64) {
        if self.role == Role::Daemon && bytes > 0 {
            let frames = bytes.div_ceil(frame::DATA_CHUNK as u64);
            self.session().note_sent(u32::try_from(frames).unwrap_or(u32::MAX), bytes);
        }
    }

    /// The sender's handle is gone. Ready once all that it handed over has gone out, or the exchange is over.
    fn poll_rest(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.lock();
        let over = inner.flush(cx, self).is_ready() || inner.send_error().is_some();
        if over || inner.poll_stopped(cx, self.role).is_ready() {
            return Poll::Ready(());
        }
        set_waker(&mut inner.send_waker, cx);
        Poll::Pending
    }
}

impl Abandon for Exchange {
    fn abandon(&self, code: ResetCode) {
        self.lock().reset(code);
    }

    fn credit(&self, increment: u32) {
        let mut inner = self.lock();
        let credit = inner.credit + u64::from(increment);
        if increment == 0 || credit > MAX_CREDIT {
            return inner.reset(ResetCode::Cancelled);
        }
        inner.credit = credit;
        if inner.outbox.is_held() {
            inner.try_flush(self);
            // Quinn may have the waker of neither now.
            wake(&mut inner.send_waker);
            wake(&mut inner.recv_waker);
        }
    }

    fn look(&self) {
        let mut inner = self.lock();
        // The reader may have come since. Behind what it has read, only the reader may judge the end of the stream.
        if !self.slot.waits() {
            return;
        }
        let Some(waker) = inner.recv_waker.clone() else { return };
        // The waker stays quinn's.
        let _waits = inner.poll_pieces(&mut Context::from_waker(&waker), self);
        let unread = !inner.pieces.is_empty();
        drop(inner);
        if unread {
            self.slot.note_unread();
        }
    }
}

impl Inner {
    fn new(stream: Stream, send: SendState, id: u32, reader: ExchangeReader, session: &Shared) -> Self {
        Self {
            credit: session.peer_window.into(),
            window: session.new_window(),
            stream,
            state: State::Running { send },
            id,
            reader,
            pieces: VecDeque::new(),
            next: None,
            outbox: Outbox::default(),
            broke_off: false,
            turn: Turn::default(),
            stopped: None,
            recv_waker: None,
            send_waker: None,
        }
    }

    /// Uses the stream that was opened; its number is the exchange's id.
    fn opened(&mut self, send: SendStream, recv: RecvStream, asked: &Asked, slot: &Slot) {
        self.id = exchange_id(&send);
        slot.set_id(self.id);
        self.reader = ExchangeReader::new(Role::Daemon, self.id);
        let mut first = BytesMut::new();
        frame::put_request(&mut first, self.id, asked.tunnel, &asked.head, asked.end);
        self.outbox.chunks.push_back(first.freeze());
        self.stream = Stream::Open { send, recv };
        wake(&mut self.send_waker);
        wake(&mut self.recv_waker);
    }

    fn poll_open(&mut self, cx: &mut Context<'_>, exchange: &Exchange) -> Poll<()> {
        let Stream::Opening { opening, asked } = &mut self.stream else { return Poll::Ready(()) };
        let asked = asked.clone();
        match ready!(opening.as_mut().poll(cx)) {
            Ok((send, recv)) => {
                exchange.session().note_opened(exchange_id(&send));
                self.opened(send, recv, &asked, &exchange.slot);
            }
            // The peer has not seen the request.
            Err(_) => self.breaks(ExchangeError::Reset(ResetCode::Unprocessed)),
        }
        Poll::Ready(())
    }

    /// Why nothing more is to be sent; NO_ERROR if the peer wants no more of the body.
    fn send_error(&self) -> Option<ExchangeError> {
        match self.state {
            State::Broken(error) => Some(error),
            State::Running { send: SendState::Stopped } => Some(ExchangeError::Reset(ResetCode::NoError)),
            State::Running { .. } => None,
        }
    }

    fn is_opening(&self) -> bool {
        matches!(self.stream, Stream::Opening { .. })
    }

    /// Whether something of our direction has not gone out, be it for want of credit.
    fn is_behind(&self) -> bool {
        self.outbox.is_held() || self.outbox.is_queued()
    }

    fn has_unsent(&self) -> bool {
        self.is_opening() || self.outbox.is_queued() || (self.outbox.is_held() && self.credit > 0)
    }

    /// Queues body bytes.
    fn push_data(&mut self, data: Bytes, end: bool, exchange: &Exchange) {
        let before = self.credit;
        self.outbox.push_data(self.id, data, end, &mut self.credit);
        exchange.note_sent(before - self.credit);
    }

    fn try_flush(&mut self, exchange: &Exchange) {
        let _waits = self.flush(&mut Context::from_waker(Waker::noop()), exchange);
    }

    /// Writes waiting frames to quinn. Ready once none waits, for room or for credit.
    fn flush(&mut self, cx: &mut Context<'_>, exchange: &Exchange) -> Poll<()> {
        ready!(self.poll_open(cx, exchange));
        if self.outbox.is_held() {
            let before = self.credit;
            self.outbox.release(self.id, &mut self.credit);
            exchange.note_sent(before - self.credit);
        }
        let Stream::Open { send, .. } = &mut self.stream else { return Poll::Ready(()) };
        self.outbox.seal();
        while !self.outbox.chunks.is_empty() {
            if exchange.session().is_contended() {
                ready!(self.turn.take(cx, exchange, send));
            } else {
                ready!(self.turn.take_alone(cx, exchange, send));
            }
            let polled = {
                let chunks = self.outbox.chunks.make_contiguous();
                pin!(send.write_chunks(chunks)).poll(cx)
            };
            self.turn.waits(polled.is_pending(), exchange);
            match ready!(polled) {
                Ok(written) => {
                    self.turn.sent(written.bytes, exchange);
                    drop(self.outbox.chunks.drain(..written.chunks));
                }
                Err(error) => {
                    self.write_failed(&error, exchange.role);
                    return Poll::Ready(());
                }
            }
        }
        if self.outbox.is_held() {
            return Poll::Pending;
        }
        if let State::Running { send: state } = &mut self.state {
            let before = *state;
            state.end();
            self.finish_after(before);
        }
        Poll::Ready(())
    }

    /// Sends FIN if the direction has ended since it was in the state `before`.
    fn finish_after(&mut self, before: SendState) {
        if let (Stream::Open { send, .. }, State::Running { send: SendState::Ended }) = (&mut self.stream, self.state)
            && before != SendState::Ended
        {
            // If the peer has stopped the stream, the reader of the other direction learns of it.
            let _stopped = send.finish();
        }
    }

    /// Daemon: the final head came.
    fn answered(&mut self, switch: bool, exchange: &Exchange) {
        let State::Running { send } = &mut self.state else { return };
        let before = *send;
        match send.answered(switch) {
            Ok(()) => self.finish_after(before),
            Err(error) => {
                exchange.session().fail(&(&error).into());
                self.breaks(ExchangeError::SessionLost);
            }
        }
    }

    fn write_failed(&mut self, error: &WriteError, role: Role) {
        match *error {
            WriteError::Stopped(code) => self.was_stopped(code, role),
            // We have reset it before.
            WriteError::ClosedStream => self.outbox = Outbox::default(),
            WriteError::ConnectionLost(_) | WriteError::ZeroRttRejected => self.breaks(ExchangeError::SessionLost),
        }
    }

    /// The peer has sent STOP_SENDING. If a client did with NO_ERROR, the response goes on.
    fn was_stopped(&mut self, code: VarInt, role: Role) {
        self.outbox = Outbox::default();
        let reset = reset_code(code);
        if role == Role::Daemon && reset == ResetCode::NoError {
            if let State::Running { send } = &mut self.state {
                send.stop();
            }
            if let Stream::Open { send, .. } = &mut self.stream {
                let _closed = send.reset(code);
            }
        } else {
            self.abandon(reset);
        }
    }

    /// Ends our direction with a Reset frame behind what was handed over, if any of a body may have been.
    fn break_off(&mut self, code: ResetCode, exchange: &Exchange) {
        let State::Running { send } = &mut self.state else { return };
        match send.break_off() {
            Handed::Queue if self.is_opening() => self.reset(code),
            Handed::Queue => {
                frame::put_break(self.outbox.rear(), self.id, code.or_cancelled());
                self.broke_off = true;
                self.try_flush(exchange);
            }
            Handed::Misuse => self.reset(code),
            Handed::Drop => {}
        }
    }

    /// The reader has come to where the peer's direction broke off. What this side still sends is not wanted, unless it
    /// is complete.
    fn read_break(&mut self, code: ResetCode) -> ExchangeError {
        self.next = Some(Err(code));
        if let (State::Running { send: state }, Stream::Open { send, .. }) = (self.state, &mut self.stream)
            && !state.may_leave()
        {
            let _closed = send.reset(VarInt::from_u32(ResetCode::Cancelled.to_u32()));
            self.breaks(ExchangeError::Reset(code));
        }
        ExchangeError::Reset(code)
    }

    /// Ends both directions: RESET_STREAM and STOP_SENDING together.
    fn abandon(&mut self, code: ResetCode) {
        let number = VarInt::from_u32(code.to_u32());
        if let Stream::Open { send, recv } = &mut self.stream {
            let _closed = send.reset(number);
            if !self.reader.has_ended() {
                let _closed = recv.stop(number);
            }
        }
        self.breaks(ExchangeError::Reset(code));
    }

    fn breaks(&mut self, error: ExchangeError) {
        if let State::Running { .. } = self.state {
            self.state = State::Broken(error);
        }
        if self.is_opening() {
            self.stream = Stream::Missing;
        }
        (self.outbox, self.next) = (Outbox::default(), None);
        self.pieces.clear();
        wake(&mut self.send_waker);
        wake(&mut self.recv_waker);
    }

    /// Abandons the exchange unless it is over. NO_ERROR would not abandon it, so it goes out as CANCELLED.
    fn reset(&mut self, code: ResetCode) {
        let State::Running { send } = self.state else { return };
        if !(self.reader.has_ended() && send.is_over()) {
            self.abandon(code.or_cancelled());
        }
    }

    /// Advances the sender's state by a part; whether the part is to be queued. A part out of order ends this exchange,
    /// because the peer would end the session.
    fn hand_over(&mut self, step: impl FnOnce(&mut SendState) -> Handed) -> bool {
        let State::Running { send } = &mut self.state else { return false };
        let handed = step(send);
        if handed == Handed::Misuse {
            self.reset(ResetCode::LocalBroken);
        }
        handed == Handed::Queue
    }

    /// The same for body bytes and trailers, which may come only after `poll_ready` and so not before the stream is
    /// open.
    fn hand_over_body(&mut self, end: bool) -> bool {
        let opening = self.is_opening();
        self.hand_over(|send| match send.body(end) {
            Handed::Queue if opening => Handed::Misuse,
            handed => handed,
        })
    }

    fn poll_recv(&mut self, cx: &mut Context<'_>, exchange: &Exchange) -> Poll<Result<Received, ExchangeError>> {
        let mut joined = Joined::default();
        loop {
            match self.next.take() {
                Some(Ok(next)) => return Poll::Ready(Ok(next)),
                Some(Err(code)) => return Poll::Ready(Err(self.read_break(code))),
                None => {}
            }
            if let State::Broken(error) = self.state {
                return Poll::Ready(Err(error));
            }
            let arrived = match self.reader.read(Instant::now()) {
                Ok(arrived) => arrived,
                Err(error) => {
                    exchange.session().fail(&(&error).into());
                    self.breaks(ExchangeError::SessionLost);
                    continue;
                }
            };
            match arrived {
                Some(Arrived::Part(Received::Data { data, end })) => {
                    if let Err(error) = self.take_body(data.len(), exchange) {
                        exchange.session().fail(&(&error).into());
                        self.breaks(ExchangeError::SessionLost);
                        continue;
                    }
                    joined.push(data);
                    if end || joined.len() >= MOST_JOINED {
                        self.note_end();
                        return Poll::Ready(Ok(Received::Data { data: joined.take(), end }));
                    }
                    continue;
                }
                Some(Arrived::Part(part)) => {
                    if let Received::Head { head, .. } = &part
                        && !head.is_interim()
                    {
                        self.answered(head.is_switch(), exchange);
                    }
                    self.note_end();
                    if joined.is_empty() {
                        return Poll::Ready(Ok(part));
                    }
                    self.next = Some(Ok(part));
                }
                Some(Arrived::Break(code)) => {
                    self.note_end();
                    self.next = Some(Err(code));
                    if joined.is_empty() {
                        continue;
                    }
                }
                // The reader refuses a second request.
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
            // The joined bytes go first; the next call returns the rest.
            return Poll::Ready(Ok(Received::Data { data: joined.take(), end: false }));
        }
    }

    /// Counts body bytes that the reader gets, and returns credit for them.
    fn take_body(&mut self, bytes: usize, exchange: &Exchange) -> Result<(), ProtocolError> {
        self.window.arrive(bytes).map_err(|excess| ProtocolError::CreditExceeded { id: self.id, excess })?;
        let unread = self.pieces.iter().map(Bytes::len).sum();
        let (session, before) = (exchange.session(), self.window.size());
        let now = Instant::now();
        let round_trip = || session.round_trip(now);
        if !self.reader.has_ended() && self.window.consume(bytes, unread, now, round_trip, &session.budget) {
            let grown = self.window.size() - before;
            exchange.slot.grant(self.id, self.window.take_grant(), grown);
        }
        Ok(())
    }

    /// Ready once the peer has stopped our direction, or has all of it.
    fn poll_stopped(&mut self, cx: &mut Context<'_>, role: Role) -> Poll<()> {
        if self.stopped.is_none()
            && let Stream::Open { send, .. } = &self.stream
        {
            self.stopped = Some(Box::pin(send.stopped()));
        }
        let Some(stopped) = &mut self.stopped else { return Poll::Pending };
        match ready!(stopped.as_mut().poll(cx)) {
            Ok(Some(code)) => self.was_stopped(code, role),
            // The peer has everything. The other direction reports what else happens.
            Ok(None) => {
                self.stopped = Some(Box::pin(std::future::pending()));
                return Poll::Pending;
            }
            Err(_) => self.breaks(ExchangeError::SessionLost),
        }
        Poll::Ready(())
    }

    /// Reads the FIN of a stream whose last frame has come, so that quinn can forget the stream.
    fn note_end(&mut self) {
        if self.reader.has_ended()
            && let Stream::Open { recv, .. } = &mut self.stream
        {
            let _fin = pin!(recv.read_chunks(&mut [Bytes::new()])).poll(&mut Context::from_waker(Waker::noop()));
        }
    }

    /// Gets pieces from quinn. Ready once there is one, or the exchange is broken.
    fn poll_pieces(&mut self, cx: &mut Context<'_>, exchange: &Exchange) -> Poll<()> {
        if !self.pieces.is_empty() {
            return Poll::Ready(());
        }
        ready!(self.poll_open(cx, exchange));
        let Stream::Open { recv, .. } = &mut self.stream else { return Poll::Ready(()) };
        let mut pieces = [const { Bytes::new() }; PIECES];
        let polled = { pin!(recv.read_chunks(&mut pieces)).poll(cx) };
        match ready!(polled) {
            Ok(Some(count)) => self.pieces.extend(pieces.into_iter().take(count)),
            // FIN without END.
            Ok(None) => self.abandon(exchange.role.peer().leaves_with()),
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
    /// Both handles are gone. A direction that was finished still goes out. A request that broke off also stays, at most for
    /// [`LINGER`]. It ends when the client has come to the break and answers with RESET_STREAM, or has ended its response.
    fn drop(&mut self) {
        let inner = self.inner.get_mut();
        inner.turn.leave(self.tunnel, self.slot.session());
        inner.window.release(&self.slot.session().budget);
        let State::Running { send: state } = inner.state else { return };
        let lingers = inner.broke_off && self.role == Role::Daemon && !inner.reader.has_ended();
        if !lingers && state != SendState::Finished {
            return;
        }
        let Stream::Open { mut send, mut recv } = std::mem::replace(&mut inner.stream, Stream::Missing) else { return };
        let mut chunks: Vec<Bytes> = inner.outbox.chunks.drain(..).collect();
        let slot = self.slot.share();
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                let sent = async {
                    let written = send.write_all_chunks(&mut chunks).await.is_ok();
                    // It may have been finished before.
                    let _closed = send.finish();
                    if written && lingers {
                        // The response may also end in order, if the service has never read as far as the break.
                        while let Ok(Some(_unwanted)) = recv.read_chunk(usize::MAX, false).await {}
                    }
                    written
                };
                if !lingers {
                    sent.await;
                } else if tokio::time::timeout(LINGER, sent).await != Ok(true) {
                    turn_away(send, recv, ResetCode::Cancelled);
                }
                drop(slot);
            });
        }
    }
}

/// A stream's error code as a reset code. Codes beyond 32 bits count as CANCELLED.
fn reset_code(code: VarInt) -> ResetCode {
    u32::try_from(code.into_inner()).map_or(ResetCode::Cancelled, ResetCode::from)
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
