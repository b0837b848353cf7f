//! The frames of one HTTP/2 connection, read by their headers (RFC 9113, section 4.1), and what they cost. Pure: bytes in,
//! a verdict out.
//!
//! The unit of the budget is a tenth of a frame that has to be handled. The library answers most such frames by itself,
//! and each takes it about a microsecond.

use std::time::Instant;

use cok_proto::budget::{Budget, Spent};

/// What a connection may spend at once: 1,000 frames. A burst of as many takes about a millisecond.
const MOST: u32 = 10_000;
/// What time adds in a second: 100 frames. gRPC's keep-alive is one PING in 10 s, and Chromium's one in 15 s.
const PER_SECOND: u32 = 1_000;

/// A frame that brings no exchange forward: PING, PRIORITY, PRIORITY_UPDATE, an empty DATA, an unknown type and so on.
const USELESS: u32 = 10;
/// SETTINGS may touch every stream. Programs send them once or twice; Envoy and nghttp2 bound them alike.
const SETTINGS_COST: u32 = 100;
/// RST_STREAM takes back what its request earned, and some more. So 1,000 requests may be cancelled in one go, and 100 in a
/// second all the time; nghttp2 allows 1,000 and 33. The library bounds those that it has not handed out yet.
const RESET_COST: u32 = REQUEST_EARNS + USELESS;
/// DATA with fewer bytes than this carries no message: the smallest of gRPC has 5 bytes, and of WebSocket 6, and those may
/// come fast. It costs only a part: 10,000 at once, and 1,000 in a second. The library bounds those that wait to be read.
const TINY: usize = 5;
const TINY_COST: u32 = 1;
/// DATA from this length on earns something. Clients send a PING for each small piece of an upload at most.
const LARGE: usize = 256;

/// A request. Old Firefox sends 6 PRIORITY frames before its first, Chromium one or two PRIORITY_UPDATE with each.
const REQUEST_EARNS: u32 = 100;
/// A large DATA frame, in either direction, and each that we send. gRPC measures the path with a PING for each burst.
const DATA_EARNS: u32 = 20;
/// The end of a response.
const END_EARNS: u32 = 20;

/// WINDOW_UPDATE frames that each DATA frame of ours justifies. A simple client answers each with one for the stream
/// and one for the connection. Envoy allows 10.
const UPDATES_PER_DATA: u32 = 2;
/// One more for so many bytes that we send. gRPC's client may send one for each message that it reads, and many small ones
/// lie in one DATA frame.
const BYTES_PER_UPDATE: usize = 8;
/// WINDOW_UPDATE frames that each request justifies: Firefox enlarges the window of each stream.
const UPDATES_PER_REQUEST: u32 = 2;
/// The most WINDOW_UPDATE frames that wait to be sent.
const MOST_UPDATES: u32 = 16 * 1024;

/// A client's connection preface (RFC 9113, section 3.4).
const PREFACE: usize = 24;
/// A frame's header.
pub(super) const HEADER: usize = 9;

pub(super) const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const END_STREAM: u8 = 0x1;
const PADDED: u8 = 0x8;
/// RFC 9113, section 7.
const ENHANCE_YOUR_CALM: u32 = 0xb;

/// Both directions of a connection.
#[derive(Debug)]
pub(super) struct Frames {
    budget: Budget,
    /// WINDOW_UPDATE frames that are justified and have not come.
    updates: u32,
    /// What is left of the client's preface.
    preface: usize,
    received: Headers,
    /// The DATA frame whose first byte, the length of its padding, has not come.
    padded: Option<usize>,
    /// The highest stream that the visitor has opened.
    newest: u32,
    sent: Headers,
    /// Bytes that were sent and have not justified a WINDOW_UPDATE.
    remainder: usize,
}

impl Frames {
    /// Of a connection that begins.
    pub(super) fn new() -> Self {
        Self {
            budget: Budget::new(MOST, PER_SECOND),
            updates: 0,
            preface: PREFACE,
            received: Headers::default(),
            padded: None,
            newest: 0,
            sent: Headers::default(),
            remainder: 0,
        }
    }

    /// Where the first frame begins in the visitor's next bytes; their length if none does.
    pub(super) fn first_frame(&self, bytes: &[u8]) -> usize {
        let mut rest = bytes.get(self.preface..).unwrap_or_default();
        let mut headers = self.received;
        if headers.read > 0 && headers.next(&mut rest).is_none() {
            return bytes.len();
        }
        (bytes.len() - rest.len()).saturating_add(headers.left).min(bytes.len())
    }

    /// Accounts for bytes from the visitor, which come in any pieces.
    pub(super) fn receive(&mut self, mut bytes: &[u8], now: Instant) -> Result<(), Spent> {
        let preface = self.preface.min(bytes.len());
        self.preface -= preface;
        bytes = bytes.get(preface..).unwrap_or_default();
        loop {
            if let (Some(length), Some(padding)) = (self.padded, bytes.first()) {
                self.padded = None;
                self.receive_data(length.saturating_sub(1 + usize::from(*padding)), now)?;
            }
            let Some(header) = self.received.next(&mut bytes) else { return Ok(()) };
            match header.kind {
                DATA if header.flags & PADDED != 0 && header.length > 0 => self.padded = Some(header.length),
                DATA if header.length == 0 && header.flags & END_STREAM != 0 => {}
                DATA => self.receive_data(header.length, now)?,
                HEADERS if header.stream > self.newest => {
                    self.newest = header.stream;
                    self.budget.earn(REQUEST_EARNS);
                    self.justify(UPDATES_PER_REQUEST);
                }
                WINDOW_UPDATE if self.updates > 0 => self.updates -= 1,
                SETTINGS => self.budget.spend(SETTINGS_COST, now)?,
                RST_STREAM => self.budget.spend(RESET_COST, now)?,
                _ => self.budget.spend(USELESS, now)?,
            }
        }
    }

    /// Accounts for a DATA frame with so many bytes of a body.
    fn receive_data(&mut self, length: usize, now: Instant) -> Result<(), Spent> {
        match length {
            0 => self.budget.spend(USELESS, now),
            1..TINY => self.budget.spend(TINY_COST, now),
            TINY..LARGE => Ok(()),
            LARGE.. => {
                self.budget.earn(DATA_EARNS);
                Ok(())
            }
        }
    }

    /// Accounts for bytes that the library has written.
    pub(super) fn send(&mut self, mut bytes: &[u8]) {
        while let Some(header) = self.sent.next(&mut bytes) {
            if header.kind == DATA {
                self.budget.earn(DATA_EARNS);
                self.remainder += header.length;
                self.justify(UPDATES_PER_DATA + (self.remainder / BYTES_PER_UPDATE) as u32);
                self.remainder %= BYTES_PER_UPDATE;
            }
            if matches!(header.kind, DATA | HEADERS) && header.flags & END_STREAM != 0 {
                self.budget.earn(END_EARNS);
            }
        }
    }

    fn justify(&mut self, updates: u32) {
        self.updates = (self.updates + updates).min(MOST_UPDATES);
    }

    /// How many bytes may be written before the end of the current frame is known or reached. Zero between two frames.
    pub(super) fn rest_of_frame(&self) -> usize {
        match (self.sent.left, self.sent.read) {
            (0, 0) => 0,
            (0, read) => HEADER - read,
            (left, _) => left,
        }
    }

    /// The frame that closes the connection: GOAWAY, ENHANCE_YOUR_CALM (RFC 9113, section 6.8).
    pub(super) fn goaway(&self) -> Vec<u8> {
        let reason = b"too many frames without progress";
        let length = (8 + reason.len()) as u32;
        let header = [&length.to_be_bytes()[1..], &[GOAWAY, 0], &[0; 4]].concat();
        [&header[..], &self.newest.to_be_bytes(), &ENHANCE_YOUR_CALM.to_be_bytes(), reason].concat()
    }
}

/// The headers of one direction's frames, with the payloads left out.
#[derive(Clone, Copy, Debug, Default)]
struct Headers {
    bytes: [u8; HEADER],
    /// How many bytes of the header are there.
    read: usize,
    /// How much of the current payload is to come.
    left: usize,
}

/// A frame's header (RFC 9113, section 4.1).
#[derive(Clone, Copy, Debug)]
pub(super) struct Header {
    /// The length of the payload.
    pub(super) length: usize,
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
}

impl Header {
    /// Reads a header.
    pub(super) fn parse([a, b, c, kind, flags, stream @ ..]: [u8; HEADER]) -> Self {
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        Self { length, kind, flags, stream: u32::from_be_bytes(stream) & 0x7fff_ffff }
    }
}

impl Headers {
    /// Takes from `bytes` what comes before the next payload. `None` once they are used up.
    fn next(&mut self, bytes: &mut &[u8]) -> Option<Header> {
        let passed = self.left.min(bytes.len());
        self.left -= passed;
        *bytes = bytes.get(passed..)?;
        if self.left > 0 {
            return None;
        }
        let (part, rest) = bytes.split_at(bytes.len().min(HEADER - self.read));
        self.bytes.get_mut(self.read..self.read + part.len())?.copy_from_slice(part);
        self.read += part.len();
        *bytes = rest;
        if self.read < HEADER {
            return None;
        }
        let header = Header::parse(self.bytes);
        (self.left, self.read) = (header.length, 0);
        Some(header)
    }
}

#[cfg(test)]
mod tests;
