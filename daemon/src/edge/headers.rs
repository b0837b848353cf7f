//! What the daemon says about a request's visitor and about its way, and how it joins Cookie. `claims` has what visitors may
//! not say; hop-by-hop fields are in `cok_http`.

use cok_proto::head::name::{
    CDN_LOOP, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PORT, X_FORWARDED_PROTO, X_REAL_IP,
};
use http::Version;
use http::header::{COOKIE, FORWARDED, HeaderMap, HeaderValue, VIA};
use http::uri::Authority;
use ipnet::IpNet;

use super::known::{Known, loop_id};
use super::proxied::{is_trusted, visitor_address};

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

/// Says who asked, for what and how. What the peer claimed stands here only if it is one of the `proxies` that are trusted.
pub(super) fn set_forwarded(headers: &mut HeaderMap, known: &Known, proxies: &[IpNet]) {
    let https = HeaderValue::from_static("https");
    if is_trusted(known.peer, proxies) {
        return add_forwarded(headers, known, proxies);
    }
    for (name, value) in [
        (X_REAL_IP, &known.address),
        (X_FORWARDED_FOR, &known.address),
        (FORWARDED, &known.element),
        (X_FORWARDED_HOST, &known.host),
        (X_FORWARDED_PROTO, &https),
        (X_FORWARDED_PORT, &known.port),
    ] {
        headers.insert(name, value.clone());
    }
}

/// Adds to what a trusted proxy says.
fn add_forwarded(headers: &mut HeaderMap, known: &Known, proxies: &[IpNet]) {
    if !headers.contains_key(X_REAL_IP) {
        let visitor = visitor_address(headers, known.peer, proxies).map(|address| address.to_string());
        let value = visitor.and_then(|visitor| HeaderValue::try_from(visitor).ok());
        headers.insert(X_REAL_IP, value.unwrap_or_else(|| known.address.clone()));
    }
    // A proxy that names a host or a scheme may listen on another port.
    let claims_port = [X_FORWARDED_HOST, X_FORWARDED_PROTO, X_FORWARDED_PORT].iter().any(|n| headers.contains_key(n));
    for (name, own) in [(X_FORWARDED_FOR, &known.address), (FORWARDED, &known.element)] {
        let claimed = headers.get_all(&name).iter().chain([own]).filter_map(|value| value.to_str().ok());
        if let Ok(value) = HeaderValue::try_from(claimed.collect::<Vec<_>>().join(", ")) {
            headers.insert(name, value);
        }
    }
    headers.entry(X_FORWARDED_HOST).or_insert_with(|| known.host.clone());
    headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static("https"));
    if !claims_port {
        headers.insert(X_FORWARDED_PORT, known.port.clone());
    }
}

/// Whether the request has been in this tunnel before: CDN-Loop lists it (RFC 8586, section 2).
pub(super) fn is_loop(headers: &HeaderMap, authority: &Authority) -> bool {
    headers.get_all(CDN_LOOP).iter().any(|value| {
        let mut infos = value.as_bytes().split(|byte| *byte == b',');
        infos.any(|info| {
            let listed = info.split(|byte| *byte == b';').next().unwrap_or_default();
            listed.trim_ascii().eq_ignore_ascii_case(loop_id(authority).as_bytes())
        })
    })
}

/// Adds the tunnel to CDN-Loop.
pub(super) fn mark_loop(headers: &mut HeaderMap, known: &Known) {
    headers.append(CDN_LOOP, known.loop_id.clone());
}

/// Adds the daemon to Via (RFC 9110, section 7.6.3).
pub(super) fn add_via(headers: &mut HeaderMap, version: Version, domain: &str) {
    let protocol = match version {
        Version::HTTP_10 => "1.0",
        Version::HTTP_2 => "2",
        Version::HTTP_3 => "3",
        _ => "1.1",
    };
    if let Ok(value) = HeaderValue::try_from(format!("{protocol} {domain}")) {
        headers.append(VIA, value);
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::names::Hostname;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v))).collect()
    }

    fn known(peer: &str, authority: &Authority) -> Known {
        Known::new(peer.parse().unwrap(), authority.clone(), &Hostname::parse("example.com").unwrap())
    }

    #[test]
    fn the_visitor_is_described() {
        let authority = Authority::from_static("demo.example.com:8443");
        let mut headers = HeaderMap::new();
        set_forwarded(&mut headers, &known("::1", &authority), &[]);
        let expected = [
            ("x-real-ip", "::1"),
            ("x-forwarded-for", "::1"),
            ("forwarded", "for=\"[::1]\";host=\"demo.example.com:8443\";proto=https"),
            ("x-forwarded-host", "demo.example.com:8443"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-port", "8443"),
        ];
        assert_eq!(headers, map(&expected));
    }

    #[test]
    fn a_trusted_proxy_describes_its_visitor() {
        let authority = Authority::from_static("demo.example.com");
        let described = |claims: &[(&'static str, &'static str)]| {
            let mut headers = map(claims);
            set_forwarded(&mut headers, &known("10.0.0.1", &authority), &["10.0.0.0/8".parse().unwrap()]);
            headers
        };
        let headers = described(&[
            ("x-forwarded-for", "6.6.6.6, 7.7.7.7"),
            ("forwarded", "for=6.6.6.6"),
            ("x-forwarded-proto", "http"),
        ]);
        assert_eq!(headers["x-forwarded-for"], "6.6.6.6, 7.7.7.7, 10.0.0.1");
        assert_eq!(headers["forwarded"], "for=6.6.6.6, for=10.0.0.1;host=\"demo.example.com\";proto=https");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-real-ip"], "7.7.7.7");
        assert!(!headers.contains_key("x-forwarded-port"));
        assert_eq!(described(&[("x-real-ip", "6.6.6.6")])["x-real-ip"], "6.6.6.6");
        for (seen, real) in [
            ("7.7.7.7:4711", "7.7.7.7"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("6.6.6.6, 7.7.7.7, 10.0.0.2", "7.7.7.7"),
            ("7.7.7.7, unknown", "10.0.0.1"),
        ] {
            assert_eq!(described(&[("x-forwarded-for", seen)])["x-real-ip"], real, "{seen}");
        }
        let lines = described(&[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "7.7.7.7")]);
        assert_eq!(
            (&lines["x-real-ip"], &lines["x-forwarded-for"]),
            (&"7.7.7.7".parse().unwrap(), &"6.6.6.6, 7.7.7.7, 10.0.0.1".parse().unwrap(),)
        );
        let silent = described(&[]);
        assert_eq!(
            (&silent["x-real-ip"], &silent["x-forwarded-port"]),
            (&"10.0.0.1".parse().unwrap(), &"443".parse().unwrap())
        );
    }

    #[test]
    fn a_loop_is_known_by_the_name() {
        let authority = Authority::from_static("Demo.example.com.:8443");
        let mut headers = map(&[("cdn-loop", "cloudflare, other.example.com; a=b")]);
        assert!(!is_loop(&headers, &authority));
        mark_loop(&mut headers, &known("192.0.2.1", &authority));
        assert_eq!(headers.get_all("cdn-loop").iter().count(), 2);
        assert!(is_loop(&headers, &Authority::from_static("demo.example.com")));
        assert!(is_loop(&map(&[("cdn-loop", "a, demo.EXAMPLE.com;x, b")]), &authority));
    }

    #[test]
    fn split_cookies_are_joined() {
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2")]);
        join_cookies(&mut headers);
        assert_eq!(headers, map(&[("cookie", "a=1; b=2")]));
    }
}
