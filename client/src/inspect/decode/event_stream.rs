//! Server-sent events (WHATWG HTML, section 9.2), taken apart as browsers do, with comments.

use memchr::memchr2;

use super::message::Payload;
use super::stream::Turn;
use super::{Message, MessageKind, Trouble};

/// The longest type or id that is kept. Real ones are a word or a number.
const LONGEST_TEXT: usize = 1024;
/// The longest name of a field that has a meaning: `event` and `retry`.
const LONGEST_NAME: usize = 5;
/// The most digits of a reconnection time: a `u64` holds any 19 digits.
const MOST_DIGITS: usize = 19;
/// The byte order mark, which may open the stream.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// Takes one event stream apart.
#[derive(Debug)]
pub(super) struct EventStream {
    /// How much of a payload is kept.
    limit: usize,
    /// How many bytes of a byte order mark have come; `None` once the first line has begun.
    mark: Option<usize>,
    /// The last byte was a CR, so an LF belongs to it.
    after_cr: bool,
    line: Line,
    event: Unfinished,
    /// The current comment.
    comment: Payload,
    /// How many bytes came before the current one.
    position: u64,
    /// Where the current line began.
    line_begin: u64,
    ordinal: u64,
}

/// The part of a line that is read next.
#[derive(Debug)]
enum Line {
    /// The name of a field, as far as it has come.
    Name { name: [u8; LONGEST_NAME], length: usize },
    /// A value. The space that may open it is still to come.
    Space(Field),
    /// The rest of a value.
    Value(Field),
}

/// The fields that have a meaning, and the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Data,
    Event,
    Id,
    Retry,
    Comment,
    Other,
}

/// The fields of the event under way.
#[derive(Debug, Default)]
struct Unfinished {
    /// Where it began.
    begin: Option<u64>,
    data: Payload,
    has_data: bool,
    name: Option<Payload>,
    id: Option<Payload>,
    retry: Option<Payload>,
}

const NEW_LINE: Line = Line::Name { name: [0; LONGEST_NAME], length: 0 };

impl EventStream {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            mark: Some(0),
            after_cr: false,
            line: NEW_LINE,
            event: Unfinished::default(),
            comment: Payload::default(),
            position: 0,
            line_begin: 0,
            ordinal: 0,
        }
    }

    /// Takes bytes until the turn is over; returns how many.
    pub(super) fn take(&mut self, bytes: &[u8], turn: &mut Turn<'_>) -> usize {
        let mut taken = self.skip_mark(bytes);
        while taken < bytes.len() && !turn.is_over() {
            let rest = &bytes[taken..];
            if std::mem::take(&mut self.after_cr) && rest[0] == b'\n' {
                self.advance(1, turn, &mut taken);
                self.line_begin = self.position;
                continue;
            }
            if let Some(end) = memchr2(b'\r', b'\n', rest) {
                self.text(&rest[..end]);
                self.after_cr = rest[end] == b'\r';
                self.advance(end + 1, turn, &mut taken);
                self.end_line(turn);
            } else {
                self.text(rest);
                self.advance(rest.len(), turn, &mut taken);
            }
        }
        taken
    }

    /// Reports the event under way as cut off. Browsers drop it.
    pub(super) fn end(&mut self, turn: &mut Turn<'_>) {
        if !matches!(self.line, Line::Name { length: 0, .. }) {
            self.end_line(turn);
        }
        if self.event.begin.is_some() {
            self.report_event(Some(Trouble::EndsEarly), turn);
        }
    }

    /// What its buffers take in memory.
    pub(super) fn memory(&self) -> usize {
        let Unfinished { data, name, id, retry, .. } = &self.event;
        let fields: usize = [name, id, retry].into_iter().flatten().map(Payload::memory).sum();
        data.memory() + fields + self.comment.memory()
    }

    fn advance(&mut self, by: usize, turn: &mut Turn<'_>, taken: &mut usize) {
        self.position += by as u64;
        *taken += by;
        turn.worked(by);
    }

    /// Skips a byte order mark at the beginning of the stream. A part of one that leads to something else is text.
    fn skip_mark(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while let Some(have) = self.mark {
            let Some(byte) = bytes.get(taken) else { break };
            if *byte == BYTE_ORDER_MARK[have] {
                taken += 1;
                self.position += 1;
                self.mark = Some(have + 1).filter(|have| *have < BYTE_ORDER_MARK.len());
                self.line_begin = self.position;
            } else {
                self.mark = None;
                self.line_begin = self.position - have as u64;
                self.text(&BYTE_ORDER_MARK[..have]);
            }
        }
        taken
    }

    /// Takes a part of a line.
    fn text(&mut self, mut piece: &[u8]) {
        while let [first, rest @ ..] = piece {
            match &mut self.line {
                Line::Name { name, length } => {
                    if *first == b':' {
                        self.line = Line::Space(Field::named(&name[..*length]));
                    } else if *length < LONGEST_NAME {
                        name[*length] = *first;
                        *length += 1;
                    } else {
                        self.line = Line::Value(Field::Other);
                    }
                    piece = rest;
                }
                Line::Space(field) => {
                    let field = *field;
                    self.line = Line::Value(field);
                    self.begin(field);
                    if *first == b' ' {
                        piece = rest;
                    }
                }
                Line::Value(field) => {
                    let field = *field;
                    self.value(field, piece);
                    return;
                }
            }
        }
    }

    /// Begins the value of a field.
    fn begin(&mut self, field: Field) {
        let event = &mut self.event;
        match field {
            Field::Data => {
                if event.has_data {
                    event.data.add(b"\n", self.limit);
                }
                event.has_data = true;
            }
            Field::Event => event.name = Some(Payload::default()),
            Field::Id => event.id = Some(Payload::default()),
            Field::Retry => event.retry = Some(Payload::default()),
            Field::Comment | Field::Other => {}
        }
        if !matches!(field, Field::Comment | Field::Other) {
            event.begin.get_or_insert(self.line_begin);
        }
    }

    /// Takes a part of a field's value.
    fn value(&mut self, field: Field, piece: &[u8]) {
        let event = &mut self.event;
        match field {
            Field::Data => event.data.add(piece, self.limit),
            Field::Event => event.name.get_or_insert_default().add(piece, LONGEST_TEXT),
            Field::Id => event.id.get_or_insert_default().add(piece, LONGEST_TEXT),
            Field::Retry => event.retry.get_or_insert_default().add(piece, MOST_DIGITS),
            Field::Comment => self.comment.add(piece, self.limit),
            Field::Other => {}
        }
    }

    fn end_line(&mut self, turn: &mut Turn<'_>) {
        match std::mem::replace(&mut self.line, NEW_LINE) {
            Line::Name { length: 0, .. } => {
                if self.event.begin.is_some() {
                    self.report_event(None, turn);
                }
            }
            // A line without a colon is a field with an empty value.
            Line::Name { name, length } => self.begin(Field::named(&name[..length])),
            Line::Space(Field::Comment) | Line::Value(Field::Comment) => {
                let (bytes, size) = self.comment.take();
                self.report(self.line_begin, MessageKind::Comment, (bytes, size), None, turn);
            }
            Line::Space(field) => self.begin(field),
            Line::Value(_) => {}
        }
        self.line_begin = self.position;
    }

    fn report_event(&mut self, trouble: Option<Trouble>, turn: &mut Turn<'_>) {
        let Unfinished { begin, mut data, has_data, name, id, retry } = std::mem::take(&mut self.event);
        let text =
            |value: Option<Payload>| value.map(|mut value| String::from_utf8_lossy(&value.take().0).into_owned());
        // An id with a NUL is ignored, and so is a time that has other characters than digits.
        let id = text(id.filter(|id| !id.kept().contains(&0)));
        let retry =
            retry.filter(|retry| retry.size() <= MOST_DIGITS as u64 && retry.kept().iter().all(u8::is_ascii_digit));
        let retry = text(retry).and_then(|digits| digits.parse().ok());
        let kind = MessageKind::Event { name: text(name), id, retry, has_data };
        self.report(begin.unwrap_or(self.line_begin), kind, data.take(), trouble, turn);
    }

    fn report(
        &mut self,
        offset: u64,
        kind: MessageKind,
        (bytes, size): (Vec<u8>, u64),
        trouble: Option<Trouble>,
        turn: &mut Turn<'_>,
    ) {
        turn.report(Message { ordinal: self.ordinal, offset, kind, size, sent: size, bytes, trouble });
        self.ordinal += 1;
    }
}

impl Field {
    fn named(name: &[u8]) -> Self {
        match name {
            b"data" => Self::Data,
            b"event" => Self::Event,
            b"id" => Self::Id,
            b"retry" => Self::Retry,
            b"" => Self::Comment,
            _ => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests;
