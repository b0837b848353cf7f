//! What can go wrong on the wire, who is at fault, and the code that tells the peer.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::budget::Spent;

/// Why an exchange was abandoned: the code of a Reset frame, and of RESET_STREAM and STOP_SENDING over QUIC.
///
/// An unknown code is kept as [`ResetCode::Other`] and treated like [`ResetCode::Cancelled`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ResetCode {
    /// 0: the client wants no more of the request's body; the response goes on.
    NoError,
    /// 1: the sender no longer wants the exchange.
    Cancelled,
    /// 2: the request never reached the local service, so any method may be tried again.
    Unprocessed,
    /// 3: the local service refused the connection (502).
    LocalRefused,
    /// 4: the local service did not answer in time (504).
    LocalTimeout,
    /// 5: the local service broke off or violated HTTP (502, or a truncated transfer).
    LocalBroken,
    /// 6: the response's head is larger than the protocol carries (502).
    TooLarge,
    /// 7: the name of the local service does not resolve (502).
    LocalUnresolved,
    /// 8: the client does not trust the certificate of the local service (502).
    LocalUntrusted,
    /// 9: the local service speaks another protocol than the client, such as TLS or plain HTTP (502).
    LocalMismatch,
    /// 10: the local service's response is not valid HTTP (502).
    LocalInvalid,
    /// Any other code.
    Other(u32),
}

impl ResetCode {
    /// The code as one that ends an exchange or a direction: NO_ERROR ends none, and becomes CANCELLED.
    #[must_use]
    pub fn or_cancelled(self) -> Self {
        if self == Self::NoError { Self::Cancelled } else { self }
    }

    /// A stable name for logs, metrics and traces.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoError => "no_error",
            Self::Cancelled => "cancelled",
            Self::Unprocessed => "unprocessed",
            Self::LocalRefused => "service_refused",
            Self::LocalTimeout => "service_timeout",
            Self::LocalBroken => "service_broke",
            Self::TooLarge => "too_large",
            Self::LocalUnresolved => "service_unresolved",
            Self::LocalUntrusted => "service_untrusted",
            Self::LocalMismatch => "service_mismatch",
            Self::LocalInvalid => "service_invalid",
            Self::Other(_) => "other",
        }
    }

    /// The code on the wire.
    pub const fn to_u32(self) -> u32 {
        match self {
            Self::NoError => 0,
            Self::Cancelled => 1,
            Self::Unprocessed => 2,
            Self::LocalRefused => 3,
            Self::LocalTimeout => 4,
            Self::LocalBroken => 5,
            Self::TooLarge => 6,
            Self::LocalUnresolved => 7,
            Self::LocalUntrusted => 8,
            Self::LocalMismatch => 9,
            Self::LocalInvalid => 10,
            Self::Other(code) => code,
        }
    }
}

impl From<u32> for ResetCode {
    fn from(code: u32) -> Self {
        match code {
            0 => Self::NoError,
            1 => Self::Cancelled,
            2 => Self::Unprocessed,
            3 => Self::LocalRefused,
            4 => Self::LocalTimeout,
            5 => Self::LocalBroken,
            6 => Self::TooLarge,
            7 => Self::LocalUnresolved,
            8 => Self::LocalUntrusted,
            9 => Self::LocalMismatch,
            10 => Self::LocalInvalid,
            other => Self::Other(other),
        }
    }
}

impl fmt::Display for ResetCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoError => f.write_str("no error"),
            Self::Cancelled => f.write_str("cancelled"),
            Self::Unprocessed => f.write_str("not processed"),
            Self::LocalRefused => f.write_str("local service refused the connection"),
            Self::LocalTimeout => f.write_str("local service did not answer in time"),
            Self::LocalBroken => f.write_str("local service broke off"),
            Self::TooLarge => f.write_str("head too large"),
            Self::LocalUnresolved => f.write_str("local service's name does not resolve"),
            Self::LocalUntrusted => f.write_str("local service's certificate is not trusted"),
            Self::LocalMismatch => f.write_str("local service speaks another protocol"),
            Self::LocalInvalid => f.write_str("local service's response is not valid HTTP"),
            Self::Other(code) => write!(f, "reset code {code}"),
        }
    }
}

/// The `code` of an Error frame. An unknown code is kept as it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    /// The peer broke the protocol.
    Protocol,
    /// The frame has a version that this side does not speak.
    Version,
    /// A frame or message was longer than its limit.
    TooLarge,
    /// More body bytes came than were granted.
    FlowControl,
    /// The key is unknown, revoked or expired.
    Unauthorized,
    /// The key may not have the wanted name.
    NameForbidden,
    /// Another key or instance uses the wanted name.
    NameTaken,
    /// The key's or the daemon's limit of tunnels is reached.
    LimitReached,
    /// A newer session of the same client took over.
    Replaced,
    /// The peer was silent for too long.
    Timeout,
    /// The sender stops, or the deadline of its Drain has passed.
    Shutdown,
    /// Something failed on the sender's side.
    Internal,
    /// Refused: the tunnel's kind or a rule is unknown or malformed.
    Unsupported,
    /// Refused: the session drains.
    Draining,
    /// Refused: the session's tunnels have just moved to its successor.
    Moved,
    /// Any other code.
    #[serde(untagged)]
    Other(String),
}

impl ErrorCode {
    /// The application error code of a QUIC connection that is closed for this reason (RFC 9000, section 20.2). 0 means
    /// no error.
    pub const fn to_u32(&self) -> u32 {
        match self {
            Self::Protocol => 1,
            Self::Version => 2,
            Self::TooLarge => 3,
            Self::FlowControl => 4,
            Self::Unauthorized => 5,
            Self::NameForbidden => 6,
            Self::NameTaken => 7,
            Self::LimitReached => 8,
            Self::Replaced => 9,
            Self::Timeout => 10,
            Self::Shutdown => 11,
            Self::Internal => 12,
            Self::Unsupported | Self::Draining | Self::Moved | Self::Other(_) => 13,
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Other(code) => f.write_str(code),
            known => known.serialize(f),
        }
    }
}

/// The peer broke the protocol; the session ends after an Error frame with [`ProtocolError::code`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The version byte is not [`crate::frame::VERSION`].
    #[error("frame of version {0}, only version 1 is spoken here")]
    UnknownVersion(u8),
    /// A type that is neither known nor in the skippable range.
    #[error("unknown frame type 0x{0:02x}")]
    UnknownType(u8),
    /// The header declares more than the type's limit.
    #[error("{kind} frame of {length} bytes, the limit is {limit}")]
    FrameTooLong {
        /// The frame's type, by the name in the specification.
        kind: &'static str,
        /// The declared payload length in bytes.
        length: u32,
        /// The limit in bytes.
        limit: u32,
    },
    /// A message longer than [`crate::frame::MAX_MESSAGE`].
    #[error("message of {0} bytes, the limit is 131072")]
    MessageTooLong(usize),
    /// A message that ends within a frame.
    #[error("message ends in the middle of a frame")]
    TruncatedFrame,
    /// A payload that does not parse.
    #[error("malformed {kind} frame: {why}")]
    Malformed {
        /// The frame's type.
        kind: &'static str,
        /// The mistake in it.
        why: String,
    },
    /// A known frame at a wrong time or from the wrong side.
    #[error("unexpected {kind} frame: {why}")]
    Unexpected {
        /// The frame's type.
        kind: &'static str,
        /// Why it may not come now.
        why: &'static str,
    },
    /// A frame for an exchange that was never opened.
    #[error("{kind} frame for exchange {id}, which was never opened")]
    NeverOpened {
        /// The frame's type.
        kind: &'static str,
        /// The exchange id.
        id: u32,
    },
    /// More body bytes than granted.
    #[error("exchange {id}: {excess} body bytes beyond the granted credit")]
    CreditExceeded {
        /// The exchange id.
        id: u32,
        /// Bytes beyond the credit.
        excess: u64,
    },
    /// More exchanges at once than announced.
    #[error("more than {0} exchanges at once")]
    TooManyExchanges(u32),
    /// A frame for a tunnel that the session never had.
    #[error("{kind} frame for tunnel {id}, which was never bound")]
    NeverBound {
        /// The frame's type.
        kind: &'static str,
        /// The tunnel's id.
        id: u32,
    },
    /// More tunnels, or more unanswered Binds, than a session may have.
    #[error("more than {limit} {what} in one session")]
    TooManyTunnels {
        /// What there are too many of.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// More bytes of unknown frames than a session may send.
    #[error("too many frames of unknown types")]
    SkipBudget,
    /// More frames that bring no exchange forward than a client may send.
    #[error(transparent)]
    Spent(#[from] Spent),
}

impl ProtocolError {
    /// The code for the Error frame.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::UnknownVersion(_) => ErrorCode::Version,
            Self::FrameTooLong { .. } | Self::MessageTooLong(_) => ErrorCode::TooLarge,
            Self::CreditExceeded { .. } => ErrorCode::FlowControl,
            Self::TooManyTunnels { .. } | Self::Spent(_) => ErrorCode::LimitReached,
            Self::UnknownType(_)
            | Self::TruncatedFrame
            | Self::Malformed { .. }
            | Self::Unexpected { .. }
            | Self::NeverOpened { .. }
            | Self::NeverBound { .. }
            | Self::TooManyExchanges(_)
            | Self::SkipBudget => ErrorCode::Protocol,
        }
    }
}
