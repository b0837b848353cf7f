//! What the daemon knows of requests from one peer to one authority: where they go, and what their service gets to know. It is
//! worked out once, and kept for the next request of the connection.

use std::net::IpAddr;
use std::sync::OnceLock;

use http::HeaderValue;
use http::uri::Authority;

use super::route::{Route, route};
use crate::admission::rates::TunnelNumber;
use crate::names::Hostname;

/// The longest authority that is kept: a name, a port, and some room.
const LONGEST: usize = 320;

/// What all requests from one peer to one authority have in common.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) peer: IpAddr,
    /// As the visitor has written it. The judge has passed it.
    pub(super) authority: Authority,
    pub(super) route: Route,
    /// The number of the route's tunnel, once a request was counted for it.
    pub(super) number: OnceLock<TunnelNumber>,
    /// The peer's address.
    pub(super) address: HeaderValue,
    /// The element of Forwarded (RFC 7239).
    pub(super) element: HeaderValue,
    pub(super) host: HeaderValue,
    pub(super) port: HeaderValue,
    /// The tunnel's name in CDN-Loop.
    pub(super) loop_id: HeaderValue,
}

impl Known {
    /// Of requests from this peer to this authority.
    pub(super) fn new(peer: IpAddr, authority: Authority, domain: &Hostname) -> Self {
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
            loop_id: value(loop_id(&authority)),
            route: route(domain, authority.host()),
            number: OnceLock::new(),
            authority,
        }
    }

    /// Whether it holds for this peer and this authority, in the same spelling.
    pub(super) fn is_about(&self, peer: IpAddr, authority: &Authority) -> bool {
        self.peer == peer && self.authority.as_str() == authority.as_str()
    }

    /// Whether it is small enough to be kept while the connection is idle.
    pub(super) fn may_stay(&self) -> bool {
        self.authority.as_str().len() <= LONGEST
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
        let domain = Hostname::parse("example.com").unwrap();
        let (peer, authority) = ("192.0.2.1".parse().unwrap(), Authority::from_static("Demo.example.com"));
        let known = Known::new(peer, authority.clone(), &domain);
        assert!(matches!(known.route, Route::Tunnel(_)) && known.may_stay());
        assert!(known.is_about(peer, &authority));
        assert!(!known.is_about("192.0.2.2".parse().unwrap(), &authority));
        assert!(!known.is_about(peer, &Authority::from_static("demo.example.com")));
        assert!(!known.is_about(peer, &Authority::from_static("Demo.example.com:443")));
        let long = format!("demo.example.com:{}443", "0".repeat(LONGEST)).parse().unwrap();
        assert!(!Known::new(peer, long, &domain).may_stay());
    }
}
