//! The visitor of a request that a trusted proxy may have brought.

use std::net::{IpAddr, SocketAddr};

use http::HeaderMap;
use ipnet::IpNet;

/// The field in which proxies list whom they saw, the nearest last.
const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// The visitor's address: the peer's, or the last one in X-Forwarded-For that is no trusted proxy's. `None` if a trusted
/// proxy names none.
pub(super) fn visitor_address(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> Option<IpAddr> {
    let is_trusted = |address: &IpAddr| trusted.iter().any(|network| network.contains(address));
    if !is_trusted(&peer) {
        return Some(peer);
    }
    let values = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let listed = values.filter_map(|value| value.to_str().ok()).flat_map(|value| value.rsplit(','));
    for text in listed {
        // Whom an unreadable entry stands for is unknown, and what comes before it is no trusted proxy's word.
        let address = parse(text)?;
        if !is_trusted(&address) {
            return Some(address);
        }
    }
    None
}

/// An address, with or without brackets and a port: proxies write several forms.
fn parse(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    let with_port = || text.parse::<SocketAddr>().ok().map(|address| address.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    text.parse().ok().or_else(with_port).or_else(in_brackets).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_untrusted_address_counts() {
        let trusted = ["10.0.0.0/8".parse().unwrap()];
        let seen = |peer: &str, fields: &[&str]| {
            let mut headers = HeaderMap::new();
            for field in fields {
                headers.append(X_FORWARDED_FOR, field.parse().unwrap());
            }
            visitor_address(&headers, peer.parse().unwrap(), &trusted).map(|address| address.to_string())
        };
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(seen("192.0.2.1", &["198.51.100.1"]), some("192.0.2.1"));
        assert_eq!(seen("10.0.0.1", &["203.0.113.9, 198.51.100.1"]), some("198.51.100.1"));
        assert_eq!(seen("10.0.0.1", &["203.0.113.9", "198.51.100.1, 10.2.3.4"]), some("198.51.100.1"));
        assert_eq!(seen("10.0.0.1", &["203.0.113.9, ::ffff:198.51.100.1"]), some("198.51.100.1"));
        assert_eq!(seen("10.0.0.1", &["198.51.100.1:4711"]), some("198.51.100.1"));
        assert_eq!(seen("10.0.0.1", &["[2001:db8::1]:4711"]), some("2001:db8::1"));
        assert_eq!(seen("10.0.0.1", &["[2001:db8::1]"]), some("2001:db8::1"));
        assert_eq!(seen("10.0.0.1", &["203.0.113.9, unknown"]), None);
        assert_eq!(seen("10.0.0.1", &["203.0.113.9, , 10.2.3.4"]), None);
        assert_eq!(seen("10.0.0.1", &[]), None);
    }
}
