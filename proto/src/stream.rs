//! Frames on streams of their own, as over QUIC: [`ExchangeReader`] for the stream of an exchange, [`ControlReader`] for
//! the stream of the control frames.
//!
//! Bytes go in as the stream has them, in pieces of any length; what they mean comes out. A body passes through as it
//! comes: no frame is waited for, nothing is copied. A head is gathered until it is whole, at most
//! [`MAX_HEAD`](crate::frame::MAX_HEAD) bytes. Flow control, order between streams and cancelling are the transport's.

use bytes::{Buf as _, Bytes, BytesMut};

use crate::error::ProtocolError;
use crate::exchange::{Received, RecvState};
use crate::frame::{Frame, FrameHeader, FrameType, HEADER_LEN, ID_LEN};
use crate::head::RequestHead;
use crate::mux::receive::SKIP_BUDGET;
use crate::session::Role;

/// What came on the stream of an exchange.
#[derive(Debug, PartialEq)]
pub enum Arrived {
    /// To a client, first of all: the request.
    Request {
        /// Its head.
        head: RequestHead,
        /// It has no body.
        end: bool,
    },
    /// A response head, a piece of a body, or trailers.
    Part(Received),
}

/// Reads one direction of one exchange.
#[derive(Debug)]
pub struct ExchangeReader {
    reader: Role,
    id: u32,
    pieces: Pieces,
    /// Body bytes that the current Data frame still has.
    body_left: usize,
    /// The current Data frame is the last one.
    body_end: bool,
    state: RecvState,
}

impl ExchangeReader {
    /// Reads as `reader` what the other side sends on the stream of exchange `id`.
    pub fn new(reader: Role, id: u32) -> Self {
        Self { reader, id, pieces: Pieces::default(), body_left: 0, body_end: false, state: RecvState::before_head() }
    }

    /// Takes in what the stream has next. To be called once [`ExchangeReader::read`] has nothing more.
    pub fn push(&mut self, bytes: Bytes) {
        self.pieces.push(bytes);
    }

    /// Whether the direction has ended in order. A stream that finishes before is broken.
    pub fn has_ended(&self) -> bool {
        self.state.is_over()
    }

    /// Gives the rest of the direction up: it counts as ended.
    pub fn stop(&mut self) {
        self.state.end();
    }

    /// What came next; `None` if more bytes are needed.
    pub fn read(&mut self) -> Result<Option<Arrived>, ProtocolError> {
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
                    // The id alone; the body needs not be whole.
                    let Some(mut id) = self.pieces.take_frame(HEADER_LEN + ID_LEN.min(header.length)) else {
                        return Ok(None);
                    };
                    id.advance(HEADER_LEN);
                    let id = id.try_get_u32().map_err(|_| too_short("Data"))?;
                    self.check_id("Data", id)?;
                    (self.body_left, self.body_end) = (header.length - ID_LEN, header.end);
                    if self.body_left == 0 {
                        return Ok(Some(self.data(Bytes::new())));
                    }
                }
                FrameType::HttpRequest | FrameType::HttpResponse | FrameType::Trailers => {
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
            (Frame::Request { id, head, end }, Role::Client) => {
                self.check_id("HTTPRequest", id)?;
                self.state.request(end)?;
                Ok(Arrived::Request { head, end })
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
            _ => Err(ProtocolError::Unexpected { kind: "head", why: "it is for the other side to send" }),
        }
    }

    fn check_id(&self, kind: &'static str, id: u32) -> Result<(), ProtocolError> {
        if id == self.id {
            Ok(())
        } else {
            Err(ProtocolError::Unexpected { kind, why: "it names another exchange than its stream's" })
        }
    }
}

/// Reads the control frames.
#[derive(Debug, Default)]
pub struct ControlReader {
    pieces: Pieces,
}

impl ControlReader {
    /// Takes in what the stream has next. To be called once [`ControlReader::read`] has nothing more.
    pub fn push(&mut self, bytes: Bytes) {
        self.pieces.push(bytes);
    }

    /// The next frame; `None` if more bytes are needed. Which frames may come when is for the owner to judge; those of
    /// exchanges are refused here.
    pub fn read(&mut self) -> Result<Option<Frame>, ProtocolError> {
        loop {
            let Some(header) = self.pieces.header()? else { return Ok(None) };
            match header.kind {
                FrameType::Connect
                | FrameType::ConnectAck
                | FrameType::Drain
                | FrameType::Ping
                | FrameType::Pong
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

/// Bytes as the stream had them, gathered only where a frame's part lies across two pieces.
#[derive(Debug, Default)]
struct Pieces {
    /// The beginning of a frame that is not whole. Empty while frames lie within one piece.
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

    /// The header that comes next, which stays. `None` if it is not whole yet.
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

    /// Takes the first `length` bytes; `None` if they have not come yet.
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

    /// Takes up to `most` bytes in the memory that they came in. Nothing may be gathered.
    fn take_some(&mut self, most: usize) -> Bytes {
        self.piece.split_to(most.min(self.piece.len()))
    }

    /// Drops the frame of this header, whole or as it comes.
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
