//! What the daemon says about a visitor in each request to one authority. The values are made once for a connection, and
//! shared by its requests.

use std::net::IpAddr;

use http::HeaderValue;
use http::uri::Authority;

/// Values of the fields that say who asked, for what and how.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) peer: IpAddr,
    authority: Authority,
    /// The peer's address.
    pub(super) address: HeaderValue,
    /// The element of Forwarded (RFC 7239).
    pub(super) element: HeaderValue,
    pub(super) host: HeaderValue,
    pub(super) port: HeaderValue,
    /// The tunnel's name in CDN-Loop.
    pub(super) loop_id: HeaderValue,
}

impl Said {
    /// For requests of this peer to this authority.
    pub(super) fn new(peer: IpAddr, authority: &Authority) -> Self {
        let node = match peer {
            IpAddr::V4(address) => address.to_string(),
            // RFC 7239, section 6.
            IpAddr::V6(address) => format!("\"[{address}]\""),
        };
        Self {
            peer,
            address: value(&peer.to_string()),
            element: value(&format!("for={node};host=\"{authority}\";proto=https")),
            host: value(authority.as_str()),
            port: HeaderValue::from(authority.port_u16().unwrap_or(443)),
            loop_id: value(loop_id(authority)),
            authority: authority.clone(),
        }
    }

    /// Whether it holds for this peer and this authority, which the service sees as its visitor has written it.
    pub(super) fn is_about(&self, peer: IpAddr, authority: &Authority) -> bool {
        self.peer == peer && self.authority.as_str() == authority.as_str()
    }
}

/// The tunnel's name in CDN-Loop: its host, without the dot that may end it.
pub(super) fn loop_id(authority: &Authority) -> &str {
    let host = authority.host();
    host.strip_suffix('.').unwrap_or(host)
}

/// The value of a field. Addresses and authorities are of ASCII, so all of them are values.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("unknown"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_about_one_peer_and_one_spelling() {
        let (peer, authority) = ("192.0.2.1".parse().unwrap(), Authority::from_static("Demo.example.com"));
        let said = Said::new(peer, &authority);
        assert!(said.is_about(peer, &authority));
        assert!(!said.is_about("192.0.2.2".parse().unwrap(), &authority));
        assert!(!said.is_about(peer, &Authority::from_static("demo.example.com")));
        assert!(!said.is_about(peer, &Authority::from_static("Demo.example.com:443")));
    }
}
