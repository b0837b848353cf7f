//! The head of a request, byte for byte: its end, its rules and its framing.

use std::ops::Range;

use bytes::Bytes;
use http::Uri;
use memchr::memchr;

use crate::edge::judge::{Fault, content_length};

/// The most fields that the HTTP library takes.
const MAX_FIELDS: usize = 100;

/// How a body is framed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes. Zero without a body.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// What the layer needs to know of a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) framing: Framing,
    /// It asks to leave HTTP, so that what follows it may be something else.
    pub(super) upgrade: bool,
    /// The target that the library gets instead of the one in this range, if it would refuse or change that one.
    pub(super) replaced: Option<Replaced>,
}

/// A target that travels outside of the HTTP library.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Replaced {
    /// Where the target stands in the head.
    pub(super) range: Range<usize>,
    /// What the library gets in its place.
    pub(super) stand_in: Vec<u8>,
    /// The target in origin form, or `*`.
    pub(super) target: Bytes,
}

/// Where a head ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Behind so many bytes.
    At(usize),
    /// It has not come. The next search begins here.
    Beyond(usize),
}

/// Looks for the empty line that ends a head. `from` is where the last search stopped.
pub(super) fn find_end(bytes: &[u8], from: usize) -> Result<End, Fault> {
    let mut at = from;
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr(b'\n', rest)) {
        let feed = at + found;
        at = feed + 1;
        let line = &bytes[..feed];
        let Some(line) = line.strip_suffix(b"\r") else { return Err(Fault::BareLineFeed) };
        if line.ends_with(b"\n") {
            return Ok(End::At(at));
        }
    }
    Ok(End::Beyond(bytes.len()))
}

/// Judges a complete head, which ends with an empty line.
pub(super) fn judge(head: &[u8]) -> Result<Head, Fault> {
    let mut lines = Lines { head, at: 0 };
    let line = lines.next().ok_or(Fault::RequestLine)?;
    let RequestLine { method, target, http11 } = request_line(line)?;
    let (mut length, mut coding, mut upgrade) = (None, None, false);
    let mut fields = 0;
    for line in lines {
        if line.is_empty() {
            break;
        }
        fields += 1;
        if fields > MAX_FIELDS {
            return Err(Fault::TooLarge);
        }
        let (name, value) = field(line)?;
        // The lengths of the names keep comparisons few.
        match name.len() {
            14 if name.eq_ignore_ascii_case(b"content-length") => {
                let another = length.replace(content_length(value)?);
                another.map_or(Ok(()), |_| Err(Fault::Length))?;
            }
            17 if name.eq_ignore_ascii_case(b"transfer-encoding") => {
                let another = coding.replace(value);
                another.map_or(Ok(()), |_| Err(Fault::Coding))?;
            }
            7 if name.eq_ignore_ascii_case(b"upgrade") => upgrade = http11,
            _ => {}
        }
    }
    let framing = match (length, coding) {
        (Some(_), Some(_)) => return Err(Fault::LengthAndCoding),
        (None, Some(coding)) if http11 && coding.eq_ignore_ascii_case(b"chunked") => Framing::Chunked,
        (None, Some(_)) => return Err(Fault::Coding),
        (length, None) => Framing::Length(length.unwrap_or(0)),
    };
    let replaced = check_target(method, &head[target.clone()])?;
    let replaced = replaced.map(|(stand_in, bytes)| Replaced { range: target, stand_in, target: bytes });
    Ok(Head { framing, upgrade, replaced })
}

/// The lines of a head without their line breaks.
struct Lines<'a> {
    head: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.head.get(self.at..).filter(|rest| !rest.is_empty())?;
        let end = memchr(b'\n', rest).unwrap_or(rest.len());
        self.at += end + 1;
        let line = &rest[..end];
        Some(line.strip_suffix(b"\r").unwrap_or(line))
    }
}

struct RequestLine<'a> {
    method: &'a [u8],
    /// Where the target stands in the line, and so in the head.
    target: Range<usize>,
    http11: bool,
}

fn request_line(line: &[u8]) -> Result<RequestLine<'_>, Fault> {
    let space = |from: usize| line[from..].iter().position(|byte| *byte == b' ').map(|at| from + at);
    let first = space(0).ok_or(Fault::RequestLine)?;
    let second = space(first + 1).ok_or(Fault::RequestLine)?;
    let (method, target, version) = (&line[..first], &line[first + 1..second], &line[second + 1..]);
    if method.is_empty() || !method.iter().copied().all(is_token) || target.is_empty() {
        return Err(Fault::RequestLine);
    }
    if !target.iter().all(|byte| *byte > b' ' && *byte != 0x7f) {
        return Err(Fault::RequestLine);
    }
    let http11 = match version {
        b"HTTP/1.1" => true,
        b"HTTP/1.0" => false,
        _ if version.starts_with(b"HTTP/") => return Err(Fault::Version),
        _ => return Err(Fault::RequestLine),
    };
    if method == b"CONNECT" {
        // What follows may be meant for a tunnel.
        return Err(Fault::Connect);
    }
    Ok(RequestLine { method, target: first + 1..second, http11 })
}

/// A field line's name, and its value without the white space around it.
pub(super) fn field(line: &[u8]) -> Result<(&[u8], &[u8]), Fault> {
    if line.first().is_some_and(|first| matches!(first, b' ' | b'\t')) {
        return Err(Fault::Folding);
    }
    let colon = line.iter().position(|byte| !is_token(*byte)).ok_or(Fault::FieldName)?;
    let (name, rest) = line.split_at(colon);
    match rest.first() {
        Some(b':') if !name.is_empty() => {}
        Some(b' ' | b'\t') => return Err(Fault::SpaceBeforeColon),
        _ => return Err(Fault::FieldName),
    }
    let value = &rest[1..];
    // Without a way out of the loop, the compiler looks at many bytes at once.
    if !value.iter().fold(true, |valid, byte| valid & is_value(*byte)) {
        return Err(Fault::FieldValue);
    }
    Ok((name, value.trim_ascii()))
}

/// What the library gets for a target, and what the service gets. `None` if both get the target itself.
fn check_target(method: &[u8], target: &[u8]) -> Result<Option<(Vec<u8>, Bytes)>, Fault> {
    if target.contains(&b'#') {
        return Err(Fault::Fragment);
    }
    match target {
        b"*" if method == b"OPTIONS" => Ok(None),
        [b'/', ..] if target.iter().copied().all(is_plain) => Ok(None),
        [b'/', ..] => Ok(Some((b"/".to_vec(), Bytes::copy_from_slice(target)))),
        _ => absolute_target(method, target).map(Some),
    }
}

/// A target in absolute form (RFC 9112, section 3.2.2).
fn absolute_target(method: &[u8], target: &[u8]) -> Result<(Vec<u8>, Bytes), Fault> {
    let scheme = target.iter().position(|byte| *byte == b':').ok_or(Fault::Target)?;
    let is_scheme = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    let behind = target[scheme..].strip_prefix(b"://");
    let (Some(behind), true) = (behind, target[..scheme].iter().all(is_scheme)) else { return Err(Fault::Target) };
    if !target[..scheme].eq_ignore_ascii_case(b"https") {
        return Err(Fault::Scheme);
    }
    let path = behind.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(behind.len());
    let (authority, path) = behind.split_at(path);
    let origin = match path {
        [] if method == b"OPTIONS" => Bytes::from_static(b"*"),
        [] => Bytes::from_static(b"/"),
        [b'?', ..] => [b"/", path].concat().into(),
        _ => Bytes::copy_from_slice(path),
    };
    let stand_in = [b"https://", authority, b"/"].concat();
    // The library must find an authority in it; the judge of all versions looks at its parts.
    Uri::try_from(&stand_in[..]).map_err(|_| Fault::Authority)?;
    Ok((stand_in, origin))
}

/// The head that the library gets in place of a faulty one. Its connection ends with the response.
pub(super) fn stand_in(faulty: &[u8]) -> Bytes {
    let method = if faulty.starts_with(b"HEAD ") { "HEAD" } else { "GET" };
    let mut head = format!("{method} / HTTP/1.1\r\nhost: invalid\r\nconnection: close\r\n").into_bytes();
    // The page comes in a form that the visitor accepts.
    let accept = faulty.split(|byte| *byte == b'\n').filter_map(|line| {
        let (name, value) = field(line.strip_suffix(b"\r")?).ok()?;
        name.eq_ignore_ascii_case(b"accept").then_some(value)
    });
    if let Some(accept) = accept.into_iter().next() {
        head.extend_from_slice(&[b"accept: ", accept, b"\r\n"].concat());
    }
    head.extend_from_slice(b"\r\n");
    head.into()
}

/// RFC 9110, section 5.6.2.
fn is_token(byte: u8) -> bool {
    TOKEN[usize::from(byte)]
}

/// RFC 9110, section 5.5.
pub(super) fn is_value(byte: u8) -> bool {
    (byte == b'\t') | ((byte >= b' ') & (byte != 0x7f))
}

/// Bytes of a target that URIs have (RFC 3986), which no library refuses or changes.
fn is_plain(byte: u8) -> bool {
    PLAIN[usize::from(byte)]
}

const TOKEN: [bool; 256] = table(b"!#$%&'*+-.^_`|~");
const PLAIN: [bool; 256] = table(b"-._~:/?[]@!$&'()*+,;=%");

/// The letters, the digits and `others`.
const fn table(others: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = (byte as u8).is_ascii_alphanumeric();
        byte += 1;
    }
    let mut index = 0;
    while index < others.len() {
        table[others[index] as usize] = true;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests;
