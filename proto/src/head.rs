//! Request heads, response heads and trailers. They are binary, because every request has them.
//!
//! ```text
//! request:  method u8+bytes · target u16+bytes · scheme u8 (0 http, 1 https) · authority u16+bytes · fields
//! response: status u16 · time to first byte u32 · reason u8+bytes · fields
//! fields:   count u16 · for each: name u16+bytes · value u16+bytes
//! ```
//!
//! Repeated fields stay apart and keep their order within a name. Values are opaque bytes (RFC 9110, section 5.5). The
//! module checks the format; what a field means to HTTP is not decided here.

pub mod name;
mod target;

pub use self::target::{InvalidTarget, Target};

use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use http::header::UPGRADE;
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use crate::error::ProtocolError;

/// The most fields in a head or in trailers. A frame has room for 16,000 empty fields, each of which costs far more
/// memory than its four bytes on the wire.
pub const MAX_FIELDS: usize = 1024;

/// The scheme that the visitor used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTPS.
    Https,
}

impl Scheme {
    /// The scheme's name in a URL.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A request without its body and trailers.
#[derive(Clone, Debug, PartialEq)]
pub struct RequestHead {
    /// The method.
    pub method: Method,
    /// The request target.
    pub target: Target,
    /// The scheme that the visitor used.
    pub scheme: Scheme,
    /// The authority that the visitor used; it has the port if the visitor named one.
    pub authority: Authority,
    /// The fields without hop-by-hop ones. `upgrade` stays if the request asks for an upgrade.
    pub headers: HeaderMap,
}

/// A response without its body and trailers.
#[derive(Clone, Debug, PartialEq)]
pub struct ResponseHead {
    /// The status, 100 to 999.
    pub status: StatusCode,
    /// The reason phrase (RFC 9112, section 4) without its line break. Empty if the service sent none.
    pub reason: Bytes,
    /// From the request's last byte on its way to the service until the first byte of this head. `None` if it was not
    /// measured. The wire carries whole microseconds, at most 71 minutes.
    pub first_byte: Option<Duration>,
    /// The fields without hop-by-hop ones.
    pub headers: HeaderMap,
}

impl RequestHead {
    /// Whether the request asks for an upgrade: it has the field `upgrade`.
    pub fn is_upgrade(&self) -> bool {
        self.headers.contains_key(UPGRADE)
    }
}

impl ResponseHead {
    /// A head without a reason phrase and without a measured time.
    pub fn new(status: StatusCode, headers: HeaderMap) -> Self {
        Self { status, reason: Bytes::new(), first_byte: None, headers }
    }

    /// Whether raw bytes follow (RFC 9110, section 15.2.2).
    pub fn is_switch(&self) -> bool {
        self.status == StatusCode::SWITCHING_PROTOCOLS
    }

    /// Whether another head follows this one (RFC 9110, section 15.2). A 101 is final: raw bytes follow it.
    pub fn is_interim(&self) -> bool {
        self.status.is_informational() && self.status != StatusCode::SWITCHING_PROTOCOLS
    }
}

/// The wire format cannot carry the head or trailers: a part is too long for its length field, or there are too many
/// fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("head too large for the tunnel")]
pub struct HeadTooLarge;

impl RequestHead {
    /// The encoded length in bytes, or an error if the format cannot carry it.
    pub fn encoded_len(&self) -> Result<usize, HeadTooLarge> {
        let target = self.target.as_bytes().len();
        let (method, authority) = (self.method.as_str().len(), self.authority.as_str().len());
        if method > usize::from(u8::MAX) || target > usize::from(u16::MAX) || authority > usize::from(u16::MAX) {
            return Err(HeadTooLarge);
        }
        Ok(1 + method + 2 + target + 1 + 2 + authority + fields_len(&self.headers)?)
    }

    /// Appends the encoded head; [`RequestHead::encoded_len`] must have succeeded.
    pub fn encode(&self, out: &mut BytesMut) {
        let method = self.method.as_str();
        out.put_u8(method.len() as u8);
        out.put_slice(method.as_bytes());
        put_u16_bytes(out, self.target.as_bytes());
        out.put_u8(match self.scheme {
            Scheme::Http => 0,
            Scheme::Https => 1,
        });
        put_u16_bytes(out, self.authority.as_str().as_bytes());
        put_fields(out, &self.headers);
    }

    /// Decodes a whole payload. Values share its memory.
    pub fn decode(mut payload: Bytes) -> Result<Self, ProtocolError> {
        const KIND: &str = "HTTPRequest";
        let length = usize::from(payload.try_get_u8().map_err(|_| truncated(KIND))?);
        let method = take(KIND, &mut payload, length)?;
        let method = Method::from_bytes(&method).map_err(|_| malformed(KIND, "invalid method"))?;
        let target = take_u16_bytes(KIND, &mut payload)?;
        let target = Target::from_bytes(target).map_err(|_| malformed(KIND, "invalid target"))?;
        let scheme = match payload.try_get_u8().map_err(|_| truncated(KIND))? {
            0 => Scheme::Http,
            1 => Scheme::Https,
            _ => return Err(malformed(KIND, "unknown scheme")),
        };
        let authority = take_u16_bytes(KIND, &mut payload)?;
        let authority = Authority::from_maybe_shared(authority).map_err(|_| malformed(KIND, "invalid authority"))?;
        let headers = take_fields(KIND, &mut payload)?;
        end(KIND, &payload)?;
        Ok(Self { method, target, scheme, authority, headers })
    }
}

impl ResponseHead {
    /// The encoded length in bytes, or an error if the format cannot carry it.
    pub fn encoded_len(&self) -> Result<usize, HeadTooLarge> {
        Ok(2 + 4 + 1 + self.sent_reason().len() + fields_len(&self.headers)?)
    }

    /// Appends the encoded head; [`ResponseHead::encoded_len`] must have succeeded.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u16(self.status.as_u16());
        // 0 stands for a time that was not measured.
        let micros = |time: Duration| u32::try_from(time.as_micros()).unwrap_or(u32::MAX).max(1);
        out.put_u32(self.first_byte.map_or(0, micros));
        let reason = self.sent_reason();
        out.put_u8(reason.len() as u8);
        out.put_slice(reason);
        put_fields(out, &self.headers);
    }

    /// The reason phrase, or an empty one if the wire cannot carry it: it is a hint and must not cost the response.
    fn sent_reason(&self) -> &[u8] {
        let fits = u8::try_from(self.reason.len()).is_ok() && is_reason(&self.reason);
        if fits { &self.reason } else { b"" }
    }

    /// Decodes a whole payload. Values share its memory.
    pub fn decode(mut payload: Bytes) -> Result<Self, ProtocolError> {
        const KIND: &str = "HTTPResponse";
        let status = payload.try_get_u16().map_err(|_| truncated(KIND))?;
        let status = StatusCode::from_u16(status).map_err(|_| malformed(KIND, "invalid status"))?;
        let micros = payload.try_get_u32().map_err(|_| truncated(KIND))?;
        let first_byte = (micros > 0).then(|| Duration::from_micros(micros.into()));
        let length = usize::from(payload.try_get_u8().map_err(|_| truncated(KIND))?);
        let reason = take(KIND, &mut payload, length)?;
        if !is_reason(&reason) {
            return Err(malformed(KIND, "invalid reason phrase"));
        }
        let headers = take_fields(KIND, &mut payload)?;
        end(KIND, &payload)?;
        Ok(Self { status, reason, first_byte, headers })
    }
}

/// Whether the bytes may stand in a reason phrase (RFC 9112, section 4).
pub fn is_reason(bytes: &[u8]) -> bool {
    bytes.iter().all(|&byte| byte == b'\t' || (byte >= b' ' && byte != 0x7F))
}

/// The encoded length of fields in bytes, or an error if the format cannot carry them.
pub fn fields_len(fields: &HeaderMap) -> Result<usize, HeadTooLarge> {
    if fields.len() > MAX_FIELDS {
        return Err(HeadTooLarge);
    }
    let mut total = 2;
    for (name, value) in fields {
        if name.as_str().len() > usize::from(u16::MAX) || value.len() > usize::from(u16::MAX) {
            return Err(HeadTooLarge);
        }
        total += 4 + name.as_str().len() + value.len();
    }
    Ok(total)
}

/// Appends encoded fields (the payload of Trailers after its exchange id); [`fields_len`] must have succeeded.
pub fn put_fields(out: &mut BytesMut, fields: &HeaderMap) {
    out.put_u16(fields.len() as u16);
    for (name, value) in fields {
        put_u16_bytes(out, name.as_str().as_bytes());
        put_u16_bytes(out, value.as_bytes());
    }
}

/// Decodes a whole Trailers payload.
pub fn decode_trailers(mut payload: Bytes) -> Result<HeaderMap, ProtocolError> {
    const KIND: &str = "Trailers";
    let fields = take_fields(KIND, &mut payload)?;
    end(KIND, &payload)?;
    Ok(fields)
}

fn take_fields(kind: &'static str, payload: &mut Bytes) -> Result<HeaderMap, ProtocolError> {
    let count = usize::from(payload.try_get_u16().map_err(|_| truncated(kind))?);
    // A field has four bytes of lengths at least. This comes before any memory is allocated.
    if count > MAX_FIELDS || count * 4 > payload.len() {
        return Err(malformed(kind, "field count does not fit"));
    }
    let mut fields = HeaderMap::with_capacity(count);
    for _ in 0..count {
        let length = usize::from(payload.try_get_u16().map_err(|_| truncated(kind))?);
        let name = payload.get(..length).ok_or_else(|| truncated(kind))?;
        let name = name::parse(name).map_err(|_| malformed(kind, "invalid field name"))?;
        payload.advance(length);
        let value = take_u16_bytes(kind, payload)?;
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| malformed(kind, "invalid field value"))?;
        fields.try_append(name, value).map_err(|_| malformed(kind, "too many fields"))?;
    }
    Ok(fields)
}

fn put_u16_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_u16(bytes.len() as u16);
    out.put_slice(bytes);
}

fn take_u16_bytes(kind: &'static str, payload: &mut Bytes) -> Result<Bytes, ProtocolError> {
    let length = usize::from(payload.try_get_u16().map_err(|_| truncated(kind))?);
    take(kind, payload, length)
}

fn take(kind: &'static str, payload: &mut Bytes, length: usize) -> Result<Bytes, ProtocolError> {
    if payload.len() < length {
        return Err(truncated(kind));
    }
    Ok(payload.split_to(length))
}

fn end(kind: &'static str, payload: &Bytes) -> Result<(), ProtocolError> {
    if payload.is_empty() { Ok(()) } else { Err(malformed(kind, "bytes after the end")) }
}

fn truncated(kind: &'static str) -> ProtocolError {
    malformed(kind, "ends too early")
}

fn malformed(kind: &'static str, why: &str) -> ProtocolError {
    ProtocolError::Malformed { kind, why: why.to_owned() }
}
