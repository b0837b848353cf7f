//! The byte stream under an HTTP connection to the service. It tells the HTTP library what a proxy needs and a plain socket
//! does not give:
//!
//! - A failed write does not end reading. A service may answer early and close with the upload unread; its answer arrives.
//! - Bytes that arrive while no request is under way are an error, never the next request's response.
//! - A TLS service on this machine may close without close_notify.
//! - A target that the library refuses takes the place of a placeholder in the request's first line.
//! - The head of a request that may have to be sent again stays here. The library drops it once it is written.
//! - An exchange that the shortcut has begun becomes the library's. Its write of the head is dropped, since the head is sent,
//!   and it reads first what the shortcut has read.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use cok_transport::tcp::is_quiet;
use http::{HeaderMap, HeaderName, HeaderValue};
use parking_lot::{Mutex, MutexGuard};
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

/// Any byte stream to the service.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {
    /// Whether nothing waits to be read, neither bytes nor the end. It asks the kernel, since the runtime may not know yet.
    fn is_quiet(&self) -> bool;
}

impl Stream for TcpStream {
    fn is_quiet(&self) -> bool {
        is_quiet(self)
    }
}

#[cfg(unix)]
impl Stream for crate::unix_socket::UnixStream {
    fn is_quiet(&self) -> bool {
        is_quiet(self)
    }
}

impl Stream for TlsStream<TcpStream> {
    fn is_quiet(&self) -> bool {
        is_quiet(self.get_ref().0)
    }
}

impl Stream for DuplexStream {
    /// The other end is in this process. What it has sent is known at once.
    fn is_quiet(&self) -> bool {
        true
    }
}

pub(crate) type Io = Box<dyn Stream>;

/// What the wire and the connection above it both know.
#[derive(Debug, Default)]
pub(super) struct Shared {
    /// A request has been written since the last response ended.
    is_asked: AtomicBool,
    /// A write has failed.
    is_broken: AtomicBool,
    /// Reads also ask the kernel whether anything waits.
    is_probed: AtomicBool,
    /// Takes the place of the next request's target.
    target: Mutex<Option<Bytes>>,
    /// The next request's head is to be kept.
    is_head_kept: AtomicBool,
    /// The head that was kept, as the library wrote it.
    head: Mutex<Vec<u8>>,
}

/// The longest head whose memory an idle connection keeps for the next one.
const MAX_HEAD: usize = 1024;

impl Shared {
    /// The response has ended. From here on, no bytes may come before the next request.
    pub(super) fn rest(&self) {
        self.is_asked.store(false, Ordering::Relaxed);
    }

    /// Has reads at rest ask the kernel whether anything waits, since the runtime may not know yet.
    pub(super) fn probe(&self, is_probed: bool) {
        self.is_probed.store(is_probed, Ordering::Relaxed);
    }

    /// Whether anything has been written since the last response ended.
    pub(super) fn is_asked(&self) -> bool {
        self.is_asked.load(Ordering::Relaxed)
    }

    /// Sends `target`, if there is one, in place of the next request's own.
    pub(super) fn replace_target(&self, target: Option<Bytes>) {
        *self.target.lock() = target;
    }

    /// Keeps the next request's head, if `is_kept`, from its first write on.
    pub(super) fn keep_head(&self, is_kept: bool) {
        self.is_head_kept.store(is_kept, Ordering::Relaxed);
        if is_kept {
            drop(self.empty_head());
        }
    }

    fn empty_head(&self) -> MutexGuard<'_, Vec<u8>> {
        let mut head = self.head.lock();
        head.clear();
        head.shrink_to(MAX_HEAD);
        head
    }

    /// Keeps the head that `put` writes, if it returns true. Returns what `put` does.
    pub(super) fn put_head(&self, put: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
        put(&mut self.empty_head())
    }

    /// The fields of the head that was kept. `None` if nothing has been written.
    pub(super) fn kept_fields(&self) -> Option<HeaderMap> {
        fields_of(&self.head.lock())
    }

    /// Whether a write has failed, so that the connection can carry no other request.
    pub(super) fn is_broken(&self) -> bool {
        self.is_broken.load(Ordering::Relaxed)
    }
}

/// How the end of a stream is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The stream's own end counts: a FIN, or close_notify with TLS.
    Strict,
    /// A TLS stream may also end without close_notify.
    Lenient,
}

/// What the shortcut has left to the library.
#[derive(Debug, Default)]
enum HandedOver {
    #[default]
    Nothing,
    /// A request that is sent, and the beginning of its response. The library has not written the request yet.
    Exchange(Bytes),
    /// The beginning of the response, or the rest of it.
    Response(Bytes),
}

/// The stream.
pub(super) struct Wire {
    io: Io,
    shared: Arc<Shared>,
    ending: Ending,
    /// The error of the failed write. Nothing is written after it.
    lost: Option<ErrorKind>,
    /// The beginning of a request with its real target, and the bytes of the library that it stands for.
    line: Option<(Bytes, usize)>,
    handed_over: HandedOver,
}

impl Wire {
    /// A stream for HTTP/1.1, and what it shares with its connection.
    pub(super) fn http1(io: Io, ending: Ending) -> (Self, Arc<Shared>) {
        let shared = Arc::<Shared>::default();
        (Self { io, shared: shared.clone(), ending, lost: None, line: None, handed_over: HandedOver::Nothing }, shared)
    }

    /// A stream for HTTP/2, where the service may send at any time.
    pub(super) fn http2(io: Io, ending: Ending) -> Self {
        let (wire, shared) = Self::http1(io, ending);
        shared.is_asked.store(true, Ordering::Relaxed);
        wire
    }

    /// Takes the stream out of this layer, which is of no use afterwards.
    pub(super) fn take_io(&mut self) -> Io {
        std::mem::replace(&mut self.io, Box::new(tokio::io::duplex(1).0))
    }

    /// Sends the head that is kept from its byte `sent` on, which counts up.
    pub(super) fn poll_send_head(&mut self, cx: &mut Context<'_>, sent: &mut usize) -> Poll<()> {
        let shared = self.shared.clone();
        let head = shared.head.lock();
        while self.lost.is_none()
            && let Some(rest) = head.get(*sent..).filter(|rest| !rest.is_empty())
        {
            let result = ready!(Pin::new(&mut self.io).poll_write(cx, rest).map(nonzero));
            *sent += self.written(result, rest.len());
        }
        Pin::new(self).poll_flush(cx).map(drop)
    }

    /// Leaves an exchange to the library. Its request is sent, and `read` is the beginning of its response.
    pub(super) fn hand_over(&mut self, read: Bytes) {
        self.handed_over = HandedOver::Exchange(read);
    }

    /// Drops the library's write of a head that the shortcut has sent. Returns whether it was one.
    fn drop_sent_head(&mut self) -> bool {
        let HandedOver::Exchange(read) = &mut self.handed_over else { return false };
        self.handed_over = HandedOver::Response(std::mem::take(read));
        true
    }

    /// Takes a write's result. A failure is remembered and looks like success to the library, which then reads on.
    fn written(&mut self, result: io::Result<usize>, all: usize) -> usize {
        match result {
            Ok(written) => {
                if written > 0 {
                    self.shared.is_asked.store(true, Ordering::Relaxed);
                }
                written
            }
            Err(error) => {
                self.lost = Some(error.kind());
                self.shared.is_broken.store(true, Ordering::Relaxed);
                // The service may have answered before it was asked for more.
                self.shared.is_asked.store(true, Ordering::Relaxed);
                all
            }
        }
    }

    /// Sees the beginning of a request before it is written.
    fn note_head(&self, head: &[u8]) {
        if self.shared.is_head_kept.load(Ordering::Relaxed) && !self.shared.is_asked.load(Ordering::Relaxed) {
            let mut kept = self.shared.head.lock();
            kept.clear();
            kept.extend_from_slice(head);
        }
    }

    /// Writes a request's beginning with its real target. Returns how many of the library's bytes that were.
    fn poll_line(&mut self, cx: &mut Context<'_>, head: &[u8]) -> Poll<Option<usize>> {
        if self.line.is_none() {
            if self.shared.is_asked.load(Ordering::Relaxed) {
                return Poll::Ready(None);
            }
            let Some(target) = self.shared.target.lock().take() else { return Poll::Ready(None) };
            self.line = with_target(head, &target);
        }
        let Some((mut line, stands_for)) = self.line.take() else { return Poll::Ready(None) };
        while !line.is_empty() {
            let Poll::Ready(result) = Pin::new(&mut self.io).poll_write(cx, &line).map(nonzero) else {
                self.line = Some((line, stands_for));
                return Poll::Pending;
            };
            let all = line.len();
            line.advance(self.written(result, all).min(all));
        }
        Poll::Ready(Some(stands_for))
    }
}

/// A write of nothing would repeat without end.
fn nonzero(result: io::Result<usize>) -> io::Result<usize> {
    result.and_then(|written| if written == 0 { Err(ErrorKind::WriteZero.into()) } else { Ok(written) })
}

/// The method and the target that begin a request; and the length of what they stand for in `head`.
fn with_target(head: &[u8], target: &[u8]) -> Option<(Bytes, usize)> {
    let method = head.iter().position(|byte| *byte == b' ')? + 1;
    let placeholder = head.get(method..)?.iter().position(|byte| *byte == b' ')?;
    Some((Bytes::from([head.get(..method)?, target].concat()), method + placeholder))
}

/// The fields of a head without a body, as the HTTP library writes it. `None` if it is not whole.
fn fields_of(head: &[u8]) -> Option<HeaderMap> {
    let mut lines = head.strip_suffix(b"\r\n\r\n")?.split(|byte| *byte == b'\n').skip(1);
    lines.try_fold(HeaderMap::new(), |mut fields, line| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = (line.get(..colon)?, line.get(colon..)?.strip_prefix(b": ")?);
        fields.append(HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?);
        Some(fields)
    })
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (before, room) = (buf.filled().len(), buf.remaining());
        match &mut self.handed_over {
            HandedOver::Nothing => {}
            HandedOver::Exchange(_) => {
                // The library reads once before it writes, to see that the stream is at rest. The response follows its write.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            HandedOver::Response(read) => {
                let some = read.split_to(read.len().min(room));
                buf.put_slice(&some);
                if read.is_empty() {
                    self.handed_over = HandedOver::Nothing;
                }
                return Poll::Ready(Ok(()));
            }
        }
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        if polled.is_pending() && self.shared.is_probed.load(Ordering::Relaxed) && !self.io.is_quiet() {
            return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
        }
        let is_end = match ready!(polled) {
            Ok(()) => buf.filled().len() == before && room > 0,
            Err(error) if error.kind() == ErrorKind::UnexpectedEof && self.ending == Ending::Lenient => true,
            Err(error) => return Poll::Ready(Err(error)),
        };
        if is_end {
            // After a reset, Linux reports the error once, to the write, and then an end. After a FIN, a write fails with
            // EPIPE, and the end is real.
            return Poll::Ready(match self.lost {
                None | Some(ErrorKind::BrokenPipe) => Ok(()),
                Some(kind) => Err(kind.into()),
            });
        }
        if !self.shared.is_asked.load(Ordering::Relaxed) {
            return Poll::Ready(Err(io::Error::new(ErrorKind::InvalidData, "it sent bytes before it got a request")));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.drop_sent_head() || self.lost.is_some() {
            return Poll::Ready(Ok(buf.len()));
        }
        self.note_head(buf);
        if let Some(stands_for) = ready!(self.poll_line(cx, buf)) {
            return Poll::Ready(Ok(stands_for));
        }
        let result = ready!(Pin::new(&mut self.io).poll_write(cx, buf));
        Poll::Ready(Ok(self.written(result, buf.len())))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = || bufs.iter().map(|buf| buf.len()).sum();
        if self.drop_sent_head() || self.lost.is_some() {
            return Poll::Ready(Ok(all()));
        }
        self.note_head(bufs.first().map_or(&[], |first| first));
        if let Some(first) = bufs.first()
            && let Some(stands_for) = ready!(self.poll_line(cx, first))
        {
            return Poll::Ready(Ok(stands_for));
        }
        let result = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, bufs));
        Poll::Ready(Ok(self.written(result, all())))
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.lost.is_none() {
            // With TLS, this may be the write that fails.
            let result = ready!(Pin::new(&mut self.io).poll_flush(cx));
            self.written(result.map(|()| 0), 0);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// A stream with given results of its reads and writes.
    #[derive(Default)]
    struct Told {
        reads: VecDeque<io::Result<&'static [u8]>>,
        fails: Option<ErrorKind>,
        /// How many bytes one write takes.
        room: usize,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Stream for Told {
        fn is_quiet(&self) -> bool {
            self.reads.is_empty()
        }
    }

    impl AsyncRead for Told {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            buf.put_slice(self.reads.pop_front().unwrap_or(Ok(b""))?);
            Poll::Ready(Ok(()))
        }
    }

    impl AsyncWrite for Told {
        fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            if let Some(kind) = self.fails {
                return Poll::Ready(Err(kind.into()));
            }
            let room = self.room.min(buf.len());
            self.written.lock().extend_from_slice(&buf[..room]);
            Poll::Ready(Ok(room))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    async fn rest(wire: &mut Wire) -> (Vec<u8>, Option<ErrorKind>) {
        let mut read = Vec::new();
        let result = wire.read_to_end(&mut read).await;
        (read, result.err().map(|error| error.kind()))
    }

    #[tokio::test]
    async fn a_failed_write_does_not_end_reading() {
        for (fails, end) in
            [(ErrorKind::BrokenPipe, None), (ErrorKind::ConnectionReset, Some(ErrorKind::ConnectionReset))]
        {
            let told = Told { reads: [Ok(&b"an"[..]), Ok(b"swer")].into(), fails: Some(fails), ..Told::default() };
            let (mut wire, shared) = Wire::http1(Box::new(told), Ending::Strict);
            wire.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            wire.write_all(b"body").await.unwrap();
            assert!(shared.is_broken());
            assert_eq!(rest(&mut wire).await, (b"answer".to_vec(), end));
        }
    }

    #[tokio::test]
    async fn bytes_without_a_request_are_an_error() {
        let told = Told { reads: [Ok(&b"one"[..]), Ok(b"two")].into(), room: 100, ..Told::default() };
        let (mut wire, shared) = Wire::http1(Box::new(told), Ending::Strict);
        wire.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(wire.read(&mut [0; 8]).await.unwrap(), 3);
        shared.rest();
        assert_eq!(wire.read(&mut [0; 8]).await.unwrap_err().kind(), ErrorKind::InvalidData);
    }

    #[tokio::test]
    async fn an_end_without_close_notify_counts_where_it_may() {
        for (ending, end) in [(Ending::Lenient, None), (Ending::Strict, Some(ErrorKind::UnexpectedEof))] {
            let reads = [Ok(&b"hello"[..]), Err(ErrorKind::UnexpectedEof.into())].into();
            let (mut wire, _) = Wire::http1(Box::new(Told { reads, room: 100, ..Told::default() }), ending);
            wire.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            assert_eq!(rest(&mut wire).await, (b"hello".to_vec(), end));
        }
    }

    #[tokio::test]
    async fn a_target_takes_the_place_of_another() {
        for room in [1, 3, 100] {
            let told = Told { room, ..Told::default() };
            let written = told.written.clone();
            let (mut wire, shared) = Wire::http1(Box::new(told), Ending::Strict);
            shared.replace_target(Some(Bytes::from_static(b"/caf\xe9")));
            wire.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
            shared.rest();
            wire.write_all(b"GET /2 HTTP/1.1\r\n\r\n").await.unwrap();
            assert_eq!(*written.lock(), b"GET /caf\xe9 HTTP/1.1\r\n\r\nGET /2 HTTP/1.1\r\n\r\n");
        }
    }

    #[tokio::test]
    async fn the_head_of_a_request_is_kept_when_it_is_wanted() {
        let (mut wire, shared) = Wire::http1(Box::new(Told { room: 5, ..Told::default() }), Ending::Strict);
        shared.keep_head(true);
        assert!(shared.kept_fields().is_none(), "nothing has been written");
        wire.write_all(b"GET / HTTP/1.1\r\na: 1\r\nb: \r\na: \xe4: 2\r\n\r\n").await.unwrap();
        let fields = shared.kept_fields().unwrap();
        let fields: Vec<_> = fields.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
        assert_eq!(fields, [("a", &b"1"[..]), ("a", b"\xe4: 2"), ("b", b"")]);
        shared.rest();
        shared.keep_head(false);
        wire.write_all(b"GET / HTTP/1.1\r\nc: 3\r\n\r\n").await.unwrap();
        assert!(!shared.kept_fields().unwrap().contains_key("c"));
        shared.keep_head(true);
        assert!(shared.kept_fields().is_none());
    }

    #[tokio::test]
    async fn a_target_that_was_not_sent_is_no_other_requests() {
        let told = Told { room: 100, ..Told::default() };
        let written = told.written.clone();
        let (mut wire, shared) = Wire::http1(Box::new(told), Ending::Strict);
        shared.replace_target(Some(Bytes::from_static(b"/caf\xe9")));
        shared.replace_target(None);
        wire.write_all(b"GET /2 HTTP/1.1\r\n\r\n").await.unwrap();
        assert_eq!(*written.lock(), b"GET /2 HTTP/1.1\r\n\r\n");
        assert!(shared.is_asked());
    }
}
