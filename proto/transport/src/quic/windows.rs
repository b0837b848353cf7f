//! How much a session's streams may hold together.
//!
//! QUIC has one window for the connection beside those of the streams (RFC 9000, section 4). What a stalled reader
//! leaves unread takes of it, so a fixed one would let a few slow visitors hold up all others. Here it grows by what
//! stalled readers can hold, each a stream's window: [`Config::initial_window`](crate::Config) of it in any case, the
//! rest out of the process's budget. So a session holds at most [`BASE`] and an initial window for each exchange beyond
//! what the budget gave, and nobody is held up while the budget lasts.

use cok_proto::mux::WindowBudget;
use quinn::VarInt;

use super::settings::STREAM_WINDOW;

/// For readers that keep up, all together: 4 MiB carry 560 Mbit/s over 60 ms.
const BASE: u32 = 4 * STREAM_WINDOW;

#[derive(Debug)]
pub(super) struct Windows {
    initial: u32,
    budget: WindowBudget,
    stalled: usize,
    borrowed: usize,
    size: u64,
}

impl Windows {
    pub(super) fn new(config: &crate::Config) -> Self {
        Self {
            initial: config.initial_window.min(STREAM_WINDOW),
            budget: config.budget.clone(),
            stalled: 0,
            borrowed: 0,
            size: u64::from(BASE),
        }
    }

    pub(super) fn size(&self) -> VarInt {
        VarInt::from_u64(self.size).unwrap_or(VarInt::MAX)
    }

    /// Takes note of how many readers stall; the window's new size if it changes.
    pub(super) fn adjust(&mut self, stalled: usize) -> Option<VarInt> {
        if stalled == self.stalled {
            return None;
        }
        self.stalled = stalled;
        let wanted = stalled * (STREAM_WINDOW - self.initial) as usize;
        if wanted > self.borrowed {
            self.borrowed += self.budget.take_up_to(wanted - self.borrowed);
        } else {
            self.budget.give_back(self.borrowed - wanted);
            self.borrowed = wanted;
        }
        self.size = u64::from(BASE) + (stalled as u64) * u64::from(self.initial) + self.borrowed as u64;
        Some(self.size())
    }
}

impl Drop for Windows {
    fn drop(&mut self) {
        self.budget.give_back(self.borrowed);
    }
}
