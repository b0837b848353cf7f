//! Header fields on their way through: what ends at this hop, and what this hop has to say (RFC 9110, section 7.6).

use std::net::IpAddr;

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING,
    UPGRADE,
};
use http::uri::Authority;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// Drops what concerns one connection only: the known fields and those that Connection names. `te: trailers` stays.
pub(super) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| HeaderName::from_bytes(name.trim().as_bytes()).ok())
            // Framing and routing are not for a visitor to take away.
            .filter(|name| *name != CONTENT_LENGTH && *name != HOST && *name != TE)
            .collect();
        for name in named {
            headers.remove(name);
        }
        headers.remove(CONNECTION);
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    if let Some(te) = headers.remove(TE)
        && te.to_str().is_ok_and(|te| te.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers")))
    {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// HTTP/2 and HTTP/3 may split Cookie into several fields (RFC 9113, section 8.2.3; RFC 9114, section 4.2.1); services know one.
pub(super) fn join_cookies(headers: &mut HeaderMap) {
    let mut cookies = headers.get_all(COOKIE).iter();
    let (Some(first), Some(second)) = (cookies.next(), cookies.next()) else { return };
    let mut joined = first.as_bytes().to_vec();
    for cookie in std::iter::once(second).chain(cookies) {
        joined.extend_from_slice(b"; ");
        joined.extend_from_slice(cookie.as_bytes());
    }
    if let Ok(joined) = HeaderValue::from_bytes(&joined) {
        headers.insert(COOKIE, joined);
    }
}

/// Says who asked, for what and how. What the visitor claims of itself stays only if it is a `trusted` proxy.
pub(super) fn set_forwarded(headers: &mut HeaderMap, peer: IpAddr, trusted: bool, authority: &Authority) {
    let node = match peer {
        IpAddr::V4(address) => address.to_string(),
        // RFC 7239, section 6.
        IpAddr::V6(address) => format!("\"[{address}]\""),
    };
    let element = format!("for={node};host=\"{authority}\";proto=https");
    let before = |headers: &HeaderMap, name: &HeaderName, own: String| {
        let claimed = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        if trusted { claimed.map(str::to_owned).chain([own]).collect::<Vec<_>>().join(", ") } else { own }
    };
    for (name, own) in [(X_FORWARDED_FOR, peer.to_string()), (FORWARDED, element)] {
        let value = before(headers, &name, own);
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
    if (!trusted || !headers.contains_key(X_FORWARDED_HOST))
        && let Ok(value) = HeaderValue::from_str(authority.as_str())
    {
        headers.insert(X_FORWARDED_HOST, value);
    }
    if !trusted || !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("https"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    #[test]
    fn what_connection_names_is_dropped() {
        let mut headers = map(&[
            ("connection", "close, x-private, content-length"),
            ("x-private", "1"),
            ("content-length", "3"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip, trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "h2c"),
            ("x-kept", "1"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(headers, map(&[("content-length", "3"), ("te", "trailers"), ("x-kept", "1")]));
    }

    #[test]
    fn claims_count_only_from_trusted_proxies() {
        let authority = Authority::from_static("demo.example.com");
        let claim =
            || map(&[("x-forwarded-for", "6.6.6.6"), ("forwarded", "for=6.6.6.6"), ("x-forwarded-proto", "http")]);
        let mut headers = claim();
        set_forwarded(&mut headers, "::1".parse().unwrap(), false, &authority);
        assert_eq!(headers["x-forwarded-for"], "::1");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["forwarded"], "for=\"[::1]\";host=\"demo.example.com\";proto=https");
        let mut headers = claim();
        set_forwarded(&mut headers, "10.0.0.1".parse().unwrap(), true, &authority);
        assert_eq!(headers["x-forwarded-for"], "6.6.6.6, 10.0.0.1");
        assert_eq!(headers["x-forwarded-proto"], "http");
    }

    #[test]
    fn split_cookies_are_joined() {
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2")]);
        join_cookies(&mut headers);
        assert_eq!(headers, map(&[("cookie", "a=1; b=2")]));
    }
}
