//! What a visitor leaves unread: bytes that its connection takes no more of, and answers of the daemon's own that wait in a
//! stream. Exchanges have their own watch; this holds for pages, redirects and refusals as well.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_rustls::server::TlsStream;
use tracing::debug;

use super::visitor::Visitor;
use crate::exchanges::{Exchanges, Leash};
use crate::host::flushes::Layer;
use crate::host::tcp_queue::taken;

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
}

impl Timed {
    /// Of a fresh connection.
    pub(super) fn new(stream: TlsStream<TcpStream>, visitor: Arc<Visitor>) -> Self {
        Self { stream, visitor, still: None, look: None }
    }

    /// The stream itself.
    pub(super) fn into_inner(self) -> TlsStream<TcpStream> {
        self.stream
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
                // The kernel need not keep what nobody takes.
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
        Pin::new(&mut self.stream).poll_read(cx, buffer)
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
