//! What the admin address answers. Every program of the machine can reach it, and a browser reaches it for any page: a page
//! may name it by a DNS name of its own (rebinding), or post a form to it.

use std::net::IpAddr;
use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use http::header::{AUTHORIZATION, HOST, HeaderName, ORIGIN, WWW_AUTHENTICATE};
use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};

use super::{API, Config, KEYS};
use crate::host::credentials;
use crate::names::KeyDigest;
use crate::observe::text;

/// The least length of a token. A random one of this length cannot be guessed.
const LEAST_TOKEN: usize = 16;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// The rules of the admin address.
#[derive(Debug)]
pub(crate) struct Access {
    hosts: Vec<String>,
    /// The digest of the token that changes need.
    token: Option<KeyDigest>,
    /// The socket that needs no token, for advice.
    socket: PathBuf,
}

/// Why a request is not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Denied {
    /// It names a host that is not the daemon's own.
    Host,
    /// A page of another site makes it.
    Site,
    /// It needs a token, and there is none.
    NoToken,
    /// It needs a token, and shows none or a wrong one.
    WrongToken,
}

impl Access {
    /// Reads the token. `socket` is the one that needs none.
    pub(crate) fn load(config: &Config, socket: PathBuf) -> anyhow::Result<Self> {
        let read = |file: &PathBuf| -> anyhow::Result<KeyDigest> {
            let token = credentials::read(file)?;
            ensure!(token.len() >= LEAST_TOKEN, "the token in {} has less than {LEAST_TOKEN} bytes", file.display());
            Ok(KeyDigest::of(&token))
        };
        let token = config.token_file.as_ref().map(read).transpose().context("admin.token_file")?;
        Ok(Self { hosts: config.hosts.clone(), token, socket })
    }

    /// Lets a request pass, or says why not.
    pub(super) fn check<B>(&self, request: &Request<B>) -> Result<(), Denied> {
        let target = request.uri().authority().map(|authority| Some(authority.as_str()));
        let hosts = request.headers().get_all(HOST).iter().map(|host| host.to_str().ok());
        let named: Vec<_> = target.into_iter().chain(hosts).map(Option::unwrap_or_default).collect();
        if named.is_empty() || !named.iter().all(|host| self.is_own(host)) {
            return Err(Denied::Host);
        }
        if !self.is_from_here(request.headers(), &named) {
            return Err(Denied::Site);
        }
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if reads && !is_about_keys(request.uri().path()) {
            return Ok(());
        }
        self.check_token(request.headers())
    }

    fn check_token(&self, headers: &HeaderMap) -> Result<(), Denied> {
        let token = self.token.as_ref().ok_or(Denied::NoToken)?;
        let shown = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        if shown.is_some_and(|shown| KeyDigest::of(shown) == *token) { Ok(()) } else { Err(Denied::WrongToken) }
    }

    /// The answer to a request that does not pass.
    pub(super) fn refusal(&self, denied: Denied) -> Response<String> {
        let (status, why) = match denied {
            Denied::Host => (
                StatusCode::MISDIRECTED_REQUEST,
                "the admin address answers to a loopback address, to localhost and to the names in [admin] hosts; the \
                 request names another host"
                    .to_owned(),
            ),
            Denied::Site => (StatusCode::FORBIDDEN, "the admin address answers no page of another site".to_owned()),
            Denied::NoToken => (
                StatusCode::FORBIDDEN,
                format!(
                    "keys and changes need a token here: name a file with one as token_file in [admin], or ask at the \
                     socket {}",
                    self.socket.display()
                ),
            ),
            Denied::WrongToken => (
                StatusCode::UNAUTHORIZED,
                "keys and changes need the token in token_file of [admin]: Authorization: Bearer TOKEN".to_owned(),
            ),
        };
        let mut response = text(why + "\n");
        *response.status_mut() = status;
        if denied == Denied::WrongToken {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"cokd\""));
        }
        response
    }

    /// Whether a host is an address of this machine's loopback, or a name that the operator listed.
    fn is_own(&self, host: &str) -> bool {
        let Ok(authority) = host.parse::<Authority>() else { return false };
        let name = authority.host();
        let literal = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
        literal.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
            || name.eq_ignore_ascii_case("localhost")
            || self.hosts.iter().any(|own| own.eq_ignore_ascii_case(literal))
    }

    /// Whether no browser says that a page of another site asks (Fetch standard, Fetch Metadata).
    fn is_from_here(&self, headers: &HeaderMap, named: &[&str]) -> bool {
        let fetched =
            headers.get_all(SEC_FETCH_SITE).iter().all(|site| matches!(site.as_bytes(), b"same-origin" | b"none"));
        let origins = headers.get_all(ORIGIN).iter().all(|origin| {
            let host = origin.to_str().ok().and_then(|origin| origin.strip_prefix("http://"));
            host.is_some_and(|host| self.is_own(host) && named.iter().any(|named| named.eq_ignore_ascii_case(host)))
        });
        fetched && origins
    }
}

/// Whether a path is about keys, which even reading needs the token for.
fn is_about_keys(path: &str) -> bool {
    path.strip_prefix(API).unwrap_or(path).starts_with(KEYS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "a-token-of-the-tests";

    fn access(token: Option<&str>) -> Access {
        let hosts = vec!["admin.example".to_owned(), "10.0.0.1".to_owned()];
        Access { hosts, token: token.map(KeyDigest::of), socket: "/state/admin.sock".into() }
    }

    fn status(access: &Access, method: &Method, path: &str, fields: &[(&str, &str)]) -> u16 {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let denied = access.check(&request.body(()).unwrap()).err();
        denied.map_or(200, |denied| access.refusal(denied).status().as_u16())
    }

    #[test]
    fn only_own_hosts_are_answered() {
        let host = |host| status(&access(None), &Method::GET, "/metrics", &[("host", host)]);
        for own in [
            "127.0.0.1:9180",
            "127.1.2.3",
            "[::1]:9180",
            "[::ffff:127.0.0.1]",
            "LocalHost",
            "Admin.example:1",
            "10.0.0.1",
        ] {
            assert_eq!(host(own), 200, "{own}");
        }
        for other in [
            "",
            "evil.example",
            "10.0.0.2",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "127.0.0.1@evil.example",
            "[::2]",
            "0.0.0.0",
        ] {
            assert_eq!(host(other), 421, "{other}");
        }
        let two = [("host", "localhost"), ("host", "evil.example")];
        assert_eq!(status(&access(None), &Method::GET, "/", &two), 421);
        assert_eq!(status(&access(None), &Method::GET, "/", &[]), 421);
        assert_eq!(status(&access(None), &Method::GET, "http://evil.example/", &two[..1]), 421);
    }

    #[test]
    fn no_page_of_another_site_is_answered() {
        let asks =
            |name, value| status(&access(None), &Method::GET, "/metrics", &[("host", "localhost:9180"), (name, value)]);
        for site in ["cross-site", "same-site", "other", ""] {
            assert_eq!(asks("sec-fetch-site", site), 403, "{site}");
        }
        for origin in
            ["null", "https://localhost:9180", "http://localhost", "http://evil.example", "http://127.0.0.1:9180"]
        {
            assert_eq!(asks("origin", origin), 403, "{origin}");
        }
        assert_eq!((asks("sec-fetch-site", "none"), asks("origin", "http://localhost:9180")), (200, 200));
    }

    #[test]
    fn keys_and_changes_need_the_token() {
        let (with, without) = (access(Some(TOKEN)), access(None));
        let host = ("host", "localhost");
        for (method, path) in [
            (Method::POST, "/reload"),
            (Method::GET, "/keys"),
            (Method::GET, "/api/v1/keys/x"),
            (Method::DELETE, "/keys/x"),
            (Method::PATCH, "/"),
        ] {
            assert_eq!(status(&without, &method, path, &[host, ("authorization", "Bearer ")]), 403);
            for wrong in ["", "Bearer", "Bearer ", "Bearer a", "Basic a-token-of-the-tests", TOKEN] {
                assert_eq!(status(&with, &method, path, &[host, ("authorization", wrong)]), 401, "{wrong}");
            }
            let right = format!("bearer {TOKEN}");
            assert_eq!(status(&with, &method, path, &[host, ("authorization", &right)]), 200);
        }
        for open in ["/health", "/", "/api/v1/tunnels", "/api/v1/events"] {
            assert_eq!(status(&without, &Method::GET, open, &[host]), 200, "{open}");
        }
    }

    #[test]
    fn a_token_comes_from_its_file_and_is_long() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        let load = || Access::load(&Config { hosts: Vec::new(), token_file: Some(file.clone()) }, "s".into());
        assert!(load().is_err());
        std::fs::write(&file, "short\n").unwrap();
        assert!(format!("{:#}", load().unwrap_err()).contains("less than 16 bytes"));
        std::fs::write(&file, format!("{TOKEN}\n")).unwrap();
        assert!(load().unwrap().token == Some(KeyDigest::of(TOKEN)));
    }
}
