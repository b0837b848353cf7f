//! The local service that requests are forwarded to.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::service::LocalService;

/// The local service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// HTTP/1.1.
    Http(Address),
    /// HTTP/1.1 or HTTP/2 over TLS, as the service chooses. On a loopback address any certificate will do, since the
    /// traffic does not leave the machine.
    Https(Address),
    /// HTTP/2 without TLS, by prior knowledge (RFC 9113, section 3.3), as gRPC services speak it.
    H2c(Address),
    /// HTTP/1.1 over a Unix socket.
    Unix(PathBuf),
    /// A service in this process.
    Service(LocalService),
}

/// A host and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or an address, IPv6 without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// The forms of a target, as error messages list them.
pub(crate) const FORMS: &str = "3000, host:3000, http://…, https://…, h2c://… or unix:/path";

/// Whether a text is a single word: neither a port nor `localhost`, and without the characters of an address. In place of
/// a target, it may be the name of a tunnel, or a mistyped command.
pub(crate) fn is_bare_word(text: &str) -> bool {
    let is_port = text.bytes().all(|byte| byte.is_ascii_digit());
    !is_port && !text.eq_ignore_ascii_case("localhost") && !text.contains(['.', ':', '/'])
}

/// A target that cannot be understood.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot forward to \"{target}\": {why}; say {FORMS}")]
pub struct InvalidTarget {
    target: String,
    why: &'static str,
}

impl FromStr for Target {
    type Err = InvalidTarget;

    fn from_str(text: &str) -> Result<Self, InvalidTarget> {
        let invalid = |why| InvalidTarget { target: text.to_owned(), why };
        if let Some(path) = text.strip_prefix("unix:") {
            if path.is_empty() {
                return Err(invalid("there is no path"));
            }
            if cfg!(not(unix)) {
                return Err(invalid("this system has no Unix sockets"));
            }
            return Ok(Self::Unix(path.into()));
        }
        if is_bare_word(text) {
            return Err(invalid("a word alone may be a slip of the pen; a host needs its port or a scheme"));
        }
        let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
        let (kind, default_port): (fn(Address) -> Self, u16) = match scheme {
            "http" => (Self::Http, 80),
            "https" => (Self::Https, 443),
            "h2c" => (Self::H2c, 80),
            _ => return Err(invalid("the scheme is unknown")),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains(['/', '?', '#', '@']) {
            return Err(invalid("only a host and a port may stand there, requests bring their own path"));
        }
        if !text.contains("://") && rest.bytes().all(|byte| byte.is_ascii_digit()) {
            let port = rest.parse().map_err(|_| invalid("a port is a number from 1 to 65535"))?;
            return Ok(Self::Http(Address { host: "localhost".to_owned(), port: nonzero(port).map_err(invalid)? }));
        }
        let address = Address::parse(rest, default_port).map_err(invalid)?;
        Ok(kind(address))
    }
}

impl Address {
    /// The authority of requests to it. It leaves out the default port of the scheme.
    pub(crate) fn authority(&self, default_port: u16) -> String {
        let text = self.to_string();
        match text.strip_suffix(&format!(":{default_port}")) {
            Some(host) if self.port == default_port => host.to_owned(),
            _ => text,
        }
    }

    /// Reads `host`, `host:port` or `[v6]:port`.
    pub fn parse(text: &str, default_port: u16) -> Result<Self, &'static str> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or("the bracket is not closed")?;
                (
                    host,
                    port.strip_prefix(':')
                        .or(if port.is_empty() { Some("") } else { None })
                        .ok_or("a colon is missing")?,
                )
            }
            None => match text.rsplit_once(':') {
                Some((host, _)) if host.contains(':') => return Err("an IPv6 address needs brackets"),
                Some((_, "")) => return Err("the port is missing"),
                Some((host, port)) => (host, port),
                None => (text, ""),
            },
        };
        if host.is_empty() || host.contains(|c: char| !c.is_ascii_graphic()) {
            return Err("the host is missing or not a name");
        }
        let port = if port.is_empty() {
            default_port
        } else {
            nonzero(port.parse().map_err(|_| "a port is a number from 1 to 65535")?)?
        };
        Ok(Self { host: host.to_owned(), port })
    }
}

fn nonzero(port: u16) -> Result<u16, &'static str> {
    if port == 0 { Err("a port is a number from 1 to 65535") } else { Ok(port) }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(address) => write!(f, "http://{address}"),
            Self::Https(address) => write!(f, "https://{address}"),
            Self::H2c(address) => write!(f, "h2c://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Service(service) => write!(f, "{service}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read_and_shown() {
        for (text, shown) in [
            ("3000", "http://localhost:3000"),
            ("host:3000", "http://host:3000"),
            ("http://host", "http://host:80"),
            ("http://host:8080/", "http://host:8080"),
            ("https://[::1]:8443", "https://[::1]:8443"),
            ("h2c://127.0.0.1:50051", "h2c://127.0.0.1:50051"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
            ("localhost", "http://localhost:80"),
            ("LocalHost", "http://LocalHost:80"),
            ("http://login", "http://login:80"),
            ("login:80", "http://login:80"),
            ("example.com", "http://example.com:80"),
        ] {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), shown);
        }
        for text in [
            "",
            "0",
            "70000",
            "ftp://x",
            "http://x/path",
            "host:",
            "host:x",
            "::1",
            "[::1",
            "unix:",
            "a b:1",
            "é:1",
            "login",
            "a b",
        ] {
            assert!(text.parse::<Target>().is_err(), "{text}");
        }
    }
}
