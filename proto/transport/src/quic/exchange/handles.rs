//! The two handles of an exchange on a stream.

use std::fmt;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use cok_proto::exchange::LINGER;
use cok_proto::frame::{self, MAX_RESPONSE_HEAD};
use cok_proto::head::{HeadTooLarge, fields_len};
use cok_proto::{ResetCode, ResponseHead, Role};
use http::HeaderMap;
use quinn::VarInt;
use tokio::time::timeout;

use super::{Exchange, State, Stream, wake};
use crate::{ExchangeError, Holding, Received, RecvHalf, SendHalf, set_waker};

/// The direction towards the peer.
pub(super) struct QuicSend(pub(super) Arc<Exchange>);

impl SendHalf for QuicSend {
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ExchangeError>> {
        let mut inner = self.0.lock();
        let waits = inner.flush(cx, &self.0).is_pending();
        if waits && inner.outbox.is_held() {
            // Without a write, only this tells that the peer has stopped the stream.
            let _stopped = inner.poll_stopped(cx, self.0.role);
        }
        if let Some(error) = inner.send_error() {
            return Poll::Ready(Err(error));
        }
        if waits {
            set_waker(&mut inner.send_waker, cx);
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_broken(&mut self, cx: &mut Context<'_>) -> Poll<ExchangeError> {
        let mut inner = self.0.lock();
        let _waits = inner.flush(cx, &self.0);
        if let Some(error) = inner.send_error() {
            return Poll::Ready(error);
        }
        set_waker(&mut inner.send_waker, cx);
        ready!(inner.poll_stopped(cx, self.0.role));
        Poll::Ready(inner.send_error().unwrap_or(ExchangeError::Reset(ResetCode::NoError)))
    }

    fn send_response(&mut self, head: ResponseHead, end: bool) -> Result<(), HeadTooLarge> {
        if head.encoded_len()? > MAX_RESPONSE_HEAD {
            return Err(HeadTooLarge);
        }
        let mut inner = self.0.lock();
        let interim = head.is_interim();
        let end = end && !interim;
        if !inner.hand_over(|send| send.head(interim, end)) {
            return Ok(());
        }
        if !interim && !inner.reader.answered(head.is_switch()) {
            inner.reset(ResetCode::LocalBroken);
            return Ok(());
        }
        let id = inner.id;
        frame::put_response(&mut inner.outbox.scratch, id, &head, end);
        // A head without the end waits for the first bytes of its body, at most until the next poll.
        if end {
            inner.try_flush(&self.0);
        }
        Ok(())
    }

    fn send_data(&mut self, data: Bytes, end: bool) {
        let mut inner = self.0.lock();
        if inner.hand_over_body(end) && (end || !data.is_empty()) {
            inner.push_data(data, end, &self.0);
            inner.try_flush(&self.0);
        }
    }

    fn send_trailers(&mut self, fields: HeaderMap) -> Result<(), HeadTooLarge> {
        if fields_len(&fields)? > MAX_RESPONSE_HEAD {
            return Err(HeadTooLarge);
        }
        let mut inner = self.0.lock();
        if inner.hand_over_body(true) {
            let id = inner.id;
            frame::put_trailers(inner.outbox.rear(), id, &fields);
            inner.try_flush(&self.0);
        }
        Ok(())
    }

    fn break_off(&mut self, code: ResetCode) {
        self.0.lock().break_off(code, &self.0);
    }

    fn reset(&mut self, code: ResetCode) {
        self.0.lock().reset(code);
    }
}

impl Drop for QuicSend {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.send_waker = None;
        if let State::Running { send } = inner.state
            && !send.may_leave()
        {
            match self.0.role {
                Role::Daemon => inner.reset(Role::Daemon.leaves_with()),
                Role::Client => inner.break_off(Role::Client.leaves_with(), &self.0),
            }
        }
        if inner.is_behind()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            let (exchange, lingers) = (self.0.clone(), inner.broke_off && self.0.role == Role::Daemon);
            runtime.spawn(async move {
                let rest = poll_fn(|cx| exchange.poll_rest(cx));
                if !lingers {
                    rest.await;
                } else if timeout(LINGER, rest).await.is_err() {
                    exchange.lock().abandon(ResetCode::Cancelled);
                }
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
pub(super) struct QuicRecv(pub(super) Arc<Exchange>);

impl RecvHalf for QuicRecv {
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<Received, ExchangeError>> {
        let mut inner = self.0.lock();
        if inner.has_unsent() {
            let _waits = inner.flush(cx, &self.0);
            // Quinn keeps one waker for a stream, and this poll may have replaced the sender's. A sender that still waits
            // polls again, and so gives it its own.
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

    fn charge_to(&mut self, holding: Arc<Holding>) {
        self.0.slot.charge_to(holding);
    }
}

impl Drop for QuicRecv {
    fn drop(&mut self) {
        let mut inner = self.0.lock();
        inner.recv_waker = None;
        // Quinn may have our waker instead of the sender's, so the sender has to poll again.
        wake(&mut inner.send_waker);
        // What arrives while it lingers is never read, so the connection window needs room for it.
        self.0.slot.note_read(!inner.broke_off);
        if inner.reader.has_ended() {
            return;
        }
        match self.0.role {
            // The client gets some time to take the request up to where it broke off.
            Role::Daemon if inner.broke_off => {}
            Role::Daemon => inner.reset(ResetCode::Cancelled),
            Role::Client => {
                if let Stream::Open { recv, .. } = &mut inner.stream {
                    let _closed = recv.stop(VarInt::from_u32(ResetCode::NoError.to_u32()));
                }
                inner.reader.stop();
            }
        }
    }
}

impl fmt::Debug for QuicRecv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("QuicRecv").field(&self.0.lock().id).finish()
    }
}
