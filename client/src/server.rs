//! The daemon's address, and how names become addresses.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use tokio::net::lookup_host;

use crate::target::Address;

/// A daemon's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server(Address);

/// A server's address that cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server \"{server}\"{why}")]
pub struct InvalidServer {
    server: String,
    why: String,
}

impl FromStr for Server {
    type Err = InvalidServer;

    /// Reads `https://host[:port]`, or without the scheme.
    fn from_str(text: &str) -> Result<Self, InvalidServer> {
        let invalid = |why: String| InvalidServer { server: text.to_owned(), why };
        let rest = match text.split_once("://") {
            Some(("https", rest)) => rest,
            Some(_) => return Err(invalid(" must be https://…".to_owned())),
            None => text,
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@']) {
            return Err(invalid(" must be only a host and a port".to_owned()));
        }
        let address = Address::parse(rest, 443).map_err(|why| invalid(format!(": {why}")))?;
        Ok(Self(address))
    }
}

impl Server {
    /// Its host and port.
    pub(crate) fn address(&self) -> &Address {
        &self.0
    }

    /// Its name or IP address, IPv6 without brackets.
    pub(crate) fn host(&self) -> &str {
        &self.0.host
    }

    /// Its port, for TCP and for UDP.
    pub(crate) fn port(&self) -> u16 {
        self.0.port
    }

    /// The authority for requests to it.
    pub fn authority(&self) -> String {
        if self.0.port == 443 { self.0.host.clone() } else { self.0.to_string() }
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "https://{}", self.authority())
    }
}

/// Whether a host is this machine by itself: a loopback address, or a name under localhost (RFC 6761, section 6.3).
pub(crate) fn names_this_machine(host: &str) -> bool {
    host.parse::<IpAddr>().map_or_else(|_| is_localhost(host), |address| address.to_canonical().is_loopback())
}

fn is_localhost(host: &str) -> bool {
    let name = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost")
}

/// The addresses of a host. Names under localhost mean this machine; the resolver is not asked (RFC 6761, section 6.3).
pub(crate) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if is_localhost(host) {
        return Ok(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]);
    }
    Ok(lookup_host((host, port)).await?.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machines_own_names_are_its() {
        for host in ["localhost", "LOCALHOST.", "app.localhost", "127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1"] {
            assert!(names_this_machine(host), "{host}");
        }
        for host in ["app.corp", "localhost.corp", "notlocalhost", "192.0.2.1", "0.0.0.0", "::", ""] {
            assert!(!names_this_machine(host), "{host}");
        }
    }

    #[test]
    fn servers_are_read() {
        for (text, authority) in [
            ("https://tunnel.example.com", "tunnel.example.com"),
            ("tunnel.example.com:8443", "tunnel.example.com:8443"),
            ("https://[::1]:8443/", "[::1]:8443"),
        ] {
            assert_eq!(text.parse::<Server>().unwrap().authority(), authority);
        }
        for text in ["http://x", "https://x/y", "https://", "x:0"] {
            assert!(text.parse::<Server>().is_err(), "{text}");
        }
    }
}
