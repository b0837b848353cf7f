//! JSON one line at a time (`application/x-ndjson` and its like), and JSON text sequences (RFC 7464). The lines are not parsed.

use memchr::memchr;

use super::message::Payload;
use super::stream::Turn;
use super::{Message, MessageKind, Trouble};

/// The byte before each record of a JSON text sequence.
const RECORD_SEPARATOR: u8 = 0x1e;

/// Takes one direction apart.
#[derive(Debug)]
pub(super) struct Lines {
    /// How much of a line is kept.
    limit: usize,
    /// The byte that ends a line.
    end: u8,
    line: Payload,
    position: u64,
    ordinal: u64,
}

impl Lines {
    /// Lines that end in LF or CRLF.
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, end: b'\n', line: Payload::default(), position: 0, ordinal: 0 }
    }

    /// Records of a JSON text sequence.
    pub(super) fn sequence(limit: usize) -> Self {
        Self { end: RECORD_SEPARATOR, ..Self::new(limit) }
    }

    /// Takes bytes until the turn is over; returns how many.
    pub(super) fn take(&mut self, bytes: &[u8], turn: &mut Turn<'_>) -> usize {
        let mut taken = 0;
        while taken < bytes.len() && !turn.is_over() {
            let rest = &bytes[taken..];
            let end = memchr(self.end, rest);
            let piece = &rest[..end.unwrap_or(rest.len())];
            self.line.add(piece, self.limit);
            self.position += piece.len() as u64;
            if end.is_some() {
                self.report(None, turn);
                self.position += 1;
            }
            let length = piece.len() + usize::from(end.is_some());
            turn.worked(length);
            taken += length;
        }
        taken
    }

    /// Reports the last line, which may lack its end. A record of a sequence must have one.
    pub(super) fn end(&mut self, turn: &mut Turn<'_>) {
        let is_cut = self.end == RECORD_SEPARATOR && !self.line.is_truncated() && !self.line.kept().ends_with(b"\n");
        self.report(is_cut.then_some(Trouble::EndsEarly), turn);
    }

    /// What its buffers take in memory.
    pub(super) fn memory(&self) -> usize {
        self.line.memory()
    }

    /// Reports a line, unless it is blank.
    fn report(&mut self, trouble: Option<Trouble>, turn: &mut Turn<'_>) {
        let is_blank = !self.line.is_truncated() && self.line.kept().trim_ascii().is_empty();
        let (mut bytes, mut size) = self.line.take();
        if is_blank {
            return;
        }
        let offset = self.position - size;
        if bytes.len() as u64 == size {
            bytes.truncate(bytes.trim_ascii_end().len());
            size = bytes.len() as u64;
        }
        turn.report(Message {
            ordinal: self.ordinal,
            offset,
            kind: MessageKind::Line,
            size,
            sent: size,
            bytes,
            trouble,
        });
        self.ordinal += 1;
    }
}

#[cfg(test)]
mod tests;
