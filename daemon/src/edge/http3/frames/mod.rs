//! The guard between QUIC and h3: HTTP/3's frames, judged by type and length before anything of them is kept.
//!
//! h3 buffers any frame but DATA whole before it looks at a limit. It takes a request that ends within a DATA frame for
//! whole, and a DATA frame of no bytes for the end. So it gets to see only whole HEADERS and SETTINGS frames, of bounded
//! length. Everything else is dealt with here. Pure: bytes in; payloads or a [`Violation`] out.
//!
//! A frame is a type and a length, both variable-length integers (RFC 9000, section 16), and that much payload
//! (RFC 9114, section 7.1).

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use h3::error::Code;

use super::account::Toll;
use super::fields::{Section, check_section};
use super::violation::Violation;

/// The longest field section in its encoded form. A head that could be served is far below it: the configured limit
/// counts decoded fields, and stays below 64 KiB.
pub(super) const MAX_SECTION: u64 = 64 * 1024;
/// The longest payload of any other frame that is not DATA. Settings and priorities have a few dozen bytes.
pub(super) const MAX_OTHER: u64 = 4 * 1024;
/// How many frames without any use for us a request may have: reserved types, and DATA of no bytes.
pub(super) const MAX_USELESS: u32 = 64;

/// Carries a body.
pub(super) const DATA: u64 = 0x00;
const HEADERS: u64 = 0x01;
const CANCEL_PUSH: u64 = 0x03;
const SETTINGS: u64 = 0x04;
const PUSH_PROMISE: u64 = 0x05;
const GOAWAY: u64 = 0x07;
const MAX_PUSH_ID: u64 = 0x0d;
/// Begins a WebTransport stream, which has no length. A client may send it only to a server that offers WebTransport.
const WEBTRANSPORT_STREAM: u64 = 0x41;
/// RFC 9218, section 7.2: for a request, and for a push.
const PRIORITY_UPDATE: [u64; 2] = [0xf_0700, 0xf_0701];
/// Types of HTTP/2, which are not to be used (RFC 9114, section 7.2.8).
const HTTP2: [u64; 4] = [0x02, 0x06, 0x08, 0x09];

/// What a request's stream carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// The head: a whole HEADERS frame.
    Head(Bytes),
    /// Some of the body.
    Data(Bytes),
    /// The trailers: a whole HEADERS frame.
    Trailers(Bytes),
}

/// Reads the frames of one request.
#[derive(Debug)]
pub(super) struct RequestFrames {
    input: Bytes,
    header: FrameHeader,
    within: Within,
    next: Next,
    useless: u32,
    /// What the connection's account has not got.
    pub(super) toll: Toll,
}

/// What may come next in a request (RFC 9114, section 4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Head,
    DataOrTrailers,
    Nothing,
}

/// Where in a frame the input stands.
#[derive(Debug)]
enum Within {
    Header,
    Data { left: u64 },
    Useless { left: u64 },
    Kept(Payload),
}

impl RequestFrames {
    /// Of a request that begins.
    pub(super) fn new() -> Self {
        Self {
            input: Bytes::new(),
            header: FrameHeader::default(),
            within: Within::Header,
            next: Next::Head,
            useless: MAX_USELESS,
            toll: Toll::default(),
        }
    }

    /// Takes in what came. Only once [`next`](Self::next) has wanted it.
    pub(super) fn push(&mut self, input: Bytes) {
        debug_assert!(self.input.is_empty());
        self.input = input;
    }

    /// The next piece; `None` wants more input.
    pub(super) fn next(&mut self) -> Result<Option<Piece>, Violation> {
        loop {
            match &mut self.within {
                Within::Header => {
                    let Some((kind, length)) = self.header.read(&mut self.input) else { return Ok(None) };
                    self.within = self.enter(kind, length)?;
                }
                Within::Data { left: 0 } | Within::Useless { left: 0 } => self.within = Within::Header,
                Within::Data { .. } | Within::Useless { .. } if self.input.is_empty() => return Ok(None),
                Within::Data { left } => return Ok(Some(Piece::Data(take(&mut self.input, left)))),
                Within::Useless { left } => drop(take(&mut self.input, left)),
                Within::Kept(payload) => {
                    let Some((frame, start)) = payload.read(&mut self.input) else { return Ok(None) };
                    self.within = Within::Header;
                    let section = &frame[start..];
                    if self.next == Next::Head {
                        check_section(section, Section::Head)?;
                        self.next = Next::DataOrTrailers;
                        return Ok(Some(Piece::Head(frame)));
                    }
                    check_section(section, Section::Trailers)?;
                    self.next = Next::Nothing;
                    return Ok(Some(Piece::Trailers(frame)));
                }
            }
        }
    }

    fn enter(&mut self, kind: u64, length: u64) -> Result<Within, Violation> {
        match kind {
            DATA if self.next == Next::DataOrTrailers => {
                if length == 0 {
                    self.spend()?;
                }
                self.toll.data(length);
                Ok(Within::Data { left: length })
            }
            HEADERS if self.next != Next::Nothing => {
                if length > MAX_SECTION {
                    return Err(Violation::stream(Code::H3_EXCESSIVE_LOAD, "a field section that is too long"));
                }
                Ok(Within::Kept(Payload::new(kind, length)))
            }
            DATA | HEADERS | CANCEL_PUSH | SETTINGS | PUSH_PROMISE | GOAWAY | MAX_PUSH_ID | WEBTRANSPORT_STREAM => {
                Err(UNEXPECTED)
            }
            _ if HTTP2.contains(&kind) => Err(UNEXPECTED),
            _ => {
                self.spend()?;
                self.toll.useless();
                if length > MAX_OTHER {
                    return Err(Violation::stream(Code::H3_EXCESSIVE_LOAD, "a frame that is too long"));
                }
                Ok(Within::Useless { left: length })
            }
        }
    }

    fn spend(&mut self) -> Result<(), Violation> {
        const TOO_MANY: Violation = Violation::stream(Code::H3_EXCESSIVE_LOAD, "too many frames of no use");
        self.useless = self.useless.checked_sub(1).ok_or(TOO_MANY)?;
        Ok(())
    }

    /// The stream has ended. Only once [`next`](Self::next) has wanted more.
    pub(super) fn end(&self) -> Result<(), Violation> {
        if !matches!(self.within, Within::Header) || !self.header.is_empty() {
            return Err(CUT);
        }
        if self.next == Next::Head {
            return Err(Violation::stream(Code::H3_REQUEST_INCOMPLETE, "a request without a head"));
        }
        Ok(())
    }
}

const UNEXPECTED: Violation = Violation::connection(Code::H3_FRAME_UNEXPECTED, "a frame that has no place here");
/// RFC 9114, section 7.1.
const CUT: Violation = Violation::connection(Code::H3_FRAME_ERROR, "a frame that is cut short");

/// Reads the frames of the peer's control stream (RFC 9114, section 6.2.1).
#[derive(Debug)]
pub(super) struct ControlFrames {
    input: Bytes,
    header: FrameHeader,
    within: Within,
    settled: bool,
    goaway: Option<u64>,
    max_push_id: Option<u64>,
    /// What the connection's account has not got.
    pub(super) toll: Toll,
}

impl ControlFrames {
    /// Of a stream whose type has been read.
    pub(super) fn new() -> Self {
        Self {
            input: Bytes::new(),
            header: FrameHeader::default(),
            within: Within::Header,
            settled: false,
            goaway: None,
            max_push_id: None,
            toll: Toll::default(),
        }
    }

    /// Takes in what came. Only once [`next`](Self::next) has wanted it.
    pub(super) fn push(&mut self, input: Bytes) {
        debug_assert!(self.input.is_empty());
        self.input = input;
    }

    /// The SETTINGS frame once it is whole; `None` wants more input.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Violation> {
        loop {
            match &mut self.within {
                Within::Header => {
                    let Some((kind, length)) = self.header.read(&mut self.input) else { return Ok(None) };
                    self.within = self.enter(kind, length)?;
                }
                // There is no DATA here.
                Within::Data { .. } | Within::Useless { left: 0 } => self.within = Within::Header,
                Within::Useless { .. } if self.input.is_empty() => return Ok(None),
                Within::Useless { left } => drop(take(&mut self.input, left)),
                Within::Kept(payload) => {
                    let kind = payload.kind;
                    let Some((frame, start)) = payload.read(&mut self.input) else { return Ok(None) };
                    self.within = Within::Header;
                    if kind == SETTINGS {
                        return Ok(Some(frame));
                    }
                    self.take_id(kind, &frame[start..])?;
                }
            }
        }
    }

    fn enter(&mut self, kind: u64, length: u64) -> Result<Within, Violation> {
        const TOO_LONG: Violation = Violation::connection(Code::H3_EXCESSIVE_LOAD, "a frame that is too long");
        if !self.settled && kind != SETTINGS {
            return Err(Violation::connection(Code::H3_MISSING_SETTINGS, "a control stream without settings"));
        }
        if PRIORITY_UPDATE.contains(&kind) {
            self.toll.priority();
        } else {
            self.toll.useless();
        }
        match kind {
            // RFC 9114, section 7.2.4.
            SETTINGS if self.settled => Err(UNEXPECTED),
            SETTINGS | GOAWAY | MAX_PUSH_ID | CANCEL_PUSH => {
                self.settled = true;
                if length > MAX_OTHER {
                    return Err(TOO_LONG);
                }
                Ok(Within::Kept(Payload::new(kind, length)))
            }
            DATA | HEADERS | PUSH_PROMISE | WEBTRANSPORT_STREAM => Err(UNEXPECTED),
            _ if HTTP2.contains(&kind) => Err(UNEXPECTED),
            _ => {
                if length > MAX_OTHER {
                    return Err(TOO_LONG);
                }
                Ok(Within::Useless { left: length })
            }
        }
    }

    /// A frame that holds one id, of a push. We never push, so that only the rules about ids are left.
    fn take_id(&mut self, kind: u64, mut payload: &[u8]) -> Result<(), Violation> {
        const NO_ID: Violation = Violation::connection(Code::H3_FRAME_ERROR, "a frame that holds no id");
        const WRONG_ID: Violation = Violation::connection(Code::H3_ID_ERROR, "an id that can't be");
        let id = read_integer(&mut payload).filter(|_| payload.is_empty()).ok_or(NO_ID)?;
        match kind {
            // RFC 9114, section 5.2: never a greater one.
            GOAWAY if self.goaway.is_none_or(|before| id <= before) => self.goaway = Some(id),
            // RFC 9114, section 7.2.7: never a smaller one.
            MAX_PUSH_ID if self.max_push_id.is_none_or(|before| id >= before) => self.max_push_id = Some(id),
            _ => return Err(WRONG_ID),
        }
        Ok(())
    }
}

/// Takes from the input what belongs to a payload of which `left` bytes are to come.
fn take(input: &mut Bytes, left: &mut u64) -> Bytes {
    let length = usize::try_from(*left).unwrap_or(usize::MAX).min(input.len());
    *left -= length as u64;
    input.split_to(length)
}

/// A frame's type and length, which may come in parts.
#[derive(Debug, Default)]
struct FrameHeader {
    bytes: [u8; 16],
    length: usize,
}

impl FrameHeader {
    /// Takes what belongs to it from `input`; both numbers once they are there.
    fn read(&mut self, input: &mut Bytes) -> Option<(u64, u64)> {
        while input.has_remaining() {
            // Two integers of eight bytes at the most are whole before this is full.
            self.bytes[self.length] = input.get_u8();
            self.length += 1;
            let mut read = &self.bytes[..self.length];
            if let (Some(kind), Some(length)) = (read_integer(&mut read), read_integer(&mut read)) {
                self.length = 0;
                return Some((kind, length));
            }
        }
        None
    }

    fn is_empty(&self) -> bool {
        self.length == 0
    }
}

/// A frame that is kept until it is whole: of bounded length.
#[derive(Debug)]
struct Payload {
    kind: u64,
    /// The whole frame so far, with a header written here.
    frame: BytesMut,
    /// Where the payload begins.
    start: usize,
    left: u64,
}

impl Payload {
    fn new(kind: u64, length: u64) -> Self {
        let mut frame = BytesMut::new();
        write_integer(kind, &mut frame);
        write_integer(length, &mut frame);
        Self { kind, start: frame.len(), frame, left: length }
    }

    fn is_whole(&self) -> bool {
        self.left == 0
    }

    /// Takes what belongs to it from `input`; the frame and where its payload begins, once it is whole.
    fn read(&mut self, input: &mut Bytes) -> Option<(Bytes, usize)> {
        let part = take(input, &mut self.left);
        self.frame.extend_from_slice(&part);
        self.is_whole().then(|| (self.frame.split().freeze(), self.start))
    }
}

/// A variable-length integer (RFC 9000, section 16), if it is whole; its first two bits are its length.
pub(super) fn read_integer(input: &mut &[u8]) -> Option<u64> {
    let length = 1 << (input.first()? >> 6);
    let (bytes, rest) = input.split_at_checked(length)?;
    *input = rest;
    let value = bytes.iter().fold(0, |value: u64, byte| value << 8 | u64::from(*byte));
    Some(value & (u64::MAX >> (66 - 8 * length as u32)))
}

/// Writes one; numbers here are far below the bound of 62 bits.
pub(super) fn write_integer(value: u64, output: &mut BytesMut) {
    match value {
        0..0x40 => output.put_u8(value as u8),
        0x40..0x4000 => output.put_u16(value as u16 | 0x4000),
        0x4000..0x4000_0000 => output.put_u32(value as u32 | 0x8000_0000),
        _ => output.put_u64(value | 0xc000_0000_0000_0000),
    }
}

#[cfg(test)]
mod tests;
