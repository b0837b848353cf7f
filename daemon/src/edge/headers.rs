//! What the daemon says about a request's visitor, and how it joins Cookie. Hop-by-hop fields are in `cok_http`.

use std::net::IpAddr;

use http::header::{COOKIE, FORWARDED, HeaderMap, HeaderName, HeaderValue};
use http::uri::Authority;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

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
