//! The end of a visitor's HTTP/1 connection: how much of what was written the kernel has, and how the connection closes behind
//! a response that broke off.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::server::TlsStream;

use super::tcp_queue::unacknowledged;

/// How long a connection stays open behind a response that broke off, until the visitor's kernel has its bytes.
const LINGER: Duration = Duration::from_secs(2);
/// How often the kernel is asked. It does not report that by itself.
const LOOK: Duration = Duration::from_millis(20);
/// The size of the buffer for input that is dropped.
const DROPPED: usize = 4 * 1024;

/// How a connection closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Close {
    /// At once.
    Plain,
    /// The response shows by itself that it is not whole. Unread input must not cost its last bytes.
    Lingering,
    /// The end of the connection would be the end of the response. A reset says that it is not (RFC 9112, section 8).
    Reset,
}

/// What the wrapper of a connection shares with the response on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Flushes(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    count: AtomicU64,
    /// Something was written since the last one.
    unflushed: AtomicBool,
    close: AtomicU8,
}

impl Flushes {
    /// The number of completed flushes. After one, the kernel has everything that was written before.
    pub(crate) fn count(&self) -> u64 {
        self.0.count.load(Ordering::Acquire)
    }

    /// Whether the kernel has everything that was written.
    pub(crate) fn is_flushed(&self) -> bool {
        !self.0.unflushed.load(Ordering::Acquire)
    }

    /// Chooses how the connection closes.
    pub(crate) fn close(&self, close: Close) {
        self.0.close.store(close as u8, Ordering::Release);
    }

    fn is_closed(&self, close: Close) -> bool {
        self.0.close.load(Ordering::Acquire) == close as u8
    }
}

/// A stream that may lie on a socket.
pub(crate) trait Layer {
    /// The socket.
    fn into_socket(self) -> Option<TcpStream>;
}

impl Layer for TlsStream<TcpStream> {
    fn into_socket(self) -> Option<TcpStream> {
        Some(self.into_inner().0)
    }
}

/// A stream that counts its flushes, and closes as it is chosen.
#[derive(Debug)]
pub(crate) struct Flushing<S: Layer> {
    /// Gone only while it is dropped.
    stream: Option<S>,
    flushes: Flushes,
}

impl<S: Layer> Flushing<S> {
    /// Wraps `stream`, and shares `flushes` with its responses.
    pub(crate) fn new(stream: S, flushes: Flushes) -> Self {
        Self { stream: Some(stream), flushes }
    }

    /// The stream itself.
    pub(crate) fn into_inner(mut self) -> Option<S> {
        self.stream.take()
    }
}

impl<S: Layer + Unpin> Flushing<S> {
    fn stream(self: Pin<&mut Self>) -> io::Result<Pin<&mut S>> {
        self.get_mut().stream.as_mut().map(Pin::new).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl<S: Layer> Drop for Flushing<S> {
    fn drop(&mut self) {
        if self.flushes.is_closed(Close::Plain) {
            return;
        }
        if let Some(socket) = self.stream.take().and_then(S::into_socket) {
            let resets = self.flushes.is_closed(Close::Reset);
            tokio::spawn(close(socket, resets));
        }
    }
}

/// Closes a socket once the other side's kernel has all bytes, or after a while.
async fn close(mut socket: TcpStream, resets: bool) {
    if !resets {
        let _already_closed = socket.shutdown().await;
    }
    let began = Instant::now();
    let mut dropped = [0; DROPPED];
    let mut is_open = true;
    while unacknowledged(&socket) > 0 && began.elapsed() < LINGER {
        if is_open {
            is_open = !matches!(timeout(LOOK, socket.read(&mut dropped)).await, Ok(Ok(0) | Err(_)));
        } else {
            tokio::time::sleep(LOOK).await;
        }
    }
    if resets {
        let _already_closed = socket.set_zero_linger();
    }
}

impl<S: Layer + AsyncRead + Unpin> AsyncRead for Flushing<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_read(cx, buffer)
    }
}

impl<S: Layer + AsyncWrite + Unpin> AsyncWrite for Flushing<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        self.flushes.0.unflushed.store(true, Ordering::Release);
        self.stream()?.poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.as_mut().stream()?.poll_flush(cx))?;
        self.flushes.0.count.fetch_add(1, Ordering::Release);
        self.flushes.0.unflushed.store(false, Ordering::Release);
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.flushes.0.unflushed.store(true, Ordering::Release);
        self.stream()?.poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.as_ref().is_some_and(AsyncWrite::is_write_vectored)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{BufWriter, DuplexStream};
    use tokio::net::TcpListener;

    use super::*;

    impl Layer for BufWriter<DuplexStream> {
        fn into_socket(self) -> Option<TcpStream> {
            None
        }
    }

    impl Layer for TcpStream {
        fn into_socket(self) -> Option<TcpStream> {
            Some(self)
        }
    }

    #[tokio::test]
    async fn only_completed_flushes_count() {
        let flushes = Flushes::default();
        let (near, _far) = tokio::io::duplex(4);
        let mut stream = Flushing::new(BufWriter::new(near), flushes.clone());
        stream.write_all(b"ab").await.unwrap();
        stream.flush().await.unwrap();
        assert!(flushes.count() == 1 && flushes.is_flushed());
        // The far end does not read, so only a part fits.
        stream.write_all(b"cdefgh").await.unwrap();
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut stream).poll_flush(&mut cx).is_pending());
        assert!(flushes.count() == 1 && !flushes.is_flushed());
    }

    #[tokio::test]
    async fn a_connection_closes_as_chosen() {
        for close in [Close::Plain, Close::Lingering, Close::Reset] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut far, _) = listener.accept().await.unwrap();
            let flushes = Flushes::default();
            let mut stream = Flushing::new(near, flushes.clone());
            stream.write_all(b"last words").await.unwrap();
            flushes.close(close);
            drop(stream);
            let mut read = Vec::new();
            let ended = timeout(Duration::from_secs(10), far.read_to_end(&mut read)).await.unwrap();
            assert_eq!(read, b"last words");
            assert_eq!(ended.is_err(), close == Close::Reset, "{close:?}");
        }
    }
}
