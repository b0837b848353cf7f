//! The end of an HTTP/2 connection whose visitor still has much to read when the daemon stops.
//!
//! What the kernel has not sent yet would be lost: the visitor goes on with WINDOW_UPDATE as it reads, and a closed socket
//! answers that with a reset. So the socket stays open, and its input is dropped, until the visitor has closed as well. The
//! daemon waits for an idle visitor only until the kernel has delivered everything.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::time::timeout;

use super::unread::Timed;
use super::visitor::Visitor;
use crate::drain::Phase;
use crate::host::flushes::Layer as _;
use crate::host::tcp_queue::unacknowledged;

/// The size of the buffer for input that is dropped.
const DROPPED: usize = 1024;

/// The interval at which the daemon asks the kernel for unacknowledged bytes. The kernel does not report them by itself.
const LOOK: Duration = Duration::from_millis(50);

/// A visitor's stream that is not closed at once when it is dropped while the daemon stops.
pub(super) struct LingeringClose {
    /// Gone only while it is dropped.
    stream: Option<Timed>,
    visitor: Arc<Visitor>,
}

impl LingeringClose {
    pub(super) fn new(stream: Timed, visitor: Arc<Visitor>) -> Self {
        Self { stream: Some(stream), visitor }
    }

    fn stream(self: Pin<&mut Self>) -> io::Result<Pin<&mut Timed>> {
        self.get_mut().stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for LingeringClose {
    fn drop(&mut self) {
        if self.visitor.edge.drain.phase() < Phase::GoingAway {
            return;
        }
        let Some(stream) = self.stream.take() else { return };
        let Some(mut tcp) = stream.into_socket() else { return };
        let visitor = self.visitor.clone();
        // Not for long: the daemon waits for visitors only until it stops.
        tokio::spawn(async move {
            let mut dropped = [0; DROPPED];
            while visitor.edge.drain.phase() >= Phase::Farewell || unacknowledged(&tcp) > 0 {
                match timeout(LOOK, tcp.read(&mut dropped)).await {
                    Ok(Ok(1..)) | Err(_) => {}
                    Ok(Ok(0) | Err(_)) => break,
                }
            }
            drop(visitor);
        });
    }
}

impl AsyncRead for LingeringClose {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for LingeringClose {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write(cx, data)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.stream()?.poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }
}
