//! One direction of a long exchange, taken apart while it passes.

use super::codings::{Chain, Growth};
use super::event_stream::EventStream;
use super::grpc::Grpc;
use super::lines::Lines;
use super::websocket::{PerMessageDeflate, WebSocket};
use super::{Coding, Message, Trouble};

/// The most bytes that one call works on, plus what a small piece of input may decompress to.
const WORK: usize = 256 << 10;
/// The most messages that one call reports.
const MESSAGES: usize = 256;
/// How much is decompressed at a time.
const SCRATCH: usize = 16 << 10;

/// What the messages of a stream look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Server-sent events: `text/event-stream`.
    EventStream,
    /// JSON, one value a line: `application/x-ndjson` and its like.
    Lines,
    /// A JSON text sequence: `application/json-seq`.
    Sequence,
    /// Messages of gRPC, gRPC-Web or Connect.
    Grpc {
        /// The coding of compressed messages, from `grpc-encoding` or `connect-content-encoding`.
        coding: Option<Coding>,
        /// The bytes are base64: `application/grpc-web-text`.
        is_text: bool,
    },
    /// A WebSocket, with permessage-deflate if it was negotiated.
    WebSocket(Option<PerMessageDeflate>),
}

/// How much memory one direction may take.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// The most bytes that are kept of one message.
    pub(crate) shown: usize,
    /// The largest window of a decoder, which may take three times as much in all. Windows grow with their data.
    pub(crate) window: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // 64 KiB fill more than a screen. 4 MiB are what brotli takes by default, and more than zstd does.
        Self { shown: 64 << 10, window: 4 << 20 }
    }
}

/// Whether a call took all of its input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Progress {
    /// All input is taken.
    Done,
    /// The call reached its limit. Take the messages and call again, with the rest of the input.
    More,
}

/// Finds the messages in one direction of an exchange.
///
/// ```ignore
/// while stream.push(&mut input, &mut messages) == Progress::More {
///     keep(messages.drain(..));
/// }
/// ```
#[derive(Debug)]
pub(crate) struct Stream {
    parser: Parser,
    /// What undoes the content codings; `None` without any.
    decoder: Option<Decoder>,
    /// Set once the stream cannot be followed any more.
    trouble: Option<Trouble>,
    /// The bytes of the direction so far.
    received: u64,
}

/// The content codings of a stream.
#[derive(Debug)]
struct Decoder {
    chain: Chain,
    growth: Growth,
    /// Decompressed bytes.
    scratch: Box<[u8]>,
    /// The part of `scratch` that is to be parsed.
    ready: std::ops::Range<usize>,
}

/// What finds the messages in bytes without content codings.
#[derive(Debug)]
enum Parser {
    Events(Box<EventStream>),
    Lines(Lines),
    Grpc(Box<Grpc>),
    WebSocket(Box<WebSocket>),
}

/// What one call may still do.
pub(super) struct Turn<'a> {
    out: &'a mut Vec<Message>,
    messages: usize,
    work: usize,
}

impl Stream {
    /// For a direction that has sent nothing yet. `codings` are in the order in which they were applied.
    pub(crate) fn new(kind: &Kind, codings: &[Coding], limits: Limits) -> Self {
        let parser = match kind {
            Kind::EventStream => Parser::Events(EventStream::new(limits.shown).into()),
            Kind::Lines => Parser::Lines(Lines::new(limits.shown)),
            Kind::Sequence => Parser::Lines(Lines::sequence(limits.shown)),
            Kind::Grpc { coding, is_text } => {
                Parser::Grpc(Grpc::new(*coding, *is_text, limits.shown, limits.window).into())
            }
            Kind::WebSocket(deflate) => Parser::WebSocket(WebSocket::new(*deflate, limits.shown).into()),
        };
        let decoder = (!codings.is_empty()).then(|| Decoder {
            chain: Chain::new(codings, limits.window),
            growth: Growth::of_stream(),
            scratch: vec![0; SCRATCH].into(),
            ready: 0..0,
        });
        Self { parser, decoder, trouble: None, received: 0 }
    }

    /// Takes bytes off `input` and adds the messages that they complete to `out`, up to the limits of one call.
    pub(crate) fn push(&mut self, input: &mut &[u8], out: &mut Vec<Message>) -> Progress {
        let before = input.len();
        let mut turn = Turn::new(out);
        if self.trouble.is_none() {
            self.trouble = match &mut self.decoder {
                Some(decoder) => decoder.push(input, &mut self.parser, &mut turn).err(),
                None => self.parser.take(input, &mut turn).err(),
            };
        }
        if self.trouble.is_some() {
            *input = &[];
        }
        self.received += (before - input.len()) as u64;
        if turn.is_over() && self.trouble.is_none() { Progress::More } else { Progress::Done }
    }

    /// Ends the direction: reports what is incomplete. All input must have been taken before.
    pub(crate) fn end(&mut self, out: &mut Vec<Message>) {
        if self.trouble.is_some() {
            return;
        }
        self.parser.end(&mut Turn::new(out));
        if self.decoder.as_ref().is_some_and(|decoder| !decoder.chain.is_complete()) {
            self.trouble = Some(Trouble::EndsEarly);
        }
    }

    /// Why messages are not found any more, if so. Bytes are still counted.
    pub(crate) fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// How many bytes have come, with their content codings.
    #[cfg(test)]
    pub(crate) fn received(&self) -> u64 {
        self.received
    }

    /// What its buffers and decoders take in memory.
    pub(crate) fn memory(&self) -> usize {
        let decoder = self.decoder.as_ref().map_or(0, |decoder| decoder.chain.memory() + decoder.scratch.len());
        size_of::<Self>() + self.parser.memory() + decoder
    }
}

impl Decoder {
    fn push(&mut self, input: &mut &[u8], parser: &mut Parser, turn: &mut Turn<'_>) -> Result<(), Trouble> {
        loop {
            let mut ready = &self.scratch[self.ready.clone()];
            let parsed = parser.take(&mut ready, turn);
            self.ready.start = self.ready.end - ready.len();
            parsed?;
            if turn.is_over() {
                return Ok(());
            }
            let step = self.chain.step(input, &mut self.scratch)?;
            *input = &input[step.taken..];
            self.ready = 0..step.made;
            turn.worked(step.work);
            self.growth.add(step.taken, step.work)?;
            if step.taken == 0 && step.made == 0 {
                return Ok(());
            }
        }
    }
}

impl Parser {
    /// Takes bytes off `input` until the turn is over.
    fn take(&mut self, input: &mut &[u8], turn: &mut Turn<'_>) -> Result<(), Trouble> {
        let taken = match self {
            Self::Events(events) => events.take(input, turn),
            Self::Lines(lines) => lines.take(input, turn),
            Self::Grpc(grpc) => grpc.take(input, turn)?,
            Self::WebSocket(websocket) => websocket.take(input, turn)?,
        };
        *input = &input[taken..];
        Ok(())
    }

    fn end(&mut self, turn: &mut Turn<'_>) {
        match self {
            Self::Events(events) => events.end(turn),
            Self::Lines(lines) => lines.end(turn),
            Self::Grpc(grpc) => grpc.end(turn),
            Self::WebSocket(websocket) => websocket.end(turn),
        }
    }

    fn memory(&self) -> usize {
        match self {
            Self::Events(events) => size_of::<EventStream>() + events.memory(),
            Self::Lines(lines) => lines.memory(),
            Self::Grpc(grpc) => size_of::<Grpc>() + grpc.memory(),
            Self::WebSocket(websocket) => size_of::<WebSocket>() + websocket.memory(),
        }
    }
}

impl<'a> Turn<'a> {
    fn new(out: &'a mut Vec<Message>) -> Self {
        Self { out, messages: MESSAGES, work: WORK }
    }

    /// Whether the call should return.
    pub(super) fn is_over(&self) -> bool {
        self.messages == 0 || self.work == 0
    }

    /// Counts bytes that were worked on.
    pub(super) fn worked(&mut self, bytes: usize) {
        self.work = self.work.saturating_sub(bytes);
    }

    /// Reports a message.
    pub(super) fn report(&mut self, message: Message) {
        self.out.push(message);
        self.messages = self.messages.saturating_sub(1);
    }
}
