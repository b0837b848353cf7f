//! The framing of a chunked body (RFC 9112, section 7.1), without any of the freedoms that parsers use differently.

use http::HeaderName;

use super::head::{field, is_value};
use crate::edge::judge::{Fault, is_forbidden_trailer};

/// The most digits of a chunk's size.
const MAX_DIGITS: usize = 16;
/// The most bytes of all extensions of a body, which hardly any program sends.
const MAX_EXTENSIONS: usize = 4 * 1024;
/// The most bytes of trailers that the HTTP library takes.
const MAX_TRAILERS: usize = 16 * 1024;
/// The most trailers that it takes.
const MAX_TRAILER_FIELDS: usize = 100;

/// Follows a chunked body to its end.
#[derive(Debug)]
pub(super) struct Chunks {
    state: State,
    /// Bytes of extensions so far.
    extensions: usize,
    /// Bytes of trailers so far, and the line that has not ended.
    trailers: usize,
    fields: usize,
    line: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size { size: u64, digits: usize },
    Extension { size: u64 },
    SizeEnd { size: u64 },
    Data { left: u64 },
    DataReturn,
    DataEnd,
    Trailers,
    Done,
}

impl Chunks {
    /// Before the first chunk.
    pub(super) fn new() -> Self {
        let state = State::Size { size: 0, digits: 0 };
        Self { state, extensions: 0, trailers: 0, fields: 0, line: Vec::new() }
    }

    /// Follows `bytes` up to the body's end. Returns how many of them are of the body, and the fault behind these.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> (usize, Option<Fault>) {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            match self.state {
                State::Done => break,
                State::Data { left } => {
                    let there = (bytes.len() - at) as u64;
                    let taken = there.min(left);
                    at += taken as usize;
                    self.state = if taken == left { State::DataReturn } else { State::Data { left: left - taken } };
                }
                state => {
                    match self.step(state, *byte) {
                        Ok(state) => self.state = state,
                        Err(fault) => return (at, Some(fault)),
                    }
                    at += 1;
                }
            }
        }
        (at, None)
    }

    /// Whether the body has ended.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    fn step(&mut self, state: State, byte: u8) -> Result<State, Fault> {
        match (state, byte) {
            (State::Size { digits: 1.., size } | State::Extension { size }, b'\r') => Ok(State::SizeEnd { size }),
            (State::Size { digits: 1.., size }, b';') => Ok(State::Extension { size }),
            (State::Size { digits, size }, _) => {
                let digit = char::from(byte).to_digit(16).ok_or(Fault::Chunk)?;
                if digits == MAX_DIGITS || size >> 59 != 0 {
                    return Err(Fault::Chunk);
                }
                Ok(State::Size { size: size << 4 | u64::from(digit), digits: digits + 1 })
            }
            (State::Extension { .. }, _) => {
                self.extensions += 1;
                if !is_value(byte) || self.extensions > MAX_EXTENSIONS {
                    return Err(Fault::Chunk);
                }
                Ok(state)
            }
            (State::SizeEnd { size: 0 }, b'\n') => Ok(State::Trailers),
            (State::SizeEnd { size }, b'\n') => Ok(State::Data { left: size }),
            (State::DataReturn, b'\r') => Ok(State::DataEnd),
            (State::DataEnd, b'\n') => Ok(State::Size { size: 0, digits: 0 }),
            (State::Trailers, _) => self.trailer(byte),
            _ => Err(Fault::Chunk),
        }
    }

    fn trailer(&mut self, byte: u8) -> Result<State, Fault> {
        self.trailers += 1;
        if self.trailers > MAX_TRAILERS {
            return Err(Fault::TooLarge);
        }
        if byte != b'\n' {
            self.line.push(byte);
            return Ok(State::Trailers);
        }
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r").ok_or(Fault::BareLineFeed)?;
        if line.is_empty() {
            return Ok(State::Done);
        }
        self.fields += 1;
        if self.fields > MAX_TRAILER_FIELDS {
            return Err(Fault::TooLarge);
        }
        let (name, _) = field(line)?;
        let name = HeaderName::from_bytes(name).map_err(|_| Fault::FieldName)?;
        if is_forbidden_trailer(&name) { Err(Fault::Trailer) } else { Ok(State::Trailers) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Follows a body whole, and byte by byte: the same comes out.
    fn follow(body: &[u8]) -> (usize, bool, Option<Fault>) {
        let mut whole = Chunks::new();
        let (length, fault) = whole.follow(body);
        let mut single = Chunks::new();
        let (mut followed, mut single_fault) = (0, None);
        for byte in body {
            let (taken, fault) = single.follow(std::slice::from_ref(byte));
            followed += taken;
            single_fault = fault;
            if taken == 0 {
                break;
            }
        }
        assert_eq!((followed, single_fault, single.is_done()), (length, fault, whole.is_done()));
        (length, whole.is_done(), fault)
    }

    #[test]
    fn a_body_ends_where_it_ends() {
        for body in [
            &b"0\r\n\r\n"[..],
            b"5\r\nhello\r\n0\r\n\r\n",
            b"0005\r\nhello\r\n000\r\n\r\n",
            b"a;x=y\r\n0123456789\r\n0;last\r\n\r\n",
            b"1\r\na\r\nA\r\n0123456789\r\n0\r\nx-sum: 1\r\nx-other:\r\n\r\n",
        ] {
            assert_eq!(follow(body), (body.len(), true, None), "{}", body.escape_ascii());
            let longer = [body, b"GET / HTTP/1.1\r\n\r\n"].concat();
            assert_eq!(follow(&longer), (body.len(), true, None), "{}", longer.escape_ascii());
            assert_eq!(follow(&body[..body.len() - 1]), (body.len() - 1, false, None));
        }
    }

    #[test]
    fn broken_framing_is_found_where_it_is() {
        for (good, bad, fault) in [
            (&b""[..], &b"\r\n"[..], Fault::Chunk),
            (b"", b";x\r\n", Fault::Chunk),
            (b"", b" 5\r\nhello", Fault::Chunk),
            (b"", b"+5\r\nhello", Fault::Chunk),
            (b"", b"-5\r\nhello", Fault::Chunk),
            (b"", b"x\r\n", Fault::Chunk),
            (b"0", b"x5\r\nhello", Fault::Chunk),
            (b"5", b" \r\nhello", Fault::Chunk),
            (b"5", b"\t;x\r\nhello", Fault::Chunk),
            (b"5", b"_\r\nhello", Fault::Chunk),
            (b"5", b"\nhello", Fault::Chunk),
            (b"5\r", b"hello", Fault::Chunk),
            (b"5;x", b"\nhello", Fault::Chunk),
            (b"5;x", b"\0\r\nhello", Fault::Chunk),
            (b"5\r\nhello", b"\n0\r\n\r\n", Fault::Chunk),
            (b"5\r\nhello", b"!\r\n0\r\n\r\n", Fault::Chunk),
            (b"5\r\nhello\r", b"0\r\n\r\n", Fault::Chunk),
            (b"0000000000000000", b"5\r\nhello", Fault::Chunk),
            (b"1000000000000000", b"0\r\n", Fault::Chunk),
            (b"0\r\n", b"\n", Fault::BareLineFeed),
            (b"0\r\nx: 1", b"\n\r\n", Fault::BareLineFeed),
            (b"0\r\nx : 1\r", b"\n\r\n", Fault::SpaceBeforeColon),
            (b"0\r\n:path: /\r", b"\n\r\n", Fault::FieldName),
            (b"0\r\n folded\r", b"\n\r\n", Fault::Folding),
            (b"0\r\nContent-Length: 5\r", b"\n\r\n", Fault::Trailer),
            (b"0\r\ntransfer-encoding: chunked\r", b"\n\r\n", Fault::Trailer),
            (b"0\r\nhost: other\r", b"\n\r\n", Fault::Trailer),
        ] {
            let body = [good, bad].concat();
            assert_eq!(follow(&body), (good.len(), false, Some(fault)), "{}", body.escape_ascii());
        }
    }
}
