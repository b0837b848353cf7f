//! Frames: a seven-byte header and a payload.
//!
//! ```text
//!  0         1        2       3                    7
//!  +---------+--------+-------+--------------------+------------------+
//!  | version | type   | flags | payload length u32 | payload          |
//!  +---------+--------+-------+--------------------+------------------+
//! ```
//!
//! A header is checked alone: version, type and length pass before any of the payload is kept.

mod kind;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::HeaderMap;
use serde::Serialize;

use crate::error::{ProtocolError, ResetCode};
use crate::head::{self, RequestHead, ResponseHead};
use crate::message::{self, Connect, ConnectAck, Drain, ErrorMessage, TunnelFrame};

pub use self::kind::FrameType;

/// The only version of the frame format.
pub const VERSION: u8 = 0x01;
/// Length of a frame's header in bytes.
pub const HEADER_LEN: usize = 7;
/// Length in bytes of the exchange id, which opens the payload of every exchange frame.
pub const ID_LEN: usize = 4;
/// Flag: the sender's last frame of this exchange.
pub const FLAG_END: u8 = 0x01;

/// The longest Data frame in bytes, header included: one TLS record (RFC 8446, section 5.1).
pub const MAX_DATA_FRAME: usize = 16 * 1024;
/// The longest payload of a head or of trailers in bytes, exchange id included.
pub const MAX_HEAD: usize = 64 * 1024;
/// The longest request head in bytes, without the ids of its exchange and its tunnel.
pub const MAX_REQUEST_HEAD: usize = MAX_HEAD - 2 * ID_LEN;
/// The longest response head and the longest trailers in bytes, without the exchange id.
pub const MAX_RESPONSE_HEAD: usize = MAX_HEAD - ID_LEN;
/// The longest control payload (JSON) in bytes.
pub const MAX_CONTROL: usize = 16 * 1024;
/// The longest payload of any frame in bytes; only a skipped frame may be so long.
pub const MAX_PAYLOAD: usize = 1024 * 1024;
/// Bytes of unknown frames that a session may send: room for a newer peer's hints, not for a flood.
pub(crate) const SKIP_BUDGET: usize = 1024 * 1024;
/// The longest WebSocket message in bytes.
pub const MAX_MESSAGE: usize = 128 * 1024;

/// The header of a masked WebSocket message in bytes (RFC 6455, section 5.2): 2, then 8 of length and 4 of mask.
const WEBSOCKET_HEADER: usize = 14;
/// The length in bytes to which messages are filled: with its WebSocket header, each is one full TLS record.
pub const MESSAGE_TARGET: usize = MAX_DATA_FRAME - WEBSOCKET_HEADER;
/// The most body bytes in one Data frame that we send; such a frame fills [`MESSAGE_TARGET`].
pub const DATA_CHUNK: usize = MESSAGE_TARGET - HEADER_LEN - ID_LEN;

/// A header that has passed its checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The type.
    pub kind: FrameType,
    /// Whether the END flag is set. Other flags are ignored.
    pub end: bool,
    /// The payload's length in bytes, within the type's limit.
    pub length: usize,
}

impl FrameHeader {
    /// Reads a header. `None` if there are fewer than [`HEADER_LEN`] bytes and none of them breaks a rule.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, ProtocolError> {
        match bytes.first() {
            None => return Ok(None),
            Some(&VERSION) => {}
            Some(&other) => return Err(ProtocolError::UnknownVersion(other)),
        }
        let Some((&[_, kind, flags, a, b, c, d], _)) = bytes.split_first_chunk::<HEADER_LEN>() else { return Ok(None) };
        let kind = FrameType::from_u8(kind)?;
        let length = u32::from_be_bytes([a, b, c, d]);
        if length as usize > kind.limit() {
            return Err(ProtocolError::FrameTooLong { kind: kind.name(), length, limit: kind.limit() as u32 });
        }
        Ok(Some(Self { kind, end: flags & FLAG_END != 0, length: length as usize }))
    }

    fn put(self, out: &mut BytesMut) {
        out.put_u8(VERSION);
        out.put_u8(self.kind.to_u8());
        out.put_u8(if self.end { FLAG_END } else { 0 });
        out.put_u32(self.length as u32);
    }
}

/// A decoded frame.
#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    /// The client asks for a session.
    Connect(Connect),
    /// The daemon grants it.
    ConnectAck(ConnectAck),
    /// The sender opens or takes nothing new.
    Drain(Drain),
    /// A Bind, Bound, Refused or Unbind.
    Tunnel {
        /// Tunnel id.
        id: u32,
        /// What the sender says about the tunnel.
        frame: TunnelFrame,
    },
    /// A request opens an exchange.
    Request {
        /// Exchange id.
        id: u32,
        /// The id of the tunnel that the request is for.
        tunnel: u32,
        /// The head.
        head: RequestHead,
        /// No body follows.
        end: bool,
    },
    /// An interim or final response head.
    Response {
        /// Exchange id.
        id: u32,
        /// The head.
        head: ResponseHead,
        /// No body follows.
        end: bool,
    },
    /// Body bytes.
    Data {
        /// Exchange id.
        id: u32,
        /// The bytes; may be empty with END.
        body: Bytes,
        /// The sender's last frame of this exchange.
        end: bool,
    },
    /// Trailer fields; the sender's last frame of this exchange.
    Trailers {
        /// Exchange id.
        id: u32,
        /// The fields.
        fields: HeaderMap,
    },
    /// The exchange is abandoned.
    Reset {
        /// Exchange id.
        id: u32,
        /// Why.
        code: ResetCode,
    },
    /// A Reset with END: the sender's direction breaks off behind what was sent before.
    Break {
        /// Exchange id.
        id: u32,
        /// Why.
        code: ResetCode,
    },
    /// More credit for the peer's body bytes.
    WindowUpdate {
        /// Exchange id.
        id: u32,
        /// Bytes of credit.
        increment: u32,
    },
    /// Asks for a Pong of the same bytes.
    Ping([u8; 8]),
    /// Answers a Ping.
    Pong([u8; 8]),
    /// The session ends.
    Error(ErrorMessage),
    /// A frame of an unknown type, which is skipped.
    Skipped {
        /// Its length in bytes, header included.
        length: usize,
    },
}

impl TunnelFrame {
    /// Its type on the wire.
    pub(crate) const fn kind(&self) -> FrameType {
        match self {
            Self::Bind(_) => FrameType::Bind,
            Self::Bound(_) => FrameType::Bound,
            Self::Refused(_) => FrameType::Refused,
            Self::Unbind(_) => FrameType::Unbind,
        }
    }
}

impl Frame {
    /// The exchange that it is for.
    pub(crate) const fn exchange(&self) -> Option<u32> {
        match self {
            Self::Request { id, .. }
            | Self::Response { id, .. }
            | Self::Data { id, .. }
            | Self::Trailers { id, .. }
            | Self::Reset { id, .. }
            | Self::Break { id, .. }
            | Self::WindowUpdate { id, .. } => Some(*id),
            _ => None,
        }
    }

    /// The name that the specification gives to its type.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Connect(_) => FrameType::Connect.name(),
            Self::ConnectAck(_) => FrameType::ConnectAck.name(),
            Self::Drain(_) => FrameType::Drain.name(),
            Self::Tunnel { frame, .. } => frame.kind().name(),
            Self::Request { .. } => FrameType::HttpRequest.name(),
            Self::Response { .. } => FrameType::HttpResponse.name(),
            Self::Data { .. } => FrameType::Data.name(),
            Self::Trailers { .. } => FrameType::Trailers.name(),
            Self::Reset { .. } | Self::Break { .. } => FrameType::Reset.name(),
            Self::WindowUpdate { .. } => FrameType::WindowUpdate.name(),
            Self::Ping(_) => FrameType::Ping.name(),
            Self::Pong(_) => FrameType::Pong.name(),
            Self::Error(_) => FrameType::Error.name(),
            Self::Skipped { .. } => "unknown",
        }
    }

    /// Takes the first whole frame off `bytes`. `None` if more bytes are needed. Bodies and field values share memory
    /// with `bytes`.
    pub fn decode(bytes: &mut Bytes) -> Result<Option<Self>, ProtocolError> {
        let Some(header) = FrameHeader::parse(bytes)? else { return Ok(None) };
        if bytes.len() < HEADER_LEN + header.length {
            return Ok(None);
        }
        bytes.advance(HEADER_LEN);
        Self::decode_payload(header, bytes.split_to(header.length)).map(Some)
    }

    /// Decodes the payload that belongs to `header`, which must have the declared length.
    pub fn decode_payload(header: FrameHeader, mut payload: Bytes) -> Result<Self, ProtocolError> {
        let kind = header.kind.name();
        let end = header.end;
        Ok(match header.kind {
            FrameType::Connect => Self::Connect(message::parse(kind, &payload)?),
            FrameType::ConnectAck => Self::ConnectAck(message::parse(kind, &payload)?),
            FrameType::Drain => Self::Drain(message::parse(kind, &payload)?),
            FrameType::Bind => {
                let id = take_id(kind, &mut payload)?;
                Self::Tunnel { id, frame: TunnelFrame::Bind(message::parse(kind, &payload)?) }
            }
            FrameType::Bound => {
                let id = take_id(kind, &mut payload)?;
                Self::Tunnel { id, frame: TunnelFrame::Bound(message::parse(kind, &payload)?) }
            }
            FrameType::Refused => {
                let id = take_id(kind, &mut payload)?;
                Self::Tunnel { id, frame: TunnelFrame::Refused(message::parse(kind, &payload)?) }
            }
            FrameType::Unbind => {
                let id = take_id(kind, &mut payload)?;
                Self::Tunnel { id, frame: TunnelFrame::Unbind(message::parse(kind, &payload)?) }
            }
            FrameType::HttpRequest => {
                let id = take_id(kind, &mut payload)?;
                let tunnel = take_id(kind, &mut payload)?;
                Self::Request { id, tunnel, head: RequestHead::decode(payload)?, end }
            }
            FrameType::HttpResponse => {
                let id = take_id(kind, &mut payload)?;
                Self::Response { id, head: ResponseHead::decode(payload)?, end }
            }
            FrameType::Data => {
                let id = take_id(kind, &mut payload)?;
                Self::Data { id, body: payload, end }
            }
            FrameType::Trailers => {
                let id = take_id(kind, &mut payload)?;
                Self::Trailers { id, fields: head::decode_trailers(payload)? }
            }
            FrameType::Reset => {
                let (id, code) = take_pair(kind, &payload)?;
                let code = code.into();
                if end { Self::Break { id, code } } else { Self::Reset { id, code } }
            }
            FrameType::WindowUpdate => {
                let (id, increment) = take_pair(kind, &payload)?;
                Self::WindowUpdate { id, increment }
            }
            FrameType::Ping => Self::Ping(take_opaque(kind, &payload)?),
            FrameType::Pong => Self::Pong(take_opaque(kind, &payload)?),
            FrameType::Error => Self::Error(message::parse(kind, &payload)?),
            FrameType::Skippable(_) => Self::Skipped { length: HEADER_LEN + payload.len() },
        })
    }
}

/// Appends a control frame with a JSON payload.
pub fn put_json(out: &mut BytesMut, kind: FrameType, message: &impl Serialize) {
    // Our own messages are structs of strings and numbers: serializing them cannot fail.
    let payload = serde_json::to_vec(message).unwrap_or_default();
    FrameHeader { kind, end: false, length: payload.len() }.put(out);
    out.put_slice(&payload);
}

/// Appends a Bind, Bound, Refused or Unbind.
pub fn put_tunnel(out: &mut BytesMut, id: u32, frame: &TunnelFrame) {
    let payload = match frame {
        TunnelFrame::Bind(bind) => serde_json::to_vec(bind),
        TunnelFrame::Bound(bound) => serde_json::to_vec(bound),
        TunnelFrame::Refused(error) => serde_json::to_vec(error),
        TunnelFrame::Unbind(unbind) => serde_json::to_vec(unbind),
    };
    // As in `put_json`, this cannot fail.
    let payload = payload.unwrap_or_default();
    FrameHeader { kind: frame.kind(), end: false, length: ID_LEN + payload.len() }.put(out);
    out.put_u32(id);
    out.put_slice(&payload);
}

/// Appends a request head. Its `encoded_len` must be at most [`MAX_REQUEST_HEAD`].
pub fn put_request(out: &mut BytesMut, id: u32, tunnel: u32, head: &RequestHead, end: bool) {
    put_sized(out, FrameType::HttpRequest, id, end, |out| {
        out.put_u32(tunnel);
        head.encode(out);
    });
}

/// Appends a response head. Its `encoded_len` must be at most [`MAX_RESPONSE_HEAD`].
pub fn put_response(out: &mut BytesMut, id: u32, head: &ResponseHead, end: bool) {
    put_sized(out, FrameType::HttpResponse, id, end, |out| head.encode(out));
}

/// Appends trailers. Their `fields_len` must be at most [`MAX_RESPONSE_HEAD`].
pub fn put_trailers(out: &mut BytesMut, id: u32, fields: &HeaderMap) {
    put_sized(out, FrameType::Trailers, id, true, |out| head::put_fields(out, fields));
}

/// Appends the header of a Data frame. Exactly `length` body bytes must follow it.
pub fn put_data_header(out: &mut BytesMut, id: u32, length: usize, end: bool) {
    FrameHeader { kind: FrameType::Data, end, length: ID_LEN + length }.put(out);
    out.put_u32(id);
}

/// Appends a Reset.
pub fn put_reset(out: &mut BytesMut, id: u32, code: ResetCode) {
    put_reset_with(out, id, code, false);
}

/// Appends a Reset with END, behind which nothing of its direction follows.
pub fn put_break(out: &mut BytesMut, id: u32, code: ResetCode) {
    put_reset_with(out, id, code, true);
}

fn put_reset_with(out: &mut BytesMut, id: u32, code: ResetCode, end: bool) {
    FrameHeader { kind: FrameType::Reset, end, length: 8 }.put(out);
    out.put_u32(id);
    out.put_u32(code.to_u32());
}

/// Appends a WindowUpdate.
pub fn put_window_update(out: &mut BytesMut, id: u32, increment: u32) {
    FrameHeader { kind: FrameType::WindowUpdate, end: false, length: 8 }.put(out);
    out.put_u32(id);
    out.put_u32(increment);
}

/// Appends a Ping.
pub fn put_ping(out: &mut BytesMut, opaque: [u8; 8]) {
    FrameHeader { kind: FrameType::Ping, end: false, length: 8 }.put(out);
    out.put_slice(&opaque);
}

/// Appends a Pong.
pub fn put_pong(out: &mut BytesMut, opaque: [u8; 8]) {
    FrameHeader { kind: FrameType::Pong, end: false, length: 8 }.put(out);
    out.put_slice(&opaque);
}

/// Appends a frame of unknown length: writes its payload, then fills in the length.
fn put_sized(out: &mut BytesMut, kind: FrameType, id: u32, end: bool, payload: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    FrameHeader { kind, end, length: 0 }.put(out);
    out.put_u32(id);
    payload(out);
    let length = (out.len() - start - HEADER_LEN) as u32;
    out[start + 3..start + HEADER_LEN].copy_from_slice(&length.to_be_bytes());
}

fn take_id(kind: &'static str, payload: &mut Bytes) -> Result<u32, ProtocolError> {
    payload.try_get_u32().map_err(|_| wrong_length(kind))
}

fn take_pair(kind: &'static str, payload: &Bytes) -> Result<(u32, u32), ProtocolError> {
    let both = u64::from_be_bytes(take_opaque(kind, payload)?);
    Ok(((both >> 32) as u32, both as u32))
}

fn take_opaque(kind: &'static str, payload: &Bytes) -> Result<[u8; 8], ProtocolError> {
    payload.as_ref().try_into().map_err(|_| wrong_length(kind))
}

fn wrong_length(kind: &'static str) -> ProtocolError {
    ProtocolError::Malformed { kind, why: "wrong payload length".to_owned() }
}
