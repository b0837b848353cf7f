//! The stream that the HTTP library reads: one judged message after the other.
//!
//! An ordinary message is scanned once where the library's own buffer has it, and not copied. Only what came too early is
//! held: a head that is not complete, and bytes behind the end of a message.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::chunks::Chunks;
use super::head::{self, End, Framing, Head};
use super::verdicts::{Seen, Verdicts};
use crate::edge::judge::Fault;
use crate::edge::linger::{LINGER, MOST};
use crate::edge::request::Doubt;

/// How much is read at once of what is held.
const READ: usize = 4 * 1024;
/// The most empty lines before a request. RFC 9112, section 2.2, has us pass over one at least.
const MAX_EMPTY_LINES: u32 = 16;
/// How much is held behind an upgrade's request until its answer has come.
const MAX_HELD: usize = 64 * 1024;
/// The size of the buffer for input that is dropped.
const DROPPED: usize = 4 * 1024;
/// How many such buffers are filled before other tasks have their turn.
const DROPS: usize = 16;

/// A connection, as the HTTP library sees it.
#[derive(Debug)]
pub(in crate::edge) struct Stream<S> {
    inner: S,
    verdicts: Arc<Verdicts>,
    /// The longest head.
    max_head: usize,
    state: State,
    /// What the library gets next.
    ready: Bytes,
    /// What was read and not judged yet.
    held: BytesMut,
    /// Empty lines since the last message.
    empty_lines: u32,
    /// How much of it was searched for the end of a head.
    searched: usize,
    /// How long a head may take from its first byte on.
    head_limit: Duration,
    /// When that is over for the head that is held.
    head_due: Option<Pin<Box<Sleep>>>,
    /// Where faults of the current body are noted.
    doubt: Option<Doubt>,
    /// The current request asks to leave HTTP.
    upgrade: bool,
    /// The writing side is shut down.
    is_shut: bool,
    /// The time limit of a lingering close.
    lingering: Option<Pin<Box<Sleep>>>,
    /// How many bytes it has dropped.
    dropped: u64,
}

#[derive(Debug)]
enum State {
    /// A head comes.
    Head,
    /// So many bytes of a body come.
    Length(u64),
    /// A chunked body comes.
    Chunks(Box<Chunks>),
    /// The request of an upgrade has ended, and its answer has not come.
    Undecided,
    /// The connection has left HTTP.
    Raw,
    /// A body's framing was broken: the library gets an error.
    Broken,
    /// A head was refused: the library gets nothing more.
    Refused,
}

impl<S> Stream<S> {
    /// Judges the requests on a fresh connection. `max_head` is the longest head in bytes.
    pub(in crate::edge) fn new(inner: S, max_head: usize, verdicts: Arc<Verdicts>) -> Self {
        Self {
            inner,
            verdicts,
            max_head,
            state: State::Head,
            ready: Bytes::new(),
            held: BytesMut::new(),
            empty_lines: 0,
            searched: 0,
            head_limit: Duration::MAX,
            head_due: None,
            doubt: None,
            upgrade: false,
            is_shut: false,
            lingering: None,
            dropped: 0,
        }
    }

    /// The same, with a limit for the time from a head's first byte to its last.
    pub(in crate::edge) fn within(self, head_limit: Duration) -> Self {
        Self { head_limit, ..self }
    }

    /// Puts back what the library has read and not used.
    pub(in crate::edge) fn put_back(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.ready = [bytes, &self.ready].concat().into();
        }
    }

    /// The connection itself, once it has left HTTP, and what was read from it and not handed out.
    pub(super) fn into_inner(self) -> (S, Vec<u8>) {
        (self.inner, [&self.ready[..], &self.held[..]].concat())
    }

    /// Looks for a whole head at the beginning of `bytes`, and judges it.
    fn look(&mut self, bytes: &[u8]) -> Result<Option<(usize, Head)>, Fault> {
        let end = match head::find_end(bytes, self.searched)? {
            End::At(end) => end,
            End::Beyond(searched) => {
                self.searched = searched;
                return if bytes.len() > self.max_head { Err(Fault::TooLarge) } else { Ok(None) };
            }
        };
        if end > self.max_head {
            return Err(Fault::TooLarge);
        }
        Ok(Some((end, head::judge(&bytes[..end])?)))
    }

    /// Notes what the library gets of a request, and expects its body.
    fn accept(&mut self, framing: Framing, upgrade: bool, target: Option<Bytes>) {
        (self.searched, self.empty_lines) = (0, 0);
        self.upgrade = upgrade;
        self.doubt = (framing != Framing::Length(0)).then(Doubt::new);
        self.verdicts.push(Seen { fault: None, target, doubt: self.doubt.clone() });
        match framing {
            Framing::Length(0) => self.end_message(),
            Framing::Length(length) => self.state = State::Length(length),
            Framing::Chunked => self.state = State::Chunks(Box::new(Chunks::new())),
        }
    }

    fn end_message(&mut self) {
        self.doubt = None;
        self.state = if self.upgrade { State::Undecided } else { State::Head };
    }

    /// Follows a body to its end. Returns how many bytes are of it.
    fn follow(&mut self, bytes: &[u8]) -> usize {
        match &mut self.state {
            State::Length(left) => {
                let taken = (bytes.len() as u64).min(*left);
                *left -= taken;
                if *left == 0 {
                    self.end_message();
                }
                taken as usize
            }
            State::Chunks(chunks) => {
                let (taken, fault) = chunks.follow(bytes);
                if let Some(fault) = fault {
                    if let Some(doubt) = self.doubt.take() {
                        doubt.cast(fault);
                    }
                    self.verdicts.end();
                    self.state = State::Broken;
                } else if chunks.is_done() {
                    self.end_message();
                }
                taken
            }
            _ => 0,
        }
    }

    /// Gives the library a harmless head instead of what is held.
    fn refuse(&mut self, fault: Fault) {
        self.verdicts.push(Seen { fault: Some(fault), ..Seen::default() });
        self.verdicts.end();
        self.ready = head::stand_in(&self.held);
        self.held = BytesMut::new();
        self.state = State::Refused;
    }

    /// Passes on what is there of the current message in `bytes`, which the library's buffer holds. Returns how much that
    /// is. Less than a plain head is left to [`Self::pass_held`].
    fn pass(&mut self, bytes: &[u8]) -> usize {
        if !matches!(self.state, State::Head) {
            return self.follow(bytes);
        }
        if bytes.first().is_some_and(|byte| *byte == b'\r') {
            return 0;
        }
        match self.look(bytes) {
            Ok(Some((end, Head { framing, upgrade, replaced: None }))) => {
                self.accept(framing, upgrade, None);
                end + self.follow(&bytes[end..])
            }
            Ok(None) => 0,
            Ok(Some(_)) | Err(_) => {
                self.searched = 0;
                0
            }
        }
    }

    /// Does the same with what is held. `false` if more of a head is needed.
    fn pass_held(&mut self) -> bool {
        let mut held = std::mem::take(&mut self.held);
        if let State::Head = self.state {
            // Empty lines before a request mean nothing (RFC 9112, section 2.2).
            while held.starts_with(b"\r\n") {
                self.empty_lines += 1;
                if self.empty_lines > MAX_EMPTY_LINES {
                    self.refuse(Fault::RequestLine);
                    return true;
                }
                held.advance(2);
            }
            if held.is_empty() {
                return true;
            }
            let looked = if held[..] == b"\r"[..] { Ok(None) } else { self.look(&held) };
            match looked {
                Ok(Some((end, Head { framing, upgrade, replaced }))) => {
                    let mut head = held.split_to(end);
                    if let Some(replaced) = &replaced {
                        let (before, behind) = (&head[..replaced.range.start], &head[replaced.range.end..]);
                        head = [before, &replaced.stand_in, behind].concat()[..].into();
                    }
                    self.ready = head.freeze();
                    self.accept(framing, upgrade, replaced.map(|replaced| replaced.target));
                }
                Ok(None) => {
                    self.held = held;
                    return false;
                }
                Err(fault) => {
                    self.held = held;
                    self.refuse(fault);
                    return true;
                }
            }
        } else {
            let taken = self.follow(&held);
            self.ready = held.split_to(taken).freeze();
        }
        if !held.is_empty() {
            self.held = held;
        }
        true
    }
}

impl<S: AsyncRead + Unpin> Stream<S> {
    /// Waits for the next whole head, or for the stand-in of a refused one, without the library. Ready with `false` at the end
    /// of the connection.
    pub(in crate::edge) fn poll_request(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut space = [MaybeUninit::uninit(); READ];
        let mut buffer = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *self).poll_read(cx, &mut buffer))?;
        self.put_back(buffer.filled());
        Poll::Ready(Ok(!self.ready.is_empty()))
    }

    /// Reads more of what is held.
    fn poll_hold(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.held.reserve(READ);
        pin!(self.inner.read_buf(&mut self.held)).poll(cx)
    }

    /// Makes one step. Ready with `true` at the end of the connection.
    fn poll_read_http(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        if self.held.is_empty() {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
            let fresh = &buffer.filled()[before..];
            if fresh.is_empty() {
                return Poll::Ready(Ok(true));
            }
            let passed = self.pass(fresh);
            if passed < fresh.len() {
                self.held.extend_from_slice(&fresh[passed..]);
                buffer.set_filled(before + passed);
            }
        } else if self.pass_held() {
            self.head_due = None;
        } else {
            match self.poll_hold(cx)? {
                Poll::Ready(0) => self.refuse(Fault::CutShort),
                Poll::Ready(_) => {}
                Poll::Pending => return self.poll_head_due(cx).map(Err),
            }
        }
        Poll::Ready(Ok(false))
    }

    /// Ready with an error once the head that is held has taken too long.
    fn poll_head_due(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let limit = self.head_limit;
        let due = self.head_due.get_or_insert_with(|| Box::pin(sleep(limit)));
        due.as_mut().poll(cx).map(|()| io::Error::new(io::ErrorKind::TimedOut, "a head takes too long"))
    }

    /// Does the same for a connection that has left HTTP.
    fn poll_read_raw(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<bool>> {
        if !self.held.is_empty() {
            self.ready = std::mem::take(&mut self.held).freeze();
            return Poll::Ready(Ok(false));
        }
        let before = buffer.filled().len();
        match ready!(Pin::new(&mut self.inner).poll_read(cx, buffer)) {
            // A visitor may end its direction without saying so in TLS. The other direction goes on.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Poll::Ready(Ok(true)),
            result => Poll::Ready(result.map(|()| buffer.filled().len() == before)),
        }
    }

    /// Waits for the decision about an upgrade. Meanwhile it holds what comes, and so notices a visitor who leaves.
    fn poll_undecided(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        loop {
            if let Poll::Ready(switched) = self.verdicts.poll_switched(cx) {
                self.state = if switched { State::Raw } else { State::Head };
                return Poll::Ready(Ok(false));
            }
            if self.held.len() >= MAX_HELD {
                return Poll::Pending;
            }
            if ready!(self.poll_hold(cx))? == 0 {
                // Who has sent something and ended its direction may still want the answer.
                return if self.held.is_empty() { Poll::Ready(Ok(true)) } else { Poll::Pending };
            }
        }
    }

    /// Drops what the visitor still sends, for a while.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let limit = self.lingering.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        if limit.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        // The rest waits in the kernel, which stops the visitor.
        if self.dropped >= MOST {
            return Poll::Pending;
        }
        for _ in 0..DROPS {
            let mut dropped = [0; DROPPED];
            let mut dropped = ReadBuf::new(&mut dropped);
            match ready!(Pin::new(&mut self.inner).poll_read(cx, &mut dropped)) {
                Ok(()) if !dropped.filled().is_empty() => self.dropped += dropped.filled().len() as u64,
                Ok(()) | Err(_) => return Poll::Ready(()),
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Stream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        loop {
            if !this.ready.is_empty() {
                let length = this.ready.len().min(buffer.remaining());
                buffer.put_slice(&this.ready.split_to(length));
                return Poll::Ready(Ok(()));
            }
            let ended = match this.state {
                State::Head | State::Length(_) | State::Chunks(_) => ready!(this.poll_read_http(cx, buffer))?,
                State::Undecided => ready!(this.poll_undecided(cx))?,
                State::Raw => ready!(this.poll_read_raw(cx, buffer))?,
                State::Broken => return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, "broken framing"))),
                State::Refused => return Poll::Pending,
            };
            if ended || buffer.filled().len() > before {
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Stream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.is_shut {
            ready!(Pin::new(&mut self.inner).poll_shutdown(cx))?;
            self.is_shut = true;
        }
        if self.verdicts.lingers() {
            ready!(self.poll_linger(cx));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests;
