//! The task that owns a session's pipe. It feeds the multiplexer messages, writes what is ready, and keeps the time.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use cok_proto::{ErrorCode, ErrorMessage, SessionError};
use tokio::time::Sleep;
use tracing::trace;

use super::Shared;
use crate::{CloseReason, Status, set_waker};

/// Messages read in one go. Then other tasks of the thread get a turn, and answers are written.
const READ_BURST: usize = 32;
/// Messages written in one go: half a megabyte.
const WRITE_BURST: usize = 32;
/// Bytes reserved for a message: enough for control frames and small heads. The buffer grows for longer ones.
const SMALL_MESSAGE: usize = 512;
/// How long an ended session may take to write its last frame and close its pipe.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// An ordered, reliable pipe of binary messages with a bounded write buffer.
pub(crate) trait Pipe: Send + Unpin + 'static {
    /// Polls for the next message. `None` once the peer has closed cleanly.
    fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, CloseReason>>>;
    /// Ready once [`Pipe::start_send`] may be called.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CloseReason>>;
    /// Takes a message into the write buffer.
    fn start_send(&mut self, message: Bytes) -> Result<(), CloseReason>;
    /// Writes the buffer out.
    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CloseReason>>;
    /// Closes cleanly.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<()>;
    /// A count that grows with what the pipe carries in either direction; 0 if that is not known.
    fn progress(&self) -> u64 {
        0
    }
}

pub(super) struct Driver<P> {
    shared: Arc<Shared>,
    pipe: P,
    timer: Pin<Box<Sleep>>,
    /// The buffer in which messages are built. Its memory comes back once the pipe has copied it.
    message: BytesMut,
    woken: Vec<Waker>,
    unflushed: bool,
    /// What is to be sent now has waited for the other tasks that are ready.
    gathered: bool,
    closing: bool,
    /// Everything is written and the pipe is closed on our side.
    closed: bool,
}

impl<P: Pipe> Driver<P> {
    pub(super) fn new(shared: Arc<Shared>, pipe: P) -> Self {
        Self {
            shared,
            pipe,
            timer: Box::pin(tokio::time::sleep(cok_proto::session::PING_AFTER)),
            message: BytesMut::new(),
            woken: Vec::new(),
            unflushed: false,
            gathered: false,
            closing: false,
            closed: false,
        }
    }

    /// Takes messages in. Pending once the pipe is empty, ready if there may be more.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CloseReason>> {
        for _ in 0..READ_BURST {
            let message = match ready!(self.pipe.poll_recv(cx)) {
                Some(Ok(message)) => message,
                Some(Err(reason)) => {
                    if let CloseReason::Session(SessionError::Protocol(error)) = &reason {
                        self.shared.lock().mux.fail(&error.into());
                    }
                    return Poll::Ready(Err(reason));
                }
                None => return Poll::Ready(Err(CloseReason::PeerClosed)),
            };
            let mut state = self.shared.lock();
            let received = state.mux.receive(message, Instant::now());
            state.collect_events();
            let drain = state.drain.take();
            std::mem::swap(&mut state.woken, &mut self.woken);
            drop(state);
            self.announce_drain(drain);
            self.wake();
            received?;
        }
        Poll::Ready(Ok(()))
    }

    /// Writes messages. Pending once nothing is left or the pipe is full, ready if there may be more.
    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CloseReason>> {
        for _ in 0..WRITE_BURST {
            ready!(self.pipe.poll_ready(cx))?;
            let mut state = self.shared.lock();
            if !state.has_transmit() {
                set_waker(&mut state.driver, cx);
                return Poll::Pending;
            }
            self.message.reserve(SMALL_MESSAGE);
            if !state.mux.transmit(&mut self.message) {
                continue;
            }
            state.collect_events();
            std::mem::swap(&mut state.woken, &mut self.woken);
            drop(state);
            self.wake();
            self.pipe.start_send(self.message.split().freeze())?;
            self.unflushed = true;
        }
        Poll::Ready(Ok(()))
    }

    /// Acts on timeouts and sets the timer to the next one.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        loop {
            let mut state = self.shared.lock();
            let drain_deadline = state.mux.drain_deadline();
            let Some(next) = state.mux.next_timeout() else { return Ok(()) };
            let next = drain_deadline.map_or(next, |drain| drain.min(next));
            // Deadlines mostly move into the future, so the timer is reset only if it has fired or is too late.
            if next < self.timer.deadline().into_std() {
                self.timer.as_mut().reset(next.into());
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
            let now = Instant::now();
            if drain_deadline.is_some_and(|deadline| deadline <= now) {
                let error = ErrorMessage {
                    code: ErrorCode::Shutdown,
                    message: "the deadline for open exchanges has passed".to_owned(),
                    retryable: true,
                };
                state.mux.fail(&error);
                state.collect_events();
                std::mem::swap(&mut state.woken, &mut self.woken);
                drop(state);
                self.wake();
                return Err(SessionError::Local(error).into());
            }
            let result = state.mux.handle_timeout(now);
            // The timer fires when the session is idle, and an idle session holds no buffer.
            self.message = BytesMut::new();
            state.collect_events();
            std::mem::swap(&mut state.woken, &mut self.woken);
            let next = state.mux.next_timeout().unwrap_or(now + CLOSE_WITHIN);
            drop(state);
            self.wake();
            result?;
            let next = drain_deadline.map_or(next, |drain| drain.min(next));
            self.timer.as_mut().reset(next.into());
        }
    }

    /// Whether to let other tasks run before the next write. The runtime runs a task that was just woken next, before
    /// others that are ready. So without this, each of many visitors who ask at once would cost a write of its own.
    fn gathers(&mut self) -> bool {
        if std::mem::take(&mut self.gathered) {
            return false;
        }
        let state = self.shared.lock();
        self.gathered = state.has_transmit() && state.mux.open_exchanges() > 1 && !state.mux.is_closed();
        self.gathered
    }

    /// Does one round of reading, timeouts and writing. Ready once the session has ended.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let mut more = match self.poll_read(cx) {
            Poll::Ready(Err(reason)) => return Poll::Ready(reason),
            poll => poll.is_ready(),
        };
        if let Err(reason) = self.poll_time(cx) {
            return Poll::Ready(reason);
        }
        if self.gathers() {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        match self.poll_write(cx) {
            Poll::Ready(Err(reason)) => return Poll::Ready(reason),
            poll => more |= poll.is_ready(),
        }
        if self.unflushed {
            match self.pipe.poll_flush(cx) {
                Poll::Ready(Ok(())) => self.unflushed = false,
                Poll::Ready(Err(reason)) => return Poll::Ready(reason),
                Poll::Pending => {}
            }
        }
        let mut state = self.shared.lock();
        set_waker(&mut state.attention, cx);
        if std::mem::take(&mut state.probed) {
            state.progress = self.pipe.progress();
        }
        if state.mux.is_closed() {
            let reason = state.close_reason.clone();
            return Poll::Ready(reason.unwrap_or(CloseReason::Drained));
        }
        if state.mux.is_drained() && !self.unflushed {
            return Poll::Ready(CloseReason::Drained);
        }
        drop(state);
        if more {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// Ends the session: wakes all tasks that wait for it. The last frame goes out afterwards.
    fn end(&mut self, reason: CloseReason) {
        trace!(%reason, "session ended");
        let mut state = self.shared.lock();
        // The peer's Drain and the pipe's end may be read in one go.
        let drained = reason == CloseReason::PeerClosed && state.mux.is_drained();
        let reason = if drained { CloseReason::Drained } else { reason };
        let reason = state.close_reason.get_or_insert(reason).clone();
        if !state.mux.is_closed() {
            state.mux.close();
        }
        state.collect_events();
        state.driver = None;
        std::mem::swap(&mut state.woken, &mut self.woken);
        drop(state);
        self.shared.status.send_replace(Status::Closed(reason));
        self.wake();
        self.closing = true;
        self.timer.as_mut().reset((Instant::now() + CLOSE_WITHIN).into());
    }

    /// Writes the last frame and closes the pipe, within [`CLOSE_WITHIN`]. It reads and drops what the peer still
    /// sends: unread bytes would make the kernel reset the connection, and the last frame would be lost.
    fn poll_closing(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.timer.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if !self.closed {
            self.closed = self.poll_last_frames(cx).is_ready();
        }
        for _ in 0..READ_BURST {
            match ready!(self.pipe.poll_recv(cx)) {
                Some(Ok(_dropped)) => {}
                Some(Err(_)) | None if self.closed => return Poll::Ready(()),
                Some(Err(_)) | None => return Poll::Pending,
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn poll_last_frames(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if ready!(self.pipe.poll_ready(cx)).is_err() {
                return Poll::Ready(());
            }
            let message = {
                let mut state = self.shared.lock();
                state.mux.transmit(&mut self.message).then(|| self.message.split().freeze())
            };
            let Some(message) = message else { break };
            if self.pipe.start_send(message).is_err() {
                return Poll::Ready(());
            }
        }
        self.pipe.poll_close(cx)
    }

    fn announce_drain(&self, drain: Option<cok_proto::Drain>) {
        if let Some(drain) = drain {
            self.shared.status.send_replace(Status::Draining(drain));
        }
    }

    fn wake(&mut self) {
        for waker in self.woken.drain(..) {
            waker.wake();
        }
    }
}

impl<P: Pipe> Future for Driver<P> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if !self.closing {
            let reason = ready!(self.poll_open(cx));
            self.end(reason);
        }
        self.poll_closing(cx)
    }
}
