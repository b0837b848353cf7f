//! The connection's writes, gathered: one write for the frames of all streams that are ready.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// A connection that lets other ready tasks run before it writes. The runtime runs a task that was just woken next, before
/// others that are ready. So without this, each of many responses that come at once would cost a write of its own.
#[derive(Debug)]
pub(in crate::edge) struct Gathering<S> {
    inner: S,
    /// The next write has waited for other tasks. True until a flush has ended.
    gathered: bool,
}

impl<S> Gathering<S> {
    /// Gathers the writes to `inner`.
    pub(in crate::edge) fn new(inner: S) -> Self {
        Self { inner, gathered: false }
    }

    /// Ready once other tasks had their turn since the last flush.
    fn poll_gather(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::replace(&mut self.gathered, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Gathering<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Gathering<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_gather(cx));
        Pin::new(&mut self.inner).poll_write(cx, data)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_gather(cx));
        Pin::new(&mut self.inner).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        self.gathered = false;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_first_write_after_a_flush_waits_once() {
        let (near, _far) = tokio::io::duplex(64);
        let mut stream = Gathering::new(near);
        let woken = Arc::<Woken>::default();
        let waker = woken.clone().into();
        let cx = &mut Context::from_waker(&waker);
        for turn in 1..=2 {
            assert!(Pin::new(&mut stream).poll_write(cx, b"a").is_pending());
            assert_eq!(woken.0.load(Ordering::Relaxed), turn);
            for _ in 0..3 {
                assert!(matches!(Pin::new(&mut stream).poll_write(cx, b"a"), Poll::Ready(Ok(1))));
            }
            assert!(Pin::new(&mut stream).poll_flush(cx).is_ready());
        }
        assert_eq!(woken.0.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn bytes_pass_whole() {
        let (near, mut far) = tokio::io::duplex(64);
        let mut stream = Gathering::new(near);
        let wrote = async {
            for part in [b"ab", b"cd", b"ef"] {
                stream.write_all(part).await.unwrap();
                stream.flush().await.unwrap();
            }
            stream.shutdown().await.unwrap();
        };
        let mut read = Vec::new();
        tokio::join!(wrote, async { far.read_to_end(&mut read).await.unwrap() });
        assert_eq!(read, b"abcdef");
    }
}
