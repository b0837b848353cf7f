//! The visitor of a request that trusted proxies may have brought. Only this file reads X-Forwarded-For.

use std::net::{IpAddr, SocketAddr};

use cok_proto::head::name::X_FORWARDED_FOR;
use http::HeaderMap;
use ipnet::IpNet;

/// The visitor's address: the peer's, or the last one in X-Forwarded-For that is no trusted proxy's. `None` if a trusted
/// proxy names none.
pub(super) fn visitor_address(headers: &HeaderMap, peer: IpAddr, trusted: &[IpNet]) -> Option<IpAddr> {
    if !is_trusted(peer, trusted) {
        return Some(peer);
    }
    for seen in seen_by_proxies(headers) {
        // Whom an unreadable entry stands for is unknown, and what comes before it is no trusted proxy's word.
        let address = seen?;
        if !is_trusted(address, trusted) {
            return Some(address);
        }
    }
    None
}

/// Whether a proxy at this address is believed.
pub(super) fn is_trusted(address: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|network| network.contains(&address))
}

/// Whom the proxies saw, the nearest first. `None` stands for an entry that is no address.
fn seen_by_proxies(headers: &HeaderMap) -> impl Iterator<Item = Option<IpAddr>> {
    // A proxy may write its entry into a line of its own (RFC 9110, section 5.3). Bytes outside ASCII are in no address.
    let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
    let entries = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    entries.map(|entry| std::str::from_utf8(entry).ok().and_then(parse))
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
    use http::HeaderValue;

    use super::*;

    /// Whom a peer with these lines of X-Forwarded-For brings.
    fn seen(peer: &str, lines: &[&[u8]]) -> Option<String> {
        let trusted = ["10.0.0.0/8".parse().unwrap(), "2001:db8:1::/48".parse().unwrap()];
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_bytes(line).unwrap());
        }
        visitor_address(&headers, peer.parse().unwrap(), &trusted).map(|address| address.to_string())
    }

    #[test]
    fn the_nearest_untrusted_address_counts() {
        for (peer, lines, expected) in [
            ("192.0.2.1", &[b"198.51.100.1".as_slice()][..], "192.0.2.1"),
            ("10.0.0.1", &[b"203.0.113.9, 198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &[b"198.51.100.1,10.2.3.4 ,\t10.9.9.9"], "198.51.100.1"),
            ("2001:db8:1::1", &[b"198.51.100.1, 2001:db8:1::2"], "198.51.100.1"),
            ("10.0.0.1", &[b"203.0.113.9", b"198.51.100.1, 10.2.3.4"], "198.51.100.1"),
            ("10.0.0.1", &[b"203.0.113.9, 198.51.100.1", b"10.2.3.4"], "198.51.100.1"),
            ("10.0.0.1", &[b"unknown, 198.51.100.1"], "198.51.100.1"),
        ] {
            assert_eq!(seen(peer, lines).as_deref(), Some(expected), "{lines:?}");
        }
    }

    #[test]
    fn proxies_write_addresses_in_several_forms() {
        for (entry, expected) in [
            ("::ffff:198.51.100.1", "198.51.100.1"),
            ("198.51.100.1:4711", "198.51.100.1"),
            ("2001:db8::1", "2001:db8::1"),
            ("[2001:db8::1]", "2001:db8::1"),
            ("[2001:db8::1]:4711", "2001:db8::1"),
            ("[::ffff:198.51.100.1]:1", "198.51.100.1"),
        ] {
            assert_eq!(seen("10.0.0.1", &[entry.as_bytes()]).as_deref(), Some(expected), "{entry}");
        }
    }

    #[test]
    fn an_unreadable_entry_hides_what_comes_before_it() {
        assert_eq!(seen("10.0.0.1", &[]), None);
        for entry in [
            b"unknown".as_slice(),
            b"_hidden",
            b"",
            b"198.51.100.1:",
            b"198.51.100.1:99999",
            b"[2001:db8::1",
            b"2001:db8::1]",
            b"[198.51.100.1]x",
            b"198.51.100.256",
            b"198.51.100.1 10.0.0.2",
            b"\xff",
        ] {
            assert_eq!(seen("10.0.0.1", &[b"203.0.113.9", entry, b"10.2.3.4"]), None, "{entry:?}");
            assert_eq!(seen("10.0.0.1", &[&[b"203.0.113.9, ", entry].concat()]), None, "{entry:?}");
        }
        assert_eq!(seen("10.0.0.1", &[b"10.2.3.4"]), None, "only proxies");
    }
}
