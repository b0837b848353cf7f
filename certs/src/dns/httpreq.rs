//! TXT records by a server of the operator's, asked as lego's provider `httpreq` asks it: `POST <url>/present` and
//! `POST <url>/cleanup` with `{"fqdn": …, "value": …}`.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{BoxFuture, Solver, SolverError, challenge_name, parse_name, propagation};
use crate::Error;

/// How long a request may take with its connection. The server may ask a provider's interface before it answers.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The longest answer that is read; it is looked at only to say what went wrong.
const LONGEST_ANSWER: usize = 64 * 1024;
/// How much of it an error holds, in characters.
const LONGEST_EXCERPT: usize = 300;

/// What an operator sets.
#[derive(Clone, Default)]
pub struct Settings {
    /// Where `/present` and `/cleanup` are below: `https://…`, or `http://…` on a network that may read along.
    pub url: String,
    /// The name for basic authentication (RFC 7617); none goes without.
    pub username: Option<String>,
    /// The password for it.
    pub password: Option<String>,
    /// The authorities that the server's certificate may come from, in PEM; none trusts those of the system.
    pub ca_file: Option<PathBuf>,
}

/// The solver. Its debug output holds no secret.
pub struct HttpReq {
    fqdn: String,
    url: String,
    authority: http::uri::Authority,
    authorization: Option<HeaderValue>,
    /// Nothing for `http://`.
    tls: Option<TlsConnector>,
    timeout: Duration,
}

#[derive(Serialize)]
struct Change<'a> {
    fqdn: &'a str,
    value: &'a str,
}

impl HttpReq {
    /// For the challenges of a domain.
    pub fn new(domain: &str, settings: Settings) -> Result<Self, Error> {
        let Settings { url, username, password, ca_file } = settings;
        let wrong = |why: &str| Error::invalid(url.as_str(), why);
        let host = url.split_once("://").map_or(url.as_str(), |(_, rest)| rest).split('/').next().unwrap_or_default();
        if host.contains('@') {
            // The message leaves the URL out, as there may be a password in it.
            return Err(Error::invalid("the URL", "name and password are settings of their own"));
        }
        let uri: Uri = url.parse().map_err(|_| wrong("it is no URL"))?;
        let secure = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(wrong("it is no http:// or https:// URL")),
        };
        let authority = uri.authority().cloned().ok_or_else(|| wrong("it names no host"))?;
        if uri.query().is_some() {
            return Err(wrong("nothing can be put behind its `?`"));
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
            authority,
            authorization: authorization.transpose().map_err(|error| wrong(&error.to_string()))?,
            tls: if secure { Some(connector(ca_file)?) } else { None },
            timeout: TIMEOUT,
        })
    }

    async fn change(&self, action: &str, value: &str) -> Result<(), SolverError> {
        let what = format!("{}/{action}", self.url);
        let request = self.request(&what, value).map_err(SolverError::Setup)?;
        let response = timeout(self.timeout, self.send(request))
            .await
            .unwrap_or_else(|_| Err(io::Error::other(format!("no answer within {} s", self.timeout.as_secs_f32()))));
        let response = response.map_err(|error| SolverError::Unavailable(format!("{what}: {error}")))?;
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
        let uri: Uri = url.parse().map_err(|error| format!("{url}: {error}"))?;
        let change = Change { fqdn: &self.fqdn, value };
        let body = serde_json::to_vec(&change).map_err(|error| error.to_string())?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::builder().method(Method::POST).uri(path);
        let request = request.header(HOST, self.authority.as_str()).header(CONTENT_TYPE, "application/json");
        let mut request = request.body(Full::from(body)).map_err(|error| error.to_string())?;
        if let Some(authorization) = &self.authorization {
            request.headers_mut().insert(AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> io::Result<Response<Bytes>> {
        let host = self.authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let port = self.authority.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let stream = TcpStream::connect((host.as_str(), port)).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            Some(tls) => {
                let name = ServerName::try_from(host).map_err(io::Error::other)?;
                exchange(tls.connect(name, stream).await?, request).await
            }
            None => exchange(stream, request).await,
        }
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

/// Trusts the authorities in `ca_file` alone, else those of the system.
fn connector(ca_file: Option<PathBuf>) -> Result<TlsConnector, Error> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = ca_file {
        for certificate in crate::files::chain(&path)? {
            roots.add(certificate).map_err(|error| Error::invalid(&path, error.to_string()))?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    let mut tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Generate(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(tls)))
}

/// One request and its response on a connection that ends with them.
async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> io::Result<Response<Bytes>> {
    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
    let (mut sender, connection) = handshake.await.map_err(io::Error::other)?;
    let exchange = async {
        let (parts, body) = sender.send_request(request).await.map_err(io::Error::other)?.into_parts();
        let body = Limited::new(body, LONGEST_ANSWER).collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Response::from_parts(parts, body))
    };
    tokio::pin!(exchange);
    tokio::select! {
        response = &mut exchange => response,
        // The connection may end with the response; then the exchange has all of it.
        ended = connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(io::Error::other(error)),
        },
    }
}

/// The beginning of an answer on one line, for an error.
fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let said: String = words.chars().filter(|character| !character.is_control()).take(LONGEST_EXCERPT).collect();
    if said.is_empty() { said } else { format!(" ({said})") }
}

#[cfg(test)]
mod tests;
