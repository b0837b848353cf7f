//! The body of a request over HTTP/3: read from QUIC chunk by chunk, as it is wanted. QUIC's windows are the back
//! pressure.

use std::future::Future as _;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h3::error::{Code, StreamError};
use h3::server::RequestStream;
use http::HeaderMap;
use http_body::Frame;
use quinn::ReadError;

use super::account::Account;
use super::fields::check_trailers;
use super::frames::{Piece, RequestFrames};
use super::quic::Half;
use super::request_state::RequestState;
use super::violation::{Scope, Violation, wire};
use crate::edge::interim::InterimHeads;
use crate::edge::request::{BrokenOff, VisitorStream};

/// How much of what is there already goes on as one chunk: about what a Data frame of the tunnel holds. A packet brings
/// little more than a kilobyte.
const GATHER: usize = 16 * 1024;

/// The incoming side of a request's stream. Dropping it asks the visitor to stop sending.
#[derive(Debug)]
pub(super) struct Receiver {
    stream: quinn::RecvStream,
    connection: quinn::Connection,
    frames: RequestFrames,
    state: Arc<RequestState>,
    account: Account,
    /// Nothing more will come.
    ended: bool,
}

/// Why a request's stream has broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Broken {
    /// The visitor broke a rule.
    Violation(Violation),
    /// The visitor has reset it, or its connection is gone.
    Gone,
}

impl From<Violation> for Broken {
    fn from(violation: Violation) -> Self {
        Self::Violation(violation)
    }
}

impl Receiver {
    /// Of a stream that has just been opened.
    pub(super) fn new(
        stream: quinn::RecvStream,
        connection: quinn::Connection,
        state: Arc<RequestState>,
        account: Account,
    ) -> Self {
        Self { stream, connection, frames: RequestFrames::new(), state, account, ended: false }
    }

    /// The next piece; `None` at the end.
    pub(super) fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Piece>, Broken>> {
        loop {
            let piece = self.frames.next();
            // What is refused has its price as well.
            self.account.settle(&mut self.frames.toll)?;
            if let Some(piece) = piece? {
                return Poll::Ready(Ok(Some(piece)));
            }
            if self.ended {
                return Poll::Ready(Ok(None));
            }
            match ready!(pin!(self.stream.read_chunk(usize::MAX, true)).poll(cx)) {
                Ok(Some(chunk)) => self.frames.push(chunk.bytes),
                Ok(None) => {
                    self.ended = true;
                    self.frames.end()?;
                }
                Err(error) => {
                    self.ended = true;
                    debug_assert!(!matches!(error, ReadError::IllegalOrderedRead));
                    return Poll::Ready(Err(Broken::Gone));
                }
            }
        }
    }

    /// Ready once the visitor has reset the stream, or its connection is gone.
    fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ended {
            return Poll::Pending;
        }
        let reset = ready!(pin!(self.stream.received_reset()).poll(cx));
        if matches!(reset, Ok(None)) {
            // All of it has come.
            return Poll::Pending;
        }
        self.ended = true;
        Poll::Ready(())
    }

    /// Abandons the request, and closes the connection if the violation demands it.
    pub(super) fn give_up(&self, broken: Broken) {
        match broken {
            Broken::Violation(Violation { scope: Scope::Stream, code, .. }) => self.state.abort(code),
            Broken::Violation(Violation { scope: Scope::Connection, code, reason }) => {
                self.connection.close(wire(code), reason.as_bytes());
                self.state.abort(code);
            }
            Broken::Gone => self.state.abort(Code::H3_REQUEST_CANCELLED),
        }
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        if !self.ended {
            // The response stands, however much of the request there is left (RFC 9114, section 4.1).
            let code = self.state.aborted().unwrap_or(Code::H3_NO_ERROR);
            let _already_stopped = self.stream.stop(wire(code));
        }
    }
}

/// A request's body.
pub(super) struct Body {
    receiver: Receiver,
    /// Decodes the trailers.
    h3: RequestStream<Half, Bytes>,
    half: Half,
    state: Arc<RequestState>,
    /// What was read before it was wanted.
    first: Option<Frame<Bytes>>,
    /// What the head promised.
    declared: Option<u64>,
    received: u64,
    trailers: Option<Bytes>,
    /// Nothing more will be handed out.
    done: bool,
}

impl std::fmt::Debug for Body {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body")
            .field("receiver", &self.receiver)
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

impl Body {
    /// What follows a head. If it is known by now that nothing does, it has ended.
    pub(super) fn new(
        receiver: Receiver,
        h3: RequestStream<Half, Bytes>,
        half: Half,
        state: Arc<RequestState>,
        declared: Option<u64>,
    ) -> Result<Self, BrokenOff> {
        let mut body =
            Self { receiver, h3, half, state, first: None, declared, received: 0, trailers: None, done: false };
        let mut cx = Context::from_waker(std::task::Waker::noop());
        if let Poll::Ready(Some(first)) = body.poll_next(&mut cx) {
            body.first = Some(first?);
        }
        Ok(body)
    }

    /// The next of it.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        if self.done {
            return Poll::Ready(None);
        }
        let read = ready!(self.poll_read(cx));
        if let Err(broken) = read {
            self.done = true;
            self.receiver.give_up(broken);
        }
        Poll::Ready(read.map_err(|_| BrokenOff).transpose())
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, Broken>> {
        loop {
            match ready!(self.receiver.poll_piece(cx))? {
                Some(Piece::Data(data)) => {
                    return Poll::Ready(self.gather(&data, cx).map(|data| Some(Frame::data(data))));
                }
                Some(Piece::Trailers(frame)) => self.trailers = Some(frame),
                // The guard lets no second one through.
                Some(Piece::Head(_)) => {}
                None => {
                    self.end()?;
                    let trailers = self.trailers.take().map(|frame| self.decode(frame, cx)).transpose()?;
                    return Poll::Ready(Ok(trailers.map(Frame::trailers)));
                }
            }
        }
    }

    /// A chunk, and what else is there by now. It is copied: a few bytes of a packet would keep all of it in memory, and
    /// what arrived together with it.
    fn gather(&mut self, first: &Bytes, cx: &mut Context<'_>) -> Result<Bytes, Broken> {
        self.count(first)?;
        let mut gathered = BytesMut::from(&first[..]);
        while gathered.len() < GATHER && self.trailers.is_none() {
            match self.receiver.poll_piece(cx) {
                Poll::Pending => break,
                Poll::Ready(piece) => match piece? {
                    Some(Piece::Data(data)) => {
                        self.count(&data)?;
                        gathered.extend_from_slice(&data);
                    }
                    Some(Piece::Trailers(frame)) => self.trailers = Some(frame),
                    Some(Piece::Head(_)) => {}
                    None => {
                        self.end()?;
                        break;
                    }
                },
            }
        }
        Ok(gathered.freeze())
    }

    /// Nothing more will come, but for trailers that are there already.
    fn end(&mut self) -> Result<(), Violation> {
        self.done = true;
        if self.declared.is_some_and(|declared| declared != self.received) {
            return Err(Violation::malformed("less body than its content-length"));
        }
        Ok(())
    }

    fn count(&mut self, data: &Bytes) -> Result<(), Violation> {
        self.received += data.len() as u64;
        if self.declared.is_some_and(|declared| self.received > declared) {
            return Err(Violation::malformed("more body than its content-length"));
        }
        Ok(())
    }

    fn decode(&mut self, frame: Bytes, cx: &mut Context<'_>) -> Result<HeaderMap, Broken> {
        self.half.put_trailers(frame);
        let trailers = match self.h3.poll_recv_trailers(cx) {
            Poll::Ready(Ok(Some(trailers))) => trailers,
            Poll::Ready(Err(StreamError::HeaderTooBig { .. })) => {
                return Err(Violation::stream(Code::H3_EXCESSIVE_LOAD, "trailers that are too long").into());
            }
            // h3 closes the connection by itself where that is due.
            Poll::Ready(Err(StreamError::ConnectionError { .. })) => return Err(Broken::Gone),
            Poll::Ready(_) | Poll::Pending => return Err(Violation::malformed("trailers that are none").into()),
        };
        check_trailers(&trailers)?;
        Ok(trailers)
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        self.get_mut().poll_next(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.done && self.first.is_none()
    }
}

impl VisitorStream for Body {
    fn poll_abandoned(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.done {
            return Poll::Pending;
        }
        ready!(self.receiver.poll_reset(cx));
        self.done = true;
        self.receiver.give_up(Broken::Gone);
        Poll::Ready(())
    }

    fn interim(&self) -> Arc<InterimHeads> {
        self.state.interim.clone()
    }
}
