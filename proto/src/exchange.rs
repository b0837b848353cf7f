//! What an exchange is on every transport: the states of its two directions, and what its reader gets.
//!
//! The queues are those of the multiplexer; over QUIC a stream has its own. Nothing here knows ids, sessions or other
//! exchanges.

mod account;
mod inbox;
mod outbox;
mod state;
mod window;

use bytes::Bytes;
use http::HeaderMap;

use crate::error::ResetCode;
use crate::head::ResponseHead;

pub use self::account::{Account, Holding};
pub(crate) use self::inbox::Inbox;
pub(crate) use self::outbox::{Finish, OutHead, OutMessage, Outbox};
pub(crate) use self::state::RecvState;
pub use self::state::{Handed, SendState};
pub use self::window::{MAX_CREDIT, RecvWindow, WindowBudget, check_initial_window};

/// The most interim heads (1xx) in one exchange; services send one or two.
pub const MAX_INTERIM_HEADS: u8 = 16;

/// Chunks of at least this many bytes are passed on without a copy. Shorter ones that have to wait are joined, so that
/// a peer who sends single bytes cannot hold a whole read buffer with each.
const SHARE_FROM: usize = 4 * 1024;

/// How long a daemon whose visitor has left still waits for the client to take a body that broke off. Measured from the
/// last time that the owner has passed in, which may be some seconds ago.
pub const LINGER: std::time::Duration = std::time::Duration::from_secs(30);

/// What a reader gets, in order.
#[derive(Debug, PartialEq)]
pub enum Received {
    /// A response head: any number of interim ones, then the final one. With `end`, nothing follows.
    Head {
        /// The head.
        head: ResponseHead,
        /// Whether this ends the direction.
        end: bool,
    },
    /// Body bytes. With `end`, nothing follows.
    Data {
        /// The bytes; may be empty with `end`.
        data: Bytes,
        /// Whether this ends the direction.
        end: bool,
    },
    /// Trailers; nothing follows.
    Trailers(HeaderMap),
}

/// Why an exchange ended early.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExchangeError {
    /// The peer, or another handle on our side, abandoned it.
    #[error("exchange reset: {0}")]
    Reset(ResetCode),
    /// The session ended under it.
    #[error("the session ended")]
    SessionLost,
}
