//! Names of fields that `http` has no constant for, and how names are read.

use http::HeaderName;
use http::header::InvalidHeaderName;

/// The visitor's address.
pub const X_REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
/// The visitor's address behind those that proxies saw.
pub const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
/// The host that the visitor asked for.
pub const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// The scheme of the visitor's request.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
/// The port that the visitor asked.
pub const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
/// The proxies that a request has passed (RFC 8586).
pub const CDN_LOOP: HeaderName = HeaderName::from_static("cdn-loop");

/// Names that the daemon adds to each request. `HeaderName::from_bytes` would allocate each of them.
static ADDED: [HeaderName; 6] =
    [X_REAL_IP, X_FORWARDED_FOR, X_FORWARDED_HOST, X_FORWARDED_PROTO, X_FORWARDED_PORT, CDN_LOOP];

/// Reads a name.
pub(super) fn parse(name: &[u8]) -> Result<HeaderName, InvalidHeaderName> {
    match ADDED.iter().find(|added| added.as_str().as_bytes() == name) {
        Some(added) => Ok(added.clone()),
        None => HeaderName::from_bytes(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_daemon_adds_are_those_of_the_library() {
        for added in &ADDED {
            let name = added.as_str().as_bytes();
            assert_eq!(parse(name).unwrap(), HeaderName::from_bytes(name).unwrap());
            assert_eq!(parse(&name.to_ascii_uppercase()).unwrap(), added);
        }
    }
}
