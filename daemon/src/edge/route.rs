//! Where a request goes, judged by its authority alone.
//!
//! Browsers share one HTTP/2 connection among all names that its certificate covers, so the TLS server name says
//! nothing about a single request. What is not ours gets 421 (RFC 9110, section 15.5.20).

use cok_http::name::{Position, position};

use crate::names::{Hostname, Subdomain};

/// What an authority stands for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// The base domain: the daemon itself.
    Base,
    /// A tunnel's name.
    Tunnel(Subdomain),
    /// A name directly under the base domain that no tunnel can have.
    Unusable,
    /// Not one of our names.
    Foreign,
}

/// Finds the route of `host`, an authority's host part.
pub(crate) fn route(domain: &Hostname, host: &str) -> Route {
    // A fully qualified name may end in a dot.
    let host = host.strip_suffix('.').unwrap_or(host);
    match position(host, domain.as_str()) {
        Position::Domain => Route::Base,
        Position::Under(name) => Subdomain::parse(name).map_or(Route::Unusable, Route::Tunnel),
        Position::Elsewhere => Route::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn routes_by_the_whole_label() {
        let domain = Hostname::parse("tunnel.example.com").unwrap();
        let tunnel = |name: &str| Route::Tunnel(Subdomain::parse(name).unwrap());
        for (host, expected) in [
            ("tunnel.example.com", Route::Base),
            ("TUNNEL.example.com.", Route::Base),
            ("demo.tunnel.example.com", tunnel("demo")),
            ("Demo.Tunnel.Example.Com", tunnel("demo")),
            ("demo.tunnel.example.com.", tunnel("demo")),
            ("a.b.tunnel.example.com", Route::Foreign),
            ("-.tunnel.example.com", Route::Unusable),
            (".tunnel.example.com", Route::Unusable),
            ("demotunnel.example.com", Route::Foreign),
            ("example.com", Route::Foreign),
            ("", Route::Foreign),
            ("ü.tunnel.example.com", Route::Unusable),
        ] {
            assert_eq!(route(&domain, host), expected, "{host}");
        }
    }
}
