//! Names of fields.

use http::HeaderName;
use http::header::InvalidHeaderName;

/// The names that the daemon adds to each request and that the library does not know. The library would allocate memory for
/// each one that it reads.
static ADDED: [HeaderName; 6] = [
    HeaderName::from_static("x-real-ip"),
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("cdn-loop"),
];

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
