//! The connection as the HTTP/2 library reads and writes it. Small DATA frames reach it merged. Once the budget is spent, it
//! gets nothing more. The visitor gets a GOAWAY between two frames of the library, and the connection closes.
//!
//! The library cannot be asked for a GOAWAY with a code through hyper. So it is written here.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use cok_proto::budget::Spent;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::frames::Frames;
use super::merge::merge;

/// How long the end may take. Unread input would make the kernel reset the connection, and the GOAWAY could be lost.
const LINGER: Duration = Duration::from_millis(250);
/// The size of the buffer for input that is dropped.
const DROPPED: usize = 4 * 1024;
/// How many such buffers are filled before other tasks have their turn.
const DROPS: usize = 16;

/// A connection whose frames are counted.
#[derive(Debug)]
pub(in crate::edge) struct Budgeted<S> {
    inner: S,
    frames: Frames,
    ending: Option<Ending>,
}

/// The end of a connection whose budget is spent.
#[derive(Debug)]
struct Ending {
    limit: Pin<Box<Sleep>>,
    /// What is left of the GOAWAY.
    goaway: Vec<u8>,
    /// The GOAWAY has begun: what the library writes is dropped.
    begun: bool,
    /// Who waits for the end of the library's frame.
    waiting: Option<Waker>,
    shut: bool,
}

impl<S> Budgeted<S> {
    /// Counts the frames of a fresh connection.
    pub(in crate::edge) fn new(inner: S) -> Self {
        Self { inner, frames: Frames::new(), ending: None }
    }

    /// How much of `length` bytes the library may write now. `None` if they are to be dropped.
    fn writable(&self, length: usize) -> Option<usize> {
        match &self.ending {
            None => Some(length),
            Some(Ending { begun: false, .. }) => match self.frames.rest_of_frame() {
                0 => None,
                rest => Some(rest.min(length)),
            },
            Some(_) => None,
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Budgeted<S> {
    /// Brings the end forward. Ready once nothing is left to do for the visitor.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(ending) = &mut self.ending else { return Poll::Ready(Ok(())) };
        if ending.limit.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        if !ending.begun && self.frames.rest_of_frame() > 0 {
            ending.waiting = Some(cx.waker().clone());
            return Poll::Pending;
        }
        ending.begun = true;
        let mut inner = Pin::new(&mut self.inner);
        while !ending.goaway.is_empty() {
            let written = ready!(inner.as_mut().poll_write(cx, &ending.goaway))?;
            ending.goaway.drain(..written);
        }
        if !ending.shut {
            ready!(inner.as_mut().poll_flush(cx))?;
            ready!(inner.as_mut().poll_shutdown(cx))?;
            ending.shut = true;
        }
        for _ in 0..DROPS {
            let mut dropped = [0; DROPPED];
            let mut dropped = ReadBuf::new(&mut dropped);
            ready!(inner.as_mut().poll_read(cx, &mut dropped))?;
            if dropped.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Budgeted<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ending.is_none() {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
            let fresh = buffer.filled().get(before..).unwrap_or_default();
            let first = before + this.frames.first_frame(fresh);
            if this.frames.receive(fresh, Instant::now()).is_ok() {
                let length = buffer.filled_mut().get_mut(first..).map_or(0, merge);
                buffer.set_filled(first + length);
                return Poll::Ready(Ok(()));
            }
            buffer.set_filled(before);
            let limit = Box::pin(sleep(LINGER));
            this.ending =
                Some(Ending { limit, goaway: this.frames.goaway(), begun: false, waiting: None, shut: false });
        }
        let _broken = ready!(this.poll_end(cx));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, Spent)))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Budgeted<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let Some(allowed) = this.writable(data.len()) else { return Poll::Ready(Ok(data.len())) };
        let data = data.get(..allowed).unwrap_or_default();
        let written = ready!(Pin::new(&mut this.inner).poll_write(cx, data))?;
        this.frames.send(data.get(..written).unwrap_or_default());
        if this.frames.rest_of_frame() == 0
            && let Some(waiting) = this.ending.as_mut().and_then(|ending| ending.waiting.take())
        {
            waiting.wake();
        }
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.ending.is_some() {
            let first = data.iter().find(|slice| !slice.is_empty());
            return self.poll_write(cx, first.map_or(&[], |slice| slice));
        }
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.inner).poll_write_vectored(cx, data))?;
        let mut left = written;
        for slice in data {
            let part = slice.get(..left.min(slice.len())).unwrap_or_default();
            this.frames.send(part);
            left -= part.len();
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ending.as_ref().is_some_and(|ending| ending.begun) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.ending.is_some() {
            return this.poll_end(cx);
        }
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
