//! A QUIC connection as h3 sees it.
//!
//! h3 does four things for us: it codes field sections, knows which heads are well-formed, speaks of settings, and says
//! GOAWAY. It reaches quinn only to write its own three streams. Of a request it sees the HEADERS frames, which the
//! guard has found to be bounded and whole. What it wants to send of a response is left for the request's task, which owns
//! the streams. So responses pass without a copy, and nothing here can block or panic.
//!
//! h3-quinn is not used, because it owns the streams. Behind it `stop_sending` panics while a read is pending, and futures
//! are boxed for each stream. A visitor who leaves is noticed only by writing to it.

use parking_lot::{Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h3::error::Code;
use h3::quic::{
    BidiStream, Connection, ConnectionErrorIncoming, OpenStreams, RecvStream, SendStream, StreamErrorIncoming,
    StreamId, WriteBuf,
};

use super::violation::wire;

/// A connection as h3 sees it: it hands out what was put in before.
#[derive(Debug)]
pub(super) struct Adapter {
    connection: quinn::Connection,
    /// For h3's own three streams.
    own: VecDeque<quinn::SendStream>,
    request: Option<Half>,
    control: Option<Control>,
}

impl Adapter {
    /// Over a connection, with the streams that are for h3's use.
    pub(super) fn new(connection: quinn::Connection, own: VecDeque<quinn::SendStream>) -> Self {
        Self { connection, own, request: None, control: None }
    }

    /// A request, for h3 to accept next.
    pub(super) fn offer_request(&mut self, half: Half) {
        self.request = Some(half);
    }

    /// The peer's control stream, with its settings and nothing else.
    pub(super) fn offer_control(&mut self, control: Control) {
        self.control = Some(control);
    }
}

impl Connection<Bytes> for Adapter {
    type RecvStream = Control;
    type OpenStreams = Self;

    /// The caller of `offer_control` polls h3 afterwards, so no waker is needed.
    fn poll_accept_recv(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Control, ConnectionErrorIncoming>> {
        self.control.take().map_or(Poll::Pending, |control| Poll::Ready(Ok(control)))
    }

    fn poll_accept_bidi(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Half, ConnectionErrorIncoming>> {
        self.request.take().map_or(Poll::Pending, |half| Poll::Ready(Ok(half)))
    }

    fn opener(&self) -> Self {
        Self::new(self.connection.clone(), VecDeque::new())
    }
}

impl OpenStreams<Bytes> for Adapter {
    type BidiStream = Half;
    type SendStream = Own;

    fn poll_open_bidi(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Half, StreamErrorIncoming>> {
        Poll::Ready(Err(StreamErrorIncoming::Unknown("a server makes no requests".into())))
    }

    fn poll_open_send(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Own, StreamErrorIncoming>> {
        let stream = self.own.pop_front().map(|stream| Own { stream, writing: None });
        Poll::Ready(stream.ok_or_else(|| StreamErrorIncoming::Unknown("no stream is left".into())))
    }

    fn close(&mut self, code: Code, reason: &[u8]) {
        self.connection.close(wire(code), reason);
    }
}

/// One of the streams that h3 writes by itself: its control stream and those of QPACK.
#[derive(Debug)]
pub(super) struct Own {
    stream: quinn::SendStream,
    writing: Option<BytesMut>,
}

impl SendStream<Bytes> for Own {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        while let Some(rest) = self.writing.as_mut().filter(|rest| !rest.is_empty()) {
            match std::task::ready!(std::pin::Pin::new(&mut self.stream).poll_write(cx, rest)) {
                Ok(written) => rest.advance(written),
                Err(quinn::WriteError::Stopped(code)) => {
                    return Poll::Ready(Err(StreamErrorIncoming::StreamTerminated { error_code: code.into_inner() }));
                }
                Err(error) => {
                    let connection_error = ConnectionErrorIncoming::Undefined(Arc::new(error));
                    return Poll::Ready(Err(StreamErrorIncoming::ConnectionErrorIncoming { connection_error }));
                }
            }
        }
        self.writing = None;
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.writing.get_or_insert_default().put(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        // These streams last as long as the connection (RFC 9114, section 6.2.1).
        Poll::Ready(Ok(()))
    }

    fn reset(&mut self, _code: u64) {}

    fn send_id(&self) -> StreamId {
        stream_id(self.stream.id())
    }
}

/// The peer's control stream as h3 sees it: the settings, and nothing after them.
#[derive(Debug)]
pub(super) struct Control {
    id: quinn::StreamId,
    settings: Option<Bytes>,
}

impl Control {
    /// A stream that holds one complete SETTINGS frame.
    pub(super) fn new(id: quinn::StreamId, settings: &Bytes) -> Self {
        let mut stream = BytesMut::with_capacity(1 + settings.len());
        // The stream's type.
        stream.put_u8(0);
        stream.extend_from_slice(settings);
        Self { id, settings: Some(stream.freeze()) }
    }
}

impl RecvStream for Control {
    type Buf = Bytes;

    fn poll_data(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        self.settings.take().map_or(Poll::Pending, |settings| Poll::Ready(Ok(Some(settings))))
    }

    fn stop_sending(&mut self, _code: u64) {}

    fn recv_id(&self) -> StreamId {
        stream_id(self.id)
    }
}

/// A request's stream, or one direction of it, as h3 sees it.
#[derive(Clone, Debug)]
pub(super) struct Half {
    id: quinn::StreamId,
    frames: Arc<Mutex<Frames>>,
}

/// Frames on their way between h3 and a request's task.
#[derive(Debug, Default)]
struct Frames {
    received: Option<Bytes>,
    ended: bool,
    to_send: BytesMut,
}

impl Half {
    /// Of a stream on which nothing has come.
    pub(super) fn new(id: quinn::StreamId) -> Self {
        Self { id, frames: Arc::default() }
    }

    /// Hands h3 the frame with a request's head.
    pub(super) fn put_head(&self, frame: Bytes) {
        self.lock().received = Some(frame);
    }

    /// Hands h3 the frame with a request's trailers, behind which the stream ends.
    pub(super) fn put_trailers(&self, frame: Bytes) {
        let mut frames = self.lock();
        frames.received = Some(frame);
        frames.ended = true;
    }

    /// Takes what h3 has written.
    pub(super) fn take_written(&self) -> Bytes {
        self.lock().to_send.split().freeze()
    }

    fn lock(&self) -> MutexGuard<'_, Frames> {
        self.frames.lock()
    }
}

impl RecvStream for Half {
    type Buf = Bytes;

    fn poll_data(&mut self, _cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, StreamErrorIncoming>> {
        let mut frames = self.lock();
        match frames.received.take() {
            Some(frame) => Poll::Ready(Ok(Some(frame))),
            None if frames.ended => Poll::Ready(Ok(None)),
            // h3 is asked only after it was given what it will want.
            None => Poll::Pending,
        }
    }

    /// h3's refusals come back as errors, and it is the request's task that carries them out.
    fn stop_sending(&mut self, _code: u64) {}

    fn recv_id(&self) -> StreamId {
        stream_id(self.id)
    }
}

impl SendStream<Bytes> for Half {
    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        Poll::Ready(Ok(()))
    }

    fn send_data<T: Into<WriteBuf<Bytes>>>(&mut self, data: T) -> Result<(), StreamErrorIncoming> {
        self.lock().to_send.put(data.into());
        Ok(())
    }

    fn poll_finish(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), StreamErrorIncoming>> {
        Poll::Ready(Ok(()))
    }

    /// See [`stop_sending`](RecvStream::stop_sending).
    fn reset(&mut self, _code: u64) {}

    fn send_id(&self) -> StreamId {
        stream_id(self.id)
    }
}

impl BidiStream<Bytes> for Half {
    type SendStream = Self;
    type RecvStream = Self;

    fn split(self) -> (Self, Self) {
        (self.clone(), self)
    }
}

/// QUIC's stream ids are h3's; they have 62 bits at the most.
fn stream_id(id: quinn::StreamId) -> StreamId {
    StreamId::try_from(u64::from(id)).unwrap_or_else(|_| unreachable!("quinn has no longer ids"))
}
