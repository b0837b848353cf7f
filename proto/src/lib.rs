//! The wire protocol `cok/1`, as pure state machines.
//!
//! Bytes and the current time go in; bytes and events come out. Nothing here knows a socket, a runtime or a clock, so
//! everything can be fuzzed, replayed and stepped through. `PROTOCOL.md`, next to this crate's manifest, specifies the
//! protocol for authors of clients in other languages.
//!
//! - [`frame`]: the seven-byte header, the frame types and their limits, encoding and decoding.
//! - [`message`]: control payloads (JSON).
//! - [`rate`]: how often something may come, and how users write that.
//! - [`rules`]: what a tunnel asks the daemon to do to its requests.
//! - [`share`]: links that let their holders into a tunnel.
//! - [`head`]: request and response heads and trailers (binary).
//! - [`session`]: one side of one session: handshake, order of ids, drain, end.
//! - [`exchange`]: the states of an exchange's two directions, and what its reader gets.
//! - [`mux`]: many exchanges over one ordered pipe of messages: credit windows, fair turns, liveness.
//! - [`budget`]: the account for frames that bring no exchange forward.
//! - [`stream`]: one exchange, or the control frames, on a stream of its own, as over QUIC.
//!
//! The crate does not carry bytes (`cok-transport` does), speak HTTP, or decide who may own a name.

pub mod budget;
pub mod error;
pub mod exchange;
pub mod frame;
pub mod head;
pub mod ids;
pub mod message;
pub mod mux;
pub mod rate;
pub mod rules;
pub mod session;
pub mod share;
pub mod stream;

pub use error::{ErrorCode, ProtocolError, ResetCode};
pub use exchange::{Account, ExchangeError, Holding, Received, WindowBudget};
pub use frame::{Frame, FrameHeader, FrameType};
pub use head::{RequestHead, ResponseHead, Scheme, Target};
pub use message::{
    Bind, Bound, Connect, ConnectAck, Drain, DrainReason, ErrorMessage, FallbackReason, TunnelFrame, Unbind,
    UnbindReason,
};
pub use rules::Rules;
pub use session::{OpenError, Role, SessionError};
