//! The connection window: how many bytes all streams of a session may hold together (RFC 9000, section 4).
//!
//! Each exchange has a credit window of its own, so a reader that stalls holds up no other. The connection window must not
//! undo that. So it has room for all that was granted to the open exchanges, and for what needs no credit. It bounds a
//! peer that ignores its credit.

use quinn::VarInt;

/// Room for what needs no credit: heads, trailers and headers of frames.
const BASE: u64 = 4 * 1024 * 1024;
/// The window changes in steps of this many bytes, since a change takes the lock of the connection.
const STEP: u64 = 4 * 1024 * 1024;

#[derive(Debug)]
pub(super) struct ConnectionWindow {
    /// Bytes that all open exchanges may hold.
    granted: u64,
    /// The window's size in bytes.
    size: u64,
}

impl ConnectionWindow {
    pub(super) fn new() -> Self {
        Self { granted: 0, size: Self::fitting(0) }
    }

    /// The window that all of `granted` needs. Credit counts bodies alone, and headers of small frames may take as much.
    /// Quinn grants more only once an eighth of the window is free, so the peer may see seven eighths of it.
    fn needed(granted: u64) -> u64 {
        (BASE + 2 * granted) / 7 * 8
    }

    fn fitting(granted: u64) -> u64 {
        Self::needed(granted).next_multiple_of(STEP) + STEP
    }

    /// The window's size in bytes.
    pub(super) fn size(&self) -> VarInt {
        VarInt::from_u64(self.size).unwrap_or(VarInt::MAX)
    }

    /// An exchange may hold so many bytes more. Returns the window's new size in bytes if it has to grow at once.
    pub(super) fn grant(&mut self, bytes: u64) -> Option<VarInt> {
        self.granted += bytes;
        (Self::needed(self.granted) > self.size).then(|| self.fit())
    }

    /// An exchange that might hold so many bytes is over.
    pub(super) fn take_back(&mut self, bytes: u64) {
        self.granted = self.granted.saturating_sub(bytes);
    }

    /// Shrinks the window to what it needs. Returns its new size in bytes if that changes.
    pub(super) fn settle(&mut self) -> Option<VarInt> {
        (Self::fitting(self.granted) < self.size).then(|| self.fit())
    }

    fn fit(&mut self) -> VarInt {
        self.size = Self::fitting(self.granted);
        self.size()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_room_for_all_that_is_granted() {
        let (mut window, mut changes) = (ConnectionWindow::new(), 0);
        for exchanges in 1..=1000_u64 {
            changes += u64::from(window.grant(256 * 1024).is_some());
            assert!(window.size / 8 * 7 >= BASE + exchanges * 256 * 1024);
        }
        assert!(changes < 150, "{changes}");
        assert_eq!(window.settle(), None);
        window.take_back(1000 * 256 * 1024);
        assert_eq!(window.settle(), Some(ConnectionWindow::new().size()));
        assert_eq!(window.settle(), None);
    }
}
