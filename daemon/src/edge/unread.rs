//! What a visitor leaves unread: bytes that its connection takes no more of, and answers of the daemon's own that wait in a
//! stream. Exchanges have their own watch; this holds for pages, redirects and refusals as well.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use tokio_rustls::server::TlsStream;
use tracing::debug;

use super::visitor::Visitor;
use crate::exchanges::{Exchanges, Leash};
use crate::host::flushes::Layer;
use crate::host::tcp_queue::{taken, unanswered};

/// How often the kernel asks a silent visitor whether it is there.
const PROBES: u32 = 3;
/// The shortest time after which a visitor counts as vanished.
const LEAST: Duration = Duration::from_secs(PROBES as u64);
/// Looks within the time for a stall.
const LOOKS: u32 = 4;

/// A visitor's connection over TCP. It breaks once the visitor takes nothing of what was written for as long as it may
/// stand still.
#[derive(Debug)]
pub(super) struct Timed {
    stream: TlsStream<TcpStream>,
    visitor: Arc<Visitor>,
    /// Since when bytes wait, and what the visitor had taken then.
    still: Option<(Instant, u64)>,
    /// Wakes the writer. It may be early, and is kept for the next time.
    look: Option<Pin<Box<Sleep>>>,
    /// Looks after a visitor that may pause.
    pulse: Option<Pulse>,
}

/// Looks whether a visitor is still there whose connection carries bytes for it.
#[derive(Debug)]
struct Pulse {
    next: Pin<Box<Sleep>>,
    /// Since when something is sent again and again.
    silent: Option<Instant>,
}

impl Timed {
    /// Of a fresh connection.
    pub(super) fn new(stream: TlsStream<TcpStream>, visitor: Arc<Visitor>) -> Self {
        // The kernel counts in seconds.
        let limit = visitor.edge.exchanges.config().stall_timeout.max(LEAST);
        // Without them nothing ends a connection to a machine that has gone, if nothing is sent.
        let probes = TcpKeepalive::new().with_time(limit).with_interval(limit / PROBES).with_retries(PROBES);
        let _already_closed = SockRef::from(stream.get_ref().0).set_tcp_keepalive(&probes);
        Self { stream, visitor, still: None, look: None, pulse: None }
    }

    /// The stream itself.
    pub(super) fn into_inner(self) -> TlsStream<TcpStream> {
        self.stream
    }

    /// Whether nothing can be read now; then the socket wakes the task. Asking it costs a third of a read through TLS, and the
    /// library reads three times in vain for each request.
    fn has_nothing_to_read(&self, cx: &mut Context<'_>) -> bool {
        let (socket, tls) = self.stream.get_ref();
        tls.wants_read() && socket.poll_read_ready(cx).is_pending()
    }

    /// Ready with an error once a visitor that may pause has vanished: its machine answers nothing, for as long as others may
    /// stand still.
    fn poll_vanished(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        // Kernels leave some of what is sent again within half a second unanswered.
        let limit = self.visitor.edge.exchanges.config().stall_timeout.max(LEAST);
        let pulse = self.pulse.get_or_insert_with(|| Pulse { next: Box::pin(sleep(limit / LOOKS)), silent: None });
        while pulse.next.as_mut().poll(cx).is_ready() {
            let (now, socket) = (Instant::now(), self.stream.get_ref().0);
            let heard = unanswered(socket);
            let since = *pulse.silent.get_or_insert(now);
            let silent = now.duration_since(since);
            if heard.is_none_or(|heard| heard < silent) {
                pulse.silent = heard.map(|_| now);
            } else if silent >= limit / LOOKS * (LOOKS - 1) {
                debug!("a connection is closed: its visitor has vanished");
                let _already_closed = socket.set_zero_linger();
                return Poll::Ready(io::ErrorKind::TimedOut.into());
            }
            pulse.next.as_mut().reset(now + limit / LOOKS);
        }
        Poll::Pending
    }

    /// Passes on how a write went, or an error once it has waited for too long.
    fn judge<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.still = None;
            return written;
        }
        let (socket, limit) = (self.stream.get_ref().0, self.visitor.edge.exchanges.patience());
        let (mut since, mut before) = *self.still.get_or_insert_with(|| (Instant::now(), taken(socket)));
        let look = self.look.get_or_insert_with(|| Box::pin(sleep_until(since + limit)));
        while look.as_mut().poll(cx).is_ready() {
            let (now, taken) = (Instant::now(), taken(socket));
            if taken != before || self.visitor.may_pause() {
                (since, before) = (now, taken);
                self.still = Some((since, before));
            } else if now.duration_since(since) >= limit {
                debug!("a connection is closed: its visitor takes nothing");
                // The kernel need not keep what is not taken.
                let _already_closed = socket.set_zero_linger();
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            look.as_mut().reset(since + limit);
        }
        Poll::Pending
    }
}

impl Layer for Timed {
    fn into_socket(self) -> Option<TcpStream> {
        self.stream.into_socket()
    }
}

impl AsyncRead for Timed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read =
            if self.has_nothing_to_read(cx) { Poll::Pending } else { Pin::new(&mut self.stream).poll_read(cx, buffer) };
        if read.is_pending() && self.visitor.may_pause() { self.poll_vanished(cx).map(Err) } else { read }
    }
}

impl AsyncWrite for Timed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, data);
        self.judge(cx, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.judge(cx, flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.judge(cx, shut)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, data);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// The daemon's own answers on the streams of one HTTP/2 connection that may wait for their visitor's window.
#[derive(Debug, Default)]
pub(super) struct OwnAnswers {
    waiting: Mutex<VecDeque<Waiting>>,
    more: Notify,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    /// Gone once the library has written the answer.
    answer: Weak<()>,
    leash: Leash,
}

impl OwnAnswers {
    /// Watches an answer until what is returned is dropped.
    pub(super) fn wait(&self, leash: Leash) -> Arc<()> {
        let answer = Arc::<()>::default();
        let mut waiting = self.waiting.lock();
        while waiting.front().is_some_and(|first| first.answer.strong_count() == 0) {
            waiting.pop_front();
        }
        waiting.push_back(Waiting { since: Instant::now(), answer: Arc::downgrade(&answer), leash });
        drop(waiting);
        self.more.notify_one();
        answer
    }

    /// Ends the streams of answers that wait for too long. Runs until it is dropped.
    pub(super) async fn watch(&self, exchanges: &Exchanges) {
        loop {
            let first = self.waiting.lock().front().map(|first| first.since);
            let Some(since) = first else {
                self.more.notified().await;
                continue;
            };
            sleep_until(since + exchanges.patience()).await;
            let limit = exchanges.patience();
            let mut waiting = self.waiting.lock();
            while waiting.front().is_some_and(|first| first.since.elapsed() >= limit) {
                if let Some(first) = waiting.pop_front()
                    && first.answer.strong_count() > 0
                {
                    debug!("a stream is reset: its visitor takes nothing of an answer");
                    first.leash.cut();
                }
            }
        }
    }
}
