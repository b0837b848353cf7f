//! The HTTP client for the collector. It keeps one connection, over TCP or TLS, and makes a new one when that has ended.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cok_host::{dial, trust};
use http::header::HOST;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError};
use parking_lot::Mutex;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

/// How long one address may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes. A collector says little.
const MAX_ANSWER: usize = 64 * 1024;

/// A collector.
#[derive(Debug)]
pub(super) struct Collector {
    host: String,
    port: u16,
    /// `None` for plain HTTP.
    tls: Option<(TlsConfig, ServerName<'static>)>,
    /// The connection that is idle.
    idle: Mutex<Option<SendRequest<Full<Bytes>>>>,
    /// Why the last request failed. The library keeps that to itself.
    failure: Mutex<Option<String>>,
}

/// Its name keeps the fields of rustls out of the debug output.
#[derive(Clone)]
struct TlsConfig(Arc<ClientConfig>);

impl std::fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsConfig")
    }
}

impl Collector {
    /// Of an `http://` or `https://` address. TLS trusts the authorities in `certificate`, or else those of the system.
    pub(super) fn new(endpoint: &Uri, certificate: Option<&Path>) -> Result<Self, String> {
        let host = endpoint.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']').to_owned();
        let is_secure = endpoint.scheme_str() == Some("https");
        let port = endpoint.port_u16().unwrap_or(if is_secure { 443 } else { 80 });
        let tls = if is_secure {
            let name = ServerName::try_from(host.clone()).map_err(|_| format!("\"{host}\" is not a host"))?;
            Some((tls(certificate)?, name))
        } else {
            None
        };
        Ok(Self { host, port, tls, idle: Mutex::default(), failure: Mutex::default() })
    }

    /// Why the last request failed, if it did not get an answer.
    pub(super) fn failure(&self) -> Option<String> {
        self.failure.lock().take()
    }

    /// Sends a request over the idle connection, or over a new one.
    async fn exchange(&self, request: Request<Full<Bytes>>) -> io::Result<Response<Bytes>> {
        let idle = self.idle.lock().take();
        let mut sender = match idle {
            Some(idle) => idle,
            None => self.connect().await?,
        };
        if sender.ready().await.is_err() {
            sender = self.connect().await?;
        }
        let (parts, body) = sender.send_request(request).await.map_err(io::Error::other)?.into_parts();
        let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(io::Error::other)?.to_bytes();
        *self.idle.lock() = Some(sender);
        Ok(Response::from_parts(parts, body))
    }

    async fn connect(&self) -> io::Result<SendRequest<Full<Bytes>>> {
        let stream = dial::by_name(&self.host, self.port, CONNECT_TIMEOUT).await?;
        match &self.tls {
            None => speak(stream).await,
            Some((config, name)) => {
                speak(TlsConnector::from(config.0.clone()).connect(name.clone(), stream).await?).await
            }
        }
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let sent = async {
            let mut request = request.map(Full::new);
            let host = request.uri().authority().map_or("", |authority| authority.as_str());
            let host = HeaderValue::try_from(host).map_err(io::Error::other)?;
            request.headers_mut().insert(HOST, host);
            let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
            *request.uri_mut() = path.parse().map_err(io::Error::other)?;
            self.exchange(request).await
        };
        let sent = sent.await;
        *self.failure.lock() = match &sent {
            Ok(response) if response.status().is_success() => None,
            Ok(response) => Some(format!("it answered {}", response.status())),
            Err(error) => Some(error.to_string()),
        };
        sent.map_err(Into::into)
    }
}

fn tls(certificate: Option<&Path>) -> Result<TlsConfig, String> {
    let roots = match certificate {
        Some(path) => trust::file(path).map_err(|error| error.to_string())?,
        None => trust::system().map_err(|error| format!("{error} or set OTEL_EXPORTER_OTLP_CERTIFICATE"))?,
    };
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConfig(Arc::new(config)))
}

/// Begins to speak HTTP/1.1. The connection runs in a task of its own.
async fn speak(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> io::Result<SendRequest<Full<Bytes>>> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    // Its failure is the request's, which has it.
    drop(tokio::spawn(connection));
    Ok(sender)
}
