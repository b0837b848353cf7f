//! How much of the daemon one key may use.

pub(crate) use cok_proto::rate::Rate;

/// The most tunnels that a key can be allowed.
pub(crate) const MOST_TUNNELS: u64 = 10_000;
/// The most sessions that a key can be allowed.
pub(crate) const MOST_SESSIONS: u64 = 10_000;
/// The most exchanges at once that a limit can name.
pub(crate) const MOST_EXCHANGES: u64 = 1_000_000;

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
