//! Who is answered: programs of this machine's user that know the token, and the inspector's own page.
//!
//! A site on the internet may have its name resolve to the loopback address (DNS rebinding), or send requests there from its
//! pages. `Host` unmasks the first, and `Origin`, `Sec-Fetch-Site` and the token the second. The token travels in a field that
//! browsers never add by themselves, not in a cookie: cookies of this address go to all its ports.

use std::net::SocketAddr;

use http::header::{AUTHORIZATION, HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::inspect::token::Token;

/// Why a request is not answered.
pub(super) type Refusal = (StatusCode, &'static str);

/// The names of the loopback address.
const HOSTS: [&str; 3] = ["127.0.0.1", "localhost", "[::1]"];

const OTHER_SITE: Refusal = (StatusCode::FORBIDDEN, "requests of other sites are not answered");

/// Checks that the request is meant for this server. The page itself needs no more.
pub(super) fn check_host(fields: &HeaderMap, address: SocketAddr) -> Result<(), Refusal> {
    let mut hosts = fields.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return Err((StatusCode::BAD_REQUEST, "the request names no host"));
    };
    if is_own(host.as_bytes(), address) {
        return Ok(());
    }
    Err((StatusCode::MISDIRECTED_REQUEST, "this is the inspector of cok-client; it answers only under a loopback name"))
}

/// Checks that the request comes from the page or from a program, and has the token.
pub(super) fn check_caller(fields: &HeaderMap, address: SocketAddr, token: &Token) -> Result<(), Refusal> {
    let is_own_origin =
        |origin: &HeaderValue| origin.as_bytes().strip_prefix(b"http://").is_some_and(|host| is_own(host, address));
    let is_same_site = |site: &HeaderValue| matches!(site.as_bytes(), b"same-origin" | b"none");
    if !fields.get_all(ORIGIN).iter().all(is_own_origin) || !fields.get_all("sec-fetch-site").iter().all(is_same_site) {
        return Err(OTHER_SITE);
    }
    let sent = fields.get(AUTHORIZATION).and_then(|value| value.as_bytes().strip_prefix(b"Bearer "));
    if sent.is_some_and(|sent| token.is(sent)) {
        return Ok(());
    }
    Err((StatusCode::UNAUTHORIZED, "the token is missing or wrong: open the address that the client's terminal shows"))
}

fn is_own(host: &[u8], address: SocketAddr) -> bool {
    let Ok(host) = std::str::from_utf8(host) else { return false };
    let Some((name, port)) = host.rsplit_once(':') else { return false };
    HOSTS.iter().any(|own| own.eq_ignore_ascii_case(name)) && port == address.port().to_string()
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn fields(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let field = |(name, value): &(&'static str, &str)| (HeaderName::from_static(name), value.parse().unwrap());
        pairs.iter().map(field).collect()
    }

    #[test]
    fn only_names_of_the_loopback_address_are_answered() {
        let address = "127.0.0.1:4040".parse().unwrap();
        for host in ["127.0.0.1:4040", "localhost:4040", "LOCALHOST:4040", "[::1]:4040"] {
            assert!(check_host(&fields(&[("host", host)]), address).is_ok(), "{host}");
        }
        for host in
            ["evil.example:4040", "127.0.0.1", "127.0.0.1:80", "localhost.evil.example:4040", "", "localhost:04040"]
        {
            assert!(check_host(&fields(&[("host", host)]), address).is_err(), "{host}");
        }
        assert!(check_host(&HeaderMap::new(), address).is_err());
    }

    #[test]
    fn other_sites_are_refused_even_with_the_token() {
        let (address, token) = ("127.0.0.1:4040".parse().unwrap(), Token::new().unwrap());
        let bearer = format!("Bearer {}", token.as_str());
        let check = |pairs: &[_]| check_caller(&fields(pairs), address, &token).map_err(|(status, _)| status.as_u16());
        assert_eq!(check(&[("authorization", &bearer)]), Ok(()));
        assert_eq!(check(&[("authorization", &bearer), ("origin", "http://localhost:4040")]), Ok(()));
        assert_eq!(check(&[("authorization", &bearer), ("sec-fetch-site", "same-origin")]), Ok(()));
        for origin in ["https://evil.example", "null", "https://127.0.0.1:4040", "http://127.0.0.1:3000"] {
            assert_eq!(check(&[("authorization", &bearer), ("origin", origin)]), Err(403), "{origin}");
        }
        for site in ["cross-site", "same-site"] {
            assert_eq!(check(&[("authorization", &bearer), ("sec-fetch-site", site)]), Err(403), "{site}");
        }
        assert_eq!(check(&[]), Err(401));
        assert_eq!(check(&[("authorization", "Bearer x")]), Err(401));
    }
}
