//! One message of a stream.

use super::Trouble;

/// One message of a stream, such as an event or a WebSocket message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Message {
    /// How many messages the same direction had before.
    pub(crate) ordinal: u64,
    /// How many bytes the same direction had before, without its content codings.
    pub(crate) offset: u64,
    /// What it is.
    pub(crate) kind: MessageKind,
    /// The length of the whole payload, as far as it was decompressed.
    pub(crate) size: u64,
    /// The payload's length as it was sent, which differs from `size` for messages that are compressed one by one.
    pub(crate) sent: u64,
    /// The beginning of the payload, up to [`Limits::shown`](super::Limits::shown).
    pub(crate) bytes: Vec<u8>,
    /// Why `bytes` may not be what was meant.
    pub(crate) trouble: Option<Trouble>,
}

/// What a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MessageKind {
    /// A WebSocket's text.
    Text,
    /// A WebSocket's binary message.
    Binary,
    /// A WebSocket's Ping.
    Ping,
    /// A WebSocket's Pong.
    Pong,
    /// A WebSocket's Close. Its payload is the reason.
    Close {
        /// The status code, such as 1000. `None` if the Close has none.
        code: Option<u16>,
    },
    /// A WebSocket's frame that RFC 6455 does not allow.
    Unknown {
        /// The frame's opcode.
        opcode: u8,
    },
    /// A server-sent event. Its payload is its data.
    Event {
        /// The type, if it has one.
        name: Option<String>,
        /// The last event's id, if it sets it.
        id: Option<String>,
        /// The reconnection time in milliseconds, if it sets it.
        retry: Option<u64>,
        /// It has data, so that browsers report it.
        has_data: bool,
    },
    /// A comment between server-sent events, often to keep the connection alive.
    Comment,
    /// A line, or a record of a JSON text sequence.
    Line,
    /// A message of gRPC, gRPC-Web or Connect.
    Grpc {
        /// It was compressed by itself.
        compressed: bool,
    },
    /// The trailers of gRPC-Web, or the end of a Connect stream, which come as the last message.
    GrpcEnd {
        /// It was compressed by itself.
        compressed: bool,
    },
}

impl MessageKind {
    /// The kind in one lower-case word, as scripts get it.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Binary => "binary",
            Self::Ping => "ping",
            Self::Pong => "pong",
            Self::Close { .. } => "close",
            Self::Unknown { .. } => "unknown",
            Self::Event { .. } => "event",
            Self::Comment => "comment",
            Self::Line => "line",
            Self::Grpc { .. } => "grpc",
            Self::GrpcEnd { .. } => "grpc_end",
        }
    }
}

impl Message {
    /// Whether `bytes` is not the whole payload.
    pub(crate) fn is_truncated(&self) -> bool {
        (self.bytes.len() as u64) < self.size
    }

    /// What it takes in memory.
    pub(crate) fn memory(&self) -> usize {
        let texts = match &self.kind {
            MessageKind::Event { name, id, .. } => {
                name.as_ref().map_or(0, String::capacity) + id.as_ref().map_or(0, String::capacity)
            }
            _ => 0,
        };
        size_of::<Self>() + self.bytes.capacity() + texts
    }
}

/// A payload that comes in pieces. It keeps the beginning and counts the rest.
#[derive(Debug, Default)]
pub(super) struct Payload {
    bytes: Vec<u8>,
    size: u64,
    is_closed: bool,
}

impl Payload {
    /// Adds a piece; keeps it up to `limit` bytes in all.
    pub(super) fn add(&mut self, piece: &[u8], limit: usize) {
        if self.is_closed {
            return;
        }
        let room = limit.saturating_sub(self.bytes.len());
        // No byte behind a gap is kept.
        if self.bytes.len() as u64 == self.size {
            self.bytes.extend_from_slice(&piece[..piece.len().min(room)]);
        }
        self.size += piece.len() as u64;
    }

    /// Counts bytes that are not kept.
    pub(super) fn skip(&mut self, bytes: usize) {
        self.size += bytes as u64;
    }

    /// The bytes that are kept, and the length of all.
    pub(super) fn take(&mut self) -> (Vec<u8>, u64) {
        let mut bytes = std::mem::take(&mut self.bytes);
        // Messages are kept, often by thousands, so they hold no spare room.
        bytes.shrink_to_fit();
        self.is_closed = false;
        (bytes, std::mem::take(&mut self.size))
    }

    /// Ignores what comes until the payload is taken.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
    }

    /// Whether bytes are missing from those that are kept.
    pub(super) fn is_truncated(&self) -> bool {
        (self.bytes.len() as u64) < self.size
    }

    /// The bytes that are kept.
    pub(super) fn kept(&self) -> &[u8] {
        &self.bytes
    }

    /// The length of all bytes so far.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// What it takes in memory.
    pub(super) fn memory(&self) -> usize {
        self.bytes.capacity()
    }
}
