//! Which protocols a tunnel may switch to (RFC 9110, section 7.8). WebSockets always pass.

use std::str::FromStr;

use cok_http::websocket::is_websocket;

/// The protocols besides WebSocket that the owner allows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upgrades(Vec<UpgradeProtocol>);

/// A protocol as Upgrade names it, such as `tcp` or `SPDY/3.1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeProtocol(String);

/// A text that names no protocol that a tunnel can switch to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot upgrade to \"{protocol}\": {why}")]
pub struct InvalidProtocol {
    protocol: String,
    why: &'static str,
}

impl FromStr for UpgradeProtocol {
    type Err = InvalidProtocol;

    fn from_str(text: &str) -> Result<Self, InvalidProtocol> {
        let invalid = |why| Err(InvalidProtocol { protocol: text.to_owned(), why });
        let mut parts = text.split('/');
        let (name, version, rest) = (parts.next().unwrap_or_default(), parts.next(), parts.next());
        if rest.is_some() || !is_token(name) || !version.is_none_or(is_token) {
            return invalid("a protocol is a name, such as tcp, or a name and a version, such as SPDY/3.1");
        }
        if is_http2(name) {
            return invalid("HTTP/2 would let a visitor speak with the service behind all rules of the server");
        }
        Ok(Self(text.to_owned()))
    }
}

impl FromIterator<UpgradeProtocol> for Upgrades {
    fn from_iter<I: IntoIterator<Item = UpgradeProtocol>>(protocols: I) -> Self {
        Self(protocols.into_iter().collect())
    }
}

impl Upgrades {
    /// Whether a request may ask the service for this protocol. An allowed name without a version allows all its versions.
    pub(crate) fn allow(&self, asked: &[u8]) -> bool {
        if is_websocket(asked) {
            return true;
        }
        let name = asked.split(|byte| *byte == b'/').next().unwrap_or_default();
        self.0.iter().any(|UpgradeProtocol(allowed)| {
            let asked = if allowed.contains('/') { asked } else { name };
            asked.eq_ignore_ascii_case(allowed.as_bytes())
        })
    }
}

/// HTTP/2 has two names here: `h2c` (RFC 7540, section 3.2), and `h2`, which no upgrade may use.
fn is_http2(name: &str) -> bool {
    ["h2c", "h2"].iter().any(|http2| name.eq_ignore_ascii_case(http2))
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(protocols: &[&str]) -> Upgrades {
        protocols.iter().map(|protocol| protocol.parse().unwrap()).collect()
    }

    #[test]
    fn a_name_allows_all_versions_and_a_version_itself() {
        let upgrades = allowed(&["tcp", "SPDY/3.1"]);
        for asked in ["tcp", "TCP", "tcp/1", "spdy/3.1", "websocket", "WebSocket"] {
            assert!(upgrades.allow(asked.as_bytes()), "{asked}");
        }
        for asked in ["spdy", "SPDY/3", "h2c", "tcp2", "", "tcp, spdy/3.1", "TLS/1.0"] {
            assert!(!upgrades.allow(asked.as_bytes()), "{asked}");
        }
    }

    #[test]
    fn nothing_but_websocket_is_allowed_by_default() {
        assert!(Upgrades::default().allow(b"websocket"));
        assert!(!Upgrades::default().allow(b"tcp"));
    }

    #[test]
    fn http2_and_what_is_no_protocol_are_refused() {
        for text in ["h2c", "H2C", "h2", "h2c/1", "", "/", "a/", "a b", "a,b", "a/b/c"] {
            assert!(text.parse::<UpgradeProtocol>().is_err(), "{text}");
        }
    }
}
