//! Publishes TXT records by a server of the operator's. It is called like lego's provider `httpreq`: `POST
//! <url>/present` and `POST <url>/cleanup` with `{"fqdn": …, "value": …}`.

use std::fmt;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode, Uri};
use http_body_util::Full;
use serde::Serialize;

use super::{BoxFuture, Solver, SolverError, challenge_name, parse_name, propagation};
use crate::error::Error;
use crate::https::Client;

/// How many characters of an answer an error contains.
const LONGEST_EXCERPT: usize = 300;

/// The operator's settings.
#[derive(Clone, Default)]
pub struct Settings {
    /// The URL above `/present` and `/cleanup`: `https://…`, or `http://…` in a network that may read along.
    pub url: String,
    /// The user name for basic authentication (RFC 7617). Without it, there is none.
    pub username: Option<String>,
    /// The password for it.
    pub password: Option<String>,
    /// The authorities of the server's certificate, in PEM. Without it, those of the system are trusted.
    pub ca_file: Option<PathBuf>,
}

/// The solver. Its debug output contains no secret.
pub struct HttpReq {
    fqdn: String,
    url: String,
    authorization: Option<HeaderValue>,
    client: Client,
}

#[derive(Serialize)]
struct Change<'a> {
    fqdn: &'a str,
    value: &'a str,
}

impl HttpReq {
    /// A solver for the challenges of a domain.
    pub fn new(domain: &str, settings: Settings) -> Result<Self, Error> {
        let Settings { url, username, password, ca_file } = settings;
        let wrong = |why: &str| Error::invalid(url.as_str(), why);
        let host = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest).split('/').next().unwrap_or_default();
        if host.contains('@') {
            // The message omits the URL, because it may contain a password.
            return Err(Error::invalid("the URL", "name and password are settings of their own"));
        }
        let uri: Uri = url.parse().map_err(|_| wrong("it is no URL"))?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.authority().is_none() {
            return Err(wrong("it is no http:// or https:// URL"));
        }
        if uri.query().is_some() {
            return Err(wrong("it must not have a query (`?`)"));
        }
        let authorization = username.map(|name| {
            let pair = format!("{name}:{}", password.unwrap_or_default());
            HeaderValue::try_from(format!("Basic {}", STANDARD.encode(pair))).map(|mut value| {
                value.set_sensitive(true);
                value
            })
        });
        Ok(Self {
            fqdn: challenge_name(domain),
            url: url.trim_end_matches('/').to_owned(),
            authorization: authorization.transpose().map_err(|error| wrong(&error.to_string()))?,
            client: Client::new(ca_file.as_deref())?,
        })
    }

    async fn change(&self, action: &str, value: &str) -> Result<(), SolverError> {
        let what = format!("{}/{action}", self.url);
        let request = self.request(&what, value).map_err(SolverError::Setup)?;
        let response = self.client.send(request).await.map_err(SolverError::Unavailable)?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let said = excerpt(response.body());
        let why = format!("{what} answers {status}{said}");
        Err(match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                SolverError::Setup(format!("{why}: look at username and password"))
            }
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                SolverError::Setup(format!("{why}: look at the URL"))
            }
            _ if status.is_redirection() => SolverError::Setup(format!("{why}: set the URL that it leads to")),
            _ => SolverError::Unavailable(why),
        })
    }

    fn request(&self, url: &str, value: &str) -> Result<Request<Full<Bytes>>, String> {
        let wrong = |error: &dyn fmt::Display| format!("{url}: {error}");
        let change = Change { fqdn: &self.fqdn, value };
        let body = serde_json::to_vec(&change).map_err(|error| wrong(&error))?;
        let request = Request::post(url).header(CONTENT_TYPE, "application/json");
        let mut request = request.body(Full::from(body)).map_err(|error| wrong(&error))?;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }
}

impl Solver for HttpReq {
    fn present<'a>(&'a self, value: &'a str) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(self.change("present", value))
    }

    fn cleanup<'a>(&'a self, value: &'a str) -> BoxFuture<'a, Result<(), SolverError>> {
        Box::pin(self.change("cleanup", value))
    }

    fn settled<'a>(&'a self, values: &'a [String]) -> BoxFuture<'a, ()> {
        Box::pin(async {
            if let Ok(name) = parse_name(&self.fqdn) {
                propagation::settled(&name, values, None).await;
            }
        })
    }
}

impl fmt::Debug for HttpReq {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("HttpReq").field("fqdn", &self.fqdn).field("url", &self.url).finish_non_exhaustive()
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Settings")
            .field("username", &self.username)
            .field("ca_file", &self.ca_file)
            .finish_non_exhaustive()
    }
}

/// The start of an answer in one line, for an error.
fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let said: String = words.chars().filter(|character| !character.is_control()).take(LONGEST_EXCERPT).collect();
    if said.is_empty() { said } else { format!(" ({said})") }
}

#[cfg(test)]
mod tests;
