//! The proxy through which the client leaves its network: its URL, and who names it.
//!
//! It opens no connections; `dial` does. Requests of visitors never pass here: `crate::proxy` carries them.

mod choice;

use std::fmt;
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;
use percent_encoding::percent_decode_str;
use rustls::ClientConfig;

pub(crate) use self::choice::from_environment;
#[cfg(feature = "program")]
pub(crate) use self::choice::{FILE, ProxySetting, choose, is_of_environment};
use crate::target::Address;
use crate::trust::{TrustError, trust_proxy};

/// The most bytes of a user or a password (RFC 1929, section 2). HTTP has no such limit, but heads of proxies do.
const LONGEST_CREDENTIAL: usize = 255;

/// A proxy that leads out of a network: `http://`, `https://`, `socks5://` or `socks5h://`, with an optional user and
/// password. Neither its text nor its debug output shows them.
#[derive(Clone, PartialEq, Eq)]
pub struct ProxyUrl {
    pub(crate) kind: Kind,
    pub(crate) address: Address,
    credentials: Option<Credentials>,
}

/// What a proxy speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// HTTP/1.1 with CONNECT.
    Http,
    /// The same over TLS.
    Https,
    /// SOCKS5 (RFC 1928). This machine resolves names.
    Socks5,
    /// SOCKS5. The proxy resolves names.
    Socks5h,
}

#[derive(Clone, PartialEq, Eq)]
struct Credentials {
    user: String,
    password: String,
}

/// A proxy that cannot be understood. The message does not quote it, since it may have a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the proxy of {origin}: {why}; it must be http://…, https://…, socks5://… or socks5h://…, or \"none\"")]
pub struct InvalidProxy {
    origin: String,
    why: &'static str,
}

/// A proxy to dial through.
#[derive(Clone, Debug)]
pub struct Outbound {
    pub(crate) proxy: ProxyUrl,
    /// Who has named it, such as `HTTPS_PROXY`.
    pub(crate) origin: String,
    /// TLS towards the proxy itself; `None` if it speaks none.
    pub(crate) tls: Option<Arc<ClientConfig>>,
}

impl Outbound {
    /// A way through a proxy. `https://` proxies need a certificate that the system trusts, or the authorities in this file.
    pub fn new(proxy: ProxyUrl, origin: impl Into<String>, ca_file: Option<&Path>) -> Result<Self, TrustError> {
        let tls = if proxy.kind == Kind::Https { Some(trust_proxy(ca_file)?) } else { None };
        Ok(Self { proxy, origin: origin.into(), tls })
    }
}

impl fmt::Display for Outbound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.proxy, self.origin)
    }
}

impl ProxyUrl {
    /// Reads a URL; a host without a scheme is an HTTP proxy. The error says only what is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, &'static str> {
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let (kind, port) = match scheme.to_ascii_lowercase().as_str() {
            "http" => (Kind::Http, 80),
            "https" => (Kind::Https, 443),
            "socks5" => (Kind::Socks5, 1080),
            // Desktops write `socks` for version 5, and browsers leave names to it.
            "socks5h" | "socks" => (Kind::Socks5h, 1080),
            "socks4" | "socks4a" => return Err("SOCKS4 is not supported"),
            _ => return Err("its scheme is unknown"),
        };
        let (credentials, rest) = match rest.rsplit_once('@') {
            Some((credentials, rest)) => (Some(Credentials::parse(credentials)?), rest),
            None => (None, rest),
        };
        // RFC 1929 has no empty password.
        if matches!(kind, Kind::Socks5 | Kind::Socks5h) && credentials.as_ref().is_some_and(|of| of.password.is_empty())
        {
            return Err("SOCKS needs a password for its user, as in socks5h://USER:PASSWORD@PROXY:PORT");
        }
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#']) {
            return Err("only a host and a port may follow its scheme");
        }
        Ok(Self { kind, address: Address::parse(rest, port)?, credentials })
    }

    /// The value of `Proxy-Authorization` (RFC 7617).
    pub(crate) fn basic(&self) -> Option<HeaderValue> {
        let Credentials { user, password } = self.credentials.as_ref()?;
        let mut value =
            HeaderValue::from_str(&format!("Basic {}", BASE64_STANDARD.encode(format!("{user}:{password}")))).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    /// Whether its URL has a password.
    #[cfg(feature = "program")]
    pub(crate) fn has_password(&self) -> bool {
        self.credentials.as_ref().is_some_and(|Credentials { password, .. }| !password.is_empty())
    }

    /// The user and the password.
    pub(crate) fn credentials(&self) -> Option<(&str, &str)> {
        self.credentials.as_ref().map(|Credentials { user, password }| (user.as_str(), password.as_str()))
    }
}

impl Credentials {
    fn parse(text: &str) -> Result<Self, &'static str> {
        let (user, password) = text.split_once(':').unwrap_or((text, ""));
        let decode = |part| match percent_decode_str(part).decode_utf8() {
            Ok(part) if part.len() > LONGEST_CREDENTIAL => Err("its user or password is longer than 255 bytes"),
            Ok(part) if part.contains(char::is_control) => Err("its user or password has a control character"),
            Ok(part) => Ok(part.into_owned()),
            Err(_) => Err("its user or password is not UTF-8"),
        };
        let credentials = Self { user: decode(user)?, password: decode(password)? };
        if credentials.user.is_empty() {
            return Err("its user is empty");
        }
        // Basic authentication ends the user at the first colon.
        if credentials.user.contains(':') {
            return Err("its user has a colon");
        }
        Ok(credentials)
    }
}

impl FromStr for ProxyUrl {
    type Err = InvalidProxy;

    fn from_str(text: &str) -> Result<Self, InvalidProxy> {
        Self::parse(text).map_err(|why| InvalidProxy::new("the settings", why))
    }
}

impl InvalidProxy {
    fn new(origin: impl Into<String>, why: &'static str) -> Self {
        Self { origin: origin.into(), why }
    }
}

impl fmt::Display for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.kind {
            Kind::Http => "http",
            Kind::Https => "https",
            Kind::Socks5 => "socks5",
            Kind::Socks5h => "socks5h",
        };
        write!(f, "{scheme}://{}", self.address)
    }
}

impl fmt::Debug for ProxyUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ProxyUrl({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read_and_shown_without_their_secrets() {
        for (text, shown, credentials) in [
            ("http://proxy:3128", "http://proxy:3128", None),
            ("proxy:3128", "http://proxy:3128", None),
            ("HTTP://proxy/", "http://proxy:80", None),
            ("https://me:a%40b%3A@[::1]", "https://[::1]:443", Some(("me", "a@b:"))),
            ("http://me@10.0.0.1", "http://10.0.0.1:80", Some(("me", ""))),
            ("socks5://10.0.0.1", "socks5://10.0.0.1:1080", None),
            ("socks://proxy:9050/", "socks5h://proxy:9050", None),
            ("socks5h://me:p@ss@proxy:9050", "socks5h://proxy:9050", Some(("me", "p@ss"))),
        ] {
            let proxy: ProxyUrl = text.parse().unwrap();
            assert_eq!((proxy.to_string().as_str(), proxy.credentials()), (shown, credentials));
            assert_eq!(format!("{proxy:?}"), format!("ProxyUrl({shown})"));
        }
        let basic = "http://me:secret@proxy".parse::<ProxyUrl>().unwrap().basic().unwrap();
        assert_eq!((basic.to_str().unwrap(), basic.is_sensitive()), ("Basic bWU6c2VjcmV0", true));
    }

    #[test]
    fn no_mistake_quotes_the_proxy() {
        let long = format!("http://{}@proxy", "secret".repeat(50));
        for text in [
            "ftp://me:secret@proxy",
            "socks4://secret@proxy",
            "http://me:se/cret@proxy:x",
            "http://me:secret@proxy/path",
            "socks5://secret@proxy",
            "socks5h://secret:@proxy",
            "http://me:secret@",
            "http://me:secret@proxy:0",
            "http://:secret@proxy",
            "http://a%3Ab:secret@proxy",
            "http://me:secret%0a@proxy",
            "http://me:secret%ff@proxy",
            "secret/",
            "http://me:se/cret",
            "",
            &long,
        ] {
            if let Err(error) = text.parse::<ProxyUrl>() {
                assert!(!error.to_string().contains("cret"), "{error}");
            } else {
                assert_eq!(text, "secret/", "accepted");
            }
        }
    }
}
