//! How much of the daemon one key may use.

use std::num::NonZeroU32;

use cok_proto::rules::VisitorRate;

/// The most tunnels that a key can be allowed.
pub(crate) const MOST_TUNNELS: u64 = 10_000;
/// The most sessions that a key can be allowed.
pub(crate) const MOST_SESSIONS: u64 = 10_000;
/// The most requests a second, or exchanges at once, that a limit can name.
pub(crate) const MOST_REQUESTS: u64 = 1_000_000;

/// A rate of a token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    /// How many come back each second.
    pub(crate) per_second: NonZeroU32,
    /// How many may go at once.
    pub(crate) burst: NonZeroU32,
}

impl From<VisitorRate> for Rate {
    fn from(rate: VisitorRate) -> Self {
        Self { per_second: rate.per_second, burst: rate.burst }
    }
}

/// The limits of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyLimits {
    /// The most tunnels at once. 1 to 10,000, default 10.
    pub(crate) tunnels: usize,
    /// The most sessions at once. 1 to 10,000, default 100.
    pub(crate) sessions: usize,
    /// The most exchanges at once in all its tunnels. 1 to 1,000,000; without it only each session's limit counts.
    pub(crate) exchanges: Option<u32>,
    /// Requests of visitors to all its tunnels.
    pub(crate) requests: Option<Rate>,
    /// Bytes of bodies to and from visitors of all its tunnels.
    pub(crate) bytes: Option<Rate>,
}

impl Default for KeyLimits {
    fn default() -> Self {
        Self { tunnels: 10, sessions: 100, exchanges: None, requests: None, bytes: None }
    }
}
