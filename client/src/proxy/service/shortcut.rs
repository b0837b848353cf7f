//! The heads of the most common exchange, without the HTTP library: a request without a body, and a short response that
//! arrives at once. The library's channel, callback and body cost more than such an exchange itself.
//!
//! It decides nothing that needs judgement. Any other request and any other response is the library's.

use std::mem::MaybeUninit;

use bytes::{Buf as _, Bytes};
use http::header::{CONNECTION, CONTENT_LENGTH, EXPECT, HeaderMap, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version, response};

/// The most bytes that are read of a response before it is the library's.
pub(super) const MOST: usize = 4096;
/// The most fields of such a response.
const MOST_FIELDS: usize = 64;

/// A response that has arrived whole.
#[derive(Debug)]
pub(crate) struct Whole {
    /// Its head, without Connection. Its one Content-Length is the body's.
    pub(crate) parts: response::Parts,
    /// Its body.
    pub(crate) body: Bytes,
}

/// Writes the head of a request without a body, as the library writes it to a service of HTTP/1.1. Returns whether it is a common one; otherwise
/// nothing is written.
pub(super) fn put_head<B>(message: &Request<B>, head: &mut Vec<u8>) -> bool {
    let fields = message.headers();
    let needs_library = |name| matches!(name, &CONNECTION | &CONTENT_LENGTH | &EXPECT | &TRANSFER_ENCODING | &UPGRADE);
    if *message.method() != Method::GET || fields.keys().any(needs_library) {
        return false;
    }
    let target = message.uri().path_and_query().filter(|target| target.as_str().starts_with('/'));
    let Some(target) = target else { return false };
    for part in ["GET ", target.as_str(), " HTTP/1.1\r\n"] {
        head.extend_from_slice(part.as_bytes());
    }
    for (name, value) in fields {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            head.extend_from_slice(part);
        }
    }
    head.extend_from_slice(b"\r\n");
    true
}

/// The response to such a request, if these bytes are a whole one that leaves no question open. It is final and HTTP/1.1, and
/// behind its head stand exactly as many bytes as its one Content-Length says. `None` for anything else, right or wrong.
pub(super) fn whole(bytes: &Bytes) -> Option<Whole> {
    let mut fields = [const { MaybeUninit::uninit() }; MOST_FIELDS];
    let mut read = httparse::Response::new(&mut []);
    let parsed =
        httparse::ParserConfig::default().parse_response_with_uninit_headers(&mut read, bytes, &mut fields).ok()?;
    let httparse::Status::Complete(head) = parsed else { return None };
    let status = StatusCode::from_u16(read.code?).ok()?;
    let is_usual = status.canonical_reason() == read.reason && read.version == Some(1);
    if !is_usual || status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        return None;
    }
    let mut headers = HeaderMap::with_capacity(read.headers.len());
    let mut length = None;
    for field in read.headers {
        let name = HeaderName::from_bytes(field.name.as_bytes()).ok()?;
        match name {
            CONTENT_LENGTH if length.is_some() => return None,
            CONTENT_LENGTH => length = Some(plain_number(field.value)?),
            // It concerns this connection alone, and says nothing new.
            CONNECTION if field.value.eq_ignore_ascii_case(b"keep-alive") => continue,
            CONNECTION | TRANSFER_ENCODING | UPGRADE => return None,
            _ => {}
        }
        headers.append(name, HeaderValue::from_maybe_shared(bytes.slice_ref(field.value)).ok()?);
    }
    let mut body = bytes.clone();
    body.advance(head);
    if length != Some(body.len()) {
        return None;
    }
    let (mut parts, ()) = Response::new(()).into_parts();
    (parts.status, parts.version, parts.headers) = (status, Version::HTTP_11, headers);
    Some(Whole { parts, body })
}

/// A number in its fewest digits.
fn plain_number(digits: &[u8]) -> Option<usize> {
    let is_plain = digits.iter().all(u8::is_ascii_digit) && (digits.len() == 1 || digits.first() != Some(&b'0'));
    if is_plain { std::str::from_utf8(digits).ok()?.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &'static str) -> Option<(u16, String)> {
        let whole = whole(&Bytes::from_static(bytes.as_bytes()))?;
        Some((whole.parts.status.as_u16(), String::from_utf8(whole.body.to_vec()).unwrap()))
    }

    #[test]
    fn a_plain_response_is_read() {
        let bytes = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nset-cookie: a\r\nSet-Cookie:  b \r\n\r\nhello";
        assert_eq!(read(bytes), Some((200, "hello".to_owned())));
        let whole = whole(&Bytes::from_static(bytes.as_bytes())).unwrap();
        let fields: Vec<_> = whole.parts.headers.iter().map(|(n, v)| (n.as_str(), v.as_bytes())).collect();
        assert_eq!(fields, [("content-length", &b"5"[..]), ("set-cookie", b"a"), ("set-cookie", b"b")]);
        for (bytes, status) in [
            ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", 404),
            ("HTTP/1.1 200 OK\r\nconnection: Keep-Alive\r\ncontent-length: 0\r\n\r\n", 200),
        ] {
            assert_eq!(read(bytes), Some((status, String::new())));
        }
    }

    #[test]
    fn whatever_leaves_a_question_open_is_not() {
        for bytes in [
            "",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\na",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nab",
            "HTTP/1.1 200 OK\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 01\r\n\r\na",
            "HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\na",
            "HTTP/1.1 200 OK\r\ncontent-length: 1, 1\r\n\r\na",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
            "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\na",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\na",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\nconnection: close\r\n\r\na",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\nupgrade: h2c\r\n\r\na",
            "HTTP/1.1 200 OK\r\ncontent-length : 1\r\n\r\na",
            "HTTP/1.1 200 OK\r\ncontent-length: 1\r\nx: a\r\n b\r\n\r\na",
            "HTTP/1.1 200 Fine\r\ncontent-length: 1\r\n\r\na",
            "HTTP/1.0 200 OK\r\ncontent-length: 1\r\n\r\na",
            "HTTP/1.1 100 Continue\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 101 Switching Protocols\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n",
            "HTTP/1.1 304 Not Modified\r\ncontent-length: 0\r\n\r\n",
            "SSH-2.0-OpenSSH_9.2\r\n",
        ] {
            assert_eq!(read(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn only_a_common_request_is_written() {
        let head = |message: http::request::Builder| {
            let mut head = Vec::new();
            put_head(&message.body(()).unwrap(), &mut head).then(|| String::from_utf8(head).unwrap())
        };
        let get = |target: &str| Request::get(target).header("host", "a").header("x", "1").header("x", "2");
        assert_eq!(head(get("/a?b")).unwrap(), "GET /a?b HTTP/1.1\r\nhost: a\r\nx: 1\r\nx: 2\r\n\r\n");
        for name in ["connection", "content-length", "expect", "transfer-encoding", "upgrade"] {
            assert_eq!(head(get("/").header(name, "1")), None);
        }
        assert_eq!(head(get("/").method("HEAD")), None);
        assert_eq!(head(get("*")), None);
    }
}
