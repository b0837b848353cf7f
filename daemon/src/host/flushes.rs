//! A stream that counts its completed flushes. After one, the kernel has everything that was written before.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The completed flushes of one stream.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flushes(Arc<AtomicU64>);

impl Flushes {
    /// Their number up to now.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }
}

/// The stream.
#[derive(Debug)]
pub(crate) struct Flushing<S> {
    stream: S,
    flushes: Flushes,
}

impl<S> Flushing<S> {
    /// Counts the flushes of `stream` in `flushes`.
    pub(crate) fn new(stream: S, flushes: Flushes) -> Self {
        Self { stream, flushes }
    }

    /// The stream without its counter.
    pub(crate) fn into_inner(self) -> S {
        self.stream
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Flushing<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Flushing<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.flushes.0.fetch_add(1, Ordering::Release);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    #[tokio::test]
    async fn only_completed_flushes_count() {
        let flushes = Flushes::default();
        let (near, _far) = tokio::io::duplex(4);
        let mut stream = Flushing::new(tokio::io::BufWriter::new(near), flushes.clone());
        stream.write_all(b"ab").await.unwrap();
        stream.flush().await.unwrap();
        assert_eq!(flushes.count(), 1);
        // The far end does not read, so only a part fits.
        stream.write_all(b"cdefgh").await.unwrap();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut stream).poll_flush(&mut cx).is_pending());
        assert_eq!(flushes.count(), 1);
    }
}
