//! Heads as they usually come: a browser's request, and a response of nginx.

use bytes::{Bytes, BytesMut};
use cok_proto::{RequestHead, ResponseHead, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    fields.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
}

pub(crate) fn browsers_fields() -> HeaderMap {
    map(&[
        ("host", "demo.tunnel.example.com"),
        ("connection", "keep-alive"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("accept", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"),
        ("accept-language", "en-US,en;q=0.5"),
        ("accept-encoding", "gzip, deflate, br, zstd"),
        ("cookie", "session=0123456789abcdef0123456789abcdef"),
        ("x-forwarded-for", "192.0.2.1"),
        ("x-real-ip", "192.0.2.1"),
    ])
}

pub(crate) fn nginx_fields() -> HeaderMap {
    map(&[
        ("server", "nginx/1.22.1"),
        ("date", "Sat, 28 Nov 2026 12:00:00 GMT"),
        ("content-type", "text/html"),
        ("content-length", "128"),
        ("last-modified", "Sat, 28 Nov 2026 11:00:00 GMT"),
        ("connection", "keep-alive"),
        ("etag", "\"656f0000-80\""),
        ("accept-ranges", "bytes"),
    ])
}

pub(crate) fn request() -> RequestHead {
    RequestHead {
        method: Method::GET,
        target: "/assets/page.html?version=2".parse().unwrap(),
        scheme: Scheme::Https,
        authority: "demo.tunnel.example.com".parse().unwrap(),
        headers: browsers_fields(),
    }
}

pub(crate) fn response() -> ResponseHead {
    ResponseHead::new(StatusCode::OK, nginx_fields())
}

pub(crate) fn request_bytes() -> Bytes {
    let mut out = BytesMut::new();
    request().encode(&mut out);
    out.freeze()
}

pub(crate) fn response_bytes() -> Bytes {
    let mut out = BytesMut::new();
    response().encode(&mut out);
    out.freeze()
}
