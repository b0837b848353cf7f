//! Where a visitor is, as far as the daemon believes it.

use std::net::IpAddr;

use http::HeaderName;
use http::header::HeaderMap;
use ipnet::IpNet;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");

/// The address of the visitor behind trusted proxies: the last in X-Forwarded-For that is none of theirs. The fields are
/// those that the daemon has set. `None` if a proxy has named something else than an address.
pub(super) fn believed(headers: &HeaderMap, trusted: &[IpNet]) -> Option<IpAddr> {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    let values: Vec<&str> =
        headers.get_all(X_FORWARDED_FOR).iter().map(|value| value.to_str()).collect::<Result<_, _>>().ok()?;
    let mut nearest_first = values.iter().rev().flat_map(|value| value.rsplit(','));
    loop {
        let Some(element) = nearest_first.next() else {
            // All of them are proxies. One may have named its visitor in this field alone.
            return headers.get(X_REAL_IP)?.to_str().ok().and_then(parse);
        };
        let address = parse(element)?;
        if !is_trusted(&address) {
            return Some(address);
        }
    }
}

/// An address, with or without brackets and a port: proxies write several forms.
fn parse(text: &str) -> Option<IpAddr> {
    let text = text.trim().trim_matches('"');
    let bare = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|address| address.ip());
    text.parse::<IpAddr>().ok().or_else(with_port).or_else(bare).map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn of(fields: &[(&'static str, &'static str)]) -> Option<String> {
        let fields = fields.iter().map(|(n, v)| (HeaderName::from_static(n), HeaderValue::from_static(v)));
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value);
        }
        let trusted = ["10.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
        believed(&headers, &trusted).map(|address| address.to_string())
    }

    #[test]
    fn the_last_address_that_is_no_proxy_counts() {
        let forwarded = |value| [("x-forwarded-for", value)];
        for (value, address) in [
            ("192.0.2.7", Some("192.0.2.7")),
            ("6.6.6.6, 192.0.2.7, 10.0.0.1", Some("192.0.2.7")),
            ("6.6.6.6, 192.0.2.7, 10.2.0.1,10.0.0.1", Some("192.0.2.7")),
            ("192.0.2.7:4711, 10.0.0.1", Some("192.0.2.7")),
            ("[2001:db8::1]:4711, ::1", Some("2001:db8::1")),
            ("[2001:db8::1], ::1", Some("2001:db8::1")),
            ("::ffff:192.0.2.7, 10.0.0.1", Some("192.0.2.7")),
            ("192.0.2.7, unknown, 10.0.0.1", None),
            ("192.0.2.7, , 10.0.0.1", None),
        ] {
            assert_eq!(of(&forwarded(value)).as_deref(), address, "{value}");
        }
        assert_eq!(
            of(&[("x-forwarded-for", "192.0.2.7"), ("x-forwarded-for", "10.0.0.1")]).as_deref(),
            Some("192.0.2.7")
        );
        assert_eq!(of(&[("x-forwarded-for", "10.0.0.1"), ("x-real-ip", "192.0.2.7")]).as_deref(), Some("192.0.2.7"));
    }
}
