//! Messages of gRPC, gRPC-Web and Connect. Each has a prefix of five bytes:
//!
//! ```text
//!  0        1                 5
//!  +--------+-----------------+----------+
//!  | flags  | length u32      | message  |
//!  +--------+-----------------+----------+
//! ```

use std::ops::Range;

use super::codings::{Chain, Growth};
use super::message::Payload;
use super::stream::Turn;
use super::{Coding, Message, MessageKind, Trouble};

/// The length of a prefix.
const PREFIX: usize = 5;
/// The flag of a compressed message.
const COMPRESSED: u8 = 1;
/// The flag of a Connect stream's last message.
const END_OF_STREAM: u8 = 1 << 1;
/// The flag of gRPC-Web's trailers.
const TRAILERS: u8 = 1 << 7;
/// How much of a compressed message is decompressed at a time. It may grow a thousandfold.
const PIECE: usize = 1 << 10;
/// Room for what comes out of a decoder.
const SCRATCH: usize = 4 << 10;

/// Takes one direction apart.
#[derive(Debug)]
pub(super) struct Grpc {
    /// How much of a message is kept.
    limit: usize,
    /// The largest window of a decoder.
    window: usize,
    /// The coding of compressed messages, as `grpc-encoding` names it.
    coding: Option<Coding>,
    /// Set for gRPC-Web's text form.
    text: Option<Base64>,
    prefix: [u8; PREFIX],
    /// How many bytes of a prefix have come. All of them while a message comes.
    have: usize,
    /// How many bytes of the message are to come.
    left: u32,
    payload: Payload,
    decoder: Option<Chain>,
    /// Of all messages, so that a bomb can't come in parts.
    growth: Growth,
    trouble: Option<Trouble>,
    /// Where the current message began.
    begin: u64,
    position: u64,
    ordinal: u64,
}

impl Grpc {
    /// `is_text` is for gRPC-Web's text form.
    pub(super) fn new(coding: Option<Coding>, is_text: bool, limit: usize, window: usize) -> Self {
        Self {
            limit,
            window,
            coding,
            text: is_text.then(Base64::default),
            prefix: [0; PREFIX],
            have: 0,
            left: 0,
            payload: Payload::default(),
            decoder: None,
            growth: Growth::of_stream(),
            trouble: None,
            begin: 0,
            position: 0,
            ordinal: 0,
        }
    }

    /// Takes bytes until the turn is over; returns how many.
    pub(super) fn take(&mut self, bytes: &[u8], turn: &mut Turn<'_>) -> Result<usize, Trouble> {
        let Some(mut text) = self.text.take() else { return self.take_binary(bytes, turn) };
        let mut taken = 0;
        loop {
            let decoded = text.decoded;
            text.ready.start += self.take_binary(&decoded[text.ready.clone()], turn)?;
            if turn.is_over() || taken == bytes.len() {
                break;
            }
            text.character(bytes[taken])?;
            taken += 1;
        }
        self.text = Some(text);
        Ok(taken)
    }

    /// Reports a message that was cut off.
    pub(super) fn end(&mut self, turn: &mut Turn<'_>) {
        if self.have > 0 {
            self.trouble.get_or_insert(Trouble::EndsEarly);
            self.report(turn);
        }
    }

    /// What its buffers take in memory.
    pub(super) fn memory(&self) -> usize {
        self.payload.memory() + self.decoder.as_ref().map_or(0, Chain::memory)
    }

    fn take_binary(&mut self, bytes: &[u8], turn: &mut Turn<'_>) -> Result<usize, Trouble> {
        let mut taken = 0;
        while !turn.is_over() {
            let rest = &bytes[taken..];
            if self.have < PREFIX {
                let Some(byte) = rest.first() else { break };
                if self.have == 0 {
                    self.begin = self.position;
                }
                self.prefix[self.have] = *byte;
                self.have += 1;
                self.advance(1, &mut taken, turn);
                if self.have == PREFIX {
                    self.begin_message()?;
                }
                if self.have < PREFIX || self.left > 0 {
                    continue;
                }
            } else {
                let most = if self.decoder.is_some() { PIECE } else { rest.len() };
                let piece = &rest[..rest.len().min(most).min(self.left as usize)];
                if piece.is_empty() {
                    break;
                }
                self.payload(piece, turn);
                self.left -= piece.len() as u32;
                self.advance(piece.len(), &mut taken, turn);
            }
            if self.left == 0 {
                self.report(turn);
            }
        }
        Ok(taken)
    }

    fn advance(&mut self, by: usize, taken: &mut usize, turn: &mut Turn<'_>) {
        *taken += by;
        self.position += by as u64;
        turn.worked(by);
    }

    fn begin_message(&mut self) -> Result<(), Trouble> {
        let [flags, length @ ..] = self.prefix;
        if flags & !(COMPRESSED | END_OF_STREAM | TRAILERS) != 0 {
            return Err(Trouble::Invalid { format: "gRPC", why: "a message has unknown flags" });
        }
        self.left = u32::from_be_bytes(length);
        if flags & COMPRESSED != 0 && self.left > 0 {
            match self.coding {
                Some(coding) => self.decoder = Some(Chain::new(&[coding], self.window)),
                None => self.trouble = Some(Trouble::NoCoding),
            }
        }
        Ok(())
    }

    fn payload(&mut self, piece: &[u8], turn: &mut Turn<'_>) {
        let Some(decoder) = &mut self.decoder else {
            self.payload.add(piece, self.limit);
            return;
        };
        let add = |made: &[u8]| self.payload.add(made, self.limit);
        if let Err(trouble) = decompress(decoder, &mut self.growth, piece, turn, add) {
            self.trouble = Some(trouble);
            // What still comes of this message is compressed, so it is not shown.
            self.decoder = None;
            self.payload.close();
        }
    }

    fn report(&mut self, turn: &mut Turn<'_>) {
        let [flags, length @ ..] = self.prefix;
        let compressed = flags & COMPRESSED != 0;
        let kind = if flags & (END_OF_STREAM | TRAILERS) != 0 {
            MessageKind::GrpcEnd { compressed }
        } else {
            MessageKind::Grpc { compressed }
        };
        if self.decoder.take().is_some_and(|decoder| !decoder.is_complete()) {
            self.trouble.get_or_insert(Trouble::EndsEarly);
        }
        let (bytes, size) = self.payload.take();
        let sent = if self.have == PREFIX { u32::from_be_bytes(length) - self.left } else { 0 };
        let message = Message {
            ordinal: self.ordinal,
            offset: self.begin,
            kind,
            size,
            sent: sent.into(),
            bytes,
            trouble: self.trouble.take(),
        };
        turn.report(message);
        self.ordinal += 1;
        self.have = 0;
    }
}

/// Decompresses all of `piece`.
fn decompress(
    decoder: &mut Chain,
    growth: &mut Growth,
    mut piece: &[u8],
    turn: &mut Turn<'_>,
    mut made: impl FnMut(&[u8]),
) -> Result<(), Trouble> {
    let mut scratch = [0; SCRATCH];
    loop {
        let step = decoder.step(piece, &mut scratch)?;
        piece = &piece[step.taken..];
        made(&scratch[..step.made]);
        turn.worked(step.work);
        growth.add(step.taken, step.work)?;
        if step.taken == 0 && step.made == 0 {
            return Ok(());
        }
    }
}

/// Base64 that comes in pieces. Padding may stand in the middle, as each message may be encoded by itself.
#[derive(Debug, Default)]
struct Base64 {
    bits: u32,
    /// How many characters of a group have come.
    have: u8,
    /// How many of them are padding.
    padding: u8,
    /// The bytes of the last complete group.
    decoded: [u8; 3],
    /// The bytes of it that are to be taken.
    ready: Range<usize>,
}

impl Base64 {
    /// Takes a character. What was ready before must be taken.
    fn character(&mut self, character: u8) -> Result<(), Trouble> {
        let invalid = |why| Err(Trouble::Invalid { format: "base64", why });
        let value = match character {
            b'A'..=b'Z' => character - b'A',
            b'a'..=b'z' => character - b'a' + 26,
            b'0'..=b'9' => character - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            b'=' if self.have >= 2 => 0,
            b'\r' | b'\n' => return Ok(()),
            _ => return invalid("a character does not belong there"),
        };
        if character == b'=' {
            self.padding += 1;
        } else if self.padding > 0 {
            return invalid("something follows the padding of a group");
        }
        self.bits = self.bits << 6 | u32::from(value);
        self.have += 1;
        if self.have == 4 {
            let [_, a, b, c] = self.bits.to_be_bytes();
            let length = 3 - usize::from(self.padding);
            *self = Self { decoded: [a, b, c], ready: 0..length, ..Self::default() };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
