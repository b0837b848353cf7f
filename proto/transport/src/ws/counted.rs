//! The byte stream under a client's WebSocket. The library answers pings and joins fragments by itself, and shows neither.
//! So their headers are read here (RFC 6455, section 5.2), and frames that carry nothing cost the client.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use cok_proto::budget::{Budget, Spent};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// How many buffers are dropped before other tasks have their turn.
const DROPS: usize = 16;

/// What a connection may spend at once: 1,000 frames of no use. The unit is a tenth of one.
const MOST: u32 = 10_000;
/// What time adds in a second: 100 frames. Proxies and libraries ping some times a minute.
const PER_SECOND: u32 = 1_000;
/// A ping, a pong, an empty message or a tiny fragment.
const USELESS: u32 = 10;
/// A message of the protocol is never shorter than a frame's header. Nothing splits messages into pieces like this.
const TINY: u64 = 7;
/// Payload from this length on earns something.
const LARGE: u64 = 1024;
const LARGE_EARNS: u32 = 20;

/// The longest header without its masking key. The key counts as payload here.
const LONGEST_HEADER: usize = 10;
const MASK: u8 = 0x80;
const MASKING_KEY: u64 = 4;
/// Opcodes from this one on are those of control frames.
const CONTROL: u8 = 0x8;
const OPCODE: u8 = 0x0f;

/// What the frames of one direction cost. Pure: bytes in, a verdict out.
#[derive(Debug)]
pub(super) struct Frames {
    budget: Budget,
    header: [u8; LONGEST_HEADER],
    /// How many bytes of the header have come.
    have: usize,
    /// How many bytes of the current frame follow its header.
    left: u64,
}

impl Frames {
    pub(super) const fn new() -> Self {
        Self { budget: Budget::new(MOST, PER_SECOND), header: [0; LONGEST_HEADER], have: 0, left: 0 }
    }

    /// Accounts for bytes that came, in any pieces.
    pub(super) fn receive(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Spent> {
        loop {
            let passed = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            self.left -= passed as u64;
            bytes = bytes.get(passed..).unwrap_or_default();
            let Some((byte, rest)) = bytes.split_first() else { return Ok(()) };
            bytes = rest;
            if let Some(place) = self.header.get_mut(self.have) {
                *place = *byte;
            }
            self.have += 1;
            if self.have >= self.header_length() {
                self.have = 0;
                self.frame(now)?;
            }
        }
    }

    fn header_length(&self) -> usize {
        match (self.have, self.header[1] & !MASK) {
            (..2, _) | (_, ..126) => 2,
            (_, 126) => 4,
            (_, _) => LONGEST_HEADER,
        }
    }

    /// Accounts for a frame whose header is whole.
    fn frame(&mut self, now: Instant) -> Result<(), Spent> {
        let [first, second, extended @ ..] = self.header;
        let [a, b, ..] = extended;
        let payload = match second & !MASK {
            126 => u16::from_be_bytes([a, b]).into(),
            127 => u64::from_be_bytes(extended),
            length => length.into(),
        };
        self.left = payload.saturating_add(if second & MASK == 0 { 0 } else { MASKING_KEY });
        if first & OPCODE >= CONTROL || payload < TINY {
            return self.budget.spend(USELESS, now);
        }
        if payload >= LARGE {
            self.budget.earn(LARGE_EARNS);
        }
        Ok(())
    }
}

/// A stream whose incoming frames are counted.
#[derive(Debug)]
pub(super) struct Counted<S> {
    inner: S,
    frames: Option<Frames>,
    spent: bool,
    /// The library knows that nothing more comes.
    told: bool,
}

impl<S> Counted<S> {
    /// Of a client, which pays for `frames`. `read` has been read before.
    pub(super) fn of_client(inner: S, read: &[u8]) -> Self {
        let mut frames = Frames::new();
        let spent = frames.receive(read, Instant::now()).is_err();
        Self { inner, frames: Some(frames), spent, told: false }
    }

    /// Of a daemon, which pays for nothing.
    pub(super) const fn of_daemon(inner: S) -> Self {
        Self { inner, frames: None, spent: false, told: false }
    }

    pub(super) const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// Whether the client has nothing left. What still comes from it is dropped.
    pub(super) const fn is_spent(&self) -> bool {
        self.spent
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Counted<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        if !this.spent {
            ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
            let fresh = buffer.filled().get(before..).unwrap_or_default();
            let Some(frames) = &mut this.frames else { return Poll::Ready(Ok(())) };
            if frames.receive(fresh, Instant::now()).is_ok() {
                return Poll::Ready(Ok(()));
            }
            buffer.set_filled(before);
            this.spent = true;
        }
        if !std::mem::replace(&mut this.told, true) {
            return Poll::Ready(Err(io::Error::other(Spent)));
        }
        // Unread bytes would make the kernel reset the connection, and the last frame would be lost.
        for _ in 0..DROPS {
            ready!(Pin::new(&mut this.inner).poll_read(cx, buffer))?;
            if buffer.filled().len() == before {
                return Poll::Ready(Ok(()));
            }
            buffer.set_filled(before);
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Counted<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, data)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame of a client, all of whose bytes look like headers.
    fn frame(first: u8, length: usize) -> Vec<u8> {
        let mut frame = vec![first];
        match length {
            0..=125 => frame.push(MASK | length as u8),
            126..=0xffff => {
                frame.push(MASK | 0x7e);
                frame.extend((length as u16).to_be_bytes());
            }
            _ => {
                frame.push(MASK | 127);
                frame.extend((length as u64).to_be_bytes());
            }
        }
        frame.extend(vec![0x89; length + 4]);
        frame
    }

    /// How many of the same frame pass at once, in pieces of this size.
    fn most(frame: &[u8], piece: usize) -> usize {
        let (mut frames, now) = (Frames::new(), Instant::now());
        let mut pass = || frame.chunks(piece).all(|piece| frames.receive(piece, now).is_ok());
        (0..5000).take_while(|_| pass()).count()
    }

    #[test]
    fn floods_are_cut_off_and_messages_are_not() {
        for piece in [1, 3, 7, usize::MAX] {
            let tiny = [(0x89, 0), (0x89, 125), (0x8a, 8), (0x82, 0), (0x02, 1), (0x00, 6), (0x80, 0)];
            for (first, length) in tiny {
                assert_eq!(most(&frame(first, length), piece), 1000, "{first:#x} {length}");
            }
            for (first, length) in [(0x82, 7), (0x02, 200), (0x00, 1000), (0x82, 16_370), (0x82, 70_000)] {
                assert_eq!(most(&frame(first, length), piece.max(100)), 5000, "{first:#x} {length}");
            }
        }
    }

    #[test]
    fn messages_make_room_for_pings() {
        let (mut frames, now) = (Frames::new(), Instant::now());
        for _ in 0..10_000 {
            assert_eq!(frames.receive(&frame(0x82, 2000), now), Ok(()));
            assert_eq!(frames.receive(&frame(0x89, 0), now), Ok(()));
        }
    }
}
