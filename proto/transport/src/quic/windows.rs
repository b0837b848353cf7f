//! How much a session's streams may hold together.
//!
//! QUIC has one window for the connection beside those of the streams (RFC 9000, section 4). What a stalled reader
//! leaves unread takes of it, so a fixed one would let a few slow visitors hold up all others. Here it grows by a
//! stream's window for each stalled reader, and shrinks again. So a session holds at most what readers that keep up may
//! have under way together, and a stream's window for each exchange.

use quinn::VarInt;

use super::settings::stream_window;

/// For readers that keep up, all together, in streams' windows: with those of 1 MiB, 4 MiB carry 560 Mbit/s over 60 ms.
const BASE_STREAMS: u64 = 4;

#[derive(Debug)]
pub(super) struct Windows {
    stream: u64,
    stalled: usize,
}

impl Windows {
    pub(super) fn new(initial_window: u32) -> Self {
        Self { stream: stream_window(initial_window).into(), stalled: 0 }
    }

    pub(super) fn size(&self) -> VarInt {
        VarInt::from_u64((BASE_STREAMS + self.stalled as u64) * self.stream).unwrap_or(VarInt::MAX)
    }

    /// Takes note of how many readers stall; the window's new size if it changes.
    pub(super) fn adjust(&mut self, stalled: usize) -> Option<VarInt> {
        let changes = std::mem::replace(&mut self.stalled, stalled) != stalled;
        changes.then(|| self.size())
    }
}
