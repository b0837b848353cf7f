//! What h3 lets through in a request's fields.
//!
//! Pseudo-header fields lose their order and their number when h3 decodes them. So the encoded field section is walked
//! first, without decoding values (RFC 9204, section 4.5). We grant no dynamic table, so it can refer only to the static one
//! and to literals. The other rules are applied to the decoded head.

use h3::error::Code;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderMap, HeaderName, TE, TRANSFER_ENCODING, UPGRADE};
use http::{Method, Request};

use super::violation::Violation;
use crate::edge::judge;

/// Entries of the static table (RFC 9204, appendix A).
const STATIC_ENTRIES: u64 = 99;
/// The most bytes of an integer behind its prefix: enough for 63 bits, of which no length here uses more than 17.
const MAX_INTEGER: usize = 9;

/// Which part of a request a field section is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Section {
    /// Its head.
    Head,
    /// Its trailers.
    Trailers,
}

/// A field's name, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Method,
    Scheme,
    Authority,
    Path,
    /// One that no request has, `:status` and `:protocol` among them: extended CONNECT is not on offer.
    OtherPseudo,
    Regular,
}

/// The four pseudo-header fields of a request, plain and in the Huffman code (RFC 7541, appendix B). The code is
/// canonical, so that equal names have equal encodings.
const PSEUDO: [(Name, &[u8], &[u8]); 4] = [
    (Name::Method, b":method", b"\xb9\x49\x53\x39\xe4"),
    (Name::Scheme, b":scheme", b"\xb8\x82\x4e\x5a\x4b"),
    (Name::Authority, b":authority", b"\xb8\x3b\x53\x39\xec\x32\x7d\x7f"),
    (Name::Path, b":path", b"\xb9\x58\xd3\x3f"),
];
/// `:` in the Huffman code; it has seven bits.
const HUFFMAN_COLON: u8 = 0b101_1100;

/// Judges an encoded field section: its representations, and the pseudo-header fields' names, number and place
/// (RFC 9114, section 4.3).
pub(super) fn check_section(section: &[u8], kind: Section) -> Result<(), Violation> {
    let mut rest = Rest(section);
    if rest.integer(8)? != 0 {
        return Err(undecodable("a reference to a dynamic table, of which none was granted"));
    }
    let negative_base = rest.peek()? & 0x80 != 0;
    rest.integer(7)?;
    if negative_base {
        return Err(undecodable("a negative base"));
    }
    let mut seen = [false; PSEUDO.len()];
    let mut regular = false;
    while !rest.0.is_empty() {
        let (name, empty) = rest.field_line()?;
        let position = match name {
            Name::Regular => {
                regular = true;
                continue;
            }
            Name::OtherPseudo => return Err(Violation::malformed("a pseudo-header field that no request has")),
            _ if kind == Section::Trailers => {
                return Err(Violation::malformed("a pseudo-header field in trailers"));
            }
            _ if regular => return Err(Violation::malformed("a pseudo-header field behind others")),
            Name::Method => 0,
            Name::Scheme => 1,
            Name::Authority => 2,
            Name::Path => 3,
        };
        if std::mem::replace(&mut seen[position], true) {
            return Err(Violation::malformed("a pseudo-header field twice"));
        }
        if empty {
            return Err(Violation::malformed("an empty pseudo-header field"));
        }
    }
    Ok(())
}

const fn undecodable(reason: &'static str) -> Violation {
    Violation::connection(Code::QPACK_DECOMPRESSION_FAILED, reason)
}

const CUT_SHORT: Violation = undecodable("a field section that is cut short");

/// What is left of a field section.
struct Rest<'a>(&'a [u8]);

impl<'a> Rest<'a> {
    fn peek(&self) -> Result<u8, Violation> {
        self.0.first().copied().ok_or(CUT_SHORT)
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Violation> {
        let length = usize::try_from(length).map_err(|_| CUT_SHORT)?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(CUT_SHORT)?;
        self.0 = rest;
        Ok(taken)
    }

    /// An integer whose prefix are the lowest `bits` of the first byte (RFC 7541, section 5.1).
    fn integer(&mut self, bits: u32) -> Result<u64, Violation> {
        let mask = u64::from(u8::MAX >> (8 - bits));
        let first = u64::from(self.take(1)?[0]) & mask;
        if first < mask {
            return Ok(first);
        }
        let mut value = first;
        for index in 0..MAX_INTEGER {
            let byte = u64::from(self.take(1)?[0]);
            value = value.saturating_add((byte & 0x7f) << (7 * index));
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(undecodable("an integer that is too long"))
    }

    /// One field line: its name, and whether its value is empty.
    fn field_line(&mut self) -> Result<(Name, bool), Violation> {
        let first = self.peek()?;
        // The bits that say which representation it is, and whether it means the static table.
        if first & 0b1100_0000 == 0b1100_0000 {
            let index = self.integer(6)?;
            return Ok((static_name(index)?, index == 0));
        }
        let name = if first & 0b1101_0000 == 0b0101_0000 {
            static_name(self.integer(4)?)?
        } else if first & 0b1110_0000 == 0b0010_0000 {
            let length = self.integer(3)?;
            literal_name(self.take(length)?, first & 0b0000_1000 != 0)
        } else {
            return Err(undecodable("a reference to a dynamic table, of which none was granted"));
        };
        let huffman = self.peek()? & 0x80 != 0;
        let length = self.integer(7)?;
        let value = self.take(length)?;
        // h3 takes padding of any length, so that nothing can be written in some bytes.
        let empty = value.is_empty() || (huffman && value.iter().all(|byte| *byte == 0xff));
        Ok((name, empty))
    }
}

/// RFC 9204, appendix A.
fn static_name(index: u64) -> Result<Name, Violation> {
    Ok(match index {
        0 => Name::Authority,
        1 => Name::Path,
        15..=21 => Name::Method,
        22..=23 => Name::Scheme,
        24..=28 | 63..=71 => Name::OtherPseudo,
        STATIC_ENTRIES.. => return Err(undecodable("an index behind the static table")),
        _ => Name::Regular,
    })
}

fn literal_name(name: &[u8], huffman: bool) -> Name {
    let pseudo = match name.first() {
        Some(first) if huffman => first >> 1 == HUFFMAN_COLON,
        Some(first) => *first == b':',
        None => false,
    };
    if !pseudo {
        return Name::Regular;
    }
    let known = PSEUDO.iter().find(|(_, plain, encoded)| name == if huffman { *encoded } else { *plain });
    known.map_or(Name::OtherPseudo, |(name, ..)| *name)
}

/// Judges a decoded head; the length that it promises, if any.
pub(super) fn check_head(request: &Request<()>) -> Result<Option<u64>, Violation> {
    check_connection_fields(request.headers())?;
    let uri = request.uri();
    if *request.method() == Method::CONNECT {
        // RFC 9114, section 4.4.
        if uri.scheme().is_some() || uri.path_and_query().is_some() {
            return Err(Violation::malformed("CONNECT with :scheme or :path"));
        }
    } else {
        let Some(path) = uri.path_and_query().filter(|_| uri.scheme().is_some()) else {
            return Err(Violation::malformed("no :scheme or no :path"));
        };
        let asterisk = path.as_str() == "*" && *request.method() == Method::OPTIONS;
        if !path.as_str().starts_with('/') && !asterisk {
            return Err(Violation::malformed("a :path that is none"));
        }
    }
    content_length(request.headers())
}

/// Judges decoded trailers.
pub(super) fn check_trailers(trailers: &HeaderMap) -> Result<(), Violation> {
    check_connection_fields(trailers)?;
    judge::check_trailers(trailers).map_err(|_| Violation::malformed("a trailer that frames or routes the request"))
}

/// Fields of one connection, which HTTP/3 does not have (RFC 9114, section 4.2).
fn check_connection_fields(headers: &HeaderMap) -> Result<(), Violation> {
    const OTHERS: [HeaderName; 2] =
        [HeaderName::from_static("keep-alive"), HeaderName::from_static("proxy-connection")];
    if [CONNECTION, TRANSFER_ENCODING, UPGRADE].iter().chain(&OTHERS).any(|name| headers.contains_key(name)) {
        return Err(Violation::malformed("a field that is for a connection only"));
    }
    if headers.get_all(TE).iter().any(|te| !te.as_bytes().eq_ignore_ascii_case(b"trailers")) {
        return Err(Violation::malformed("TE with anything but trailers"));
    }
    Ok(())
}

/// What a head promises of its body (RFC 9110, section 8.6); several equal values are one.
fn content_length(headers: &HeaderMap) -> Result<Option<u64>, Violation> {
    let mut length = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
        let Some(number) = digits.and_then(|digits| digits.parse::<u64>().ok()) else {
            return Err(Violation::malformed("a content-length that is no number"));
        };
        if length.is_some_and(|length| length != number) {
            return Err(Violation::malformed("content-lengths that differ"));
        }
        length = Some(number);
    }
    Ok(length)
}

#[cfg(test)]
mod tests;
