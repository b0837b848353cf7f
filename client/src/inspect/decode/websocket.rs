//! The messages of a WebSocket (RFC 6455), in one direction, with permessage-deflate (RFC 7692).
//!
//! It follows frames as long as their lengths make sense. What the rules forbid otherwise is shown and marked.

use super::codings::{Growth, Inflate};
use super::message::Payload;
use super::stream::Turn;
use super::{Coding, Message, MessageKind, Trouble};

/// The longest header: two bytes, a length of eight, a masking key of four.
const LONGEST_HEADER: usize = 14;
/// The bit of a message's last frame.
const FIN: u8 = 0x80;
/// The bits that extensions give a meaning.
const RESERVED: u8 = 0x70;
/// The one of them that marks a compressed message.
const COMPRESSED: u8 = 0x40;
/// The bit of the second byte that announces a masking key.
const MASK: u8 = 0x80;
/// The longest payload of a control frame.
const MAX_CONTROL: u64 = 125;
/// Opcodes.
const CONTINUATION: u8 = 0x0;
const TEXT: u8 = 0x1;
const BINARY: u8 = 0x2;
const CLOSE: u8 = 0x8;
const PING: u8 = 0x9;
const PONG: u8 = 0xa;
/// What a sender leaves out at the end of each compressed message.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];
/// How much is unmasked or decompressed at a time. It may grow a thousandfold.
const PIECE: usize = 1 << 10;
/// Room for what comes out of the decoder.
const SCRATCH: usize = 4 << 10;

/// What was agreed about compressed messages in one direction. The size of the window does not matter here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PerMessageDeflate {
    /// A message may refer to those before it.
    pub(crate) keeps_window: bool,
}

/// What was agreed about compressed messages in both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Negotiated {
    /// From the visitor to the service.
    pub(crate) client: PerMessageDeflate,
    /// From the service to the visitor.
    pub(crate) server: PerMessageDeflate,
}

impl Negotiated {
    /// Reads the response's `Sec-WebSocket-Extensions`. `None` if messages are not compressed.
    pub(crate) fn from_response<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Option<Self> {
        let mut extensions = values.into_iter().flat_map(|value| value.split(|byte| *byte == b','));
        extensions.find_map(|extension| {
            let mut parts = extension.split(|byte| *byte == b';').map(<[u8]>::trim_ascii);
            if !parts.next()?.eq_ignore_ascii_case(b"permessage-deflate") {
                return None;
            }
            let mut agreed = [PerMessageDeflate { keeps_window: true }; 2];
            for part in parts {
                if part.eq_ignore_ascii_case(b"client_no_context_takeover") {
                    agreed[0].keeps_window = false;
                } else if part.eq_ignore_ascii_case(b"server_no_context_takeover") {
                    agreed[1].keeps_window = false;
                }
            }
            Some(Self { client: agreed[0], server: agreed[1] })
        })
    }
}

/// Takes one direction apart.
#[derive(Debug)]
pub(super) struct WebSocket {
    /// How much of a message is kept.
    limit: usize,
    header: [u8; LONGEST_HEADER],
    /// How many bytes of a header have come.
    have: usize,
    /// The frame under way, once its header is complete.
    frame: Option<Frame>,
    /// A message that is the single frame under way.
    single: Option<Unfinished>,
    /// The message under way: text or binary, which control frames may interrupt.
    message: Option<Unfinished>,
    deflate: Option<Deflate>,
    /// How many bytes came before the current one.
    position: u64,
    ordinal: u64,
}

/// A frame whose payload is coming.
#[derive(Debug)]
struct Frame {
    fin: bool,
    left: u64,
    mask: [u8; 4],
    /// How many bytes of the payload have come, which says where in the mask the next one is.
    have: u64,
}

/// A message under way.
#[derive(Debug)]
struct Unfinished {
    opcode: u8,
    is_compressed: bool,
    begin: u64,
    sent: u64,
    payload: Payload,
    trouble: Option<Trouble>,
}

/// Decompresses messages.
#[derive(Debug)]
struct Deflate {
    agreed: PerMessageDeflate,
    /// Made for the first compressed message.
    inflate: Option<Inflate>,
    growth: Growth,
    /// The window lacks what later messages refer to.
    is_lost: bool,
}

impl WebSocket {
    pub(super) fn new(agreed: Option<PerMessageDeflate>, limit: usize) -> Self {
        let deflate = |agreed| Deflate { agreed, inflate: None, growth: Growth::of_stream(), is_lost: false };
        Self {
            limit,
            header: [0; LONGEST_HEADER],
            have: 0,
            frame: None,
            single: None,
            message: None,
            deflate: agreed.map(deflate),
            position: 0,
            ordinal: 0,
        }
    }

    /// Takes bytes until the turn is over; returns how many. It fails if a length makes no sense.
    pub(super) fn take(&mut self, bytes: &[u8], turn: &mut Turn<'_>) -> Result<usize, Trouble> {
        let mut taken = 0;
        while taken < bytes.len() && !turn.is_over() {
            let rest = &bytes[taken..];
            let length = if let Some(frame) = &mut self.frame {
                let message = self.single.as_mut().or(self.message.as_mut());
                frame.payload(rest, message, self.deflate.as_mut(), self.limit, turn)
            } else {
                self.header[self.have] = rest[0];
                self.have += 1;
                if self.have == self.header_length() {
                    self.begin_frame(turn)?;
                }
                1
            };
            taken += length;
            self.position += length as u64;
            turn.worked(length);
            if let Some(frame) = self.frame.take_if(|frame| frame.left == 0) {
                self.end_frame(frame.fin, turn);
            }
        }
        Ok(taken)
    }

    /// Reports what was cut off.
    pub(super) fn end(&mut self, turn: &mut Turn<'_>) {
        for mut message in [self.message.take(), self.single.take()].into_iter().flatten() {
            message.trouble.get_or_insert(Trouble::EndsEarly);
            self.report(message, turn);
        }
    }

    /// What its buffers take in memory.
    pub(super) fn memory(&self) -> usize {
        let unfinished = [&self.message, &self.single].into_iter().flatten();
        let payloads: usize = unfinished.map(|message| message.payload.memory()).sum();
        let inflate = self.deflate.as_ref().and_then(|deflate| deflate.inflate.as_ref());
        payloads + inflate.map_or(0, Inflate::memory)
    }

    /// How long the header is, as far as that is known.
    fn header_length(&self) -> usize {
        if self.have < 2 {
            return 2;
        }
        let length = match self.header[1] & !MASK {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        if self.header[1] & MASK == 0 { length } else { length + 4 }
    }

    /// Takes a header that is complete.
    fn begin_frame(&mut self, turn: &mut Turn<'_>) -> Result<(), Trouble> {
        let [first, second, extended @ ..] = self.header;
        let extended = &extended[..self.have - 2];
        let (extended, mask) = extended.split_at(if second & MASK == 0 { extended.len() } else { extended.len() - 4 });
        let left = match second & !MASK {
            126 | 127 => extended.iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
            short => short.into(),
        };
        if left >> 63 != 0 {
            return Err(invalid("a frame is longer than it can be"));
        }
        let begin = self.position + 1 - self.have as u64;
        self.have = 0;
        let (fin, opcode, reserved) = (first & FIN != 0, first & 0xf, first & RESERVED);
        let mut message = Unfinished {
            opcode,
            is_compressed: reserved == COMPRESSED && self.deflate.is_some() && matches!(opcode, TEXT | BINARY),
            begin,
            sent: 0,
            payload: Payload::default(),
            trouble: None,
        };
        if reserved != 0 && !message.is_compressed {
            message.trouble = Some(invalid("bits are set that have no meaning here"));
        }
        self.single = match (opcode, &mut self.message) {
            (CONTINUATION, Some(under_way)) => {
                under_way.trouble = under_way.trouble.take().or(message.trouble);
                None
            }
            (TEXT | BINARY, under_way) => {
                if let Some(mut unfinished) = under_way.replace(message) {
                    unfinished.trouble.get_or_insert(invalid("the next message begins before the end of this one"));
                    self.report(unfinished, turn);
                }
                if let Some((message, deflate)) = self.message.as_mut().zip(self.deflate.as_mut())
                    && message.is_compressed
                {
                    message.trouble = deflate.begin();
                }
                None
            }
            (CLOSE | PING | PONG, _) => {
                if !fin || left > MAX_CONTROL {
                    message.trouble = Some(invalid("a control frame must be short and in one piece"));
                }
                Some(message)
            }
            (_, _) => {
                message.trouble = Some(invalid("a frame has an opcode without a meaning here"));
                Some(message)
            }
        };
        let mask = mask.try_into().unwrap_or_default();
        self.frame = Some(Frame { fin, left, mask, have: 0 });
        Ok(())
    }

    fn end_frame(&mut self, fin: bool, turn: &mut Turn<'_>) {
        if let Some(message) = self.single.take() {
            self.report(message, turn);
        } else if fin && let Some(mut message) = self.message.take() {
            if message.is_compressed
                && let Some(deflate) = &mut self.deflate
            {
                deflate.take(&TAIL, &mut message, self.limit, turn);
            }
            self.report(message, turn);
        }
    }

    fn report(&mut self, message: Unfinished, turn: &mut Turn<'_>) {
        let Unfinished { opcode, begin, sent, mut payload, mut trouble, .. } = message;
        let (mut bytes, mut size) = payload.take();
        let kind = match opcode {
            TEXT => MessageKind::Text,
            BINARY => MessageKind::Binary,
            PING => MessageKind::Ping,
            PONG => MessageKind::Pong,
            CLOSE => {
                // The reason stands behind the code.
                let code = match *bytes {
                    [high, low, ..] => {
                        bytes.drain(..2);
                        size -= 2;
                        Some(u16::from_be_bytes([high, low]))
                    }
                    [_] => {
                        trouble.get_or_insert(invalid("half a status code"));
                        None
                    }
                    [] => None,
                };
                MessageKind::Close { code }
            }
            opcode => MessageKind::Unknown { opcode },
        };
        turn.report(Message { ordinal: self.ordinal, offset: begin, kind, size, sent, bytes, trouble });
        self.ordinal += 1;
    }
}

impl Frame {
    /// Takes a part of the payload; returns how much.
    fn payload(
        &mut self,
        rest: &[u8],
        message: Option<&mut Unfinished>,
        deflate: Option<&mut Deflate>,
        limit: usize,
        turn: &mut Turn<'_>,
    ) -> usize {
        let here = usize::try_from(self.left).map_or(rest.len(), |left| left.min(rest.len()));
        let Some(message) = message else {
            self.left -= here as u64;
            return here;
        };
        let is_kept = message.is_compressed || message.payload.size() < limit as u64;
        let piece = &rest[..if is_kept { here.min(PIECE) } else { here }];
        message.sent += piece.len() as u64;
        if is_kept {
            let mut plain = [0; PIECE];
            let plain = &mut plain[..piece.len()];
            for ((plain, byte), place) in plain.iter_mut().zip(piece).zip(self.have..) {
                *plain = byte ^ self.mask[(place % 4) as usize];
            }
            match deflate {
                Some(deflate) if message.is_compressed => deflate.take(plain, message, limit, turn),
                _ => message.payload.add(plain, limit),
            }
        } else {
            message.payload.skip(piece.len());
        }
        self.left -= piece.len() as u64;
        self.have += piece.len() as u64;
        piece.len()
    }
}

impl Deflate {
    /// Begins a message. Returns why it can't be decompressed, if so.
    fn begin(&mut self) -> Option<Trouble> {
        if !self.agreed.keeps_window
            && let Some(inflate) = &mut self.inflate
        {
            inflate.restart();
        }
        self.is_lost.then_some(Trouble::Lost)
    }

    /// Decompresses a part of a message.
    fn take(&mut self, mut piece: &[u8], message: &mut Unfinished, limit: usize, turn: &mut Turn<'_>) {
        if message.trouble.is_some() {
            return;
        }
        let inflate = self.inflate.get_or_insert_with(|| Inflate::new(false, Coding::Deflate));
        let mut scratch = [0; SCRATCH];
        loop {
            if inflate.has_ended() && !piece.is_empty() {
                inflate.restart();
            }
            let step = inflate.step(piece, &mut scratch);
            let step = step.and_then(|(taken, made)| self.growth.add(taken, made).map(|()| (taken, made)));
            match step {
                Ok((0, 0)) => return,
                Ok((taken, made)) => {
                    piece = &piece[taken..];
                    message.payload.add(&scratch[..made], limit);
                    turn.worked(made);
                }
                Err(trouble) => {
                    message.trouble = Some(trouble);
                    self.is_lost = self.agreed.keeps_window;
                    self.inflate = None;
                    return;
                }
            }
        }
    }
}

fn invalid(why: &'static str) -> Trouble {
    Trouble::Invalid { format: "WebSocket", why }
}

#[cfg(test)]
mod tests;
