//! The connection window: how many bytes all streams of a session may hold together.
//!
//! QUIC has one window for the connection and one for each stream (RFC 9000, section 4). A stalled reader fills part of
//! the connection window. With a fixed size, a few slow visitors would hold up all others. Here the window grows by one
//! stream window for each stalled reader, and shrinks again. So a session holds at most [`BASE_STREAMS`] stream
//! windows, and one for each exchange that stalls.

use quinn::VarInt;

use super::settings::stream_window;

/// Stream windows for all readers that keep up. With windows of 1 MiB, 4 MiB carry 560 Mbit/s over 60 ms.
const BASE_STREAMS: u64 = 4;

#[derive(Debug)]
pub(super) struct ConnectionWindow {
    /// The size of a stream window in bytes.
    stream: u64,
    /// Readers that stall.
    stalled: usize,
}

impl ConnectionWindow {
    pub(super) fn new(initial_window: u32) -> Self {
        Self { stream: stream_window(initial_window).into(), stalled: 0 }
    }

    /// The size of a stream window in bytes: what one stalled reader may hold.
    pub(super) fn of_stream(&self) -> usize {
        usize::try_from(self.stream).unwrap_or(usize::MAX)
    }

    /// The window's size in bytes.
    pub(super) fn size(&self) -> VarInt {
        VarInt::from_u64((BASE_STREAMS + self.stalled as u64) * self.stream).unwrap_or(VarInt::MAX)
    }

    /// Sets how many readers stall. Returns the window's new size in bytes if it changes.
    pub(super) fn adjust(&mut self, stalled: usize) -> Option<VarInt> {
        let changes = std::mem::replace(&mut self.stalled, stalled) != stalled;
        changes.then(|| self.size())
    }
}
