//! The types of frames, and how long each may be.

use super::{HEADER_LEN, MAX_CONTROL, MAX_DATA_FRAME, MAX_HEAD, MAX_PAYLOAD};
use crate::error::ProtocolError;

/// The type byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FrameType {
    /// 0x01
    Connect,
    /// 0x02
    ConnectAck,
    /// 0x03
    Drain,
    /// 0x04
    Bind,
    /// 0x05
    Bound,
    /// 0x06
    Refused,
    /// 0x07
    Unbind,
    /// 0x10
    HttpRequest,
    /// 0x11
    HttpResponse,
    /// 0x12
    Data,
    /// 0x13
    Trailers,
    /// 0x14
    Reset,
    /// 0x15
    WindowUpdate,
    /// 0xF0
    Ping,
    /// 0xF1
    Pong,
    /// 0xFF
    Error,
    /// 0x80 to 0xEF: kept for later versions and skipped.
    Skippable(u8),
}

impl FrameType {
    /// The byte on the wire.
    pub const fn to_u8(self) -> u8 {
        match self {
            Self::Connect => 0x01,
            Self::ConnectAck => 0x02,
            Self::Drain => 0x03,
            Self::Bind => 0x04,
            Self::Bound => 0x05,
            Self::Refused => 0x06,
            Self::Unbind => 0x07,
            Self::HttpRequest => 0x10,
            Self::HttpResponse => 0x11,
            Self::Data => 0x12,
            Self::Trailers => 0x13,
            Self::Reset => 0x14,
            Self::WindowUpdate => 0x15,
            Self::Ping => 0xF0,
            Self::Pong => 0xF1,
            Self::Error => 0xFF,
            Self::Skippable(byte) => byte,
        }
    }

    /// The type of a byte from the wire.
    pub const fn from_u8(byte: u8) -> Result<Self, ProtocolError> {
        Ok(match byte {
            0x01 => Self::Connect,
            0x02 => Self::ConnectAck,
            0x03 => Self::Drain,
            0x04 => Self::Bind,
            0x05 => Self::Bound,
            0x06 => Self::Refused,
            0x07 => Self::Unbind,
            0x10 => Self::HttpRequest,
            0x11 => Self::HttpResponse,
            0x12 => Self::Data,
            0x13 => Self::Trailers,
            0x14 => Self::Reset,
            0x15 => Self::WindowUpdate,
            0xF0 => Self::Ping,
            0xF1 => Self::Pong,
            0xFF => Self::Error,
            0x80..=0xEF => Self::Skippable(byte),
            _ => return Err(ProtocolError::UnknownType(byte)),
        })
    }

    /// The name that the specification uses.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "Connect",
            Self::ConnectAck => "ConnectAck",
            Self::Drain => "Drain",
            Self::Bind => "Bind",
            Self::Bound => "Bound",
            Self::Refused => "Refused",
            Self::Unbind => "Unbind",
            Self::HttpRequest => "HTTPRequest",
            Self::HttpResponse => "HTTPResponse",
            Self::Data => "Data",
            Self::Trailers => "Trailers",
            Self::Reset => "Reset",
            Self::WindowUpdate => "WindowUpdate",
            Self::Ping => "Ping",
            Self::Pong => "Pong",
            Self::Error => "Error",
            Self::Skippable(_) => "unknown",
        }
    }

    /// The longest payload of this type in bytes.
    pub const fn limit(self) -> usize {
        match self {
            Self::Data => MAX_DATA_FRAME - HEADER_LEN,
            Self::HttpRequest | Self::HttpResponse | Self::Trailers => MAX_HEAD,
            Self::Connect
            | Self::ConnectAck
            | Self::Drain
            | Self::Bind
            | Self::Bound
            | Self::Refused
            | Self::Unbind
            | Self::Error => MAX_CONTROL,
            Self::Reset | Self::WindowUpdate | Self::Ping | Self::Pong => 8,
            Self::Skippable(_) => MAX_PAYLOAD,
        }
    }
}
