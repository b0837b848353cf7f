//! What the frames of a client cost the daemon, and what earns it back. A client has a key and may hurt others all the same.
//!
//! The unit is a tenth of a frame that has to be handled.

use std::time::Instant;

use crate::budget::Budget;
use crate::error::ProtocolError;
use crate::frame::Frame;

use super::{Role, Session};

/// What a session may spend at once: 1,000 frames.
const MOST: u32 = 10_000;
/// What time adds in a second: 100 frames. A client has a Ping every 15 s, and now and then one to measure the round trip.
const PER_SECOND: u32 = 1_000;

/// A frame that brings no exchange forward: Ping, Pong, Drain, an unknown type, an empty Data, a frame for an exchange that
/// is over.
const USELESS: u32 = 10;
/// A Bind or an Unbind. A client may bind and unbind a session's 1,000 tunnels twice in one go.
const TUNNEL_COST: u32 = 2;

/// A request that goes out. Its end may cross a few frames of the client.
const REQUEST_EARNS: u32 = 100;
/// A Data frame that goes out, or a large one that comes.
const DATA_EARNS: u32 = 20;
/// Data from this length on earns something.
const LARGE: usize = 1024;

/// WindowUpdates that each Data frame justifies, one more for so many bytes, and the most that wait to come: those for
/// 32 MiB. A client sends one for half a window, or for an eighth of one at its limit.
const UPDATES_PER_DATA: u32 = 2;
const BYTES_PER_UPDATE: usize = 2048;
const MOST_UPDATES: u32 = 16 * 1024;

/// Data with fewer bytes than this is hardly worth its header. It is honest work all the same: small messages of a
/// WebSocket. So each exchange has an account of its own for it: a full message of them, and 20,000 in a second.
const TINY: usize = 16;
const TINY_MOST: u32 = 12_000;
const TINY_PER_SECOND: u32 = 20_000;

/// The account of a session.
#[derive(Debug)]
pub(super) struct Toll {
    budget: Budget,
    /// WindowUpdates that are justified and have not come.
    updates: u32,
    /// Bytes that were sent and have not justified a WindowUpdate.
    remainder: usize,
}

impl Default for Toll {
    fn default() -> Self {
        Self { budget: Budget::new(MOST, PER_SECOND), updates: 0, remainder: 0 }
    }
}

impl Session {
    /// Charges the client for a frame about the session or its tunnels.
    pub(super) fn charge(&mut self, frame: &Frame, now: Instant) -> Result<(), ProtocolError> {
        let units = match frame {
            Frame::Ping(_) | Frame::Pong(_) | Frame::Drain(_) | Frame::Skipped { .. } => USELESS,
            Frame::Tunnel { .. } => TUNNEL_COST,
            _ => return Ok(()),
        };
        self.spend(units, now)
    }

    /// Charges the client for a frame of an exchange, which is over or is `open`.
    pub fn charge_exchange(&mut self, frame: &Frame, open: bool, now: Instant) -> Result<(), ProtocolError> {
        match frame {
            Frame::WindowUpdate { .. } if self.toll.updates > 0 => self.toll.updates -= 1,
            Frame::WindowUpdate { .. } => return self.spend(USELESS, now),
            Frame::Data { body, end: false, .. } if body.is_empty() => return self.spend(USELESS, now),
            Frame::Data { body, .. } if open && body.len() >= LARGE => self.toll.budget.earn(DATA_EARNS),
            // What crosses the end of its exchange is within its credit.
            Frame::Data { body, .. } if body.len() >= TINY => {}
            _ if open => {}
            _ => return self.spend(USELESS, now),
        }
        Ok(())
    }

    /// Daemon: a request has gone out.
    pub(super) fn earn_request(&mut self) {
        self.toll.budget.earn(REQUEST_EARNS);
    }

    /// Data frames with so many body bytes in all have gone out.
    pub fn earn_data(&mut self, frames: u32, bytes: usize) {
        self.toll.budget.earn(frames.saturating_mul(DATA_EARNS));
        self.toll.remainder = self.toll.remainder.saturating_add(bytes);
        let by_bytes = u32::try_from(self.toll.remainder / BYTES_PER_UPDATE).unwrap_or(u32::MAX);
        self.toll.remainder %= BYTES_PER_UPDATE;
        let more = frames.saturating_mul(UPDATES_PER_DATA).saturating_add(by_bytes);
        self.toll.updates = self.toll.updates.saturating_add(more).min(MOST_UPDATES);
    }

    /// Only clients pay: a client chooses its daemon, and everybody may be the daemon's client.
    fn spend(&mut self, units: u32, now: Instant) -> Result<(), ProtocolError> {
        if self.role == Role::Daemon {
            self.toll.budget.spend(units, now)?;
        }
        Ok(())
    }
}

/// The account of one exchange for tiny Data frames.
#[derive(Debug)]
pub(crate) struct TinyData(Budget);

impl Default for TinyData {
    fn default() -> Self {
        Self(Budget::new(TINY_MOST, TINY_PER_SECOND))
    }
}

impl TinyData {
    /// Charges a client for a Data frame with so many bytes. The last one of a body is free.
    pub(crate) fn charge(&mut self, length: usize, end: bool, now: Instant) -> Result<(), ProtocolError> {
        match length {
            _ if end => {}
            0 => self.0.spend(USELESS, now)?,
            1..TINY => self.0.spend(1, now)?,
            _ => {}
        }
        Ok(())
    }
}
