//! Readers for streams that carry frames, as over QUIC: [`ExchangeReader`] for the stream of an exchange,
//! [`ControlReader`] for the control stream.
//!
//! Bytes go in as the stream has them, in pieces of any length; heads, bodies and control frames come out. A body
//! passes through without a copy and without waiting for its frame. A head is gathered until it is whole, at most
//! [`MAX_HEAD`](crate::frame::MAX_HEAD) bytes. The readers know no flow control and no other stream; the transport
//! does.

use std::time::Instant;

use bytes::{Buf as _, Bytes, BytesMut};

use crate::error::{ProtocolError, ResetCode};
use crate::exchange::{Received, RecvState};
use crate::frame::{Frame, FrameHeader, FrameType, HEADER_LEN, ID_LEN, SKIP_BUDGET};
use crate::head::RequestHead;
use crate::session::{Role, TinyData};

/// What came on the stream of an exchange.
#[derive(Debug, PartialEq)]
pub enum Arrived {
    /// To a client, as the first part: the request.
    Request {
        /// The tunnel that it is for.
        tunnel: u32,
        /// Its head.
        head: RequestHead,
        /// It has no body.
        end: bool,
    },
    /// A response head, a piece of a body, or trailers.
    Part(Received),
    /// The direction broke off.
    Break(ResetCode),
}

/// Reads one direction of one exchange.
#[derive(Debug)]
pub struct ExchangeReader {
    reader: Role,
    id: u32,
    pieces: Pieces,
    /// Body bytes that are still to come in the current Data frame.
    body_left: usize,
    /// The current Data frame is the last one.
    body_end: bool,
    state: RecvState,
    /// Empty and tiny Data frames of a client.
    tiny: TinyData,
}

impl ExchangeReader {
    /// A reader on the side `reader` for what the peer sends on the stream of exchange `id`.
    pub fn new(reader: Role, id: u32) -> Self {
        Self {
            reader,
            id,
            pieces: Pieces::default(),
            body_left: 0,
            body_end: false,
            state: RecvState::before_head(),
            tiny: TinyData::default(),
        }
    }

    /// Takes in the stream's next bytes, once [`ExchangeReader::read`] has nothing more.
    pub fn push(&mut self, bytes: Bytes) {
        self.pieces.push(bytes);
    }

    /// Whether the direction has ended. A stream that finishes before that is broken.
    pub fn has_ended(&self) -> bool {
        self.state.is_over()
    }

    /// Gives up the rest of the direction, which then counts as ended.
    pub fn stop(&mut self) {
        self.state.stop();
    }

    /// Client: the final head is sent, which is a 101 or another one. `false` if no 101 may be sent now.
    pub fn answered(&mut self, switch: bool) -> bool {
        self.state.answered(switch)
    }

    /// The next part. `None` if more bytes are needed.
    pub fn read(&mut self, now: Instant) -> Result<Option<Arrived>, ProtocolError> {
        loop {
            if self.body_left > 0 {
                let data = self.pieces.take_some(self.body_left);
                if data.is_empty() {
                    return Ok(None);
                }
                self.body_left -= data.len();
                return Ok(Some(self.data(data)));
            }
            if self.has_ended() && !self.pieces.is_empty() {
                return Err(ProtocolError::Unexpected { kind: "any", why: "the exchange has ended" });
            }
            let Some(header) = self.pieces.header()? else { return Ok(None) };
            match header.kind {
                FrameType::Data => {
                    self.state.check_body("Data")?;
                    // Only the id must be whole; the body passes in pieces.
                    let Some(mut id) = self.pieces.take_frame(HEADER_LEN + ID_LEN.min(header.length)) else {
                        return Ok(None);
                    };
                    id.advance(HEADER_LEN);
                    let id = id.try_get_u32().map_err(|_| too_short("Data"))?;
                    self.check_id("Data", id)?;
                    (self.body_left, self.body_end) = (header.length - ID_LEN, header.end);
                    if self.reader == Role::Daemon {
                        self.tiny.charge(self.body_left, self.body_end, now)?;
                    }
                    if self.body_left == 0 {
                        return Ok(Some(self.data(Bytes::new())));
                    }
                }
                FrameType::HttpRequest | FrameType::HttpResponse | FrameType::Trailers => {
                    let Some(frame) = self.pieces.take_frame(HEADER_LEN + header.length) else { return Ok(None) };
                    let frame = Frame::decode_payload(header, frame.slice(HEADER_LEN..))?;
                    return self.head(frame).map(Some);
                }
                // Without END, RESET_STREAM takes its place.
                FrameType::Reset if header.end => {
                    let Some(frame) = self.pieces.take_frame(HEADER_LEN + header.length) else { return Ok(None) };
                    let frame = Frame::decode_payload(header, frame.slice(HEADER_LEN..))?;
                    return self.head(frame).map(Some);
                }
                FrameType::Skippable(_) => self.pieces.skip(header)?,
                kind => {
                    return Err(ProtocolError::Unexpected { kind: kind.name(), why: "on the stream of an exchange" });
                }
            }
        }
    }

    fn data(&mut self, data: Bytes) -> Arrived {
        let end = self.body_end && self.body_left == 0;
        if end {
            self.state.end();
        }
        Arrived::Part(Received::Data { data, end })
    }

    fn head(&mut self, frame: Frame) -> Result<Arrived, ProtocolError> {
        match (frame, self.reader) {
            (Frame::Request { id, tunnel, head, end }, Role::Client) => {
                self.check_id("HTTPRequest", id)?;
                self.state.request(end, head.is_upgrade())?;
                Ok(Arrived::Request { tunnel, head, end })
            }
            (Frame::Response { id, head, end }, Role::Daemon) => {
                self.check_id("HTTPResponse", id)?;
                self.state.response(head.is_interim(), end)?;
                Ok(Arrived::Part(Received::Head { head, end }))
            }
            (Frame::Trailers { id, fields }, _) => {
                self.check_id("Trailers", id)?;
                self.state.check_body("Trailers")?;
                self.state.end();
                Ok(Arrived::Part(Received::Trailers(fields)))
            }
            (Frame::Break { id, code }, _) => {
                self.check_id("Reset", id)?;
                self.state.check_body("Reset")?;
                self.state.stop();
                Ok(Arrived::Break(code.or_cancelled()))
            }
            _ => Err(ProtocolError::Unexpected { kind: "head", why: "only the other side sends it" }),
        }
    }

    fn check_id(&self, kind: &'static str, id: u32) -> Result<(), ProtocolError> {
        if id == self.id {
            Ok(())
        } else {
            Err(ProtocolError::Unexpected { kind, why: "it names the exchange of another stream" })
        }
    }
}

/// Reads the control frames.
#[derive(Debug, Default)]
pub struct ControlReader {
    pieces: Pieces,
}

impl ControlReader {
    /// Takes in the stream's next bytes, once [`ControlReader::read`] has nothing more.
    pub fn push(&mut self, bytes: Bytes) {
        self.pieces.push(bytes);
    }

    /// The next frame. `None` if more bytes are needed. Frames of exchanges are refused here, but for WindowUpdate;
    /// [`Session`](crate::session::Session) judges when the others may come.
    pub fn read(&mut self) -> Result<Option<Frame>, ProtocolError> {
        loop {
            let Some(header) = self.pieces.header()? else { return Ok(None) };
            match header.kind {
                FrameType::Connect
                | FrameType::ConnectAck
                | FrameType::Drain
                | FrameType::Bind
                | FrameType::Bound
                | FrameType::Refused
                | FrameType::Unbind
                | FrameType::Ping
                | FrameType::Pong
                | FrameType::WindowUpdate
                | FrameType::Error => {
                    let Some(frame) = self.pieces.take_frame(HEADER_LEN + header.length) else { return Ok(None) };
                    return Frame::decode_payload(header, frame.slice(HEADER_LEN..)).map(Some);
                }
                FrameType::Skippable(_) => self.pieces.skip(header)?,
                kind => return Err(ProtocolError::Unexpected { kind: kind.name(), why: "on the control stream" }),
            }
        }
    }
}

/// A stream's bytes, gathered only where a part of a frame spans two pieces.
#[derive(Debug, Default)]
struct Pieces {
    /// The beginning of a frame that is not whole. Empty while every frame lies within one piece.
    gathered: BytesMut,
    piece: Bytes,
    /// Bytes of a skipped frame that are still to come.
    skipping: usize,
    /// Bytes that were skipped so far.
    skipped: usize,
}

impl Pieces {
    fn push(&mut self, bytes: Bytes) {
        debug_assert!(self.piece.is_empty(), "the piece before is not used up");
        self.piece = bytes;
    }

    fn is_empty(&self) -> bool {
        self.gathered.is_empty() && self.piece.is_empty()
    }

    /// Reads the next header without taking it. `None` if it is not whole.
    fn header(&mut self) -> Result<Option<FrameHeader>, ProtocolError> {
        let dropped = self.skipping.min(self.piece.len());
        self.piece.advance(dropped);
        self.skipping -= dropped;
        if self.gathered.is_empty() {
            if let Some(header) = FrameHeader::parse(&self.piece)? {
                return Ok(Some(header));
            }
            self.gather(self.piece.len());
            return Ok(None);
        }
        self.gather(HEADER_LEN.saturating_sub(self.gathered.len()));
        FrameHeader::parse(&self.gathered)
    }

    /// Takes the first `length` bytes. `None` if they have not all come.
    fn take_frame(&mut self, length: usize) -> Option<Bytes> {
        if self.gathered.is_empty() {
            if self.piece.len() >= length {
                return Some(self.piece.split_to(length));
            }
            self.gather(self.piece.len());
            return None;
        }
        self.gather(length.saturating_sub(self.gathered.len()));
        (self.gathered.len() == length).then(|| std::mem::take(&mut self.gathered).freeze())
    }

    /// Takes up to `most` bytes in the memory they came in. Nothing may be gathered.
    fn take_some(&mut self, most: usize) -> Bytes {
        self.piece.split_to(most.min(self.piece.len()))
    }

    /// Drops the frame of this header, as far as it has come and when the rest comes.
    fn skip(&mut self, header: FrameHeader) -> Result<(), ProtocolError> {
        let length = HEADER_LEN + header.length;
        self.skipped += length;
        if self.skipped > SKIP_BUDGET {
            return Err(ProtocolError::SkipBudget);
        }
        self.skipping = length - self.gathered.len();
        self.gathered.clear();
        Ok(())
    }

    /// Moves up to `most` bytes of the piece behind what is gathered.
    fn gather(&mut self, most: usize) {
        let moved = self.piece.split_to(most.min(self.piece.len()));
        self.gathered.extend_from_slice(&moved);
    }
}

fn too_short(kind: &'static str) -> ProtocolError {
    ProtocolError::Malformed { kind, why: "ends too early".to_owned() }
}
