//! HTTPS to the ACME server: one connection a request, each with a time-out, and what `Retry-After` said is kept.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, RETRY_AFTER};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper_util::rt::TokioIo;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// How long a request may take with its connection; authorities answer within seconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Longer than any certificate chain.
const LONGEST_BODY: usize = 1024 * 1024;

/// The moment that the server named last with 429 or 503.
pub(super) type RetryAfter = Arc<Mutex<Option<SystemTime>>>;

/// The client. Its clones share the TLS configuration and what `Retry-After` said.
#[derive(Clone)]
pub(super) struct Client {
    tls: Arc<ClientConfig>,
    retry_after: RetryAfter,
}

impl Client {
    /// Trusts the authorities in `ca_file` alone, else those of the system.
    pub(super) fn new(ca_file: Option<&Path>) -> Result<Self, crate::Error> {
        let mut roots = RootCertStore::empty();
        if let Some(path) = ca_file {
            for certificate in crate::files::chain(path)? {
                roots.add(certificate).map_err(|error| crate::Error::invalid(path, error.to_string()))?;
            }
        } else {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let mut tls = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| crate::Error::Generate(error.to_string()))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: Arc::new(tls), retry_after: RetryAfter::default() })
    }

    /// What the server named since this was last asked.
    pub(super) fn take_retry_after(&self) -> Option<SystemTime> {
        self.retry_after.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    async fn send(self, mut request: Request<BodyWrapper<Bytes>>) -> io::Result<Response<Bytes>> {
        let uri = request.uri().clone();
        let wrong = || io::Error::other(format!("{uri} is no https:// address"));
        let (Some("https"), Some(authority)) = (uri.scheme_str(), uri.authority()) else { return Err(wrong()) };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host.clone()).map_err(|_| wrong())?;
        let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(443))).await?;
        let stream = TlsConnector::from(self.tls.clone()).connect(name, stream).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        let host = HeaderValue::try_from(authority.as_str()).map_err(|_| wrong())?;
        request.headers_mut().insert(HOST, host);
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path.parse().map_err(|_| wrong())?;
        let exchange = async {
            let (parts, body) = sender.send_request(request).await.map_err(io::Error::other)?.into_parts();
            let body = Limited::new(body, LONGEST_BODY).collect().await.map_err(io::Error::other)?.to_bytes();
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

    fn note(&self, response: &Response<Bytes>) {
        if !matches!(response.status(), StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            return;
        }
        let value = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::trim);
        if let Some(at) = value.and_then(parse_retry_after) {
            *self.retry_after.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
        }
    }
}

/// Seconds or a date (RFC 9110, section 10.2.3).
fn parse_retry_after(value: &str) -> Option<SystemTime> {
    match value.parse::<u64>() {
        Ok(seconds) => SystemTime::now().checked_add(Duration::from_secs(seconds)),
        Err(_) => httpdate::parse_http_date(value).ok(),
    }
}

impl HttpClient for Client {
    fn request(
        &self,
        request: Request<BodyWrapper<Bytes>>,
    ) -> Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>> {
        let client = self.clone();
        let uri = request.uri().clone();
        let failed = move |why: String| Error::Other(format!("{uri}: {why}").into());
        Box::pin(async move {
            let response = match tokio::time::timeout(REQUEST_TIMEOUT, client.clone().send(request)).await {
                Ok(response) => response.map_err(|error| failed(error.to_string()))?,
                Err(_) => return Err(failed(format!("no answer within {} s", REQUEST_TIMEOUT.as_secs()))),
            };
            client.note(&response);
            let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
            // A proxy or an overloaded server speaks HTML; its status says more than that it is no JSON.
            if !response.status().is_success() && !kind.contains("json") {
                return Err(failed(format!("answered {}", response.status())));
            }
            let (parts, body) = response.into_parts();
            Ok(BytesResponse { parts, body: Box::new(body) })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let soon = parse_retry_after("120").unwrap().duration_since(SystemTime::now()).unwrap();
        assert!(soon > Duration::from_secs(110) && soon <= Duration::from_secs(120));
        let date = parse_retry_after("Fri, 31 Dec 1999 23:59:59 GMT").unwrap();
        assert_eq!(date.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs(), 946_684_799);
        for nonsense in ["", "soon", "-1", "99999999999999999999"] {
            assert!(parse_retry_after(nonsense).is_none(), "{nonsense}");
        }
        assert!(parse_retry_after(&u64::MAX.to_string()).is_none());
    }
}
