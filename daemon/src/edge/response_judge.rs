//! The judge of responses: what a client may send to a visitor, over any version of HTTP. A client is not trusted to frame a
//! message. Its body ends where the tunnel says, and the length in its head must agree.
//!
//! A violation before the final head has gone out is a 502. After it, the transfer breaks off and never looks whole.

use std::fmt;

use bytes::Bytes;
use cok_http::hop_by_hop::{retain, strip_response};
use cok_proto::ResponseHead;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HOST, SET_COOKIE, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, Method, StatusCode};

/// A rule that a response breaks, in words for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Violation(&'static str);

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// What follows a final head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    /// Nothing: the method, the status or the length says so.
    None,
    /// This many bytes.
    Sized(u64),
    /// A body up to its end, or raw bytes after a 101.
    Open,
}

/// Judges a final head, and leaves the fields that a visitor may get. `upgrade` says whether the request asked for one.
pub(super) fn judge_final(head: &mut ResponseHead, method: &Method, upgrade: bool) -> Result<Content, Violation> {
    let status = head.status;
    if status == StatusCode::SWITCHING_PROTOCOLS && !upgrade {
        return Err(Violation("a 101 that the request did not ask for"));
    }
    if head.headers.contains_key(TRANSFER_ENCODING) && status != StatusCode::SWITCHING_PROTOCOLS {
        return Err(Violation("a transfer coding, which a tunnel does not have"));
    }
    let announced = length(&head.headers)?;
    let length = announced.map(|announced| announced.length);
    strip_response(status, &mut head.headers);
    if status.is_informational() || status == StatusCode::NO_CONTENT {
        // RFC 9110, section 8.6.
        retain(&mut head.headers, |name| *name != CONTENT_LENGTH);
    } else if let Some(announced) = announced.filter(|announced| !announced.is_usual) {
        head.headers.insert(CONTENT_LENGTH, announced.length.into());
    }
    let bodiless = *method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    Ok(match length {
        _ if status == StatusCode::SWITCHING_PROTOCOLS => Content::Open,
        _ if bodiless => Content::None,
        Some(0) => Content::None,
        Some(length) => Content::Sized(length),
        None => Content::Open,
    })
}

/// Leaves of an interim head what a visitor may get. It has no body, so nothing in it frames one.
pub(super) fn judge_interim(head: &mut ResponseHead) {
    strip_response(head.status, &mut head.headers);
    retain(&mut head.headers, |name| *name != CONTENT_LENGTH);
}

/// Leaves of trailers what may stand there. Fields of framing, routing, authentication and content do not
/// (RFC 9110, section 6.5.1). They are dropped, since a recipient may ignore any trailer; the response stands without them.
pub(super) fn judge_trailers(trailers: &mut HeaderMap) {
    const NEVER: [HeaderName; 12] = [
        AUTHORIZATION,
        CONNECTION,
        CONTENT_ENCODING,
        CONTENT_LENGTH,
        CONTENT_RANGE,
        CONTENT_TYPE,
        HOST,
        SET_COOKIE,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
    ];
    retain(trailers, |name| !(NEVER.contains(name) || matches!(name.as_str(), "keep-alive" | "proxy-connection")));
}

/// The length that a head announces.
#[derive(Clone, Copy, Debug)]
struct Announced {
    length: u64,
    /// The head has one such field, and it is a bare number.
    is_usual: bool,
}

/// The one length that a head announces. Equal lengths count once (RFC 9110, section 8.6).
fn length(headers: &HeaderMap) -> Result<Option<Announced>, Violation> {
    let mut announced: Option<Announced> = None;
    for value in headers.get_all(CONTENT_LENGTH) {
        for element in value.as_bytes().split(|byte| *byte == b',') {
            let digits = element.trim_ascii();
            let length = number(digits).ok_or(Violation("a content-length that is no number"))?;
            if announced.is_some_and(|announced| announced.length != length) {
                return Err(Violation("content-lengths that differ"));
            }
            let is_usual = announced.is_none() && digits.len() == value.len();
            announced = Some(Announced { length, is_usual });
        }
    }
    Ok(announced)
}

/// A number in digits alone; a sign is no digit.
fn number(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok().filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))?;
    digits.parse().ok()
}

/// Counts a body against its length. While the end is not certain, it holds the last byte back: with all of its bytes, a
/// body looks whole.
#[derive(Debug)]
pub(super) struct Counter {
    /// The bytes still to come; `None` for a body of any length.
    left: Option<u64>,
    /// The last byte.
    held: Bytes,
}

impl Counter {
    /// For a body that the judge expects.
    pub(super) fn new(content: Content) -> Self {
        let left = match content {
            Content::None => Some(0),
            Content::Sized(length) => Some(length),
            Content::Open => None,
        };
        Self { left, held: Bytes::new() }
    }

    /// How many bytes have not been passed on, if that is known.
    pub(super) fn left(&self) -> Option<u64> {
        self.left.map(|left| left + self.held.len() as u64)
    }

    /// Takes bytes, and returns what may be passed on.
    pub(super) fn take(&mut self, mut data: Bytes, end: bool) -> Result<Bytes, Violation> {
        let Some(left) = &mut self.left else { return Ok(data) };
        *left = left.checked_sub(data.len() as u64).ok_or(Violation("more body than its content-length"))?;
        if *left == 0 && !end && !data.is_empty() {
            self.held = data.split_off(data.len() - 1);
        }
        Ok(data)
    }

    /// Ends the body, and returns what was held back.
    pub(super) fn end(&mut self) -> Result<Bytes, Violation> {
        match self.left {
            None | Some(0) => Ok(std::mem::take(&mut self.held)),
            Some(_) => Err(Violation("less body than its content-length")),
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn head(status: u16, fields: &[(&'static str, &'static str)]) -> ResponseHead {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_static(value));
        }
        ResponseHead::new(StatusCode::from_u16(status).unwrap(), headers)
    }

    fn judged(status: u16, lengths: &[&'static str]) -> Result<(Content, Vec<String>), Violation> {
        let fields: Vec<_> = lengths.iter().map(|length| ("content-length", *length)).collect();
        let mut head = head(status, &fields);
        let content = judge_final(&mut head, &Method::GET, false)?;
        let lengths = head.headers.get_all(CONTENT_LENGTH).iter();
        Ok((content, lengths.map(|value| value.to_str().unwrap().to_owned()).collect()))
    }

    #[test]
    fn equal_lengths_become_one() {
        for lengths in [&["5"][..], &["5", "5"], &["5, 5"], &["5,5", "5"], &["05"], &[" 5"]] {
            let (content, left) = judged(200, lengths).unwrap();
            assert_eq!((content, left.len()), (Content::Sized(5), 1), "{lengths:?}");
            assert_eq!(left[0].parse::<u64>(), Ok(5), "{lengths:?}");
        }
        assert_eq!(judged(200, &[]), Ok((Content::Open, vec![])));
        assert_eq!(judged(200, &["0"]), Ok((Content::None, vec!["0".to_owned()])));
    }

    #[test]
    fn other_lengths_are_violations() {
        for lengths in [
            &["5", "6"][..],
            &["5, 6"],
            &["+5"],
            &["-5"],
            &["0x5"],
            &[""],
            &["5,"],
            &["5 5"],
            &["18446744073709551616"],
        ] {
            judged(200, lengths).unwrap_err();
            judged(304, lengths).unwrap_err();
        }
    }

    #[test]
    fn some_responses_have_no_body() {
        assert_eq!(judged(204, &["5"]), Ok((Content::None, vec![])));
        assert_eq!(judged(304, &["5"]), Ok((Content::None, vec!["5".to_owned()])));
        let mut to_head = head(200, &[("content-length", "5")]);
        assert_eq!(judge_final(&mut to_head, &Method::HEAD, false), Ok(Content::None));
        assert_eq!(to_head.headers[CONTENT_LENGTH], "5");
    }

    #[test]
    fn statuses_count_where_they_are_allowed() {
        for status in [200, 299, 600, 999] {
            assert_eq!(judge_final(&mut head(status, &[]), &Method::GET, false), Ok(Content::Open), "{status}");
        }
        judge_final(&mut head(101, &[("upgrade", "x")]), &Method::GET, false).unwrap_err();
        let mut switch = head(101, &[("upgrade", "x"), ("content-length", "5"), ("transfer-encoding", "chunked")]);
        assert_eq!(judge_final(&mut switch, &Method::GET, true), Ok(Content::Open));
        assert_eq!(switch.headers.keys().collect::<Vec<_>>(), [UPGRADE]);
    }

    #[test]
    fn a_client_frames_nothing_by_itself() {
        judge_final(&mut head(200, &[("transfer-encoding", "gzip, chunked")]), &Method::GET, false).unwrap_err();
        let mut interim = head(103, &[("link", "</a>"), ("content-length", "5"), ("transfer-encoding", "chunked")]);
        judge_interim(&mut interim);
        assert_eq!(interim.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["link"]);
        let mut trailers =
            head(200, &[("x-sum", "1"), ("content-length", "5"), ("host", "x"), ("connection", "x"), ("etag", "2")]);
        judge_trailers(&mut trailers.headers);
        assert_eq!(trailers.headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["x-sum", "etag"]);
    }

    #[test]
    fn the_last_byte_waits_for_the_end() {
        let bytes = Bytes::from_static;
        let mut counter = Counter::new(Content::Sized(5));
        assert_eq!(counter.take(bytes(b"ab"), false).unwrap(), "ab");
        assert_eq!(counter.end(), Err(Violation("less body than its content-length")));
        assert_eq!(counter.take(bytes(b"cde"), false).unwrap(), "cd");
        assert_eq!((counter.left(), counter.take(Bytes::new(), false).unwrap().len()), (Some(1), 0));
        assert_eq!(counter.end(), Ok(bytes(b"e")));
        counter.take(bytes(b"f"), true).unwrap_err();
        let mut counter = Counter::new(Content::Sized(2));
        assert_eq!(counter.take(bytes(b"ab"), true).unwrap(), "ab");
        let mut counter = Counter::new(Content::Open);
        assert_eq!((counter.take(bytes(b"ab"), false).unwrap(), counter.left()), (bytes(b"ab"), None));
        assert_eq!(counter.end(), Ok(Bytes::new()));
    }
}
