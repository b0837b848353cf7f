//! The judge of requests: what the daemon refuses, over all versions of HTTP, before a service sees anything of it.
//!
//! [`Fault`] is the table. `http1` finds the faults that only the bytes of an HTTP/1.1 head show. [`judge`] finds those
//! that all versions share. What the libraries for HTTP/2 and HTTP/3 refuse by themselves never comes here.

use std::str::FromStr as _;

use cok_http::websocket::WEBSOCKET;
use http::header::{
    CONNECTION, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, EXPECT, HOST, HeaderMap, HeaderName, TE,
    TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Method, Request, Version};
use hyper::ext::Protocol;

use super::pages::Problem;

/// A rule that a request breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The request line is not a method, a target and a version with one space between them (RFC 9112, section 3).
    RequestLine,
    /// A version other than HTTP/1.0 and HTTP/1.1.
    Version,
    /// A line ends without CR (RFC 9112, section 2.2).
    BareLineFeed,
    /// A field's name is no token (RFC 9110, section 5.1).
    FieldName,
    /// White space before a colon (RFC 9112, section 5.1).
    SpaceBeforeColon,
    /// A folded line (RFC 9112, section 5.2).
    Folding,
    /// A control byte in a field's value (RFC 9110, section 5.5).
    FieldValue,
    /// The head or the trailers are longer than the limit.
    TooLarge,
    /// The connection ends within a head.
    CutShort,
    /// Content-Length is no number, or comes more than once (RFC 9112, section 6.3).
    Length,
    /// Content-Length together with Transfer-Encoding (RFC 9112, section 6.1).
    LengthAndCoding,
    /// Transfer-Encoding is anything but a single `chunked`, or comes over HTTP/1.0 (RFC 9112, section 6.1).
    Coding,
    /// A chunk's framing is broken (RFC 9112, section 7.1).
    Chunk,
    /// A trailer is a pseudo field, or frames or routes the request (RFC 9110, section 6.5.1).
    Trailer,
    /// The target is in none of its forms (RFC 9112, section 3.2).
    Target,
    /// The target has a fragment (RFC 9112, section 3.2).
    Fragment,
    /// The scheme is not `https` (RFC 9110, section 7.4).
    Scheme,
    /// There is no Host, or more than one (RFC 9112, section 3.2).
    Host,
    /// An authority that is none.
    Authority,
    /// An authority with user information (RFC 9110, section 4.2.4).
    UserInfo,
    /// A port that is none.
    Port,
    /// `:authority` names another authority than Host (RFC 9113, section 8.3.1; RFC 9114, section 4.3.1).
    AuthorityDiffers,
    /// TRACE, which would show fields that the daemon has set (RFC 9110, section 9.3.8).
    Trace,
    /// CONNECT other than for a WebSocket: this is no forward proxy.
    Connect,
}

impl Fault {
    /// The page that the visitor gets.
    pub(super) fn problem(self) -> Problem {
        match self {
            Self::Trace | Self::Connect => Problem::MethodNotAllowed,
            Self::TooLarge => Problem::HeadTooLarge,
            _ => Problem::BadRequest,
        }
    }

    /// Whether an HTTP/1.1 connection ends, because the next request may begin elsewhere than it seems.
    pub(super) fn ends_connection(self) -> bool {
        self != Self::Trace
    }
}

/// Judges a request by the rules of all versions. Returns the authority that it is for.
pub(super) fn judge<B>(request: &Request<B>) -> Result<Authority, Fault> {
    check_method(request)?;
    check_target(request)?;
    let mut lengths = request.headers().get_all(CONTENT_LENGTH).iter();
    if let (Some(length), another) = (lengths.next(), lengths.next()) {
        if another.is_some() {
            return Err(Fault::Length);
        }
        content_length(length.as_bytes())?;
    }
    authority(request)
}

fn check_method<B>(request: &Request<B>) -> Result<(), Fault> {
    match *request.method() {
        Method::TRACE => Err(Fault::Trace),
        Method::CONNECT => {
            let protocol = request.extensions().get::<Protocol>().map(Protocol::as_str);
            if protocol == Some(WEBSOCKET) { Ok(()) } else { Err(Fault::Connect) }
        }
        _ => Ok(()),
    }
}

/// The rules for the scheme and the path. Over HTTP/1.1, `http1` has judged the bytes of the target.
fn check_target<B>(request: &Request<B>) -> Result<(), Fault> {
    let uri = request.uri();
    if uri.scheme().is_some_and(|scheme| *scheme != Scheme::HTTPS) {
        return Err(Fault::Scheme);
    }
    if matches!(request.version(), Version::HTTP_2 | Version::HTTP_3) {
        let path = uri.path_and_query().map_or("", |path| path.as_str());
        let asterisk = path == "*" && *request.method() == Method::OPTIONS;
        if !path.starts_with('/') && !asterisk {
            return Err(Fault::Target);
        }
    }
    Ok(())
}

/// The authority that a request is for (RFC 9112, section 3.2; RFC 9113, section 8.3.1).
fn authority<B>(request: &Request<B>) -> Result<Authority, Fault> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let (host, another) = (hosts.next(), hosts.next());
    if another.is_some() || (host.is_none() && request.version() == Version::HTTP_11) {
        return Err(Fault::Host);
    }
    let host = host.map(parse_host).transpose()?;
    match (request.uri().authority(), host) {
        (Some(authority), host) => {
            check_authority(authority)?;
            let multiplexed = matches!(request.version(), Version::HTTP_2 | Version::HTTP_3);
            // Over HTTP/1.1 an absolute target stands above Host.
            if multiplexed && host.is_some_and(|host| !is_same(authority, &host)) {
                return Err(Fault::AuthorityDiffers);
            }
            Ok(authority.clone())
        }
        (None, Some(host)) => Ok(host),
        (None, None) => Err(Fault::Host),
    }
}

fn parse_host(value: &HeaderValue) -> Result<Authority, Fault> {
    let text = value.to_str().map_err(|_| Fault::Authority)?;
    let authority = Authority::from_str(text).map_err(|_| Fault::Authority)?;
    check_authority(&authority)?;
    Ok(authority)
}

/// The parts of an authority that the `http` crate does not check.
fn check_authority(authority: &Authority) -> Result<(), Fault> {
    if authority.as_str().contains('@') {
        return Err(Fault::UserInfo);
    }
    let host = authority.host();
    if host.is_empty() {
        return Err(Fault::Authority);
    }
    // What follows the host is nothing, or a colon and a port.
    let port = authority.as_str().strip_prefix(host).ok_or(Fault::Authority)?;
    match port.strip_prefix(':') {
        None if port.is_empty() => Ok(()),
        Some(digits)
            if digits.bytes().all(|byte| byte.is_ascii_digit())
                && digits.parse::<u16>().is_ok_and(|number| number > 0) =>
        {
            Ok(())
        }
        _ => Err(Fault::Port),
    }
}

/// Whether two authorities are the same one: in any case, and with or without the port of HTTPS.
fn is_same(one: &Authority, other: &Authority) -> bool {
    let port = |authority: &Authority| authority.port_u16().unwrap_or(443);
    one.host().eq_ignore_ascii_case(other.host()) && port(one) == port(other)
}

/// A body's length (RFC 9110, section 8.6): digits and nothing else. The limit leaves room for sums.
pub(super) fn content_length(value: &[u8]) -> Result<u64, Fault> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return Err(Fault::Length);
    }
    let number = std::str::from_utf8(value).ok().and_then(|digits| digits.parse::<i64>().ok());
    number.map(i64::unsigned_abs).ok_or(Fault::Length)
}

/// Judges trailers. Those that frame or route a request never come too late.
pub(super) fn check_trailers(trailers: &HeaderMap) -> Result<(), Fault> {
    if trailers.keys().any(is_forbidden_trailer) { Err(Fault::Trailer) } else { Ok(()) }
}

/// Fields that decide about a request before its body (RFC 9110, section 6.5.1).
pub(super) fn is_forbidden_trailer(name: &HeaderName) -> bool {
    const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
    const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
    [
        CONTENT_LENGTH,
        TRANSFER_ENCODING,
        HOST,
        CONNECTION,
        UPGRADE,
        TE,
        TRAILER,
        EXPECT,
        CONTENT_TYPE,
        CONTENT_ENCODING,
        CONTENT_RANGE,
        KEEP_ALIVE,
        PROXY_CONNECTION,
    ]
    .contains(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(version: Version, method: &str, uri: &str, fields: &[(&str, &str)]) -> Result<String, Fault> {
        let mut request = Request::builder().version(version).method(method).uri(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        judge(&request.body(()).unwrap()).map(|authority| authority.to_string())
    }

    #[test]
    fn the_table_of_all_versions() {
        let h1 = Version::HTTP_11;
        let host = |value| [("host", value)];
        for (uri, fields, expected) in [
            ("/", &host("a.test")[..], Ok("a.test")),
            ("/", &host("A.test:8443"), Ok("A.test:8443")),
            ("https://b.test/x", &host("a.test"), Ok("b.test")),
            ("/", &[], Err(Fault::Host)),
            ("/", &[("host", "a.test"), ("host", "a.test")], Err(Fault::Host)),
            ("/", &host(""), Err(Fault::Authority)),
            ("/", &host("a test"), Err(Fault::Authority)),
            ("/", &host("a.test/x"), Err(Fault::Authority)),
            ("/", &host("me@a.test"), Err(Fault::UserInfo)),
            ("/", &host("a.test:"), Err(Fault::Port)),
            ("/", &host("a.test:0"), Err(Fault::Port)),
            ("/", &host("a.test:https"), Err(Fault::Port)),
            ("/", &host("a.test:65536"), Err(Fault::Port)),
            ("/", &host("[::1]x"), Err(Fault::Port)),
            ("https://b.test:x/", &host("a.test"), Err(Fault::Port)),
            ("https://b.test/", &host("a.test:x"), Err(Fault::Port)),
            ("http://a.test/", &host("a.test"), Err(Fault::Scheme)),
            ("ftp://a.test/", &host("a.test"), Err(Fault::Scheme)),
            ("/", &[("host", "a.test"), ("content-length", "1"), ("content-length", "1")], Err(Fault::Length)),
            ("/", &[("host", "a.test"), ("content-length", "+1")], Err(Fault::Length)),
        ] {
            assert_eq!(judged(h1, "GET", uri, fields), expected.map(str::to_owned), "{uri} {fields:?}");
        }
        assert_eq!(judged(Version::HTTP_10, "GET", "/", &host("a.test")), Ok("a.test".to_owned()));
        assert_eq!(judged(h1, "TRACE", "/", &host("a.test")), Err(Fault::Trace));
        assert_eq!(judged(h1, "CONNECT", "a.test:443", &host("a.test")), Err(Fault::Connect));
    }

    #[test]
    fn an_authority_is_the_same_as_host_over_http2_and_http3() {
        for version in [Version::HTTP_2, Version::HTTP_3] {
            for (uri, host, expected) in [
                ("https://a.test/", None, Ok("a.test")),
                ("https://a.test/", Some("A.TEST:443"), Ok("a.test")),
                ("https://a.test/", Some("b.test"), Err(Fault::AuthorityDiffers)),
                ("https://a.test:444/", Some("a.test"), Err(Fault::AuthorityDiffers)),
                ("http://a.test/", None, Err(Fault::Scheme)),
                ("https://me@a.test/", None, Err(Fault::UserInfo)),
            ] {
                let fields: Vec<_> = host.map(|host| ("host", host)).into_iter().collect();
                let seen = judged(version, "GET", uri, &fields);
                assert_eq!(seen, expected.map(str::to_owned), "{uri} {host:?}");
            }
        }
    }

    #[test]
    fn trailers_do_not_frame_or_route() {
        for name in ["content-length", "transfer-encoding", "host", "te", "connection", "upgrade", "trailer"] {
            let trailers = HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_static("x"))]);
            assert_eq!(check_trailers(&trailers), Err(Fault::Trailer), "{name}");
        }
        let trailers = HeaderMap::from_iter([(HeaderName::from_static("x-sum"), HeaderValue::from_static("1"))]);
        assert_eq!(check_trailers(&trailers), Ok(()));
    }
}
