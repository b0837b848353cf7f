//! Violations of HTTP/3, and the error codes that peers get for them.

use h3::error::Code;
use tracing::debug;

/// A rule that a peer has broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Violation {
    /// What has to end for it.
    pub(super) scope: Scope,
    /// The code that the peer gets.
    pub(super) code: Code,
    /// The reason in words, for the log and for the frame that closes a connection.
    pub(super) reason: &'static str,
}

/// What a violation ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// One request; the others go on.
    Stream,
    /// The connection: its state is no longer certain.
    Connection,
}

impl Violation {
    /// One that ends a request.
    pub(super) const fn stream(code: Code, reason: &'static str) -> Self {
        Self { scope: Scope::Stream, code, reason }
    }

    /// One that ends the connection.
    pub(super) const fn connection(code: Code, reason: &'static str) -> Self {
        Self { scope: Scope::Connection, code, reason }
    }

    /// Closes a connection for it.
    pub(super) fn close(self, connection: &quinn::Connection) {
        debug!(violation = ?self, "visitor's connection closed");
        connection.close(wire(self.code), self.reason.as_bytes());
    }

    /// A request that is malformed (RFC 9114, section 4.1.2).
    pub(super) const fn malformed(reason: &'static str) -> Self {
        Self::stream(Code::H3_MESSAGE_ERROR, reason)
    }
}

/// A code as QUIC carries it.
pub(super) fn wire(code: Code) -> quinn::VarInt {
    quinn::VarInt::from_u64(code.value()).unwrap_or(quinn::VarInt::MAX)
}
