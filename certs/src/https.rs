//! A small HTTP client with one connection for each request, a time limit, and a limit on the size of an answer.
//!
//! It follows no redirects and keeps no connections.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cok_host::trust::NoSystemRoots;
use cok_host::{dial, trust};
use http::header::HOST;
use http::{HeaderValue, Request, Response};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Body;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

use crate::error::Error;

/// The longest that a request may take with its connection. Authorities answer within seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest that one address may take to accept a connection. Several fit into [`REQUEST_TIMEOUT`].
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// The longest answer that is read, in bytes. Every certificate chain is shorter.
const LONGEST_BODY: usize = 1024 * 1024;

/// The client. Its clones share the TLS configuration.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    tls: Arc<ClientConfig>,
    /// Set if the system trusts no authority. Requests by `https://` then fail with this error.
    untrusting: Option<NoSystemRoots>,
}

impl Client {
    /// Trusts only the authorities in `ca_file`, or those of the system without one.
    pub(crate) fn new(ca_file: Option<&Path>) -> Result<Self, Error> {
        match ca_file {
            Some(path) => Self::trusting(Ok(trust::file(path)?)),
            None => Self::trusting(trust::system()),
        }
    }

    fn trusting(roots: Result<RootCertStore, NoSystemRoots>) -> Result<Self, Error> {
        let untrusting = roots.as_ref().err().copied();
        let mut tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Error::Generate(error.to_string()))?
            .with_root_certificates(roots.unwrap_or_else(|_| RootCertStore::empty()))
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: Arc::new(tls), untrusting })
    }

    /// Sends a request to its URI, which is `https://` or `http://`. Errors name the URI.
    pub(crate) async fn send<B>(&self, request: Request<B>) -> Result<Response<Bytes>, String>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let uri = request.uri().clone();
        match tokio::time::timeout(REQUEST_TIMEOUT, self.connect(request)).await {
            Ok(response) => response.map_err(|error| format!("{uri}: {error}")),
            Err(_) => Err(format!("{uri}: no answer within {} s", REQUEST_TIMEOUT.as_secs())),
        }
    }

    async fn connect<B>(&self, request: Request<B>) -> io::Result<Response<Bytes>>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let uri = request.uri();
        let wrong = || io::Error::other("this is no https:// or http:// address");
        let (Some(scheme @ ("https" | "http")), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
            return Err(wrong());
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let secure = scheme == "https";
        let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
        let stream = dial::by_name(&host, port, CONNECT_TIMEOUT).await?;
        if !secure {
            return exchange(stream, request).await;
        }
        if let Some(why) = self.untrusting {
            return Err(io::Error::other(format!("{why} or set ca_file")));
        }
        let name = ServerName::try_from(host).map_err(|_| wrong())?;
        exchange(TlsConnector::from(self.tls.clone()).connect(name, stream).await?, request).await
    }
}

async fn exchange<B>(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    mut request: Request<B>,
) -> io::Result<Response<Bytes>>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
    let host = request.uri().authority().map_or("", |authority| authority.as_str());
    let host = HeaderValue::try_from(host).map_err(io::Error::other)?;
    request.headers_mut().insert(HOST, host);
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(io::Error::other)?;
    let exchange = async {
        let (parts, body) = sender.send_request(request).await.map_err(io::Error::other)?.into_parts();
        let body = Limited::new(body, LONGEST_BODY).collect().await.map_err(io::Error::other)?.to_bytes();
        Ok(Response::from_parts(parts, body))
    };
    tokio::pin!(exchange);
    tokio::select! {
        response = &mut exchange => response,
        // The connection may end with the response, and the exchange then has all of it.
        ended = connection => match ended {
            Ok(()) => exchange.await,
            Err(error) => Err(io::Error::other(error)),
        },
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn a_system_without_trust_roots_is_named_as_the_reason() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/dir", server.local_addr().unwrap());
        let request = Request::get(&url).body(Full::<Bytes>::default()).unwrap();
        let error = Client::trusting(Err(NoSystemRoots)).unwrap().send(request).await.unwrap_err();
        assert_eq!(error, format!("{url}: {NoSystemRoots} or set ca_file"));
    }

    /// The server accepts the connection and stays silent, before TLS or after the request.
    #[tokio::test(start_paused = true)]
    async fn a_request_that_is_never_answered_ends() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = silent.local_addr().unwrap();
        for scheme in ["http", "https"] {
            let url = format!("{scheme}://{address}/dir");
            let began = Instant::now();
            let request = Request::get(&url).body(Full::<Bytes>::default()).unwrap();
            let error = Client::new(None).unwrap().send(request).await.unwrap_err();
            assert_eq!(error, format!("{url}: no answer within 30 s"));
            assert!(began.elapsed().abs_diff(REQUEST_TIMEOUT) < Duration::from_secs(1));
        }
    }
}
